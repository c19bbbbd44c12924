"""The settings of all phases that belong together: recipes filled in for a data set (standard library only)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any

from flowkit.errors import ParameterError
from flowkit.model.settings.checks import check, is_int
from flowkit.model.settings.phase import PhaseDescription
from flowkit.model.settings.recipes import PhaseRecipe, RecipeName, filled_schedule, renewal_steps
from flowkit.model.settings.training import Phase, TrainConfig
from flowkit.model.systems.registry import DEFAULT_SYSTEM, PHASES, SYSTEMS, linked

_PHASE_KEYS = {item.name for item in fields(TrainConfig)} - {"phase", "network", "recipe", "weights"}
_TIMING = {"steps", "lr", "warmup_steps", "bn_renewal_steps"}
NETWORK_KEYS = frozenset[str]().union(*(phase.all_keys for phase in PHASES.values()))
OVERRIDES = sorted(NETWORK_KEYS | _PHASE_KEYS | {"steps", "lr"})


def phases_with(name: str) -> tuple[str, ...]:
    """Return the phases that have a setting, with which recipes or options may change them.

    Examples
    --------
    >>> from flowkit.model.systems.configs import phases_with
    >>> phases_with("injection")
    ('st-resnet', 'st-resnet-star')
    """
    return tuple(phase.name for phase in PHASES.values() if name not in NETWORK_KEYS or name in phase.network_keys)


def overrides_of(overrides: Mapping[str, Any], phases: Iterable[Phase]) -> dict[str, Any]:
    """Return those overrides that concern some of these phases, or phases that are linked with them.

    Examples
    --------
    >>> from flowkit.model.systems.configs import overrides_of
    >>> overrides_of({"batch": 8, "base_width": 4, "motion.lr": 0.1}, ["vgg-m-motion"])
    {'batch': 8}
    """
    descriptions = {phase.name: phase for phase in linked(phases)}
    kept = {}
    for name, value in overrides.items():
        of, _, key = name.rpartition(".")
        has_key = key not in NETWORK_KEYS or any(key in phase.all_keys for phase in descriptions.values())
        if has_key and of in ("", *descriptions):
            kept[name] = value
    return kept


def later_keys(phases: Iterable[Phase]) -> frozenset[str]:
    """Return the settings that only those phases have which start from others, out of these phases and all that are linked with them.

    Examples
    --------
    >>> from flowkit.model.systems.configs import later_keys
    >>> sorted(later_keys(["motion"]))[:2]
    ['injection', 'injection_direction']
    """
    first, later = frozenset[str](), frozenset[str]()
    for phase in linked(phases):
        first, later = (first, later | phase.network_keys) if phase.starts_from else (first | phase.network_keys, later)
    return later - first


def make_configs(
    recipe: RecipeName,
    *,
    phases: Iterable[Phase] | None = None,
    num_classes: int,
    num_videos: int,
    short_side: int,
    weights: str = "none",
    paper_schedule: bool = False,
    file: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> dict[Phase, TrainConfig]:
    """Fill in a recipe for a data set.

    Parameters
    ----------
    recipe : {"official", "own", "small"}
        The recipe's name.
    phases : iterable of str, optional
        Names of phases; the settings are those of all phases that are linked with them. Default: the phases of ST-ResNet.
    num_classes, num_videos : int
        The size of the training list.
    short_side : int, px
        The short side of the stored frames.
    weights : str
        What the base streams start from, as `TrainConfig` stores it.
    paper_schedule : bool
        Take the paper's batches and iterations, as far as they are known, instead of the official code's; see `PhaseRecipe`.
    file : dict
        Values of a file that stand in the place of the recipe's, by the same names as `overrides`, which win over them.
    overrides : dict
        Values to use instead of the recipe's: any field of `TrainConfig` or of the network's settings, ``steps`` (of the phase; the
        schedule is scaled) and ``lr`` (the first learning rate; later ones keep their ratio to it). ``schedule`` excludes both.
        A key such as ``motion.batch`` is for one phase only. A `batch` without a `bn_group` takes the largest divisor of the batch
        that is not above the recipe's `bn_group`; a `depth` without `stage_units` means a ResNet of that depth.

    Returns
    -------
    dict from phase to TrainConfig
        Settings of the network that a phase does not have keep their defaults, so that runs do not differ by them.

    Raises
    ------
    ParameterError
        If a name is unknown or a value out of its range.
    """
    if paper_schedule and recipe != "official":
        raise ParameterError(f"the paper's schedule is one of the recipe official; the recipe {recipe} has one schedule")
    descriptions = linked(SYSTEMS[DEFAULT_SYSTEM].networks if phases is None else phases)
    chosen, filed = (_by_phase(values or {}, descriptions) for values in (overrides, file))
    configs = {}
    for phase in descriptions:
        entry, own = _with_file(phase, recipe, filed[phase.name], chosen[phase.name], paper_schedule=paper_schedule)
        network = entry.network_at(short_side)
        if "depth" in own:  # the small recipe's stage_units would overrule it
            network.pop("stage_units", None)
        network |= {key: value for key, value in own.items() if key in NETWORK_KEYS}
        network = {key: value for key, value in network.items() if key in phase.network_keys}
        given = entry.settings | (entry.paper if paper_schedule else {})
        settings = given | {key: value for key, value in own.items() if key in _PHASE_KEYS}
        batch = settings["batch"]
        check(is_int(batch) and batch >= 1, "batch", "a whole number of at least 1", batch)
        if "batch" in own and "bn_group" not in own:  # the recipe's BN groups as nearly as the batch allows
            settings["bn_group"] = _fitting_group(given["bn_group"], batch)
        if "schedule" not in own:
            settings["schedule"] = filled_schedule(entry, batch, num_videos, given.get("schedule"), own)
        if "steps" in own and "warmup_steps" not in own:
            settings["warmup_steps"] = min(settings.get("warmup_steps", 0), own["steps"] // 10)
        made = phase.network(num_classes=num_classes, **phase.fixed, **network)  # type: ignore[call-arg]
        config = TrainConfig(phase=phase.name, network=made, recipe=recipe, weights=weights, **settings)
        configs[phase.name] = config if "bn_renewal_steps" in own else replace(config, bn_renewal_steps=renewal_steps(config))
    _check_same(descriptions, configs)
    return configs


def _check_same(descriptions: Iterable[PhaseDescription], configs: Mapping[Phase, TrainConfig]) -> None:
    """Raise `ParameterError` if phases that start from each other differ in a setting that must be the same."""
    links = {tuple(other.name for other in linked([phase.name])): phase.same for phase in descriptions}
    for names, same in links.items():
        for key in same:
            values = {name: getattr(configs[name].network, key) for name in names if name in configs and key in PHASES[name].network_keys}
            if len(set(values.values())) > 1:
                raise ParameterError(f"{key} must be the same in all phases, each starts from the one before; got {values}")


def _with_file(
    phase: PhaseDescription, recipe: RecipeName, file: Mapping[str, Any], own: Mapping[str, Any], *, paper_schedule: bool
) -> tuple[PhaseRecipe, Mapping[str, Any]]:
    """Return a phase's recipe with a file's values in the place of its own, and the user's values with those of the file that last.

    The file's steps, first rate, warm-up and renewal count as the user's, unless the user chooses other steps.
    """
    if recipe not in phase.recipes:
        raise ParameterError(f"{phase.name} has no recipe {recipe}; it has {', '.join(phase.recipes)}")
    entry = phase.recipes[recipe]
    if not file:
        return entry, own
    given = entry.settings | (entry.paper if paper_schedule else {})
    settings = given | {key: value for key, value in file.items() if key in _PHASE_KEYS - _TIMING}
    if "batch" in file and "bn_group" not in file and is_int(file["batch"]):
        settings["bn_group"] = _fitting_group(given["bn_group"], file["batch"])
    network = {"stage_units": None} if "depth" in file else {}
    network = entry.network | network | {key: value for key, value in file.items() if key in NETWORK_KEYS}
    timing = {key: value for key, value in file.items() if key in _TIMING}
    if "schedule" in own:
        timing.pop("steps", None)
        timing.pop("lr", None)
    if own.keys() & {"schedule", "steps"}:
        timing.pop("bn_renewal_steps", None)
    if "steps" in own:
        settings |= {"warmup_steps": timing.pop("warmup_steps")} if "warmup_steps" in timing else {}
    return replace(entry, settings=settings, network=network, paper={}), {**timing, **own}


def _fitting_group(most: int, batch: int) -> int:
    """Return the largest divisor of a batch that is not above `most`."""
    return next(size for size in range(most, 0, -1) if batch % size == 0)


def _by_phase(overrides: Mapping[str, Any], descriptions: Iterable[PhaseDescription]) -> dict[Phase, dict[str, Any]]:
    """Sort ``key`` and ``phase.key`` into one dictionary per phase; ``phase.key`` wins."""
    names = [phase.name for phase in descriptions]
    chosen: dict[Phase, dict[str, Any]] = {name: {} for name in names}
    for for_all in (True, False):
        for name, value in overrides.items():
            phase, _, key = name.rpartition(".")
            if key not in OVERRIDES or (phase and phase not in PHASES):
                raise ParameterError(f"no setting {name!r}; there are {', '.join(OVERRIDES)}, each also as PHASE.NAME")
            if key in NETWORK_KEYS and not any(key in phase.all_keys for phase in descriptions):
                raise ParameterError(f"{name} is no setting of the networks of {', '.join(names)}")
            if (not phase) == for_all:
                for name_of_phase in [p for p in names if phase in ("", p)]:
                    chosen[name_of_phase][key] = value
    for phase in [p for p in names if "schedule" in chosen[p]]:
        for key in ("steps", "lr"):
            if f"{phase}.{key}" in overrides or (key in overrides and f"{phase}.schedule" not in overrides):
                raise ParameterError(f"schedule already sets steps and learning rates; leave out {key}")
            chosen[phase].pop(key, None)  # given for all phases, but this one has its own schedule
    return chosen
