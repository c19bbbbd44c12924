"""The pack pipeline: it gathers every clip of a data root into shards, then writes the manifests of its splits."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from flowkit.dataset.lists.automatic import AUTOMATIC
from flowkit.dataset.lists.choosing import FOLDERS, choose_lists
from flowkit.dataset.lists.classes import ClassChoice
from flowkit.dataset.lists.matching import Matched
from flowkit.dataset.manifest import MIN_FRAMES, Split
from flowkit.dataset.paths import MOST_SPLITS, clip_paths, shard_name, shard_paths
from flowkit.dataset.progress import StageProgress
from flowkit.dataset.root import Dataset
from flowkit.dataset.root_locks import packing
from flowkit.dataset.settings import ExtractSettings
from flowkit.dataset.shard_files import extract_command
from flowkit.dataset.shard_update import (
    StoredVideo,
    changed_shards,
    plan_shards,
    read_clip,
    read_videos,
    recover,
    write_shards,
    write_state,
)
from flowkit.dataset.split_faults import SplitFaults, split_faults
from flowkit.dataset.split_update import ManifestWriter, check_length, record_clip_digests, too_short, untrained_classes
from flowkit.errors import ManifestError, NoFlowError, ParameterError, ShardFormatError
from flowkit.files import file_sha256
from flowkit.video.ids import first_few
from flowkit.words import counted


@dataclass(frozen=True)
class PackReport:
    """What `pack` did, and what it found.

    Parameters
    ----------
    split : Split
        The split that was asked for.
    lists : Path or None
        Where its lists come from; None for an automatic split, or one from the folders of the videos.
    matched : Matched
        The lists against the videos: which are missing, which are in neither half.
    too_short : tuple of (str, int)
        Listed videos that are left out because they have too few frames for a flow stack, with their number of frames.
    shards_written, shards_removed : tuple of str
        Names of the shard files that changed.
    num_shards, num_videos, num_bytes : int
        What the shards now hold.
    splits_written : tuple of int
        Splits whose manifest was written; others were up to date.
    splits_damaged : tuple of (int, str)
        Other splits that could not be brought up to date because their manifest cannot be read, and why.
    num_moved : int
        Clip files that were deleted because a shard holds the clip.
    kept : tuple of str
        Videos whose clip files were to be deleted, and were not, because they are no longer those that were packed.
    notes : tuple of str
        What the user should know about the choice of the split.
    faults : SplitFaults
        What is wrong with the split. It is written nevertheless.

    Examples
    --------
    >>> import flowkit
    >>> from flowkit.dataset.example import example_root
    >>> root = example_root()
    >>> flowkit.pack(root, lists="automatic").did_nothing
    False
    >>> flowkit.pack(root, lists="automatic").did_nothing
    True
    """

    split: Split
    lists: Path | None
    matched: Matched
    too_short: tuple[tuple[str, int], ...]
    shards_written: tuple[str, ...]
    shards_removed: tuple[str, ...]
    num_shards: int
    num_videos: int
    num_bytes: int
    splits_written: tuple[int, ...]
    splits_damaged: tuple[tuple[int, str], ...] = field(default=())
    num_moved: int = 0
    kept: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    faults: SplitFaults = field(default=SplitFaults())

    @property
    def did_nothing(self) -> bool:
        """Whether everything was up to date already."""
        return not (self.shards_written or self.shards_removed or self.splits_written or self.num_moved)


def pack(
    root: str | os.PathLike[str],
    *,
    split: int = 1,
    lists: str | os.PathLike[str] | None = None,
    classes: ClassChoice = "all",
    shard_bytes: int | None = None,
    move: bool = False,
    allow_missing: bool = False,
    progress: bool | None = None,
) -> PackReport:
    """Pack every clip of a data root into shards and write a split's manifest.

    Parameters
    ----------
    root : path
        A data root that `flowkit.extract` made.
    split : int
        The number of the split, from 1.
    lists : path or "folders" or "automatic", optional
        A folder of lists or a file (see `flowkit.dataset.lists.reading.read_lists`); ``"folders"`` for the split that folders called
        train, val and test give; or ``"automatic"`` for a seeded split by class, group and file. By default such folders give the split;
        otherwise flowkit looks for official lists around the videos, and the split is automatic if there are none.
    classes : "all" or "present" or sequence of str
        The classes that the split has: all that the lists have, those of which there is a video that is long enough, or some by name.
        Labels are numbered in the order of the lists, and the manifest names the classes that are left out. A split of some of the
        classes of official lists is no official split any more.
    shard_bytes : int, optional
        A shard ends with the first video that brings it past this size. By default the size of the last time, or 1 GiB.
    move : bool
        Delete each clip file once its shard is complete, if it is still the very one that was packed.
    allow_missing : bool
        Accept that videos of earlier manifests are gone: neither a clip file nor a shard holds them.
    progress : bool, optional
        Show the progress on stderr. By default it is shown on a terminal and in a notebook.

    Returns
    -------
    PackReport
        What was written, and how the lists fit the videos.

    Raises
    ------
    ManifestError
        If `root` is not a data root or holds no clip, if a video that a manifest knows is gone, if the lists match no clip or
        contradict the clips, or if there is no class of a chosen name.
    NoFlowError
        If `root` has flow, and some videos have frames only so far.
    SeveralListsError
        If several folders of lists fit.
    ParameterError
        If `split` or `shard_bytes` is below 1, `split` is above 999,999,999, or a clip was extracted with other settings than `root`.
    ShardFormatError
        If a clip or shard is damaged; nothing that was complete before is lost.
    BusyError
        If another process changes `root`, or verifies it.

    Notes
    -----
    Shards hold every clip; lists only choose rows of the manifests. Only shards whose members changed are written; then
    the manifests of all splits, each split.json last. If it is killed at any moment, the next run continues.

    Examples
    --------
    >>> import flowkit
    >>> from flowkit.dataset.example import example_root
    >>> report = flowkit.pack(example_root(), lists="automatic", shard_bytes=1_000_000)
    >>> report.split
    Split(1, automatic: 6 classes, 12 videos to train and 6 to test)
    >>> report.num_videos, report.shards_written
    (18, ('shard-00000.h5', 'shard-00001.h5'))
    """
    if split < 1 or (shard_bytes is not None and shard_bytes < 1):
        raise ParameterError(f"split and shard_bytes must be at least 1, got {split!r} and {shard_bytes!r}")
    if split > MOST_SPLITS:  # its folder would not be found again
        raise ParameterError(f"split must be at most {MOST_SPLITS:,}, got {split}")
    given = lists if lists is None or lists in (AUTOMATIC, FOLDERS) else Path(lists)
    dataset = Dataset.open(root)
    with packing(dataset.root), StageProgress(progress) as stages:
        return _pack(dataset, split, given, classes, shard_bytes, stages, move=move, allow_missing=allow_missing)


def _pack(
    dataset: Dataset,
    split: int,
    lists: str | Path | None,
    classes: ClassChoice,
    shard_bytes: int | None,
    stages: StageProgress,
    *,
    move: bool,
    allow_missing: bool,
) -> PackReport:
    """Pack, while this process holds the lock."""
    root, settings = dataset.root, dataset.settings
    state = recover(root)
    clips, shards = _read_all(root, settings, stages)
    videos = {video.video_id: video for members in shards.values() for video in members} | clips
    if not allow_missing:
        _refuse_if_gone(dataset, videos)
    if not videos:
        raise ManifestError(f"{str(root)!r} holds no clip yet: run `flowkit extract VIDEOS` first")
    _refuse_without_flow(dataset, videos)
    file_of = {video.video_id: video.source_sha256 for video in videos.values()}
    chosen = choose_lists(
        dataset,
        split,
        lists,
        {video.video_id: video.class_name for video in videos.values()},
        file_of=file_of,
        classes=classes,
        is_long_enough=lambda video_id: videos[video_id].num_frames >= MIN_FRAMES,
    )
    check_length(split, chosen.matched, videos)

    if shard_bytes is not None and shard_bytes != state.shard_bytes:
        state = replace(state, shard_bytes=shard_bytes)
        write_state(root, state)
    planned = plan_shards(videos.values(), state.shard_bytes)
    shard_of = {video.video_id: shard_name(index) for index, members in enumerate(planned) for video in members}
    packed_before = {
        name: {video.video_id: video.sha256 for video in members} for name, members in shards.items() if name not in state.unsettled
    }
    if changed_shards(planned, shards) or len(shards) > len(planned):
        record_clip_digests(dataset, packed_before)  # while the shards that the manifests describe are still there
    written: list[str] = []
    deleted: list[Path] = []
    kept: list[str] = []

    def delete_packed(packed: Sequence[StoredVideo]) -> None:
        """Delete the clip files of videos that shards hold."""
        for video in packed:
            clip = clips.get(video.video_id)
            if clip is not None and _delete_clip(root, clip.path, settings, video):
                deleted.append(clip.path)
            elif clip is not None:
                kept.append(video.video_id)

    if move:  # clips that are packed already are deleted first, since the disk may be full of them
        changed = changed_shards(planned, shards)
        delete_packed(_with_clips_in_intact_shards(root, clips, {name: shards[name] for name in shard_of.values() if name not in changed}))

    def shard_is_final(name: str, members: Sequence[StoredVideo]) -> None:
        written.append(name)
        if move and any(video.video_id in clips for video in members):
            delete_packed(read_videos(root / "shards" / name, settings))

    def bytes_are_copied(done: int, total: int) -> None:
        stages.update("pack: writing shards", done / 1e6, total / 1e6, unit="MB")

    state = write_shards(root, planned, shards, state, on_shard=shard_is_final, on_bytes=bytes_are_copied)
    digests = _digests(dataset, [shard_name(index) for index in range(len(planned))], state.unsettled)
    manifests = ManifestWriter(dataset, videos, shard_of, digests, packed_before)
    splits_written, splits_damaged = manifests.update_others(split, chosen)
    current, was_written = manifests.write(split, chosen)
    if was_written:
        splits_written.append(split)
    if state.unsettled:
        state = replace(state, unsettled=())
        write_state(root, state)
    matched = replace(chosen.matched, untrained_classes=untrained_classes(current))
    return PackReport(
        split=current,
        lists=chosen.path,
        matched=matched,
        too_short=tuple(too_short(chosen.matched, videos)),
        shards_written=tuple(written),
        shards_removed=tuple(name for name in shards if name not in digests),
        num_shards=len(planned),
        num_videos=len(videos),
        num_bytes=sum((root / "shards" / name).stat().st_size for name in digests),
        splits_written=tuple(sorted(splits_written)),
        splits_damaged=tuple(splits_damaged),
        num_moved=len(deleted),
        kept=tuple(kept),
        notes=chosen.notes,
        faults=split_faults(current, file_of, {video.video_id: video.segment for video in videos.values()}),
    )


def _read_all(root: Path, settings: ExtractSettings, stages: StageProgress) -> tuple[dict[str, StoredVideo], dict[str, list[StoredVideo]]]:
    """Return the clips by video id, and the videos of each shard by its name."""
    clip_files, shard_files = clip_paths(root), shard_paths(root)
    num_files = len(clip_files) + len(shard_files)
    clips: dict[str, StoredVideo] = {}
    shards: dict[str, list[StoredVideo]] = {}
    for done, path in enumerate([*clip_files, *shard_files], start=1):
        if done <= len(clip_files):
            clip = read_clip(path, root, settings)
            clips[clip.video_id] = clip
        else:
            try:
                shards[path.name] = read_videos(path, settings)
            except ShardFormatError as cause:
                raise ShardFormatError(f"{cause}; if the clips of its videos are still there, delete it and pack again") from cause
        stages.update("pack: reading clips", done, num_files, unit="files")
    return clips, shards


def _refuse_if_gone(dataset: Dataset, videos: Mapping[str, StoredVideo]) -> None:
    """Refuse to go on if a video that a manifest knows is in no file any more."""
    gone: set[str] = set()
    for number in dataset.splits:
        try:
            split = dataset.split(number)
        except ManifestError:  # the report names it
            continue
        gone.update(record.video_id for record in (*split.train, *split.test) if record.video_id not in videos)
    if gone:
        are = "s of earlier manifests are" if len(gone) > 1 else " of earlier manifests is"
        raise ManifestError(
            f"{str(dataset.root)!r}: {len(gone)} video{are} gone, neither in a clip file nor in a shard: "
            f"{first_few(map(repr, sorted(gone)))}; put the files back or extract the videos again, or pack "
            "without them with --allow-missing"
        )


def _refuse_without_flow(dataset: Dataset, videos: Mapping[str, StoredVideo]) -> None:
    """Refuse to go on before every video has the flow that the settings of the data root ask for."""
    without = [video_id for video_id, video in videos.items() if not video.has_flow] if dataset.settings.has_flow else []
    if without:
        raise NoFlowError(
            f"{counted(len(without), 'video')} of {str(dataset.root)!r} {'has' if len(without) == 1 else 'have'} frames without flow so "
            f"far: {first_few(map(repr, sorted(without)))}; add it with `{extract_command(dataset)}`, or delete the clip files"
        )


def _delete_clip(root: Path, path: Path, settings: ExtractSettings, packed: StoredVideo) -> bool:
    """Delete a clip file if it holds exactly the clip that a shard holds, and the folders that it leaves empty."""
    try:
        if read_clip(path, root, settings).sha256 != packed.sha256:
            return False
        path.unlink()
    except (ShardFormatError, ParameterError, FileNotFoundError):  # replaced or deleted by something that does not know of locks
        return False
    for folder in path.parents:
        if folder == root / "clips" or any(folder.iterdir()):
            break
        folder.rmdir()
    return True


def _with_clips_in_intact_shards(
    root: Path, clips: Mapping[str, StoredVideo], shards: Mapping[str, Sequence[StoredVideo]]
) -> list[StoredVideo]:
    """Return those videos of shards that have a clip file too, after each such shard was checked."""
    from flowkit.shards.check import check_file

    packed: list[StoredVideo] = []
    for name, members in sorted(shards.items()):
        with_clips = [video for video in members if video.video_id in clips]
        path = root / "shards" / name
        faults = check_file(path, deep=False, digest=False)["faults"] if with_clips else []
        if faults:
            raise ShardFormatError(f"{path} is damaged ({faults[0][1]}), so its clips are kept: delete it and pack again")
        packed.extend(with_clips)
    return packed


def _digests(dataset: Dataset, names: Sequence[str], unsettled: Sequence[str]) -> dict[str, str]:
    """Return the SHA-256 of each shard, from the manifests if they are up to date, or else from its bytes."""
    known: dict[str, str] = {}
    for number in dataset.splits:
        try:
            known |= dataset.split(number).shards
        except ManifestError:
            continue
    return {name: known[name] if name in known and name not in unsettled else file_sha256(dataset.root / "shards" / name) for name in names}
