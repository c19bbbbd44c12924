"""``flowkit compare``: all systems in one table, beside their published figures; with --train, those that are missing are trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowkit.cli.help.format import Command
from flowkit.cli.shared.compute_options import read_execution
from flowkit.cli.shared.console import inform, say, say_json, show_name, table, warn
from flowkit.cli.shared.exit_codes import EXIT_SOME_FAILED
from flowkit.cli.shared.options import crops_option, data_option, json_option, refuse_unused, reports_option, runs_option, split_option
from flowkit.cli.shared.stopping import report_stopped, stop_signals
from flowkit.cli.shared.training.recipe_options import execution_options, recipe_options, train_settings
from flowkit.cli.shared.training.svm_training import FOR_TRAJECTORIES, train_svms, trajectory_options
from flowkit.model.systems.configs import overrides_of
from flowkit.model.systems.registry import SYSTEMS

if TYPE_CHECKING:
    from flowkit.model.comparison.compared import Comparison
    from flowkit.model.compute.execution import Execution
    from flowkit.model.settings.recipes import TrainSettings


@click.command(cls=Command)
@data_option
@split_option
@click.option("--run", default="default", show_default=True, metavar="NAME", help="The run that has the phases of all systems.")
@runs_option
@reports_option
@click.option(
    "--system",
    "systems",
    type=click.Choice(list(SYSTEMS)),
    multiple=True,
    help="Compare this system only; may be repeated.  [default: all systems]",
)
@crops_option
@click.option("--train", is_flag=True, help="First train what is missing of these systems; the same command continues after a stop.")
@trajectory_options("improved trajectories that --train computes")
@recipe_options
@execution_options
@json_option
def compare(
    data: Path,
    split: int,
    run: str,
    runs: Path | None,
    reports: Path | None,
    systems: tuple[str, ...],
    crops: Any,
    train: bool,
    components: int | None,
    camera_motion: Any,
    device: str,
    grace: float,
    as_json: bool,
    **settings: Any,
) -> int:
    """Compare all systems on the test videos: accuracies here and published ones, paired tests, and what differs from each publication.

    Systems that are not trained are listed with the command that trains them and an estimate of its time; --train trains all of them,
    one after the other. Each phase is tested once, whatever the number of its systems, and its scores are kept until its weights, the
    data or the settings change. --crops ten is for systems whose networks can see ten crops; the others see whole frames.
    """
    if not train:
        refuse_unused("it is for --train", *FOR_TRAJECTORIES)
    from flowkit.model.comparison.run import compare as run_comparison
    from flowkit.model.runs.places import report_folder
    from flowkit.model.runs.progress import RunProgress
    from flowkit.model.runs.run_folder import writing_report

    folder = report_folder(data, run, split, reports=reports)
    chosen = systems or tuple(SYSTEMS)
    with stop_signals(grace) as stop:
        execution = read_execution(settings, device=device, rank=0, world=1)
        training = train_settings(settings)
        failures: dict[str, str] = {}
        some_failed = False
        if train:
            trajectories = {"components": components, "camera_motion": camera_motion, "training": training}
            failures, some_failed = _train(
                data, chosen, training, execution, split=split, run=run, runs=runs, stop=stop, grace=grace, more=trajectories
            )
        if not stop.asked():
            with writing_report(folder, "compare"), RunProgress(True) as show:
                made = run_comparison(
                    data,
                    split=split,
                    run=run,
                    runs=runs,
                    reports=reports,
                    systems=systems,
                    training=training,
                    failures=failures,
                    execution=execution,
                    crops=crops,
                    on_event=show,
                    should_stop=stop.asked,
                )
        if stop.asked():
            return report_stopped(stop, "stopped; what is trained and tested is kept")
    code = _print(made, folder, as_json=as_json)
    return EXIT_SOME_FAILED if some_failed else code


def _train(
    data: Path,
    systems: tuple[str, ...],
    training: TrainSettings,
    execution: Execution,
    *,
    split: int,
    run: str,
    runs: Path | None,
    stop: Any,
    grace: float,
    more: dict[str, Any],
) -> tuple[dict[str, str], bool]:
    """Train what is missing of each system.

    Returns
    -------
    failures : dict from str to str
        Why a system could not be trained, for those that could not.
    some_failed : bool
        Whether a training video has no vector for an SVM because it could not be read.
    """
    from flowkit.errors import FlowkitError
    from flowkit.model.runs.progress import RunProgress
    from flowkit.model.training.chain import train_phases
    from flowkit.workers.stopping import StopRequest

    failures: dict[str, str] = {}
    some_failed = False
    settings = _settings_of(data, systems, training, execution, split=split, run=run, runs=runs)
    for name in systems:
        system = SYSTEMS[name]
        try:
            if system.networks:
                own = settings[name]
                with RunProgress(True) as show:
                    train_phases(
                        data,
                        own,
                        split=split,
                        run=run,
                        runs=runs,
                        phases=system.networks,
                        execution=execution,
                        on_event=show,
                        should_stop=stop.asked,
                    )
            if system.svms and not stop.asked():
                own_stop = StopRequest()  # the worker processes keep the grace period themselves
                code = train_svms(
                    system, data, split=split, run=run, runs=runs, grace=grace, restart=False, execution=execution, stop=own_stop, **more
                )
                some_failed |= code == EXIT_SOME_FAILED
                if own_stop.signal_number is not None:
                    stop.request(own_stop.signal_number)
        except FlowkitError as error:  # the others can be trained all the same
            warn(f"{name} could not be trained: {error}")
            failures[name] = str(error)
        if stop.asked():
            break
    return failures, some_failed


def _settings_of(
    data: Path, systems: tuple[str, ...], training: TrainSettings, execution: Execution, **places: Any
) -> dict[str, TrainSettings]:
    """Return the settings with which each system is trained. A file of first weights is for the systems whose networks can take it."""
    from dataclasses import replace

    from flowkit.errors import FlowkitError
    from flowkit.model.systems.registry import first_phases
    from flowkit.model.training.prepare import with_fitting_weights

    chosen: dict[str, TrainSettings] = {}
    phases: dict[bool, dict[str, None]] = {True: {}, False: {}}  # those that take the file, and those that do not
    for name, system in ((name, SYSTEMS[name]) for name in systems if SYSTEMS[name].networks):
        chosen[name] = replace(training, overrides=overrides_of(training.overrides, system.networks))
        try:
            fitting = with_fitting_weights(data, chosen[name], phases=system.networks, execution=execution, **places)
        except FlowkitError:  # its training will say it
            continue
        phases[fitting.weights is not None] |= dict.fromkeys(first_phases(system.networks))
        chosen[name] = fitting
    if isinstance(training.weights, Path):
        if phases[False] and not phases[True]:
            raise click.UsageError(
                f"--weights {show_name(training.weights)} fits no network of these systems; `flowkit train --system NAME --weights FILE` "
                "says what it lacks"
            )
        others = f"; the others start as the recipe says: {', '.join(phases[False])}" if phases[False] else ""
        if phases[True]:
            inform(f"--weights {show_name(training.weights)} is for {', '.join(phases[True])}{others}")
    return chosen


def _print(made: Comparison, folder: Path, *, as_json: bool) -> int:
    """Print the comparison to stdout, write its files, and return the exit code."""
    from flowkit.model.comparison.table import comparison_dict, comparison_table, differences, notes, pairs_table, write_comparison
    from flowkit.model.report.systems import write_compare_page

    paths = [*write_comparison(folder, made), write_compare_page(folder, comparison_dict(made))]
    if as_json:
        say_json("comparison", comparison_dict(made))
    else:
        say(table(*comparison_table(made)))
        header, pairs = pairs_table(made)
        if pairs:
            say(table(header, pairs))
        say("\n".join(f"* {line}" for line in [*notes(made), *differences(made)]))
    inform(f"Results in {show_name(folder)}: {', '.join(path.name for path in paths)}.")
    return EXIT_SOME_FAILED if any(one.failure for one in made.systems) else 0
