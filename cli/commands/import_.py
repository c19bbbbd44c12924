"""``flowkit import``: trees of flow images that other tools wrote."""

from __future__ import annotations

import json
import sys
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from flowkit.cli.shared.console import duration, say, show_name, size, table, warn
from flowkit.cli.shared.options import data_option, json_option, usage_errors
from flowkit.cli.shared.stopping import signals_to, tell_stopped
from flowkit.dataset.settings import ForeignTool

if TYPE_CHECKING:
    from flowkit.exchange.import_trees import ImportReport

_MOST_LISTED = 20


def _parse_bound(ctx: click.Context, param: click.Parameter, value: str | None) -> str | float | None:
    if value is None or value == "default":
        return value
    try:
        return float(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither a number of px/frame nor default") from None


def _parse_rate(ctx: click.Context, param: click.Parameter, value: str | None) -> Fraction:
    try:
        rate = Fraction(value or "0")
    except (ValueError, ZeroDivisionError):
        raise click.BadParameter(f"{value!r} is no number such as 25 or 30000/1001") from None
    if not 0 <= rate <= 10_000:
        raise click.BadParameter(f"{value!r} is not between 0 and 10000")
    return rate.limit_denominator(1_000_000)


@click.command("import")
@click.argument("tree", type=click.Path(exists=True, file_okay=False, path_type=Path))
@data_option
@click.option("--tool", type=click.Choice(get_args(ForeignTool)), default=None, help="Which tool wrote the tree.")
@click.option(
    "--bound",
    callback=_parse_bound,
    default=None,
    metavar="PX|default",
    help="Px/frame that the tool clipped flow at; default: gpu_flow 20, denseflow 32, dense_flow 15.",
)
@click.option(
    "--frames",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=None,
    metavar="DIR",
    help="Where the frames are. [default: searched in the tree and beside it]",
)
@click.option(
    "--lists",
    type=click.Path(exists=True, path_type=Path),
    default=None,
    metavar="DIR|FILE.csv",
    help="Split lists that give the videos of a flat tree their class.",
)
@click.option(
    "--trim", type=click.Choice(["none", "first", "last"]), default="none", show_default=True, help="Where to drop frames or flow too many."
)
@click.option("--frame-rate", callback=_parse_rate, default=None, metavar="FPS", help="Of the videos. [default: not known]")
@click.option(
    "--codec", type=click.Choice(["zstd", "gzip", "none"]), default="zstd", show_default=True, help="Of flow that is PNGs; JPEGs are kept."
)
@click.option("--jobs", type=click.IntRange(min=1), default=None, metavar="N", help="Worker processes. [default: one per core]")
@json_option
def import_(
    tree: Path,
    data: Path,
    tool: ForeignTool | None,
    bound: str | float | None,
    frames: Path | None,
    lists: Path | None,
    trim: Any,
    frame_rate: Fraction,
    codec: Any,
    jobs: int | None,
    as_json: bool,
) -> int:
    """Take TREE, the flow images of gpu_flow, denseflow or dense_flow, into the data root: one clip file a video.

    \b
    gpu_flow             u/<video>/frame000001.jpg, v/..., frames in rgb/ or jpegs_256/<video>/frame000001.jpg
    denseflow,           <video>/flow_x_00001.jpg, flow_y_00001.jpg, img_00001.jpg, numbered from 0 or 1
    dense_flow

    The JPEGs' bytes are kept. N frames need N-1 flow fields; counts, numbers and sizes are checked. A tree that `flowkit export`
    wrote needs no options. A video that is there is skipped, so the same line resumes; a bad one never stops the rest: it is
    listed, and the exit code is 3.
    """
    from flowkit.cli.shared.software import check_opencv
    from flowkit.exchange.import_trees import DEFAULT_BOUND_PX, ImportSettings, import_tree
    from flowkit.workers.stopping import GRACE_SECONDS, StopRequest

    if bound == "default":
        if tool is None:
            raise click.UsageError("--bound default needs --tool")
        bound = DEFAULT_BOUND_PX[tool]
    with usage_errors():
        settings = ImportSettings(tool, bound, trim, frame_rate, codec)  # type: ignore[arg-type]
    check_opencv()
    stop = StopRequest()
    with signals_to(stop, GRACE_SECONDS):
        report = import_tree(tree, data, settings=settings, frames=frames, lists=lists, jobs=jobs, stop=stop, progress=True)
    if as_json:
        say(json.dumps(report.to_dict(), indent=1))
    else:
        _tell(report, data)
    if stop.signal_number is not None:
        tell_stopped(sys.argv[1:])
        return 128 + stop.signal_number
    return 3 if report.failed else 0


def _tell(report: ImportReport, data: Path) -> None:
    """Print the summary to stdout, and what needs attention to stderr."""
    trimmed = [result for result in report.done if result.error]
    for title, results in (("failed", report.failed), ("trimmed", trimmed)):
        if results:
            warn(f"\n{title}:\n" + table(("video", "why"), [(r.video_id, r.error) for r in results[:_MOST_LISTED]]))
            if len(results) > _MOST_LISTED:
                warn(f"... and {len(results) - _MOST_LISTED} more")
    if report.num_without_class:
        warn(f"{report.num_without_class} videos lie in no class folder: import with --lists, or pack with a CSV list that names them")
    num_bytes = sum(result.clip_bytes for result in report.done)
    pending = f", {report.pending} not finished" if report.pending else ""
    say(
        f"imported {len(report.done)} videos ({size(num_bytes)}) in {duration(report.seconds)}, {len(report.skipped)} there already, "
        f"{len(report.failed)} failed{pending}; report: {show_name(data / 'import-report.json')}"
    )
