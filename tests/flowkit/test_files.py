"""A final name means a complete file, whatever happens while it is written."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from flowkit import files
from flowkit.files import remove_leftovers, replacing, write_atomically, write_if_new

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
        assert re.fullmatch(rf"a\.json\.\w+-[0-9a-f]{{8}}-{os.getpid()}-[0-9a-f]{{8}}\.part", part.name)
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
    with pytest.raises(OSError, match=r"nothing was written: '.*a\.json'"), replacing(path):
        pass
    assert path.read_bytes() == b"old"
    write_atomically(path, b"")
    assert path.read_bytes() == b""


def test_a_link_at_the_temporary_name_is_not_written_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "guessed.part").symlink_to(victim)
    monkeypatch.setattr("flowkit.files.temporary_name", lambda path: "guessed.part")
    with pytest.raises(FileExistsError):
        write_atomically(tmp_path / "a.json", b"new")
    assert victim.read_bytes() == b"precious"
    assert not (tmp_path / "a.json").exists()


def test_two_writers_of_one_name_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with replacing(path) as first:
        first.write_bytes(b"begun fir")
        write_atomically(path, b"second")
        first.write_bytes(b"first, complete")
        assert path.read_bytes() == b"second"
    assert path.read_bytes() == b"first, complete"
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("name", ["n" * 255, "ä" * 127, "名" * 85, "x.h5"])
@pytest.mark.parametrize("host", ["node.cluster.example", "", "Jürgens PC", "h" * 64])
def test_every_name_that_a_file_may_have_can_be_written_on_every_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, host: str
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: host)
    files.this_host.cache_clear()
    try:
        with replacing(tmp_path / name) as part:
            part.write_bytes(b"x")
            assert files._TEMPORARY_NAME.fullmatch(part.name)
    finally:
        files.this_host.cache_clear()
    assert os.listdir(tmp_path) == [name]


def test_of_two_who_write_a_new_file_the_first_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert write_if_new(tmp_path / "a.json", b"first")
    assert not write_if_new(tmp_path / "a.json", b"second")

    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", no_links)
    assert not write_if_new(tmp_path / "a.json", b"second")
    assert write_if_new(tmp_path / "b.json", b"first")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.json": b"first", "b.json": b"first"}


# -- what killed processes leave ---------------------------------------------------------------------------------------------------

_DIES_WHILE_IT_WRITES = """
import os, signal, sys
from pathlib import Path
from flowkit.files import replacing
with replacing(Path(sys.argv[1])) as part:
    part.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def leave_part(path: Path) -> Path:
    """Let a process die while it writes a file; return the temporary file that it leaves."""
    before = set(path.parent.iterdir())
    assert subprocess.run([sys.executable, "-c", _DIES_WHILE_IT_WRITES, str(path)], check=False).returncode == -9
    (left,) = set(path.parent.iterdir()) - before
    return left


@pytest.mark.skipif(os.name == "nt", reason="kills with a POSIX signal")
def test_a_dead_process_s_temporary_file_is_removed_and_a_living_one_s_is_kept(tmp_path: Path) -> None:
    left = leave_part(tmp_path / "a.json")
    with replacing(tmp_path / "a.json") as part:
        part.write_bytes(b"whole")
        remove_leftovers(tmp_path, alone=True, old_names=re.compile(".*"))
        assert os.listdir(tmp_path) == [part.name]
    assert not left.exists()
    assert (tmp_path / "a.json").read_bytes() == b"whole"


@pytest.mark.skipif(os.name == "nt", reason="kills with a POSIX signal")
def test_a_dead_process_is_known_without_locks_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    left = leave_part(tmp_path / "a.json")
    with replacing(tmp_path / "b.json") as part:
        part.write_bytes(b"whole")
        remove_leftovers(tmp_path, alone=False)
        assert not left.exists()
        assert part.exists()


def test_temporary_files_of_other_hosts_and_old_ones_are_removed_only_by_who_is_alone(tmp_path: Path) -> None:
    elsewhere = tmp_path / "a.json.node7-0123abcd-77-89abcdef.part"
    old, foreign, odd = tmp_path / "a.json.part", tmp_path / "download.part", tmp_path / "a.json.node7-77.part"
    for path in (elsewhere, old, foreign, odd):
        path.write_bytes(b"half")
    remove_leftovers(tmp_path, alone=False, old_names=re.compile(r"a\.json"))
    assert len(list(tmp_path.iterdir())) == 4
    remove_leftovers(tmp_path, alone=True, old_names=re.compile(r"a\.json"))
    assert sorted(tmp_path.iterdir()) == sorted([foreign, odd])


def test_links_and_folders_with_temporary_names_are_left_alone(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    link, folder = tmp_path / "a.node7-0123abcd-77-89abcdef.part", tmp_path / "b.node7-0123abcd-77-89abcdef.part"
    link.symlink_to(victim)
    folder.mkdir()
    remove_leftovers(tmp_path, alone=True)
    remove_leftovers(tmp_path / "missing", alone=True)
    assert sorted(tmp_path.iterdir()) == sorted([victim, link, folder])


def test_an_error_without_a_file_gets_its_name(tmp_path: Path) -> None:
    """Such as that of a full disk, which says only that no space is left."""
    with pytest.raises(OSError, match=r"No space left on device: '.*wanted\.txt'"), replacing(tmp_path / "wanted.txt"):
        raise OSError(28, "No space left on device")
    with pytest.raises(OSError, match="'other'"), replacing(tmp_path / "wanted.txt"):
        raise OSError(28, "No space left on device", "other")
    assert list(tmp_path.iterdir()) == []
