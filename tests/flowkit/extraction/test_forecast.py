"""The forecast of a run: headers that lie do not spoil it, and a duration serves where there is no number of frames."""

from __future__ import annotations

import json
import re
import struct
from typing import TYPE_CHECKING

import pytest
from command_lines import run_flowkit
from odd_videos import encode_video, needs
from small_videos import SETTINGS, write_video

from flowkit.extraction.forecast import forecast
from flowkit.extraction.plan import make_plan
from flowkit.extraction.run import extract

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.usefixtures("kept_workers")


def pairs_of(videos: Path) -> int:
    return forecast(make_plan(videos, videos.parent / "data", settings=SETTINGS), jobs=1, sample_videos=1, sample_frames=2).num_pairs


@pytest.mark.parametrize("number", [2**31 - 1, *(pytest.param(number, marks=pytest.mark.slow) for number in (10**6, 3000))])
def test_one_header_with_a_number_that_cannot_be_true_does_not_spoil_the_forecast(tmp_path: Path, number: int) -> None:
    for k in range(3):
        path = encode_video(tmp_path / "videos" / f"{k}.avi", "mpeg4", num_frames=20)
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"strh") + 8 + 32, number)
    path.write_bytes(data)
    assert pairs_of(tmp_path / "videos") == 57


@needs("libvpx")
@pytest.mark.slow
def test_videos_without_a_number_of_frames_are_forecast_by_their_duration(tmp_path: Path) -> None:
    encode_video(tmp_path / "videos" / "a.webm", "libvpx", num_frames=30)
    assert pairs_of(tmp_path / "videos") == 29


@pytest.mark.slow
def test_a_given_header_that_lies_promises_what_its_index_has(shared_cases: Path, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.avi").symlink_to(shared_cases / "video" / "hdr_huge.avi")
    assert pairs_of(tmp_path / "videos") == 99


def test_the_disk_space_of_a_run_is_foreseen_from_a_few_frames(tmp_path: Path) -> None:
    """The first frame has no flow field, and a file has parts that do not grow with a video."""
    for k in range(2):
        write_video(tmp_path / "videos" / "run" / f"{k}.avi", 60, width=96, height=64, seed=k)
    expected = forecast(make_plan(tmp_path / "videos", tmp_path / "data", settings=SETTINGS), jobs=1).num_bytes
    report = extract(tmp_path / "videos", tmp_path / "data", settings=SETTINGS, jobs=1, progress=False)
    stored = sum(result.clip_bytes for result in report.done)
    assert abs(expected - stored) < 0.12 * stored


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--short-side", "100000"), "use a smaller short side"),
        (("--stream", "9"), "stream"),
        (("--every", "1000"), "only 1 frame"),
        (("--memory-limit", "1kB"), "memory"),
    ],
)
def test_a_forecast_that_could_measure_no_video_says_why_and_promises_nothing(tmp_path: Path, options: tuple[str, ...], why: str) -> None:
    """It used to say 0 B on disk, in 0.0 s."""
    write_video(tmp_path / "videos/run/a.mkv", 12)
    command = ("extract", tmp_path / "videos", "--data", tmp_path / "data", "--dry-run", "--jobs", 1, *options)
    ended = run_flowkit(*command)
    assert ended.code == 0, ended.err
    assert "how much disk space and time is unknown, since no video could be measured" in ended.out
    assert "would fail:" in ended.err
    assert re.search(rf"\| run/a \| .*{why}", ended.err)
    record = json.loads(run_flowkit(*command, "--json").out)
    assert list(record["would_fail"]) == ["run/a"]
    assert record["measured"] is False


def test_videos_that_cannot_be_opened_are_named_by_the_forecast(tmp_path: Path) -> None:
    write_video(tmp_path / "videos/run/a.mkv", 12)
    (tmp_path / "videos/run/b.mkv").write_text("no video")
    found = forecast(make_plan(tmp_path / "videos", tmp_path / "data", settings=SETTINGS), jobs=1)
    assert [video_id for video_id, _ in found.faults] == ["run/b"]
    assert found.is_measured
    assert found.num_bytes > 0
