"""The rows of systems that are more than networks: SVMs on one vector for each video, and late fusion of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowkit.dataset.manifest import ClipRecord
from flowkit.model.evaluation.row_results import RowResult
from flowkit.model.evaluation.rows import SYSTEM_ROWS
from flowkit.model.scoring.metrics import l2_normalised
from flowkit.model.systems.registry import system_of_svm
from flowkit.model.training.svm_phase import SvmPhase
from flowkit.video.ids import first_few


@dataclass(frozen=True)
class SystemRows:
    """The rows that SVMs add to a table.

    Parameters
    ----------
    rows : dict from row to RowResult
        The rows, in the order of the table; none of an SVM for which a video has no features.
    notes : tuple of str
        What else is worth knowing.
    about : dict from phase to dict
        On what the scores of each SVM depend.
    """

    rows: dict[str, RowResult] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    about: dict[str, dict[str, Any]] = field(default_factory=dict)


def joined_rows(parts: Sequence[str], scores: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the scores (n, C) of a row that joins others: each video's scores are divided by their Euclidean length, then averaged."""
    return np.asarray(np.mean([l2_normalised(scores[part]) for part in parts], axis=0))


def system_rows(
    phases: Sequence[SvmPhase], records: Sequence[ClipRecord], classes: Sequence[str], networks: Mapping[str, RowResult]
) -> SystemRows:
    """Return the rows of SVMs, and those that join rows, on the same videos.

    Parameters
    ----------
    phases : sequence of SvmPhase
        The trained SVMs and their features.
    records : sequence of ClipRecord
        The videos that are scored, in the order of the rows.
    classes : sequence of str
        The names of the classes by label.
    networks : mapping from row to RowResult
        The rows of networks on these videos.

    Notes
    -----
    For a row that joins others, each video's scores are divided by their Euclidean length, row by row, then averaged, as is remembered of
    the text of the ST-ResNet paper.
    """
    labels = np.array([record.label for record in records], np.int64)
    ids = [record.video_id for record in records]
    scores: dict[str, NDArray[np.float64]] = {row: result.scores for row, result in networks.items()}
    notes: list[str] = []
    about: dict[str, dict[str, Any]] = {}
    for phase in phases:
        named = phase.description
        there = {record.video_id for record in phase.with_features(records)}
        missing = [name for name in ids if name not in there]
        if missing:
            count = f"{len(missing)} of {len(records)} videos have no features of {named.words} ({first_few(missing, most=3)})"
            notes.append(f"no rows with {named.row}: {count}; `flowkit train --system {system_of_svm(named.name)}` computes those it can")
        else:
            scores[named.row], about[named.name] = phase.scores(records, classes), phase.about()
    rows: dict[str, RowResult] = {}
    for row, joined in SYSTEM_ROWS.items():
        if joined and all(part in scores for part in joined):
            scores[row] = joined_rows(joined, scores)
        if row in scores:
            rows[row] = RowResult.of(scores[row], labels, video_ids=ids)
    return SystemRows(rows, tuple(notes), about)
