"""The results of an evaluation in tables: what `flowkit evaluate` prints and table.md holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from flowkit.model.evaluation.fusion_weights import weights_text
from flowkit.model.evaluation.results import Evaluation, SplitEvaluation
from flowkit.model.evaluation.row_results import RowResult, has_top5, interval_text, paired_test, paired_tests
from flowkit.model.evaluation.rows import HEADS, last_row, table_rows
from flowkit.model.scoring.metrics import p_value, percent, percent_interval
from flowkit.model.systems.registry import SYSTEMS


def results_table(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Return the paper's table as header and rows: accuracies in percent, ``-`` where a network is not trained; then the heads' rows.

    For one split it has the accuracy, its 95 % interval, the number of correct videos, the mean over classes, the p-value of the
    difference from the last row that was tested, and top-5 if there are more than five classes; for several splits, the accuracy on
    each and their unweighted mean.
    """
    splits = evaluation.splits
    if len(splits) > 1:
        header = ["top-1 %", *(f"split {split.split}" for split in splits), "mean"]
        heads = {name for split in splits for name in split.heads}
        names = [*table_rows({row for split in splits for row in split.rows}), *(name for name in HEADS if name in heads)]
        found = {name: [split.row(name) for split in splits] for name in names}
        values = {name: [None if row is None else row.top1 for row in results] for name, results in found.items()}
        return header, [[name, *map(percent, values[name]), percent(evaluation.mean_top1(name))] for name in names]
    (split,) = splits
    header = [f"split {split.split}", "top-1 %", "95 % interval", "correct", "class mean %", "p"]
    header += ["top-5 %"] if has_top5(len(split.classes)) else []
    rows = split.rows | split.heads
    return header, [[name, *(_cells(name, rows) or ["-"] * (len(header) - 1))] for name in (*table_rows(split.rows), *split.heads)]


def _cells(name: str, rows: Mapping[str, RowResult]) -> list[str]:
    row, last = rows.get(name), last_row(rows)
    if row is None or last is None:
        return []
    p = "-" if name == last else p_value(paired_test(rows, name, last).p)
    cells = [percent(row.top1), percent_interval(row.interval), f"{row.num_correct}/{len(row.ranks)}", percent(row.mean_class_accuracy), p]
    return cells if row.top5 is None else [*cells, percent(row.top5)]


def pairs_table(rows: Mapping[str, RowResult]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the paired tests: each row of the table against each other row, on the same videos."""
    header = ["row", "other row", "only row correct", "only other correct", "p"]
    return header, [[pair.first, pair.second, str(pair.only_first), str(pair.only_second), p_value(pair.p)] for pair in paired_tests(rows)]


def explanations(split: SplitEvaluation) -> list[str]:
    """Return what the columns of one split's table mean, and what accuracy needs no network, as sentences without a full stop."""
    lines = [f"95 % interval: {interval_text(split.rows)}"]
    if len(split.rows) > 1:
        lines.append(f"p: exact McNemar test of a row against {last_row(split.rows)} on the same videos; small means unlikely to be chance")
    if split.heads:
        lines.append("a head is one output of a two-stream network by itself; the row that bears the network's name joins both")
    lines += [f"{system.row}: {system.note}" for system in SYSTEMS.values() if system.note and system.row in split.rows]
    if split.majority_top1 is not None:
        lines.append(f"a guess that always names the most frequent class of the training list: {percent(split.majority_top1)} %")
    return lines


def details(split: SplitEvaluation) -> str:
    """Return as Markdown what table.md says below the table: the paired tests of the split's rows, and the explanations."""
    chosen = weights_text(split.fusion_weights)
    lines = [f"* {line}" for line in [*explanations(split), *([chosen] if chosen else [])]]
    return "\n".join([markdown(*pairs_table(split.rows)), "", *lines] if len(split.rows) > 1 else lines)


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table as Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, ["---"] * len(header), *rows])
