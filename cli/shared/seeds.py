"""The option ``--seeds``: the same command for several seeds, each in a run NAME-seed<k> that is like any other run."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from flowkit.cli.shared.console import inform

if TYPE_CHECKING:
    from flowkit.cli.shared.options import Command

_MOST_SEEDS = 1000


def seed_list(value: Any) -> tuple[int, ...]:
    """Read seeds: whole numbers of at least 0, each once, joined by commas (or a list in flowkit.toml)."""
    parts = [str(part).strip() for part in (value.split(",") if isinstance(value, str) else value)]
    wrong = [part for part in parts if not re.fullmatch(r"[0-9]{1,18}", part)]
    if not parts or wrong:
        raise click.BadParameter(
            f"{value!r:.80} is not a list of seeds; give whole numbers of at least 0, joined by commas, such as 0,1,2."
        )
    if len(parts) > _MOST_SEEDS:
        raise click.BadParameter(f"{len(parts)} seeds are too many; give at most {_MOST_SEEDS}.")
    seeds = tuple(map(int, parts))
    twice = next((seed for seed in seeds if seeds.count(seed) > 1), None)
    if twice is not None:
        raise click.BadParameter(f"the seed {twice} is given twice, and would be the same training twice.")
    return seeds


def seeds_option(what: str) -> Callable[[Command], Command]:
    """Return the option ``--seeds``, whose help says what happens for each seed."""
    return click.option("--seeds", type=seed_list, metavar="N[,N...]", help=what)


def chosen_seeds(seeds: tuple[int, ...] | None, *, seed: int | None, others: Sequence[str] = ()) -> tuple[int, ...] | None:
    """Return the seeds of ``--seeds``; None without them, or if the command line gives one seed and something else gives several.

    Parameters
    ----------
    seeds : tuple of int, optional
        The value of ``--seeds``.
    seed : int, optional
        The value of ``--seed``.
    others : sequence of str
        The values of ``--set``, which may set a seed too.

    Raises
    ------
    click.UsageError
        If both are given in the same way.
    """
    one = {text: "others" for text in others if text.partition("=")[0].rpartition(".")[2] == "seed"}
    one |= {"--seed": "seed"} if seed is not None else {}
    if seeds is None or not one:
        return seeds
    context = click.get_current_context()

    def is_typed(parameter: str) -> bool:
        return context.get_parameter_source(parameter) is ParameterSource.COMMANDLINE

    name, parameter = next(((name, parameter) for name, parameter in one.items() if is_typed(parameter)), next(iter(one.items())))
    if is_typed("seeds") != is_typed(parameter):
        return seeds if is_typed("seeds") else None
    raise click.UsageError(f"{name if parameter == 'seed' else '--set ' + name} and --seeds exclude each other: give one seed, or several")


def show_seed(seeds: Sequence[int], number: int, *, run: str, base_run: str | None = None) -> None:
    """Print to stderr which seed's turn it is."""
    start = "" if base_run is None else f", from run {base_run}"
    inform(f"seed {seeds[number]} ({number + 1} of {len(seeds)}): run {run}{start}")
