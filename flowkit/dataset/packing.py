"""The pack pipeline: every clip of a data root into shards, then the manifests of its splits."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from flowkit.dataset.list_files import read_lists, split_numbers
from flowkit.dataset.manifest import MIN_FRAMES, ClipRecord, Split, write_split
from flowkit.dataset.paths import clip_paths, shard_name, shard_paths
from flowkit.dataset.progress import StageProgress
from flowkit.dataset.root import Dataset
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
from flowkit.dataset.split_lists import AUTOMATIC, ChosenLists, Matched, choose_lists, match_lists
from flowkit.errors import ManifestError, ParameterError, ShardFormatError
from flowkit.files import exclusive_lock, file_sha256

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from flowkit.dataset.settings import ExtractSettings


@dataclass(frozen=True)
class PackReport:
    """What `pack` did, and what it found.

    Parameters
    ----------
    split : Split
        The split that was asked for.
    lists : Path or None
        Where its lists come from; None for an automatic split.
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
        Other splits that could not be renewed because their manifest cannot be read, and why.
    num_moved : int
        Clip files that were deleted, being in a shard.

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

    @property
    def did_nothing(self) -> bool:
        """Whether everything was as it should be already."""
        return not (self.shards_written or self.shards_removed or self.splits_written or self.num_moved)


def packed_video_ids(root: Path) -> dict[str, Path]:
    """Return the videos that are in shards, with the shard that holds each.

    Raises
    ------
    ShardFormatError
        If a shard cannot be read.
    """
    from flowkit.shards.reader import ShardReader

    packed: dict[str, Path] = {}
    for path in shard_paths(root):
        with ShardReader(path) as reader:
            packed.update(dict.fromkeys(reader.video_ids, path))
    return packed


def pack(
    root: str | os.PathLike[str],
    *,
    split: int = 1,
    lists: str | os.PathLike[str] | None = None,
    shard_bytes: int | None = None,
    move: bool = False,
    progress: bool | None = None,
) -> PackReport:
    """Pack every clip of a data root into shards and write a split's manifest.

    Parameters
    ----------
    root : path
        A data root that `flowkit.extract` made.
    split : int
        The number of the split, from 1.
    lists : path or "automatic", optional
        A folder of official lists or a CSV file, or ``"automatic"`` for a seeded split by class and group. By default, flowkit
        looks for lists around the videos, and the split is automatic if there are none.
    shard_bytes : int, optional
        A shard ends with the first video that brings it past this size. By default the size of the last time, or 1 GiB.
    move : bool
        Delete each clip file once its shard is complete.
    progress : bool, optional
        Show the progress on stderr. By default it is shown on a terminal and in a notebook.

    Returns
    -------
    PackReport
        What was written, and how the lists fit the videos.

    Raises
    ------
    ManifestError
        If `root` is not a data root or holds no clip, or if its lists match no clip or contradict the clips.
    SeveralListsError
        If several folders of lists fit.
    ParameterError
        If `split` or `shard_bytes` is below 1, or a clip was extracted with other settings than `root`.
    ShardFormatError
        If a clip or shard is damaged; nothing that was complete before is lost.
    BusyError
        If another process is packing `root`.

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
    given = lists if lists is None or lists == AUTOMATIC else Path(lists)
    dataset = Dataset.open(root)
    with exclusive_lock(dataset.root / ".pack.lock", f"packs {str(root)!r}"), StageProgress(progress) as stages:
        return _pack(dataset, split, given, shard_bytes, move, stages)


def _pack(
    dataset: Dataset,
    split: int,
    lists: str | Path | None,
    shard_bytes: int | None,
    move: bool,
    stages: StageProgress,
) -> PackReport:
    """Pack, as the only process that does."""
    root, settings = dataset.root, dataset.settings
    state = recover(root)
    clips, shards = _read_all(root, settings, stages)
    videos = {video.video_id: video for members in shards.values() for video in members} | clips
    if not videos:
        raise ManifestError(f"{str(root)!r} holds no clip yet: run `flowkit extract VIDEOS` first")
    found = choose_lists(dataset, split, lists, {video.video_id: video.class_name for video in videos.values()})

    if shard_bytes is not None and shard_bytes != state.shard_bytes:
        state = replace(state, shard_bytes=shard_bytes)
        write_state(root, state)
    planned = plan_shards(videos.values(), state.shard_bytes)
    shard_of = {video.video_id: shard_name(index) for index, members in enumerate(planned) for video in members}
    written: list[str] = []
    deleted: list[Path] = []
    if move:  # what is done already goes first: the disk may be full of it
        changed = changed_shards(planned, shards)
        deleted.extend(_delete_clips(root, _in_sound_shards(root, clips, {v: name for v, name in shard_of.items() if name not in changed})))

    def shard_is_final(name: str, members: Sequence[StoredVideo]) -> None:
        written.append(name)
        if move:
            deleted.extend(_delete_clips(root, [clips[video.video_id].path for video in members if video.video_id in clips]))

    def bytes_are_copied(done: int, total: int) -> None:
        stages.update("pack: writing shards", done / 1e6, total / 1e6, unit="MB")

    state = write_shards(root, planned, shards, state, on_shard=shard_is_final, on_bytes=bytes_are_copied)
    digests = _digests(dataset, [shard_name(index) for index in range(len(planned))], state.unsettled)
    books = _Books(dataset, videos, shard_of, digests)
    splits_written, splits_damaged = books.renew_others(split, found)
    current, was_written = books.write(split, found)
    if was_written:
        splits_written.append(split)
    if state.unsettled:
        state = replace(state, unsettled=())
        write_state(root, state)
    matched = replace(found.matched, untrained_classes=_untrained(current))
    return PackReport(
        split=current,
        lists=found.path,
        matched=matched,
        too_short=tuple(books.too_short(found.matched)),
        shards_written=tuple(written),
        shards_removed=tuple(name for name in shards if name not in digests),
        num_shards=len(planned),
        num_videos=len(videos),
        num_bytes=sum((root / "shards" / name).stat().st_size for name in digests),
        splits_written=tuple(sorted(splits_written)),
        splits_damaged=tuple(splits_damaged),
        num_moved=len(deleted),
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


def _delete_clips(root: Path, paths: Sequence[Path]) -> Sequence[Path]:
    """Delete clip files, and the folders that they leave empty."""
    for path in paths:
        path.unlink()
        for folder in path.parents:
            if folder == root / "clips" or any(folder.iterdir()):
                break
            folder.rmdir()
    return paths


def _in_sound_shards(root: Path, clips: dict[str, StoredVideo], shard_of: dict[str, str]) -> list[Path]:
    """Return the clip files of videos that lie in these shards, once each such shard is known to be sound."""
    from flowkit.shards.check import check_file

    for name in sorted({shard_of[video_id] for video_id in clips if video_id in shard_of}):
        path = root / "shards" / name
        faults = check_file(path, deep=False, digest=False)["faults"]
        if faults:
            raise ShardFormatError(f"{path} is damaged ({faults[0][1]}), so its clips are kept: delete it and pack again")
    return [clip.path for video_id, clip in clips.items() if video_id in shard_of]


def _digests(dataset: Dataset, names: Sequence[str], unsettled: Sequence[str]) -> dict[str, str]:
    """Return each shard's SHA-256, from the manifests where they can be believed, else from its bytes."""
    known: dict[str, str] = {}
    for number in dataset.splits:
        try:
            known |= dataset.split(number).shards
        except ManifestError:
            continue
    return {name: known[name] if name in known and name not in unsettled else file_sha256(dataset.root / "shards" / name) for name in names}


@dataclass(frozen=True)
class _Draft:
    """What a split's manifest is to say, but for where its videos lie: (video_id, label) of each."""

    protocol: str
    classes: tuple[str, ...]
    train: tuple[tuple[str, int], ...]
    test: tuple[tuple[str, int], ...]
    num_listed_train: int
    num_listed_test: int


def _draft(found: ChosenLists) -> _Draft:
    """Draft a split from its lists."""
    labels = {name: label for label, name in enumerate(found.lists.classes)}
    train, test = (
        tuple((entry.video_id, labels[entry.class_name]) for entry in entries) for entries in (found.matched.train, found.matched.test)
    )
    return _Draft(found.lists.protocol, found.lists.classes, train, test, len(found.lists.train), len(found.lists.test))


class _Books:
    """Writes the manifests of splits, given which shard holds which video."""

    def __init__(self, dataset: Dataset, videos: dict[str, StoredVideo], shard_of: dict[str, str], digests: dict[str, str]) -> None:
        self._dataset, self._videos, self._shard_of, self._digests = dataset, videos, shard_of, digests

    def write(self, number: int, found: ChosenLists) -> tuple[Split, bool]:
        """Write a split from its lists, unless it is there already; return it, and whether it was written."""
        return self._write(number, _draft(found))

    def renew_others(self, but: int, found: ChosenLists) -> tuple[list[int], list[tuple[int, str]]]:
        """Bring the other splits up to date; return those that were written, and those that cannot be read, with the reason."""
        written, damaged = [], []
        for number in self._dataset.splits:
            if number == but:
                continue
            try:
                _, was_written = self._write(number, self._renewed(self._dataset.split(number), found))
            except ManifestError as error:
                damaged.append((number, str(error)))
                continue
            if was_written:
                written.append(number)
        return written, damaged

    def _renewed(self, old: Split, found: ChosenLists) -> _Draft:
        """Draft a split anew from the folder of lists at hand, if it was made from these; else from its own rows."""
        train, test = (tuple((r.video_id, r.label) for r in records if r.video_id in self._videos) for records in (old.train, old.test))
        kept = _Draft(old.protocol, old.classes, train, test, old.num_listed_train, old.num_listed_test)
        if found.path is None or old.protocol != found.lists.protocol or old.number not in split_numbers(found.path):
            return kept
        lists = read_lists(found.path, old.number)
        draft = _draft(ChosenLists(found.path, lists, match_lists(lists, self._videos)))
        if replace(draft, train=(), test=()) != replace(kept, train=(), test=()):
            return kept
        return draft if {*train} <= {*draft.train} and {*test} <= {*draft.test} else kept

    def too_short(self, matched: Matched) -> list[tuple[str, int]]:
        """Return the listed videos that have no flow stack, with their numbers of frames."""
        listed = [self._videos[entry.video_id] for entry in (*matched.train, *matched.test)]
        return sorted((video.video_id, video.num_frames) for video in listed if video.num_frames < MIN_FRAMES)

    def _write(self, number: int, draft: _Draft) -> tuple[Split, bool]:
        train, test = (
            tuple(
                ClipRecord(video_id, label, draft.classes[label], self._videos[video_id].num_frames, self._shard_of[video_id])
                for video_id, label in half
                if self._videos[video_id].num_frames >= MIN_FRAMES
            )
            for half in (draft.train, draft.test)
        )
        if not train and not test:
            raise ManifestError(f"no video of split {number} has the {MIN_FRAMES} frames that a stack of 10 flow fields needs")
        due = Split(
            number=number,
            protocol=draft.protocol,
            classes=draft.classes,
            train=train,
            test=test,
            num_listed_train=draft.num_listed_train,
            num_listed_test=draft.num_listed_test,
            quantiser=self._dataset.settings.quantiser,
            shards=self._digests,
            digest="",
        )
        there = self._existing(number)
        if there is not None and replace(there, digest="") == due:
            return there, False
        contents = {field.name: getattr(due, field.name) for field in fields(due) if field.name not in ("number", "digest")}
        return write_split(self._dataset.root, number, **contents), True

    def _existing(self, number: int) -> Split | None:
        try:
            return self._dataset.split(number)
        except ManifestError:
            return None


def _untrained(split: Split) -> tuple[str, ...]:
    """Return the classes with a test video but no training video, once those too short are left out."""
    labels = {record.label for record in split.test} - {record.label for record in split.train}
    return tuple(split.classes[label] for label in sorted(labels))
