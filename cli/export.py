"""``flowkit export``: frames and flow as other tools read them."""

from __future__ import annotations

from pathlib import Path

import click

from flowkit.cli.console import Progress, say, show_name, size, table, warn
from flowkit.cli.options import data_option

_MOST_LISTED = 20


@click.command()
@data_option
@click.option("--output", required=True, type=click.Path(file_okay=False, path_type=Path), metavar="DIR", help="A new or empty folder.")
@click.option(
    "--layout", required=True, type=click.Choice(["rawframes", "gpu_flow", "denseflow", "webdataset"]), help="How images are laid out."
)
@click.option(
    "--split", type=click.IntRange(min=1), default=None, metavar="N", help="Only a split's videos, with its lists. [default: all videos]"
)
@click.option("--flow", type=click.Choice(["jpeg", "png"]), default="jpeg", show_default=True, help="Flow images; PNG loses nothing.")
@click.option(
    "--mapping",
    type=click.Choice(["keep", "paper", "symmetric"]),
    default="keep",
    show_default=True,
    help="How bytes mean flow: as stored, or converted (the other tools write paper).",
)
@click.option(
    "--shard-size", type=click.IntRange(min=1), default=1024, show_default=True, metavar="MB", help="Size at which a WebDataset tar ends."
)
def export(data: Path, output: Path, layout: str, split: int | None, flow: str, mapping: str, shard_size: int) -> int:
    """Write the data set's frames and flow as images: trees as mmaction2 (rawframes), gpu_flow and denseflow have them, or tars.

    Frames are the stored JPEGs. The same line run again finishes an export that was stopped. `flowkit import` takes the trees
    in again: bit for bit with --flow png, or if flow was stored as JPEG.
    """
    from flowkit.export_trees import export as run

    with Progress("export", total=0, unit="videos") as bar:

        def tell(done: int, total: int) -> None:
            bar.total = total
            bar.update(done)

        report = run(data, output, layout=layout, flow=flow, mapping=mapping, split=split, shard_bytes=shard_size << 20, on_progress=tell)  # type: ignore[arg-type]
    error = ""
    if report.num_done:
        error = f"; flow error {report.mean_error_px:.3f} px on average, {report.max_error_px:.2f} px at most (one field a video)"
    there = f", {report.num_skipped} there already" if report.num_skipped else ""
    say(f"exported {report.num_done} videos ({size(report.num_bytes)}) to {show_name(output)}{there}{error}")
    if report.failed:
        warn("\nfailed:\n" + table(("video", "why"), report.failed[:_MOST_LISTED]))
        if len(report.failed) > _MOST_LISTED:
            warn(f"... and {len(report.failed) - _MOST_LISTED} more")
        return 3
    return 0
