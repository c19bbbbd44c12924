"""The results of one split from the scores of its test videos: the rows of networks and of SVMs, and how they were made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from flowkit.dataset.manifest import Split
from flowkit.dataset.root import Dataset
from flowkit.model.data.whole_videos import Unreadable
from flowkit.model.evaluation.fusion_weights import ChosenWeights, FusionWeights, joined_streams
from flowkit.model.evaluation.results import SplitEvaluation
from flowkit.model.evaluation.row_results import RowResult
from flowkit.model.evaluation.rows import ROWS, rows_of
from flowkit.model.evaluation.system_rows import system_rows
from flowkit.model.runs.provenance import Provenance
from flowkit.model.runs.training_data import reservations, tested_extraction
from flowkit.model.scoring.metrics import Fusion
from flowkit.model.scoring.scored_videos import VideoScores, stream_scores
from flowkit.model.scoring.tested_networks import TestedNetworks
from flowkit.model.settings.training import Phase
from flowkit.model.training.svm_phase import SvmPhase


@dataclass(frozen=True)
class NetworkScores:
    """The scores that networks gave the test videos, and how these networks were made.

    Parameters
    ----------
    scored : dict from video id to (dict from (phase, stream) to float64 array, shape (C,))
        The mean logits of each video.
    failed : tuple of Unreadable
        The videos that have none.
    parts : tuple of (str, str)
        The phase and the stream of each score of a video.
    sources : dict from phase to str
        Where the weights were found.
    provenances : dict from phase to Provenance
        How they were made.
    warnings : tuple of str
        In what the data of the training and of the test differ.
    """

    scored: Mapping[str, VideoScores]
    failed: tuple[Unreadable, ...] = ()
    parts: tuple[tuple[Phase, str], ...] = ()
    sources: Mapping[Phase, str] = field(default_factory=dict)
    provenances: Mapping[Phase, Provenance] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, networks: TestedNetworks, scored: Mapping[str, VideoScores], failed: Sequence[Unreadable]) -> NetworkScores:
        """Return the scores that these networks gave."""
        return cls(scored, tuple(failed), networks.parts, networks.sources, networks.provenances, networks.warnings)

    @classmethod
    def joined(cls, several: Sequence[NetworkScores]) -> NetworkScores:
        """Return the scores of networks that were tested one after the other; a video that any of them has no scores of has none."""
        ids = [video_id for video_id in several[0].scored if all(video_id in one.scored for one in several)]
        failed = {clip.video_id: clip for one in reversed(several) for clip in one.failed}
        return cls(
            {video_id: {part: values for one in several for part, values in one.scored[video_id].items()} for video_id in ids},
            tuple(failed.values()),
            tuple(part for one in several for part in one.parts),
            {phase: source for one in several for phase, source in one.sources.items()},
            {phase: made for one in several for phase, made in one.provenances.items()},
            tuple(dict.fromkeys(text for one in several for text in one.warnings)),
        )


def split_results(
    dataset: Dataset,
    split: Split,
    networks: NetworkScores | None,
    svms: Sequence[SvmPhase],
    *,
    fusion: Fusion | None = None,
    weights: FusionWeights | None = None,
    chosen: Mapping[str, ChosenWeights] | None = None,
) -> SplitEvaluation:
    """Return the results of a split.

    Parameters
    ----------
    dataset : flowkit.Dataset
        The data root.
    split : flowkit.Split
        The split.
    networks : NetworkScores, optional
        The scores of its test videos by networks, if any were tested.
    svms : sequence of SvmPhase
        The trained SVMs that belong to what is tested. Without networks there must be one.
    fusion : {"logits_mean", "softmax_mean"}, optional
        How two streams are combined; see `flowkit.model.evaluation.fusion_weights.joined_streams`.
    weights : (float, float) or "auto", optional
        Weights of the appearance and the motion stream. ``auto``: those of each row are in `chosen`.
    chosen : dict from row to ChosenWeights, optional
        The weights that were chosen on validation videos.

    Returns
    -------
    SplitEvaluation
        Without the time that the test took.
    """
    chosen = dict(chosen or {})
    if networks is not None:
        records = [record for record in split.test if record.video_id in networks.scored]
    else:
        records = list(split.test)
        failed: list[Unreadable] = []
        for svm in svms:
            there = svm.with_features(records)
            without = {record.video_id for record in records} - {record.video_id for record in there}
            failed += [Unreadable(video_id, f"it has no features of {svm.description.words}") for video_id in without]
            records = there
        networks = NetworkScores({}, tuple(failed))
    labels = np.array([record.label for record in records], dtype=np.int64)
    video_ids = [record.video_id for record in records]
    scores = stream_scores(networks.scored, video_ids, parts=networks.parts, num_classes=len(split.classes))
    rows = {}
    for row in rows_of(networks.provenances):
        parts = [scores[part] for part in ROWS[row]]
        pair = chosen[row].weights if row in chosen else None if weights == "auto" else weights
        rows[row] = RowResult.of(joined_streams(row, parts, fusion=fusion, weights=pair), labels, video_ids=video_ids)
    more = system_rows(svms, records, split.classes, rows)
    trained = Counter(record.label for record in split.train)
    extraction = tested_extraction(dataset, split) or {}
    return SplitEvaluation(
        split=split.number,
        classes=split.classes,
        video_ids=tuple(video_ids),
        labels=labels,
        rows=rows | more.rows,
        stream_scores=scores,
        num_listed=split.num_listed_test,
        failed=tuple(sorted(networks.failed, key=lambda clip: clip.video_id)),
        untrained_classes=tuple(split.classes[label] for label in sorted({record.label for record in split.test} - trained.keys())),
        checkpoints=dict(networks.sources),
        warnings=networks.warnings,
        provenances=dict(networks.provenances),
        fusion_weights=chosen,
        notes=tuple(
            dict.fromkeys([*(text for made in networks.provenances.values() for text in reservations(made, extraction)), *more.notes])
        ),
        svms=more.about,
        majority_label=min(trained, key=lambda label: (-trained[label], label), default=None),
    )
