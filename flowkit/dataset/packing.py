"""The pack pipeline: every clip of a data root into shards, then the manifests of its splits."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Literal

from flowkit.dataset.list_files import split_numbers
from flowkit.dataset.manifest import MIN_FRAMES, ClipRecord, Split, write_split
from flowkit.dataset.paths import clip_paths, shard_name, shard_paths
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
from flowkit.dataset.split_choice import ChosenLists, choose_lists
from flowkit.dataset.split_lists import Matched, match_lists, read_lists
from flowkit.errors import ManifestError, ShardFormatError
from flowkit.files import exclusive_lock, file_sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from flowkit.dataset.settings import ExtractSettings


@dataclass(frozen=True)
class PackReport:
    """What a pack run did, and what it found.

    Parameters
    ----------
    split : Split
        The split that was asked for.
    lists : Path or None
        Where its lists come from; None for an automatic split.
    matched : Matched
        The lists against the videos: what is missing, what is in neither half.
    too_short : tuple of (str, int)
        Listed videos that are left out, with their number of frames.
    shards_written, shards_removed : tuple of str
    num_shards, num_videos, num_bytes : int
        Of the shards as they now are.
    splits_written : tuple of int
        Splits whose manifest was written; others were as they should be.
    splits_damaged : tuple of (int, str)
        Other splits that could not be renewed because their manifest cannot be read, and why.
    num_moved : int
        Clip files that were deleted, being in a shard.
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
    root: Path,
    *,
    split: int = 1,
    lists: Path | Literal["automatic"] | None = None,
    shard_bytes: int | None = None,
    move: bool = False,
    on_progress: Callable[[str, float, float], None] | None = None,
) -> PackReport:
    """Pack every clip of a data root into shards and write a split's manifest.

    Parameters
    ----------
    root : Path
        A data root that `flowkit.extraction.run` made.
    split : int
        The split's number, from 1.
    lists : Path or "automatic", optional
        A folder of official lists or a CSV file, or "automatic" for a seeded split by class and group. By default, lists
        are searched around the videos, and the split is automatic if there are none.
    shard_bytes : int, optional
        Shards end with the first video that brings them past it. By default what the root was packed with, else 1 GiB.
    move : bool
        Delete each clip file once its shard is final.
    on_progress : callable, optional
        Told (stage, done, total): stage ``read`` counts files, stage ``write`` bytes.

    Returns
    -------
    PackReport

    Raises
    ------
    ManifestError
        If the root holds no clip, its lists match no clip, or they contradict the clips.
    SeveralListsError
        If several folders of lists fit.
    ParameterError
        If a clip was extracted with other settings than the root's.
    ShardFormatError
        If a clip or shard is damaged; nothing that was whole before is lost.
    BusyError
        If another process packs the root.

    Notes
    -----
    Shards hold every clip; lists only choose rows of the manifests. Only shards whose members changed are written; then
    the manifests of all splits, each split.json last. Killed at any moment, it goes on where it was when run again.
    """
    dataset = Dataset.open(root)
    with exclusive_lock(root / ".pack.lock", f"packs {str(root)!r}"):
        return _pack(dataset, split, lists, shard_bytes, move, on_progress or (lambda stage, done, total: None))


def _pack(
    dataset: Dataset,
    split: int,
    lists: Path | Literal["automatic"] | None,
    shard_bytes: int | None,
    move: bool,
    tell: Callable[[str, float, float], None],
) -> PackReport:
    """Pack, as the only process that does."""
    root, settings = dataset.root, dataset.settings
    state = recover(root)
    clips, shards = _read_all(root, settings, tell)
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

    state = write_shards(root, planned, shards, state, on_shard=shard_is_final, on_bytes=lambda done, total: tell("write", done, total))
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


def _read_all(
    root: Path, settings: ExtractSettings, tell: Callable[[str, float, float], None]
) -> tuple[dict[str, StoredVideo], dict[str, list[StoredVideo]]]:
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
        tell("read", done, num_files)
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
