"""All systems in one table for the browser: compare.html, and the same as a section of the report, from what compare.json holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flowkit.describe.html_page import render_html
from flowkit.errors import ManifestError
from flowkit.files import write_atomically
from flowkit.model.comparison.compared import PUBLISHED_DATA
from flowkit.model.comparison.estimates import Estimate
from flowkit.model.comparison.table import COMPARISON, PAIRS_HEADER, RECORD_NAME, crops_notes, not_built_notes, time_notes
from flowkit.model.scoring.metrics import p_value, percent, percent_interval

COMPARE_NAME = "compare.html"
_FOLDER = Path(__file__).parent
_NONE = "-"


def write_compare_page(folder: Path, record: Mapping[str, Any]) -> Path:
    """Write the page of a comparison beside its other files; return its path."""
    values = {"run": record["run"], "compared": compared_values(record)}
    path = folder / COMPARE_NAME
    write_atomically(path, render_html(_FOLDER / "compare", values, style_of=_FOLDER / "page").encode("utf-8"))
    return path


def stored_comparison(folder: Path, *, run: str, split: int) -> dict[str, Any] | None:
    """Return what the report shows of the comparison in a folder; None if there is none of this run and split that can be read."""
    if not (folder / RECORD_NAME).is_file():
        return None
    try:
        record = COMPARISON.read(folder / RECORD_NAME)
        return compared_values(record) if (record["run"], record["split"]) == (run, split) else None
    except (
        ManifestError,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
    ):  # of another version, or foreign: it is not this report's matter
        return None


def compared_values(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the pages show of a comparison, as it is in compare.json."""
    rows = record["rows"]
    published = [name for name in PUBLISHED_DATA if any(name in row["published_percent"] for row in rows)]
    estimates = {row["system"]: Estimate.from_dict(row["time_to_train"]) for row in rows if "time_to_train" in row}
    return {
        "split": int(record["split"]),
        "published": [PUBLISHED_DATA[name] for name in published],
        "interval_text": str(record["interval_text"]),
        "num_tested": sum(_is_tested(row) for row in rows),
        "rows": [_row(row, published, estimates.get(row["system"])) for row in rows],
        "notes": [
            *crops_notes([str(row["system"]) for row in rows if row.get("crops") == "ten"]),
            *time_notes(list(estimates.values())),
            *(f"{row['system']} failed: {row['failure']}" for row in rows if row["failure"]),
            *not_built_notes({str(row["system"]): str(row.get("not_built", "")) for row in rows}),
        ],
        "commands": [
            {"system": row["system"], "phases": ", ".join(row["missing_phases"]), "command": row["command"]}
            for row in rows
            if row["command"]
        ],
        "differences": [{"system": row["system"], "lines": row["differences"]} for row in rows if _is_tested(row) and row["differences"]],
        "pairs_header": PAIRS_HEADER,
        "pairs": [
            [*map(str, pair["rows"]), str(pair["only_first"]), str(pair["only_second"]), p_value(float(pair["mcnemar_p"]))]
            for pair in record["paired_tests"]
        ],
        "publications": [{"system": row["system"], "citation": row["citation"]} for row in rows],
    }


def _is_tested(row: Mapping[str, Any]) -> bool:
    return row.get("top1") is not None


def _row(row: Mapping[str, Any], published: Sequence[str], estimate: Estimate | None) -> dict[str, Any]:
    figures = row["published_percent"]
    values: dict[str, Any] = {
        "system": row["system"],
        "row": row["row"],
        "tested": _is_tested(row),
        "state": "not built" if row.get("not_built") else "failed" if row["failure"] else "not trained",
        "figures": [f"{float(figures[name]):.1f}" if name in figures else _NONE for name in published],
        "time": "" if estimate is None else str(estimate),
    }
    if values["tested"]:
        low, high = map(float, row["top1_interval_95"])
        values |= {
            "top1": percent(row["top1"]),
            "interval": percent_interval((low, high)),
            "class_mean": percent(row["mean_class_accuracy"]),
        }
        values |= {"at": percent(row["top1"]), "low": percent(low), "reach": percent(high - low)}
    return values
