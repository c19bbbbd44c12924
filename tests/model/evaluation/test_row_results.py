"""What a row says of its accuracy, and what two rows on the same videos say of each other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flowkit.model.evaluation.results import Evaluation, SplitEvaluation
from flowkit.model.evaluation.row_results import RowResult, interval_dict, interval_text, paired_tests
from flowkit.model.evaluation.tables import details, pairs_table, results_table
from flowkit.model.scoring.significance import wilson_interval

LABELS = np.array([0] * 16 + [1] * 2)


def row_of(predictions: np.ndarray, *, num_classes: int = 2, video_ids: tuple[str, ...] = ()) -> RowResult:
    return RowResult.of(np.eye(num_classes)[predictions], LABELS, video_ids=video_ids)


def split_of(**rows: RowResult) -> SplitEvaluation:
    names = tuple(f"v{k}" for k in range(len(LABELS)))
    classes = tuple(f"c{k}" for k in range(next(iter(rows.values())).scores.shape[1]))
    return SplitEvaluation(1, classes, names, LABELS, rows, {}, len(LABELS), majority_label=0)


def test_a_network_that_always_names_the_frequent_class_is_seen_as_such() -> None:
    split = split_of(motion=row_of(LABELS * 0))
    row = split.rows["motion"]
    assert row.top1 == split.majority_top1 == pytest.approx(16 / 18)
    assert row.mean_class_accuracy == 0.5
    assert "most frequent class of the training list: 88.89 %" in details(split)


def test_classes_without_a_video_do_not_count_in_the_mean_over_classes() -> None:
    assert row_of(LABELS, num_classes=9).mean_class_accuracy == 1
    nothing = RowResult.of(np.zeros((0, 3)), np.zeros(0, np.int64))
    assert np.isnan(nothing.mean_class_accuracy)
    assert nothing.accuracy_dict()["mean_class_accuracy"] is None


@pytest.mark.parametrize("num_classes", [2, 5, 6, 9])
def test_top_5_is_counted_for_more_than_five_classes_only(num_classes: int) -> None:
    split = split_of(motion=row_of(LABELS, num_classes=num_classes))
    header, rows = results_table(Evaluation((split,), ()))
    assert ("top-5 %" in header) == (num_classes > 5)
    assert (split.rows["motion"].accuracy_dict()["top5"] is None) == (num_classes <= 5)
    assert all(len(row) == len(header) for row in rows)


def test_rows_are_compared_on_the_same_videos() -> None:
    better, worse = LABELS.copy(), LABELS.copy()
    better[0], worse[:8] = 1, 1
    worse[0] = 0
    rows = {"appearance": row_of(worse), "motion": row_of(better), "two-streams": row_of(better)}
    pairs = paired_tests(rows)
    assert [(pair.first, pair.second, pair.only_first, pair.only_second) for pair in pairs] == [
        ("appearance", "motion", 1, 7),
        ("appearance", "two-streams", 1, 7),
        ("motion", "two-streams", 0, 0),
    ]
    assert pairs[0].p == 2 * (1 + 8) / 2**8
    assert pairs[2].to_dict() == {"rows": ["motion", "two-streams"], "only_first": 0, "only_second": 0, "mcnemar_p": 1.0}
    assert pairs_table(rows)[1][0] == ["appearance", "motion", "1", "7", "0.0703"]
    header, table = results_table(Evaluation((split_of(**rows),), ()))
    assert [line[header.index("p")] for line in table] == ["0.0703", "1.0000", "-", "-", "-"]


def test_an_interval_says_whether_it_respects_groups() -> None:
    names = tuple(f"a/v_a_g{k // 6:02d}_c{k}" for k in range(len(LABELS)))
    predictions = np.where(np.arange(18) < 6, 1, LABELS)  # the first group is classified wrongly
    grouped, alone = row_of(predictions, video_ids=names), row_of(predictions)
    assert alone.interval == wilson_interval(12, 18)
    assert grouped.interval[1] - grouped.interval[0] > 1.5 * (alone.interval[1] - alone.interval[0])
    assert interval_dict({"motion": alone}) == {"method": "wilson"}
    assert interval_dict({"motion": grouped})["num_groups"] == 3
    assert "over the 3 groups" in interval_text({"motion": grouped})
    assert replace(grouped).interval == grouped.interval
