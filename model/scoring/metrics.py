"""Ranks, confusion, combined scores: arithmetic on arrays of scores, and how results are written in text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import ParameterError
from flowkit.words import counted

Fusion = Literal["logits_mean", "softmax_mean"]


def combine_scores(
    scores: Sequence[NDArray[np.floating]], *, weights: Sequence[float], fusion: Fusion = "logits_mean"
) -> NDArray[np.float64]:
    """Combine the scores of several classifiers for the same videos.

    Parameters
    ----------
    scores : sequence of float array, shape (n, C)
        Mean logits of each video, one array per classifier.
    weights : sequence of float
        One per classifier; not negative, not all zero.
    fusion : {"logits_mean", "softmax_mean"}
        The weighted mean of the scores, or of their softmax.

    Returns
    -------
    float64 array, shape (n, C)

    Raises
    ------
    ParameterError
        If the weights do not fit, or `fusion` is not one of these.
    """
    check_fusion(len(scores), weights=weights, fusion=fusion)
    given = [np.asarray(part, dtype=np.float64) for part in scores]
    if fusion == "softmax_mean":
        given = [softmax(part) for part in given]
    total = sum(weight * part for weight, part in zip(weights, given, strict=True))
    return np.asarray(total / sum(weights))


def check_fusion(num_classifiers: int, *, weights: Sequence[float], fusion: Fusion = "logits_mean") -> None:
    """Raise `ParameterError` if the scores of so many classifiers cannot be combined in this way; see `combine_scores`."""
    if len(weights) != num_classifiers or not all(0 <= weight < math.inf for weight in weights) or not sum(weights) > 0:
        raise ParameterError(f"fusion needs {num_classifiers} weights of at least 0, not all 0, got {list(weights)}")
    if fusion not in get_args(Fusion):
        raise ParameterError(f"fusion must be one of {', '.join(get_args(Fusion))}, got {fusion!r}")


def softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the softmax over the last axis."""
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True))


def l2_normalised(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide each video's scores (n, C) by their Euclidean length; zeros stay zeros."""
    length = np.linalg.norm(scores, axis=1, keepdims=True)
    return np.asarray(scores / np.where(length > 0, length, 1))


def shares(scores: NDArray[np.float64], fusion: Fusion) -> NDArray[np.float64]:
    """Return the share of each class (n, C) in combined scores: their softmax, or the scores themselves if they are means of it."""
    return scores if fusion == "softmax_mean" else softmax(scores)


def ranks_of_labels(scores: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return the rank of each video's class, 0 for the highest score; among equal scores, the lower class comes first.

    Raises
    ------
    ParameterError
        If a score is not a finite number: nothing is higher than NaN, so it would count as correct.
    """
    if not np.isfinite(scores).all():
        raise ParameterError(f"not all scores of {counted(int((~np.isfinite(scores).all(1)).sum()), 'video')} are finite numbers")
    own = np.take_along_axis(scores, labels[:, None], 1)
    before = np.arange(scores.shape[1]) < labels[:, None]
    return np.asarray(((scores > own) | ((scores == own) & before)).sum(1), dtype=np.int64)


def cross_entropy(scores: NDArray[np.float64], labels: NDArray[np.integer]) -> float:
    """Return the mean over videos of the cross-entropy of the softmax of their scores (n, C), in nats; guessing gives ln C."""
    most = scores.max(1, keepdims=True)
    totals = most + np.log(np.exp(scores - most).sum(1, keepdims=True))
    return float((totals - np.take_along_axis(scores, labels[:, None], 1)).mean())


def confusion_matrix(labels: NDArray[np.integer], predictions: NDArray[np.integer], num_classes: int) -> NDArray[np.int64]:
    """Count videos by class (row) and prediction (column)."""
    counts = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(counts, (labels, predictions), 1)
    return counts


def percent(share: float | None) -> str:
    """Return a share in percent, to two decimals; ``-`` for None and NaN."""
    return "-" if share is None or math.isnan(share) else f"{100 * share:.2f}"


def percent_interval(interval: tuple[float, float]) -> str:
    """Return an interval of shares in percent: ``81.20 to 83.40``."""
    return " to ".join(map(percent, interval))


def p_value(value: float) -> str:
    """Return a p-value as text: ``0.0148``, ``< 0.0001``."""
    return f"{value:.4f}" if value >= 0.0001 else "< 0.0001"
