"""Processes agree on who writes what, and a lock ends with the process that holds it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from flowkit import locks
from flowkit.errors import BusyError
from flowkit.locks import exclusive_lock, is_held, shared_lock

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no fcntl")


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
from flowkit.locks import exclusive_lock
with exclusive_lock(Path(sys.argv[1]), "waits"):
    if not os.fork():
        Path(sys.argv[1] + ".child").touch()
        sys.stdin.read()
        os._exit(0)
    while not Path(sys.argv[1] + ".child").exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_forked_child_that_outlives_its_parent_holds_no_lock(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", _LEAVES_A_CHILD, str(lock)], stdin=subprocess.PIPE) as process:
        assert process.wait(timeout=1000) == -9
        with exclusive_lock(lock, "waits"):  # while the child still reads what nobody has closed
            pass


def test_several_share_a_lock_and_the_last_removes_its_file(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with shared_lock(lock, "reads 'x'"):
        with shared_lock(lock, "reads 'x'"):
            pass
        assert lock.exists()
        with pytest.raises(BusyError, match="another process reads 'x': wait"), exclusive_lock(lock, "packs 'x'"):
            pass
        assert not is_held(lock)  # not by one alone
    assert not lock.exists()


def test_who_is_refused_learns_what_the_other_process_does(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with exclusive_lock(lock, "imports into 'x'"):
        assert is_held(lock).startswith("imports into 'x' (process ")
        with (
            pytest.raises(BusyError, match=f"another process imports into 'x' .process {os.getpid()} on"),
            exclusive_lock(lock, "packs 'x'"),
        ):
            pass
        lock.write_bytes(b"\x1b[31m")  # not what flowkit writes
        with pytest.raises(BusyError, match="another process packs 'x': wait"), exclusive_lock(lock, "packs 'x'"):
            pass
    assert is_held(lock) == ""


def test_a_reader_can_wait_for_a_writer_and_says_so_once(tmp_path: Path) -> None:
    lock, said, began, end = tmp_path / ".lock", list[str](), threading.Event(), threading.Event()

    def write() -> None:
        with exclusive_lock(lock, "packs 'x'"):
            began.set()
            end.wait(1000)

    writer = threading.Thread(target=write)
    writer.start()
    assert began.wait(1000)

    def waits(what: str) -> None:
        said.append(what)
        end.set()

    with shared_lock(lock, "verifies 'x'", on_wait=waits):
        assert not is_held(lock)
    writer.join()
    assert len(said) == 1
    assert said[0].startswith("packs 'x'")


def test_locks_that_come_and_go_never_refuse_who_shares_them(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    faults: list[BaseException] = []

    def share() -> None:
        try:
            for _ in range(200):
                with shared_lock(lock, "shares"):
                    assert lock.exists()
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=share) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert not lock.exists()


def test_where_there_are_no_locks_flowkit_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    locks._say_unavailable.cache_clear()
    for name in ("a", "b"):
        with exclusive_lock(tmp_path / name, "packs"), shared_lock(tmp_path / name, "reads"):
            pass
    assert [record.message[:40] for record in caplog.records] == ["this file system has no locks (No locks "]
    assert list(tmp_path.iterdir()) == []


def test_a_link_in_place_of_a_lock_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="lock"), exclusive_lock(tmp_path / "lock", "packs"):
        pass
    assert not (tmp_path / "elsewhere").exists()
