"""Evaluations of the runs of several seeds in one table: the mean of each row, and its standard deviation over the seeds.

| file | holds |
|---|---|
| ``seeds.json`` | every seed's accuracies, their means and standard deviations, which runs they are of; written last |
| ``seeds.md`` | the table, the paper's figures where they may stand beside it, and what has to be known about both |
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flowkit.dataset.manifest import Split
from flowkit.errors import FlowkitError, ManifestError
from flowkit.files import replacing
from flowkit.model.evaluation.published import Comparison, compare_with_paper
from flowkit.model.evaluation.results import Evaluation, SplitEvaluation
from flowkit.model.evaluation.row_results import has_top5
from flowkit.model.evaluation.rows import ALL_ROWS, HEADS, table_rows
from flowkit.model.evaluation.tables import markdown
from flowkit.model.runs.seeds import refuse_other_differences, seed_run
from flowkit.model.scoring.metrics import percent
from flowkit.model.scoring.spread import SPREAD_NOTE, Spread
from flowkit.records import RecordFormat
from flowkit.versions import __version__
from flowkit.words import counted

SEEDS = RecordFormat("flowkit-seeds", 1, ManifestError, "make it again with `flowkit evaluate --seeds`")
SEEDS_NAME, TABLE_NAME = "seeds.json", "seeds.md"
_SEED = re.compile(r"[0-9]{1,18}")
_MOST_COLUMNS = 8  # of single seeds in a table


@dataclass(frozen=True)
class SeedEvaluation:
    """The evaluations of runs that differ in their seed only, of the same splits.

    Parameters
    ----------
    run : str
        The name before ``-seed<k>`` of the runs.
    by_seed : dict from int to Evaluation
        The evaluation of each seed's run.

    Raises
    ------
    CheckpointError
        If the runs differ in more than their seed.
    ManifestError
        If they were not tested in the same way.
    """

    run: str
    by_seed: Mapping[int, Evaluation]

    def __post_init__(self) -> None:
        tested = [(made.protocol, made.fusion, made.weights, made.environment.get("amp")) for made in self.by_seed.values()]
        if len(set(tested)) > 1:
            raise ManifestError(f"the runs of {self.run} were tested in different ways or precisions; test all seeds together again")
        for number in range(len(self.splits)):
            refuse_other_differences({seed: made.splits[number].provenances for seed, made in self.by_seed.items()}, self.run)

    @property
    def first(self) -> Evaluation:
        """The evaluation of the first seed, for what is the same in all of them."""
        return next(iter(self.by_seed.values()))

    @property
    def splits(self) -> tuple[int, ...]:
        """The numbers of the splits."""
        return tuple(split.split for split in self.first.splits)

    def of(self, split: int) -> dict[int, SplitEvaluation]:
        """Return the results of one split by seed."""
        return {seed: made.splits[self.splits.index(split)] for seed, made in self.by_seed.items()}

    def only(self, split: int) -> SeedEvaluation:
        """Return the evaluations of one of the splits."""
        number = self.splits.index(split)
        return SeedEvaluation(self.run, {seed: replace(made, splits=(made.splits[number],)) for seed, made in self.by_seed.items()})

    def names(self) -> list[str]:
        """Return the names of all rows, and of the heads that some seed has."""
        tested = {row for made in self.by_seed.values() for split in made.splits for row in split.rows}
        heads = {name for made in self.by_seed.values() for split in made.splits for name in split.heads}
        return [*table_rows(tested), *(name for name in HEADS if name in heads)]

    def spread(self, row: str, split: int, figure: str = "top1") -> Spread:
        """Return the figures of a row on a split, such as ``top1`` and ``mean_class_accuracy``, one for each seed."""
        found = [results.row(row) for results in self.of(split).values()]
        return Spread.of(None if result is None else getattr(result, figure) for result in found)

    def mean_spread(self, row: str) -> Spread:
        """Return each seed's mean accuracy over the splits."""
        return Spread.of(made.mean_top1(row) for made in self.by_seed.values())

    def remarks(self, split: int) -> list[str]:
        """Return what has to be known about the mean over the seeds on a split, as sentences without a full stop."""
        by_seed = self.of(split)
        scored = {seed: frozenset(results.video_ids) for seed, results in by_seed.items()}
        lines = []
        if len(set(scored.values())) > 1:
            counts = ", ".join(f"seed {seed}: {len(ids)}" for seed, ids in scored.items())
            lines.append(f"the seeds were not tested on the same videos, so their means differ for that reason too ({counts})")
        partly = [row for row in ALL_ROWS if 0 < sum(results.row(row) is not None for results in by_seed.values()) < len(by_seed)]
        if partly:
            lines.append(f"no mean for {', '.join(partly)}: not all seeds have the networks")
        lines += _joined({seed: [f"{warning} (--force)" for warning in results.warnings] for seed, results in by_seed.items()})
        return [*lines, *_joined({seed: results.notes for seed, results in by_seed.items()})]


def seeds_table(made: SeedEvaluation) -> tuple[list[str], list[list[str]]]:
    """Return header and rows: for one split, every seed, the mean and the standard deviation; for several, mean and deviation of each."""
    if len(made.splits) > 1:
        header = ["top-1 %, mean ± sd", *(f"split {split}" for split in made.splits), "mean of splits"]
        return header, [
            [name, *(_mean_and_sd(made.spread(name, split)) for split in made.splits), _mean_and_sd(made.mean_spread(name))]
            for name in made.names()
        ]
    (split,) = made.splits
    seeds = list(made.by_seed) if len(made.by_seed) <= _MOST_COLUMNS else []
    header = [f"split {split}, top-1 %", *(f"seed {seed}" for seed in seeds), "mean", "sd", "class mean %, mean ± sd"]
    classes = len(made.first.splits[0].classes)
    header += ["top-5 %, mean ± sd"] if has_top5(classes) else []
    rows = []
    for name in made.names():
        spread = made.spread(name, split)
        cells = [percent(value) for value in spread.values] if seeds else []
        cells += [percent(spread.mean), percent(spread.deviation), _mean_and_sd(made.spread(name, split, "mean_class_accuracy"))]
        rows.append([name, *cells, *([_mean_and_sd(made.spread(name, split, "top5"))] if has_top5(classes) else [])])
    return header, rows


def seeds_notes(made: SeedEvaluation) -> list[str]:
    """Return what the table means and how it was made, as sentences without a full stop."""
    runs = [seed_run(made.run, seed) for seed in made.by_seed]
    named = ", ".join(runs[:_MOST_COLUMNS]) + (", ..." if len(runs) > _MOST_COLUMNS else "")
    notes = [f"n = {counted(len(runs), 'seed')}: {named}", SPREAD_NOTE]
    if len(made.splits) > 1:
        notes.append("mean of splits: mean and deviation of the seeds' means over the splits, which are not weighted by numbers of videos")
    for split in made.splits:
        prefix = f"split {split}: " if len(made.splits) > 1 else ""
        notes += [prefix + text for text in made.remarks(split)]
    return [*notes, *made.first.protocol]


def _mean_and_sd(spread: Spread) -> str:
    if spread.mean is None or spread.deviation is None:
        return percent(spread.mean)
    return f"{percent(spread.mean)} ± {percent(spread.deviation)}"


def compare_seeds(made: SeedEvaluation, split: Split, *, tested: Mapping[str, Any] | None = None) -> Comparison:
    """Return whether the paper's figures may stand beside the means of a split: only if they may beside every seed, with all remarks.

    The parameters are those of `compare_with_paper`.
    """
    results = made.of(split.number)
    each = {seed: compare_with_paper(split, results[seed], evaluation, tested=tested) for seed, evaluation in made.by_seed.items()}
    published = [comparison.published for comparison in each.values()]
    return Comparison(
        published[0] if all(published) else None,
        _joined({seed: comparison.obstacles for seed, comparison in each.items()}),
        _joined({seed: comparison.differences for seed, comparison in each.items()}),
        _joined({seed: comparison.choices for seed, comparison in each.items()}),
    )


def _joined(by_seed: Mapping[int, Sequence[str]]) -> tuple[str, ...]:
    """Return the lines of all seeds, each once, with the seeds that it is about if these are not all."""
    about: dict[str, list[int]] = {}
    for seed, lines in by_seed.items():
        for line in lines:
            about.setdefault(line, []).append(seed)
    return tuple(line if len(seeds) == len(by_seed) else f"seed {', '.join(map(str, seeds))}: {line}" for line, seeds in about.items())


def seeds_dict(made: SeedEvaluation, split: int, *, comparison: Comparison | None = None, command: str = "") -> dict[str, Any]:
    """Return the results of one split as built-in types, for JSON."""
    by_seed = made.of(split)

    def figures(name: str) -> dict[str, Any]:
        return {figure: made.spread(name, split, figure).to_dict() for figure in ("top1", "mean_class_accuracy", "top5")}

    published = None if comparison is None or comparison.published is None else comparison.published
    return {
        **SEEDS.header,
        "created_by": f"flowkit {__version__}",
        "command": command,
        "split": split,
        "seeds": list(by_seed),
        "runs": {str(seed): seed_run(made.run, seed) for seed in by_seed},
        "standard_deviation": "n - 1 in the denominator",
        "protocol": list(made.first.protocol),
        "fusion": {"kind": made.first.fusion, "weights": "auto" if made.first.weights == "auto" else list(made.first.weights)},
        "environment": {str(seed): dict(evaluation.environment) for seed, evaluation in made.by_seed.items()},
        "num_listed": next(iter(by_seed.values())).num_listed,
        "num_scored": {str(seed): len(results.video_ids) for seed, results in by_seed.items()},
        "rows": {name: figures(name) for name in made.names() if name in ALL_ROWS},
        "heads": {name: figures(name) for name in made.names() if name in HEADS},
        "remarks": made.remarks(split),
        "paper": None
        if comparison is None
        else {
            "top1_percent": None if published is None else published.top1,
            "obstacles": list(comparison.obstacles),
            "differences": list(comparison.differences),
            "choices": list(comparison.choices),
        },
    }


def write_seeds(folder: Path, made: SeedEvaluation, split: int, *, comparison: Comparison, command: str = "") -> list[Path]:
    """Write seeds.md and seeds.json to ``reports/<run>/split<n>``; return their paths, seeds.json last.

    Both are complete before the first of them takes its final name.
    """
    paths = [folder / TABLE_NAME, folder / SEEDS_NAME]
    with replacing(paths[1]) as record, replacing(paths[0]) as text:
        text.write_bytes(("\n".join(_page(made, split, comparison)) + "\n").encode("utf-8"))
        values = seeds_dict(made, split, comparison=comparison, command=command)
        record.write_bytes((json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode("utf-8"))
    return paths


def _page(made: SeedEvaluation, split: int, comparison: Comparison) -> list[str]:
    """Return the lines of seeds.md."""
    one = made.only(split)
    header, rows = seeds_table(one)
    published = comparison.published
    if published is not None:
        header, rows = [*header, "paper *"], [[*row, f"{published.top1[row[0]]:.2f}" if row[0] in published.top1 else "-"] for row in rows]
    lines = [f"# {made.run}, split {split}, {counted(len(made.by_seed), 'seed')}", "", markdown(header, rows), ""]
    lines += [f"* {note}" for note in seeds_notes(one)]
    if published is not None:
        lines += [
            "",
            f"\\* {published.data_set}, Feichtenhofer, Pinz, Wildes, NIPS 2016, Table 3: top-1, mean of the three official splits.",
        ]
        for title, remarks in (
            ("Differences from the official code, whose settings the published figures stand for:", comparison.differences),
            ("What the recipe `official` does in flowkit's own way:", comparison.choices),
        ):
            lines += ["", title, "", *(f"* {line}" for line in remarks)] if remarks else []
    elif comparison.obstacles:
        lines += ["", *(f"* {line}" for line in comparison.obstacles)]
    if len(made.splits) > 1:
        lines += ["", f"All splits ({', '.join(map(str, made.splits))}):", "", markdown(*seeds_table(made))]
    return lines


def seeds_before(folder: Path) -> dict[int, str]:
    """Return the seeds, with their runs, of the table over seeds in a folder; none if there is no such table, or it cannot be read."""
    record = _read(folder)
    runs = {} if record is None else record.get("runs", {})
    return {int(seed): str(run) for seed, run in runs.items() if _SEED.fullmatch(seed)} if isinstance(runs, dict) else {}


def lost_means(folder: Path, made: SeedEvaluation, split: int) -> list[str]:
    """Return the rows for which the table over seeds in a folder has a mean and the new one has none."""
    record = _read(folder)
    rows = {} if record is None else record.get("rows", {})
    if not isinstance(rows, dict):
        return []
    before = [name for name in ALL_ROWS if isinstance(row := rows.get(name), dict) and _has_mean(row)]
    return [name for name in before if made.spread(name, split).mean is None]


def _has_mean(row: Mapping[str, Any]) -> bool:
    top1 = row.get("top1")
    return isinstance(top1, dict) and top1.get("mean") is not None


def _read(folder: Path) -> dict[str, Any] | None:
    try:
        return SEEDS.read_if_present(folder / SEEDS_NAME)
    except (FlowkitError, OSError):
        return None
