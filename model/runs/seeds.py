"""Runs that differ in nothing but the seed of their training: their names, and whether that is all in which they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from flowkit.errors import CheckpointError
from flowkit.model.runs.provenance import Provenance
from flowkit.model.settings.training import Phase
from flowkit.model.systems.registry import PHASES

_NAMES_SHOWN = 5


def seed_run(run: str, seed: int) -> str:
    """Return the name of the run of one seed.

    Examples
    --------
    >>> from flowkit.model.runs.seeds import seed_run
    >>> seed_run("default", 2)
    'default-seed2'
    """
    return f"{run}-seed{seed}"


def base_runs(runs: Path, base_run: str, seeds: Sequence[int]) -> list[str]:
    """Return the run from which each seed's run starts: ``BASE-seed<k>`` where runs of such names exist, or else `base_run` for all.

    Parameters
    ----------
    runs : Path
        The folder of the runs.
    base_run : str
        The run that has earlier phases, or the name before ``-seed<k>`` of such runs.
    seeds : sequence of int
        The seeds.

    Raises
    ------
    CheckpointError
        If there are such runs for some of the seeds only, because the others would silently start from something else.
    """
    names = [seed_run(base_run, seed) for seed in seeds]
    missing = [name for name in names if not (runs / name).is_dir()]
    if len(missing) == len(names):
        return [base_run] * len(names)
    if missing:
        raise CheckpointError(
            f"{', '.join(name for name in names if name not in missing)} in {runs} would be the start for some of the seeds, but "
            f"{', '.join(missing)} does not exist; train it first, or leave out its seed"
        )
    return names


def refuse_other_differences(trained: Mapping[int, Mapping[Phase, Provenance]], run: str) -> None:
    """Raise `CheckpointError` if the runs of some seeds differ in more than their seed, so that a mean over them would mean nothing.

    Parameters
    ----------
    trained : dict from seed to dict from phase to Provenance
        How the phases of each seed's run were trained.
    run : str
        The name before ``-seed<k>``.
    """
    for seed, phases in trained.items():
        for phase, made in phases.items():
            if made.config.seed != seed:
                raise CheckpointError(
                    f"run {seed_run(run, seed)}: {phase} was trained with seed {made.config.seed}, so its name is wrong and it cannot "
                    f"stand for seed {seed}"
                )
    first = next(iter(trained))
    for seed, phases in trained.items():
        for phase in [phase for phase in phases if phase in trained[first]]:
            differing = _differences(trained[first][phase], phases[phase])
            if differing:
                more = f"; and {len(differing) - _NAMES_SHOWN} more" if len(differing) > _NAMES_SHOWN else ""
                raise CheckpointError(
                    f"runs {seed_run(run, first)} and {seed_run(run, seed)} differ in more than their seed, so a mean over them would "
                    f"mean nothing: {phase}: {'; '.join(differing[:_NAMES_SHOWN])}{more}"
                )


def _differences(one: Provenance, other: Provenance) -> list[str]:
    """Return in words how two phases differ, except for their seeds and for the weights that these led to."""
    expected = ("config.seed ", *(f"started_from.{phase} " for phase in PHASES))
    texts = [text for text in one.differences(other, "{} is {} in one and {} in the other") if not text.startswith(expected)]
    if one.precision != other.precision:
        texts.append(f"precision is {one.precision} in one and {other.precision} in the other")
    chosen = [{key: value for key, value in made.validation.items() if key in ("fraction", "groups")} for made in (one, other)]
    if chosen[0] != chosen[1]:
        texts.append(f"validation is {chosen[0] or 'none'} in one and {chosen[1] or 'none'} in the other")
    if one.classes != other.classes:
        texts.append("the classes differ")
    elif not one.digests & other.digests:
        texts.append("the videos differ")
    return texts
