"""How a row joins its streams: as its publication did, as the user says, or with weights chosen on validation videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from flowkit.dataset.manifest import ClipRecord, Split
from flowkit.errors import CheckpointError, ParameterError
from flowkit.model.evaluation.rows import OWN_FUSION, ROWS, rows_of
from flowkit.model.runs.provenance import Provenance
from flowkit.model.scoring.metrics import Fusion, check_fusion, combine_scores, percent, ranks_of_labels
from flowkit.model.settings.training import Phase

FusionWeights = tuple[float, float] | Literal["auto"]
EQUAL_WEIGHTS = (1.0, 1.0)
_LEAST = np.finfo(np.float64).tiny  # so that the logarithm of a softmax of 0 is finite
GRID_STEPS = 10
GRID_TEXT = f"0 : {GRID_STEPS}, 1 : {GRID_STEPS - 1}, ... {GRID_STEPS} : 0"


@dataclass(frozen=True)
class ChosenWeights:
    """The weights of one row.

    Parameters
    ----------
    weights : (float, float)
        Of the appearance and the motion stream.
    accuracy, accuracy_equal : float
        The accuracy on the validation videos with these weights, and with equal ones.
    num_videos : int
        The number of validation videos.
    """

    weights: tuple[float, float]
    accuracy: float
    accuracy_equal: float
    num_videos: int

    def __str__(self) -> str:
        own, equal = percent(self.accuracy), percent(self.accuracy_equal)
        return f"{self.weights[0]:g} : {self.weights[1]:g} ({own} %; equal weights {equal} %)"

    def to_dict(self) -> dict[str, Any]:
        """Return it as built-in types, for JSON."""
        return {**vars(self), "weights": list(self.weights)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ChosenWeights:
        """Read what `to_dict` returned; raises `KeyError`, `TypeError` or `ValueError` if it is anything else."""
        appearance, motion = values["weights"]
        accuracies = float(values["accuracy"]), float(values["accuracy_equal"])
        return cls((float(appearance), float(motion)), *accuracies, int(values["num_videos"]))


def choose_weights(scores: Sequence[NDArray[np.float64]], labels: NDArray[np.int64], *, fusion: Fusion = "logits_mean") -> ChosenWeights:
    """Return the weights of two streams that give most videos their correct class.

    Parameters
    ----------
    scores : two float64 arrays, shape (n, C)
        The mean logits of the validation videos: appearance and motion.
    labels : int64 array, shape (n,)
        Their classes.
    fusion : {"logits_mean", "softmax_mean"}
        How the streams are joined.

    Returns
    -------
    ChosenWeights
        Of ``0 : 10``, ``1 : 9``, ... ``10 : 0``. Among equally good ones, those nearest to equal weights; of two as near, those with more
        appearance.

    Examples
    --------
    >>> import numpy as np
    >>> appearance, motion = np.array([[3.0, 0.0], [2.0, 0.0]]), np.array([[0.0, 1.0], [0.0, 4.0]])
    >>> str(choose_weights([appearance, motion], np.array([1, 1])))
    '2 : 8 (100.00 %; equal weights 50.00 %)'
    """
    half = GRID_STEPS / 2
    candidates = sorted(((GRID_STEPS - motion, motion) for motion in range(GRID_STEPS + 1)), key=lambda pair: abs(pair[1] - half))

    def accuracy(weights: tuple[float, float]) -> float:
        joined = combine_scores(scores, weights=weights, fusion=fusion)
        return float((ranks_of_labels(joined, labels) == 0).mean())

    accuracies = {weights: accuracy(weights) for weights in candidates}
    best = max(candidates, key=lambda weights: accuracies[weights])  # the first of equals
    return ChosenWeights((float(best[0]), float(best[1])), accuracies[best], accuracies[candidates[0]], len(labels))


def joined_rows(phases: Sequence[Phase]) -> list[str]:
    """Return the rows that join two streams, of those whose phases are trained."""
    return [row for row in rows_of(phases) if len(ROWS[row]) == 2]


def validation_records(split: Split, provenances: Mapping[Phase, Provenance]) -> list[ClipRecord]:
    """Return the videos that all tested networks held out for validation.

    Raises
    ------
    CheckpointError
        If a network held out none, or networks held out different ones, or the split no longer trains on them.
    ParameterError
        If no row joins two streams.
    """
    if not joined_rows(list(provenances)):
        trained = f"only {' and '.join(provenances)} is" if provenances else "no network is"
        raise ParameterError(f"fusion weights are for rows that join two streams, and {trained} trained")
    held = {made.validation_ids for made in provenances.values()}
    without = [phase for phase, made in provenances.items() if not made.validation_ids]
    if without:
        raise CheckpointError(
            f"fusion weights are chosen on validation videos, and {' and '.join(without)} held out none: train with --validation FRACTION "
            "or --validation-groups N,..., or give --fusion-weights A,M"
        )
    ids = set(held.pop())
    records = [record for record in split.train if record.video_id in ids]
    if held or len(records) != len(ids):
        why = "the networks held out different videos for validation" if held else "the split no longer trains on the validation videos"
        raise CheckpointError(f"fusion weights cannot be chosen: {why}; train them again, or give --fusion-weights A,M")
    return records


def weights_text(chosen: Mapping[str, ChosenWeights]) -> str:
    """Return in words which weights were chosen for each row; empty if none were."""
    if not chosen:
        return ""
    num_videos = next(iter(chosen.values())).num_videos
    rows = ", ".join(f"{row} {weights}" for row, weights in chosen.items())
    return f"weights (appearance : motion) chosen on {num_videos:,} validation videos: {rows}"


def joined_streams(
    row: str, scores: Sequence[NDArray[np.floating]], *, fusion: Fusion | None = None, weights: tuple[float, float] | None = None
) -> NDArray[np.float64]:
    """Return the scores of a row.

    Parameters
    ----------
    row : str
        Its name.
    scores : sequence of float array, shape (n, C)
        The mean logits of its streams.
    fusion, weights : optional
        How two streams are joined; see `combine_scores`. If neither is given, a row of a system that was published with other weights is
        joined in that way, and any other by the mean of the logits.

    Returns
    -------
    float64 array, shape (n, C)
        Of a row that is joined in its own way by the mean of the softmax, the logarithm of that mean: scores whose softmax it is.

    Examples
    --------
    >>> import numpy as np
    >>> from flowkit.model.evaluation.fusion_weights import joined_streams
    >>> appearance, motion = np.log([[0.9, 0.1]]), np.log([[0.3, 0.7]])
    >>> np.exp(joined_streams("VGG-16 two-streams", [appearance, motion])).round(3)  # 1/3 and 2/3
    array([[0.5, 0.5]])
    """
    if len(scores) == 1:
        return combine_scores(scores, weights=(1.0,), fusion=fusion or "logits_mean")
    own = OWN_FUSION.get(row)
    if own is None or fusion is not None or weights is not None:
        return combine_scores(scores, weights=weights or EQUAL_WEIGHTS, fusion=fusion or "logits_mean")
    return np.asarray(np.log(np.maximum(combine_scores(scores, weights=own, fusion="softmax_mean"), _LEAST)))


def check_joined(num_streams: int, *, fusion: Fusion | None = None, weights: tuple[float, float] | None = None) -> None:
    """Raise `ParameterError` if the streams of a row cannot be joined in this way."""
    check_fusion(num_streams, weights=weights or (1.0,) * num_streams, fusion=fusion or "logits_mean")


def own_fusion_text(rows: Sequence[str]) -> str:
    """Return which of these rows are joined in their own way, in words; empty if none is."""
    own = [
        f"{row} by the mean of the softmax, weights {OWN_FUSION[row][0]:g} : {OWN_FUSION[row][1]:g}" for row in rows if row in OWN_FUSION
    ]
    return "; ".join(own)
