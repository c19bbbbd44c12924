"""``flowkit stats``: numbers about a data set."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from flowkit.cli.help.format import Command
from flowkit.cli.shared.console import counted, duration, long_table, say, show_name, size, table, warn
from flowkit.cli.shared.exit_codes import EXIT_SOME_FAILED
from flowkit.cli.shared.options import data_option, json_option
from flowkit.cli.shared.scenes import scenes_line, still_line
from flowkit.words import percentage

if TYPE_CHECKING:
    from pathlib import Path

    from flowkit.describe.statistics import ClassStats, DataStats

_HEADER = ("class", "subset", "videos", "frames", "length", "bytes", "mean", "median", "p90", "p99", "max", "mean px/s", "clipped")


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

    Speeds (the length of flow vectors, in px/frame, and their mean in px/s where the frame rate is known) and the share of pixels
    clipped at the quantiser's bound are measured on a random sample, which the seed determines; counts cover all videos, and so do cuts,
    repeated frames, still videos and the bound that would fit. A leak is a file, or a group of a class (_g07_ in the name), that is in
    both train and test.
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
    lines = [f"{show_name(measured.path)}, {divided}; speeds {sampled}, in px/frame where the column does not say px/s"]
    lines += [f"flow: {show_name(measured.method)}", ""]
    measured_rows = (*measured.subsets, *measured.classes)
    lines.append(table(_HEADER, [_row(row) for row in measured_rows]))
    if any(row.flow is not None and row.flow.mean_px_per_second is None for row in measured_rows):
        lines += ["", "mean px/s is - where no measured video has a known frame rate"]
    if measured.empty_classes:
        lines += ["", f"classes without a video: {', '.join(map(show_name, measured.empty_classes))}"]
    lines.append("")
    found = measured.flow_range
    if found is not None:
        shares = (
            f"{percentage(found.clipped_share)} clipped at the bound of {measured.bound:g} px/frame, {percentage(found.zero_share)} rounded"
        )
        lines.append(f"flow of all videos: {shares} to zero; a bound of {found.fitting_bound:g} would hold 99.9 % of it")
        if found.still:
            lines.append(still_line(found.still))
    if any(row.num_videos for row in measured.subsets):
        lines += [scenes_line(measured.scenes, listed="--json"), ""]
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
    speeds: tuple[str, ...] = ("-",) * 7
    if flow is not None:
        pixels = (flow.mean_px, flow.median_px, flow.p90_px, flow.p99_px, flow.max_px)
        per_second = "-" if flow.mean_px_per_second is None else f"{flow.mean_px_per_second:.1f}"
        speeds = (*(f"{value:.2f}" for value in pixels), per_second, percentage(flow.clipped_share).replace("less than ", "< "))
    name = "(all)" if row.class_name is None else show_name(row.class_name) or "(no class)"
    length = duration(row.seconds) if row.seconds else "-"
    return (name, row.subset or "-", row.num_videos, row.num_frames, length, size(row.num_bytes), *speeds)
