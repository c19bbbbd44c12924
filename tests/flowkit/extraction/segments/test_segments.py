"""Segments of videos: each is what the cut-out frames would give, each file is decoded once, and a faulty list stops everything."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from command_lines import call_flowkit, run_flowkit
from odd_videos import encode_video, truncate
from small_videos import SETTINGS, files_of, write_video
from worker_tasks import run_here

import flowkit.video.segments.frames as segment_frames
import flowkit.video.segments.sources as segment_sources
from flowkit import ManifestError, Quantiser, Reading, ShardReader, compute_flow, extract, read_frames
from flowkit.extraction.jobs import SegmentsJob, TaskResult
from flowkit.extraction.plan import make_plan
from flowkit.extraction.schedule import MAX_OVERLAPPING, make_tasks, run_task
from flowkit.extraction.segments.resolving import resolve_segments
from flowkit.video.containers import VIDEO_SUFFIXES
from flowkit.video.segments.frames import read_segments
from flowkit.video.segments.segment import Segment
from flowkit.video.tree import scan_videos

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from flowkit.extraction.jobs import VideoJob

ALIVE: Any = SimpleNamespace(note=lambda *_: None, alive=lambda: None, stopping=False)


@pytest.fixture(autouse=True)
def _in_this_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run all tasks here; only the marked test has processes."""
    if "kept_workers" not in request.fixturenames:
        for place in ("flowkit.extraction.run", "flowkit.extraction.segments.resolving"):
            monkeypatch.setattr(f"{place}.run_tasks", run_here)


def write_list(path: Path, rows: Iterable[tuple[object, ...]], columns: str = "video_id,start_frame,end_frame") -> Path:
    path.write_text("\n".join([columns, *(",".join(map(str, row)) for row in rows)]) + "\n", encoding="utf-8")
    return path


def write_pictures(folder: Path, frames: NDArray[np.uint8], *, first: int = 1) -> None:
    folder.mkdir(parents=True)
    for k, frame in enumerate(frames, start=first):
        assert cv2.imwrite(str(folder / f"{k}.png"), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))


def pixels_of(path: Path) -> NDArray[np.uint8]:
    return np.concatenate([batch.frames for batch in read_frames(path, short_side=32)])


def planned(tmp_path: Path, rows: Iterable[tuple[object, ...]], settings: Any = SETTINGS) -> tuple[VideoJob, ...]:
    """Return the jobs of segments, without worker processes."""
    return make_plan(tmp_path / "videos", tmp_path / "data", settings=settings, segments=write_list(tmp_path / "s.csv", rows)).jobs


def solve(jobs: Iterable[VideoJob], progress: Any = ALIVE) -> list[TaskResult]:
    """Extract segments in this process."""
    tasks = make_tasks(tuple(jobs), 1)
    assert all(isinstance(task, SegmentsJob) for task in tasks)
    return [run_task(task, progress) for task in tasks]


def check_clip(root: Path, segment_id: str, frames: NDArray[np.uint8], numbers: range, clip_folder: Path) -> None:
    """A clip has the bytes of an extraction of the cut-out frames."""
    with ShardReader(root / "clips" / f"{segment_id}.h5") as reader:
        clip = reader.clip(segment_id)
        cut = frames[numbers.start : numbers.stop : numbers.step]
        assert np.array_equal(clip.flow(0, len(clip) - 1), Quantiser().encode(compute_flow(cut))), clip_folder
        assert clip.times is not None
        assert clip.times.tolist() == [k / 25 for k in numbers]


def test_segments_have_the_bytes_of_the_cut_out_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "videos" / "Jump" / "game.mkv", 60)
    rows = [("Jump/game", 0, 5), ("Jump/game", 3, 40), ("game.mkv", 20, 22), ("game", 25, 60)]
    report = extract(
        tmp_path / "videos", tmp_path / "data", settings=SETTINGS, segments=write_list(tmp_path / "s.csv", rows), progress=False
    )
    assert [(result.video_id, result.status, result.num_frames) for result in report.done] == [
        ("Jump/game_0_5", "ok", 5),
        ("Jump/game_20_22", "ok", 2),
        ("Jump/game_25_60", "ok", 35),
        ("Jump/game_3_40", "ok", 37),
    ]
    frames = pixels_of(path)
    for start, end in ((0, 5), (3, 40), (20, 22), (25, 60)):
        check_clip(tmp_path / "data", f"Jump/game_{start}_{end}", frames, range(start, end), tmp_path)
    whole = extract(tmp_path / "videos", tmp_path / "whole", settings=SETTINGS, jobs=1, progress=False)
    assert whole.done[0].num_frames == 60
    with ShardReader(tmp_path / "whole" / "clips" / "Jump" / "game.h5") as all_of_it:
        stored = all_of_it.clip("Jump/game").encoded_frames(3, 40)
    with ShardReader(tmp_path / "data" / "clips" / "Jump" / "game_3_40.h5") as part:
        clip = part.clip("Jump/game_3_40")
        assert clip.encoded_frames(0, 37) == stored
        about = clip.attributes
        assert about.segment == {"video_id": "Jump/game", "start_frame": 3, "end_frame": 40}
        assert (about.class_name, about.source_name, about.frame_rate, about.header_frames) == ("Jump", "game.mkv", "25/1", 37)
    again = extract(tmp_path / "videos", tmp_path / "data", segments=tmp_path / "s.csv", jobs=1, progress=False)
    assert (len(again.done), len(again.skipped), len(again.failed)) == (0, 4, 0)


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_seconds_are_the_frames_whose_time_stamps_lie_between_them(tmp_path: Path, name: str) -> None:
    steps = np.random.default_rng(5).integers(1, 5, 39)
    stamps = [40, *(40 + np.cumsum(steps)).tolist()]  # the first frame is at 0.8 s
    codec = {"a.mkv": ("ffv1", "bgr0"), "a.mp4": ("mpeg4", "yuv420p")}[name]
    encode_video(tmp_path / "videos" / name, codec[0], pixels=codec[1], num_frames=40, rate=50, pts=stamps)
    times = [Fraction(stamp - 40, 50) for stamp in stamps]
    rows = [("a", "0.5", "1.25"), ("a", "0", float(times[-1] + Fraction(1, 50)))]
    listed = write_list(tmp_path / "s.csv", rows, "video_id,start_seconds,end_seconds")
    report = extract(tmp_path / "videos", tmp_path / "data", settings=SETTINGS, segments=listed, jobs=1, progress=False)
    inside = [k for k, time in enumerate(times) if Fraction(1, 2) <= time < Fraction(5, 4)]
    assert [result.video_id for result in report.done] == ["a_0_40", f"a_{inside[0]}_{inside[-1] + 1}"]
    assert [result.num_frames for result in report.done] == [40, len(inside)]


def test_frames_are_chosen_within_each_segment(tmp_path: Path) -> None:
    path = write_video(tmp_path / "videos" / "a.mkv", 50)
    rows, frames = [("a", 3, 20), ("a", 4, 20), ("a", 10, 41)], pixels_of(path)
    for number, reading in enumerate((Reading(fps="12.5"), Reading(every=2))):
        jobs = planned(tmp_path, rows, replace(SETTINGS, reading=reading))
        (result,) = solve(replace(job, root=tmp_path / str(number)) for job in jobs)
        assert {each.video_id: (each.num_frames, each.source_frames, each.notes) for each in result.segments} == {
            "a_3_20": (9, 17, ""),
            "a_4_20": (8, 16, ""),
            "a_10_41": (16, 31, ""),
        }
        for _, start, end in rows:
            check_clip(tmp_path / str(number), f"a_{start}_{end}", frames, range(start, end, 2), tmp_path)


def test_a_long_video_is_decoded_once_and_only_frames_of_segments_are_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "a.mkv", 3000, width=16, height=16)
    rng = np.random.default_rng(0)
    starts = sorted(rng.integers(0, 2900, 40).tolist())
    segments = [Segment("a", start, start + int(rng.integers(2, 90))) for start in starts]
    counts = {"decoded": 0, "converted": 0}
    for module, name, key in ((segment_sources, "decoded_frames", "decoded"), (segment_frames, "pixels_of", "converted")):
        original = getattr(module, name)

        def counting(*args: Any, original: Any = original, key: str = key) -> Any:
            if key == "converted":
                counts[key] += 1
                return original(*args)
            return counted_frames(original(*args))

        monkeypatch.setattr(module, name, counting)

    def counted_frames(frames: Any) -> Any:
        for frame in frames:
            counts["decoded"] += 1
            yield frame

    taken: dict[int, list[int]] = {k: [] for k in range(40)}
    ended = []
    most = 0
    for batch in read_segments(tmp_path / "a.mkv", segments, short_side=None):
        most = max(most, len(batch.numbers))
        ended += [*batch.ended]
        for index, places in batch.places.items():
            taken[index] += [batch.numbers[place] for place in places]
    assert taken == {k: list(range(segment.start_frame, segment.end_frame)) for k, segment in enumerate(segments)}
    assert sorted(ended) == list(range(40))
    wanted = {k for segment in segments for k in range(segment.start_frame, segment.end_frame)}
    assert counts == {"decoded": max(wanted) + 2, "converted": len(wanted)}, "one frame more shows that the last segment has ended"
    assert most == 16


def test_a_segment_that_is_done_is_not_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "videos" / "a.mkv", 60)
    jobs = planned(tmp_path, [("a", 0, 10), ("a", 5, 20), ("a", 30, 60)])
    calls = iter(range(100))

    class Stopping:
        note = alive = staticmethod(lambda *_: None)

        @property
        def stopping(self) -> bool:
            return next(calls) >= 2  # after two batches

    (result,) = solve(jobs, Stopping())
    assert result.stopped
    assert [each.video_id for each in result.segments] == ["a_0_10", "a_5_20"]
    before = files_of(tmp_path / "data")
    todo = make_plan(tmp_path / "videos", tmp_path / "data", settings=SETTINGS, segments=tmp_path / "s.csv")
    assert [job.video_id for job in todo.jobs] == ["a_30_60"]
    asked: list[list[str]] = []
    original = read_segments

    def noting(path: Path, segments: list[Segment], **how: Any) -> Any:
        asked.append([segment.segment_id for segment in segments])
        return original(path, segments, **how)

    monkeypatch.setattr("flowkit.extraction.segments.extract.read_segments", noting)
    (result,) = solve(jobs)  # as a process does that takes the task of one that was killed
    assert asked == [["a_30_60"]]
    assert [each.status for each in result.segments] == ["ok"] * 3
    after = files_of(tmp_path / "data")
    assert {name: after[name] for name in before} == before
    assert len(after) == 3


def test_all_mistakes_of_a_list_are_in_one_error_and_nothing_is_written(tmp_path: Path) -> None:
    write_video(tmp_path / "videos" / "one" / "a.mkv", 30)
    write_video(tmp_path / "videos" / "two" / "a.mkv", 10)
    write_video(tmp_path / "videos" / "one" / "b.mkv", 10)
    write_video(tmp_path / "videos" / "one" / "b_0_5.mkv", 10)
    rows = [
        ("one/a", 0, 31),
        ("one/a", 7, 7),
        ("gone", 0, 5),
        ("a", 0, 5),
        ("one/a", "x", 5),
        ("one/a", 2, 9),
        ("one/a.mkv", 2, 9),
        ("", 0, 5),
        ("b", 0, 5),
        ("one/a", -1, 5),
        ("two/a", 0, 10),
    ]
    listed = write_list(tmp_path / "s.csv", rows)
    ended = run_flowkit("extract", tmp_path / "videos", "--data", tmp_path / "data", "--segments", listed)
    assert ended.code == 1
    for text in (
        "line 2: the segment of 'one/a' ends after its video, which has 30 frames",
        "line 3: the segment is empty",
        "line 4: there is no video 'gone'",
        "line 5: 'a' may be 'one/a' or 'two/a'",
        "line 6: start_frame must be the number of a frame, got 'x'",
        "line 8: the segment 'one/a_2_9' is the same as that of line 7",
        "line 9: names no video",
        "line 10: the segment would have the id of the video 'one/b_0_5'",
        "line 11: start_frame",
    ):
        assert text in " ".join(ended.err.split()), text
    assert re.findall(r"line (\d+):", ended.err) == ["2", "3", "4", "5", "6", "8", "9", "10", "11"]
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lacks columns"),
        ("video_id,start_frame\na,1\n", "lacks columns: end_frame"),
        ("video_id,start_frame,end_frame,start_seconds,end_seconds\n", "both in seconds and in frames"),
        ("video_id,video_id,start_frame,end_frame\n", "twice"),
        ("video_id,start_frame,end_frame\n\n", "lists no segment"),
        ('video_id,start_frame,end_frame\n"a,1,2\n', "not valid CSV"),
        ("video_id;start_seconds;end_seconds\na;0;900\n", "ends after its video, which has 0.40 s"),
        ("video_id,start_seconds,end_seconds\na,0.41,0.6\n", "ends after its video"),
        ("video_id\tstart_seconds\tend_seconds\na\t0.01\t0.03\n", "is empty: no frame"),
        ("video_id,start_seconds,end_seconds\na,1:30,2:00\n", "must be a number of seconds"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused(tmp_path: Path, text: str, message: str) -> None:
    write_video(tmp_path / "videos" / "a.mkv", 10)
    (tmp_path / "s.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ManifestError, match=re.escape(message)):
        resolve_segments(tmp_path / "s.csv", scan_videos(tmp_path / "videos", VIDEO_SUFFIXES), SETTINGS)


def test_the_list_names_classes_and_segments_of_a_video_stay_on_one_side_of_a_split(tmp_path: Path) -> None:
    rows: list[tuple[object, ...]] = []
    for k in range(4):
        write_video(tmp_path / "videos" / f"v{k}.mkv", 48, seed=k)
        rows += [(f"v{k}", 12 * part, 12 * part + 12, ("Run", "Jump")[part % 2]) for part in range(4)]
    write_video(tmp_path / "videos" / "unlisted.mkv", 12)
    listed = write_list(tmp_path / "s.csv", rows, "video_id,start_frame,end_frame,class_name")
    data = tmp_path / "data"
    common = ("--data", data, "--short-side", 32, "--jobs", 1)
    ended = call_flowkit("extract", tmp_path / "videos", *common, "--segments", listed, code=0)
    assert "16 segments of 4 videos are listed, 1 video of the folder that the list of segments does not name are left out" in ended.err
    call_flowkit("pack", "--data", data, code=0)
    call_flowkit("verify", data, code=0)
    halves = {}
    for half in ("train", "test"):
        lines = (data / "splits" / "split1" / f"{half}.csv").read_text(encoding="utf-8").splitlines()[1:]
        assert {line.split(",")[2] for line in lines} == {"Run", "Jump"}
        halves[half] = {line.split("_")[0] for line in lines}
    assert not halves["train"] & halves["test"]
    swapped = write_list(tmp_path / "t.csv", [(*row[:3], "Fall") for row in rows[:1]], "video_id,start_frame,end_frame,class_name")
    ended = call_flowkit("extract", tmp_path / "videos", *common, "--segments", swapped, code=0)
    assert "1 done" in ended.out, "the class of a segment is what the list says now"


def test_segments_of_a_damaged_video_say_what_was_lost_of_them(tmp_path: Path) -> None:
    path = write_video(tmp_path / "videos" / "a.mkv", 60)
    jobs = planned(tmp_path, [("a", 0, 20), ("a", 10, 60)])
    truncate(path, 0.6)
    (result,) = solve(jobs)
    whole, cut = result.segments
    assert (whole.status, whole.num_frames, whole.error) == ("ok", 20, "")
    assert cut.status == "damaged"
    assert f"decoded {cut.num_frames} of 50 frames" in cut.error
    assert cut.num_frames < 50


def test_a_video_that_cannot_be_read_fails_with_all_its_segments(tmp_path: Path) -> None:
    write_video(tmp_path / "videos" / "good.mkv", 10)
    (tmp_path / "videos" / "bad.mkv").write_bytes(b"no video at all" * 100)
    listed = write_list(tmp_path / "s.csv", [("good", 0, 5), ("bad", 0, 5), ("bad", 2, 7)])
    report = extract(tmp_path / "videos", tmp_path / "data", settings=SETTINGS, segments=listed, jobs=1, progress=False)
    assert [result.video_id for result in report.done] == ["good_0_5"]
    (failed,) = report.failed
    assert failed.video_id == "bad"
    assert "2 segments of it cannot be extracted" in failed.error


def test_a_file_that_changes_leaves_no_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "videos" / "a.mkv", 40)
    jobs = planned(tmp_path, [("a", 0, 10), ("a", 20, 40)])
    original = read_segments

    def growing(*args: Any, **how: Any) -> Any:
        for batch in original(*args, **how):
            yield batch
            if 0 in batch.ended:
                with path.open("ab") as file:
                    file.write(b"x")

    monkeypatch.setattr("flowkit.extraction.segments.extract.read_segments", growing)
    (result,) = solve(jobs)
    assert {each.status for each in result.segments} == {"failed"}
    assert len(result.segments) == 2
    assert not list((tmp_path / "data").rglob("*.h5"))


def test_segments_of_a_folder_of_frames_are_those_of_the_video_they_were_taken_from(tmp_path: Path) -> None:
    frames = pixels_of(write_video(tmp_path / "videos" / "a.mkv", 40))
    write_pictures(tmp_path / "folders" / "a", frames)
    rows = [("a", "0", "0.41"), ("a", "0.2", "1.2"), ("a", "1.0", "1.6")]
    listed = write_list(tmp_path / "s.csv", rows, "video_id,start_seconds,end_seconds")
    settings = replace(SETTINGS, reading=Reading(frame_rate="25"))
    of_file = extract(tmp_path / "videos", tmp_path / "of_file", settings=SETTINGS, segments=listed, progress=False)
    of_folder = extract(tmp_path / "folders", tmp_path / "of_folder", settings=settings, segments=listed, progress=False)
    assert [result.video_id for result in of_folder.done] == ["a_0_11", "a_25_40", "a_5_30"] == [r.video_id for r in of_file.done]
    assert {result.status for result in of_folder.done} == {"ok"}
    for result in of_folder.done:
        with (
            ShardReader(tmp_path / "of_file" / "clips" / f"{result.video_id}.h5") as one,
            ShardReader(tmp_path / "of_folder" / "clips" / f"{result.video_id}.h5") as other,
        ):
            mine, theirs = one.clip(result.video_id), other.clip(result.video_id)
            assert mine.encoded_frames(0, len(mine)) == theirs.encoded_frames(0, len(theirs))
            assert np.array_equal(mine.flow(0, len(mine) - 1), theirs.flow(0, len(theirs) - 1))
            assert mine.times is not None
            assert theirs.times is not None
            assert np.allclose(mine.times, theirs.times)
            assert (theirs.frame_rate, theirs.attributes.source_name) == (25, "a")


def test_what_is_lost_of_a_folder_damages_only_the_segments_that_it_lies_in(tmp_path: Path) -> None:
    folder = tmp_path / "videos" / "a"
    write_pictures(folder, np.random.default_rng(0).integers(0, 256, (40, 36, 48, 3), dtype=np.uint8), first=7)
    (folder / "12.png").unlink()  # frame 5
    (folder / "22.png").write_bytes(b"no picture")  # frame 15
    truncate(folder / "32.png", 0.7)  # frame 25
    cv2.imwrite(str(folder / "42.png"), np.zeros((50, 60, 3), np.uint8))  # frame 35
    rows = [("a", 5 * k, 5 * k + 5) for k in range(8)]
    report = extract(
        tmp_path / "videos", tmp_path / "data", settings=SETTINGS, segments=write_list(tmp_path / "s.csv", rows), progress=False
    )
    errors = {result.video_id: result.error for result in report.done if result.status == "damaged"}
    assert errors.pop("a_25_30") in ("1 decode error", "decoded 4 of 5 frames"), "whether FFmpeg shows the one that is cut off"
    assert errors == {
        "a_5_10": "decoded 4 of 5 frames",
        "a_15_20": "decoded 4 of 5 frames",
        "a_35_40": "1 picture of another size than the first of the folder",
    }
    assert sum(result.status == "ok" and result.num_frames == 5 for result in report.done) == 4
    seconds = write_list(tmp_path / "t.csv", [("a", 0, 1)], "video_id,start_seconds,end_seconds")
    (failed,) = extract(tmp_path / "videos", tmp_path / "data", segments=seconds, progress=False).failed
    assert "whose frame rate is not known; give it with --frame-rate" in failed.error
    with pytest.raises(ManifestError, match="ends after its video, which has 40 frames"):
        planned(tmp_path, [("a", 0, 41)])


def test_many_overlapping_segments_are_divided_so_that_few_files_are_open(tmp_path: Path) -> None:
    write_video(tmp_path / "videos" / "a.mkv", 200)
    jobs = planned(tmp_path, [("a", k, 200) for k in range(MAX_OVERLAPPING + 5)])
    tasks = make_tasks(jobs, 2)
    assert sorted(len(task.segments) for task in tasks if isinstance(task, SegmentsJob)) == [5, MAX_OVERLAPPING]
    apart = planned(tmp_path, [("a", k, k + 2) for k in range(0, 198, 2)])
    assert len(make_tasks(apart, 2)) == 1
