"""``flowkit pack``: clips into shards, and a split's manifests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from flowkit.cli.help.format import Command
from flowkit.cli.shared.console import counted, inform, say, show_name, size, table, warn
from flowkit.cli.shared.exit_codes import EXIT_ERROR
from flowkit.cli.shared.options import data_option, split_option
from flowkit.cli.shared.sizes import parse_size

if TYPE_CHECKING:
    from flowkit.dataset.packing import PackReport

_MOST_LISTED = 5  # names printed of a long list


def _parse_lists(ctx: click.Context, param: click.Parameter, value: str | None) -> Path | Literal["automatic", "folders"] | None:
    """Turn the option into a path that exists, or the word ``automatic`` or ``folders``."""
    if value is None or Path(value).exists():
        return None if value is None else Path(value)
    if value == "automatic":
        return "automatic"
    if value == "folders":
        return "folders"
    raise click.BadParameter(f"{value!r} is neither a file nor a folder of split lists, nor the word folders or automatic")


def _parse_classes(ctx: click.Context, param: click.Parameter, value: str) -> str | tuple[str, ...]:
    """Turn names joined by commas into a tuple; ``all`` and ``present`` stay as they are."""
    if value in ("all", "present"):
        return value
    names = tuple(name.strip() for name in value.split(",") if name.strip())
    if not names:
        raise click.BadParameter("give all, present, or names of classes joined by commas")
    return names


@click.command(cls=Command)
@data_option
@split_option
@click.option(
    "--lists",
    callback=_parse_lists,
    default=None,
    metavar="DIR|FILE|folders|automatic",
    help="Lists of UCF101, HMDB51, Kinetics, mmaction2 or 3D-ResNets, or a CSV file with video_id,class_name,subset. [default: the split "
    "of folders called train, val and test, else lists found near the videos, else automatic]",
)
@click.option(
    "--classes",
    callback=_parse_classes,
    default="all",
    show_default=True,
    metavar="all|present|A,B,...",
    help="Which classes of the lists the split has: all, those that have videos here, or these. Labels are numbered again, and a part "
    "of official lists is no official split.",
)
@click.option(
    "--shard-size",
    callback=parse_size,
    default=None,
    metavar="SIZE",
    help="A shard ends with the first video that brings it past this size. [default: as before, else 1GiB]",
)
@click.option("--move", is_flag=True, help="Delete each clip file after its shard is written.")
@click.option(
    "--allow-missing", is_flag=True, help="Accept that videos of earlier manifests are gone; otherwise that is an error which names them."
)
def pack(
    data: Path,
    split: int,
    lists: Path | Literal["automatic", "folders"] | None,
    classes: str | tuple[str, ...],
    shard_size: int | None,
    move: bool,
    allow_missing: bool,
) -> int:
    """Gather all clips into HDF5 shards and write the manifests of split N.

    Shards are written once, whatever the number of splits. After more videos were extracted, the same line rewrites only the
    shards that change, and updates all splits. Without split lists, flowkit divides the videos by class, group and file, and
    says so. A split from which nothing can be learnt or tested is written, but the exit code is 1.
    """
    from flowkit.dataset.lists.choosing import SeveralListsError
    from flowkit.dataset.packing import pack as run

    try:
        report = run(
            data, split=split, lists=lists, classes=classes, shard_bytes=shard_size, move=move, allow_missing=allow_missing, progress=True
        )
    except SeveralListsError as error:
        raise click.UsageError(show_name(error)) from error
    _print_lists(report)
    _print_faults(report)
    _print_result(report, data)
    for reason in report.faults.errors:
        warn(f"pack: split {report.split.number} is of no use: {show_name(reason)}")
    return EXIT_ERROR if report.faults.errors else 0


def _print_lists(report: PackReport) -> None:
    """Print to stderr where the split comes from and what it lacks."""
    from flowkit.dataset.lists.automatic import AUTOMATIC
    from flowkit.dataset.manifest import MIN_FRAMES

    matched, number = report.matched, report.split.number
    for note in report.notes:
        inform(f"pack: {show_name(note)}")
    if report.lists is not None:
        inform(f"pack: split {number} from the lists in {show_name(report.lists)}, {show_name(report.split.protocol)}")
    elif report.split.protocol == AUTOMATIC:
        warn(
            f"pack: split {number} is automatic: about 30 % of each class's videos for test, groups (_gNN_) and identical files kept "
            "together, fixed seed; to use your own lists: --lists DIR|FILE"
        )
    else:
        inform(f"pack: split {number} from the {show_name(report.split.protocol)}; to use other lists: --lists DIR|FILE")
    _print_names("classes of the lists that were left out (--classes)", report.split.left_out_classes, tell=inform)
    labels = {record.label for record in report.split}
    absent = [name for label, name in enumerate(report.split.classes) if label not in labels]
    _print_names("classes of the lists without a video here, which --classes present leaves out", absent, tell=inform)
    too_short = [f"{name} ({counted(num_frames, 'frame')})" for name, num_frames in report.too_short]
    _print_names(f"left out because they are too short for a flow stack ({MIN_FRAMES} frames)", too_short)
    _print_names("matched by the end of the name", [f"{name} is {video_id}" for name, video_id in matched.by_end], tell=inform)
    for half, entries in (("training", matched.missing_train), ("test", matched.missing_test)):
        unclear = [f"{entry.video_id} {why}" for entry in entries if (why := matched.reasons.get(entry.video_id))]
        _print_names(f"listed for {half}, but not clear which video is meant", unclear)
        missing = [entry.video_id for entry in entries if entry.video_id not in matched.reasons]
        _print_names(f"listed for {half}, but missing", missing)
    _print_names("in neither half", matched.unlisted, tell=inform)
    _print_names("warning: test classes without a training video", matched.untrained_classes)
    for other, why in report.splits_damaged:
        warn(f"pack: split {other} could not be updated: {show_name(why)}")


def _print_faults(report: PackReport) -> None:
    """Print to stderr why the split's test says little."""
    from flowkit.video.ids import first_few

    faults = report.faults
    _print_names("warning: classes without a test video", faults.untested_classes)
    for warning in faults.warnings:
        warn(f"pack: warning: {show_name(warning)}")
    shared = [f"{first_few(train)} is {first_few(test)}" for train, test in faults.shared_files]
    _print_names("warning: byte-identical videos for training and for test", shared)
    _print_names("warning: byte-identical videos of several classes", [_same(videos) for videos in faults.ambiguous_files])


def _same(videos: Sequence[str]) -> str:
    more = f" and {len(videos) - _MOST_LISTED} more" if len(videos) > _MOST_LISTED else ""
    return " is ".join(videos[:_MOST_LISTED]) + more


def _print_names(what: str, names: Sequence[str], *, tell: Callable[[str], None] = warn) -> None:
    if names:
        more = f", and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
        tell(f"pack: {what}: {len(names)} ({', '.join(map(show_name, names[:_MOST_LISTED]))}{more})")


def _print_result(report: PackReport, data: Path) -> None:
    """Print what was done to stderr, and what the split holds to stdout."""
    split = report.split
    if report.did_nothing:
        inform(f"pack: nothing to do, {_shards(report)} and the manifests of split {split.number} are up to date")
    elif not report.shards_written and not report.shards_removed:
        inform(f"pack: {_shards(report)} up to date; only manifests were written")
    else:
        removed = f", removed {len(report.shards_removed)}" if report.shards_removed else ""
        inform(f"pack: wrote {len(report.shards_written)} of {_shards(report)}{removed}")
    if report.splits_written:
        inform(f"pack: wrote the manifests of split {', '.join(map(str, report.splits_written))}")
    if report.num_moved:
        inform(f"pack: deleted {counted(report.num_moved, 'clip file')}, which the shards now hold")
    _print_names("clip files that are no longer those that were packed, and were kept: pack again", report.kept)
    rows = [
        (name, len({record.label for record in records}), len(records), sum(record.num_frames for record in records), listed)
        for name, records, listed in (("train", split.train, split.num_listed_train), ("test", split.test, split.num_listed_test))
    ]
    say(table((f"split {split.number}", "classes", "videos", "frames", "listed"), rows))
    say(
        f"pack: {counted(report.num_videos, 'video')} in {_shards(report)}, {size(report.num_bytes)}, "
        f"in {show_name(data / 'shards')}; {counted(len(split.classes), 'class')}"
    )


def _shards(report: PackReport) -> str:
    return counted(report.num_shards, "shard")
