"""``flowkit features``: what a trained network computes of videos, for other programs to work on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from flowkit.cli.help.format import Command
from flowkit.cli.shared.compute_options import device_option, precision_option, video_workers_option
from flowkit.cli.shared.console import counted, inform, say, say_json, show_name, warn, warn_of_failures
from flowkit.cli.shared.exit_codes import EXIT_SOME_FAILED
from flowkit.cli.shared.options import data_option, grace_option, json_option, refuse_unused, runs_option, split_option
from flowkit.cli.shared.software import check_opencv
from flowkit.cli.shared.stopping import report_stopped, signals_to, stop_signals
from flowkit.model.encoding.trajectory_settings import NUM_COMPONENTS, TRAJECTORIES, CameraMotion, Pixels
from flowkit.model.systems.registry import PHASES
from flowkit.model.systems.tdd import PHASE as POOLED_PHASE
from flowkit.workers.stopping import StopRequest

POOLED = POOLED_PHASE.name

if TYPE_CHECKING:
    from flowkit.model.scoring.video_features import FeatureReport


# Options that say what is computed by the network of one phase.
_OF_ONE_NETWORK = ("checkpoint", "layer", "frames", "stride", "average", "mirror", "window", "solver", "amp", "workers")


@click.command(cls=Command)
@click.argument("videos", nargs=-1, metavar="[VIDEO...]", type=click.Path(exists=True, path_type=Path))
@data_option
@click.option(
    "--of",
    type=click.Choice([*PHASES, TRAJECTORIES, POOLED]),
    help="The phase whose network computes the features; or improved dense trajectories (idt), or maps of both VGG-M networks along them "
    "(tdd).  [default: the last phase that is trained]",
)
@click.option("--run", default="default", show_default=True, metavar="NAME", help="The run that the network was trained in.")
@runs_option
@split_option
@click.option(
    "--checkpoint", type=click.Path(exists=True, path_type=Path), help="Use this phase's weights or folder instead of those of a run."
)
@click.option(
    "--layer",
    type=click.Choice(["pool5", "fc6", "logits"]),
    default="pool5",
    show_default=True,
    help="The input of the classifier, averaged over space; the first fully connected layer, of C3D; or one number for each class.",
)
@click.option(
    "--frames",
    type=click.Choice(["protocol", "all"]),
    default="protocol",
    show_default=True,
    help="The 25 frames of the test protocol, or every frame that has a stack of flow.",
)
@click.option(
    "--stride",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Take every Nth frame.",
)
@click.option("--average/--each", default=False, help="One vector for each video and stream, or one for each time step (the default).")
@click.option(
    "--mirror/--no-mirror", default=False, help="Average with the features of the mirror images, as the test does, or not (the default)."
)
@click.option(
    "--window",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    metavar="N",
    help="How many time steps are computed at once; fewer need less memory. It goes with --frames all.",
)
@click.option(
    "--components",
    type=click.IntRange(min=1),
    default=NUM_COMPONENTS,
    show_default=True,
    metavar="K",
    help="How many Gaussians the trajectories' descriptors of each type are fitted by; their vectors have 426 times as many numbers.",
)
@click.option(
    "--camera-motion",
    type=click.Choice(get_args(CameraMotion)),
    help="How trajectories are freed of the camera's motion: by keypoints and flow, by flow alone, or not at all.  [default: sift]",
)
@click.option(
    "--pixels",
    type=click.Choice(get_args(Pixels)),
    help="Where trajectories are found: in the video files at their own size, or in the frames that the data root stores.  "
    "[default: source, unless a video file is gone]",
)
@click.option(
    "--encoder",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Encode trajectories by this file instead of fitting an encoder to the training videos of the split.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE.h5|DIR",
    help="The HDF5 file to write, or a folder for one .npy file for each video and stream.  "
    "[default: features/RUN-splitN-PHASE.h5 or features/idt-splitN.h5 in the data root, or in the working folder for each VIDEO]",
)
@click.option("--replace", is_flag=True, help="Replace a file that has features of another network, other data or other settings.")
@device_option
@click.option(
    "--solver",
    type=click.Choice(["auto", "strict", "fast", "cuda"]),
    default="auto",
    show_default=True,
    help="What computes the flow of each VIDEO. auto is the solver of the training data, or the GPU's if --device names a GPU.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    help="How many processes extract each VIDEO, or find trajectories.  [default: one per core]",
)
@precision_option
@video_workers_option
@grace_option("the window in progress may take")
@json_option
def features(
    videos: Sequence[Path],
    data: Path,
    of: str | None,
    run: str,
    runs: Path | None,
    split: int,
    checkpoint: Path | None,
    layer: Any,
    frames: Any,
    stride: int,
    average: bool,
    mirror: bool,
    window: int,
    components: int,
    camera_motion: Any,
    pixels: Any,
    encoder: Path | None,
    output: Path | None,
    replace: bool,
    device: str,
    solver: Any,
    jobs: int | None,
    amp: Any,
    workers: int | None,
    grace: float,
    as_json: bool,
) -> int:
    """Compute the features of each VIDEO, any video file, or of all videos of a data root, with a trained network.

    Features are what the network computes before its classifier: a vector of 2,048 numbers for each time step and stream of a
    ResNet-50. They are stored with the numbers of their frames and with what they depend on. A run that is stopped goes on where it
    was, and videos that the file has already are not computed again.

    Trajectories (with --of idt) need no network: the improved dense trajectories of a video are encoded as one Fisher vector. With --of
    tdd, it is one of maps of two networks along them, for the videos of a data root.
    """
    if of == POOLED:
        return _pooled(
            data,
            files=videos,
            run=run,
            runs=runs,
            split=split,
            num_components=components,
            camera_motion=camera_motion,
            pixels=pixels,
            output=output,
            replace=replace,
            device=device,
            jobs=jobs,
            grace=grace,
            as_json=as_json,
        )
    if of == TRAJECTORIES:
        return _trajectories(
            data,
            files=videos or None,
            split=split,
            encoder=encoder,
            num_components=components,
            camera_motion=camera_motion,
            pixels=pixels,
            output=output,
            replace=replace,
            jobs=jobs,
            grace=grace,
            as_json=as_json,
        )
    from flowkit.model.compute.execution import Execution
    from flowkit.model.scoring.video_features import features as compute

    refuse_unused(f"it is about trajectories, --of {TRAJECTORIES} or {POOLED}", "components", "camera_motion", "pixels", "encoder")
    if checkpoint is not None:
        refuse_unused("a --checkpoint is one network", "run", "runs", "split")
    if frames == "protocol":
        refuse_unused("--frames protocol has 25 frames of each video", "stride", "window")
    if videos:
        refuse_unused("--jobs says how many processes extract each VIDEO", "workers")
    else:
        refuse_unused("the videos of a data root have their flow", "solver", "jobs")
    with stop_signals(grace) as stop:
        report = compute(
            data,
            of=of,
            run=run,
            split=split,
            runs=runs,
            checkpoint=checkpoint,
            layer=layer,
            frames=frames,
            stride=stride,
            average=average,
            mirror=mirror,
            window=window,
            files=videos or None,
            solver=solver if videos else "auto",
            jobs=jobs if videos else None,
            output=output,
            replace=replace,
            execution=Execution(device=device, amp=amp, num_workers=workers),
            progress=True,
            should_stop=stop.asked,
        )
    for text in report.warnings:
        warn(f"note: {show_name(text)}")
    return _print_report(report, stop, per="time step", as_json=as_json)


def _trajectories(data: Path, *, files: Sequence[Path] | None, encoder: Path | None, grace: float, as_json: bool, **settings: Any) -> int:
    """Encode the trajectories of videos."""
    from flowkit.model.encoding.trajectory_features import trajectory_features

    refuse_unused(f"--of {TRAJECTORIES} needs no network", "run", "runs", "device", *_OF_ONE_NETWORK)
    if encoder is not None:
        refuse_unused("an --encoder is fitted already", "split", "components")
    if files is not None:
        if encoder is None:
            raise click.UsageError("trajectories of a VIDEO are encoded by what was fitted to others: name it with --encoder FILE")
        refuse_unused("a VIDEO is read itself", "pixels", "data")
    check_opencv()
    stop = StopRequest()
    with signals_to(stop, grace):
        report = trajectory_features(data, files=files, encoder=encoder, progress=True, stop=stop, grace_seconds=grace, **settings)
    return _print_report(report, stop, per="video", as_json=as_json)


def _pooled(
    data: Path,
    *,
    files: Sequence[Path],
    num_components: int,
    camera_motion: CameraMotion | None,
    device: str,
    grace: float,
    as_json: bool,
    **settings: Any,
) -> int:
    """Encode the trajectory-pooled descriptors of the videos of a data root."""
    from flowkit.model.compute.execution import Execution
    from flowkit.model.encoding.tdd.features import pooled_features
    from flowkit.model.encoding.trajectory_settings import TrajectorySettings

    refuse_unused(f"--of {POOLED} has maps of two networks, which it chooses itself", "encoder", *_OF_ONE_NETWORK)
    if files:
        raise click.UsageError(f"--of {POOLED} is for the videos of a data root, which have their flow; extract each VIDEO into one")
    check_opencv()
    stop = StopRequest()
    how = TrajectorySettings(camera_motion or "sift", num_components)
    with signals_to(stop, grace):
        report = pooled_features(
            data, settings=how, execution=Execution(device=device), progress=True, stop=stop, grace_seconds=grace, **settings
        )
    return _print_report(report, stop, per="video", as_json=as_json)


def _print_report(report: FeatureReport, stop: StopRequest, *, per: str, as_json: bool) -> int:
    """Print what was computed, and return the exit code."""
    warn_of_failures("no features", [(clip.video_id, clip.reason) for clip in report.failed])
    if report.stopped:
        return report_stopped(stop, "stopped; what is computed is kept")
    if as_json:
        failed = [{"video_id": clip.video_id, "reason": clip.reason} for clip in report.failed]
        about = {"path": str(report.path), "num_videos": report.num_videos, "num_kept": report.num_kept, "streams": report.streams}
        say_json("features", {**about, "failed": failed, "warnings": list(report.warnings)})
    else:
        sizes = ", ".join(f"{stream} {size:,}" for stream, size in report.streams.items())
        say(f"{show_name(report.path)}: {counted(report.num_videos, 'video')}; features for each {per}: {sizes}")
        if report.num_kept:
            inform(f"{counted(report.num_kept, 'video')} had them already.")
    return EXIT_SOME_FAILED if report.failed else 0
