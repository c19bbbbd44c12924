"""Intervals hold Newcombe's figures and respect groups; the McNemar test counts what it says."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from flowkit.model.scoring.significance import group_interval, group_numbers, mcnemar_test, wilson_interval


@pytest.mark.parametrize(
    ("num_correct", "num_videos", "interval"),
    [(81, 263, (0.2553, 0.3662)), (15, 148, (0.0624, 0.1605)), (0, 20, (0, 0.1611)), (1, 29, (0.0061, 0.1718))],
)
def test_wilson_intervals_are_those_of_newcombe_1998_table_1(num_correct: int, num_videos: int, interval: tuple[Any, ...]) -> None:
    assert wilson_interval(num_correct, num_videos) == pytest.approx(interval, abs=5e-5)
    least, most = wilson_interval(num_videos - num_correct, num_videos)
    assert (1 - most, 1 - least) == pytest.approx(interval, abs=5e-5)


def test_of_no_videos_nothing_is_known() -> None:
    assert wilson_interval(0, 0) == (0, 1)


def test_groups_are_those_of_the_names_and_none_if_no_two_videos_share_one() -> None:
    names = ["a/v_a_g01_c01", "a/v_a_g01_c02", "b/v_b_g01_c01", "b/plain", "b/plain2", "a_g01_/x", "a_g01_/y"]
    groups = group_numbers(names)
    assert groups is not None
    same = {(one, two) for one, two in itertools.combinations(range(len(names)), 2) if groups[one] == groups[two]}
    assert same == {(0, 1)}
    assert group_numbers(names[1:]) is None
    assert group_numbers([]) is None


def test_an_interval_over_groups_has_the_percentiles_of_all_ways_to_draw_them() -> None:
    groups = np.repeat(np.arange(6), [4, 9, 5, 12, 7, 3])
    is_correct = np.random.default_rng(3).random(len(groups)) < np.array([0.1, 1.0, 0.2, 0.9, 1.0, 0.4])[groups]
    right, total = np.bincount(groups, is_correct), np.bincount(groups)
    shares = [right[list(drawn)].sum() / total[list(drawn)].sum() for drawn in itertools.product(range(6), repeat=6)]
    assert group_interval(is_correct, groups) == pytest.approx(np.quantile(shares, (0.025, 0.975)), abs=0.02)
    assert group_interval(is_correct, groups) == group_interval(is_correct, groups)


def test_an_interval_over_groups_is_never_narrower_than_wilson_s() -> None:
    groups = np.repeat(np.arange(10), 5)
    for num_correct in (0, 1, 25, 50):
        is_correct = np.arange(50) < num_correct
        least, most = group_interval(np.random.default_rng(0).permutation(is_correct), groups)
        low, high = wilson_interval(num_correct, 50)
        assert least <= low
        assert most >= high
        assert group_interval(is_correct, None) == (low, high)
    assert group_interval(np.zeros(0, bool), None) == (0, 1)
    halves = group_interval(np.arange(50) < 25, groups)  # whole groups are correct or wrong: as if there were 10 videos
    low, high = wilson_interval(25, 50)
    assert halves[1] - halves[0] > 1.8 * (high - low)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (5, 0), (2, 6), (6, 2), (4, 4), (7, 5)])
def test_mcnemar_s_p_is_the_share_of_all_coin_tosses_that_are_as_uneven(first: int, second: int) -> None:
    tosses = list(itertools.product((0, 1), repeat=first + second))
    uneven = sum(abs(2 * sum(toss) - len(toss)) >= abs(first - second) for toss in tosses)
    assert mcnemar_test(first, second) == uneven / len(tosses)


def test_mcnemar_s_p_of_many_videos_is_a_number() -> None:
    for first, second in ((66, 40), (900, 800)):
        log_ways = [math.lgamma(first + second + 1) - math.lgamma(k + 1) - math.lgamma(first + second - k + 1) for k in range(second + 1)]
        expected = 2 * math.fsum(math.exp(ways - (first + second) * math.log(2)) for ways in log_ways)
        assert mcnemar_test(first, second) == pytest.approx(expected, rel=1e-9)
    assert mcnemar_test(20_000, 20_000) == 1
    assert mcnemar_test(30_000, 0) == 0
