"""How flow uses the range of its quantiser: what share of it is clipped at the bound or rounded to zero, and which bound would fit.

A bound that is too small cuts motion off, and one that is too large rounds slow motion to nothing; neither shows in the bytes of a clip.
The shares are measured on every fourth pixel of every fourth row. How far clipped flow reaches is measured on a few fields that are
solved once more for a larger bound.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from flowkit.extraction.solving import quantised_flow, solver_frames
from flowkit.quantise import ZERO, Quantiser

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flowkit.dataset.settings import ExtractSettings
    from flowkit.extraction.results import VideoResult

MOST_CLIPPED, MOST_ZERO = 0.01, 0.95  # shares above which a bound does not fit
_HELD = 0.999  # of the flow, by a bound that fits
_STEP = 4  # px
_WIDER = 32  # times the bound
_MOST_MEASURED = 3  # fields of a video
_USUAL_BOUNDS = (0.25, 0.5, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100, 128, 160, 200, 256, 320, 400, 512)


class VideoRange:
    """The range of the flow of one video, batch by batch.

    Parameters
    ----------
    settings : ExtractSettings
        How the flow is made.
    """

    def __init__(self, settings: ExtractSettings) -> None:
        self._settings, self._quantiser = settings, settings.quantiser
        self._counts = np.zeros(256, np.int64)
        self._at_bound = np.zeros(256, bool)
        self._at_bound[[0, 1 if self._quantiser.mapping == "symmetric" else 0, 255]] = True
        self._num_measured, self._reach = 0, 0.0

    def add(self, frames: NDArray[np.uint8], q: NDArray[np.uint8]) -> None:
        """Take the RGB frames (n, H, W, 3) of a batch, at least the last two if it has so many, and quantised flow (m, 2, H, W)."""
        counts = np.bincount(q[:, :, ::_STEP, ::_STEP].reshape(-1), minlength=256)
        self._counts += counts
        is_clipped = counts[self._at_bound].sum() > MOST_CLIPPED * counts.sum()
        if is_clipped and len(frames) > 1 and self._num_measured < _MOST_MEASURED:
            self._num_measured += 1
            self._reach = max(self._reach, self._wider(frames[-2:]))

    def _wider(self, frames: NDArray[np.uint8]) -> float:
        """Return how far the flow between two frames reaches, px/frame, if it is not clipped."""
        wide = Quantiser(self._quantiser.bound * _WIDER)
        settings = replace(self._settings, quantiser=wide)
        if settings.solver == "cuda":  # of which another process has the GPU, for the one bound
            settings = replace(settings, solver="fast")
        q = quantised_flow(solver_frames(frames, settings), settings)
        return float(np.quantile(np.abs(wide.decode(q[:, :, ::_STEP, ::_STEP])), _HELD))

    def into(self, result: VideoResult) -> VideoResult:
        """Return the result of the video with its shares, and the bound that would fit."""
        total = int(self._counts.sum())
        if not total:
            return result
        size = np.abs(self._quantiser.decode(np.arange(256, dtype=np.uint8)).astype(np.float64))
        order = np.argsort(size, kind="stable")
        held = float(size[order][np.searchsorted(np.cumsum(self._counts[order]), _HELD * total)])
        step = 2 * self._quantiser.max_error_px
        return replace(
            result,
            clipped_share=round(float(self._counts[self._at_bound].sum()) / total, 6),
            zero_share=round(float(self._counts[ZERO]) / total, 6),
            fitting_px=round(max(held, self._reach, step), 4),
        )


@dataclass(frozen=True)
class FlowRange:
    """The range of the flow of several videos.

    Parameters
    ----------
    clipped_share, zero_share : float
        The shares of the flow that are clipped at the bound, and rounded to zero; in [0, 1].
    fitting_bound : float, px/frame
        A usual bound that would hold 99.9 % of the flow, of all but 1 % of the flow fields.
    still : tuple of str
        Videos of whose flow more than 95 % is zero.
    """

    clipped_share: float
    zero_share: float
    fitting_bound: float
    still: tuple[str, ...]

    def advice(self, bound: float) -> str:
        """Return what is wrong with a bound, and which would fit, in a sentence without a full stop; empty if it fits."""
        other = f"a bound of {self.fitting_bound:g} would hold 99.9 % of it: extract into another data root with --bound"
        if self.clipped_share > MOST_CLIPPED and self.fitting_bound > bound:
            return f"{100 * self.clipped_share:.3g} % of the flow is clipped at the bound of {bound:g} px/frame; {other}"
        if self.zero_share > MOST_ZERO and self.fitting_bound < bound / 2:
            return f"{100 * self.zero_share:.3g} % of the flow is rounded to zero with the bound of {bound:g} px/frame; {other}"
        return ""


def flow_range(results: Iterable[VideoResult]) -> FlowRange | None:
    """Return the range of the flow of these videos, each with its number of flow fields; None if it is not known of any."""
    known = sorted((result for result in results if result.fitting_px), key=lambda result: result.fitting_px)
    if not known:
        return None
    weights = np.array([max(result.num_frames - 1, 1) for result in known], np.float64)
    reach = known[int(np.searchsorted(np.cumsum(weights), 0.99 * weights.sum()))].fitting_px
    clipped, zero = (
        float(np.average([getattr(each, name) for each in known], weights=weights)) for name in ("clipped_share", "zero_share")
    )
    fitting = next((bound for bound in _USUAL_BOUNDS if bound >= reach), reach)
    still = sorted(result.video_id for result in known if result.zero_share > MOST_ZERO)
    return FlowRange(round(clipped, 6), round(zero, 6), fitting, tuple(still))
