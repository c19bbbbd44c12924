"""``flowkit import``: trees of flow images written by other tools."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from flowkit.cli.help.format import Command
from flowkit.cli.shared.console import counted, duration, long_table, say, show_name, size, warn
from flowkit.cli.shared.exit_codes import EXIT_SOME_FAILED
from flowkit.cli.shared.options import data_option, json_option, usage_errors
from flowkit.cli.shared.stopping import report_stopped, signals_to
from flowkit.dataset.settings import ForeignTool
from flowkit.exchange.bounds import KNOWN_BOUNDS, bound_of

if TYPE_CHECKING:
    from flowkit.exchange.import_trees import ImportReport


def _parse_bound(ctx: click.Context, param: click.Parameter, value: str | None) -> str | float | None:
    if value is None or value == "default" or value in KNOWN_BOUNDS:
        return value
    try:
        return float(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither a number (px/frame) nor one of {', '.join(KNOWN_BOUNDS)}") from None


def _parse_rate(ctx: click.Context, param: click.Parameter, value: str | None) -> Fraction:
    try:
        rate = Fraction(value or "0")
    except (ValueError, ZeroDivisionError):
        raise click.BadParameter(f"{value!r} is not a frame rate such as 25 or 30000/1001") from None
    if not 0 <= rate <= 10_000:
        raise click.BadParameter(f"{value!r} is not between 0 and 10000")
    return rate.limit_denominator(1_000_000)


@click.command("import", cls=Command)
@click.argument("tree", type=click.Path(exists=True, file_okay=False, path_type=Path))
@data_option
@click.option("--tool", type=click.Choice(get_args(ForeignTool)), default=None, help="Which tool wrote the tree.")
@click.option(
    "--bound",
    callback=_parse_bound,
    default=None,
    metavar="PX|NAME",
    help="The flow at which the tool clipped: px/frame, or what ran the tool (mmaction2 20, tsn 20, gpu_flow 20, denseflow by hand 32, "
    "dense_flow by hand 15).",
)
@click.option(
    "--frames",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=None,
    metavar="DIR",
    help="Where the frames are. [default: flowkit searches the tree and the folders beside it]",
)
@click.option(
    "--lists",
    type=click.Path(exists=True, path_type=Path),
    default=None,
    metavar="DIR|FILE.csv",
    help="Split lists, from which the videos of a flat tree get their classes.",
)
@click.option(
    "--trim",
    type=click.Choice(["none", "first", "last"]),
    default="none",
    show_default=True,
    help="At which end to drop surplus frames or flow fields.",
)
@click.option("--resize", is_flag=True, help="Resize frames that have another size than the flow.")
@click.option("--frame-rate", callback=_parse_rate, default=None, metavar="FPS", help="The frame rate of the videos. [default: unknown]")
@click.option(
    "--codec",
    type=click.Choice(["zstd", "gzip", "none"]),
    default="zstd",
    show_default=True,
    help="How flow from PNG images is compressed; JPEG images are stored as they are.",
)
@click.option(
    "--jobs", type=click.IntRange(min=1), default=None, metavar="N", help="How many worker processes to use. [default: one per core]"
)
@json_option
def import_(
    tree: Path,
    data: Path,
    tool: ForeignTool | None,
    bound: str | float | None,
    frames: Path | None,
    lists: Path | None,
    trim: Any,
    resize: bool,
    frame_rate: Fraction,
    codec: Any,
    jobs: int | None,
    as_json: bool,
) -> int:
    """Import TREE, the flow images of gpu_flow, denseflow or dense_flow, into the data root as one clip file per video.

    \b
    gpu_flow      u/<video>/frame000001.jpg, v/..., frames in rgb/ or jpegs_256/<video>/frame000001.jpg
                  <video>/u/frame_0000000001.jpg, <video>/v/..., as EPIC-Kitchens has them
    denseflow,    <video>/flow_x_00001.jpg, flow_y_00001.jpg, img_00001.jpg, numbered from 0 or 1
    dense_flow    <video>/x_00001.jpg, y_00001.jpg, img_00001.jpg, as older mmaction2 has them
    all           tvl1_flow/x/<video>/..., y/..., or <video>/x/00001.jpg, y/..., i/..., as I3D has them

    The bytes of JPEG images are kept. N frames need N-1 flow fields; counts, numbers and sizes are checked. A tree that
    `flowkit export` wrote needs no options. Videos that are imported already are skipped, so the same line resumes. A bad video
    never stops the rest: it is listed, and the exit code is 3.
    """
    from flowkit.cli.shared.software import check_opencv
    from flowkit.exchange.import_trees import ImportSettings, import_tree
    from flowkit.workers.stopping import GRACE_SECONDS, StopRequest

    if isinstance(bound, str) and tool is None:
        raise click.UsageError(f"--bound {bound} needs --tool")
    with usage_errors():
        bound_px = bound_of(bound, tool) if isinstance(bound, str) and tool is not None else bound
        settings = ImportSettings(tool, bound_px, trim, frame_rate, codec, resize)  # type: ignore[arg-type]
    check_opencv()
    stop = StopRequest()
    with signals_to(stop, GRACE_SECONDS):
        report = import_tree(tree, data, settings=settings, frames=frames, lists=lists, jobs=jobs, stop=stop, progress=True)
    if as_json:
        say(json.dumps(report.to_dict(), indent=1))
    else:
        _print_report(report, data)
    if stop.signal_number is not None:
        return report_stopped(stop)
    return EXIT_SOME_FAILED if report.failed else 0


def _print_report(report: ImportReport, data: Path) -> None:
    """Print the summary to stdout, and what needs attention to stderr."""
    changed = [result for result in report.done if result.error]
    for title, column, results in (("failed", "reason", report.failed), ("trimmed or resized", "what changed", changed)):
        if results:
            warn(f"\n{title}:\n" + long_table(("video", column), [(r.video_id, r.error) for r in results]))
    if report.num_without_class:
        warn(
            f"{counted(report.num_without_class, 'video')} without a class folder: import with --lists, "
            "or pack with a CSV list that names them"
        )
    num_bytes = sum(result.clip_bytes for result in report.done)
    pending = f", {report.pending} not finished" if report.pending else ""
    say(
        f"imported {counted(len(report.done), 'video')} ({size(num_bytes)}) in {duration(report.seconds)}, "
        f"{len(report.skipped)} imported before, {len(report.failed)} failed{pending}; report: {show_name(data / 'import-report.json')}"
    )
