"""The manifests of splits, brought up to date with the shards: which rows each has, and whether it must be written."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from flowkit.dataset.list_files import read_lists, split_numbers
from flowkit.dataset.manifest import MIN_FRAMES, ClipRecord, Split, write_split
from flowkit.dataset.root import Dataset
from flowkit.dataset.shard_update import StoredVideo
from flowkit.dataset.split_lists import ChosenLists, Matched, match_lists
from flowkit.errors import ManifestError


@dataclass(frozen=True)
class _Draft:
    """What the manifest of a split will say, without the shards of its videos: (video_id, label) of each."""

    protocol: str
    classes: tuple[str, ...]
    train: tuple[tuple[str, int], ...]
    test: tuple[tuple[str, int], ...]
    num_listed_train: int
    num_listed_test: int


def _draft(chosen: ChosenLists) -> _Draft:
    """Draft a split from its lists."""
    labels = {name: label for label, name in enumerate(chosen.lists.classes)}
    train, test = (
        tuple((entry.video_id, labels[entry.class_name]) for entry in entries) for entries in (chosen.matched.train, chosen.matched.test)
    )
    return _Draft(chosen.lists.protocol, chosen.lists.classes, train, test, len(chosen.lists.train), len(chosen.lists.test))


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
    """

    def __init__(self, dataset: Dataset, videos: dict[str, StoredVideo], shard_of: dict[str, str], digests: dict[str, str]) -> None:
        self._dataset, self._videos, self._shard_of, self._digests = dataset, videos, shard_of, digests

    def write(self, number: int, chosen: ChosenLists) -> tuple[Split, bool]:
        """Write a split from its lists unless it is up to date; return it, and whether it was written."""
        return self._write(number, _draft(chosen))

    def update_others(self, number: int, chosen: ChosenLists) -> tuple[list[int], list[tuple[int, str]]]:
        """Bring all splits but one up to date; return those that were written, and those that cannot be read, with the reason."""
        written, damaged = [], []
        for other in self._dataset.splits:
            if other == number:
                continue
            try:
                _, was_written = self._write(other, self._updated(self._dataset.split(other), chosen))
            except ManifestError as error:
                damaged.append((other, str(error)))
                continue
            if was_written:
                written.append(other)
        return written, damaged

    def _updated(self, old: Split, chosen: ChosenLists) -> _Draft:
        """Draft a split from the folder of the chosen lists if it was made from these, or else from its own rows."""
        train, test = (tuple((r.video_id, r.label) for r in records if r.video_id in self._videos) for records in (old.train, old.test))
        kept = _Draft(old.protocol, old.classes, train, test, old.num_listed_train, old.num_listed_test)
        if chosen.path is None or old.protocol != chosen.lists.protocol or old.number not in split_numbers(chosen.path):
            return kept
        lists = read_lists(chosen.path, old.number)
        draft = _draft(ChosenLists(chosen.path, lists, match_lists(lists, self._videos)))
        if replace(draft, train=(), test=()) != replace(kept, train=(), test=()):
            return kept
        return draft if {*train} <= {*draft.train} and {*test} <= {*draft.test} else kept

    def too_short(self, matched: Matched) -> list[tuple[str, int]]:
        """Return the listed videos that are too short for a flow stack, with their numbers of frames."""
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
        planned = Split(
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
        existing = self._existing(number)
        if existing is not None and replace(existing, digest="") == planned:
            return existing, False
        contents = {field.name: getattr(planned, field.name) for field in fields(planned) if field.name not in ("number", "digest")}
        return write_split(self._dataset.root, number, **contents), True

    def _existing(self, number: int) -> Split | None:
        try:
            return self._dataset.split(number)
        except ManifestError:
            return None


def untrained_classes(split: Split) -> tuple[str, ...]:
    """Return the classes that have a test video but no training video in a split, which leaves out videos that are too short."""
    labels = {record.label for record in split.test} - {record.label for record in split.train}
    return tuple(split.classes[label] for label in sorted(labels))
