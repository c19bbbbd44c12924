"""Windows of a long video: equal pieces of time, each with the frames whose time stamps lie in it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import ParameterError

MOST_WINDOWS = 1_000_000  # of a video
_SAME_TIME = 1e-6  # s; time stamps are rounded


@dataclass(frozen=True)
class TimeWindow:
    """One window of a video.

    Parameters
    ----------
    number : int
        Its number, from 0.
    start_seconds, end_seconds : float, s
        Its times, as the time stamps of the video count them; the last window ends with the last frame.
    start, stop : int
        Its first frame, and the one after its last.
    """

    number: int
    start_seconds: float
    end_seconds: float
    start: int
    stop: int


def check_windows(seconds: float, stride: float) -> None:
    """Raise `ParameterError` unless both are positive numbers."""
    for name, value in (("window", seconds), ("stride", stride)):
        if not 0 < value < math.inf:
            raise ParameterError(f"the {name} must be a positive number of seconds, got {value!r}")


def time_windows(times: NDArray[np.float64], *, seconds: float, stride: float) -> list[TimeWindow]:
    """Divide a video into windows.

    Parameters
    ----------
    times : float64 array, shape (T,), s
        The rising time stamps of the frames, at least one.
    seconds, stride : float, s
        The length of a window, and the distance between the starts of neighbouring ones.

    Returns
    -------
    list of TimeWindow
        Window i holds the frames from ``times[0] + i * stride`` to before ``seconds`` later. The last one is the first that reaches the
        end of the video. Windows in which no frame lies are left out.

    Examples
    --------
    >>> import numpy as np
    >>> from flowkit.model.data.windows_in_time import time_windows
    >>> times = np.arange(60) / 10
    >>> [(window.start_seconds, window.start, window.stop) for window in time_windows(times, seconds=3, stride=2)]
    [(0.0, 0, 30), (2.0, 20, 50), (4.0, 40, 60)]
    """
    check_windows(seconds, stride)
    first, last = float(times[0]), float(times[-1])
    if (last - first) / stride > MOST_WINDOWS:
        raise ParameterError(
            f"a stride of {stride:g} s would make more than {MOST_WINDOWS:,} windows of {last - first:.0f} s; take a longer one"
        )
    windows, number = [], 0
    while True:
        begin = first + number * stride
        start, stop = (int(np.searchsorted(times, edge - _SAME_TIME)) for edge in (begin, begin + seconds))
        if start < stop:
            windows.append(TimeWindow(number, begin, min(begin + seconds, last), start, stop))
        number += 1
        if begin + seconds - _SAME_TIME > last or first + number * stride - _SAME_TIME > last:
            return windows
