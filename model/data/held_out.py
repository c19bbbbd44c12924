"""The training videos that are held out for validation: complete videos, of which no phase of the run sees anything in training."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

from flowkit.dataset.lists.automatic import automatic_split
from flowkit.dataset.manifest import ClipRecord, Split
from flowkit.dataset.root import Dataset
from flowkit.errors import ParameterError
from flowkit.model.settings.validation import Validation
from flowkit.shards.reader import ShardReader
from flowkit.video.ids import first_few, group_of
from flowkit.words import counted


@dataclass(frozen=True)
class HeldOut:
    """The training videos that a run holds out for validation; none by default.

    Parameters
    ----------
    video_ids : tuple of str
        The videos, sorted.
    record : dict
        What `Provenance` stores: how they were chosen, and their ids as ``video_ids``; empty if there are none.
    notes : tuple of str
        What is worth saying about the choice, in sentences.
    """

    video_ids: tuple[str, ...] = ()
    record: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def without(self, split: Split) -> Split:
        """Return a split as training sees it: without these videos, under the digest of the whole split."""
        held = set(self.video_ids)
        return replace(split, train=tuple(record for record in split.train if record.video_id not in held))


def held_out(dataset: Dataset, split: Split, validation: Validation, *, seed: int) -> HeldOut:
    """Choose the training videos that are held out for validation.

    Parameters
    ----------
    dataset : flowkit.Dataset
        The data root, whose shards say which videos were extracted from byte-identical files. These stay together.
    split : flowkit.Split
        The split; its test videos play no part.
    validation : Validation
        A fraction is drawn as an automatic split draws its test videos: class by class, videos of a class that share a ``_gNN_``
        together, at least one for each class that has two, and never all of a class.
    seed : int
        The seed of the draw.

    Raises
    ------
    ParameterError
        If there are no such groups, a class would lose all its training videos, or nothing can be held out.

    Examples
    --------
    >>> import flowkit
    >>> from flowkit.dataset.example import example_root
    >>> dataset = flowkit.Dataset.open(example_root())  # 12 training videos of 6 classes
    >>> chosen = held_out(dataset, dataset.split(1), Validation(fraction=0.5), seed=0)
    >>> len(chosen.video_ids), len(chosen.without(dataset.split(1)).train)
    (6, 6)
    """
    return chosen_from(split, source_files(dataset, split.train), validation, seed=seed)


def chosen_from(split: Split, files: Mapping[str, str], validation: Validation, *, seed: int) -> HeldOut:
    """Choose as `held_out` does, given the SHA-256 of the file that each training video was extracted from; empty if unknown."""
    if validation.groups:
        ids, notes = _of_groups(split, validation.groups, files)
        record: dict[str, Any] = validation.to_dict()
    else:
        assert validation.fraction is not None
        class_of = {record.video_id: record.class_name for record in split.train}
        drawn = {entry.video_id for entry in automatic_split(class_of, seed=seed, file_of=files, fraction=validation.fraction).test}
        ids, notes = _with_every_class_trained(drawn, split.train, files), []
        record = validation.to_dict() | {"seed": seed}
    if not ids:
        raise ParameterError("no video can be held out for validation: no class has two videos or groups (_gNN_) that could be divided")
    held = tuple(sorted(ids))
    without = sorted(_classes(split.train) - _classes(record for record in split.train if record.video_id in ids))
    if without:
        why = "" if validation.groups else ", because they have only one video or one group (_gNN_) that could be divided"
        notes.append(f"{counted(len(without), 'class')} without a validation video{why}: {first_few(without)}")
    return HeldOut(held, record | {"video_ids": list(held)}, tuple(notes))


def _of_groups(split: Split, groups: Sequence[int], files: Mapping[str, str]) -> tuple[set[str], list[str]]:
    """Return the videos of these groups with their byte-identical copies, and what to say about these."""
    number_of = {record.video_id: group_of(record.video_id) for record in split.train}
    there = sorted({number for number in number_of.values() if number is not None})
    if not there:
        raise ParameterError("validation groups are the _gNN_ in the names of videos, and no training video has one; give a fraction")
    missing = [number for number in groups if number not in there]
    if missing:
        raise ParameterError(f"no training video is in group {first_few(map(str, missing))}; there are groups {_ranges(there)}")
    named = {video_id for video_id, number in number_of.items() if number in groups}
    taken = {files[video_id] for video_id in named} - {""}
    ids = named | {video_id for video_id, file in files.items() if file in taken}
    lost = sorted(_classes(split.train) - _classes(record for record in split.train if record.video_id not in ids))
    if lost:
        raise ParameterError(
            f"validation groups {','.join(map(str, groups))} would leave no training video for {counted(len(lost), 'class')} "
            f"({first_few(lost)}); name fewer groups"
        )
    copies = sorted(ids - named)
    return ids, [f"held out as well, as byte-identical copies of those videos: {first_few(copies)}"] if copies else []


def _with_every_class_trained(drawn: set[str], records: Sequence[ClipRecord], files: Mapping[str, str]) -> set[str]:
    """Return the drawn videos without those of classes that copies in other classes left without a training video."""
    held = set(drawn)
    keys = {record.video_id: _kept_together(record, files) for record in records}
    while True:
        trained = _classes(record for record in records if record.video_id not in held)
        back = {record.video_id for record in records if record.class_name not in trained}
        if not back:
            return held
        held -= back
        while back:  # and whatever must stay together with them
            in_training = {key for video_id, own in keys.items() if video_id not in held for key in own}
            back = {video_id for video_id in held if in_training & keys[video_id]}
            held -= back


def _kept_together(record: ClipRecord, files: Mapping[str, str]) -> set[Hashable]:
    """Return what a video may share with others that are then on the same side."""
    number = group_of(record.video_id)
    group: set[Hashable] = set() if number is None else {(record.class_name, number)}
    return group | ({files[record.video_id]} if files[record.video_id] else set())


def source_files(dataset: Dataset, records: Iterable[ClipRecord]) -> dict[str, str]:
    """Return the SHA-256 of the file that each video was extracted from; empty where it is unknown, as for imported frames."""
    files: dict[str, str] = {}
    for _, members in groupby(sorted(records, key=lambda record: record.shard), key=lambda record: record.shard):
        rows = list(members)
        with ShardReader(dataset.shard_path(rows[0])) as shard:
            files |= {record.video_id: shard.clip(record.video_id).attributes.source_sha256 for record in rows}
    return files


def _classes(records: Iterable[ClipRecord]) -> set[str]:
    return {record.class_name for record in records}


def _ranges(numbers: Sequence[int]) -> str:
    """Return sorted numbers in brief: ``1 to 7, 9``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
