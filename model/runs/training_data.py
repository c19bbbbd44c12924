"""The data that a run was trained on: which videos, and in words how a split differs from them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from flowkit.dataset.manifest import TABLES, ClipRecord, Split
from flowkit.dataset.root import Dataset
from flowkit.dataset.settings import Solver
from flowkit.errors import CheckpointError, FlowkitError
from flowkit.model.runs.provenance import Provenance, flattened
from flowkit.records import RecordFormat
from flowkit.shards.reader import Clip, ShardReader
from flowkit.video.ids import first_few
from flowkit.words import counted

VIDEOS_NAME = "videos.json"

_VIDEOS = RecordFormat("flowkit-training-videos", 1, CheckpointError, "the run can do without it: delete it")
_HALVES = {"train": "training", "test": "test"}
_NAMES_SHOWN = 3
_UNKNOWN = (
    "whether its videos are the same cannot be known, because an earlier version of flowkit trained it and the manifest that it used "
    "is gone"
)
# A video by its id: the half that it is in, its class, and the beginning of its clip's digest.
Videos = dict[str, tuple[str, str, str]]


_OWN_SOLVER = "flowkit's"


class OtherSettingsError(CheckpointError):
    """A phase was begun with other settings or data."""


def videos_text(split: Split) -> str:
    """Return the contents of ``videos.json``: every video of a split, so that later differences can be named."""
    record: dict[str, Any] = {**_VIDEOS.header, "digest": split.digest}
    for half, rows in (("train", split.train), ("test", split.test)):
        record[half] = {row.video_id: [row.class_name, row.sha256[:16]] for row in rows}
    return json.dumps(record, ensure_ascii=False, indent=0) + "\n"


def videos_trained_on(folder: Path, provenance: Provenance) -> set[str]:
    """Return the ids of the videos that weights were trained on, which the folder of their phase records; empty without a record."""
    videos = _recorded_videos(folder, provenance) or {}
    return {video_id for video_id, (half, *_) in videos.items() if half == "train"} - {*provenance.validation_ids}


def extraction_of(dataset: Dataset, record: ClipRecord) -> dict[str, Any]:
    """Return how the frames and the flow of a clip were made, as `Provenance` stores it; it is the same for all clips of a data root."""
    with ShardReader(dataset.shard_path(record)) as shard:
        return extraction_of_clip(shard.clip(record.video_id))


def extraction_of_clip(clip: Clip) -> dict[str, Any]:
    """Return how the frames and the flow of a clip were made, as `Provenance` stores it."""
    stored = clip.attributes
    other: dict[str, Any] = {name: dict(value) for name in ("method", "reading") if (value := getattr(stored, name))}
    other |= {"camera_motion": stored.camera_motion} if stored.camera_motion else {}
    return {"short_side": min(clip.height, clip.width), "tvl1": dict(stored.tvl1), "solver": stored.solver, "codec": stored.codec, **other}


def tested_extraction(dataset: Dataset, split: Split) -> dict[str, Any] | None:
    """Return how frames and flow of the test videos were made, as `Provenance` has it; None if the first of them cannot be read."""
    try:
        return extraction_of(dataset, split.test[0]) if split.test else None
    except (FlowkitError, OSError):
        return None


def differences_from_training_data(
    split: Split, provenance: Provenance, folder: Path | None = None, *, extraction: Mapping[str, Any] | None = None
) -> list[str]:
    """Return in words how a split differs from the data that weights were trained on; empty if it is the same data.

    Parameters
    ----------
    split : Split
        The split.
    provenance : Provenance
        What the weights record.
    folder : Path, optional
        The folder of their phase, whose ``videos.json`` names the videos.
    extraction : dict, optional
        How frames and flow of the split were made, as `Provenance` has it, if that is known.
    """
    different = []
    if provenance.split != split.number:
        told = " (by `flowkit convert --split`)" if provenance.is_converted else ""
        different.append(f"they were trained on split {provenance.split}{told}, and this is split {split.number}")
    different += quantiser_differences(provenance, split)
    if sorted(provenance.classes) != sorted(split.classes):
        in_words = _classes_of_network if provenance.is_converted else _class_differences
        different += in_words(provenance.classes, split.classes)
    if not provenance.is_converted:
        different += extraction_differences(provenance.extraction, extraction or {})
    if provenance.is_converted or provenance.digests & split.digests:  # what cannot be known of converted networks is in `reservations`
        return different
    return different + _video_differences(split, provenance, folder, bool(different))


def reservations(provenance: Provenance, extraction: Mapping[str, Any]) -> list[str]:
    """Return in words what is not known of the training of a converted network, and in what its frames and flow differ from these.

    Parameters
    ----------
    provenance : Provenance
        What the weights record.
    extraction : dict
        How frames and flow of the test videos were made, as `Provenance` has it.
    """
    if not provenance.is_converted:
        return []
    texts = [
        f"the authors' file does not say which videos it was trained on; split {provenance.split} comes from `flowkit convert --split`"
    ]
    different = extraction_differences(provenance.extraction, extraction)
    return texts + ([f"the authors' frames and flow were made in another way: {'; '.join(different)}"] if different else [])


def quantiser_differences(provenance: Provenance, split: Split) -> list[str]:
    """Return in words how the quantiser of a split's flow differs from that of a training."""
    before, now = provenance.quantiser, split.quantiser.to_dict()
    return [
        f"the {name} of the quantiser was {before.get(name)}, and is {now.get(name)}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]


def extraction_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return ``<setting> was ..., and is ...`` for each setting of frames and flow that matters and differs; nothing if one is unknown.

    The solvers of flowkit differ by hundredths of a pixel, and codecs without loss by nothing.

    Examples
    --------
    >>> from flowkit.model.runs.training_data import extraction_differences
    >>> before = {"short_side": 256, "solver": "strict", "tvl1": {"tau": 0.25}, "codec": "zstd"}
    >>> extraction_differences(before, {**before, "solver": "cuda", "short_side": 128})
    ['the short side was 256, and is 128']
    """
    if not before or not now:
        return []
    was, is_now = _comparable(before), _comparable(now)
    if was.get("solver") != is_now.get("solver"):  # parameters of one method say nothing of another's
        was, is_now = ({name: value for name, value in made.items() if not name.startswith("method.")} for made in (was, is_now))
    known = all(any(map(_is_tvl1, values)) for values in (was, is_now))  # they are not known of another tool's flow
    names = [name for name in {*was, *is_now} if was.get(name) != is_now.get(name) and (known or not _is_tvl1(name))]
    return [f"the {_in_words(name)} was {was.get(name, 'unknown')}, and is {is_now.get(name, 'unknown')}" for name in sorted(names)]


def _is_tvl1(name: str) -> bool:
    return name.startswith("tvl1.")


def _comparable(extraction: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that matter as one table."""
    flat = {name: value for name, value in flattened(extraction).items() if value is not None}
    flat |= {"solver": _OWN_SOLVER} if flat.get("solver") in get_args(Solver) else {}
    flat.setdefault("camera_motion", "not removed")
    return flat | ({"codec": "without loss"} if flat.get("codec") != "jpeg" else {})


def refuse_other_phase(begun: Provenance, now: Provenance, split: Split, folder: Path) -> None:
    """Raise `OtherSettingsError`, which says in words what differs, if the phase in a folder is not the one that is to be trained now.

    Where this cannot be known, it is a `CheckpointError` of no such kind, because there is no reason to discard the phase.
    """
    different = begun.differences(now)
    advice = "Use those, or another run (--run), or discard this one (--restart)"
    if not different:
        advice = "Use another run (--run), or discard this one (--restart)"
    if begun.classes != now.classes:
        different += _class_differences(begun.classes, now.classes)
    different += validation_differences(begun, now)
    if not begun.digests & now.digests:
        different += _video_differences(split, begun, folder, bool(different))
    if different == [_UNKNOWN]:
        raise CheckpointError(f"{folder}: {_UNKNOWN}. `flowkit evaluate --force` tests it as it is, and `--run NAME` trains another run")
    if different:
        raise OtherSettingsError(f"{folder} was begun with other settings or data: {'; '.join(different)}. {advice}")


def validation_differences(before: Provenance, now: Provenance) -> list[str]:
    """Return in words how the videos that are held out for validation differ; empty if they are the same."""
    if before.validation_ids == now.validation_ids:
        return []
    was, is_now = (_held_out_text(made.validation) for made in (before, now))
    return [f"held out for validation {'were' if before.validation else 'was'} {was}, now {is_now}"]


def _held_out_text(validation: Mapping[str, Any]) -> str:
    if not validation:
        return "nothing"
    how = ", ".join(
        f"{name} {','.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in validation.items()
        if name != "video_ids"
    )
    return f"{counted(len(validation['video_ids']), 'video')} ({how}: {_some(validation['video_ids'])})"


def _class_differences(before: Sequence[str], now: Sequence[str]) -> list[str]:
    changes = [
        f"{counted(len(names), 'class')} {'was' if len(names) == 1 else 'were'} {what} ({_some(names)})"
        for what, names in (
            ("added", [name for name in now if name not in set(before)]),
            ("removed", [name for name in before if name not in set(now)]),
        )
        if names
    ]
    return changes or ["the classes have other labels"]


def _classes_of_network(known: Sequence[str], now: Sequence[str]) -> list[str]:
    """Return how the classes of a converted network, which no split ever had, differ from those of a split."""
    return [
        f"{whose} {counted(len(names), 'class')} that {lacks} ({_some(names)})"
        for whose, lacks, names in (
            ("this split has", "the network does not know", [name for name in now if name not in set(known)]),
            ("the network has", "this split lacks", [name for name in known if name not in set(now)]),
        )
        if names
    ]


def _video_differences(split: Split, provenance: Provenance, folder: Path | None, explained: bool) -> list[str]:
    """Return how the videos differ from those of the training; nothing that another difference `explained`."""
    now: Videos = {row.video_id: (half, row.class_name, row.sha256[:16]) for half in TABLES for row in getattr(split, half)}
    before = None if folder is None else _recorded_videos(folder, provenance)
    if before is not None:
        return _compared(before, now, contents=not explained)
    if explained:
        return []
    counts = {half: len(getattr(split, half)) for half in TABLES}
    if not provenance.num_videos:
        return [_UNKNOWN]
    if provenance.num_videos != counts:
        was, is_now = (
            " and ".join(f"{n.get(half, 0):,} {_HALVES[half]} videos" for half in TABLES) for n in (provenance.num_videos, counts)
        )
        return [f"the split had {was}, and has {is_now}"]
    return ["some videos have other labels or other clips (which ones is not recorded beside these weights)"]


def _compared(before: Videos, now: Videos, *, contents: bool) -> list[str]:
    """Return the differences between two tables of videos, each kind once, with a few names."""
    texts = []
    for half, name in _HALVES.items():
        for what, some, others in (("added", now, before), ("removed", before, now)):
            ids = [video_id for video_id, video in some.items() if video[0] == half and video_id not in others]
            if ids:
                texts.append(f"{_videos(len(ids), name + ' ')} {what} ({_some(ids)})")
    common = [video_id for video_id in now if video_id in before]
    for position, text in ((0, "moved to the other half"), (1, "given another class"), (2, "extracted again with other contents")):
        ids = [video_id for video_id in common if before[video_id][position] != now[video_id][position]]
        if ids and (contents or position != 2):
            texts.append(f"{_videos(len(ids))} {text} ({_some(ids)})")
    return texts


def _recorded_videos(folder: Path, provenance: Provenance) -> Videos | None:
    """Return the videos that a phase's folder records for these weights; None if it has no such record."""
    try:
        record = _VIDEOS.read_if_present(folder / VIDEOS_NAME)
    except CheckpointError:
        return None
    if record is None or record.get("digest") not in provenance.digests:
        return None
    videos: Videos = {}
    for half in TABLES:
        rows = record.get(half)
        if not isinstance(rows, Mapping) or not all(map(_is_row, rows.values())):
            return None
        videos |= {video_id: (half, row[0], row[1]) for video_id, row in rows.items()}
    return videos


def _is_row(row: object) -> bool:
    return isinstance(row, list) and len(row) == 2 and all(isinstance(text, str) for text in row)


def _in_words(name: str) -> str:
    """Return what a setting is called in messages: ``TV-L1 lambda`` for ``tvl1.lambda_``."""
    return name.replace("tvl1.", "TV-L1 ").replace("method.", "flow method's ").rstrip("_").replace("_", " ")


def _videos(number: int, kind: str = "") -> str:
    return f"{counted(number, f'{kind}video')} {'was' if number == 1 else 'were'}"


def _some(names: Iterable[str]) -> str:
    return first_few(names, most=_NAMES_SHOWN)
