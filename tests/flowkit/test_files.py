"""A final name means a complete file, whatever happens while it is written."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from flowkit.errors import BusyError
from flowkit.files import exclusive_lock, replacing, write_atomically

if TYPE_CHECKING:
    from pathlib import Path


def test_text_is_written_as_utf8_with_its_own_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "table.csv"
    write_atomically(path, "é,😀\r\nb\n")
    assert path.read_bytes() == "é,😀\r\nb\n".encode()
    assert os.listdir(path.parent) == ["table.csv"]


def test_a_file_is_replaced_only_when_the_block_ends_well(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, b"old")
    with replacing(path) as part:
        part.write_bytes(b"new")
        assert part.name == "a.json.part"
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_interrupted_block_leaves_the_old_file_and_no_part(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, b"old")

    def interrupted() -> None:
        with replacing(path) as part:
            part.write_bytes(b"half")
            raise error

    with pytest.raises(error):
        interrupted()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_block_that_writes_nothing_is_an_error_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, b"old")
    with pytest.raises(FileNotFoundError), replacing(path):
        pass
    assert path.read_bytes() == b"old"


def test_a_link_at_the_part_name_is_not_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "a.json.part").symlink_to(victim)
    write_atomically(tmp_path / "a.json", b"new")
    assert victim.read_bytes() == b"precious"
    assert (tmp_path / "a.json").read_bytes() == b"new"


def test_an_error_without_a_file_gets_its_name(tmp_path: Path) -> None:
    """Such as that of a full disk, which says only that no space is left."""
    with pytest.raises(OSError, match=r"No space left on device: '.*wanted\.txt'"), replacing(tmp_path / "wanted.txt"):
        raise OSError(28, "No space left on device")
    with pytest.raises(OSError, match="'other'"), replacing(tmp_path / "wanted.txt"):
        raise OSError(28, "No space left on device", "other")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no fcntl")
def test_only_one_process_holds_a_lock_and_its_file_is_removed(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with exclusive_lock(lock, "packs 'x'"):
        with pytest.raises(BusyError, match="another process packs 'x'"), exclusive_lock(lock, "packs 'x'"):
            pass
        assert lock.exists()
    assert not lock.exists()
    lock.touch()  # left by a process that was killed
    with exclusive_lock(lock, "packs 'x'"):
        pass
    assert list(tmp_path.iterdir()) == []


_LEAVES_A_CHILD = """
import os, signal, sys, time
from pathlib import Path
from flowkit.files import exclusive_lock
with exclusive_lock(Path(sys.argv[1]), "waits"):
    if not os.fork():
        Path(sys.argv[1] + ".child").touch()
        sys.stdin.read()
        os._exit(0)
    while not Path(sys.argv[1] + ".child").exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no fcntl")
def test_a_forked_child_that_outlives_its_parent_holds_no_lock(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", _LEAVES_A_CHILD, str(lock)], stdin=subprocess.PIPE) as process:
        assert process.wait(timeout=30) == -9
        with exclusive_lock(lock, "waits"):  # while the child still reads what nobody has closed
            pass
