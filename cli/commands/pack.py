"""``flowkit pack``: clips into shards, and a split's manifests."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from flowkit.cli.shared.console import say, show_name, size, table, warn
from flowkit.cli.shared.options import data_option, split_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowkit.dataset.packing import PackReport

_MOST_LISTED = 5  # names printed of a long list
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def _parse_size(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Turn a size as people write it (500MB, 1GiB, 1.5 GiB) into bytes."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(|[kmgt]i?)b?", value.strip().lower())
    num_bytes = int(float(match[1]) * _UNITS[match[2]]) if match else 0
    if num_bytes < 1:
        raise click.BadParameter(f"{value!r} is not a size such as 500MB or 1GiB")
    return num_bytes


def _parse_lists(ctx: click.Context, param: click.Parameter, value: str | None) -> Path | Literal["automatic"] | None:
    """Turn the option into a path that exists, or the word ``automatic``."""
    if value is None or Path(value).exists():
        return None if value is None else Path(value)
    if value == "automatic":
        return "automatic"
    raise click.BadParameter(f"{value!r} is neither a folder of split lists, nor a CSV file, nor the word automatic")


@click.command()
@data_option
@split_option
@click.option(
    "--lists",
    callback=_parse_lists,
    default=None,
    metavar="DIR|FILE.csv|automatic",
    help="Official lists, or a CSV with video_id,class_name,subset. [default: searched around the videos, else automatic]",
)
@click.option(
    "--shard-size",
    callback=_parse_size,
    default=None,
    metavar="SIZE",
    help="A shard ends with the first video that brings it past this. [default: as before, else 1GiB]",
)
@click.option("--move", is_flag=True, help="Delete each clip file once its shard is written.")
def pack(data: Path, split: int, lists: Path | Literal["automatic"] | None, shard_size: int | None, move: bool) -> None:
    """Gather all clips into HDF5 shards and write the manifests of split N.

    Shards are written once, whatever the number of splits. After more videos were extracted, the same line rewrites only the
    shards that change, and renews all splits. Without split lists, videos are divided by class and group, which is said.

    \b
    Examples:
      flowkit pack --split 1
      flowkit pack --split 2 --lists ucfTrainTestlist/
      flowkit pack --lists my-split.csv --move
    """
    from flowkit.dataset.packing import pack as run
    from flowkit.dataset.split_choice import SeveralListsError

    try:
        report = run(data, split=split, lists=lists, shard_bytes=shard_size, move=move, progress=True)
    except SeveralListsError as error:
        raise click.UsageError(show_name(error)) from error
    _tell_findings(report)
    _tell_result(report, data)


def _tell_findings(report: PackReport) -> None:
    """Say on stderr where the split comes from and what it lacks."""
    from flowkit.dataset.manifest import MIN_FRAMES

    matched, number = report.matched, report.split.number
    if report.lists is None:
        warn(
            f"pack: split {number} is automatic: about 30 % of each class's videos for test, groups (_gNN_) kept together, seeded; "
            "for lists of your own: --lists DIR|FILE.csv"
        )
    else:
        warn(f"pack: split {number} from the lists in {show_name(report.lists)}")
    _tell_names(f"too short for a flow stack ({MIN_FRAMES} frames), left out", [f"{name} ({n} frames)" for name, n in report.too_short])
    _tell_names("listed for training, but not there", [entry.video_id for entry in matched.missing_train])
    _tell_names("listed for test, but not there", [entry.video_id for entry in matched.missing_test])
    _tell_names("in neither list", matched.unlisted)
    _tell_names("warning: test classes without a training video", matched.untrained_classes)
    for other, why in report.splits_damaged:
        warn(f"pack: split {other} could not be renewed: {show_name(why)}")


def _tell_names(what: str, names: Sequence[str]) -> None:
    if names:
        more = f", and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
        warn(f"pack: {what}: {len(names)} ({', '.join(map(show_name, names[:_MOST_LISTED]))}{more})")


def _tell_result(report: PackReport, data: Path) -> None:
    """Print what the split holds to stdout, after what was done."""
    split = report.split
    if report.did_nothing:
        warn(f"pack: nothing to do, {_shards(report)} and the manifests of split {split.number} are as they should be")
    elif not report.shards_written and not report.shards_removed:
        warn(f"pack: {_shards(report)} as they should be; only manifests were written")
    else:
        removed = f", removed {len(report.shards_removed)}" if report.shards_removed else ""
        warn(f"pack: wrote {len(report.shards_written)} of {_shards(report)}{removed}")
    if report.splits_written:
        warn(f"pack: wrote the manifests of split {', '.join(map(str, report.splits_written))}")
    if report.num_moved:
        warn(f"pack: deleted {report.num_moved} clip files, which the shards now hold")
    rows = [
        (name, len({record.label for record in records}), len(records), sum(record.num_frames for record in records), listed)
        for name, records, listed in (("train", split.train, split.num_listed_train), ("test", split.test, split.num_listed_test))
    ]
    say(table((f"split {split.number}", "classes", "videos", "frames", "listed"), rows))
    say(
        f"pack: {report.num_videos} videos in {_shards(report)}, {size(report.num_bytes)}, "
        f"in {show_name(data / 'shards')}; {len(split.classes)} classes"
    )


def _shards(report: PackReport) -> str:
    return f"{report.num_shards} shard{'s' * (report.num_shards != 1)}"
