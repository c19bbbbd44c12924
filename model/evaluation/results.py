"""The results of an evaluation, and the files that store them, written and read.

| file | holds |
|---|---|
| ``results.json`` | accuracies, confusion matrices, provenance; written last |
| ``scores.h5`` | every video's scores, see `flowkit.model.evaluation.scores` |
| ``table.md``, ``per_class.csv`` | the results table; each class's accuracy by row |
| ``per_video.csv`` | each video's class, and what each row predicts |
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from flowkit.dataset.csv_fields import csv_line, harmless_field
from flowkit.errors import FlowkitError, ManifestError
from flowkit.files import file_sha256, replacing
from flowkit.model.data.whole_videos import Unreadable
from flowkit.model.encoding.trajectory_settings import TRAJECTORIES
from flowkit.model.evaluation.fusion_weights import ChosenWeights, FusionWeights
from flowkit.model.evaluation.row_results import RowResult, interval_dict, paired_tests
from flowkit.model.evaluation.rows import ALL_ROWS, HEADS
from flowkit.model.evaluation.scores import ScoreTable, read_own_scores, read_own_streams, write_own_scores
from flowkit.model.runs.provenance import Provenance
from flowkit.model.scoring.metrics import Fusion, percent, shares
from flowkit.model.scoring.plain_hdf5 import MAX_BYTES
from flowkit.model.scoring.scored_videos import Scores
from flowkit.model.settings.training import Phase
from flowkit.records import RecordFormat
from flowkit.versions import __version__

RESULTS = RecordFormat("flowkit-results", 1, ManifestError, "test again with `flowkit evaluate`", MAX_BYTES)


@dataclass(frozen=True)
class SplitEvaluation:
    """The results of one split.

    Parameters
    ----------
    split : int
        The split's number.
    classes : tuple of str
        Class names by label.
    video_ids : tuple of str
        Videos that were scored.
    labels : int64 array, shape (n,)
        Their classes.
    rows : dict from row to RowResult
        Rows whose networks are trained.
    stream_scores : dict from (phase, stream) to float64 array, shape (n, C)
        Mean logits.
    num_listed : int
        Number of videos in the official test list.
    failed : tuple of Unreadable
        Videos that could not be scored.
    untrained_classes : tuple of str
        Classes of test videos that no training video has.
    checkpoints : dict from phase to str
        Which weights were tested.
    warnings : tuple of str
        Differences between the data of the training and of the test.
    provenances : dict from phase to Provenance
        How those weights were made.
    majority_label : int, optional
        The class that has most training videos, the first one among equals; None if unknown.
    started : str
        When the test of this split began, in UTC (ISO 8601); empty if unknown.
    seconds : float, optional
        How long it took.
    notes : tuple of str
        Reservations: what is not known of the training of converted networks, and in what their frames and flow differ from these.
    fusion_weights : dict from row to ChosenWeights
        The weights that were chosen on validation videos for the rows that join two streams; empty if they were given.
    svms : dict from phase to dict
        On what the row of each SVM depends, such as that of improved trajectories.
    """

    split: int
    classes: tuple[str, ...]
    video_ids: tuple[str, ...]
    labels: NDArray[np.int64]
    rows: dict[str, RowResult]
    stream_scores: Scores
    num_listed: int
    failed: tuple[Unreadable, ...] = ()
    untrained_classes: tuple[str, ...] = ()
    checkpoints: dict[Phase, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    provenances: dict[Phase, Provenance] = field(default_factory=dict)
    majority_label: int | None = None
    started: str = ""
    seconds: float | None = None
    notes: tuple[str, ...] = ()
    fusion_weights: dict[str, ChosenWeights] = field(default_factory=dict)
    svms: dict[Phase, dict[str, Any]] = field(default_factory=dict)

    @cached_property
    def heads(self) -> dict[str, RowResult]:
        """The results of the outputs of two-stream networks by themselves, by their names in `HEADS`, as far as their scores are there."""
        return {
            name: RowResult.of(self.stream_scores[part], self.labels, video_ids=self.video_ids)
            for name, part in HEADS.items()
            if part in self.stream_scores
        }

    def row(self, name: str) -> RowResult | None:
        """Return the result of a row of the table or of a head; None if its network is not trained."""
        return self.rows.get(name) or self.heads.get(name)

    @property
    def majority_top1(self) -> float | None:
        """Accuracy of a guess that always names the class with most training videos; None if unknown, or no video was scored."""
        if self.majority_label is None or not len(self.labels):
            return None
        return float((self.labels == self.majority_label).mean())

    def __repr__(self) -> str:
        accuracies = ", ".join(f"{name} {percent(row.top1)} %" for name, row in self.rows.items())
        return f"<split {self.split}: {accuracies or 'no row'}; {len(self.video_ids)} of {self.num_listed} videos scored>"


@dataclass(frozen=True)
class Evaluation:
    """The results of one or several splits, and how they were made.

    Parameters
    ----------
    splits : tuple of SplitEvaluation
        One per split.
    protocol : tuple of str
        The protocol in words.
    fusion : {"logits_mean", "softmax_mean"}
        How two streams were combined.
    weights : (float, float) or "auto"
        Weights of the appearance and the motion stream. ``auto``: those that each split's `fusion_weights` give for each row.
    environment : dict
        Versions, machine, precision.
    command : str
        The command line; empty if the evaluation was made from Python.
    """

    splits: tuple[SplitEvaluation, ...]
    protocol: tuple[str, ...]
    fusion: Fusion = "logits_mean"
    weights: FusionWeights = (1.0, 1.0)
    environment: dict[str, str | int] = field(default_factory=dict)
    command: str = ""

    def mean_top1(self, row: str) -> float | None:
        """Return the unweighted mean of a row's or head's accuracy over the splits; None unless all have the row, and videos for it."""
        found = [split.row(row) for split in self.splits]
        values = [result.top1 for result in found if result is not None and len(result.ranks)]
        return float(np.mean(values)) if values and len(values) == len(self.splits) else None


def results_dict(split: SplitEvaluation, evaluation: Evaluation) -> dict[str, Any]:
    """Return the results of one split of an evaluation as built-in types, for JSON."""
    return {
        **RESULTS.header,
        "created_by": f"flowkit {__version__}",
        "command": evaluation.command,
        "time_started": split.started,
        "seconds": split.seconds,
        "split": split.split,
        "protocol": list(evaluation.protocol),
        "fusion": {
            "kind": evaluation.fusion,
            "weights": "auto" if evaluation.weights == "auto" else list(evaluation.weights),
            **({"chosen": {row: chosen.to_dict() for row, chosen in split.fusion_weights.items()}} if split.fusion_weights else {}),
        },
        "environment": dict(evaluation.environment),
        "num_listed": split.num_listed,
        "num_scored": len(split.video_ids),
        "failed": [{"video_id": clip.video_id, "reason": clip.reason} for clip in split.failed],
        "classes": list(split.classes),
        "classes_without_training_video": list(split.untrained_classes),
        "checkpoints": dict(split.checkpoints),
        "networks": {phase: made.to_dict() for phase, made in split.provenances.items()},
        "warnings": list(split.warnings),
        "notes": list(split.notes),
        **({"svms": split.svms} if split.svms else {}),
        "interval": interval_dict(split.rows),
        "majority_class": _majority(split),
        "rows": {name: row.accuracy_dict() | {"confusion": row.confusion.tolist()} for name, row in split.rows.items()},
        "heads": {name: head.accuracy_dict() for name, head in split.heads.items()},
        "comparisons": [pair.to_dict() for pair in paired_tests(split.rows)],
    }


def _majority(split: SplitEvaluation) -> dict[str, Any] | None:
    if split.majority_label is None:
        return None
    return {"label": split.majority_label, "class_name": split.classes[split.majority_label], "top1": split.majority_top1}


def write_results(folder: Path, split: SplitEvaluation, evaluation: Evaluation, *, table: str) -> list[Path]:
    """Write the results of one split of an evaluation to ``reports/<run>/split<n>``; return the paths, results.json last.

    All files are complete before the first of them takes its final name, so a full disk leaves an earlier evaluation as it was.

    Parameters
    ----------
    folder : Path
        Where to write; made if need be.
    split : SplitEvaluation
        One of the evaluation's splits.
    evaluation : Evaluation
        How the results were made.
    table : str
        The table as Markdown, and what it needs to be understood.
    """
    paths = [folder / name for name in ("table.md", "per_class.csv", "per_video.csv", "scores.h5", "results.json")]
    lines = [
        table,
        "",
        f"Scored {len(split.video_ids)} of {split.num_listed} listed videos.",
        "",
        *(f"* {line}" for line in evaluation.protocol),
    ]
    with ExitStack() as stack:
        # The names are given in the reverse order, so that of results.json last.
        record, scores, per_video, per_class, text = (stack.enter_context(replacing(path)) for path in reversed(paths))
        text.write_bytes(("\n".join(lines) + "\n").encode("utf-8"))
        per_class.write_bytes(_per_class(split).encode("utf-8"))
        per_video.write_bytes(_per_video(split, evaluation.fusion).encode("utf-8"))
        write_own_scores(
            scores,
            video_ids=split.video_ids,
            labels=split.labels,
            classes=split.classes,
            rows={name: row.scores for name, row in split.rows.items()},
            streams=split.stream_scores,
        )
        values = results_dict(split, evaluation) | {"scores_sha256": file_sha256(scores)}
        record.write_bytes((json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode("utf-8"))
    return paths


def read_results(folder: Path) -> Evaluation:
    """Read what `write_results` wrote, as foreign data.

    Returns
    -------
    Evaluation
        With that one split. Ranks and confusion matrices are counted again from the scores.

    Raises
    ------
    ManifestError
        If a file is missing, damaged or foreign, or the two files are not of the same test.
    """
    if not (folder / "results.json").is_file():
        raise ManifestError(f"{folder} holds no results; make them with `flowkit evaluate`")
    record = RESULTS.read(folder / "results.json")
    try:
        if "scores_sha256" in record and record["scores_sha256"] != file_sha256(folder / "scores.h5"):
            raise ValueError("results.json and scores.h5 are not of the same test")
        tables = {name: read_own_scores(folder / "scores.h5", row=name)[0] for name in ALL_ROWS if name in record["rows"]}
        rows = {name: RowResult.of(table.scores, _labels(table), video_ids=table.video_ids) for name, table in tables.items()}
        if not rows or any(row.num_correct != record["rows"][name]["num_correct"] for name, row in rows.items()):
            raise ValueError("results.json and scores.h5 are not of the same test")
        table = next(iter(tables.values()))
        if list(table.classes) != record["classes"]:
            raise ValueError("results.json and scores.h5 have different classes")
        streams = read_own_streams(folder / "scores.h5", shape=table.scores.shape)
        return _evaluation(record, _split(record, table, rows, streams))
    except (FlowkitError, OSError, ValueError, KeyError, TypeError, AttributeError) as cause:
        raise ManifestError(f"{folder} does not hold results that can be read ({cause}); {RESULTS.remedy}") from cause


def join_results(evaluations: Sequence[Evaluation]) -> Evaluation:
    """Put the results of several splits together.

    Raises
    ------
    ManifestError
        If they were made in different ways, so that a mean over them would mean nothing.
    """
    if len({(evaluation.protocol, evaluation.fusion, evaluation.weights) for evaluation in evaluations}) != 1:
        raise ManifestError("the stored results of these splits were made with different protocols; test them together again")
    return replace(evaluations[0], splits=tuple(split for evaluation in evaluations for split in evaluation.splits))


def _split(record: dict[str, Any], table: ScoreTable, rows: dict[str, RowResult], streams: Scores) -> SplitEvaluation:
    networks: dict[Phase, Provenance] = {phase: Provenance.from_dict(made) for phase, made in record["networks"].items()}
    return SplitEvaluation(
        split=int(record["split"]),
        classes=_texts(record["classes"]),
        video_ids=table.video_ids,
        labels=_labels(table),
        rows=rows,
        stream_scores=streams,
        num_listed=int(record["num_listed"]),
        failed=tuple(Unreadable(*_texts((video["video_id"], video["reason"]))) for video in record["failed"]),
        untrained_classes=_texts(record["classes_without_training_video"]),
        checkpoints={phase: _texts([record["checkpoints"][phase]])[0] for phase in networks},
        warnings=_texts(record["warnings"]),
        provenances=networks,
        majority_label=_label(record.get("majority_class"), table),
        started=str(record.get("time_started", "")),
        seconds=None if record.get("seconds") is None else float(record["seconds"]),
        notes=_texts(record.get("notes", ())),
        fusion_weights={str(row): ChosenWeights.from_dict(chosen) for row, chosen in record["fusion"].get("chosen", {}).items()},
        svms=_svms(record),
    )


def _svms(record: dict[str, Any]) -> dict[Phase, dict[str, Any]]:
    """Return on what SVMs depend; results from when there was one alone have it under another key."""
    alone = {TRAJECTORIES: record["trajectories"]} if "trajectories" in record else {}
    return {str(phase): dict(about) for phase, about in record.get("svms", alone).items()}


def _evaluation(record: dict[str, Any], split: SplitEvaluation) -> Evaluation:
    given = record["fusion"]["weights"]
    if given != "auto" and (not isinstance(given, list) or len(given) != 2):
        raise ValueError("fusion takes two weights")
    weights: FusionWeights = "auto" if given == "auto" else (float(given[0]), float(given[1]))
    fusion: Fusion = record["fusion"]["kind"]
    if fusion not in get_args(Fusion):
        raise ValueError(f"there is no fusion {fusion!r}")
    environment = {name: value if isinstance(value, int) else str(value) for name, value in record["environment"].items()}
    return Evaluation((split,), _texts(record["protocol"]), fusion, weights, environment, str(record.get("command", "")))


def _labels(table: ScoreTable) -> NDArray[np.int64]:
    assert table.labels is not None  # `read_own_scores` promises them
    return table.labels


def _label(majority: Any, table: ScoreTable) -> int | None:
    if majority is None:
        return None
    if not isinstance(majority["label"], int) or not 0 <= majority["label"] < len(table.classes):
        raise ValueError(f"there is no class {majority['label']!r}")
    return int(majority["label"])


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list | tuple) or not all(isinstance(value, str) for value in values):
        raise TypeError(f"expected texts, got {str(values)[:60]}")
    return tuple(values)


def _per_class(split: SplitEvaluation) -> str:
    """Return a CSV table: each class's number of test videos, and its accuracy by row."""
    lines = [csv_line(["label", "class_name", "num_videos", *map(harmless_field, split.rows)])]
    for label, name in enumerate(split.classes):
        own = split.labels == label
        shares = [f"{float((row.ranks[own] == 0).mean()):.4f}" if own.any() else "" for row in split.rows.values()]
        lines.append(csv_line([str(label), harmless_field(name), str(int(own.sum())), *shares]))
    return "".join(lines)


def _per_video(split: SplitEvaluation, fusion: Fusion) -> str:
    """Return a CSV table: each video's class and, for each row and head, what it predicts, its share, and the rank of the class, from 1."""
    results = split.rows | split.heads
    columns = [f"{name}: {what}" for name in results for what in ("predicted", "share", "rank")]
    lines = [csv_line(["video_id", "class_name", *map(harmless_field, columns)])]
    names = [harmless_field(name) for name in split.classes]
    values = []
    for name, row in results.items():
        share = shares(row.scores, fusion if name in split.rows else "logits_mean")
        values.append((row.scores.argmax(1).tolist(), share.max(1).tolist(), row.ranks.tolist()))
    for number, (video_id, label) in enumerate(zip(split.video_ids, split.labels.tolist(), strict=True)):
        cells = [cell for predicted, share, rank in values for cell in (names[predicted[number]], f"{share[number]:.4f}", rank[number] + 1)]
        lines.append(csv_line([harmless_field(video_id), names[label], *map(str, cells)]))
    return "".join(lines)
