"""Which samples of a long video pass through a network together, so that the result is that of all samples at once (integers only)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from flowkit.model.settings.network_config import TEMPORAL_POOL_SIZE, NetworkConfig, pooled_length
from flowkit.model.settings.training import Phase


@dataclass(frozen=True)
class TimeShape:
    """How a network changes the time axis of a clip.

    Parameters
    ----------
    reach : int
        How many samples before and after a time step have an influence on it, before time is pooled.
    pool_stride : int
        The stride of the max pooling over time; 0 if time is not pooled.
    is_joined : bool
        Whether all samples of a clip give one time step.
    """

    reach: int = 0
    pool_stride: int = 0
    is_joined: bool = False

    @classmethod
    def of(cls, phase: Phase, config: NetworkConfig) -> TimeShape:
        """Return the time shape of the network of a phase; base streams look at each sample by itself."""
        return cls(config.temporal_reach(phase), config.temporal_stride(phase))

    def num_outputs(self, num_samples: int) -> int:
        """Return T', the number of time steps that the network gives a clip of `num_samples`."""
        if self.is_joined:
            return 1
        return pooled_length(num_samples, self.pool_stride) if self.pool_stride else num_samples

    def middle(self, output: int, num_samples: int) -> int:
        """Return the sample that a time step is about: of a pooled one, the middle of the samples that are pooled."""
        if self.is_joined:
            return num_samples // 2
        if not self.pool_stride:
            return output
        return output * self.pool_stride + min(TEMPORAL_POOL_SIZE, num_samples) // 2


@dataclass(frozen=True)
class Window:
    """Samples that pass through a network together, and which of its time steps are kept.

    Parameters
    ----------
    output : int
        The first time step of the video that this window gives.
    first, stop : int
        The first of the samples, and the one after the last.
    skipped, kept : int
        How many time steps of the network's output are not used, and how many are kept after them.
    """

    output: int
    first: int
    stop: int
    skipped: int
    kept: int


def windows(num_samples: int, shape: TimeShape, *, most: int | None) -> Iterator[Window]:
    """Yield windows whose kept time steps, joined, are those of one clip of all samples.

    Parameters
    ----------
    num_samples : int
        The number of samples of the video.
    shape : TimeShape
        What the network does to time.
    most : int or None
        The largest number of time steps that are kept of a window; None for one window.

    Notes
    -----
    A window has `reach` more samples on either side, because a temporal convolution sees zeros (or the last sample again) beyond its
    clip. Its first sample is a multiple of the pool's stride, so that the same samples are pooled together.

    Examples
    --------
    >>> from flowkit.model.scoring.windows import TimeShape, windows
    >>> for window in windows(10, TimeShape(reach=1), most=4):
    ...     print(window)
    Window(output=0, first=0, stop=5, skipped=0, kept=4)
    Window(output=4, first=3, stop=9, skipped=1, kept=4)
    Window(output=8, first=7, stop=10, skipped=1, kept=2)
    """
    if shape.is_joined:
        yield Window(0, 0, num_samples, 0, 1)
        return
    num_outputs = shape.num_outputs(num_samples)
    stride = shape.pool_stride or 1
    size = min(TEMPORAL_POOL_SIZE, num_samples) if shape.pool_stride else 1
    margin = -(-shape.reach // stride) * stride
    step = most or num_outputs
    for output in range(0, num_outputs, step):
        kept = min(step, num_outputs - output)
        first = max(0, output * stride - margin)
        stop = min(num_samples, (output + kept - 1) * stride + size + shape.reach)
        yield Window(output, first, stop, output - first // stride, kept)
