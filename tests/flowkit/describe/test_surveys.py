"""Cuts, repeated frames and the range of the flow: noted by extract, or found in the stored clips, with the same result."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from command_lines import run_flowkit
from small_videos import SETTINGS, write_video

from flowkit import extract, stats
from flowkit.describe import surveys
from flowkit.extraction.results import read_index


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data root with a video that has a cut and a repeated frame, one that stands still, and one that just moves."""
    from flowkit.demo_videos import write_video as write_lossless

    folder = tmp_path_factory.mktemp("scenes")
    frames = np.random.default_rng(0).integers(0, 256, (3, 36, 48, 3), dtype=np.uint8)
    coarse = [np.kron(frame[:6, :8], np.ones((6, 6, 1), np.uint8)) for frame in frames]
    (folder / "videos" / "a").mkdir(parents=True)
    write_lossless(folder / "videos" / "a" / "cut.avi", np.stack([coarse[0]] * 6 + [coarse[1]] * 6), frame_rate=25)
    write_lossless(folder / "videos" / "a" / "still.avi", np.stack([coarse[2]] * 9), frame_rate=25)
    write_video(folder / "videos" / "b" / "moves.mkv", 20)
    extract(folder / "videos", folder / "data", settings=SETTINGS, jobs=1, progress=False)
    return folder / "data"


def test_extract_notes_cuts_and_repeated_frames(extracted: Path) -> None:
    report = {entry["video_id"]: entry for entry in json.loads((extracted / "extract-report.json").read_text())["done"]}
    assert report["a/cut"]["cuts"] == [5]
    assert report["a/cut"]["num_repeated"] >= 8, "each frame is encoded by itself, so equal frames stay equal"
    assert report["a/still"]["num_repeated"] == 8
    assert (report["b/moves"]["cuts"], report["b/moves"]["num_repeated"]) == ([], 0)


def test_stats_finds_the_same_in_the_stored_clips_once(extracted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted = stats(extracted, progress=False)
    assert [(video.video_id, video.cuts) for video in noted.scenes] == [("a/cut", (5,)), ("a/still", ())]
    assert noted.flow_range is not None
    assert noted.flow_range.still == ("a/still",)
    root = Path(shutil.copytree(extracted, tmp_path / "root"))
    shutil.rmtree(root / "clips" / ".index")
    found = stats(root, progress=False)
    assert (found.scenes, found.flow_range) == (noted.scenes, noted.flow_range)
    with monkeypatch.context() as patch:
        patch.setattr(surveys, "run_tasks", None)
        assert stats(root, progress=False).scenes == noted.scenes, "found once and noted"
    (notes,) = (root / "clips" / ".surveys").glob("*.jsonl")
    notes.write_text(notes.read_text().replace('"scene_rule": 1', '"scene_rule": 999'))
    assert stats(root, progress=False).scenes == noted.scenes, "what another rule has found is found again"


def test_the_index_gives_the_cuts_back(extracted: Path) -> None:
    result = read_index(extracted)["a/cut"]
    assert result.cuts == (5,)
    assert json.loads(json.dumps(asdict(result)))["cuts"] == [5]


def test_a_clip_that_cannot_be_read_is_named_and_the_others_are_surveyed(extracted: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(extracted, tmp_path / "root"))
    shutil.rmtree(root / "clips" / ".index")
    path = root / "clips" / "a" / "cut.h5"
    data = bytearray(path.read_bytes())
    middle = data.index(b"\xff\xd8\xff") + 300
    data[middle] ^= 255
    path.write_bytes(data)
    done = run_flowkit("stats", "--data", root, "--json")
    assert done.code == 3
    measured = json.loads(done.out)
    assert [reason[0] for reason in measured["unreadable"]] == [str(path)]
    assert [video["video_id"] for video in measured["scenes"]] == ["a/still"]


def test_the_commands_print_what_was_found(extracted: Path) -> None:
    out = run_flowkit("stats", "--data", extracted).out
    assert "scenes: 1 flow field across a cut in 1 video, " in out
    assert "1 video with next to no motion" in out
    assert "flow of all videos: " in out
    assert "would hold 99.9 % of it" in out
