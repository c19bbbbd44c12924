"""How often each quantised flow vector occurs: 65,536 counts, from which all numbers about speeds follow exactly."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from flowkit.quantise import ZERO, Quantiser


@dataclass(frozen=True)
class FlowStats:
    """Speeds, in px/frame, of all pixels of the measured flow fields.

    Parameters
    ----------
    num_fields : int
        The number of measured flow fields.
    mean_px, median_px, p90_px, p99_px, max_px : float
        Mean, percentiles and maximum of the length of (u, v).
    clipped_share : float
        The share of pixels where u or v is at the bound of the quantiser, in [0, 1]: how much flow the bound cut off.
    mean_px_per_second : float or None
        The mean speed in px/s, over the fields of videos whose frame rate is known; None if there are none. Unlike px/frame, it can be
        compared between videos of different frame rates.
    """

    num_fields: int
    mean_px: float
    median_px: float
    p90_px: float
    p99_px: float
    max_px: float
    clipped_share: float
    mean_px_per_second: float | None = None


class FlowHistogram:
    """Counts of each quantised (u, v), separately for each quantiser that occurs."""

    def __init__(self) -> None:
        self.num_fields = 0
        self.counts: dict[Quantiser, NDArray[np.int64]] = {}
        self._num_timed, self._sum_per_second = 0, 0.0  # pixels of fields whose frame rate is known, and their speeds in px/s

    def add(self, quantiser: Quantiser, q: NDArray[np.uint8], *, frame_rate: Fraction | None = None) -> None:
        """Count the pixels of flow fields (n, 2, H, W) of a video with this frame rate, 1/s; None or 0 if it is unknown."""
        pairs = q[:, 0].astype(np.intp) << 8 | q[:, 1]
        counts = np.bincount(pairs.reshape(-1), minlength=1 << 16)
        self.counts.setdefault(quantiser, np.zeros(1 << 16, np.int64))
        self.counts[quantiser] += counts
        self.num_fields += len(q)
        if frame_rate:
            self._num_timed += pairs.size
            self._sum_per_second += float(frame_rate) * float(_speeds(quantiser) @ counts)

    def merge(self, other: FlowHistogram) -> None:
        """Add the counts of another histogram."""
        self.num_fields += other.num_fields
        self._num_timed += other._num_timed
        self._sum_per_second += other._sum_per_second
        for quantiser, counts in other.counts.items():
            self.counts[quantiser] = self.counts.get(quantiser, 0) + counts

    def stats(self) -> FlowStats | None:
        """Return the speeds that follow from the counts; None if nothing was counted."""
        if not self.num_fields:
            return None
        levels = np.arange(256)
        speeds, weights, num_clipped = [], [], 0
        for quantiser, counts in self.counts.items():
            speeds.append(_speeds(quantiser))
            weights.append(counts)
            at_bound = (levels <= lowest_level(quantiser)) | (levels == 255)
            num_clipped += int(counts.reshape(256, 256)[at_bound[:, None] | at_bound[None, :]].sum())
        speed, weight = np.concatenate(speeds), np.concatenate(weights)
        order = np.argsort(speed, kind="stable")
        speed, weight = speed[order], weight[order]
        below, total = np.cumsum(weight), int(weight.sum())
        at_share = [float(speed[np.searchsorted(below, share * total)]) for share in (0.5, 0.9, 0.99)]
        return FlowStats(
            num_fields=self.num_fields,
            mean_px=round(float(speed @ weight) / total, 4),
            median_px=round(at_share[0], 4),
            p90_px=round(at_share[1], 4),
            p99_px=round(at_share[2], 4),
            max_px=round(float(speed[np.flatnonzero(weight)[-1]]), 4),
            clipped_share=num_clipped / total,
            mean_px_per_second=round(self._sum_per_second / self._num_timed, 4) if self._num_timed else None,
        )

    def components(self) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
        """Return (px/frame, count of u, count of v) for each byte of each quantiser, end to end."""
        values = [component_px(quantiser) for quantiser in self.counts]
        squares = [counts.reshape(256, 256) for counts in self.counts.values()]
        return np.concatenate(values), np.concatenate([s.sum(axis=1) for s in squares]), np.concatenate([s.sum(axis=0) for s in squares])


@lru_cache(maxsize=8)
def _speeds(quantiser: Quantiser) -> NDArray[np.float64]:
    """Return the speed that each pair of bytes (u, v) stands for, px/frame, shape (65536,)."""
    component = component_px(quantiser)
    return np.hypot(component[:, None], component[None, :]).reshape(-1)


def component_px(quantiser: Quantiser) -> NDArray[np.float64]:
    """Return the flow that each byte stands for, px/frame, with 128 as no motion (the paper mapping decodes it to half a step)."""
    component = quantiser.decode(np.arange(256, dtype=np.uint8)).astype(np.float64)
    component[ZERO] = 0.0
    return component


def lowest_level(quantiser: Quantiser) -> int:
    """Return the byte at and below which flow is at the negative bound."""
    return 1 if quantiser.mapping == "symmetric" else 0
