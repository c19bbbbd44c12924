"""What decoding has shown of odd and damaged videos is in results, clip files, reports and on the terminal."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from odd_videos import copy_video, encode_video, needs, truncate
from small_videos import SETTINGS, write_video

from flowkit import ShardReader, pack, verify
from flowkit.cli.main import flowkit as command
from flowkit.describe.contents import describe_root
from flowkit.extraction.run import extract

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.usefixtures("kept_workers")


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """A whole video, one with empty chunks, a truncated one, and one that jumps."""
    folder = tmp_path / "videos" / "class"
    write_video(folder / "whole.avi", 4)
    encode_video(folder / "empty.avi", "mjpeg", num_frames=12, pixels="yuvj420p", pts=[k + k // 4 for k in range(12)])
    truncate(encode_video(folder / "short.mkv", "mjpeg", num_frames=40, pixels="yuvj420p"), 0.4)
    long = encode_video(tmp_path / "long.mkv", "mjpeg", num_frames=20, pixels="yuvj420p")
    copy_video(long, folder / "jump.mkv", lost=range(8, 12))
    return tmp_path / "videos"


def test_losses_and_notes_reach_results_clip_files_and_the_report(videos: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    report = extract(videos, root, settings=SETTINGS, jobs=1)
    results = {result.video_id.partition("/")[2]: result for result in report}
    assert {name: result.status for name, result in results.items()} == {
        "whole": "ok",
        "empty": "ok",
        "short": "damaged",
        "jump": "damaged",
    }
    assert results["short"].error.endswith(" s of 1.6 s")
    assert results["jump"].error == "a jump in time of 0.20 s at 0.28 s"
    assert results["empty"].notes == "2 empty chunks"
    assert [result.video_id for result in report.noted] == ["class/empty"]
    saved: dict[str, Any] = json.loads((root / "extract-report.json").read_text())
    assert {entry["video_id"]: (entry["error"], entry["notes"]) for entry in saved["done"]} == {
        result.video_id: (result.error, result.notes) for result in report
    }
    for name, result in results.items():
        with ShardReader(root / "clips" / "class" / f"{name}.h5") as reader:
            stored = reader.clip(f"class/{name}").attributes
        assert (stored.losses, stored.notes) == (result.error, result.notes)
    assert describe_root(root).contents.num_damaged == 2
    assert verify(root) == []


def test_a_lost_index_loses_no_status(videos: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    first = extract(videos, root, settings=SETTINGS, jobs=1)
    shutil.rmtree(root / "clips" / ".index")
    again = extract(videos, root, jobs=1)
    assert not again.done
    assert {(r.video_id, r.status, r.error, r.notes) for r in again} == {(r.video_id, r.status, r.error, r.notes) for r in first}
    pack(root)
    with ShardReader(root / "shards" / "shard-00000.h5") as reader:
        assert reader.clip("class/jump").attributes.losses == "a jump in time of 0.20 s at 0.28 s"


def test_a_clip_file_has_the_new_attributes_only_where_there_is_something_to_say(videos: Path, tmp_path: Path) -> None:
    import h5py

    root = tmp_path / "data"
    extract(videos, root, settings=SETTINGS, jobs=1)
    for name, expected in (("whole", set()), ("empty", {"notes"}), ("jump", {"losses"})):
        with h5py.File(root / "clips" / "class" / f"{name}.h5") as file:
            assert {"losses", "notes"} & set(file["videos/000000"].attrs) == expected


def test_the_command_prints_what_was_lost_and_what_is_noted(videos: Path, tmp_path: Path) -> None:
    line = ["extract", str(videos), "--data", str(tmp_path / "data"), "--short-side", "32", "--jobs", "1", "--device", "cpu"]
    result = CliRunner().invoke(command, line, standalone_mode=False, catch_exceptions=False)
    assert result.return_value == 0
    for words in ("a jump in time of 0.20 s at 0.28 s", " s of 1.6 s", "noted (undamaged):", "2 empty chunks", "2 damaged"):
        assert words in result.output
    again = CliRunner().invoke(command, [*line, "--fail-on-damaged"], standalone_mode=False, catch_exceptions=False)
    assert again.return_value == 3


@needs("libx265")
def test_lost_packets_are_counted_in_the_clip_file(tmp_path: Path) -> None:
    options = {"x265-params": "keyint=12:bframes=0:log-level=none"}
    whole = encode_video(tmp_path / "whole.mkv", "libx265", num_frames=30, options=options)
    (tmp_path / "videos").mkdir()
    copy_video(whole, tmp_path / "videos" / "a.mkv", lost=range(4, 8))
    (result,) = extract(tmp_path / "videos", tmp_path / "data", settings=SETTINGS, jobs=1).done
    with ShardReader(tmp_path / "data" / "clips" / "a.h5") as reader:
        stored = reader.clip("a").attributes
    assert result.status == "damaged"
    assert stored.decode_errors == result.decode_errors == 26 - stored.num_frames
    assert f"{stored.decode_errors} packets gave no frame" in stored.losses
