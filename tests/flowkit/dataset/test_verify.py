"""Verify: names the file, the video and the record of every fault, in a data root as in a file; survives what it looks at."""

from __future__ import annotations

import json
import os
import threading
from functools import partial
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest
from command_lines import call_flowkit
from shard_files import clip_arrays, make_root, write_clip

import flowkit
from flowkit.dataset import verify
from flowkit.dataset.packing import pack
from flowkit.dataset.paths import clip_path, split_folder
from flowkit.dataset.root_locks import packing
from flowkit.errors import ManifestError
from flowkit.quantise import Quantiser
from flowkit.shards.verify import verify_files

if TYPE_CHECKING:
    from pathlib import Path

VIDEOS = {f"{name}/v_{name}_g{group:02d}_c01": 12 for name in ("Run", "Jump") for group in range(4)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = make_root(tmp_path, VIDEOS)
    pack(root, split=1)
    return root


run = partial(call_flowkit, "verify")


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 4]))


def place(path: Path, video: int, record: str, index: int) -> int:
    """Where the bytes of one frame or flow field lie."""
    with h5py.File(path) as file:
        group = file[f"videos/{video:06d}"]
        if record == "frame":
            return int(group["frames"].id.get_offset() + group["frame_offsets"][index] + 20)
        return int(group["flow"].id.get_chunk_info(index).byte_offset + 20)


def whats(problems: list[flowkit.Problem]) -> list[str]:
    return [f"{problem.path.name} {problem.video_id}: {problem.what}" for problem in problems]


def test_a_sound_root_has_no_problem(root: Path) -> None:
    assert flowkit.verify(root) == []
    assert flowkit.verify(root, deep=True) == []
    result = run(str(root))
    assert (result.code, result.out) == (0, "")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no fcntl")
def test_a_root_that_is_being_packed_is_verified_afterwards_without_false_faults(
    root: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, end = threading.Event(), threading.Event()
    moved = root / "shards" / "elsewhere.h5"

    def repack() -> None:
        with packing(root):
            (root / "shards" / "shard-00000.h5").rename(moved)  # as if it were about to be replaced
            began.set()
            end.wait(1000)
            moved.rename(root / "shards" / "shard-00000.h5")

    packer = threading.Thread(target=repack)
    packer.start()
    assert began.wait(1000)
    say = verify._say_that_it_waits
    monkeypatch.setattr(verify, "_say_that_it_waits", lambda what: (say(what), end.set()))
    assert flowkit.verify(root) == []
    packer.join()
    assert [record.message.split(" (")[0] for record in caplog.records] == [f"verify: another process packs {str(root)!r}"]
    assert not list(root.glob(".*"))


def test_each_fault_is_named_by_video_and_record(root: Path) -> None:
    shard = root / "shards" / "shard-00000.h5"
    flip(shard, place(shard, 0, "frame", 7))
    flip(shard, place(shard, 3, "flow", 5))
    with h5py.File(shard) as file:
        ids = [file[f"videos/{k:06d}"].attrs["video_id"].decode() for k in (0, 3)]
    found = whats(flowkit.verify(shard))
    assert found[0] == f"shard-00000.h5 {ids[0]}: frame 7 is damaged: its CRC does not match"
    assert found[1] == f"shard-00000.h5 {ids[1]}: flow chunk 5 is damaged: its checksum does not match"
    assert found[2].startswith(f"shard-00000.h5 {ids[1]}: its sha256")
    assert len(found) == 3


def test_the_command_exits_4_and_prints_the_faults(root: Path) -> None:
    shard = root / "shards" / "shard-00000.h5"
    flip(shard, place(shard, 1, "frame", 2))
    result = run(str(shard))
    assert result.code == 4
    assert "frame 2 is damaged" in result.out
    result = run("--data", str(root), "--json")
    assert result.code == 4
    report = json.loads(result.out)
    assert any("frame 2 is damaged" in problem["what"] and problem["video_id"] for problem in report["problems"])


def test_an_attribute_edited_with_fitting_hdf5_checksums_is_seen_by_the_sha256(root: Path) -> None:
    shard = root / "shards" / "shard-00000.h5"
    with h5py.File(shard, "r+", libver=("v110", "v110")) as file:
        file["videos/000000"].attrs.modify("decode_errors", np.int64(3))
    assert any("sha256" in what for what in whats(flowkit.verify(shard)))


def test_deep_finds_an_image_that_does_not_decode_to_its_size(tmp_path: Path) -> None:
    """Its checksums are valid: it was written so."""
    from shard_files import attributes

    from flowkit.shards.jpeg import encode_jpeg
    from flowkit.shards.writer import ClipWriter

    frames, flow = clip_arrays(3)
    images = [encode_jpeg(frame) for frame in frames]
    images[1] = images[1][: images[1].index(b"\xff\xda")]  # a header without an image
    with ClipWriter(tmp_path / "a.h5", height=frames.shape[1], width=frames.shape[2]) as writer:
        writer.append_encoded_frames(images)
        writer.append_flow(flow)
        writer.finish(attributes("a", 3))
    assert flowkit.verify(tmp_path / "a.h5") == []
    assert whats(flowkit.verify(tmp_path / "a.h5", deep=True)) == ["a.h5 a: frame 1 is a JPEG that cannot be decoded"]


def test_shards_that_are_missing_changed_or_unknown_are_told(root: Path) -> None:
    shards = root / "shards"
    pack(root, split=1, shard_bytes=20_000)
    assert len(list(shards.glob("*.h5"))) > 2
    (shards / "shard-00000.h5").rename(shards / "shard-00077.h5")
    (shards / "shard-00001.h5").write_bytes((shards / "shard-00002.h5").read_bytes())
    found = "\n".join(whats(flowkit.verify(root)))
    assert "shard-00000.h5 is missing" in found
    assert "shard-00001.h5 is not the file that the split was packed with" in found
    assert "shard-00077.h5 exists, but the split does not list it" in found
    assert "is in shard-00001.h5 too" in found


def test_tables_that_do_not_fit_are_told(root: Path) -> None:
    table = split_folder(root, 1) / "train.csv"
    table.write_text(table.read_text().replace(",12,", ",13,", 1))
    assert any("train.csv is not the table" in what for what in whats(flowkit.verify(root)))


def test_a_table_that_contradicts_its_shards_is_told(root: Path) -> None:
    from dataclasses import replace

    from flowkit.dataset.manifest import write_split
    from flowkit.dataset.root import Dataset

    split = Dataset.open(root).split(1)
    train = [replace(split.train[0], num_frames=40), replace(split.train[1], video_id="Run/other"), *split.train[2:]]
    write_split(
        root, 1, protocol=split.protocol, classes=split.classes, train=train, test=split.test, num_listed_train=8, num_listed_test=8,
        quantiser=Quantiser(15.0, "paper"), shards=split.shards,
    )  # fmt: skip
    found = "\n".join(whats(flowkit.verify(root)))
    assert f"train.csv {split.train[0].video_id}: has 12 frames in shard-00000.h5, not 40" in found
    assert "train.csv Run/other: is not in shard-00000.h5" in found
    assert "has the quantiser" in found


def test_a_manifest_that_contradicts_the_lists_around_the_videos_is_told(tmp_path: Path) -> None:
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 Jump\n2 Run\n")
    train, test = sorted(VIDEOS)[:5], sorted(VIDEOS)[5:]
    (lists / "trainlist01.txt").write_text("".join(f"{name}.avi {1 if name.startswith('Jump') else 2}\n" for name in train))
    (lists / "testlist01.txt").write_text("".join(f"{name}.avi\n" for name in test))
    root = make_root(tmp_path, VIDEOS)
    assert pack(root, split=1).split.protocol == "ucf101"
    assert flowkit.verify(root) == []
    (lists / "trainlist01.txt").write_text("".join(f"{name}.avi {1 if name.startswith('Jump') else 2}\n" for name in train[1:]))
    assert [problem.video_id for problem in flowkit.verify(root)] == [train[0]]


def test_clips_under_another_name_or_of_other_settings_are_told(tmp_path: Path) -> None:
    root = make_root(tmp_path, {"Run/a": 12})
    write_clip(clip_path(root, "Run/b"), "Run/c")
    write_clip(clip_path(root, "Run/d"), "Run/d", quantiser={"bound": 15.0, "mapping": "symmetric"})
    found = whats(flowkit.verify(root))
    assert any("b.h5 Run/c: is not the video that the file's name says, 'Run/b'" in what for what in found)
    assert any("d.h5 Run/d: was extracted with other settings" in what and "15.0" in what for what in found)
    assert len(found) == 2


def test_a_pack_that_was_killed_is_told(root: Path) -> None:
    state = json.loads((root / "shards" / "pack.json").read_text())
    (root / "shards" / "pack.json").write_text(json.dumps(state | {"unsettled": ["shard-00000.h5"]}))
    assert any("a pack was stopped" in what for what in whats(flowkit.verify(root)))
    (root / "shards" / "pack.json").write_text("{}")
    assert any("pack.json" in what for what in whats(flowkit.verify(root)))


def test_a_damaged_record_of_the_root_is_told(root: Path) -> None:
    (root / "dataset.json").write_text('{"format": "flowkit-dataset", "format_version": 1, "source": 3, "settings": {"codec": "zstd"}}')
    assert [problem.path.name for problem in flowkit.verify(root)] == ["dataset.json"]


def test_what_is_no_data_root_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="not a data root"):
        flowkit.verify(tmp_path)
    with pytest.raises(FileNotFoundError):
        flowkit.verify(tmp_path / "none.h5")


# -- the child process -------------------------------------------------------------------------------------------------------------


def test_a_file_that_crashes_or_hangs_its_reader_is_a_problem_and_the_next_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for HDF5 that crashes on one file and never comes back from another.

    The clock of the time limit is a stand-in too: it runs out when that file is open, however fast the machine is.
    """
    for name in ("good-1", "crash", "good-2", "hang", "good-3"):
        write_clip(tmp_path / f"{name}.h5", name, num_frames=3)
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys, time\n"
        "import flowkit.shards.structure as layout\n"
        "whole = layout.ShardStructure._open\n"
        "def broken(self):\n"
        "    if 'crash' in self.path.name: os.abort()\n"
        "    if 'hang' in self.path.name: self.path.with_name('HANGS').touch()\n"
        "    while 'hang' in self.path.name: time.sleep(1)\n"
        "    whole(self)\n"
        "layout.ShardStructure._open = broken\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    hangs = tmp_path / "HANGS"

    class Clock(threading.Timer):
        def run(self) -> None:
            assert self.interval == 6
            while not self.finished.wait(0.02):
                if hangs.exists():
                    hangs.unlink()
                    self.function()
                    return

    monkeypatch.setattr("flowkit.shards.verify.threading.Timer", Clock)
    paths = [tmp_path / f"{name}.h5" for name in ("good-1", "crash", "good-2", "hang", "good-3")]
    found = list(verify_files(paths, jobs=1, timeout_seconds=6))
    assert [file.path for file in found] == paths
    problems = [[problem.what for problem in file.problems] for file in found]
    assert problems[0] == problems[2] == problems[4] == []
    assert "crashed the process" in problems[1][0]
    assert "took longer than 6 s" in problems[3][0]


def test_the_child_has_a_limit_of_memory(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    code = (
        "from flowkit.shards.check import _limit_memory\n_limit_memory()\n"
        "try:\n    bytearray(6 << 30)\nexcept MemoryError:\n    print('refused')\n"
    )
    import subprocess
    import sys

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "refused\n"


def test_names_are_shown_escaped(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.h5", "\x1b[31m\nred", num_frames=3)
    flip(tmp_path / "a.h5", place(tmp_path / "a.h5", 0, "frame", 1))
    result = run(str(tmp_path / "a.h5"))
    assert result.code == 4
    assert "\x1b" not in result.out
    assert "\\x1b[31m\\nred" in result.out


def test_files_that_cannot_be_opened_are_problems(tmp_path: Path) -> None:
    os.symlink(tmp_path / "nowhere", tmp_path / "link.h5")
    (found,) = verify_files([tmp_path / "link.h5"])
    assert found.problems[0].what.startswith("cannot be read")
    assert list(verify_files([])) == []
