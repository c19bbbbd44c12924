"""The files of an evaluation: results.json, table.md, per_class.csv, scores.h5; and the table itself."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from flowkit.files import replacing, write_atomically
from flowkit.model.evaluation.protocol import ROWS
from flowkit.versions import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from flowkit.model.evaluation.protocol import Evaluation, SplitEvaluation


def results_table(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Return the paper's table: header and rows, accuracies in percent; ``-`` where a network is not trained.

    Returns
    -------
    header : list of str
    rows : list of list of str
        One split: accuracy, its 95 % interval, number right and top-5. Several: each one's accuracy, and their unweighted mean.
    """
    if len(evaluation.splits) > 1:
        header = ["top-1 %", *(f"split {split.split}" for split in evaluation.splits), "mean"]
        rows = []
        for name in ROWS:
            values = [split.rows[name].top1 if name in split.rows else None for split in evaluation.splits]
            rows.append([name, *map(_percent, values), _percent(evaluation.mean_top1(name))])
        return header, rows
    (split,) = evaluation.splits
    header = [f"split {split.split}", "top-1 %", "95 % interval", "right", "top-5 %"]
    rows = []
    for name in ROWS:
        row = split.rows.get(name)
        if row is None:
            rows.append([name, "-", "-", "-", "-"])
        else:
            least, most = row.interval
            rows.append(
                [
                    name,
                    _percent(row.top1),
                    f"{_percent(least)} to {_percent(most)}",
                    f"{row.num_correct}/{len(row.ranks)}",
                    _percent(row.top5),
                ]
            )
    return header, rows


def results_dict(split: SplitEvaluation, evaluation: Evaluation) -> dict[str, Any]:
    """Return the results of one split of an evaluation as built-in types, for JSON."""
    return {
        "format": "flowkit-results",
        "format_version": 1,
        "created_by": f"flowkit {__version__}",
        "split": split.split,
        "protocol": list(evaluation.protocol),
        "fusion": {"kind": evaluation.fusion, "weights": list(evaluation.weights)},
        "environment": dict(evaluation.environment),
        "num_listed": split.num_listed,
        "num_scored": len(split.video_ids),
        "failed": [{"video_id": clip.video_id, "reason": clip.reason} for clip in split.failed],
        "classes": list(split.classes),
        "classes_without_training_video": list(split.untrained_classes),
        "checkpoints": dict(split.checkpoints),
        "networks": {phase: made.to_dict() for phase, made in split.provenances.items()},
        "warnings": list(split.warnings),
        "rows": {
            name: {
                "top1": _number(row.top1),
                "top1_interval_95": list(row.interval),
                "top5": _number(row.top5),
                "num_correct": row.num_correct,
                "num_videos": len(row.ranks),
                "confusion": row.confusion.tolist(),
            }
            for name, row in split.rows.items()
        },
    }


def write_results(folder: Path, split: SplitEvaluation, evaluation: Evaluation, *, table: str) -> list[Path]:
    """Write the results of one split of an evaluation.

    Parameters
    ----------
    folder : Path
        ``reports/<run>/split<n>``.
    split : SplitEvaluation
    evaluation : Evaluation
    table : str
        The table as Markdown.

    Returns
    -------
    list of Path
        What was written; results.json last.
    """
    paths = [folder / name for name in ("table.md", "per_class.csv", "scores.h5", "results.json")]
    lines = [
        table,
        "",
        f"Scored {len(split.video_ids)} of {split.num_listed} listed videos.",
        "",
        *(f"* {line}" for line in evaluation.protocol),
    ]
    write_atomically(paths[0], "\n".join(lines) + "\n")
    write_atomically(paths[1], _per_class(split))
    _write_scores(paths[2], split)
    write_atomically(paths[3], json.dumps(results_dict(split, evaluation), indent=1, ensure_ascii=False) + "\n")
    return paths


def _per_class(split: SplitEvaluation) -> str:
    """Return a CSV table: each class's test videos and its accuracy by row."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["label", "class_name", "num_videos", *split.rows])
    for label, name in enumerate(split.classes):
        own = split.labels == label
        shares = [f"{float((row.ranks[own] == 0).mean()):.4f}" if own.any() else "" for row in split.rows.values()]
        writer.writerow([label, name, int(own.sum()), *shares])
    return text.getvalue()


def _write_scores(path: Path, split: SplitEvaluation) -> None:
    """Write every video's scores: a group a row with `scores` (n, C), and one with the mean logits of each phase's streams."""
    import h5py

    with replacing(path) as part, h5py.File(part, "w", track_order=False) as file:
        file.attrs["format"] = np.bytes_("flowkit-scores")
        file.attrs["format_version"] = 1
        file["video_ids"] = _texts(split.video_ids)
        file["labels"] = split.labels
        file["classes"] = _texts(split.classes)
        for name, row in split.rows.items():
            file[f"rows/{name}"] = row.scores
        for (phase, stream), scores in split.stream_scores.items():
            file[f"streams/{phase}/{stream}"] = scores


def _texts(texts: Sequence[str]) -> np.ndarray[Any, Any]:
    """Return texts as fixed-length UTF-8."""
    import h5py

    encoded = [text.encode("utf-8") for text in texts]
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", max(map(len, encoded), default=1) or 1))


def _percent(share: float | None) -> str:
    return "-" if share is None or math.isnan(share) else f"{100 * share:.2f}"


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
