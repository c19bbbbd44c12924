"""Which phases the options of training concern; and complete commands, with the user's options, for the errors of training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flowkit.cli.shared.options import refuse_unused
from flowkit.cli.shared.stopping import resume_command
from flowkit.cli.shared.training.recipe_options import NETWORK_SETTINGS, RECIPE_SETTINGS
from flowkit.model.runs.seeds import seed_run
from flowkit.model.systems.configs import NETWORK_KEYS, OVERRIDES, phases_with
from flowkit.model.systems.registry import DEFAULT_SYSTEM, PHASES, first_phases

if TYPE_CHECKING:
    from flowkit.model.settings.recipes import PhaseRecipe, TrainSettings
    from flowkit.model.settings.training import Phase, TrainConfig
    from flowkit.model.systems.system import System

_LATER_PHASES = tuple(name for name, phase in PHASES.items() if phase.starts_from)


def _with_effect(name: str) -> tuple[Phase, ...]:
    """Return the phases on which a setting of the network has an effect."""
    return tuple(phase for phase in phases_with(name) if name not in PHASES[phase].idle_keys)


def _has_corners(recipe: PhaseRecipe) -> bool:
    """Return whether a recipe crops near the borders, and not at regular places."""
    return bool(recipe.settings.get("crop", "borders25") == "borders25")


# A parameter of `flowkit train` -> the phases that it concerns, if it does not concern all.
_CONCERNS: dict[str, tuple[Phase, ...]] = {
    "weights": first_phases(PHASES),
    **{name: _with_effect(name) for _, name, _, _ in (*NETWORK_SETTINGS, *RECIPE_SETTINGS) if name in NETWORK_KEYS},
    "corners": tuple(name for name, phase in PHASES.items() if any(map(_has_corners, phase.recipes.values()))),
}
_FLAGS = {flag: name for flags, name, _, _ in (*NETWORK_SETTINGS, *RECIPE_SETTINGS) for flag in flags.split("/")} | {"--weights": "weights"}
_WITHOUT_VALUE = {"--temporal-convolution", "--no-temporal-convolution"}


def refuse_options_of_other_phases(system: System, phase: str, *, run: str, base_run: str | None, others: Sequence[str]) -> None:
    """Raise a usage error for an option of `flowkit train` that does nothing for the phases that will be trained.

    Parameters
    ----------
    system : System
        The value of ``--system``.
    phase : str
        The value of ``--phase``.
    run, base_run : str, optional
        The run, and the run that has earlier phases.
    others : sequence of str
        The values of ``--set``.
    """
    wanted = system.networks if phase == "all" else (phase,)
    what = f"--phase {phase}" if phase != "all" or system.name == DEFAULT_SYSTEM else f"--system {system.name}"
    for name, concerned in _CONCERNS.items():
        crops = name == "corners" and any(text.partition("=")[0].rpartition(".")[2] == "crop" for text in others)
        if not set(wanted) & set(concerned) and not crops:
            named = [of for of in concerned if of in system.networks] or concerned
            more = " (--base-run names the run from which it starts, --init-from a trained network)" if name == "weights" else ""
            refuse_unused(f"it concerns {' and '.join(named)}, and {what} trains none of them{more}", name)
    for text in others:
        of, _, key = text.partition("=")[0].rpartition(".")
        if of in PHASES and of not in wanted:  # another name is no phase at all, which is said elsewhere
            raise click.UsageError(f"--set {text} would do nothing here: {what} does not train {of}")
        if key in OVERRIDES and not set(wanted) & set(phases_with(key)):
            raise click.UsageError(f"--set {text} would do nothing here: it concerns {' and '.join(phases_with(key))}")
    if phase not in _LATER_PHASES:
        reason = "every phase starts from one that this command trains" if phase == "all" else "base streams start from no other phase"
        later = [name for name in _LATER_PHASES if name in system.networks] or _LATER_PHASES
        refuse_unused(f"{reason}; it is for --phase {' and --phase '.join(later)}", "base_run")
    elif base_run == run:
        refuse_unused("it names the run itself", "base_run")


def refuse_unused_schedule(training: TrainSettings, device_type: str) -> None:
    """Raise a usage error if ``--schedule`` does nothing for the recipe, whatever the lists, that a device of this type has."""
    recipe = training.recipe_on(device_type, is_official_list=True)
    if training.paper_schedule and recipe != "official":
        refuse_unused(f"it is for --recipe official; the recipe {recipe} has one schedule", "schedule")


def with_lower_rate(config: TrainConfig, arguments: Sequence[str]) -> list[str]:
    """Return the option that gives a phase a tenth of its learning rates, whatever else the command line says about them."""
    names = [argument.removeprefix("--set=").partition("=")[0] for argument in arguments]
    if "schedule" in names or f"{config.phase}.schedule" in names:
        schedule = [[steps, float(f"{rate / 10:g}")] for steps, rate in config.schedule]
        return ["--set", f"{config.phase}.schedule={json.dumps(schedule, separators=(',', ':'))}"]
    return ["--set", f"{config.phase}.lr={config.schedule[0][1] / 10:g}"]


def command_with_lower_rate(arguments: Sequence[str], config: TrainConfig, *, phase: str, begun: bool, from_source: bool = True) -> str:
    """Return the command that trains a phase again with a tenth of its learning rate, and then what else the user asked for.

    Parameters
    ----------
    arguments : sequence of str
        The user's command line, which begins with ``train``.
    config : TrainConfig
        The settings with which the loss of a phase was not a finite number.
    phase : str
        The value of ``--phase``.
    begun : bool
        Whether that phase has a checkpoint, which must be discarded.
    from_source : bool
        Whether that phase starts from the networks of ``--init-from``, if there are any, and not from the phases before it.
    """
    lower = with_lower_rate(config, arguments)
    if not begun:
        return resume_command([*arguments, *lower])
    kept = only_for(arguments, config.phase)
    kept = kept if from_source else _without(kept, {"--init-from"})
    again = f"{resume_command([*kept, '--phase', config.phase, *lower])} --restart"
    return again if phase == config.phase else f"{again} && {resume_command([*arguments, *lower])}"


def command_in_another_run(
    arguments: Sequence[str],
    *,
    runs: Path,
    run: str,
    base_run: str | None = None,
    seeds: Sequence[int] | None = None,
    more: Sequence[str] = (),
) -> str:
    """Return the user's command for a run that does not exist yet, so that nothing of the present one is discarded.

    Parameters
    ----------
    arguments : sequence of str
        The user's command line.
    runs : Path
        The folder of the runs.
    run : str
        The present run.
    base_run : str, optional
        The run that has the phases from which the new one starts, if it does not train them itself.
    seeds : sequence of int, optional
        The seeds of ``--seeds``, each of which has a run.
    more : sequence of str
        Further options.
    """

    def is_free(name: str) -> bool:
        return not any((runs / own).exists() for own in ([name] if seeds is None else [seed_run(name, seed) for seed in seeds]))

    number = next(number for number in range(2, 10**6) if is_free(f"{run}-{number}"))
    start = [] if base_run is None else ["--base-run", base_run]
    return resume_command([*_without(arguments, {"--run", "--base-run"}), "--run", f"{run}-{number}", *start, *more])


def only_for(arguments: Sequence[str], phase: Phase) -> list[str]:
    """Return a command line of `flowkit train` without ``--phase`` and without the options that do nothing for one phase."""
    unconcerned = {flag for flag, name in _FLAGS.items() if phase not in _CONCERNS.get(name, tuple(PHASES))}
    return _without(arguments, {"--phase", *unconcerned}, phase=phase)


def _without(arguments: Sequence[str], flags: set[str], *, phase: Phase | None = None) -> list[str]:
    """Return a command line without some options and their values; and, given a phase, without ``--set`` of what does not concern it."""
    kept: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        flag, equals, value = argument.partition("=")
        values = [] if equals or flag in _WITHOUT_VALUE else rest[:1]
        if flag in flags or (flag == "--set" and phase is not None and not _sets(value if equals else "".join(values), phase)):
            rest = rest[len(values) :]
        else:
            kept.append(argument)
    return kept


def _sets(setting: str, phase: Phase) -> bool:
    """Return whether the value of ``--set`` concerns a phase."""
    of, _, key = setting.partition("=")[0].rpartition(".")
    return of in ("", phase) and phase in phases_with(key)
