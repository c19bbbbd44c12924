"""What a trained network says of one video."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flowkit.extraction.results import Status
from flowkit.model.data.windows_in_time import TimeWindow
from flowkit.model.scoring.metrics import softmax

FUSED = "fused"
_NAMES_SHOWN = 3


@dataclass(frozen=True, repr=False)
class Prediction:
    """The classes that a network gives one video; made by `Predictor.predict`.

    Parameters
    ----------
    path : Path
        The video file.
    status : {"ok", "damaged", "short", "undecodable", "failed"}
        As `flowkit.extract` gives it. A ``damaged`` video is classified by what could be decoded; ``failed`` means that the network
        gave scores that are not finite numbers.
    num_frames : int
        Number of frames that could be decoded.
    decode_errors : int
        Number of errors of the decoder.
    error : str
        What is damaged, or why there are no scores.
    classes : tuple of str
        Class names by label.
    scores : dict from str to float64 array, shape (C,)
        Mean logits of each stream, and their (weighted) mean as ``fused``. Empty if the video could not be classified.
    times : float64 array, shape (25,), s, optional
        The time stamps of the frames that were classified, if the file has them.
    window : TimeWindow, optional
        The part of the video that was classified, if it was not the whole one; `num_frames` is that of the part.

    Examples
    --------
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from flowkit.model import Prediction
    >>> scores = {"motion": np.array([0.0, 1.0]), "fused": np.array([0.0, 1.0])}
    >>> prediction = Prediction(Path("video.mp4"), "ok", num_frames=90, decode_errors=0, classes=("run", "walk"), scores=scores)
    >>> prediction
    <Prediction of 'video.mp4': 'walk' 73.1 %, 'run' 26.9 %>
    >>> list(prediction.probabilities)
    ['walk', 'run']
    """

    path: Path
    status: Status
    num_frames: int
    decode_errors: int
    error: str = ""
    classes: tuple[str, ...] = ()
    scores: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    times: NDArray[np.float64] | None = None
    window: TimeWindow | None = None

    @property
    def probabilities(self) -> dict[str, float]:
        """Probability (softmax of the fused scores) of each class, the most probable first; empty if there are no scores."""
        return {name: shares[FUSED] for name, shares in self.top_classes(len(self.classes))}

    def top_classes(self, count: int = 5) -> list[tuple[str, dict[str, float]]]:
        """Return the classes with the highest fused scores, each with its probability (softmax) by stream and ``fused``."""
        if not self.scores:
            return []
        probabilities = {name: softmax(values) for name, values in self.scores.items()}
        order = np.argsort(-self.scores[FUSED], kind="stable")[:count]
        return [(self.classes[label], {name: float(values[label]) for name, values in probabilities.items()}) for label in order]

    def __repr__(self) -> str:
        best = ", ".join(f"{name!r} {100 * shares[FUSED]:.1f} %" for name, shares in self.top_classes(_NAMES_SHOWN))
        return f"<{type(self).__name__} of {str(self.path)!r}: {best or f'{self.status}, {self.error}'}>"
