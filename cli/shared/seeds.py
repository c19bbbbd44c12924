"""The option ``--seeds``: the same command for several seeds, each in a run NAME-seed<k>, and the tables over all of them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from flowkit.cli.shared.console import inform, say, say_json, show_name, table, warn
from flowkit.cli.shared.stopping import resume_command
from flowkit.errors import ManifestError

if TYPE_CHECKING:
    from flowkit.cli.shared.options import Command
    from flowkit.dataset.root import Dataset
    from flowkit.model.evaluation.published import Comparison
    from flowkit.model.evaluation.results import Evaluation
    from flowkit.model.evaluation.seeds import SeedEvaluation

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


class SeedReports:
    """The folders ``reports/NAME/split<n>`` of a run's table over its seeds.

    Parameters
    ----------
    data : Path
        The data root.
    run : str
        The name before ``-seed<k>``.
    seeds : sequence of int
        The seeds.
    runs, reports : Path, optional
        The folders of the runs and of the reports, if they are not in the data root.
    replace : bool
        Whether earlier tables may be replaced whatever they hold.
    """

    def __init__(self, data: Path, run: str, seeds: Sequence[int], *, runs: Path | None, reports: Path | None, replace: bool) -> None:
        self.seeds = seeds
        self._data, self._run, self._runs, self._reports, self._replace = data, run, runs, reports, replace

    def of(self, split: int) -> Path:
        """Return the folder of a split."""
        from flowkit.model.runs.places import report_folder

        return report_folder(self._data, self._run, split, reports=self._reports)

    def check(self, splits: Sequence[int]) -> None:
        """Before any work: refuse to lose seeds of an earlier table, and runs that differ in more than their seed.

        Raises
        ------
        ManifestError
            If an earlier table has further seeds.
        CheckpointError
            If nothing is trained in one of the runs, or they differ in more than their seed.
        """
        from flowkit.model.evaluation.seeds import SEEDS_NAME, seeds_before
        from flowkit.model.runs.places import check_writable
        from flowkit.model.runs.recorded import recorded_run
        from flowkit.model.runs.run_folder import find_weights
        from flowkit.model.runs.seeds import refuse_other_differences, seed_run

        for split in splits:
            for seed in self.seeds:
                find_weights(self._data, run=seed_run(self._run, seed), split=split, runs=self._runs)
            made = {seed: recorded_run(self._data, seed_run(self._run, seed), split, runs=self._runs) for seed in self.seeds}
            refuse_other_differences(made, self._run)
            lost = [] if self._replace else [seed for seed in seeds_before(self.of(split)) if seed not in self.seeds]
            if lost:
                raise ManifestError(
                    f"{self.of(split) / SEEDS_NAME} has {'seeds' if len(lost) > 1 else 'seed'} {', '.join(map(str, lost))} too, which the "
                    f"new table would not have. {self._replaces()}"
                )
            check_writable(self.of(split), option="--reports DIR")

    def keep_others_out(self, splits: Sequence[int]) -> None:
        """Let no other process write tables into these folders until this command ends."""
        from flowkit.model.runs.run_folder import writing_report

        for split in splits:
            click.get_current_context().with_resource(writing_report(self.of(split), "evaluate"))

    def finish(self, evaluations: Sequence[Evaluation], dataset: Dataset, *, store: bool, as_json: bool) -> bool:
        """Write the tables over the seeds and print them; return whether they could be written without losing what earlier ones have.

        Parameters
        ----------
        evaluations : sequence of Evaluation
            One for each seed, in order.
        dataset : flowkit.Dataset
            The data root.
        store : bool
            Whether to write them: not if the results of some seed are not stored, because the two would not belong together.
        as_json : bool
            Print JSON instead of text.
        """
        from flowkit.model.evaluation.seeds import SeedEvaluation, compare_seeds, seeds_dict, seeds_notes, seeds_table
        from flowkit.model.runs.training_data import tested_extraction

        made = SeedEvaluation(self._run, dict(zip(self.seeds, evaluations, strict=True)))
        manifests = [dataset.split(number) for number in made.splits]
        comparisons = {split.number: compare_seeds(made, split, tested=tested_extraction(dataset, split)) for split in manifests}
        command = made.first.command
        complete = True
        if store:
            for number, comparison in comparisons.items():
                complete &= self._write(made, number, comparison, command)
        else:
            warn("The table over the seeds is not stored, because the results of some seed are not.")
        if as_json:
            values = [seeds_dict(made, number, comparison=comparison, command=command) for number, comparison in comparisons.items()]
            means = {row: made.mean_spread(row).to_dict() for row in made.names()}
            say_json("seeds-evaluation", {"splits": values, "mean": means}, indent=None)
        else:
            say(table(*seeds_table(made)))
            say("\n".join(f"* {line}" for line in seeds_notes(made)))
        return complete

    def _write(self, made: SeedEvaluation, split: int, comparison: Comparison, command: str) -> bool:
        """Write the table of one split, unless rows would be lost; return whether it was written."""
        from flowkit.model.evaluation.seeds import lost_means, write_seeds

        folder = self.of(split)
        lost = [] if self._replace else lost_means(folder, made, split)
        if lost:
            warn(
                f"split {split}: the table over seeds in {show_name(folder)} has a mean of {', '.join(lost)}, for which not all seeds have "
                f"a trained network now. It stays as it is, and this one is not stored. {self._replaces()}"
            )
            return False
        try:
            paths = write_seeds(folder, made, split, comparison=comparison, command=command)
        except OSError as error:
            reason = show_name(error.strerror or str(error))
            warn(f"split {split}: the table over the seeds could not be written ({reason}); the results of all seeds are stored")
            return False
        inform(f"Table over the seeds in {show_name(folder)}: {', '.join(path.name for path in paths)}.")
        return True

    @staticmethod
    def _replaces() -> str:
        return f"`{resume_command(sys.argv[1:])} --replace` replaces it, and --reports DIR writes to another folder"
