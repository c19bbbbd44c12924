"""``flowkit stats``: numbers about a data set."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from flowkit.cli.help.format import Command
from flowkit.cli.shared.console import counted, long_table, say, show_name, size, table, warn
from flowkit.cli.shared.exit_codes import EXIT_SOME_FAILED
from flowkit.cli.shared.options import data_option, json_option

if TYPE_CHECKING:
    from pathlib import Path

    from flowkit.describe.statistics import ClassStats, DataStats

_HEADER = ("class", "subset", "videos", "frames", "hours", "bytes", "mean px", "median", "p90", "p99", "max", "clipped %")


@click.command(cls=Command)
@data_option
@click.option(
    "--split",
    type=click.IntRange(min=1),
    default=None,
    metavar="N",
    help="Which split divides the data. [default: the first one, if there is any]",
)
@click.option(
    "--sample-videos",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    metavar="N",
    help="How many videos of each class and subset to measure.",
)
@click.option(
    "--sample-fields",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    metavar="N",
    help="How many flow fields of each of these videos to measure.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="The seed of the sample.")
@click.option("--all", "everything", is_flag=True, help="Measure every flow field of every video.")
@json_option
def stats(data: Path, split: int | None, sample_videos: int, sample_fields: int, seed: int, everything: bool, as_json: bool) -> int:
    """Count videos, frames, hours and bytes of each class and subset, measure the flow, and find leaks.

    Speeds (the length of flow vectors, px/frame) and the share of pixels clipped at the quantiser's bound are measured on a random
    sample, which the seed determines; counts cover all videos. A leak is a file, or a group of a class (_g07_ in the name), that is
    in both train and test.
    """
    from flowkit.describe.statistics import stats as run

    if everything:
        sample_videos = sample_fields = 0
    measured = run(data, split=split, videos_per_class=sample_videos, fields_per_video=sample_fields, seed=seed, progress=True)
    say(json.dumps(measured.to_dict(), indent=1) if as_json else _text(measured, everything=everything))
    if measured.unreadable:
        warn("\nnot readable:\n" + table(("file", "reason"), measured.unreadable))
        return EXIT_SOME_FAILED
    return 0


def _text(measured: DataStats, *, everything: bool) -> str:
    divided = f"split {measured.split}" if measured.split else "no split"
    s = measured.sample
    sampled = (
        "of all flow fields"
        if everything
        else f"of {counted(s.fields_per_video, 'flow field')} in up to {counted(s.videos_per_class, 'video')} per row, seed {s.seed}"
    )
    lines = [f"{show_name(measured.path)}, {divided}; speeds in px/frame {sampled}", ""]
    lines.append(table(_HEADER, [_row(row) for row in (*measured.subsets, *measured.classes)]))
    if measured.empty_classes:
        lines += ["", f"classes without a video: {', '.join(map(show_name, measured.empty_classes))}"]
    lines.append("")
    if not measured.split:
        lines.append("leaks: unknown without a split")
    elif not measured.leaks:
        lines.append("leaks: none; train and test share no group and no file")
    else:
        rows = [(leak.what, leak.name, len(leak.train), len(leak.test), leak.train[0], leak.test[0]) for leak in measured.leaks]
        lines.append(f"leaks: train and test share {counted(len(rows), 'group')} or files")
        header = ("what", "name", "in train", "in test", "such as", "and")
        lines.append(long_table(header, rows, rest=" (--json lists all)"))
    return "\n".join(lines)


def _row(row: ClassStats) -> tuple[object, ...]:
    flow = row.flow
    speeds: tuple[str, ...] = ("-",) * 6
    if flow is not None:
        pixels = (flow.mean_px, flow.median_px, flow.p90_px, flow.p99_px, flow.max_px)
        speeds = (*(f"{value:.2f}" for value in pixels), f"{100 * flow.clipped_share:.3f}")
    hours = f"{row.seconds / 3600:.3f}"
    return (row.class_name or "(all)", row.subset or "-", row.num_videos, row.num_frames, hours, size(row.num_bytes), *speeds)
