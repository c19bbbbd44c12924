"""A video is one version of one file, whatever happens to the file at whatever moment."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_videos import SETTINGS as SMALL
from small_videos import files_of, write_video

from flowkit.errors import SourceChangedError
from flowkit.extraction import one_video, pieces, solving, source
from flowkit.extraction.jobs import PieceJob, TaskResult, VideoJob
from flowkit.extraction.one_video import extract_task
from flowkit.extraction.pieces import drop_stale_pieces, find_pieces
from flowkit.extraction.plan import make_plan
from flowkit.extraction.results import IndexWriter
from flowkit.extraction.source import Source
from flowkit.file_versions import FileVersion
from flowkit.flow.params import TVL1Params
from flowkit.shards.reader import ShardReader
from flowkit.shards.writer import ClipWriter

SETTINGS = replace(SMALL, tvl1=TVL1Params(num_warps=1, inner_iterations=5, outer_iterations=2))
NUM_FRAMES = 22


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two videos of the same size, in bytes and px."""
    folder = tmp_path_factory.mktemp("versions")
    paths = {name: write_video(folder / f"{name}.avi", NUM_FRAMES, seed=seed) for seed, name in enumerate("AB")}
    num_bytes = max(path.stat().st_size for path in paths.values())
    for path in paths.values():
        with path.open("ab") as file:
            file.write(bytes(num_bytes - path.stat().st_size))
    return paths


@pytest.fixture(scope="module")
def clips(versions: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The clip files of the two versions, extracted in peace."""
    made = {}
    for name, path in versions.items():
        folder = tmp_path_factory.mktemp(name)
        (folder / "videos").mkdir()
        shutil.copy(path, folder / "videos" / "v.avi")
        ((_, made[name]),) = run(folder / "videos", folder / "data").items()
    return made


@pytest.fixture
def folder(versions: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a video of version A; frames are solved four at a time."""
    monkeypatch.setattr(one_video, "BATCH_SIZE", 4)
    (tmp_path / "videos").mkdir()
    shutil.copy(versions["A"], tmp_path / "videos" / "v.avi")
    return tmp_path


def perform(task: VideoJob | PieceJob) -> TaskResult:
    return extract_task(task, SimpleNamespace(stopping=False, note=lambda *_: None, alive=lambda: None))


def run(videos: Path, root: Path) -> dict[str, bytes]:
    """Extract what is left to do, in this process, without disturbing it; return the clip files."""
    plan = make_plan(videos, root, settings=SETTINGS)
    index = IndexWriter(root)
    for job in plan.jobs:
        drop_stale_pieces(job.piece_folder, job.path, job.version)
        result = perform(job).video
        assert result is not None
        index.append(result)
    index.close()
    return files_of(root)


def next_moment(path: Path) -> None:
    """Wait until a change of a file has a later time than the last one; some file systems count in hundredths of a second."""
    clock, before = path.with_name(".clock"), path.stat().st_ctime_ns
    now = before
    while now <= before:
        clock.touch()
        now = clock.stat().st_ctime_ns
        clock.unlink()


def replaced(path: Path, other: Path) -> None:
    shutil.copy(other, path.with_name("new"))
    os.replace(path.with_name("new"), path)


def replaced_with_the_same_size_and_time(path: Path, other: Path) -> None:
    next_moment(path)
    status = path.stat()
    shutil.copy(other, path.with_name("new"))
    os.utime(path.with_name("new"), ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(path.with_name("new"), path)


def overwritten_with_the_same_size_and_time(path: Path, other: Path) -> None:
    next_moment(path)
    status = path.stat()
    shutil.copyfile(other, path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def truncated(path: Path, other: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def extended(path: Path, other: Path) -> None:
    with path.open("ab") as file:
        file.write(other.read_bytes())


def removed(path: Path, other: Path) -> None:
    path.unlink()


CHANGES = [
    replaced,
    replaced_with_the_same_size_and_time,
    overwritten_with_the_same_size_and_time,
    truncated,
    extended,
    removed,
]


def at_call(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, number: int, action: Callable[[], None]) -> None:
    """Run an action when a function is called for the `number`-th time, before it does its work."""
    calls, function = [], getattr(owner, name)

    def called(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        if len(calls) == number:
            action()
        return function(*args, **kwargs)

    monkeypatch.setattr(owner, name, called)


# A whole video is hashed, probed, decoded while its flow is solved, hashed again, and written.
MOMENTS = [(source, "file_sha256", 1), (one_video, "probe", 1), (solving, "quantised_flow", 3), (source, "file_sha256", 2)]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: f"{moment[1]}-{moment[2]}")
def test_a_video_that_changes_while_it_is_extracted_fails_and_the_next_run_extracts_it(
    versions: dict[str, Path],
    clips: dict[str, bytes],
    folder: Path,
    moment: tuple[Any, str, int],
    change: Callable[[Path, Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = folder / "videos" / "v.avi"
    (job,) = make_plan(folder / "videos", folder / "data", settings=SETTINGS).jobs
    with monkeypatch.context() as patch:
        at_call(patch, *moment, lambda: change(path, versions["B"]))
        result = perform(job).video
    assert result is not None
    assert (result.status, files_of(folder / "data")) == ("failed", {})
    assert "was changed while it was being extracted" in result.error
    replaced(path, versions["B"])
    assert run(folder / "videos", folder / "data") == {"clips/v.h5": clips["B"]}


@pytest.mark.parametrize("change", CHANGES[:-1])
def test_a_video_that_changes_while_its_clip_file_is_written_is_one_version_now_and_the_other_after_the_next_run(
    versions: dict[str, Path], clips: dict[str, bytes], folder: Path, change: Callable[[Path, Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "videos" / "v.avi"
    with monkeypatch.context() as patch:
        at_call(patch, ClipWriter, "finish", 1, lambda: change(path, versions["B"]))
        assert run(folder / "videos", folder / "data") == {"clips/v.h5": clips["A"]}
    (job,) = make_plan(folder / "videos", folder / "data", settings=SETTINGS).jobs
    assert job.version == FileVersion.of(path)
    replaced_with_the_same_size_and_time(path, versions["B"])
    assert run(folder / "videos", folder / "data") == {"clips/v.h5": clips["B"]}


@pytest.mark.parametrize("change", CHANGES[:3])
def test_a_video_that_is_replaced_before_its_turn_is_extracted_as_it_is_then(
    versions: dict[str, Path], clips: dict[str, bytes], folder: Path, change: Callable[[Path, Path], None]
) -> None:
    path = folder / "videos" / "v.avi"
    (job,) = make_plan(folder / "videos", folder / "data", settings=SETTINGS).jobs
    change(path, versions["B"])
    result = perform(job).video
    assert result is not None
    assert (result.source_mtime_ns, result.source_ctime_ns) == (path.stat().st_mtime_ns, path.stat().st_ctime_ns)
    assert files_of(folder / "data") == {"clips/v.h5": clips["B"]}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("number", [1, 4, 6, 9])
def test_a_long_video_that_changes_while_its_flow_is_solved_fails_and_leaves_no_pieces(
    versions: dict[str, Path],
    clips: dict[str, bytes],
    folder: Path,
    number: int,
    change: Callable[[Path, Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is solved in two pieces by two tasks, in files of four flow fields; the clip file is written from these."""
    monkeypatch.setattr(pieces, "FIELDS_PER_FILE", 4)
    path = folder / "videos" / "v.avi"
    (job,) = make_plan(folder / "videos", folder / "data", settings=SETTINGS).jobs
    with monkeypatch.context() as patch:
        at_call(
            patch,
            one_video if number > 8 else solving,
            "_frames" if number > 8 else "quantised_flow",
            3 if number > 8 else number,
            lambda: change(path, versions["B"]),
        )
        results = [perform(PieceJob(job, start, stop, 11, 2)).video for start, stop in ((0, 11), (11, None))]
        if results == [None, None]:
            results = [perform(replace(job, pieces=tuple(find_pieces(job.piece_folder)))).video]
    errors = [result.error for result in results if result is not None]
    assert errors
    assert all("was changed while it was being extracted" in error for error in errors)
    assert files_of(folder / "data") == {}
    assert not list((folder / "data").rglob("*.flow"))
    replaced(path, versions["B"])
    assert run(folder / "videos", folder / "data") == {"clips/v.h5": clips["B"]}


@pytest.mark.parametrize("change", CHANGES[1:3])
def test_flow_that_was_kept_of_another_file_with_the_same_size_and_time_is_not_used(
    versions: dict[str, Path], clips: dict[str, bytes], folder: Path, change: Callable[[Path, Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_video, "MIN_RESUMED", 4)
    path = folder / "videos" / "v.avi"
    (job,) = make_plan(folder / "videos", folder / "data", settings=SETTINGS).jobs
    perform(PieceJob(job, 0, 11, 11, 2))
    change(path, versions["B"])
    assert (FileVersion.of(path).num_bytes, FileVersion.of(path).mtime_ns) == (job.source_bytes, job.source_mtime_ns)
    assert find_pieces(job.piece_folder)
    assert run(folder / "videos", folder / "data") == {"clips/v.h5": clips["B"]}


def test_flow_that_was_kept_of_an_earlier_version_is_removed(versions: dict[str, Path], clips: dict[str, bytes], folder: Path) -> None:
    path = folder / "videos" / "v.avi"
    (job,) = make_plan(folder / "videos", folder / "data", settings=SETTINGS).jobs
    perform(PieceJob(job, 0, 11, 11, 2))
    extended(path, versions["B"])
    drop_stale_pieces(job.with_version(FileVersion.of(path)).piece_folder, path, FileVersion.of(path))
    assert not list((folder / "data").rglob("*.flow"))


def test_flow_that_was_kept_is_used_if_only_the_properties_of_the_file_have_changed(folder: Path) -> None:
    path = folder / "videos" / "v.avi"
    (job,) = make_plan(folder / "videos", folder / "data", settings=SETTINGS).jobs
    perform(PieceJob(job, 0, 11, 11, 2))
    path.chmod(0o600)
    drop_stale_pieces(job.piece_folder, path, FileVersion.of(path))
    assert find_pieces(job.piece_folder)
    assert perform(PieceJob(job.with_version(FileVersion.of(path)), 11, None, 11, 2)).video is None


@pytest.mark.parametrize("change", CHANGES[1:3])
def test_a_file_with_the_size_and_time_of_the_one_that_was_extracted_is_extracted_again(
    versions: dict[str, Path], clips: dict[str, bytes], folder: Path, change: Callable[[Path, Path], None]
) -> None:
    assert run(folder / "videos", folder / "data") == {"clips/v.h5": clips["A"]}
    change(folder / "videos" / "v.avi", versions["B"])
    assert run(folder / "videos", folder / "data") == {"clips/v.h5": clips["B"]}


def test_a_file_whose_properties_have_changed_is_read_once_and_not_extracted_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    videos, root = folder / "videos", folder / "data"
    run(videos, root)
    (videos / "v.avi").chmod(0o600)
    plan = make_plan(videos, root, settings=SETTINGS)
    assert (plan.jobs, [result.video_id for result in plan.confirmed]) == ((), ["v"])
    index = IndexWriter(root)
    for result in plan.confirmed:
        index.append(result)
    index.close()
    again = make_plan(videos, root, settings=SETTINGS)
    assert (again.jobs, again.confirmed, len(again.skipped)) == ((), (), 1)


def test_a_line_of_an_index_that_does_not_know_the_last_status_change_is_believed(folder: Path) -> None:
    videos, root = folder / "videos", folder / "data"
    run(videos, root)
    for path in (root / "clips" / ".index").iterdir():
        text = path.read_text()
        path.write_text(text.replace(f', "source_ctime_ns": {(videos / "v.avi").stat().st_ctime_ns}', ""))
        assert path.read_text() != text
    (videos / "v.avi").chmod(0o600)
    plan = make_plan(videos, root, settings=SETTINGS)
    assert (plan.jobs, plan.confirmed, len(plan.skipped)) == ((), (), 1)


def test_a_video_that_vanishes_while_the_run_is_planned_is_reported_and_stops_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(folder / "videos" / "v.avi", folder / "videos" / "w.avi")
    at_call(monkeypatch, FileVersion, "of", 1, (folder / "videos" / "v.avi").unlink)
    plan = make_plan(folder / "videos", folder / "data", settings=SETTINGS)
    assert [job.video_id for job in plan.jobs] == ["w"]
    assert [(result.video_id, result.status) for result in plan.failed] == [("v", "failed")]
    assert "v.avi" in plan.failed[0].error


def test_a_clip_records_the_digest_of_the_bytes_that_were_decoded(versions: dict[str, Path], folder: Path) -> None:
    run(folder / "videos", folder / "data")
    with ShardReader(folder / "data" / "clips" / "v.h5") as shard:
        assert shard.clip("v").attributes.source_sha256 == Source(versions["A"]).confirm()


def test_a_source_is_checked_when_it_is_opened(versions: dict[str, Path]) -> None:
    version = FileVersion.of(versions["A"])
    Source(versions["A"], replace(version, ctime_ns=0))
    with pytest.raises(SourceChangedError, match=r"A\.avi' was changed"):
        Source(versions["A"], replace(version, num_bytes=version.num_bytes + 1))
    with pytest.raises(SourceChangedError):
        Source(versions["A"], version, sha256="0" * 64).confirm()
