"""Results read back from results.json and scores.h5, as foreign data: to draw a report again without testing again."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

from flowkit.errors import FlowkitError, ManifestError
from flowkit.files import read_file
from flowkit.model.data.whole_videos import Unreadable
from flowkit.model.evaluation.protocol import ROWS, Evaluation, RowResult, SplitEvaluation
from flowkit.model.evaluation.scores import MAX_BYTES, read_own_scores
from flowkit.model.runs.provenance import Provenance
from flowkit.model.scoring.metrics import Fusion, confusion_matrix, ranks_of_labels

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from flowkit.model.evaluation.scores import ScoreTable
    from flowkit.model.settings.training import Phase


def read_results(folder: Path) -> Evaluation:
    """Read what `flowkit.model.evaluation.results.write_results` wrote.

    Parameters
    ----------
    folder : Path
        ``reports/<run>/split<n>``.

    Returns
    -------
    Evaluation
        Of that one split. Ranks and confusion are counted anew from the scores. The scores of single streams are left out.

    Raises
    ------
    ManifestError
        If a file is missing, damaged or foreign, or the two are not of the same test.
    """
    try:
        told = _read_json(folder / "results.json")
        tables = {name: read_own_scores(folder / "scores.h5", row=name)[0] for name in ROWS if name in told["rows"]}
        rows = {name: _row(table) for name, table in tables.items()}
        if not rows or any(row.num_correct != told["rows"][name]["num_correct"] for name, row in rows.items()):
            raise ValueError("results.json and scores.h5 are not of the same test")
        table = next(iter(tables.values()))
        if list(table.classes) != told["classes"]:
            raise ValueError("results.json and scores.h5 have different classes")
        return Evaluation((_split(told, table, rows),), **_made(told))
    except (FlowkitError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as cause:
        raise ManifestError(f"{folder} does not hold results that can be read ({cause}); test again with `flowkit evaluate`") from cause


def join_results(evaluations: Sequence[Evaluation]) -> Evaluation:
    """Put the results of several splits together.

    Raises
    ------
    ManifestError
        If they were made in different ways, so that a mean over them would mean nothing.
    """
    ways = {(one.protocol, one.fusion, one.weights) for one in evaluations}
    if len(ways) != 1:
        raise ManifestError("the stored results of these splits were made with different protocols; test them together again")
    splits = tuple(split for one in evaluations for split in one.splits)
    return replace(evaluations[0], splits=splits)


def _split(told: dict[str, Any], table: ScoreTable, rows: dict[str, RowResult]) -> SplitEvaluation:
    networks: dict[Phase, Provenance] = {phase: Provenance.from_dict(made) for phase, made in told["networks"].items()}
    return SplitEvaluation(
        split=int(told["split"]),
        classes=_texts(told["classes"]),
        video_ids=table.video_ids,
        labels=_labels(table),
        rows=rows,
        stream_scores={},
        num_listed=int(told["num_listed"]),
        failed=tuple(Unreadable(*_texts((one["video_id"], one["reason"]))) for one in told["failed"]),
        untrained_classes=_texts(told["classes_without_training_video"]),
        checkpoints={phase: _texts([told["checkpoints"][phase]])[0] for phase in networks},
        warnings=_texts(told["warnings"]),
        provenances=networks,
    )


def _made(told: dict[str, Any]) -> dict[str, Any]:
    appearance, motion = told["fusion"]["weights"]
    kind: Fusion = told["fusion"]["kind"]
    if kind not in get_args(Fusion):
        raise ValueError(f"there is no fusion {kind!r}")
    environment = {name: value if isinstance(value, int) else str(value) for name, value in told["environment"].items()}
    return {
        "protocol": _texts(told["protocol"]),
        "fusion": kind,
        "weights": (float(appearance), float(motion)),
        "environment": environment,
    }


def _row(table: ScoreTable) -> RowResult:
    scores, labels = table.scores, _labels(table)
    return RowResult(scores, ranks_of_labels(scores, labels), confusion_matrix(labels, scores.argmax(1), scores.shape[1]))


def _labels(table: ScoreTable) -> NDArray[np.int64]:
    assert table.labels is not None  # `read_own_scores` promises them
    return table.labels


def _read_json(path: Path) -> dict[str, Any]:
    told = json.loads(read_file(path, most_bytes=MAX_BYTES).decode("utf-8"))
    if not isinstance(told, dict) or (told.get("format"), told.get("format_version")) != ("flowkit-results", 1):
        raise ValueError(f"{path.name} is none of flowkit's results, or of another version")
    return told


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list | tuple) or not all(isinstance(value, str) for value in values):
        raise TypeError(f"expected texts, got {str(values)[:60]}")
    return tuple(values)
