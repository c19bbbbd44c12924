"""Verify a file or a whole data root: shards and clip files, manifests against shards and split lists, runs against their digests."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from flowkit.dataset.lists.choosing import find_lists
from flowkit.dataset.lists.classes import keep_classes, whole_protocol
from flowkit.dataset.lists.matching import match_lists
from flowkit.dataset.lists.reading import read_lists
from flowkit.dataset.manifest import MIN_FRAMES, ClipRecord, Split, read_split
from flowkit.dataset.paths import clip_paths, clip_video_id, complete_splits, is_shard_name, shard_paths, split_folder
from flowkit.dataset.progress import ProgressBar
from flowkit.dataset.root import RECORD_NAME, Dataset
from flowkit.dataset.root_locks import reading_whole
from flowkit.dataset.settings import ExtractSettings
from flowkit.dataset.shard_files import extract_command
from flowkit.dataset.shard_update import read_state, settings_differences
from flowkit.errors import FlowkitError, ManifestError
from flowkit.flow.methods import NO_FLOW
from flowkit.run_digests import VerifiedRun, find_phases, verify_phase
from flowkit.shards.verify import Problem, VerifiedFile, verify_files
from flowkit.video.ids import first_few
from flowkit.words import counted

_logger = logging.getLogger(__name__)


def verify(
    path: str | os.PathLike[str],
    *,
    deep: bool = False,
    jobs: int | None = None,
    progress: bool | None = None,
    on_run: Callable[[VerifiedRun], None] | None = None,
) -> list[Problem]:
    """Verify a shard, a clip file, a whole data root with its runs, or a folder of runs.

    Parameters
    ----------
    path : path
        A file, a folder with ``dataset.json``, or a folder of runs, of one run or of one phase.
    deep : bool
        Decode every frame and flow field, besides testing every checksum.
    jobs : int, optional
        Child processes that check files; by default one per core, at most 8.
    progress : bool, optional
        Show the progress over the files of a data root on stderr. By default it is shown on a terminal and in a notebook.
    on_run : callable, optional
        Receives a `flowkit.run_digests.VerifiedRun` for each phase of each run.

    Returns
    -------
    list of Problem
        What is wrong, and where; empty if nothing is.

    Raises
    ------
    ManifestError
        If `path` is a folder but neither a data root nor a folder of runs.
    FileNotFoundError
        If `path` does not exist.

    Notes
    -----
    Files are parsed in child processes with limits of memory and time: a file that is made to crash its reader becomes a problem
    in the list like any other.

    While a data root is verified, it cannot be packed; if it is being packed, this waits for the end.

    Examples
    --------
    >>> import flowkit
    >>> from flowkit.dataset.example import example_root
    >>> root = example_root()
    >>> flowkit.verify(root)
    []
    >>> (root / "shards" / "shard-00001.h5").unlink()
    >>> [problem.what for problem in flowkit.verify(root)][0]
    'shard-00001.h5 is missing; copy it again, or extract again and pack'
    """
    path = Path(path)
    if path.is_dir():
        is_root = (path / RECORD_NAME).exists()
        with reading_whole(path, "verifies", on_wait=_say_that_it_waits) if is_root else nullcontext():
            problems = _verify_root(path, deep, jobs, progress) if is_root else []
        phases = find_phases(path / "runs" if is_root else path)
        if not is_root and not phases:
            raise ManifestError(
                f"{str(path)!r} is not a data root (it has no dataset.json), nor are there runs in it; name a shard, a clip file, a data "
                "root or a run's folder"
            )
        for run in map(verify_phase, phases):
            problems.extend(Problem(file, "", what) for file, what in run.faults)
            if on_run is not None:
                on_run(run)
        return problems
    path.stat()
    return [problem for found in verify_files([path], deep=deep) for problem in found.problems]


def _say_that_it_waits(what: str) -> None:
    _logger.warning("verify: another process %s; waiting until it has finished", what)


def _verify_root(root: Path, deep: bool, jobs: int | None, progress: bool | None) -> list[Problem]:
    problems: list[Problem] = []
    dataset: Dataset | None = None
    try:
        dataset = Dataset.open(root)
    except FlowkitError as error:
        problems.append(Problem(root / RECORD_NAME, "", str(error)))
    clip_files, shard_files = clip_paths(root), shard_paths(root)
    files: dict[Path, VerifiedFile] = {}
    with ProgressBar("verify", total=len(clip_files) + len(shard_files), unit="files", progress=progress) as bar:
        for found in verify_files([*clip_files, *shard_files], deep=deep, digest=True, jobs=jobs):
            files[found.path] = found
            problems.extend(found.problems)
            bar.advance()
    if dataset is not None:
        problems.extend(_settings_problems(files, dataset.settings))
        problems.extend(_problems_without_flow(files, dataset))
    problems.extend(_misplaced_videos(root, clip_files, shard_files, files))
    shards = {path.name: files[path] for path in shard_files}
    problems.extend(_state_problems(root))
    problems.extend(_split_problems(root, shards, dataset))
    return problems


def _settings_problems(files: dict[Path, VerifiedFile], settings: ExtractSettings) -> Iterator[Problem]:
    for path, found in files.items():
        for video in found.videos:
            differing = settings_differences(video["settings"], settings)
            if differing:
                yield Problem(path, video["video_id"], f"was extracted with other settings than dataset.json says: {'; '.join(differing)}")


def _problems_without_flow(files: dict[Path, VerifiedFile], dataset: Dataset) -> Iterator[Problem]:
    """Yield one problem for all videos that are yet to get the flow which the settings of the data root ask for."""
    if not dataset.settings.has_flow:
        return
    found = [(path, video["video_id"]) for path, file in files.items() for video in file.videos if video["settings"]["codec"] == NO_FLOW]
    if found:
        names = first_few(repr(video_id) for _, video_id in found)
        in_shard = "; then pack again" if any(is_shard_name(path.name) for path, _ in found) else ""
        yield Problem(
            dataset.root / RECORD_NAME,
            "",
            f"asks for flow, and {counted(len(found), 'video')} of the data root {'has' if len(found) == 1 else 'have'} frames only: "
            f"{names}; add the flow with `{extract_command(dataset)}`{in_shard}",
        )


def _misplaced_videos(root: Path, clip_files: list[Path], shard_files: list[Path], files: dict[Path, VerifiedFile]) -> Iterator[Problem]:
    """Yield the videos that are in the wrong file: under another name, or in two shards."""
    shard_of: dict[str, Path] = {}
    for path in shard_files:
        for video in files[path].videos:
            video_id = video["video_id"]
            if video_id in shard_of:
                yield Problem(path, video_id, f"is in {shard_of[video_id].name} too; pack again")
            shard_of[video_id] = path
    for path in clip_files:
        expected = clip_video_id(root, path)
        for video in files[path].videos:
            if video["video_id"] != expected:
                yield Problem(
                    path, video["video_id"], f"is not the video that the file's name says, {expected!r}; delete the file and extract again"
                )


def _state_problems(root: Path) -> Iterator[Problem]:
    path = root / "shards" / "pack.json"
    try:
        state = read_state(root)
    except ManifestError as error:
        yield Problem(path, "", str(error))
        return
    if state.unsettled or state.replacing or state.removing:
        yield Problem(path, "", "a pack was stopped before it was done; pack again")


def _split_problems(root: Path, shards: dict[str, VerifiedFile], dataset: Dataset | None) -> Iterator[Problem]:
    folders = sorted(path for path in (root / "splits").glob("split*") if path.is_dir())
    for folder in folders:
        if not (folder / "split.json").exists():
            yield Problem(folder, "", "has no split.json: writing it was stopped; pack the split again")
    videos = {name: {video["video_id"]: video for video in found.videos} for name, found in shards.items()}
    num_frames = {video_id: int(video["num_frames"]) for of_shard in videos.values() for video_id, video in of_shard.items()}
    for number in complete_splits(root):
        folder = split_folder(root, number)
        try:
            split = read_split(root, number)
        except ManifestError as error:
            yield Problem(folder, "", str(error))
            continue
        yield from _shard_digest_problems(folder / "split.json", split, shards)
        if dataset is not None and split.quantiser != dataset.settings.quantiser:
            yield Problem(folder / "split.json", "", f"has the quantiser {split.quantiser}, dataset.json another; pack the split again")
        for table, records in (("train.csv", split.train), ("test.csv", split.test)):
            for record in records:
                fault = _record_fault(record, videos)
                if fault:
                    yield Problem(folder / table, record.video_id, fault)
        if dataset is not None:
            yield from _list_problems(folder, split, dataset.source, num_frames)


def _shard_digest_problems(path: Path, split: Split, shards: dict[str, VerifiedFile]) -> Iterator[Problem]:
    for name, sha256 in split.shards.items():
        if name not in shards:
            yield Problem(path, "", f"{name} is missing; copy it again, or extract again and pack")
        elif shards[name].sha256 != sha256:
            yield Problem(path, "", f"{name} is not the file that the split was packed with (its SHA-256 differs)")
    for name in sorted(shards.keys() - split.shards.keys()):
        yield Problem(path, "", f"{name} exists, but the split does not list it; pack again")


def _record_fault(record: ClipRecord, videos: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str | None:
    """Return why a row of a table does not fit the videos of the shards, by shard and id."""
    if record.shard not in videos:
        return None  # reported as missing
    video = videos[record.shard].get(record.video_id)
    if video is None:
        return f"is not in {record.shard}, or damaged there"
    if record.sha256 and video["sha256"] != record.sha256:
        return f"has other contents in {record.shard} than the split was packed with"
    if video["num_frames"] != record.num_frames:
        return f"has {counted(video['num_frames'], 'frame')} in {record.shard}, not {record.num_frames:,}"
    if record.num_frames < MIN_FRAMES:
        return f"has {counted(record.num_frames, 'frame')}, too few for a flow stack"
    return None


def _list_problems(folder: Path, split: Split, source: str, num_frames: dict[str, int]) -> Iterator[Problem]:
    """Yield the rows that contradict the official lists around the videos, if there are such lists of the split's protocol."""
    protocol = whole_protocol(split.protocol)
    if protocol not in ("ucf101", "hmdb51") or not source:
        return
    try:
        matching = find_lists(Path(source), num_frames).matching
        lists = [read_lists(path, split.number) for path in matching]
        if len(lists) != 1 or lists[0].protocol != protocol:
            return  # made from lists in another place
        matched = match_lists(lists[0], num_frames)
        if split.left_out_classes:
            _, matched = keep_classes(lists[0], matched, split.classes)
    except ManifestError as error:
        yield Problem(folder, "", f"the split lists around the videos can no longer be read: {error}")
        return
    for table, entries, records in (("train.csv", matched.train, split.train), ("test.csv", matched.test, split.test)):
        due = {entry.video_id: entry.class_name for entry in entries if num_frames[entry.video_id] >= MIN_FRAMES}
        rows = {record.video_id: record.class_name for record in records}
        for video_id in sorted(due.keys() | rows.keys()):
            if due.get(video_id) != rows.get(video_id):
                has, should = (f"class {of[video_id]!r}" if video_id in of else "absent" for of in (rows, due))
                yield Problem(folder / table, video_id, f"is {has}, but {should} in the lists in {matching[0]}; pack the split again")
