"""``flowkit extract``: turns videos into clip files of frames and quantised flow."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from flowkit.cli.help.format import Command
from flowkit.cli.shared.console import counted, duration, inform, long_table, say, say_json, show_name, size, warn
from flowkit.cli.shared.exit_codes import EXIT_SOME_FAILED
from flowkit.cli.shared.options import data_option, grace_option, json_option, refuse_unused, usage_errors
from flowkit.cli.shared.scenes import scenes_line, still_line
from flowkit.cli.shared.sizes import parse_size
from flowkit.cli.shared.stopping import report_stopped, signals_to
from flowkit.dataset.settings import CameraMotion, Codec, ExtractSettings
from flowkit.errors import ParameterError
from flowkit.flow.methods import TVL1, FlowMethod, method_defaults
from flowkit.flow.params import PRESETS, TVL1Params
from flowkit.quantise import Mapping, Quantiser
from flowkit.video.reading import Reading
from flowkit.workers.addresses import parse_address

if TYPE_CHECKING:
    from flowkit.extraction.forecast import Forecast
    from flowkit.extraction.plan import Plan
    from flowkit.extraction.results import ExtractReport

_DEFAULT = ExtractSettings()

# The variables in which job schedulers give a job's number and count, the first number if it is not 0, the step if it is not 1.
_RANKS = (
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP"),
    ("SLURM_PROCID", "SLURM_NTASKS", "", ""),
    ("RANK", "WORLD_SIZE", "", ""),
)


# A TV-L1 parameter -> its help. Each is an option, --tvl1-<name>.
_TVL1_HELP = {
    "tau": "time step of the dual update",
    "lambda_": "weight of the data term",
    "theta": "tightness of the coupling between flow and data term",
    "num_scales": "largest number of pyramid levels",
    "scale_step": "ratio between the sizes of neighbouring levels",
    "num_warps": "warps per level",
    "epsilon": "stopping threshold",
    "inner_iterations": "iterations per outer loop",
    "outer_iterations": "outer loops per warp",
    "median_size": "side of the median filter; 1 means no filter",
}


def _tvl1_options(command: Any) -> Any:
    """Add one option for each TV-L1 parameter."""
    for name, text in reversed(_TVL1_HELP.items()):
        kind = type(getattr(_DEFAULT.tvl1, name))
        flag = "--tvl1-" + name.rstrip("_").replace("_", "-")
        command = click.option(flag, f"tvl1_{name}", type=kind, default=None, help=f"TV-L1: {text}.  [default: {_by_preset(name)}]")(
            command
        )
    return command


def _by_preset(name: str) -> str:
    """Return the value of a TV-L1 parameter in the first preset and, where it is another, in the others."""
    values = {preset: f"{getattr(TVL1Params.preset(preset), name):g}" for preset in PRESETS}
    first = values[PRESETS[0]]
    return "; ".join([first, *(f"{value} in preset {preset}" for preset, value in values.items() if value != first)])


def _parse_shard(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, int]:
    """Turn ``I/N`` (1-based), or ``auto`` from the job scheduler's environment, into (i - 1, n)."""
    if value == "auto":
        for rank, count, first, step in _RANKS:
            if rank in os.environ and count in os.environ:
                return _shard_of(*(os.environ.get(name, default) for name, default in ((rank, ""), (count, ""), (first, "0"), (step, "1"))))
        names = ", ".join(f"{rank}/{count}" for rank, count, *_ in _RANKS)
        raise click.BadParameter(f"auto needs one of these pairs in the environment: {names}")
    part, slash, parts = value.partition("/")
    if not slash or not part.isdecimal() or not parts.isdecimal() or not 1 <= int(part) <= int(parts):
        raise click.BadParameter(f"{value!r} is not of the form I/N with I from 1 to N, such as 1/4")
    return int(part) - 1, int(parts)


def _parse_cluster(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Return the address of a scheduler with all its parts."""
    if value is None:
        return None
    try:
        return str(parse_address(value))
    except ParameterError as error:
        raise click.BadParameter(str(error)) from error


def _shard_of(rank: str, count: str, first: str, step: str) -> tuple[int, int]:
    """Return (i, n) for ranks first, first + step, ...; refuse other ranks, because videos would be extracted twice or never."""
    numbers = [int(text) if text.isdecimal() else -1 for text in (rank, count, first, step)]
    if min(numbers) >= 0 and numbers[3] >= 1:
        index, rest = divmod(numbers[0] - numbers[2], numbers[3])
        if not rest and 0 <= index < numbers[1]:
            return index, numbers[1]
    raise click.BadParameter(
        f"auto cannot tell which part this is: the environment says rank {rank!r} of {count!r}, from {first!r} in steps of {step!r}; "
        "give I/N"
    )


@click.command(cls=Command)
@click.argument("videos", type=click.Path(exists=True, path_type=Path))
@data_option
@click.option(
    "--method",
    default=TVL1,
    show_default=True,
    metavar="tvl1|farneback|dis|raft|NAME",
    help="The flow method: TV-L1, OpenCV's Farneback or DIS, torchvision's RAFT, or one of an installed package.",
)
@click.option(
    "--method-param",
    "method_params",
    multiple=True,
    metavar="NAME=VALUE",
    help="A parameter of another method than tvl1, such as preset=fast of dis; may be given several times.",
)
@click.option(
    "--camera-motion",
    type=click.Choice(get_args(CameraMotion)),
    default=_DEFAULT.camera_motion,
    show_default=True,
    help="Remove the camera's motion before flow is computed; it is found by SIFT keypoints and flow, or by flow alone.",
)
@click.option("--preset", type=click.Choice(PRESETS), default=_DEFAULT.preset, show_default=True, help="The set of TV-L1 parameters.")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:i,j]", help="Where to compute flow.")
@click.option(
    "--mode",
    type=click.Choice(["strict", "fast"]),
    default=None,
    help="The CPU solver: strict equals OpenCV's bit for bit, fast is about 1.5 times as fast. [default: strict]",
)
@click.option(
    "--fps",
    metavar="F",
    default=None,
    help="Choose frames for this rate before anything else, by their time stamps: 12.5, or 30000/1001. Flow is between those frames.  "
    "[default: all frames]",
)
@click.option(
    "--every",
    type=click.IntRange(min=1),
    default=1,
    metavar="N",
    help="Choose every N-th frame before anything else.  [default: all frames]",
)
@click.option(
    "--stream",
    type=click.IntRange(min=1),
    default=None,
    metavar="N",
    help="Read the N-th video stream of each file.  [default: the one that the file marks as its default, else the largest]",
)
@click.option(
    "--grey-range",
    metavar="LOW:HIGH",
    default=None,
    help="Stretch these grey levels to 8 bits, of grey pictures with more than 8 bits such as those of thermal cameras: 7500:8100.  "
    "[default: the upper 8 bits]",
)
@click.option(
    "--frame-rate",
    metavar="F",
    default=None,
    help="The frame rate of folders of pictures, which do not tell it: 12, or 30000/1001.  [default: unknown]",
)
@click.option(
    "--segments",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE.csv",
    default=None,
    help="Extract parts of the videos instead: a file with the columns video_id, then start_seconds,end_seconds or start_frame,end_frame, "
    "and perhaps class_name.",
)
@click.option(
    "--no-flow",
    is_flag=True,
    help="Store the frames only. The same line without --no-flow adds the flow later, from the same files, and gives what one pass gives.",
)
@click.option(
    "--jobs", type=click.IntRange(min=1), default=None, metavar="N", help="How many worker processes to use. [default: one per core]"
)
@click.option(
    "--short-side", type=int, default=_DEFAULT.short_side, show_default=True, metavar="PX", help="The short side of the stored frames."
)
@click.option(
    "--bound",
    type=float,
    default=_DEFAULT.quantiser.bound,
    show_default=True,
    metavar="PX",
    help="Flow is clipped at this many px/frame.",
)
@click.option(
    "--mapping", type=click.Choice(get_args(Mapping)), default=_DEFAULT.quantiser.mapping, show_default=True, help="How flow becomes bytes."
)
@click.option("--codec", type=click.Choice(get_args(Codec)), default=_DEFAULT.codec, show_default=True, help="How flow is compressed.")
@click.option(
    "--shard",
    callback=_parse_shard,
    metavar="I/N|auto",
    default="1/1",
    show_default=True,
    help="Extract only part I of N of the videos, so that several machines share the work.",
)
@click.option(
    "--cluster",
    callback=_parse_cluster,
    metavar="ADDR",
    default=None,
    help="Extract on the workers of the Dask scheduler at this address, such as tcp://10.0.0.1:8786 or tcp://[fd00::1]:8786; all "
    "machines must share VIDEOS and the data root.",
)
@click.option(
    "--time-limit",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="End a video that makes no progress for so long: no frame decoded, no flow field solved. 0: never.  "
    "[default: 600, and 1 for each MB of the video file]",
)
@click.option(
    "--memory-limit",
    callback=parse_size,
    metavar="SIZE",
    help="End a video whose worker process uses more memory than this, such as 4GB.  [default: no limit]",
)
@grace_option("videos in progress may take")
@click.option("--dry-run", is_flag=True, help="Print what would be done, with a forecast of disk space and time, and write nothing.")
@click.option("--fail-on-damaged", is_flag=True, help="Count damaged videos as failures: exit with code 3.")
@json_option
@_tvl1_options
def extract(
    videos: Path,
    data: Path,
    method: str,
    method_params: tuple[str, ...],
    camera_motion: CameraMotion,
    preset: str,
    device: str,
    mode: str | None,
    fps: str | None,
    every: int,
    stream: int | None,
    grey_range: str | None,
    frame_rate: str | None,
    segments: Path | None,
    no_flow: bool,
    jobs: int | None,
    short_side: int,
    bound: float,
    mapping: Mapping,
    codec: Codec,
    shard: tuple[int, int],
    cluster: str | None,
    time_limit: float | None,
    memory_limit: int | None,
    grace: float,
    dry_run: bool,
    fail_on_damaged: bool,
    as_json: bool,
    **tvl1: float | None,
) -> int:
    """Decode VIDEOS, compute flow, and write one clip file per video.

    VIDEOS is a folder of <class>/<video>, or of videos; a video file; or a text file with the path of a video in each line. A folder
    of numbered JPEG or PNG files is a video.

    Videos that are done already are skipped, so the same line resumes. A bad video never stops the rest: it is listed, and the
    exit code is 3. This holds too for a video that crashes or blocks its worker process, or needs too much memory.
    """
    from flowkit.cli.shared.software import check_opencv
    from flowkit.dataset.root import Dataset
    from flowkit.extraction.forecast import forecast
    from flowkit.extraction.plan import make_plan
    from flowkit.extraction.run import extract as run
    from flowkit.workers.stopping import StopRequest

    if cluster and (jobs or dry_run):
        raise click.UsageError("--cluster uses all its workers: leave out --jobs; for a forecast, use --dry-run --jobs N without --cluster")
    if dry_run:
        refuse_unused("--dry-run extracts nothing", "fail_on_damaged")
    if no_flow:
        of_flow = ("method", "method_params", "camera_motion", "preset", "device", "mode", "bound", "mapping", "codec", *tvl1)
        refuse_unused("--no-flow computes no flow", *of_flow)
    elif method == TVL1:
        if method_params:
            raise click.UsageError("--method-param is for another --method than tvl1, whose parameters are options: --tvl1-...")
    else:
        refuse_unused(f"it is of TV-L1, and the method is {method}", "preset", "mode", *tvl1)
    chosen = {name.removeprefix("tvl1_"): value for name, value in tvl1.items() if value is not None}
    existing = Dataset.open_if_present(data)
    if existing is not None and existing.settings.is_imported:
        raise click.UsageError(
            f"the data root holds flow imported from {existing.settings.solver}; choose another data root with --data DIR"
        )
    begun = existing.settings if existing is not None and existing.settings.has_flow else None
    with usage_errors():
        settings = ExtractSettings(short_side=short_side, reading=Reading(fps, every, stream or 0, grey_range, frame_rate))
        if no_flow:
            settings = settings.frames_only()
        else:
            made = (
                _flow_settings(method, method_params, device, begun)
                if method != TVL1
                else {
                    "preset": preset,
                    "tvl1": replace(TVL1Params.preset(preset), **chosen),  # type: ignore[arg-type]
                    "solver": _solver("cpu" if cluster and device == "auto" else device, mode, begun),
                }
            )
            settings = replace(settings, **made, quantiser=Quantiser(bound, mapping), codec=codec, camera_motion=camera_motion)
    if dry_run:
        todo = make_plan(videos, data, settings=settings, part=shard, segments=segments, jobs=jobs)
        _print_plan(todo)
        outlook = forecast(todo, jobs=jobs, time_limit=time_limit, memory_limit=memory_limit)
        if as_json:
            say_json("extract-forecast", _forecast_dict(todo, outlook))
            return 0
        would_fail = [*((result.video_id, result.error) for result in todo.failed), *outlook.faults]
        if would_fail:
            warn("\nwould fail:\n" + long_table(("video", "reason"), would_fail))
        needs = f"{size(outlook.num_bytes)} on disk, {duration(outlook.seconds)} with {counted(outlook.jobs, 'process')}"
        if not outlook.is_measured:
            needs = "how much disk space and time is unknown, since no video could be measured"
        say(
            f"would extract {counted(len(todo.jobs), 'video')}, about {counted(outlook.num_pairs, 'frame' if no_flow else 'flow field')}: "
            f"{needs}; nothing was written"
        )
        return 0

    check_opencv()
    stop = StopRequest()
    with signals_to(stop, grace):
        report = run(
            videos,
            data,
            settings=settings,
            jobs=jobs,
            devices=_devices(device),
            cluster=cluster,
            part=shard,
            segments=segments,
            time_limit=time_limit,
            memory_limit=memory_limit,
            progress=True,
            stop=stop,
            grace_seconds=grace,
            on_plan=_print_plan,
        )
    if as_json:
        say(json.dumps(report.to_dict(), indent=1))
    else:
        _print_report(report, data, bound)
    if stop.signal_number is not None:
        return report_stopped(stop)
    return EXIT_SOME_FAILED if report.failed or (fail_on_damaged and report.damaged) else 0


_MOST_NOTES = 10  # that are printed of undamaged videos
_DEVICE = re.compile(r"auto|cpu|cuda(?::(\d+(?:,\d+)*))?")


def _devices(device: str) -> tuple[int, ...]:
    """Return the GPUs that ``cuda:0,1`` names; the first if none is named."""
    match = _DEVICE.fullmatch(device)
    if match is None:
        raise click.BadParameter(f"{device!r} is not one of auto, cpu, cuda, cuda:0, cuda:0,1", param_hint="--device")
    return tuple(sorted({int(index) for index in match[1].split(",")})) if match[1] else (0,)


def _flow_settings(method: str, params: Sequence[str], device: str, existing: ExtractSettings | None) -> dict[str, Any]:
    """Return the settings of another method than TV-L1, whose parameters are given as ``NAME=VALUE``.

    A method that has a parameter `device` takes that of ``--device``, and for ``auto`` that of the data root.
    """
    values: dict[str, Any] = {}
    if "device" in method_defaults(method):
        begun = {} if existing is None or existing.method is None or existing.method.name != method else existing.method.params
        values["device"] = begun.get("device", device) if device == "auto" else device
    elif device != "cpu":
        refuse_unused(f"the flow method {method} runs on the CPU alone", "device")
    for text in params:
        name, equals, value = text.partition("=")
        if not equals:
            raise click.BadParameter(f"{text!r} is not of the form NAME=VALUE, such as preset=fast", param_hint="--method-param")
        try:
            values[name] = json.loads(value)
        except ValueError:
            values[name] = value
    return {"method": FlowMethod.named(method, **values)}


def _solver(device: str, mode: str | None, existing: ExtractSettings | None) -> str:
    """Return the solver to use: the requested one, else the data root's, else the best that is available."""
    _devices(device)
    if device.partition(":")[0] == "cuda":
        if mode is not None:
            raise click.UsageError("--mode is an option of the CPU solver: leave it out with --device cuda")
        return "cuda"
    if mode is not None:
        return "fast" if mode == "fast" else "strict"
    if existing is not None and existing.method is None and not (device == "cpu" and existing.solver == "cuda"):
        return existing.solver
    from flowkit.flow.cuda import device as gpu

    return "cuda" if device == "auto" and gpu.has_gpu() else "strict"


def _print_plan(todo: Plan) -> None:
    """Print what will be done to stderr."""
    from flowkit.video.tree import ignored_text

    settings = todo.settings
    chosen = settings.reading.in_words()
    if todo.jobs:
        stored = f", bound {settings.quantiser.bound:g} px, {settings.codec}" if settings.has_flow else ""
        inform(
            f"extract: {counted(len(todo.jobs), 'video')} to do, {len(todo.skipped)} done already; {settings.flow_in_words()}, "
            f"{chosen + ', ' if chosen else ''}short side {settings.short_side} px{stored}"
        )
        if completed := sum(bool(job.frames_sha256) for job in todo.jobs):
            inform(f"extract: flow is added to {counted(completed, 'video')} whose frames are stored; they are decoded again")
    else:
        inform(f"extract: nothing to do: {counted(len(todo.skipped), 'video')} done already")
    for note in (ignored_text(todo.ignored), *todo.notes):
        if note:
            inform(f"extract: {show_name(note)}")
    for warning in todo.warnings:
        warn(f"extract: warning: {show_name(warning)}")


def _forecast_dict(todo: Plan, outlook: Forecast) -> dict[str, Any]:
    """Return what a run would do and need, as built-in types."""
    return {
        "counts": {
            "to_do": len(todo.jobs),
            "skipped": len(todo.skipped),
            "failed": len(todo.failed),
            "ignored": sum(todo.ignored.values()),
        },
        "ignored_by_suffix": todo.ignored,
        "pairs": outlook.num_pairs,
        "bytes": outlook.num_bytes,
        "seconds": round(outlook.seconds, 3),
        "jobs": outlook.jobs,
        "measured": outlook.is_measured,
        "would_fail": dict(outlook.faults),
        "to_do": [job.video_id for job in todo.jobs],
    }


def _print_flow_range(report: ExtractReport, bound: float) -> None:
    """Print to stderr how the flow of this run uses the range of the quantiser, and what cuts its videos have."""
    from flowkit.extraction.flow_range import flow_range
    from flowkit.words import percentage

    if not report.done:
        return
    found = flow_range(report.done)
    inform("")
    if found is not None:
        shares = f"{percentage(found.clipped_share)} clipped at the bound of {bound:g} px/frame, {percentage(found.zero_share)} rounded"
        inform(f"flow: {shares} to zero")
        if advice := found.advice(bound):
            warn(f"extract: warning: {advice}")
        if found.still:
            inform(still_line(found.still))
    inform(scenes_line(report.done, listed="extract-report.json"))


def _print_report(report: ExtractReport, data: Path, bound: float) -> None:
    """Print the summary to stdout, and the videos that failed, with the reasons, to stderr."""
    for title, results in (("failed", report.failed), ("damaged (clip written)", report.damaged)):
        if results:
            rows = [(result.video_id, result.status, "; ".join(filter(None, (result.error, result.notes)))) for result in results]
            warn(f"\n{title}:\n" + long_table(("video", "status", "reason"), rows))
    if report.noted:
        notes = [(result.video_id, result.notes) for result in report.noted]
        inform("\nnoted (undamaged):\n" + long_table(("video", "note"), notes, most=_MOST_NOTES, rest=" in extract-report.json"))
    _print_flow_range(report, bound)
    unit, number = "flow field", report.num_pairs
    if report.done and not number:
        unit, number = "frame", sum(result.num_frames for result in report.done)
    rate = f", {number / report.seconds:.1f} {unit}s/s" if number else ""
    pending = f", {report.pending} not finished" if report.pending else ""
    say(
        f"extract: {len(report.done)} done, {len(report.skipped)} skipped, {len(report.failed)} failed, "
        f"{len(report.damaged)} damaged{pending}; "
        f"{counted(number, unit)} in {duration(report.seconds)}{rate}; report: {show_name(data / 'extract-report.json')}"
    )
