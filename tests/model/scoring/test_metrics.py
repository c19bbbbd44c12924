"""Arithmetic on scores: fusion, ranks, intervals, confusion."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flowkit.errors import ParameterError
from flowkit.model.scoring.metrics import combine_scores, confusion_matrix, ranks_of_labels, softmax


@pytest.fixture
def scores() -> Any:
    return np.random.default_rng(0).normal(size=(3, 40, 7))


def test_equal_weights_give_the_mean(scores: Any) -> None:
    assert np.allclose(combine_scores(list(scores[:2]), weights=(1, 1)), scores[:2].mean(0))


@pytest.mark.parametrize("fusion", ["logits_mean", "softmax_mean"])
def test_a_weight_of_zero_leaves_the_other_stream_alone(scores: Any, fusion: str) -> None:
    for weights, alone in (((1, 0), scores[0]), ((0, 2), scores[1])):
        assert np.array_equal(combine_scores(list(scores[:2]), weights=weights, fusion=fusion).argmax(1), alone.argmax(1))


def test_a_constant_added_to_one_stream_changes_no_prediction_of_the_mean(scores: Any) -> None:
    plain = combine_scores(list(scores[:2]), weights=(1, 1)).argmax(1)
    assert np.array_equal(combine_scores([scores[0] + 1000, scores[1]], weights=(1, 1)).argmax(1), plain)


def test_softmax_mean_bounds_what_one_sure_stream_can_do() -> None:
    sure, unsure = np.array([[50.0, 0, 0]]), np.array([[0, 3.0, 2.9]])
    assert combine_scores([sure, unsure], weights=(1, 1)).argmax() == 0
    assert combine_scores([sure, unsure], weights=(1, 3), fusion="softmax_mean").argmax() == 1
    assert np.allclose(combine_scores([sure, unsure], weights=(1, 1), fusion="softmax_mean").sum(1), 1)


@pytest.mark.parametrize("weights", [(0, 0), (-1, 2), (1,), (float("nan"), 1), (float("inf"), 1)])
def test_weights_that_cannot_be_are_refused(scores: Any, weights: tuple[Any, ...]) -> None:
    with pytest.raises(ParameterError, match="2 weights"):
        combine_scores(list(scores[:2]), weights=weights)


def test_an_unknown_fusion_is_refused(scores: Any) -> None:
    with pytest.raises(ParameterError, match="fusion must be one of"):
        combine_scores([scores[0]], weights=(1,), fusion="max")


def test_softmax_of_large_scores_is_finite() -> None:
    assert np.allclose(softmax(np.array([[1000.0, 1000.0, -1000.0]])), [[0.5, 0.5, 0]])


def test_ranks_count_the_classes_before_the_right_one() -> None:
    scores = np.array([[3.0, 1, 2], [3, 1, 2], [3, 1, 2], [1, 1, 1], [1, 1, 1]])
    assert ranks_of_labels(scores, np.array([0, 1, 2, 0, 2])).tolist() == [0, 2, 1, 0, 2]


def test_rank_zero_is_argmax(scores: Any) -> None:
    labels = np.random.default_rng(1).integers(0, 7, 40)
    tied = np.round(scores[0])
    assert np.array_equal(ranks_of_labels(tied, labels) == 0, tied.argmax(1) == labels)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scores_that_are_no_numbers_have_no_ranks(scores: Any, value: Any) -> None:
    scores[0][3, 2] = value
    with pytest.raises(ParameterError, match="not all scores of 1 video are finite"):
        ranks_of_labels(scores[0], np.zeros(40, np.int64))


def test_confusion_counts_by_class_and_prediction() -> None:
    counts = confusion_matrix(np.array([0, 0, 1, 2, 2]), np.array([0, 1, 1, 0, 0]), 3)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [2, 0, 0]]
