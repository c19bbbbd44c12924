"""How a row of the results table joins the scores of its streams: as its system says, or as the user does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flowkit.model.evaluation.rows import OWN_FUSION
from flowkit.model.scoring.metrics import Fusion, check_fusion, combine_scores

EQUAL_WEIGHTS = (1.0, 1.0)
_LEAST = np.finfo(np.float64).tiny  # so that the logarithm of a softmax of 0 is finite


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
    >>> from flowkit.model.evaluation.joined_streams import joined_streams
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
