"""``flowkit train``: trains the phases of a split; Ctrl-C stops it with a checkpoint."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from flowkit.cli.shared.compute_options import read_execution
from flowkit.cli.shared.options import data_option, refuse_unused, runs_option, split_option
from flowkit.cli.shared.seeds import chosen_seeds, seeds_option, show_seed
from flowkit.cli.shared.stopping import report_stopped, resume_command, stop_signals
from flowkit.cli.shared.training.recipe_options import (
    NETWORK_SETTINGS,
    execution_options,
    recipe_options,
    settings_options,
    train_settings,
)
from flowkit.cli.shared.training.svm_training import refuse_options_of_other_systems, system_options, train_svms
from flowkit.cli.shared.training.training_commands import (
    command_in_another_run,
    command_with_lower_rate,
    refuse_options_of_other_phases,
    refuse_unused_schedule,
)
from flowkit.cli.shared.training.training_file import TrainCommand, TrainingFile, config_option, write_training_file
from flowkit.model.systems.registry import PHASES, SYSTEMS, starts_from

if TYPE_CHECKING:
    from flowkit.model.settings.training import Phase
    from flowkit.model.systems.system import System


@click.command(cls=TrainCommand)
@config_option
@data_option
@split_option
@system_options
@click.option(
    "--phase",
    type=click.Choice(["all", *PHASES]),
    default="all",
    show_default=True,
    help="Which phase to train; each needs the phases before it.",
)
@click.option(
    "--run", default="default", show_default=True, metavar="NAME", help="The name of the run, whose folder is runs/NAME in the data root."
)
@runs_option
@click.option("--base-run", metavar="NAME", help="Take earlier phases that this run lacks from another run.")
@click.option(
    "--init-from",
    metavar="RUN|FILE",
    help="Start each phase from a trained network, also of other data: a run, the folder of a run, a split or a phase, or a file of "
    "weights. Classifiers are replaced where the classes are others.",
)
@seeds_option("Train a run for each of these seeds, one after another: NAME-seed0, NAME-seed1, ...")
@recipe_options
@settings_options(NETWORK_SETTINGS)
@execution_options
@click.option(
    "--tensorboard",
    is_flag=True,
    help="Write live curves for TensorBoard into each phase's folder (needs the extra `tensorboard`).",
)
@click.option(
    "--write-config",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write every setting of this training to a TOML file for --config, and train nothing.",
)
@click.option(
    "--resume/--restart", default=True, help="Resume where the run stopped (the default), or discard these phases and start again."
)
def train(
    config: TrainingFile | None,
    data: Path,
    split: int,
    system: str,
    components: int | None,
    camera_motion: str,
    phase: str,
    run: str,
    runs: Path | None,
    base_run: str | None,
    init_from: str | None,
    seeds: tuple[int, ...] | None,
    device: str,
    grace: float,
    tensorboard: bool,
    write_config: Path | None,
    resume: bool,
    **settings: Any,
) -> int:
    """Train appearance, motion, ST-ResNet and ST-ResNet*, each starting from the phases before it; or another --system.

    Phases that are trained already, with the same settings, are skipped; a phase that was stopped resumes from its checkpoint.
    """
    wanted_system = _system_of(system, phase)
    refuse_options_of_other_systems(wanted_system)
    refuse_options_of_other_phases(wanted_system, phase, run=run, base_run=base_run, others=settings["others"])
    if init_from is not None:
        refuse_unused(f"--init-from {init_from} names the first weights", "weights", "base_run")
    if (phase != "all" and starts_from(phase)) or init_from is not None:
        settings["weights"] = None  # from flowkit.toml or the environment, for other phases
    from flowkit.cli.shared.ranks import is_elastic_restart, ranks_from_environment, refuse_ranks
    from flowkit.errors import CheckpointError, ParameterError
    from flowkit.model.report.live_curves import LiveCurves
    from flowkit.model.runs.events import to_all
    from flowkit.model.runs.progress import RunProgress
    from flowkit.model.runs.seeds import base_runs, seed_run
    from flowkit.model.runs.training_data import OtherSettingsError
    from flowkit.model.settings.recipes import TrainSettings
    from flowkit.model.training.chain import train_phases
    from flowkit.model.training.loop import NotFiniteLossError
    from flowkit.model.training.prepare import prepare_training

    seeds = chosen_seeds(seeds, seed=settings["seed"], others=settings["others"])
    names = [run] if seeds is None else [seed_run(run, seed) for seed in seeds]
    starts = [base_run] * len(names) if seeds is None or base_run is None else base_runs(runs or data / "runs", base_run, seeds)
    fisher: dict[str, Any] = {"components": components, "camera_motion": camera_motion}
    svms = partial(train_svms, wanted_system, data, split=split, runs=runs, grace=grace, restart=not resume, **fisher)
    if not wanted_system.networks:
        refuse_ranks(f"--system {system} trains no network")
        return max(svms(run=name, training=TrainSettings(settings["recipe"])) for name in names)
    try:
        with ranks_from_environment(device) as (rank, world, own_device), stop_signals(grace) as stop:
            execution = read_execution(settings, device=own_device, rank=rank, world=world)
            training = train_settings(settings, config.values if config else None)
            device_type = execution.torch_device().type
            refuse_unused_schedule(training, device_type)
            wanted: tuple[Phase, ...] = wanted_system.networks if phase == "all" else (phase,)
            if config is not None:
                config.check(training.recipe_on(device_type, is_official_list=False), phases=wanted, paper_schedule=training.paper_schedule)
                config.check_phases(wanted)
            how: dict[str, Any] = {"split": split, "runs": runs, "init_from": init_from, "phases": wanted, "execution": execution}
            if write_config is not None:
                # As if it were trained from its start: an earlier training of that name may have other settings.
                ready = prepare_training(data, training, run=names[0], base_run=starts[0], restart=True, **how)
                write_training_file(write_config, ready)
                return 0
            discards = not resume and not is_elastic_restart()
            trainings = [training] if seeds is None else [training.with_seed(seed) for seed in seeds]
            # What would be refused after hours, at a later seed, is refused before the first one; and so are networks that have changed.
            for number in range(0 if config is not None and config.networks else 1, len(names)):
                ready = prepare_training(data, trainings[number], run=names[number], base_run=starts[number], restart=discards, **how)
                if config is not None:
                    config.check_networks(ready.initial.digests)
            for number, (name, start) in enumerate(zip(names, starts, strict=True)):
                if seeds is not None and rank == 0:
                    show_seed(seeds, number, run=name, base_run=start)
                live_curves = LiveCurves(data, run=name, split=split, runs=runs) if tensorboard and rank == 0 else nullcontext()
                with RunProgress(rank == 0) as show, live_curves as curves:
                    report = train_phases(
                        data,
                        trainings[number],
                        run=name,
                        base_run=start,
                        **how,
                        restart=number == 0 and discards,
                        restart_too=names[1:],
                        on_event=to_all(show, curves.record if curves else None),
                        should_stop=stop.asked,
                    )
                if report.stopped:
                    break
    except NotFiniteLossError as error:
        lower = command_with_lower_rate(sys.argv[1:], error.config, phase=phase, begun=error.begun, from_source=error.from_source)
        raise ParameterError(f"{error}. With a tenth of it: `{lower}`") from error
    except OtherSettingsError as error:
        earlier = (base_run or run) if phase != "all" and starts_from(phase) and init_from is None else None
        another = command_in_another_run(sys.argv[1:], runs=runs or data / "runs", run=run, base_run=earlier, seeds=seeds)
        raise CheckpointError(
            f"{error}. To keep this run and train another: `{another}`. To discard these phases: `{resume_command(sys.argv[1:])} --restart`"
        ) from error
    if report.stopped:
        return report_stopped(stop, "stopped with a checkpoint")
    if phase != "all" or not wanted_system.svms or rank:
        return 0
    return max(svms(run=name, execution=execution, training=training) for name in names)


def _system_of(name: str, phase: str) -> System:
    """Return the system whose phases are trained: the one that was asked for or, if none was, the first that has the phase."""
    system = SYSTEMS[name]
    if phase in ("all", *system.networks) or not system.networks:
        return system
    if click.get_current_context().get_parameter_source("system") is not ParameterSource.DEFAULT:
        raise click.UsageError(f"--phase {phase} is no phase of --system {name}; its phases are {', '.join(system.networks)}")
    return next(other for other in SYSTEMS.values() if phase in other.networks)
