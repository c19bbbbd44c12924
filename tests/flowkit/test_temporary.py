"""Temporary folders: a killed process leaves nothing for longer than until the next run, and nothing of others is touched."""

from __future__ import annotations

import mmap
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from first_lines import WAITS_WITH_A_PIECE, environment_with
from small_videos import write_video

from flowkit import temporary
from flowkit.temporary import process_folder, remove_leftover_folders, temporary_folder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no process can be asked there whether it lives")

MAKES_A_FOLDER = """
import os, signal
from flowkit.temporary import temporary_folder
with temporary_folder("gpu") as folder:
    (folder / "shared").write_bytes(bytes(9))
    print(folder, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, which other programs use too."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    remove_leftover_folders.cache_clear()
    return tmp_path


def test_a_folder_is_removed_at_the_end_and_that_of_a_killed_process_by_the_next_run(shared: Path) -> None:
    done = subprocess.run([sys.executable, "-c", MAKES_A_FOLDER], stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert [str(path) for path in shared.iterdir()] == [done.stdout.strip()]
    with temporary_folder("sample") as folder:
        assert list(shared.iterdir()) == [folder]
    assert list(shared.iterdir()) == []


def test_what_belongs_to_others_or_to_a_living_process_stays(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    machine = temporary._machine()
    (shared / "precious").mkdir()
    (shared / "precious" / "file").touch()
    (shared / f"flowkit-gpu-{machine}-{ended.pid}-abcdefgh").symlink_to(shared / "precious")
    (shared / f"flowkit-gpu-{machine}-{ended.pid}-abcdefgi").touch()
    for name in (
        f"flowkit-gpu-{machine}-{os.getpid()}-abcdefgh",
        f"flowkit-gpu-00000000-{ended.pid}-abcdefgh",
        f"flowkit-gpu-{machine}-{ended.pid}-notes for my thesis",
        f"other-gpu-{machine}-{ended.pid}-abcdefgh",
    ):
        (shared / name).mkdir()
    before = sorted(shared.rglob("*"))
    remove_leftover_folders()
    assert sorted(shared.rglob("*")) == before
    (shared / f"flowkit-gpu-{machine}-{ended.pid}-abcdefgj").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    remove_leftover_folders.cache_clear()
    remove_leftover_folders()
    assert (shared / f"flowkit-gpu-{machine}-{ended.pid}-abcdefgj").exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_old_files_that_name_no_process_are_removed_if_none_has_them(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["flowkit-board-abcdefgh", "flowkit-progress-12345678", "flowkit-board-in_use00"]
    others = ["flowkit-board-notes.txt", "my-flowkit-board-abcdefgh"]
    for name in (*names, *others):
        (shared / name).write_bytes(bytes(64))
    (shared / "flowkit-board-linklink").symlink_to(shared / others[0])
    kept = {*others, "flowkit-board-linklink"}

    def left() -> set[str]:
        remove_leftover_folders.cache_clear()
        remove_leftover_folders()
        return {path.name for path in shared.iterdir()}

    monkeypatch.setattr(temporary, "_sees_all_processes", lambda: True)
    assert left() == {*names, *kept}  # they are new
    monkeypatch.setattr(temporary, "_OLD_SECONDS", -1)
    monkeypatch.setattr(temporary, "_sees_all_processes", lambda: False)
    assert left() == {*names, *kept}
    monkeypatch.setattr(temporary, "_sees_all_processes", lambda: True)
    with monkeypatch.context() as patch:
        patch.setattr(os, "getuid", lambda: 12345)
        assert left() == {*names, *kept}
    with (shared / names[2]).open("r+b") as file, mmap.mmap(file.fileno(), 64):
        assert left() == {names[2], *kept}
    assert left() == kept


def test_the_folder_of_a_process_is_removed_when_it_ends(shared: Path) -> None:
    code = "from flowkit.temporary import process_folder as f; print(f(), f() == f(), f().is_dir())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[1:] == ["True", "True"]
    assert list(shared.iterdir()) == []
    assert process_folder.cache_info().currsize in (0, 1)


def shared_memory_of(pids: set[int]) -> list[str]:
    """Return the names of this machine's POSIX semaphores and shared memory that hold the number of a process."""
    with suppress(FileNotFoundError):
        return [name for name in os.listdir("/dev/shm") if pids & set(map(int, re.findall(r"\d+", name)))]
    return []


@pytest.fixture(scope="module")
def long_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("long") / "long.avi", 128)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc, to find the worker processes")
@pytest.mark.parametrize("whole_group", [False, True])
def test_a_killed_extraction_leaves_nothing_in_the_temporary_folder_or_shared_memory(
    shared: Path, tmp_path_factory: pytest.TempPathFactory, long_video: Path, whole_group: bool
) -> None:
    folder = tmp_path_factory.mktemp("work")
    (folder / "videos" / "c").mkdir(parents=True)
    os.link(long_video, folder / "videos" / "c" / "long.avi")
    here = environment_with(folder / "waits", WAITS_WITH_A_PIECE)
    line = [sys.executable, "-m", "flowkit.cli", "extract", "videos", "--short-side", "32", "--jobs", "2", "--device", "cpu"]
    with subprocess.Popen(line, cwd=folder, env=here, stderr=subprocess.PIPE, start_new_session=True) as process:
        assert process.stderr is not None
        while not list(folder.glob("flowkit-data/clips/.pieces/*/*.flow")):
            assert process.poll() is None
            time.sleep(0.02)
        children = {int(name) for name in os.listdir("/proc") if name.isdecimal() and _parent(int(name)) == process.pid}
        assert len(children) == 2
        os.killpg(process.pid, signal.SIGKILL) if whole_group else process.kill()
        process.stderr.read()  # returns when no process holds the pipe any more
    assert list(shared.iterdir()) == []
    assert shared_memory_of({process.pid, *children}) == []


def _parent(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0
