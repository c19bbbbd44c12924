"""``flowkit export``: frames and flow in the forms that other tools read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from flowkit.cli.help.format import Command
from flowkit.cli.shared.console import counted, long_table, say, show_name, size, warn
from flowkit.cli.shared.exit_codes import EXIT_SOME_FAILED
from flowkit.cli.shared.options import data_option, refuse_unused
from flowkit.cli.shared.sizes import parse_size


def _parse_shard_size(ctx: click.Context, param: click.Parameter, value: str) -> int | None:
    """Turn a size into bytes; a bare number, which once meant MiB here, is refused."""
    if value.strip().isdecimal():
        raise click.BadParameter(f"{value!r} has no unit: write {value}MiB")
    return parse_size(ctx, param, value)


@click.command(cls=Command)
@data_option
@click.option(
    "--layout",
    required=True,
    type=click.Choice(["rawframes", "gpu_flow", "denseflow", "webdataset"]),
    help="How the images are arranged.",
)
@click.option("--output", required=True, type=click.Path(path_type=Path), metavar="DIR", help="A new or empty folder for the images.")
@click.option(
    "--split",
    type=click.IntRange(min=1),
    default=None,
    metavar="N",
    help="Export only the videos of this split, with its lists. [default: all videos]",
)
@click.option(
    "--flow", type=click.Choice(["jpeg", "png"]), default="jpeg", show_default=True, help="The format of flow images; PNG loses nothing."
)
@click.option(
    "--mapping",
    type=click.Choice(["keep", "paper", "symmetric"]),
    default="keep",
    show_default=True,
    help="How flow becomes bytes: as it is stored, or converted (the other tools write paper).",
)
@click.option(
    "--shard-size",
    callback=_parse_shard_size,
    default="1GiB",
    show_default=True,
    metavar="SIZE",
    help="A WebDataset tar ends with the first video that brings it past this size, such as 500MB or 1GiB.",
)
def export(data: Path, layout: Any, output: Path, split: int | None, flow: Any, mapping: Any, shard_size: int) -> int:
    """Write the data set's frames and flow as images that other software reads.

    The images form trees as mmaction2 (rawframes), gpu_flow and denseflow write them, or WebDataset tars. Frames are the stored
    JPEGs. Running the same line again finishes an export that was stopped. `flowkit import` reads the trees back: bit for bit with
    --flow png, or if flow was stored as JPEG.

    To write a trained network, use `flowkit convert`.
    """
    if layout != "webdataset":
        refuse_unused("only --layout webdataset has shards", "shard_size")
    from flowkit.exchange.export_trees import export as run

    if output.is_file():
        raise click.UsageError(f"--output {show_name(output)} is a file; images need a new or empty folder")
    report = run(data, output, layout=layout, flow=flow, mapping=mapping, split=split, shard_bytes=shard_size, progress=True)
    error = ""
    if report.num_done:
        error = f"; flow error {report.mean_error_px:.3f} px on average, {report.max_error_px:.2f} px at most (one field per video)"
    skipped = f", {report.num_skipped} exported before" if report.num_skipped else ""
    say(f"exported {counted(report.num_done, 'video')} ({size(report.num_bytes)}) to {show_name(output)}{skipped}{error}")
    if report.failed:
        warn("\nfailed:\n" + long_table(("video", "reason"), report.failed))
        return EXIT_SOME_FAILED
    return 0
