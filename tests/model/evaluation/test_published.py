"""The paper's numbers stand beside ours only where both measure the same thing, and with what was done differently."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hostile_results import make_evaluation, make_hostile_root, make_result

from flowkit.dataset.lists.reading import read_lists
from flowkit.model.evaluation.published import PUBLISHED, compare_with_paper
from flowkit.model.evaluation.rows import ROWS
from flowkit.model.report.page import write_report
from flowkit.model.settings.recipes import make_configs
from flowkit.model.settings.training import PHASES

NUM_TRAIN = 3


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return make_hostile_root(tmp_path_factory.mktemp("published"))


@pytest.fixture
def case(dataset: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, ...]:
    """A split that is all of a published data set's, and a test of it by the paper's recipe."""
    split = replace(dataset.split(1), protocol="ucf101")
    split = replace(split, train=split.test[:NUM_TRAIN], test=split.test[:-1])  # the last one could not be read
    names = hashlib.sha256("\n".join(sorted(split.classes)).encode()).hexdigest()
    counts = ((NUM_TRAIN, len(split.test)),) * 3
    monkeypatch.setitem(PUBLISHED, "ucf101", replace(PUBLISHED["ucf101"], classes_sha256=names, num_videos=counts))
    result = make_result(dataset)
    result = replace(result, failed=(), warnings=(), provenances=with_recipe(result, "official"))
    return split, result, make_evaluation(result)


def with_recipe(result: Any, recipe: Any, **overrides: Any) -> dict[Any, Any]:
    configs = make_configs(
        recipe, num_classes=len(result.classes), num_videos=NUM_TRAIN, short_side=256, weights="imagenet", overrides=overrides
    )
    return {phase: replace(result.provenances[phase], config=configs[phase]) for phase in PHASES}


def test_the_numbers_are_shown_where_all_official_videos_were_trained_on_and_scored(case: tuple[Any, ...]) -> None:
    comparison = compare_with_paper(*case)
    assert comparison.published.top1["two-streams"] == 89.47
    assert comparison.published.top1["ST-ResNet*"] == 93.46
    assert comparison.obstacles == ()
    assert comparison.differences == ()


@pytest.mark.parametrize(
    ("split_changes", "result_changes", "reason"),
    [
        ({"protocol": "csv"}, {}, "neither a goal nor an upper limit"),
        ({"classes": ("a", "b")}, {}, "another split, with 2 classes"),
        ({"number": 4}, {}, "another split"),
        ({"train": ()}, {}, "trained on 0 of the 3 videos"),
        ({"digest": "00" * 32}, {}, "other videos since"),
        ({}, {"video_ids": ("one",)}, "are those of 1 of the 13 videos"),
        ({}, {"warnings": ("1 video was added",)}, "other data: 1 video was added"),
    ],
)
def test_they_are_not_shown_where_they_do_not_compare(
    case: tuple[Any, ...], split_changes: dict[str, Any], result_changes: dict[str, Any], reason: str
) -> None:
    split, result, evaluation = case
    comparison = compare_with_paper(replace(split, **split_changes), replace(result, **result_changes), evaluation)
    assert comparison.published is None
    assert reason in " ".join(comparison.obstacles)


def test_what_differs_from_the_paper_is_said_beside_them(case: tuple[Any, ...]) -> None:
    split, result, evaluation = case
    changed = replace(result, provenances=with_recipe(result, "official", batch=64, **{"motion.motion_dropout": 0.5}, injection="direct"))
    told = compare_with_paper(split, changed, replace(evaluation, fusion="softmax_mean")).differences
    assert [line.split(":")[0] for line in told[:4]] == list(PHASES)
    assert "batch 64 (paper: 256)" in told[0]
    assert "motion_dropout 0.5 (paper: 0.8)" in told[1]
    assert "injection direct (paper: residual)" in told[2]
    assert "plain mean" in told[4]
    small = {phase: replace(made, config=replace(made.config, weights="none")) for phase, made in with_recipe(result, "small").items()}
    told = compare_with_paper(split, replace(result, provenances=small), evaluation).differences
    assert all("base_width 16 (paper: 64)" in line and "random first weights" in line for line in told)


@pytest.mark.parametrize("paper_schedule", [False, True])
def test_either_schedule_of_the_recipe_is_the_paper_s_way(case: tuple[Any, ...], paper_schedule: bool) -> None:
    split, result, evaluation = case
    configs = make_configs(
        "official",
        num_classes=len(split.classes),
        num_videos=NUM_TRAIN,
        short_side=256,
        weights="sha256:ab",
        paper_schedule=paper_schedule,
        overrides={"seed": 3, "stride_in_1x1": True},
    )
    made = {phase: replace(result.provenances[phase], config=configs[phase]) for phase in PHASES}
    assert compare_with_paper(split, replace(result, provenances=made), evaluation).differences == ()


def test_the_page_has_the_column_and_its_reservation_only_then(
    case: tuple[Any, ...], dataset: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split, result, evaluation = case
    monkeypatch.setattr(type(dataset), "split", lambda self, number: replace(split, number=number))
    result = replace(result, checkpoints={}, provenances={}, rows={"ST-ResNet*": result.rows["ST-ResNet*"]})
    for one, shown in ((result, True), (replace(result, warnings=("other",)), False)):
        write_report(tmp_path, one, evaluation, dataset, run="default")
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        assert (">paper*<" in page) == shown
        assert (">93.46<" in page) == shown
        assert ("mean of the three official splits. This table shows one split" in page) == shown
        assert ("the two cannot be compared" in page) != shown


def test_the_numbers_of_videos_and_the_classes_are_those_of_the_official_lists(shared_data: Path) -> None:
    for name, published in PUBLISHED.items():
        for number, counts in enumerate(published.num_videos, 1):
            lists = read_lists(shared_data / "splits" / name, number)
            assert lists.protocol == name
            assert (len(lists.train), len(lists.test)) == counts
            assert hashlib.sha256("\n".join(sorted(lists.classes)).encode()).hexdigest() == published.classes_sha256
        assert list(published.top1) == list(ROWS)
