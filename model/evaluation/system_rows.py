"""The rows of systems that are more than networks: improved trajectories, and their late fusion with rows of networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flowkit.dataset.manifest import ClipRecord
from flowkit.model.evaluation.row_results import RowResult
from flowkit.model.evaluation.rows import SYSTEM_ROWS
from flowkit.model.scoring.metrics import l2_normalised
from flowkit.model.training.trajectory_phase import TrajectoryPhase
from flowkit.video.ids import first_few


@dataclass(frozen=True)
class SystemRows:
    """The rows that trajectories add to a table.

    Parameters
    ----------
    rows : dict from row to RowResult
        The rows, in the order of the table; empty if a video has no features of trajectories.
    notes : tuple of str
        What else is worth knowing.
    about : dict
        On what the scores of the trajectories depend.
    """

    rows: dict[str, RowResult] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    about: dict[str, Any] = field(default_factory=dict)


def system_rows(
    phase: TrajectoryPhase, records: Sequence[ClipRecord], classes: Sequence[str], networks: Mapping[str, RowResult]
) -> SystemRows:
    """Return the row of trajectories, and those that join it with rows of networks on the same videos.

    Parameters
    ----------
    phase : TrajectoryPhase
        The trained SVM and its features.
    records : sequence of ClipRecord
        The videos that are scored, in the order of the rows.
    classes : sequence of str
        The names of the classes by label.
    networks : mapping from row to RowResult
        The rows of networks on these videos.

    Notes
    -----
    Each video's scores are divided by their Euclidean length, row by row, then averaged, as is remembered of the text of the ST-ResNet
    paper.
    """
    there = {record.video_id for record in phase.with_features(records)}
    missing = [record.video_id for record in records if record.video_id not in there]
    if missing:
        count = f"{len(missing)} of {len(records)} videos have no features of trajectories ({first_few(missing, most=3)})"
        return SystemRows(notes=(f"no rows with IDT: {count}; `flowkit features --of idt` computes those that are missing",))
    labels = np.array([record.label for record in records], np.int64)
    ids = [record.video_id for record in records]
    scores = {row: result.scores for row, result in networks.items()}
    rows: dict[str, RowResult] = {}
    for row, joined in SYSTEM_ROWS.items():
        if not joined:
            scores[row] = phase.scores(records, classes)
        elif all(part in scores for part in joined):
            scores[row] = np.mean([l2_normalised(scores[part]) for part in joined], axis=0)
        else:
            continue
        rows[row] = RowResult.of(scores[row], labels, video_ids=ids)
    return SystemRows(rows, about=phase.about())
