"""The cache of compiled kernels: an entry that is damaged, foreign or writable by others is compiled again, and never used."""

from __future__ import annotations

import json
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flowkit.flow.kernel_cache import read_entry, write_entry

if TYPE_CHECKING:
    from collections.abc import Callable

CODE = """
import json, sys
import numpy as np
from flowkit.flow.cpu import jit

@jit.compile_kernel
def add_up(values, factor):
    total = 0.0
    for value in values:
        total += value * factor
    return total

results = []
for path in sys.argv[1:] or [None]:
    if path is not None:
        jit.CACHE_FOLDER = __import__("pathlib").Path(path)
    fresh = jit.compile_kernel(add_up.py_func)
    total = fresh(np.arange(100, dtype=np.float64), 0.5)
    results.append((total, sum(fresh.stats.cache_hits.values())))
print(json.dumps(results))
"""


def run_kernel(cache: Path, *folders: Path, user_code: str = CODE) -> list[tuple[float, int]]:
    """Run a tiny kernel in a child process, once for each cache folder; return its results, and whether each came from the cache."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", user_code, *map(str, folders)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [(total, hits) for total, hits in json.loads(done.stdout)]


def test_a_kernel_that_is_damaged_anywhere_is_compiled_again_with_the_same_result(tmp_path: Path) -> None:
    first = tmp_path / "first"
    first.mkdir()
    assert run_kernel(tmp_path, first, first) == [(2475.0, 0), (2475.0, 1)]
    (entry,) = first.iterdir()
    good, draw, folders = entry.read_bytes(), random.Random(0), []
    places = [0, 31, 32, 33, len(good) - 1, *(draw.randrange(len(good)) for _ in range(12))]
    for number, place in enumerate(places):
        flipped = bytearray(good)
        flipped[place] ^= 1 << draw.randrange(8)
        for kind, data in (("flipped", bytes(flipped)), ("cut", good[:place])):
            folder = tmp_path / f"{kind}{number}"
            folder.mkdir()
            write_bytes_as_own(folder / entry.name, data)
            folders += [folder, folder]  # the second time the entry must have been written again
    assert run_kernel(tmp_path, *folders) == [(2475.0, 0), (2475.0, 1)] * (len(folders) // 2)
    assert all((folder / entry.name).read_bytes()[32:] for folder in folders)


def write_bytes_as_own(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    path.chmod(0o644)


class _Payload:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return exec, ("raise SystemExit('the pickle ran')",)


@pytest.mark.slow
def test_an_entry_of_another_kind_is_compiled_again(tmp_path: Path) -> None:
    first, other = tmp_path / "first", tmp_path / "other"
    first.mkdir()
    other.mkdir()
    run_kernel(tmp_path, first)
    (entry,) = first.iterdir()
    for data in (pickle.dumps(None), pickle.dumps((("a", "b", "c"), ())), b"no pickle"):
        write_entry(other / entry.name, data)
        assert run_kernel(tmp_path, other) == [(2475.0, 0)]


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="Windows has no owners of this kind")
@pytest.mark.parametrize("fault", ["another user's", "writable by others", "a pipe", "a folder", "too large"])
def test_what_somebody_else_may_have_written_is_not_read(tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "entry"
    write_entry(path, pickle.dumps(_Payload()))
    assert read_entry(path) is not None
    if fault == "another user's":
        owner = os.stat(path).st_uid
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
        if owner == 0:
            os.chown(path, 12345, -1)
    elif fault == "writable by others":
        path.chmod(0o666)
    elif fault == "too large":
        monkeypatch.setattr("flowkit.flow.kernel_cache.MAX_ENTRY_BYTES", 10)
    else:
        path.unlink()
        os.mkfifo(path) if fault == "a pipe" else path.mkdir()
    assert read_entry(path) is None


def test_an_entry_comes_back_and_only_its_owner_may_write_it(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "entry"
    assert read_entry(path) is None
    before = os.umask(0)
    try:
        write_entry(path, b"data")
    finally:
        os.umask(before)
    assert read_entry(path) == b"data"
    assert not os.stat(path).st_mode & 0o022 or os.name == "nt"
    assert [found.name for found in path.parent.iterdir()] == ["entry"]


def test_a_folder_that_cannot_be_written_costs_only_the_entry(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    write_entry(tmp_path / "file" / "entry", b"data")
    assert read_entry(tmp_path / "file" / "entry") is None
