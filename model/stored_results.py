"""Results read back from results.json and scores.h5, as foreign data: to draw a report again without testing again."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from flowkit.errors import FlowkitError, ManifestError
from flowkit.model.checkpoint import Provenance
from flowkit.model.dataset import Unreadable
from flowkit.model.evaluate import ROWS, Evaluation, RowResult, SplitEvaluation
from flowkit.model.metrics import Fusion, confusion_matrix, ranks_of_labels

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from flowkit.model.recipes import Phase

_MOST_BYTES = 1 << 30


def read_results(folder: Path) -> Evaluation:
    """Read what `flowkit.model.results.write_results` wrote.

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
        video_ids, labels, scores = _read_scores(folder / "scores.h5", len(told["classes"]))
        rows = {name: _row(scores[name], labels) for name in ROWS if name in scores}
        if {name: row.num_correct for name, row in rows.items()} != {name: row["num_correct"] for name, row in told["rows"].items()}:
            raise ValueError("results.json and scores.h5 are not of the same test")
        return Evaluation((_split(told, video_ids, labels, rows),), **_made(told))
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


def _split(told: dict[str, Any], video_ids: tuple[str, ...], labels: NDArray[np.int64], rows: dict[str, RowResult]) -> SplitEvaluation:
    networks: dict[Phase, Provenance] = {phase: Provenance.from_dict(made) for phase, made in told["networks"].items()}
    return SplitEvaluation(
        split=int(told["split"]),
        classes=_texts(told["classes"]),
        video_ids=video_ids,
        labels=labels,
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


def _row(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> RowResult:
    return RowResult(scores, ranks_of_labels(scores, labels), confusion_matrix(labels, scores.argmax(1), scores.shape[1]))


def _read_json(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"{path.name} is too large")
    told = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(told, dict) or (told.get("format"), told.get("format_version")) != ("flowkit-results", 1):
        raise ValueError(f"{path.name} is none of flowkit's results, or of another version")
    return told


def _read_scores(path: Path, num_classes: int) -> tuple[tuple[str, ...], NDArray[np.int64], dict[str, NDArray[np.float64]]]:
    """Return video ids, labels and each row's scores."""
    import h5py

    with h5py.File(path, "r", locking=False) as file:
        if bytes(file.attrs.get("format", b"")) != b"flowkit-scores":
            raise ValueError(f"{path.name} is none of flowkit's score files")
        ids = tuple(text.decode("utf-8") for text in _stored(file, "video_ids", "S", (None,)).tolist())
        labels = _stored(file, "labels", "i", (len(ids),)).astype(np.int64)
        rows = {name: _stored(file, f"rows/{name}", "f", (len(ids), num_classes)).astype(np.float64) for name in file.get("rows", ())}
    if len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
        raise ValueError("a label is that of no class")
    return ids, labels, rows


def _stored(file: Any, name: str, kind: str, shape: tuple[int | None, ...]) -> NDArray[Any]:
    """Read a data set that lies in this very file, of the kind and shape that it must have."""
    import h5py

    place = ""
    for part in name.split("/"):
        place = f"{place}/{part}"
        if not isinstance(file.get(place, getlink=True), h5py.HardLink):
            raise ValueError(f"{name} is missing, or lies elsewhere")
    stored = file[name]
    if not isinstance(stored, h5py.Dataset) or stored.is_virtual or stored.external:
        raise ValueError(f"{name} lies elsewhere")
    sides = zip(stored.shape, shape, strict=False)
    if stored.dtype.kind != kind or len(stored.shape) != len(shape) or any(must_be not in (None, side) for side, must_be in sides):
        raise ValueError(f"{name} has type {stored.dtype} and shape {stored.shape}")
    if stored.size * stored.dtype.itemsize > _MOST_BYTES:
        raise ValueError(f"{name} is too large")
    return np.asarray(stored[()])


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list | tuple) or not all(isinstance(value, str) for value in values):
        raise TypeError(f"expected texts, got {str(values)[:60]}")
    return tuple(values)
