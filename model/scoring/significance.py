"""How sure an accuracy is: its interval, over groups of videos where they have groups, and the exact test of two paired results.

| what | treats as independent |
|---|---|
| `wilson_interval` | videos |
| `group_interval` | groups of videos (``_gNN_``: one actor or scene, as in UCF101) |
| `mcnemar_test` | videos |
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flowkit.video.ids import group_name

NUM_BOOTSTRAP_SAMPLES = 10_000
BOOTSTRAP_SEED = 0
_SAMPLES_AT_ONCE = 500  # bounds the memory
_Z_95 = 1.959963984540054  # 97.5 % point of the normal distribution


def wilson_interval(num_correct: int, num_videos: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of an accuracy (Wilson's score interval); (0, 1) for no videos."""
    if num_videos == 0:
        return 0.0, 1.0
    share, spread = num_correct / num_videos, _Z_95**2 / num_videos
    centre = share + spread / 2
    reach = _Z_95 * math.sqrt(share * (1 - share) / num_videos + spread / (4 * num_videos))
    return max((centre - reach) / (1 + spread), 0.0), min((centre + reach) / (1 + spread), 1.0)


def group_numbers(video_ids: Sequence[str]) -> NDArray[np.int64] | None:
    """Return the number of each video's group, from 0; None if no two videos share a ``_gNN_``, so that groups do not matter."""
    names = [group_name(video_id) for video_id in video_ids]
    numbers = {name: number for number, name in enumerate(sorted(set(names)))}
    return np.array([numbers[name] for name in names], np.int64) if len(numbers) < len(names) else None


def group_interval(is_correct: NDArray[np.bool_], groups: NDArray[np.int64] | None) -> tuple[float, float]:
    """Return the 95 % confidence interval of an accuracy whose videos come in groups.

    Parameters
    ----------
    is_correct : bool array, shape (n,)
        Whether each video is classified correctly.
    groups : int64 array, shape (n,), optional
        The number of each video's group, from 0. Without groups, the interval is Wilson's.

    Returns
    -------
    (float, float)
        The 2.5 % and 97.5 % points of the accuracy when complete groups are drawn with replacement, 10,000 times, by a fixed seed. The
        interval is never narrower than Wilson's at either end: few groups, and groups without any error, tell little about the next.

    Examples
    --------
    >>> import numpy as np
    >>> is_correct = np.array([True] * 10 + [False] * 10)
    >>> group_interval(is_correct, np.repeat([0, 1, 2, 3], 5))  # groups are correct or wrong as a whole
    (0.0, 1.0)
    >>> group_interval(is_correct, None) == wilson_interval(10, 20)
    True
    """
    low, high = wilson_interval(int(is_correct.sum()), len(is_correct))
    if groups is None or len(groups) == 0:
        return low, high
    num_correct, num_videos = np.bincount(groups, is_correct), np.bincount(groups)
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    shares = []
    for start in range(0, NUM_BOOTSTRAP_SAMPLES, _SAMPLES_AT_ONCE):
        num_samples = min(_SAMPLES_AT_ONCE, NUM_BOOTSTRAP_SAMPLES - start)
        drawn = generator.integers(0, len(num_videos), (num_samples, len(num_videos)))
        shares.append(num_correct[drawn].sum(1) / num_videos[drawn].sum(1))
    least, most = np.quantile(np.concatenate(shares), (0.025, 0.975)).tolist()
    return min(low, least), max(high, most)


def mcnemar_test(only_first: int, only_second: int) -> float:
    """Return how likely so uneven a result is if two classifiers are equally good: the exact McNemar test, two-sided.

    Parameters
    ----------
    only_first, only_second : int
        Videos that only one of the two classifies correctly. Videos on which they agree tell nothing about which is better.

    Returns
    -------
    float
        The probability that ``only_first + only_second`` tosses of a fair coin fall at least as unevenly; 1 if there are none.

    References
    ----------
    Q. McNemar, "Note on the sampling error of the difference between correlated proportions or percentages", Psychometrika 12, 1947.

    Examples
    --------
    >>> round(mcnemar_test(66, 40), 4)
    0.0148
    >>> mcnemar_test(3, 3)
    1.0
    """
    num_tosses = only_first + only_second
    ways = tail = 1  # of tosses with 0 heads, and of tosses with that many or fewer
    for heads in range(1, min(only_first, only_second) + 1):
        ways = ways * (num_tosses - heads + 1) // heads
        tail += ways
    return min(1.0, 2 * tail / (1 << num_tosses))
