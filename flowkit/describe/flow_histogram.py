"""How often each quantised flow vector occurs: 65,536 counts, from which all numbers about speeds follow exactly."""

from __future__ import annotations

from dataclasses import dataclass

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
    """

    num_fields: int
    mean_px: float
    median_px: float
    p90_px: float
    p99_px: float
    max_px: float
    clipped_share: float


class FlowHistogram:
    """Counts of each quantised (u, v), separately for each quantiser that occurs."""

    def __init__(self) -> None:
        self.num_fields = 0
        self.counts: dict[Quantiser, NDArray[np.int64]] = {}

    def add(self, quantiser: Quantiser, q: NDArray[np.uint8]) -> None:
        """Count the pixels of flow fields (n, 2, H, W)."""
        pairs = q[:, 0].astype(np.intp) << 8 | q[:, 1]
        self.counts.setdefault(quantiser, np.zeros(1 << 16, np.int64))
        self.counts[quantiser] += np.bincount(pairs.reshape(-1), minlength=1 << 16)
        self.num_fields += len(q)

    def merge(self, other: FlowHistogram) -> None:
        """Add the counts of another histogram."""
        self.num_fields += other.num_fields
        for quantiser, counts in other.counts.items():
            self.counts[quantiser] = self.counts.get(quantiser, 0) + counts

    def stats(self) -> FlowStats | None:
        """Return the speeds that follow from the counts; None if nothing was counted."""
        if not self.num_fields:
            return None
        levels = np.arange(256)
        speeds, weights, num_clipped = [], [], 0
        for quantiser, counts in self.counts.items():
            component = component_px(quantiser)
            speeds.append(np.hypot(component[:, None], component[None, :]).reshape(-1))
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
        )

    def components(self) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
        """Return (px/frame, count of u, count of v) for each byte of each quantiser, end to end."""
        values = [component_px(quantiser) for quantiser in self.counts]
        squares = [counts.reshape(256, 256) for counts in self.counts.values()]
        return np.concatenate(values), np.concatenate([s.sum(axis=1) for s in squares]), np.concatenate([s.sum(axis=0) for s in squares])


def component_px(quantiser: Quantiser) -> NDArray[np.float64]:
    """Return the flow that each byte stands for, px/frame, with 128 as no motion (the paper mapping decodes it to half a step)."""
    component = quantiser.decode(np.arange(256, dtype=np.uint8)).astype(np.float64)
    component[ZERO] = 0.0
    return component


def lowest_level(quantiser: Quantiser) -> int:
    """Return the byte at and below which flow is at the negative bound."""
    return 1 if quantiser.mapping == "symmetric" else 0
