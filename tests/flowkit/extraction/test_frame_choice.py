"""Extraction of chosen frames: the frames and flow of any container are those of the frames nearest in time, recorded and never mixed."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pytest
from click.testing import CliRunner
from odd_videos import encode_video, needs
from small_videos import SETTINGS, write_video

from flowkit import ParameterError, Quantiser, Reading, ShardReader, compute_flow, extract, read_frames
from flowkit.cli.main import flowkit as command
from flowkit.dataset.packing import pack
from flowkit.dataset.root import Dataset
from flowkit.extraction import one_video
from flowkit.extraction.jobs import CutJob, PieceJob, VideoJob
from flowkit.extraction.pieces import find_pieces
from flowkit.extraction.plan import make_plan
from flowkit.extraction.schedule import run_task

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flowkit.shards.reader import Clip

pytestmark = pytest.mark.usefixtures("kept_workers")

CASES = Path(__file__).resolve().parents[4] / "shared" / "cases" / "video"
HALF = replace(SETTINGS, reading=Reading(fps="12.5"))
SECOND = replace(SETTINGS, reading=Reading(every=2))


def pixels_of(path: Path) -> NDArray[np.uint8]:
    return np.concatenate([batch.frames for batch in read_frames(path, short_side=32)])


def stamps_of(path: Path) -> list[Fraction]:
    with av.open(str(path)) as container:
        stream: Any = container.streams.video[0]
        return [frame.pts * stream.time_base for frame in container.decode(stream)]


def extracted(videos: Path, root: Path, settings: Any) -> Clip:
    extract(videos, root, settings=settings, jobs=1, progress=False)
    (path,) = (root / "clips").rglob("*.h5")
    reader = ShardReader(path)
    return reader.clip(reader.video_ids[0])


def stored(clip: Clip) -> tuple[list[bytes], bytes]:
    return clip.encoded_frames(0, len(clip)), clip.flow(0, len(clip) - 1).tobytes()


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "num_frames"),
    [
        ("a.mkv", "ffv1", "bgr0", 12),
        ("a.mkv", "ffv1", "bgr0", 13),
        ("a.avi", "mpeg4", "yuv420p", 12),
        ("a.mp4", "mpeg4", "yuv420p", 13),
        ("a.webm", "libvpx", "yuv420p", 12),
    ],
)
def test_half_the_frame_rate_gives_the_bytes_of_every_second_frame(
    tmp_path: Path, name: str, codec: str, pixels: str, num_frames: int
) -> None:
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV cannot encode with {codec}")
    path = encode_video(tmp_path / "videos" / name, codec, num_frames=num_frames, pixels=pixels)
    by_time, by_number = (extracted(tmp_path / "videos", tmp_path / str(k), settings) for k, settings in enumerate((HALF, SECOND)))
    assert stored(by_time) == stored(by_number)
    frames = pixels_of(path)[::2]
    assert by_time.num_frames == -(-num_frames // 2)
    assert np.array_equal(by_time.flow(0, len(frames) - 1), Quantiser().encode(compute_flow(frames)))
    times = [float(time) for time in stamps_of(path)[::2]]
    for clip in (by_time, by_number):
        assert clip.times is not None
        assert clip.times.tolist() == times
        assert clip.frame_rate == Fraction(25, 2)
        about = clip.attributes
        assert (about.source_frames, about.losses, about.notes) == (num_frames, "", "")


def test_a_variable_frame_rate_gives_the_frames_nearest_in_time(tmp_path: Path) -> None:
    steps = np.random.default_rng(3).integers(1, 6, 29)
    path = encode_video(tmp_path / "videos" / "a.mkv", "ffv1", pixels="bgr0", num_frames=30, rate=50, pts=[0, *np.cumsum(steps).tolist()])
    clip = extracted(tmp_path / "videos", tmp_path / "data", replace(SETTINGS, reading=Reading(fps=10)))
    times = stamps_of(path)
    grid = [Fraction(j, 10) for j in range(len(times)) if Fraction(j, 10) <= times[-1]]
    nearest = sorted({min(range(len(times)), key=lambda k, at=at: (abs(times[k] - at), k)) for at in grid})
    assert clip.times is not None
    assert [Fraction(round(time * 1000), 1000) for time in clip.times[: len(nearest)]] == [times[k] for k in nearest]
    assert len(clip) - len(nearest) in (0, 1), "the grid may end half a frame interval later"
    frames = pixels_of(path)[[times.index(Fraction(round(time * 1000), 1000)) for time in clip.times]]
    assert np.array_equal(clip.flow(0, len(clip) - 1), Quantiser().encode(compute_flow(frames)))


def test_frames_of_a_bare_stream_are_counted_and_a_slow_video_is_listed(tmp_path: Path) -> None:
    if "libx264" not in av.codecs_available:
        pytest.skip("this PyAV cannot encode H.264")
    encode_video(tmp_path / "videos" / "raw.h264", "libx264", num_frames=20, container="h264")
    encode_video(tmp_path / "videos" / "slow.mkv", "ffv1", pixels="bgr0", num_frames=4, rate=5)
    report = extract(tmp_path / "videos", tmp_path / "data", settings=HALF, jobs=1, progress=False)
    raw, slow = report.done
    assert (raw.status, raw.num_frames, raw.source_frames) == ("ok", 10, 20)
    assert raw.notes == "20 frames without a usable time stamp, counted by the frame rate"
    assert (slow.status, slow.num_frames, slow.notes) == ("ok", 4, "slower than 12.5 frames/s: all frames kept")
    with ShardReader(tmp_path / "data" / "clips" / "raw.h5") as reader:
        times = reader.clip("raw").times
    assert times is not None
    assert times.tolist() == [k / 12.5 for k in range(10)]


def test_the_choice_is_a_setting_of_the_root_that_is_never_mixed(tmp_path: Path) -> None:
    write_video(tmp_path / "videos" / "a.avi", 12)
    extract(tmp_path / "videos", tmp_path / "data", settings=HALF, jobs=1, progress=False)
    assert Dataset.open(tmp_path / "data").settings == HALF
    assert json.loads((tmp_path / "data" / "dataset.json").read_text())["settings"]["reading"] == {"fps": "25/2"}
    for other, words in ((SETTINGS, "fps: 12.5, not all frames"), (SECOND, "fps: 12.5, not all frames; every: 1, not 2")):
        with pytest.raises(ParameterError, match=words):
            extract(tmp_path / "videos", tmp_path / "data", settings=other, jobs=1, progress=False)
    again = extract(tmp_path / "videos", tmp_path / "data", jobs=1, progress=False)
    assert (len(again.skipped), again.skipped[0].num_frames, again.skipped[0].source_frames) == (1, 6, 12)
    (index,) = (tmp_path / "data" / "clips" / ".index").glob("*")
    index.unlink()  # a run was killed before it noted the clip
    (found,) = extract(tmp_path / "videos", tmp_path / "data", jobs=1, progress=False).skipped
    assert (found.status, found.num_frames, found.source_frames, found.header_frames) == ("ok", 6, 12, again.skipped[0].header_frames)
    write_video(tmp_path / "other" / "b.avi", 12)
    extract(tmp_path / "other", tmp_path / "all", settings=SETTINGS, jobs=1, progress=False)
    (tmp_path / "all" / "clips" / "b.h5").replace(tmp_path / "data" / "clips" / "b.h5")
    with pytest.raises(ParameterError, match="reading None instead of"):
        pack(tmp_path / "data", lists="automatic", progress=False)


def test_a_video_of_which_one_frame_is_chosen_is_short(tmp_path: Path) -> None:
    write_video(tmp_path / "videos" / "a.avi", 12)
    report = extract(tmp_path / "videos", tmp_path / "data", settings=replace(SETTINGS, reading=Reading(every=12)), jobs=1, progress=False)
    assert (report.failed[0].status, report.failed[0].error) == ("short", "only 1 of 12 frames is chosen; flow needs 2")


@pytest.mark.parametrize("reading", [Reading(fps=10), Reading(every=3)])
def test_pieces_of_a_long_video_give_the_bytes_of_one_pass(tmp_path: Path, reading: Reading, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(SETTINGS, reading=reading)
    write_video(tmp_path / "videos" / "a.avi", 150)
    whole = extracted(tmp_path / "videos", tmp_path / "one", settings)
    (job,) = make_plan(tmp_path / "videos", tmp_path / "pieces", settings=settings).jobs
    tasks = run_task(CutJob(job, 3), _Silent()).tasks
    assert len(tasks) > 1
    for task in tasks:
        assert isinstance(task, PieceJob)
        run_task(task, _Silent())
    done = run_task(replace(job, pieces=tuple(find_pieces(job.piece_folder))), _Silent())
    assert done.video is not None
    assert done.video.status == "ok"
    assert job.clip_path.read_bytes() == (tmp_path / "one" / "clips" / "a.h5").read_bytes()
    monkeypatch.setattr(one_video, "MIN_RESUMED", 5)  # as a long video is extracted, which can resume
    again: VideoJob = replace(job, root=tmp_path / "long")
    assert run_task(again, _Silent()).video is not None
    assert again.clip_path.read_bytes() == (tmp_path / "one" / "clips" / "a.h5").read_bytes()
    assert whole.num_frames == (50 if reading.every == 3 else 60)


@needs("libvpx")
def test_damage_is_that_of_the_source_and_a_change_of_size_is_told_with_its_frame(tmp_path: Path) -> None:
    case = CASES / "webrtc_turn.webm"
    if not case.is_file():
        pytest.skip("the case is not here")
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "turn.webm").write_bytes(case.read_bytes())
    report = extract(videos, tmp_path / "data", settings=HALF, jobs=1, progress=False)
    assert report.done[0].status == "ok"
    assert report.done[0].notes == "the picture size changes from 64x48 to 48x64 px at frame 10"


def test_the_command_chooses_frames_and_info_shows_their_times(tmp_path: Path) -> None:
    encode_video(tmp_path / "videos" / "run" / "a.mkv", "ffv1", num_frames=25, pixels="bgr0")
    run = CliRunner()
    data = str(tmp_path / "data")
    line = ["extract", str(tmp_path / "videos"), "--data", data, "--short-side", "32", "--jobs", "1"]
    done = run.invoke(command, [*line, "--fps", "10"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "frames at 10 frames/s" in done.stderr
    shown = run.invoke(command, ["info", str(tmp_path / "data" / "clips" / "run" / "a.h5")])
    assert "0.00 to 0.88" in shown.stdout
    video = json.loads(run.invoke(command, ["info", str(tmp_path / "data" / "clips" / "run" / "a.h5"), "--json"]).stdout)["videos"][0]
    assert (video["num_frames"], video["frame_rate"], video["first_seconds"], video["last_seconds"]) == (10, "10/1", 0.0, 0.88)
    refused = run.invoke(command, [*line, "--every", "2"])
    assert isinstance(refused.exception, ParameterError)
    assert "fps: 10, not all frames" in str(refused.exception)
    assert run.invoke(command, [*line, "--fps", "ten"]).exit_code == 2
    assert run.invoke(command, [*line, "--fps", "10", "--every", "2"]).exit_code == 2


class _Silent:
    """Progress that nobody looks at."""

    stopping = False

    def note(self, num_done: int, expected: int = 0) -> None: ...
    def alive(self) -> None: ...
