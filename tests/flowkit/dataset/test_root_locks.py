"""Who may change a data root at the same time as whom, and what is removed of killed processes."""

from __future__ import annotations

import errno
import os
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flowkit.dataset.root_locks import changing, extracting, packing, reading_whole
from flowkit.errors import BusyError, ParameterError
from flowkit.locks import exclusive_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no fcntl")


@contextmanager
def verifying(root: Path) -> Iterator[None]:
    with reading_whole(root, "verifies", on_wait=pytest.fail):
        yield


WRITERS: dict[str, Callable[[Path], AbstractContextManager[None]]] = {
    "extract": lambda root: extracting(root, (0, 1)),
    "part 1/2": lambda root: extracting(root, (0, 2)),
    "part 2/2": lambda root: extracting(root, (1, 2)),
    "part 1/3": lambda root: extracting(root, (0, 3)),
    "import": lambda root: changing(root, "imports into"),
    "pack": packing,
    "verify": verifying,
}
TOGETHER = {("part 1/2", "part 2/2"), *((name, "verify") for name in WRITERS if name != "pack")}


@pytest.mark.parametrize("second", list(WRITERS))
@pytest.mark.parametrize("first", [name for name in WRITERS if name != "verify"])
def test_only_parts_of_one_extraction_write_together(tmp_path: Path, first: str, second: str) -> None:
    if (first, second) == ("pack", "verify"):
        return  # waits: see below
    with WRITERS[first](tmp_path), ExitStack() as stack:
        if {(first, second), (second, first)} & TOGETHER:
            stack.enter_context(WRITERS[second](tmp_path))
        else:
            with pytest.raises(BusyError, match=r"another process (extracts|imports|packs) .*wait until"):
                stack.enter_context(WRITERS[second](tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_no_pack_begins_while_the_root_is_verified(tmp_path: Path) -> None:
    with verifying(tmp_path), pytest.raises(BusyError, match="another process verifies"), packing(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_parts_of_another_number_learn_which_number_to_use(tmp_path: Path) -> None:
    with (
        extracting(tmp_path, (1, 3)),
        pytest.raises(BusyError, match=r"extracts part 2 of 3 into .*process \d+ on .*--shard I/3 here"),
        extracting(tmp_path, (0, 2)),
    ):
        pass


@pytest.mark.parametrize("old", [".pack.lock", ".extract-1-of-1.lock", ".extract-2-of-5.lock"])
def test_processes_of_flowkit_before_this_lock_are_respected(tmp_path: Path, old: str) -> None:
    with exclusive_lock(tmp_path / old, "works in 'root'"):
        for name in ("extract", "part 1/2", "import", "pack"):
            with pytest.raises(BusyError, match="another process works in 'root'"), WRITERS[name](tmp_path):
                pass


def test_who_reads_a_root_waits_for_a_pack_and_says_so_once(tmp_path: Path) -> None:
    said, began, end = list[str](), threading.Event(), threading.Event()

    def pack() -> None:
        with packing(tmp_path):
            began.set()
            end.wait(1000)

    packer = threading.Thread(target=pack)
    packer.start()
    assert began.wait(1000)

    def waits(what: str) -> None:
        said.append(what)
        end.set()

    with reading_whole(tmp_path, "verifies", on_wait=waits):
        pass
    packer.join()
    assert len(said) == 1
    assert said[0].startswith("packs ")


def test_a_root_that_cannot_be_written_is_read_without_a_lock_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def read_only(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        if flags & (os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return real(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", read_only)
    with verifying(tmp_path):
        assert list(tmp_path.iterdir()) == []


LEFT = {
    "dataset.json{}": "old",
    "extract-report.json{}": "old",
    "clips/Run/v_Run_g01_c01.h5{}": "old",
    "clips/.segments/0123-5-6/000000256{}": "piece",
    "splits/split1/train.csv{}": "old",
    "shards/shard-00000.h5{}": "pack",
    "shards/pack.json{}": "pack",
}
OTHERS = ("clips/Run/film.part", "shards/notes.part", "download.part", "splits/split1/own.txt.part", "runs/a/checkpoint.pt.part")


def leave(root: Path, ending: str) -> set[Path]:
    made = set()
    for name in [*(pattern.format(ending) for pattern in LEFT), *OTHERS]:
        path = root / (name.replace(".part", "-89abcdef.part") if ending == ".part" and "segments" in name else name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
        made.add(path)
    return made


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and not path.name.endswith(".lock")}


@pytest.mark.parametrize("name", ["extract", "import", "pack"])
def test_who_is_alone_in_a_root_removes_what_other_hosts_left_and_nothing_else(tmp_path: Path, name: str) -> None:
    leave(tmp_path, ".node7-0123abcd-77-89abcdef.part")
    with WRITERS[name](tmp_path):
        assert files(tmp_path) == set(OTHERS)


@pytest.mark.parametrize("name", ["extract", "import", "pack"])
def test_who_is_alone_in_a_root_removes_the_temporary_files_of_flowkit_0_1(tmp_path: Path, name: str) -> None:
    leave(tmp_path, ".part")
    with WRITERS[name](tmp_path):
        shards = {"shards/shard-00000.h5.part", "shards/pack.json.part"}  # pack.json says first whether they are needed
        assert files(tmp_path) == set(OTHERS) | shards


def test_a_part_leaves_alone_what_other_hosts_may_still_write(tmp_path: Path) -> None:
    made = leave(tmp_path, ".node7-0123abcd-77-89abcdef.part")
    with extracting(tmp_path, (0, 2)):
        assert all(path.exists() for path in made)


@pytest.mark.parametrize("begin", [lambda root: changing(root, "imports into"), packing, lambda root: extracting(root, (0, 2))])
def test_a_root_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path, begin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: not (Path(path) == tmp_path and mode == os.W_OK))
    with pytest.raises(ParameterError, match=r"cannot be written .*choose another data root with --data DIR"), begin(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
