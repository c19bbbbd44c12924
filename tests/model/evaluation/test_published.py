"""The paper's numbers stand beside ours only where both measure the same thing, and with what was done differently."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hostile_results import of_seed
from official_runs import OfficialCase, with_recipe
from phases import PHASES, ROWS

from flowkit.dataset.lists.reading import read_lists
from flowkit.model.data.official_lists import CLASSES_SHA256
from flowkit.model.evaluation.published import PUBLISHED, compare_with_paper
from flowkit.model.evaluation.seeds import SeedEvaluation, compare_seeds, write_seeds
from flowkit.model.report.page import write_report
from flowkit.model.systems.shared.residual_code import FREE_CHOICES

if TYPE_CHECKING:
    from pathlib import Path

    from flowkit.dataset.root import Dataset


def test_the_numbers_are_shown_where_all_official_videos_were_trained_on_and_scored(case: OfficialCase) -> None:
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
    case: OfficialCase, split_changes: dict[str, Any], result_changes: dict[str, Any], reason: str
) -> None:
    split, result, evaluation = case
    comparison = compare_with_paper(replace(split, **split_changes), replace(result, **result_changes), evaluation)
    assert comparison.published is None
    assert reason in " ".join(comparison.obstacles)


def test_what_differs_from_the_paper_is_said_beside_them(case: OfficialCase) -> None:
    split, result, evaluation = case
    changed = replace(result, provenances=with_recipe(result, "official", batch=64, **{"motion.motion_dropout": 0.5}, injection="direct"))
    told = compare_with_paper(split, changed, replace(evaluation, fusion="softmax_mean")).differences
    assert [line.split(":")[0] for line in told[:4]] == list(PHASES)
    assert "batch 64 (official code: 256)" in told[0]
    assert "motion_dropout 0.5 (official code: 0.8)" in told[1]
    assert "injection direct (official code: residual)" in told[2]
    assert "plain mean" in told[4]
    small = {phase: replace(made, config=replace(made.config, weights="none")) for phase, made in with_recipe(result, "small").items()}
    told = compare_with_paper(split, replace(result, provenances=small), evaluation).differences
    assert all("base_width 16 (official code: 64)" in line and "random first weights" in line for line in told[:4])


def test_the_authors_networks_differ_in_nothing_that_the_file_does_not_say(case: OfficialCase) -> None:
    split, result, evaluation = case
    own = with_recipe(result, "official", batch=2, rgb_offset=[0.5, 0.0, 0.0], stem_pool="ceil")
    made = {phase: replace(one, digest="", started_from={"matconvnet": "ab"}) for phase, one in own.items()}
    comparison = compare_with_paper(split, replace(result, provenances=made), evaluation)
    assert (comparison.obstacles, comparison.differences) == ((), ())
    assert [line.partition(":")[0] for line in comparison.choices] == ["frames and flow"]


def test_flowkit_s_own_choices_are_never_called_the_paper_s(case: OfficialCase) -> None:
    split, result, evaluation = case
    choices = compare_with_paper(split, result, evaluation).choices
    assert "tau_drawn clip (official code: once for a sub-batch" in choices[2]
    assert "temporal_pool_position after_pool5 (paper, Table 1: after_pool5; official code: before_pool5" in choices[3]
    assert ["up to epoch 300" in line for line in choices[:4]] == [True, True, False, True]
    own = {name.removeprefix("network."): code for name, (_, code, _) in FREE_CHOICES.items()}
    left = compare_with_paper(split, replace(result, provenances=with_recipe(result, "official", **own)), evaluation).choices
    assert not [line for line in left for name in own if name in line]


def test_the_page_has_the_column_and_its_reservation_only_then(
    case: OfficialCase, hostile_root: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split, result, evaluation = case
    monkeypatch.setattr(type(hostile_root), "split", lambda self, number: replace(split, number=number))
    result = replace(result, checkpoints={}, provenances={}, rows={"ST-ResNet*": result.rows["ST-ResNet*"]})
    for one, shown in ((result, True), (replace(result, warnings=("other",)), False)):
        write_report(tmp_path, one, evaluation, hostile_root, run="default")
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
            assert hashlib.sha256("\n".join(sorted(lists.classes)).encode()).hexdigest() == CLASSES_SHA256[name]
        assert list(published.top1) == list(ROWS)


def test_the_papers_figures_stand_beside_a_mean_only_if_they_may_beside_every_seed(case: OfficialCase, tmp_path: Path) -> None:
    split, result, evaluation = case
    own = [of_seed(result, seed) for seed in range(3)]
    made = SeedEvaluation("run", {seed: replace(evaluation, splits=(one,)) for seed, one in enumerate(own)})
    comparison = compare_seeds(made, split)
    assert comparison.published is not None
    assert comparison.differences == ()
    page = write_seeds(tmp_path, made, 1, comparison=comparison)[0].read_text(encoding="utf-8")
    assert "| paper * |" in page
    assert "| 92.76 |" in page
    assert json.loads((tmp_path / "seeds.json").read_text())["paper"]["top1_percent"]["ST-ResNet"] == 92.76

    forced = replace(own[1], warnings=("1 video was added",))
    made = SeedEvaluation("run", {seed: replace(evaluation, splits=(one,)) for seed, one in enumerate([own[0], forced, own[2]])})
    comparison = compare_seeds(made, split)
    assert comparison.published is None
    assert any(line.startswith("seed 1: ") and "1 video was added" in line for line in comparison.obstacles)
    page = write_seeds(tmp_path, made, 1, comparison=comparison)[0].read_text(encoding="utf-8")
    assert "92.76" not in page
    assert "1 video was added" in page


def test_a_difference_of_all_seeds_is_listed_once(case: OfficialCase, tmp_path: Path) -> None:
    split, result, evaluation = case
    own = [of_seed(result, seed, weight_decay=0.25) for seed in range(2)]
    made = SeedEvaluation("run", {seed: replace(evaluation, splits=(one,)) for seed, one in enumerate(own)})
    comparison = compare_seeds(made, split)
    assert comparison.published is not None
    page = write_seeds(tmp_path, made, 1, comparison=comparison)[0].read_text(encoding="utf-8")
    assert page.count("motion: weight_decay 0.25") == 1
