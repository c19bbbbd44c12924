"""Training a system that has SVMs: the options of `flowkit train` for their vectors, and the phases themselves, such as `idt`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from flowkit.cli.shared.console import counted, inform, show_name, warn_of_failures
from flowkit.cli.shared.exit_codes import EXIT_SOME_FAILED
from flowkit.cli.shared.options import refuse_unused
from flowkit.cli.shared.stopping import exit_code_of, report_stopped, resume_command, signals_to
from flowkit.errors import CheckpointError, FeaturesError
from flowkit.model.encoding.trajectory_settings import CameraMotion
from flowkit.model.settings.svm_phase import FISHER_COMPONENTS
from flowkit.model.systems.registry import DEFAULT_SYSTEM, SYSTEMS

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowkit.model.compute.execution import Execution
    from flowkit.model.settings.recipes import TrainSettings
    from flowkit.model.systems.system import System
    from flowkit.workers.stopping import StopRequest

FOR_TRAJECTORIES = ("components", "camera_motion")
_FOR_ALL = (*FOR_TRAJECTORIES, "system", "data", "split", "run", "runs", "seeds", "grace", "resume")


def trajectory_options(which: str = "improved trajectories") -> Callable[[Any], Any]:
    """Return what adds the options of Fisher vectors of trajectories to a command; `which` says of which trajectories they are."""

    def add(command: Any) -> Any:
        for option in (
            click.option(
                "--camera-motion",
                type=click.Choice(get_args(CameraMotion)),
                default="sift",
                show_default=True,
                help=f"How {which} find the motion of the camera: by SIFT and flow, by flow alone, or not at all.",
            ),
            click.option(
                "--components",
                type=click.IntRange(min=1),
                metavar="K",
                help=f"How many Gaussians the Fisher vectors of {which} have for each type of descriptors.  "
                f"[default: {FISHER_COMPONENTS['official']}; {FISHER_COMPONENTS['small']} in the recipe small]",
            ),
        ):
            command = option(command)
        return command

    return add


def system_options(command: Any) -> Any:
    """Add ``--system``, and the options of Fisher vectors of trajectories."""
    system = click.option(
        "--system",
        type=click.Choice(list(SYSTEMS)),
        default=DEFAULT_SYSTEM,
        show_default=True,
        help="Which system to train: its phases that are not trained yet. Those with SVMs, such as idt, need scikit-learn.",
    )
    return system(trajectory_options()(command))


def refuse_options_of_other_systems(system: System) -> None:
    """Raise a usage error for an option that does nothing for the phases of a system."""
    if system.has_fisher_vectors:
        refuse_unused(f"the file would have no settings of trajectories, which --system {system.name} has", "write_config", "config")
    else:
        refuse_unused(f"--system {system.name} has no trajectories", *FOR_TRAJECTORIES)
    if not system.networks:
        refuse_unused(f"--system {system.name} names the phases", "phase")
        known = (*_FOR_ALL, *(("recipe",) if system.has_fisher_vectors else ()))
        names = [option.name for option in click.get_current_context().command.params if option.name not in known]
        refuse_unused(f"--system {system.name} trains no network", *filter(None, names))


def train_svms(
    system: System,
    data: Path,
    *,
    split: int,
    run: str,
    runs: Path | None,
    grace: float,
    restart: bool,
    training: TrainSettings,
    components: int | None,
    camera_motion: Any,
    execution: Execution | None = None,
    stop: StopRequest | None = None,
) -> int:
    """Train the SVMs of a system in a run, print what was done, and return the exit code.

    A caller that gives `stop` sees there whether a signal came, and says itself how to resume.
    """
    from flowkit.dataset.root import Dataset
    from flowkit.model.compute.execution import Execution
    from flowkit.model.data.official_lists import is_official_list
    from flowkit.model.runs.run_folder import untrained_phases
    from flowkit.model.scoring.feature_files import OTHER_OUTPUT
    from flowkit.model.training.svm_training import train_svm_phase
    from flowkit.model.training.svm_vectors import VectorChoices
    from flowkit.workers.stopping import StopRequest

    own = StopRequest() if stop is None else stop
    execution = execution or Execution()
    device, official = execution.torch_device().type, is_official_list(Dataset.open(data).split(split))
    choices = VectorChoices(components, camera_motion, execution, training.recipe_on(device, is_official_list=official))
    why = training.why_recipe(device, is_official_list=official)
    some_failed = False
    for phase in system.svms:
        is_new = restart or bool(untrained_phases([phase.name], data, run=run, split=split, runs=runs))
        if components is None and phase.vectors.components and is_new:
            recipe = f"the recipe {choices.recipe}" + (f" ({why})" if why else "")
            number = choices.components_for(phase)
            inform(f"{phase.name}: {number} Gaussians for each type of descriptors, as {recipe} has; --components takes another number.")
        try:
            with signals_to(own, grace):
                report = train_svm_phase(
                    phase,
                    data,
                    split=split,
                    run=run,
                    runs=runs,
                    choices=choices,
                    restart=restart,
                    progress=True,
                    stop=own,
                    grace_seconds=grace,
                )
        except (FeaturesError, CheckpointError) as error:
            if not str(error).endswith(OTHER_OUTPUT):  # an option that this command does not have
                raise
            text = str(error).removesuffix(OTHER_OUTPUT)
            raise type(error)(f"{text}`{resume_command(sys.argv[1:])} --restart` computes them again") from error
        warn_of_failures(f"no features of {phase.words}", [(clip.video_id, clip.reason) for clip in report.failed])
        if report.stopped:
            return exit_code_of(own) if stop is not None else report_stopped(own, "stopped; what is computed is kept")
        vectors = f"{counted(report.num_videos, 'training video')}, vectors of {report.num_features:,} numbers"
        inform(f"{phase.name}: a linear SVM on {vectors}, in {show_name(report.folder)}.")
        some_failed |= bool(report.failed)
    return EXIT_SOME_FAILED if some_failed else 0
