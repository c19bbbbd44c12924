"""Extraction of small video files: what is written, skipped, refused and reported, and what it survives."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
from click.testing import CliRunner
from first_lines import WAITS_WITH_A_PIECE, environment_with
from small_videos import SETTINGS, files_of, write_video

from flowkit import DeviceError, ManifestError, ParameterError, Quantiser, ShardReader, compute_flow, read_frames
from flowkit.cli.main import flowkit as command
from flowkit.dataset.packing import pack
from flowkit.dataset.root import Dataset, open_root
from flowkit.dataset.root_locks import packing
from flowkit.dataset.settings import ExtractSettings
from flowkit.errors import BusyError
from flowkit.extraction.jobs import CutJob, PieceJob, Task, VideoJob
from flowkit.extraction.pieces import PieceWriter, find_pieces, record_source
from flowkit.extraction.plan import Plan, make_plan
from flowkit.extraction.results import read_index
from flowkit.extraction.run import extract
from flowkit.extraction.schedule import GRAIN, make_tasks, run_task
from flowkit.extraction.source import Source
from flowkit.workers.stopping import StopRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowkit.workers.progress import TaskProgress


pytestmark = pytest.mark.usefixtures("kept_workers")


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    root = tmp_path / "videos"
    write_video(root / "run" / "a.avi", 5, seed=1)
    write_video(root / "run" / "b.avi", 20, seed=2)
    write_video(root / "walk" / "a.mkv", 3, width=33, height=47, seed=3)
    (root / "notes.txt").write_text("not a video")
    return root


def test_n_frames_and_n_minus_1_flow_fields_each_equal_to_the_stages_one_by_one(videos: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    report = extract(videos, root, settings=SETTINGS, jobs=2)
    assert [(r.video_id, r.status, r.num_frames) for r in report.done] == [("run/a", "ok", 5), ("run/b", "ok", 20), ("walk/a", "ok", 3)]
    assert (report.ignored, report.failed, report.skipped, report.num_pairs) == (1, (), (), 25)
    for video_id, name in (("run/a", "run/a.avi"), ("run/b", "run/b.avi"), ("walk/a", "walk/a.mkv")):
        frames = np.concatenate([batch.frames for batch in read_frames(videos / name, short_side=32)])
        expected = Quantiser().encode(compute_flow(frames))
        with ShardReader(root / "clips" / (video_id + ".h5")) as shard:
            clip = shard.clip(video_id)
            assert np.array_equal(clip.flow(0, len(frames) - 1), expected)
            stored = clip.frames(range(len(frames)))
            assert stored.shape == frames.shape
            assert np.abs(stored.astype(int) - frames).mean() < 8  # JPEG, with its coarser colours
            assert clip.attributes.source_name == name.split("/")[1]
    assert not list(root.rglob("*.part"))


def test_a_second_run_does_nothing_and_a_changed_video_is_done_again(videos: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    extract(videos, root, settings=SETTINGS, jobs=1)
    before = files_of(root)
    again = extract(videos, root, settings=SETTINGS, jobs=1)
    assert (len(again.done), len(again.skipped)) == (0, 3)
    os.utime(videos / "run" / "a.avi", (1, 1))  # touched, or copied: the same bytes
    assert len(extract(videos, root, settings=SETTINGS, jobs=1).done) == 0
    write_video(videos / "run" / "a.avi", 4, seed=9)
    changed = extract(videos, root, settings=SETTINGS, jobs=1)
    assert [r.video_id for r in changed.done] == ["run/a"]
    after = files_of(root)
    assert [name for name in after if after[name] != before[name]] == ["clips/run/a.h5"]


@pytest.mark.slow
def test_the_settings_of_a_root_are_the_default_and_progress_is_shown_on_request(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    report = extract(str(videos), str(root), settings=SETTINGS, jobs=1, progress=False)
    assert capsys.readouterr().err == ""
    assert repr(report) == "ExtractReport(3 done, 0 skipped, 0 failed, 0 damaged)"
    assert [result.video_id for result in report] == ["run/a", "run/b", "walk/a"]
    (root / "clips" / "run" / "a.h5").unlink()
    before = files_of(root)
    again = extract(str(videos), str(root), jobs=1, progress=True)
    assert (len(again), len(again.done)) == (3, 1)
    assert re.match(r"extract: 4 flow fields in .* 1/1 videos\n", capsys.readouterr().err)
    assert {name for name in files_of(root) if name not in before} == {"clips/run/a.h5"}
    imported = ExtractSettings("imported", solver="denseflow", quantiser=Quantiser(20, "paper"), short_side=0, codec="jpeg")
    open_root(tmp_path / "imported", videos, imported)
    with pytest.raises(ParameterError, match="flow imported from denseflow"):
        extract(videos, tmp_path / "imported")


@pytest.mark.parametrize("wrong", [{"part": (2, 2)}, {"part": (-1, 2)}, {"jobs": 0}, {"devices": ()}])
def test_numbers_out_of_range_are_refused_and_nothing_is_made(videos: Path, tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ParameterError):
        extract(videos, tmp_path / "data", **wrong)
    with pytest.raises(ManifestError, match="nowhere"):
        extract(tmp_path / "nowhere", tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_lost_index_does_not_redo_finished_clips(videos: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    extract(videos, root, settings=SETTINGS, jobs=1)
    shutil.rmtree(root / "clips" / ".index")
    again = extract(videos, root, settings=SETTINGS, jobs=1)
    assert (len(again.done), [r.status for r in again.skipped]) == (0, ["ok"] * 3)


@pytest.mark.slow
def test_videos_of_two_folders_with_the_same_id_are_refused_and_nothing_is_overwritten(videos: Path, tmp_path: Path) -> None:
    root, other = tmp_path / "data", tmp_path / "other"
    extract(videos, root, settings=SETTINGS, jobs=1)
    before = files_of(root)
    shutil.copytree(videos, other)
    assert len(extract(other, root, settings=SETTINGS, jobs=1).skipped) == 3  # a copy
    write_video(other / "run" / "a.mkv", 4, seed=9)
    (other / "run" / "a.avi").unlink()
    write_video(other / "walk" / "a.mkv", 4, seed=8)
    with pytest.raises(ManifestError, match=r"videos/run/a\.avi' and '.*other/run/a\.mkv' would both be 'run/a'.* would both be 'walk/a'"):
        extract(other, root, settings=SETTINGS, jobs=1)
    assert files_of(root) == before
    shutil.rmtree(videos)  # moved, then changed
    assert [r.video_id for r in extract(other, root, settings=SETTINGS, jobs=1).done] == ["run/a", "walk/a"]


def test_a_damaged_clip_is_extracted_again_and_stops_nothing(videos: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    extract(videos, root, settings=SETTINGS, jobs=1)
    before = files_of(root)
    clips = root / "clips" / "run"
    (clips / "a.h5").write_bytes((clips / "a.h5").read_bytes()[:-100])  # truncated: its size shows it
    (clips / "b.h5").write_bytes(b"not a clip" + (clips / "b.h5").read_bytes()[10:])
    os.utime(videos / "run" / "b.avi", (1, 1))  # so that the clip is opened
    again = extract(videos, root, settings=SETTINGS, jobs=1)
    assert [r.video_id for r in again.done] == ["run/a", "run/b"]
    assert files_of(root) == before


def test_a_mistyped_number_of_processes_is_refused_before_any_work(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="1 to 1024 processes"):
        extract(videos, tmp_path / "data", settings=SETTINGS, jobs=10**23)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "change",
    [{"video_id": ["run/a"]}, {"num_frames": "5"}, {"status": "fine"}, {"error": 1}, {"time_ns": 1e400}, {"source_bytes": True}, {"x": 1}],
)
def test_a_line_of_the_index_that_flowkit_does_not_write_is_passed_over(videos: Path, tmp_path: Path, change: dict[str, object]) -> None:
    root = tmp_path / "data"
    index = root / "clips" / ".index" / "elsewhere-1.jsonl"
    index.parent.mkdir(parents=True)
    line = {"video_id": "run/a", "status": "ok", "source_bytes": 1, "source_mtime_ns": 1, "time_ns": 1}
    index.write_text(json.dumps(line) + "\n")
    assert list(read_index(root)) == ["run/a"]
    index.write_text(json.dumps(line | change) + "\n" + "[" * 100_000 + "\n")
    assert read_index(root) == {}
    assert len(make_plan(videos, root, settings=SETTINGS).jobs) == 3


def test_the_data_root_s_own_videos_are_not_extracted(videos: Path) -> None:
    root = videos / "flowkit-data"
    open_root(root, videos, SETTINGS)
    write_video(root / "inspect" / "a-flow.mkv", 3)  # as `inspect` draws them
    found = make_plan(videos, root, settings=SETTINGS)
    assert (sorted(job.video_id for job in found.jobs), found.ignored) == (["run/a", "run/b", "walk/a"], {".txt": 1})
    asked_for = make_plan(root / "inspect", root, settings=SETTINGS)
    assert [job.video_id for job in asked_for.jobs] == ["a-flow"]


def test_bytes_do_not_depend_on_processes_order_or_pieces(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extract(videos, tmp_path / "one", settings=SETTINGS, jobs=1)
    monkeypatch.setattr("flowkit.extraction.schedule.MIN_PIECE", 3)
    shares = make_plan(videos, tmp_path / "two", settings=SETTINGS)
    assert sum(isinstance(task, PieceJob) for task in tasks_of(shares.jobs, 3)) >= 5
    report = extract(videos, tmp_path / "two", settings=SETTINGS, jobs=3)
    assert [r.status for r in report.done] == ["ok"] * 3
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    assert not (tmp_path / "two" / "clips" / ".pieces").exists()


def tasks_of(jobs: Sequence[VideoJob], num_processes: int) -> list[Task]:
    """Return what the processes have to do after the long videos have been divided."""
    given: list[Task] = []
    for task in make_tasks(jobs, num_processes):
        given.extend(run_task(task, cast("TaskProgress", None)).tasks if isinstance(task, CutJob) else [task])
    return given


@pytest.mark.parametrize(
    ("sizes", "num_processes", "num_cut"),
    [
        ([1000], 1, 0),  # no process waits
        ([1000], 8, 1),
        ([600] * 4, 2, 0),  # divides evenly
        ([600] * 5, 2, 1),  # during the fifth, one process would be idle
        ([600] * 130, 64, 2),
        ([600] * 64, 64, 0),
        ([5000, *[100] * 10], 4, 1),
        ([600, 590, 10, 5], 2, 0),
        ([10] * 3, 2, 0),  # too short to divide
    ],
)
def test_videos_that_would_end_late_are_divided_so_that_all_processes_end_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: list[int], num_processes: int, num_cut: int
) -> None:
    import heapq

    monkeypatch.setattr(
        "flowkit.extraction.schedule.probe", lambda path, **_: SimpleNamespace(header_frames=int(path.name) + 1, frame_rate=25)
    )
    jobs = [VideoJob(f"v{k}", Path(str(size)), "", tmp_path, SETTINGS, 8 * size, 0) for k, size in enumerate(sizes)]
    tasks = tasks_of(jobs, num_processes)
    pieces = [task for task in tasks if isinstance(task, PieceJob)]
    assert len({task.video.video_id for task in pieces}) == num_cut
    for job in {task.video for task in pieces}:
        own = [task for task in pieces if task.video == job]
        assert [task.start for task in own] == [0, *(task.stop for task in own[:-1])]
        assert own[-1].stop is None
    ends = [0.0] * num_processes
    for task in tasks:
        heapq.heapreplace(ends, ends[0] + (task.num_pairs if isinstance(task, PieceJob) else task.source_bytes / 8))
    if min(sizes) >= 100:
        assert max(ends) <= (1 + 2 * GRAIN) * sum(sizes) / num_processes


@pytest.mark.parametrize(
    "change",
    [{"short_side": 40}, {"codec": "gzip"}, {"quantiser": Quantiser(15)}, {"quantiser": Quantiser(20, "paper")}, {"solver": "fast"}],
)
def test_other_settings_are_refused_by_name(videos: Path, tmp_path: Path, change: dict[str, object]) -> None:
    root = tmp_path / "data"
    extract(videos, root, settings=SETTINGS, jobs=1)
    name = {"quantiser": "bound" if change.get("quantiser") == Quantiser(15) else "mapping"}.get(next(iter(change)), next(iter(change)))
    with pytest.raises(ParameterError, match=name):
        extract(videos, root, settings=replace(SETTINGS, **change), jobs=1)  # type: ignore[arg-type]


def test_one_bad_video_never_stops_the_rest_and_is_reported(videos: Path, tmp_path: Path) -> None:
    (videos / "run" / "empty.avi").touch()
    (videos / "run" / "text.mp4").write_text("no video")
    (videos / "run" / "script.avi").write_text("ffconcat version 1.0\nfile a.avi\n")
    write_video(videos / "run" / "single.avi", 1)
    root = tmp_path / "data"
    result = CliRunner().invoke(
        command,
        ["extract", str(videos), "--data", str(root), "--short-side", "32", "--jobs", "2", "--device", "cpu"],
        standalone_mode=False,
    )
    assert result.return_value == 3, result.output
    report = json.loads((root / "extract-report.json").read_text())
    failed = {r["video_id"]: (r["status"], r["error"]) for r in report["failed"]}
    assert {key: status for key, (status, _) in failed.items()} == {
        "run/empty": "undecodable",
        "run/script": "undecodable",
        "run/single": "short",
        "run/text": "undecodable",
    }
    assert all(error for _, error in failed.values())
    assert report["counts"]["done"] == 3
    assert sorted(files_of(root)) == ["clips/run/a.h5", "clips/run/b.h5", "clips/walk/a.h5"]
    for video_id in failed:
        assert video_id in result.stderr


def test_a_truncated_video_is_damaged_its_clip_is_written_and_strict_makes_it_a_failure(videos: Path, tmp_path: Path) -> None:
    path = videos / "run" / "b.avi"
    shutil.copy(write_video(tmp_path / "whole.avi", 20, seed=2), videos / "run" / "cut.avi")
    whole = (videos / "run" / "cut.avi").read_bytes()
    (videos / "run" / "cut.avi").write_bytes(whole[: len(whole) // 2])
    path.unlink()
    arguments = ["extract", str(videos), "--data", str(tmp_path / "data"), "--short-side", "32", "--jobs", "1", "--device", "cpu"]
    assert CliRunner().invoke(command, arguments, standalone_mode=False).return_value == 0
    report = json.loads((tmp_path / "data" / "extract-report.json").read_text())
    damaged = [r for r in report["done"] if r["status"] == "damaged"]
    assert [r["video_id"] for r in damaged] == ["run/cut"]
    assert 2 <= damaged[0]["num_frames"] < 20
    assert (tmp_path / "data" / "clips" / "run" / "cut.h5").is_file()
    assert CliRunner().invoke(command, [*arguments, "--fail-on-damaged"], standalone_mode=False).return_value == 3


def test_no_video_is_an_error_that_says_which_suffixes_count(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "x.txt").touch()
    with pytest.raises(ManifestError, match=r"no video found .*\.avi"):
        extract(tmp_path / "videos", tmp_path / "data", settings=SETTINGS)
    assert not (tmp_path / "data").exists()


def test_parts_of_the_videos_are_disjoint_and_cover_all(videos: Path, tmp_path: Path) -> None:
    parts = [make_plan(videos, tmp_path / "data", settings=SETTINGS, part=(k, 2)).jobs for k in range(2)]
    assert sorted(job.video_id for part in parts for job in part) == ["run/a", "run/b", "walk/a"]
    assert all(parts)


@pytest.mark.slow
def test_the_report_of_several_machines_is_of_all_their_videos(videos: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_video(videos / "run" / "single.avi", 1)
    os.symlink("nowhere", videos / "run" / "link.avi")

    def counts(part: int) -> tuple[dict[str, int], set[str]]:
        own = extract(videos, root, settings=SETTINGS, jobs=1, part=(part, 2))
        assert len(own.done) + len(own.skipped) + len(own.failed) - (part == 0) == 2  # the exit code depends on these
        report = json.loads((root / "extract-report.json").read_text())
        assert all(report["counts"][key] == len(report[key]) for key in ("done", "skipped", "failed"))
        return {key: report["counts"][key] for key in ("done", "skipped", "failed", "pending")}, {r["video_id"] for r in report["failed"]}

    bad = {"run/single", "run/link.avi"}
    assert counts(1) == ({"done": 2, "skipped": 0, "failed": 1, "pending": 2}, {"run/link.avi"})
    assert counts(0) == ({"done": 1, "skipped": 2, "failed": 2, "pending": 0}, bad)
    assert counts(1) == ({"done": 0, "skipped": 3, "failed": 2, "pending": 0}, bad)


@pytest.mark.parametrize(
    ("rank", "count", "first", "step", "expected"),
    [
        ("3", "4", "0", "1", (3, 4)),
        ("1", "4", "1", "1", (0, 4)),
        ("7", "3", "3", "2", (2, 3)),
        ("4", "3", "3", "2", None),
        ("9", "3", "3", "2", None),
        ("7", "3", "1", "1", None),  # --array=1,3,7
        ("x", "3", "0", "1", None),
    ],
)
def test_shard_auto_takes_the_scheduler_s_word_only_if_it_makes_sense(
    monkeypatch: pytest.MonkeyPatch, rank: str, count: str, first: str, step: str, expected: tuple[int, int] | None
) -> None:
    for name, value in (("ID", rank), ("COUNT", count), ("MIN", first), ("STEP", step)):
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    seen: list[object] = []
    nothing = Plan(SETTINGS, (), (), (), {})
    monkeypatch.setattr("flowkit.extraction.plan.make_plan", lambda *_, part, **__: seen.append(part) or nothing)
    result = CliRunner().invoke(command, ["extract", ".", "--shard", "auto", "--dry-run"])
    assert seen == ([] if expected is None else [expected])
    assert result.exit_code == (2 if expected is None else 0), result.output


@pytest.mark.skipif(os.name == "nt", reason="Windows has no fcntl")
def test_the_same_line_twice_at_once_is_refused_and_other_parts_are_not(videos: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    tried: list[int] = []

    def again(progress: object) -> None:
        if tried:
            return
        tried.append(1)
        with pytest.raises(BusyError, match="--shard"):
            extract(videos, root, settings=SETTINGS, jobs=1, part=(0, 2))
        assert not (root / "extract-report.json").exists()
        extract(videos, root, settings=SETTINGS, jobs=1, part=(1, 2))

    report = extract(videos, root, settings=SETTINGS, jobs=1, part=(0, 2), on_progress=again)
    assert tried
    assert len(report.done) == 2
    assert not list(root.glob(".*"))


def test_an_extraction_beside_a_pack_or_an_import_is_refused_before_it_begins(videos: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    extract(videos, root, settings=SETTINGS, jobs=1)
    before = sorted(root.rglob("*"))
    with packing(root):
        with pytest.raises(BusyError, match="another process packs"):
            extract(videos, root, settings=SETTINGS, jobs=1)
        with pytest.raises(BusyError, match="another process packs"):
            extract(videos, root, settings=SETTINGS, jobs=1, part=(0, 2))
    assert sorted(root.rglob("*")) == before


def test_a_video_whose_shard_holds_an_older_version_is_not_done(videos: Path, tmp_path: Path) -> None:
    """Its newer clip was noted in the index, and then lost: deleted by hand, or by a pack that knew of no lock."""
    root = tmp_path / "data"
    for name, seed in (("a", 1), ("b", 2)):
        write_video(videos / "run" / f"{name}.avi", 12, seed=seed)
    extract(videos, root, settings=SETTINGS, jobs=1)
    pack(root, lists="automatic", move=True)
    write_video(videos / "run" / "a.avi", 12, seed=7)
    newer = extract(videos, root, settings=SETTINGS, jobs=1)
    assert [result.video_id for result in newer.done] == ["run/a"]
    clip = root / "clips" / "run" / "a.h5"
    data = clip.read_bytes()
    clip.unlink()
    again = extract(videos, root, settings=SETTINGS, jobs=1)
    assert [result.video_id for result in again.done] == ["run/a"]
    assert clip.read_bytes() == data


def test_two_processes_that_make_a_root_at_once_agree_on_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "data"
    look = Dataset.open_if_present.__func__  # type: ignore[attr-defined]
    late: list[ExtractSettings] = []

    def another_is_quicker(kind: type[Dataset], path: Path) -> Dataset | None:
        found: Dataset | None = look(kind, path)
        if found is None and late:
            open_root(root, tmp_path, late.pop())
            return None
        return found

    monkeypatch.setattr(Dataset, "open_if_present", classmethod(another_is_quicker))
    late[:] = [SETTINGS]
    open_root(root, tmp_path / "videos", SETTINGS)
    record = (root / "dataset.json").read_bytes()
    assert Dataset.open(root).source == str(tmp_path)  # the first one's
    (root / "dataset.json").unlink()
    late[:] = [replace(SETTINGS, short_side=64)]
    with pytest.raises(ParameterError, match="short_side"):
        open_root(root, tmp_path, SETTINGS)
    assert record != (root / "dataset.json").read_bytes()
    assert [path.name for path in root.iterdir()] == ["dataset.json"]


@pytest.mark.slow
def test_the_last_part_to_end_reports_the_videos_of_all(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one part is about to write the report, another one ends."""
    root = tmp_path / "data"
    began = threading.Event()
    others: list[threading.Thread] = []

    def read_and_wait(path: Path) -> dict[str, Any]:
        found = read_index(path)
        if not began.is_set():
            began.set()
            others[0].join(1)  # it must wait for this report, since it is to be the last one that is written
        return found

    monkeypatch.setattr("flowkit.extraction.run.read_index", read_and_wait)

    def second() -> None:
        began.wait(60)
        extract(videos, root, settings=SETTINGS, jobs=1, part=(1, 2))

    others.append(threading.Thread(target=second))
    others[0].start()
    extract(videos, root, settings=SETTINGS, jobs=1, part=(0, 2))
    others[0].join()
    counts = json.loads((root / "extract-report.json").read_text())["counts"]
    assert (counts["done"] + counts["skipped"], counts["pending"]) == (3, 0)


def test_a_stop_leaves_whole_clips_only_and_the_same_line_finishes(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    for k in range(6):
        write_video(videos / "c" / f"v{k}.avi", 30, seed=k)
    root = tmp_path / "data"
    stop = StopRequest()
    report = extract(
        videos,
        root,
        settings=SETTINGS,
        jobs=1,
        stop=stop,
        grace_seconds=0,
        on_progress=lambda p: stop.request() if p.pairs_done > 40 else None,
    )
    assert 0 < report.pending < 6
    assert len(read_index(root)) == len(report.done) == len(files_of(root))
    assert not list(root.rglob("*.part"))
    rest = extract(videos, root, settings=SETTINGS, jobs=2)
    assert (len(rest.done), len(rest.skipped)) == (report.pending, 6 - report.pending)


@pytest.mark.slow
def test_ctrl_c_on_a_long_video_keeps_its_finished_flow_and_prints_the_line_that_resumes(tmp_path: Path) -> None:
    videos, root = tmp_path / "videos", tmp_path / "data"
    write_video(videos / "c" / "long.avi", 1200)
    arguments = ["extract", str(videos), "--data", str(root), "--short-side", "32", "--jobs", "1", "--grace", "0", "--device", "cpu"]
    line = [sys.executable, "-m", "flowkit.cli", *arguments]
    here = environment_with(tmp_path / "waits", WAITS_WITH_A_PIECE)
    with subprocess.Popen(line, env=here, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        while not list(root.glob("clips/.pieces/*/*.flow")):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert any("stopping" in line for line in process.stderr)
        (tmp_path / "waits" / "GO").touch()
        errors = process.stderr.read()
    assert process.returncode == 130, errors
    assert "to resume: flowkit extract" in errors
    assert "Traceback" not in errors
    kept = list(root.glob("clips/.pieces/*/*.flow"))
    assert kept
    assert not list(root.rglob("*.h5"))
    shutil.copytree(root, tmp_path / "marked")
    resumed = extract(videos, root, settings=SETTINGS, jobs=2)
    assert resumed.done[0].num_frames == 1200
    assert not list(root.glob("clips/.pieces/*/*"))
    extract(videos, tmp_path / "whole", settings=SETTINGS, jobs=1)
    assert files_of(root) == files_of(tmp_path / "whole")
    assert_kept_flow_is_used(videos, tmp_path / "marked", tmp_path / "whole")


def assert_kept_flow_is_used(videos: Path, root: Path, whole: Path) -> None:
    """Overwrite the kept flow of c/long with values that no solver gives, and extract: the clip holds these where flow was kept."""
    (folder,) = root.glob("clips/.pieces/*")
    kept = find_pieces(folder)
    for piece in kept:
        path = Path(piece.path)
        path.write_bytes(b"\x01" * path.stat().st_size)
    extract(videos, root, settings=SETTINGS, jobs=2)
    with ShardReader(root / "clips/c/long.h5") as ours, ShardReader(whole / "clips/c/long.h5") as theirs:
        num_fields = ours.clip("c/long").num_frames - 1
        flow, expected = (shard.clip("c/long").flow(0, num_fields) for shard in (ours, theirs))
    assert not (expected == 1).all((1, 2, 3)).any()
    for piece in kept:
        expected[piece.start : piece.stop] = 1
    assert np.array_equal(flow, expected)


def test_flow_that_was_kept_of_a_long_video_is_not_solved_again(tmp_path: Path) -> None:
    videos, root, whole = (tmp_path / name for name in ("videos", "data", "whole"))
    write_video(videos / "c" / "long.avi", 60)
    (job,) = make_plan(videos, root, settings=SETTINGS).jobs
    extract(videos, whole, settings=SETTINGS, jobs=1)
    with ShardReader(whole / "clips/c/long.h5") as shard:
        flow = shard.clip("c/long").flow(0, 59)
    record_source(job.piece_folder, Source(job.path))
    for start, stop in ((0, 17), (30, 41)):
        writer = PieceWriter(job.piece_folder, start)
        writer.append(flow[start:stop])
        writer.close()
    assert_kept_flow_is_used(videos, root, whole)


def test_dry_run_writes_nothing_and_forecasts(videos: Path, tmp_path: Path) -> None:
    (videos / "walk" / "a.mkv").unlink()  # its header does not say how long it is
    result = CliRunner().invoke(
        command,
        ["extract", str(videos), "--data", str(tmp_path / "data"), "--short-side", "32", "--dry-run", "--device", "cpu"],
        standalone_mode=False,
    )
    assert result.return_value == 0, result.output
    assert "about 23 flow fields" in result.stdout
    result = CliRunner().invoke(
        command, ["extract", str(videos), "--data", str(tmp_path / "data"), "--short-side", "32", "--dry-run", "--json", "--device", "cpu"]
    )
    forecast = json.loads(result.stdout)
    assert (forecast["format"], forecast["pairs"], sorted(forecast["to_do"])) == ("flowkit-extract-forecast", 23, ["run/a", "run/b"])
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("devices", [None, (0, 1)])
def test_without_the_gpu_that_was_asked_for_no_root_is_made(
    devices: tuple[int, ...] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the root would record the solver `cuda`, and could not be continued without a GPU."""

    def list_devices() -> list[int]:
        if devices is None:
            raise DeviceError("no driver")
        return [0]

    monkeypatch.setattr("flowkit.flow.cuda.device.list_devices", list_devices)
    write_video(tmp_path / "videos" / "a" / "1.avi", 3)
    with pytest.raises(DeviceError, match="no driver" if devices is None else "no CUDA device 1: this machine has 1"):
        extract(tmp_path / "videos", tmp_path / "data", settings=replace(SETTINGS, solver="cuda"), devices=devices or (0,))
    assert not (tmp_path / "data").exists()


def test_usage_errors_exit_2() -> None:
    for arguments in (
        ["nowhere"],
        [".", "--shard", "3/2"],
        [".", "--shard", "x"],
        [".", "--device", "tpu"],
        [".", "--device", "cuda", "--mode", "fast"],
    ):
        result = CliRunner().invoke(command, ["extract", *arguments])
        assert result.exit_code == 2, result.output


@pytest.mark.slow
def test_the_odd_formats_get_the_statuses_their_readme_says(shared_data: Path, tmp_path: Path) -> None:
    """Only the statuses of real files are tested: their flow is computed at a small size."""
    settings = ExtractSettings(short_side=32, solver="fast")
    report = extract(shared_data / "videos" / "misc", tmp_path / "data", settings=settings, jobs=2)
    results = {r.video_id: r for r in (*report.done, *report.failed)}
    assert not report.failed
    corrupted = results["decord_corrupted"]
    assert (corrupted.status, corrupted.num_frames, corrupted.decode_errors) == ("damaged", 49, 1)
    assert results["ucf11_v_biking_01_01"].header_frames == 0
    for rotation in (0, 90, 180, 270):
        with ShardReader(tmp_path / "data" / "clips" / f"decord_rot_{rotation}.h5") as shard:
            clip = shard.clip(f"decord_rot_{rotation}")
            assert (clip.width > clip.height) == (rotation in (0, 180))
            assert clip.num_frames == 3
