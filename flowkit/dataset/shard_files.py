"""Whether the shards that a split needs are there and whole, found before any work; and the command that makes them again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path

from flowkit.dataset.clips import StoredClips, find_clips
from flowkit.dataset.lists.automatic import AUTOMATIC
from flowkit.dataset.lists.choosing import FOLDERS, find_lists
from flowkit.dataset.lists.classes import whole_protocol
from flowkit.dataset.manifest import ClipRecord, Split
from flowkit.dataset.root import Dataset
from flowkit.dataset.settings import ExtractSettings
from flowkit.errors import ManifestError, NoFlowError, ShardFormatError
from flowkit.flow.params import TVL1Params
from flowkit.shards.structure import ShardStructure
from flowkit.video.folders import read_layout
from flowkit.words import counted

_MOST_NAMED = 3
_MOST_CHARACTERS = 200  # of the names of classes in a suggested command


def check_shards(dataset: Dataset, split: Split, *, records: Iterable[ClipRecord] | None = None) -> None:
    """Check that the shards of a split can be opened and have their full length, without reading their videos.

    Every command that reads many videos of a split calls this before its work, so that a shard that is missing is found in a moment
    and named once.

    Parameters
    ----------
    dataset : flowkit.Dataset
        The data root.
    split : flowkit.Split
        The split whose videos will be read.
    records : iterable of ClipRecord, optional
        Only the shards of these videos. Default: those of all videos of the split.

    Raises
    ------
    ManifestError
        If shards are missing, truncated or damaged. It names them, and the command that makes them again.

    Examples
    --------
    >>> import flowkit
    >>> from flowkit.dataset.example import example_root
    >>> from flowkit.dataset.shard_files import check_shards
    >>> dataset = flowkit.Dataset.open(example_root())
    >>> check_shards(dataset, dataset.split(1))
    >>> (dataset.root / "shards" / "shard-00001.h5").unlink()
    >>> check_shards(dataset, dataset.split(1))
    Traceback (most recent call last):
    flowkit.errors.ManifestError: split 1 needs 2 shards, and 1 of them cannot be read: shard-00001.h5 is missing. ...
    """
    names = sorted({record.shard for record in (split if records is None else records)})
    faults = {name: fault for name in names if (fault := _fault(dataset.root / "shards" / name))}
    if faults:
        which = "which" if len(names) == 1 else f"and {len(faults)} of them"
        what = f"split {split.number} needs {counted(len(names), 'shard')}, {which} cannot be read"
        raise ManifestError(_message(dataset, split, what, faults))


def check_flow(dataset: Dataset, what: str) -> None:
    """Check that a data root has flow, before work that needs it.

    Parameters
    ----------
    dataset : flowkit.Dataset
        The data root.
    what : str
        The work, as the subject of a sentence: ``training``.

    Raises
    ------
    NoFlowError
        If the root has frames only. It names the command that adds the flow.

    Examples
    --------
    >>> import flowkit
    >>> from flowkit.dataset.example import example_root
    >>> from flowkit.dataset.shard_files import check_flow
    >>> check_flow(flowkit.Dataset.open(example_root()), "training")
    """
    if not dataset.settings.has_flow:
        packed = "; then pack again" if dataset.splits else ""
        raise NoFlowError(
            f"{what} needs flow, and {str(dataset.root)!r} has frames only: add the flow with `{extract_command(dataset, with_flow=True)}`"
            f"{packed}"
        )


def find_asked(dataset: Dataset, video_ids: Iterable[str] | None) -> tuple[StoredClips, list[str]]:
    """Find the videos of a data root; return the files of all, and the ids of those that were asked for, sorted: these, or all.

    Raises
    ------
    ManifestError
        If there is no such video, or none at all; or as by `check_stored`.
    """
    stored = find_clips(dataset.root)
    check_stored(dataset, stored, video_ids=video_ids)
    ids = sorted(stored.paths if video_ids is None else set(video_ids))
    if not ids:
        raise ManifestError(f"{dataset.root} has no videos; `flowkit extract VIDEOS` makes its clips")
    return stored, ids


def check_stored(dataset: Dataset, stored: StoredClips, *, split: int | None = None, video_ids: Iterable[str] | None = None) -> None:
    """Check that no video is lost with a shard that is missing, truncated or damaged.

    This is `check_shards` for commands that read clip files as well as shards: a video that still has its clip file needs no shard.

    Parameters
    ----------
    dataset : flowkit.Dataset
        The data root.
    stored : StoredClips
        What `find_clips` has found there.
    split : int, optional
        The split whose videos will be read. Default: all videos, those of every split and those that no split lists.
    video_ids : iterable of str, optional
        Only these videos.

    Raises
    ------
    ManifestError
        As by `check_shards`; or if there is no such split, or its manifest cannot be read.

    Examples
    --------
    >>> import flowkit
    >>> from flowkit.dataset.clips import find_clips
    >>> from flowkit.dataset.example import example_root
    >>> from flowkit.dataset.shard_files import check_stored
    >>> dataset = flowkit.Dataset.open(example_root())
    >>> (dataset.root / "shards" / "shard-00001.h5").unlink()
    >>> check_stored(dataset, find_clips(dataset.root), video_ids=[dataset.split(1).train[0].video_id])  # it is in another shard
    >>> check_stored(dataset, find_clips(dataset.root))
    Traceback (most recent call last):
    flowkit.errors.ManifestError: split 1 needs 1 shard, which cannot be read: shard-00001.h5 is missing. ...
    """
    wanted = None if video_ids is None else frozenset(video_ids)
    if split is None and wanted is not None and wanted <= stored.paths.keys():
        return  # without reading the manifests of all splits
    for number in dataset.splits if split is None else (split,):
        try:
            listed = dataset.split(number)
        except ManifestError:
            if split is None:  # its videos are no other than those of the shards, as far as anybody knows
                continue
            raise
        lost = [record for record in listed if record.video_id not in stored.paths and (wanted is None or record.video_id in wanted)]
        check_shards(dataset, listed, records=lost)
    if split is None and wanted is None:
        check_readable(dataset, stored)


def check_readable(dataset: Dataset, stored: StoredClips) -> None:
    """Raise `ManifestError` if a shard that is there cannot be read, so that nobody knows which videos it holds."""
    if stored.unreadable:
        faults = {Path(path).name: _fault(Path(path)) or why for path, why in stored.unreadable}
        what = f"{counted(len(faults), 'shard')} of {str(dataset.root)!r} cannot be read"
        raise ManifestError(_message(dataset, _first_split(dataset), what, faults))


def _first_split(dataset: Dataset) -> Split | None:
    """Return the first split whose manifest can be read: a pack of this one brings the others up to date, and replaces none."""
    for number in dataset.splits:
        try:
            return dataset.split(number)
        except ManifestError:
            continue
    return None


def _message(dataset: Dataset, split: Split | None, what: str, faults: Mapping[str, str]) -> str:
    """Return an error message: what is wrong with which shards, and the command that makes them again."""
    lines = [f"{name} {fault}" for name, fault in list(faults.items())[:_MOST_NAMED]]
    more = f"; and {len(faults) - _MOST_NAMED} more" if len(faults) > _MOST_NAMED else ""
    there = [dataset.root / "shards" / name for name in faults if (dataset.root / "shards" / name).exists()]
    return (
        f"{what}: {'; '.join(lines)}{more}. Mount or copy {str(dataset.root / 'shards')!r} again, or make them again: "
        f"`{_repair(dataset, split, there)}`"
    )


def extract_command(dataset: Dataset, *, with_flow: bool = False) -> str:
    """Return the command that extracts the videos of a data root again, or imports them, with the settings of the root.

    `with_flow`: of a root that has frames only, the command that adds flow.
    """
    settings, root = dataset.settings, str(dataset.root)
    source = dataset.source or "VIDEOS"
    if settings.is_imported:
        made = ["--tool", settings.solver, "--bound", f"{settings.quantiser.bound}"]
        if settings.codec not in ("jpeg", ExtractSettings().codec):  # JPEG images stay what they are
            made += ["--codec", settings.codec]
        return shlex.join(["flowkit", "import", source, *made, "--data", root])
    no_flow = [] if settings.has_flow or with_flow else ["--no-flow"]
    return shlex.join(["flowkit", "extract", source, *no_flow, *_options(settings), "--data", root])


def _options(settings: ExtractSettings) -> list[str]:
    """Return the options of `flowkit extract` that differ from its defaults; the solver is that of the root in any case."""
    plain = ExtractSettings()
    options = []
    if settings.method is not None:
        options += ["--method", settings.method.name]
        options += [word for name, value in settings.method.params.items() for word in ("--method-param", f"{name}={_text(value)}")]
    names = ("short_side", "codec") if settings.method is not None else ("preset", "short_side", "codec")
    for name in names if settings.has_flow else ("short_side",):
        if getattr(settings, name) != getattr(plain, name):
            options += [f"--{name.replace('_', '-')}", str(getattr(settings, name))]
    if settings.camera_motion != plain.camera_motion:
        options += ["--camera-motion", settings.camera_motion]
    options += settings.reading.options()
    for name in ("bound", "mapping"):
        if getattr(settings.quantiser, name) != getattr(plain.quantiser, name):
            options += [f"--{name}", f"{getattr(settings.quantiser, name)}"]
    for field in () if settings.method is not None or not settings.has_flow else fields(TVL1Params):
        value = getattr(settings.tvl1, field.name)
        if value != getattr(TVL1Params.preset(settings.preset), field.name):
            options += [f"--tvl1-{field.name.rstrip('_').replace('_', '-')}", str(value)]
    return options


def _text(value: object) -> str:
    """Return a value as an option states it."""
    return value if isinstance(value, str) else json.dumps(value)


def _repair(dataset: Dataset, split: Split | None, damaged: list[Path]) -> str:
    """Return the command that makes shards again; those that are damaged must be deleted first."""
    delete = f"rm {shlex.join(map(str, damaged))} && " if damaged else ""
    lists = [] if split is None else ["--split", str(split.number), *_lists_option(dataset, split), *_classes_option(split)]
    pack = ["flowkit", "pack", *lists, "--data", str(dataset.root)]
    return f"{delete}{extract_command(dataset)} && {shlex.join(pack)}"


def _lists_option(dataset: Dataset, split: Split) -> list[str]:
    """Return how `flowkit pack` finds the lists of a split again."""
    video_ids = [record.video_id for record in split]
    if split.protocol == AUTOMATIC:
        return ["--lists", AUTOMATIC] if read_layout(video_ids).has_subsets else []
    if split.protocol.startswith(FOLDERS):
        return ["--lists", FOLDERS]
    try:
        found = find_lists(Path(dataset.source), video_ids).matching if dataset.source else ()
    except ManifestError:
        found = ()
    return [] if len(found) == 1 and whole_protocol(split.protocol) in ("ucf101", "hmdb51") else ["--lists", "LISTS"]


def _classes_option(split: Split) -> list[str]:
    """Return how `flowkit pack` chooses the classes of a split again."""
    if not split.left_out_classes:
        return []
    names = ",".join(split.classes)
    return ["--classes", names if len(names) <= _MOST_CHARACTERS and len(names.split(",")) == len(split.classes) else "present"]


def _fault(path: Path) -> str:
    """Return why a shard cannot be read, or an empty text."""
    try:
        with ShardStructure(path):
            return ""
    except FileNotFoundError:
        return "is missing"
    except ShardFormatError as error:
        return str(error).removeprefix(str(path)).removeprefix(": ").strip().partition("; copy it again")[0]
    except OSError as error:
        return f"cannot be opened ({error.strerror or error})"
