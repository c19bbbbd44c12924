"""A comparison as a table, as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flowkit.errors import ManifestError
from flowkit.files import write_atomically
from flowkit.model.comparison.compared import PUBLISHED_DATA, ComparedSystem, Comparison, published_data
from flowkit.model.comparison.estimates import Estimate
from flowkit.model.evaluation.row_results import interval_text
from flowkit.model.evaluation.tables import markdown
from flowkit.model.scoring.metrics import p_value, percent, percent_interval
from flowkit.records import MAX_RECORD_BYTES, RecordFormat
from flowkit.versions import __version__

TABLE_NAME, RECORD_NAME = "compare.md", "compare.json"
COMPARISON = RecordFormat("flowkit-comparison", 1, ManifestError, "compare again with `flowkit compare`", MAX_RECORD_BYTES)
TIME_HEADING = "time to train"
PAIRS_HEADER = ["row", "other row", "only row correct", "only other correct", "p"]
_NONE = "-"


def comparison_table(made: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return header and rows: each system with its figures here, and its published ones."""
    published, has_times = published_data(made.systems), any(one.estimate is not None for one in made.systems)
    header = ["system", "row", "top-1 %", "95 % interval", "class mean %", *(f"{PUBLISHED_DATA[name]}, published" for name in published)]
    rows = [
        [one.system.name, one.system.row, *_cells(one), *_figures(one, published), *([_time(one)] if has_times else [])]
        for one in made.systems
    ]
    return [*header, *([TIME_HEADING] if has_times else [])], rows


def _time(one: ComparedSystem) -> str:
    return str(one.estimate) if one.estimate is not None else _NONE


def _cells(one: ComparedSystem) -> list[str]:
    if one.result is None:
        state = "not built" if one.system.why_not_built else "failed" if one.failure else "not trained"
        return [state, _NONE, _NONE]
    return [percent(one.result.top1), percent_interval(one.result.interval), percent(one.result.mean_class_accuracy)]


def _figures(one: ComparedSystem, published: Sequence[str]) -> list[str]:
    return [f"{one.system.published[name]:.1f}" if name in one.system.published else _NONE for name in published]


def pairs_table(made: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the paired tests of rows on the same videos."""
    return PAIRS_HEADER, [
        [pair.first, pair.second, str(pair.only_first), str(pair.only_second), p_value(pair.p)] for pair in made.paired_tests()
    ]


def notes(made: Comparison) -> list[str]:
    """Return what has to be known about the table, as sentences without a full stop."""
    rows = {one.system.row: one.result for one in made.systems if one.result is not None}
    lines = [f"95 % interval: {interval_text(rows)}"] if rows else []
    if published_data(made.systems):
        lines.append("published: top-1, mean of the three official splits of that data set, from the publication of each system")
    lines += crops_notes([one.system.name for one in made.systems if one.crops == "ten"])
    lines += time_notes([one.estimate for one in made.systems if one.estimate is not None])
    for one in made.systems:
        lines += [f"{one.system.name} failed: {one.failure}"] if one.failure else []
        lines += [f"{one.system.name}: {', '.join(one.missing)} not trained; `{one.command}` trains them"] if one.missing else []
        lines += not_built_notes({one.system.name: one.system.why_not_built})
    return lines


def not_built_notes(reasons: Mapping[str, str]) -> list[str]:
    """Return why systems are not built: system -> reason, which is empty for those that are."""
    return [f"{name} is not built: {reason}" for name, reason in reasons.items() if reason]


def crops_notes(of_ten: Sequence[str]) -> list[str]:
    """Return which systems were tested on ten crops, if any was."""
    return [f"tested on ten crops of each frame: {', '.join(of_ten)}; all others on whole frames"] if of_ten else []


def time_notes(estimates: Sequence[Estimate]) -> list[str]:
    """Return how the times to train were estimated, and why phases have none."""
    lines = []
    if any(estimate.seconds for estimate in estimates):
        how = "two steps on a few training videos that were taken now on this machine"
        begun = sorted({phase for estimate in estimates for phase in estimate.recorded})
        how += f", or from the steps that were done before: {', '.join(begun)}" if begun else ""
        lines.append(f"{TIME_HEADING}: what is missing, roughly: the steps of the recipe times the time of a step, from {how}")
    unknown = {phase: reason for estimate in estimates for phase, reason in estimate.unknown.items()}
    return lines + [f"{TIME_HEADING} of {phase}: no estimate; {reason}" for phase, reason in unknown.items()]


def differences(made: Comparison) -> list[str]:
    """Return for each system that has a result what differs from its publication."""
    return [f"{one.system.name}: {'; '.join(one.differences)}" for one in made.systems if one.result is not None and one.differences]


def comparison_dict(made: Comparison) -> dict[str, Any]:
    """Return a comparison as built-in types, for JSON."""
    rows = {one.system.row: one.result for one in made.systems if one.result is not None}
    return {
        **COMPARISON.header,
        "created_by": f"flowkit {__version__}",
        "run": made.run,
        "split": made.split.number,
        "protocol": made.split.protocol,
        "interval_text": interval_text(rows) if rows else "",
        "rows": [one.to_dict() for one in made.systems],
        "paired_tests": [pair.to_dict() for pair in made.paired_tests()],
    }


def write_comparison(folder: Path, made: Comparison) -> list[Path]:
    """Write compare.md and compare.json; return their paths."""
    paths = [folder / TABLE_NAME, folder / RECORD_NAME]
    lines = [f"# Systems of {made.run}, split {made.split.number}", "", markdown(*comparison_table(made)), ""]
    lines += [f"* {line}" for line in notes(made)]
    header, pairs = pairs_table(made)
    lines += ["", "Paired tests: exact McNemar tests on the same videos.", "", markdown(header, pairs)] if pairs else []
    if differences(made):
        lines += ["", "What differs from the publication of each system:", "", *(f"* {line}" for line in differences(made))]
    lines += ["", "Publications:", "", *(f"* {one.system.name}: {one.system.citation}" for one in made.systems)]
    write_atomically(paths[0], "\n".join(lines) + "\n")
    write_atomically(paths[1], json.dumps(comparison_dict(made), indent=1, ensure_ascii=False) + "\n")
    return paths
