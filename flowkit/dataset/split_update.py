"""The manifests of splits, brought up to date with the shards: which rows each has, and whether it must be written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace

from flowkit.dataset.lists.choosing import ChosenLists
from flowkit.dataset.lists.classes import keep_classes, whole_protocol
from flowkit.dataset.lists.matching import Matched, match_lists
from flowkit.dataset.lists.official import split_numbers
from flowkit.dataset.lists.reading import read_lists
from flowkit.dataset.manifest import MIN_FRAMES, ClipRecord, Split, split_identity, write_split
from flowkit.dataset.root import Dataset
from flowkit.dataset.shard_update import StoredVideo
from flowkit.errors import ManifestError


def too_short(matched: Matched, videos: Mapping[str, StoredVideo]) -> list[tuple[str, int]]:
    """Return the listed videos that are too short for a flow stack, with their numbers of frames."""
    listed = [videos[entry.video_id] for entry in (*matched.train, *matched.test)]
    return sorted((video.video_id, video.num_frames) for video in listed if video.num_frames < MIN_FRAMES)


def check_length(number: int, matched: Matched, videos: Mapping[str, StoredVideo]) -> None:
    """Refuse a split none of whose videos is long enough for a flow stack."""
    if len(too_short(matched, videos)) == len(matched.train) + len(matched.test):
        raise _all_too_short(number)


def _all_too_short(number: int) -> ManifestError:
    return ManifestError(f"no video of split {number} has the {MIN_FRAMES} frames that a stack of 10 flow fields needs")


class ManifestWriter:
    """Writes the manifests of splits, given which shard holds which video.

    Parameters
    ----------
    dataset : Dataset
        The data root.
    videos : dict of str to StoredVideo
        Every video of the root, by id.
    shard_of : dict of str to str
        The name of the shard that holds each video.
    digests : dict of str to str
        The SHA-256 of each shard.
    packed_before : dict of str to dict of str to str
        The digest of each video in each shard before this run changed any, without shards that manifests may not describe.
    """

    def __init__(
        self,
        dataset: Dataset,
        videos: dict[str, StoredVideo],
        shard_of: dict[str, str],
        digests: dict[str, str],
        packed_before: Mapping[str, Mapping[str, str]],
    ) -> None:
        self._dataset, self._videos, self._shard_of, self._digests = dataset, videos, shard_of, digests
        self._packed_before = packed_before

    def write(self, number: int, chosen: ChosenLists) -> tuple[Split, bool]:
        """Write a split from its lists unless it is up to date; return it, and whether it was written."""
        return self._write(self._planned(number, chosen))

    def update_others(self, number: int, chosen: ChosenLists) -> tuple[list[int], list[tuple[int, str]]]:
        """Bring all splits but one up to date; return those that were written, and those that cannot be read, with the reason."""
        written, damaged = [], []
        for other in self._dataset.splits:
            if other == number:
                continue
            try:
                _, was_written = self._write(self._updated(self._dataset.split(other), chosen))
            except ManifestError as error:
                damaged.append((other, str(error)))
                continue
            if was_written:
                written.append(other)
        return written, damaged

    def _planned(self, number: int, chosen: ChosenLists) -> Split:
        """Return a split as its lists define it."""
        lists = chosen.lists
        train, test = (
            self._records(lists.classes, {entry.video_id: lists.classes.index(entry.class_name) for entry in entries})
            for entries in (chosen.matched.train, chosen.matched.test)
        )
        num_listed = (len(lists.train), len(lists.test))
        quantiser = self._dataset.settings.quantiser
        return Split(
            number,
            lists.protocol,
            lists.classes,
            train,
            test,
            *num_listed,
            quantiser,
            self._digests,
            digest="",
            left_out_classes=lists.left_out,
        )

    def _updated(self, old: Split, chosen: ChosenLists) -> Split:
        """Return a split as the folder of the chosen lists defines it if it was made from these, or else with its own rows."""
        train, test = (self._records(old.classes, {row.video_id: row.label for row in half}) for half in (old.train, old.test))
        quantiser = self._dataset.settings.quantiser
        kept = replace(old, train=train, test=test, quantiser=quantiser, shards=self._digests, digest="", earlier_digests=())
        same_lists = whole_protocol(old.protocol) == whole_protocol(chosen.lists.protocol)
        if chosen.path is None or not same_lists or old.number not in split_numbers(chosen.path):
            return kept
        lists = read_lists(chosen.path, old.number)
        matched = match_lists(lists, self._videos)
        if old.left_out_classes and {*old.classes} <= {*lists.classes}:
            lists, matched = keep_classes(lists, matched, old.classes)
        planned = self._planned(old.number, ChosenLists(chosen.path, lists, matched))
        if replace(planned, train=(), test=()) != replace(kept, train=(), test=()):
            return kept
        return planned if {*train} <= {*planned.train} and {*test} <= {*planned.test} else kept

    def _records(self, classes: Sequence[str], labels: Mapping[str, int]) -> tuple[ClipRecord, ...]:
        """Return the rows of the videos that exist and are long enough."""
        return tuple(
            ClipRecord(video_id, label, classes[label], v.num_frames, self._shard_of[video_id], v.sha256)
            for video_id, label in labels.items()
            if (v := self._videos.get(video_id)) is not None and v.num_frames >= MIN_FRAMES
        )

    def _earlier_digests(self, planned: Split, existing: Split | None) -> tuple[str, ...]:
        """Return the digests under which runs may know exactly the rows and clips of the new manifest."""
        known = None if existing is None else with_clip_digests(existing, self._packed_before)
        same = known is not None and known.digest == split_identity(planned.train, planned.test)
        return known.earlier_digests if known is not None and same else ()

    def _write(self, planned: Split) -> tuple[Split, bool]:
        if not len(planned):
            raise _all_too_short(planned.number)
        try:
            existing = self._dataset.split(planned.number)
        except ManifestError:
            existing = None
        if existing is not None and _says_the_same(existing, planned):
            return existing, False
        planned = replace(planned, earlier_digests=self._earlier_digests(planned, existing))
        return _write_split(self._dataset, planned), True


def _write_split(dataset: Dataset, split: Split) -> Split:
    contents = {field.name: getattr(split, field.name) for field in fields(split) if field.name not in ("number", "digest")}
    return write_split(dataset.root, split.number, **contents)


def record_clip_digests(dataset: Dataset, packed: Mapping[str, Mapping[str, str]]) -> None:
    """Write the contents of clips into the manifests of earlier versions of flowkit, as far as these shards show them.

    Parameters
    ----------
    dataset : Dataset
        The data root.
    packed : dict of str to dict of str to str
        The digest of each video in each shard that the manifests describe.
    """
    for number in dataset.splits:
        try:
            split = dataset.split(number)
        except ManifestError:  # the report of the pack names it
            continue
        known = with_clip_digests(split, packed)
        if known is not split:
            _write_split(dataset, known)


def with_clip_digests(split: Split, packed: Mapping[str, Mapping[str, str]]) -> Split:
    """Return a split whose rows say what the clips contain, as these shards show it; its digest becomes an earlier one.

    If its rows say so already, or the shards do not show it, the split is returned as it is.
    """
    if all(record.sha256 for record in split):
        return split
    train, test = (
        tuple(replace(record, sha256=packed.get(record.shard, {}).get(record.video_id, "")) for record in half)
        for half in (split.train, split.test)
    )
    identity = split_identity(train, test)
    if not identity:
        return split
    return replace(split, train=train, test=test, digest=identity, earlier_digests=(*split.earlier_digests, split.digest))


def _says_the_same(existing: Split, planned: Split) -> bool:
    """Return whether a manifest says what the new one would, or would but for the contents of clips, which an old one does not say."""
    if not any(record.sha256 for record in existing):
        train, test = (tuple(replace(record, sha256="") for record in half) for half in (planned.train, planned.test))
        planned = replace(planned, train=train, test=test)
    return replace(existing, digest="", earlier_digests=()) == planned


def untrained_classes(split: Split) -> tuple[str, ...]:
    """Return the classes that have a test video but no training video in a split, which leaves out videos that are too short."""
    labels = {record.label for record in split.test} - {record.label for record in split.train}
    return tuple(split.classes[label] for label in sorted(labels))
