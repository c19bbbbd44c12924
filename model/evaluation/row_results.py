"""The result of one row of the table, and whether two rows of one test differ by more than chance."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowkit.model.scoring.metrics import confusion_matrix, ranks_of_labels
from flowkit.model.scoring.significance import BOOTSTRAP_SEED, NUM_BOOTSTRAP_SAMPLES, group_interval, group_numbers, mcnemar_test

_FEWEST_CLASSES_OF_TOP5 = 6  # among five classes, the correct one is always one of the best five


@dataclass(frozen=True)
class RowResult:
    """One row of the table on one split.

    Parameters
    ----------
    scores : float64 array, shape (n, C)
        Each video's scores.
    ranks : int64 array, shape (n,)
        Rank of the correct class, 0 for the highest score.
    confusion : int64 array, shape (C, C)
        Number of videos by class and prediction.
    groups : int64 array, shape (n,), optional
        The number of each video's group (``_gNN_`` in its name); None if no two videos share one.
    """

    scores: NDArray[np.float64]
    ranks: NDArray[np.int64]
    confusion: NDArray[np.int64]
    groups: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, scores: NDArray[np.float64], labels: NDArray[np.int64], *, video_ids: Sequence[str] = ()) -> RowResult:
        """Return the result of scores for videos of these classes; their names tell which of them form groups."""
        confusion = confusion_matrix(labels, scores.argmax(1), scores.shape[1])
        return cls(scores, ranks_of_labels(scores, labels), confusion, group_numbers(video_ids))

    @property
    def is_correct(self) -> NDArray[np.bool_]:
        """Whether the correct class has the highest score, for each video."""
        return np.asarray(self.ranks == 0)

    @property
    def num_correct(self) -> int:
        """Number of videos whose correct class has the highest score."""
        return int(self.is_correct.sum())

    @property
    def top1(self) -> float:
        """Share of videos that are classified correctly; NaN if there are none."""
        return float(self.is_correct.mean()) if len(self.ranks) else math.nan

    @property
    def top5(self) -> float | None:
        """Share of videos with the correct class among the five highest scores; None for five classes or fewer."""
        if not has_top5(self.scores.shape[1]):
            return None
        return float((self.ranks < 5).mean()) if len(self.ranks) else math.nan

    @property
    def mean_class_accuracy(self) -> float:
        """Mean, over the classes that have a video, of the share of their videos that are classified correctly; NaN if there are none."""
        num_videos = self.confusion.sum(1)
        tested = num_videos > 0
        return float((np.diag(self.confusion)[tested] / num_videos[tested]).mean()) if tested.any() else math.nan

    @cached_property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of `top1`."""
        return group_interval(self.is_correct, self.groups)

    def accuracy_dict(self) -> dict[str, Any]:
        """Return the accuracy as built-in types, for JSON."""
        return {
            "top1": _number(self.top1),
            "top1_interval_95": list(self.interval),
            "mean_class_accuracy": _number(self.mean_class_accuracy),
            "top5": _number(self.top5),
            "num_correct": self.num_correct,
            "num_videos": len(self.ranks),
        }


@dataclass(frozen=True)
class PairedTest:
    """Two rows on the same videos.

    Parameters
    ----------
    first, second : str
        The rows.
    only_first, only_second : int
        Number of videos that only one of the two classifies correctly.
    """

    first: str
    second: str
    only_first: int
    only_second: int

    @property
    def p(self) -> float:
        """The p-value of the exact McNemar test: how likely so uneven a result is if both are equally good."""
        return mcnemar_test(self.only_first, self.only_second)

    def to_dict(self) -> dict[str, Any]:
        """Return the test as built-in types, for JSON."""
        return {"rows": [self.first, self.second], "only_first": self.only_first, "only_second": self.only_second, "mcnemar_p": self.p}


def paired_tests(rows: Mapping[str, RowResult]) -> list[PairedTest]:
    """Return the test of each pair of rows, which have the same videos in the same order."""
    return [paired_test(rows, first, second) for first, second in itertools.combinations(rows, 2)]


def paired_test(rows: Mapping[str, RowResult], first: str, second: str) -> PairedTest:
    """Return the test of two rows, which have the same videos in the same order."""
    one, two = rows[first].is_correct, rows[second].is_correct
    return PairedTest(first, second, int((one & ~two).sum()), int((two & ~one).sum()))


def has_top5(num_classes: int) -> bool:
    """Return whether there are enough classes for top-5 to say anything."""
    return num_classes >= _FEWEST_CLASSES_OF_TOP5


def interval_dict(rows: Mapping[str, RowResult]) -> dict[str, Any]:
    """Return how the rows' intervals are computed, as built-in types, for JSON."""
    groups = next((row.groups for row in rows.values()), None)
    if groups is None:
        return {"method": "wilson"}
    return {
        "method": "bootstrap over groups",
        "num_groups": int(groups.max()) + 1,
        "num_samples": NUM_BOOTSTRAP_SAMPLES,
        "seed": BOOTSTRAP_SEED,
    }


def interval_text(rows: Mapping[str, RowResult]) -> str:
    """Return in words how the rows' intervals are computed."""
    made = interval_dict(rows)
    if made["method"] == "wilson":
        return "Wilson's, which treats videos as independent"
    return f"bootstrap over the {made['num_groups']:,} groups (_gNN_) of the test videos"


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
