"""The report of a split's results: curves.png, confusion.png, and report.html, a page that needs no other file and no network.

This module collects what the page shows as plain values, and ``page.html.jinja`` lays them out. The template escapes every value,
because class names, video ids and paths may come from anyone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flowkit.dataset.manifest import Split
from flowkit.dataset.root import Dataset
from flowkit.describe.html_page import render_html
from flowkit.files import write_atomically
from flowkit.model.evaluation.fusion_weights import weights_text
from flowkit.model.evaluation.published import compare_with_paper
from flowkit.model.evaluation.results import Evaluation, SplitEvaluation
from flowkit.model.evaluation.row_results import RowResult, has_top5, interval_text
from flowkit.model.evaluation.rows import ROWS, last_row, table_rows
from flowkit.model.evaluation.tables import pairs_table, results_table
from flowkit.model.report.gallery_links import GalleryLinks, find_gallery
from flowkit.model.report.pictures import confused_videos, matrix_pictures, training_pictures
from flowkit.model.report.settings import data_facts, network_settings, test_facts
from flowkit.model.report.systems import stored_comparison
from flowkit.model.report.video_table import video_table
from flowkit.model.runs.training_data import tested_extraction
from flowkit.model.scoring.metrics import percent, percent_interval
from flowkit.words import duration

CURVES_NAME, CONFUSION_NAME, PAGE_NAME = "curves.png", "confusion.png", "report.html"

_PAGE = Path(__file__).with_suffix("")
_MOST_LISTED = 50  # lines of a notice
_LISTS = {
    "ucf101": "the official lists of UCF101",
    "hmdb51": "the official lists of HMDB51",
    "csv": "lists from a CSV file",
    "automatic": "a split that flowkit made",
}
_PAPER = "Feichtenhofer, Pinz, Wildes, NIPS 2016, Tables 3 and 4"
_SECTIONS = (
    ("results", "Results"),
    ("systems", "Systems"),
    ("training", "Training"),
    ("confusion", "Confusion matrix"),
    ("classes", "Classes"),
    ("confused", "Confused classes"),
    ("videos", "Videos"),
    ("settings", "Settings"),
)


def write_report(folder: Path, result: SplitEvaluation, evaluation: Evaluation, dataset: Dataset, *, run: str) -> list[Path]:
    """Draw and write one split's report.

    Parameters
    ----------
    folder : Path
        ``reports/<run>/split<n>``.
    result : SplitEvaluation
        The results of the split.
    evaluation : Evaluation
        The evaluation that `result` is part of. If it has several splits, the report shows their mean too.
    dataset : flowkit.Dataset
        The data root, for the manifests, and for frames and flow of confused videos.
    run : str
        The run's name.

    Returns
    -------
    list of Path
        The files that were written, report.html last. There is no curves.png without metrics, and no confusion.png without a scored
        video.

    Raises
    ------
    ManifestError
        If the split's manifest cannot be read. (If a video cannot be read, only its pictures are missing.)
    OSError
        If the folder cannot be written.
    """
    discard_report(folder)
    main = last_row(result.rows) or ""
    training, matrices = training_pictures(result), matrix_pictures(result, main)
    written = {}
    if training.encoded:
        written[folder / CURVES_NAME] = training.encoded
    if matrices:
        written[folder / CONFUSION_NAME] = matrices[0].encoded
    gallery = find_gallery(folder, dataset.root)
    compared = stored_comparison(folder, run=run, split=result.split)
    values = _values(result, evaluation, dataset, run, main, gallery, compared) | {
        "videos": video_table(result, evaluation.fusion, main, gallery=gallery),
        "phases": training.phases,
        "matrices": [matrix.values() for matrix in matrices],
    }
    written[folder / PAGE_NAME] = render_html(_PAGE, values).encode("utf-8")
    for path, contents in written.items():
        write_atomically(path, contents)
    return list(written)


def discard_report(folder: Path) -> None:
    """Remove the report of an earlier evaluation, so that it does not lie beside other numbers."""
    for name in (PAGE_NAME, CURVES_NAME, CONFUSION_NAME):
        (folder / name).unlink(missing_ok=True)


def _values(
    result: SplitEvaluation,
    evaluation: Evaluation,
    dataset: Dataset,
    run: str,
    main: str,
    gallery: GalleryLinks,
    compared: dict[str, Any] | None,
) -> dict[str, Any]:
    """Return what the page shows, except the plots."""
    split = dataset.split(result.split)
    comparison = compare_with_paper(split, result, evaluation, tested=tested_extraction(dataset, split))
    paper = comparison.published.top1 | comparison.published.top1_with_idt if comparison.published else {}
    return {
        "run": run,
        "split": result.split,
        "sections": [section for section in _SECTIONS if section[0] != "systems" or compared],
        "compared": compared,
        "lists": _LISTS.get(split.protocol, split.protocol),
        "num_classes": len(result.classes),
        "coverage": f"{len(result.video_ids):,} of {result.num_listed:,} listed test videos scored",
        "guessing": f"{100 / len(result.classes):.1f}" if result.classes else "",
        "majority": {"name": result.classes[result.majority_label], "top1": percent(result.majority_top1)}
        if result.majority_label is not None and result.majority_top1 is not None
        else None,
        "tested": _tested(result, evaluation),
        "interval_text": interval_text(result.rows),
        "top5": has_top5(len(result.classes)),
        "pairs_of_rows": pairs_table(result.rows) if len(result.rows) > 1 and len(result.video_ids) else None,
        "tiles": _tiles(result, main),
        "notices": _notices(result, split),
        "main_row": main,
        "rows": [_row_values(name, result.row(name), paper.get(name)) for name in (*table_rows(result.rows), *result.heads)],
        "heads": bool(result.heads),
        "untested": any(name not in result.rows for name in table_rows(result.rows)),
        "published": f"{comparison.published.data_set}, {_PAPER}" if comparison.published else "",
        "obstacles": comparison.obstacles,
        "differences": comparison.differences,
        "choices": comparison.choices,
        "all_splits": _all_splits(evaluation, dataset),
        "protocol": [*evaluation.protocol, *filter(None, [weights_text(result.fusion_weights)])],
        **_class_values(result, main),
        **confused_videos(result, evaluation, dataset, split, main, gallery),
        "networks": network_settings(result, dataset.root),
        "facts": [data_facts(result, split, dataset), test_facts(result, evaluation)],
    }


def _tested(result: SplitEvaluation, evaluation: Evaluation) -> str:
    """Return when, how long and on which machine the test was made, as far as it is known."""
    when = f"on {result.started[:16].replace('T', ' at ')} UTC" if result.started else ""
    machine = evaluation.environment.get("device_name") or evaluation.environment.get("cpu", "")
    known = (when, f"in {duration(result.seconds)}" if result.seconds is not None else "", f"on {machine}" if machine else "")
    return f"Tested {' '.join(filter(None, known))}. Settings has the command line and more." if any(known) else ""


def _tiles(result: SplitEvaluation, main: str) -> list[dict[str, str]]:
    tiles = []
    if main and len(result.video_ids):
        row = result.rows[main]
        note = f"top-1; 95 % interval {percent_interval(row.interval)}"
        tiles.append({"label": main, "value": f"{percent(row.top1)} %", "note": note})
        tiles.append({"label": "class mean", "value": f"{percent(row.mean_class_accuracy)} %", "note": f"mean over classes, {main}"})
        tiles.append({"label": "correct", "value": f"{row.num_correct:,} of {len(row.ranks):,}", "note": f"test videos, {main}"})
        single = [name for name in result.rows if len(ROWS.get(name, ())) == 1]
        best = max(single, key=lambda name: result.rows[name].top1, default=main)
        if best != main:
            tiles.append({"label": "best single stream", "value": f"{percent(result.rows[best].top1)} %", "note": f"top-1, {best}"})
    tiles.append({"label": "scored", "value": f"{len(result.video_ids):,} of {result.num_listed:,}", "note": "listed test videos"})
    return tiles


def _notices(result: SplitEvaluation, split: Split) -> list[dict[str, Any]]:
    """Return what readers must know before they read the numbers."""
    notices: list[dict[str, Any]] = []
    if result.warnings:
        text = "The networks were trained on other data than the test data (--force), so these numbers may be wrong:"
        notices.append({"text": text, "lines": _some(result.warnings)})
    elif not all(made.is_converted or made.digests & split.digests for made in result.provenances.values()):
        notices.append(
            {
                "text": "The split has changed since this test: the data described below may not be the tested data.",
                "lines": (),
            }
        )
    if result.notes:
        notices.append({"text": "With these reservations:", "lines": result.notes})
    if result.failed:
        text = f"Test videos that could not be scored and are left out ({len(result.failed):,}):"
        notices.append({"text": text, "lines": _some([f"{clip.video_id}: {clip.reason}" for clip in result.failed])})
    absent = result.num_listed - len(split.test)
    if absent > 0:
        text = f"{absent:,} of the {result.num_listed:,} listed test videos are not in the data (missing, or too short)."
        notices.append({"text": text, "lines": ()})
    if result.untrained_classes:
        text = (
            f"Classes that have test videos but no training video, so that these cannot be classified correctly "
            f"({len(result.untrained_classes):,}):"
        )
        notices.append({"text": text, "lines": _some(result.untrained_classes)})
    return notices


def _some(texts: Sequence[str]) -> list[str]:
    more = len(texts) - _MOST_LISTED
    return [*texts[:_MOST_LISTED], *([f"and {more:,} more (results.json)"] if more > 0 else [])]


def _row_values(name: str, row: RowResult | None, paper: float | None) -> dict[str, Any]:
    values: dict[str, Any] = {"name": name, "tested": row is not None and len(row.ranks) > 0, "paper": f"{paper:.2f}" if paper else "-"}
    if row is not None and values["tested"]:
        least, most = row.interval
        values |= {"top1": percent(row.top1), "interval": percent_interval(row.interval), "top5": percent(row.top5)}
        values |= {"class_mean": percent(row.mean_class_accuracy)}
        values |= {"correct": f"{row.num_correct:,}/{len(row.ranks):,}", "at": percent(row.top1), "low": percent(least)}
        values |= {"reach": percent(most - least)}
    return values


def _all_splits(evaluation: Evaluation, dataset: Dataset) -> dict[str, Any] | None:
    """Return the table of several splits; it has the paper's mean if that holds for each of them and they are all of its splits."""
    if len(evaluation.splits) < 2:
        return None
    header, rows = results_table(evaluation)
    by_split = [compare_with_paper(dataset.split(result.split), result, evaluation).published for result in evaluation.splits]
    published = by_split[0]
    if published and all(by_split) and sorted(result.split for result in evaluation.splits) == [*range(1, len(published.num_videos) + 1)]:
        header = [*header, "paper, mean"]
        rows = [[*row, f"{published.top1[row[0]]:.2f}" if row[0] in published.top1 else "-"] for row in rows]
    return {"header": header, "rows": rows}


def _class_values(result: SplitEvaluation, main: str) -> dict[str, Any]:
    others = [name for name in result.rows if name != main]
    classes = []
    for label in np.unique(result.labels).tolist():
        own = result.labels == label
        correct = {name: int((row.ranks[own] == 0).sum()) for name, row in result.rows.items()}
        num = int(own.sum())
        values = {"name": result.classes[label], "num": num, "correct": correct[main], "percent": f"{100 * correct[main] / num:.0f}"}
        classes.append(values | {"others": [f"{100 * correct[name] / num:.0f}" for name in others], "share": correct[main] / num})
    classes.sort(key=lambda values: (values["share"], values["name"]))
    return {"classes": classes, "other_rows": others, "num_absent": len(result.classes) - len(classes)}
