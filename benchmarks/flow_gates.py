"""The distance between two flows, and its gates: how far the GPU solver may be from the CPU's strict solver."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from flowkit.quantise import Quantiser

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class FlowDistance:
    """The differences of two flows over all their pixels.

    The maximum is left out, because a few occluded pixels differ by 10-30 px after any change of a last digit.
    """

    mean_epe_px: float
    p99_epe_px: float
    share_over_one_level: float  # of the bytes, at bound 20 px, that differ by more than one level

    @classmethod
    def between(cls, flow: NDArray[np.float32], reference: NDArray[np.float32]) -> FlowDistance:
        """Compare float flows of shape (..., 2, H, W)."""
        distance = np.hypot(*np.moveaxis(flow - reference, -3, 0))
        quantiser = Quantiser()
        levels = np.abs(quantiser.encode(flow).astype(np.int16) - quantiser.encode(reference))
        return cls(float(distance.mean()), float(np.percentile(distance, 99)), float((levels > 1).mean()))

    def within(self, gates: FlowDistance) -> bool:
        """Return whether every number is within its gate."""
        return all(value <= asdict(gates)[name] for name, value in asdict(self).items())  # false for NaN

    def __str__(self) -> str:
        return f"mean {self.mean_epe_px:.4f} px, p99 {self.p99_epe_px:.3f} px, q>1 {100 * self.share_over_one_level:.3f} %"


GPU_GATES = FlowDistance(0.03, 0.2, 0.005)
