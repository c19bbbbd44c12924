"""The videos of a gallery: their classes, subsets and statuses, and a sample that is spread over them."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from shard_files import write_clip

from flowkit.dataset.clips import find_clips
from flowkit.dataset.paths import clip_path
from flowkit.dataset.root import Dataset
from flowkit.describe.gallery_videos import GalleryVideo, Prediction, find_videos, spread_sample
from flowkit.errors import ManifestError


def found(root: Path, **changes: Any) -> tuple[dict[str, GalleryVideo], list[tuple[str, str]]]:
    videos, unreadable = find_videos(Dataset.open(root), find_clips(root), **changes)
    return {video.video_id: video for video in videos}, unreadable


@pytest.fixture
def own_root(packed_root: Path, tmp_path: Path) -> Path:
    """A data root that the test may change."""
    return Path(shutil.copytree(packed_root, tmp_path / "own"))


def write_report(root: Path, *, command: str = "extract", **results: list[dict[str, Any]]) -> None:
    report = {"format": f"flowkit-{command}-report", "format_version": 1, "done": [], "skipped": [], "failed": [], **results}
    (root / f"{command}-report.json").write_text(json.dumps(report), encoding="utf-8")


def test_a_split_gives_class_and_subset(packed_root: Path) -> None:
    videos, unreadable = found(packed_root, split=1)
    assert unreadable == []
    assert Counter(video.subset for video in videos.values()) == {"train": 12, "test": 6}
    assert videos["colour0-motion0/v12"] == GalleryVideo("colour0-motion0/v12", "colour0-motion0", "test")
    assert [video.class_name for video in videos.values()] == sorted(video.class_name for video in videos.values())


def test_without_a_split_the_folder_is_the_class_and_there_is_no_subset(packed_root: Path) -> None:
    videos, _ = found(packed_root)
    assert {video.subset for video in videos.values()} == {""}
    assert {video.class_name for video in videos.values()} == {f"colour{c}-motion{m}" for c in range(3) for m in range(2)}


def test_a_video_outside_the_split_is_unlisted_and_has_the_class_of_its_folder(own_root: Path) -> None:
    write_clip(clip_path(own_root, "new/video"), "new/video")
    videos, _ = found(own_root, split=1)
    assert videos["new/video"] == GalleryVideo("new/video", "new", "unlisted")
    assert [*videos][-1] == "new/video", "after the classes of the split"


@pytest.mark.parametrize("command", ["extract", "import"])
def test_the_report_says_what_was_damaged_and_what_failed(own_root: Path, command: str) -> None:
    damaged = {"video_id": "colour0-motion0/v00", "status": "damaged", "error": "3 decode errors"}
    failed = [{"video_id": f"jump/{status}", "status": status, "error": f"it is {status}"} for status in ("short", "undecodable", "failed")]
    done = {"video_id": "colour0-motion0/v06", "status": "ok", "error": ""}
    write_report(own_root, command=command, done=[done], skipped=[damaged], failed=failed)
    videos, _ = found(own_root, split=1)
    assert (videos["colour0-motion0/v00"].status, videos["colour0-motion0/v00"].reason) == ("damaged", "3 decode errors")
    assert (videos["colour0-motion0/v06"].status, videos["colour0-motion0/v06"].reason) == ("done", "")
    for status in ("short", "undecodable", "failed"):
        assert videos[f"jump/{status}"] == GalleryVideo(f"jump/{status}", "jump", "unlisted", "failed", f"it is {status}")
    assert len(videos) == 18 + 3


def test_a_video_that_failed_lately_and_has_a_clip_is_not_failed(own_root: Path) -> None:
    write_report(own_root, failed=[{"video_id": "colour0-motion0/v00", "status": "failed", "error": "disk full"}])
    videos, _ = found(own_root, split=1)
    assert videos["colour0-motion0/v00"].status == "done"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"decode_errors": 2}, "2 decode errors"),
        ({"header_frames": 20}, "12 of 20"),
        ({"losses": "a jump of 2 s"}, "a jump of 2 s"),
    ],
)
def test_without_a_report_the_clip_says_that_it_is_damaged(own_root: Path, changes: dict[str, Any], reason: str) -> None:
    write_clip(clip_path(own_root, "new/video"), "new/video", **changes)
    videos, _ = found(own_root)
    assert videos["new/video"].status == "damaged"
    assert reason in videos["new/video"].reason


@pytest.mark.parametrize("text", ["{", '{"format": "flowkit-extract-report", "format_version": 1, "done": [{"video_id": 3}]}'])
def test_a_damaged_report_is_named_with_what_to_do(own_root: Path, text: str) -> None:
    (own_root / "extract-report.json").write_text(text)
    with pytest.raises(ManifestError, match=r"extract-report\.json .*; delete it, or run `flowkit extract` again"):
        found(own_root)


def test_a_report_may_name_files_that_are_not_utf_8(own_root: Path) -> None:
    write_report(own_root, failed=[{"video_id": "jump/NAME", "status": "failed", "error": "no"}])
    report = own_root / "extract-report.json"
    report.write_bytes(report.read_bytes().replace(b"NAME", b"\xff"))
    videos, _ = found(own_root)
    assert "jump/�" in videos


def test_a_clip_that_cannot_be_read_is_left_out_and_named(own_root: Path) -> None:
    path = clip_path(own_root, "new/video")
    write_clip(path, "new/video")
    path.write_bytes(b"no clip")
    videos, ((name, reason),) = found(own_root)
    assert "new/video" not in videos
    assert name == str(path)
    assert reason


def test_predictions_go_to_their_videos(packed_root: Path) -> None:
    said = Prediction("colour1-motion0", (("colour1-motion0", 0.75), ("colour0-motion0", 0.25)))
    videos, _ = found(packed_root, split=1, predictions={"colour0-motion0/v12": said, "no/such": said})
    assert videos["colour0-motion0/v12"].prediction == said
    assert sum(video.prediction is not None for video in videos.values()) == 1


def videos_of(counts: dict[tuple[str, str], int]) -> list[GalleryVideo]:
    return [GalleryVideo(f"{name}/{subset}{k}", name, subset) for (name, subset), number in counts.items() for k in range(number)]


def test_a_sample_is_spread_over_classes_and_subsets_and_keeps_the_order() -> None:
    videos = videos_of({("run", "train"): 50, ("run", "test"): 3, ("swim", "train"): 20, ("swim", "test"): 20, ("jump", "train"): 1})
    sample = spread_sample(videos, 21)
    counts = Counter((video.class_name, video.subset) for video in sample)
    assert counts == {
        ("run", "train"): 7,
        ("run", "test"): 3,
        ("swim", "train"): 5,
        ("swim", "test"): 5,
        ("jump", "train"): 1,
    }
    assert sample == [video for video in videos if video in set(sample)]
    assert spread_sample(videos[::-1], 21)[::-1] == sample, "whatever the order of the videos"
    assert spread_sample(videos, 1000) == videos
    assert {video.video_id for video in sample} < {video.video_id for video in spread_sample(videos, 30)}


def test_a_sample_that_is_smaller_than_the_number_of_classes_is_not_alphabetical() -> None:
    videos = videos_of({(f"class{k:02d}", ""): 3 for k in range(60)})
    classes = [video.class_name for video in spread_sample(videos, 20)]
    assert len(set(classes)) == 20
    assert max(classes) > "class40"


def test_damaged_videos_come_first() -> None:
    videos = videos_of({("run", "train"): 50})
    videos[31] = GalleryVideo("run/broken", "run", "train", "damaged", "lost")
    assert videos[31] in spread_sample(videos, 2)
