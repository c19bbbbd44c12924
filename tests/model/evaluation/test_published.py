"""The paper's numbers stand beside ours only where both measure the same thing, and with what was done differently."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hostile_results import make_evaluation, make_hostile_root, make_result

from flowkit.dataset.lists.reading import read_lists
from flowkit.flow.params import TVL1Params
from flowkit.model.evaluation.official import FREE_CHOICES, PROTOCOL
from flowkit.model.evaluation.published import PUBLISHED, compare_with_paper
from flowkit.model.evaluation.rows import ROWS
from flowkit.model.report.page import write_report
from flowkit.model.settings.recipes import OVERRIDES, make_configs
from flowkit.model.settings.training import PHASES
from flowkit.quantise import Quantiser

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
    return split, result, replace(make_evaluation(result), protocol=(*PROTOCOL, "streams joined"), environment={"amp": "float32"})


EXTRACTION: dict[str, Any] = {"short_side": 256, "tvl1": TVL1Params.preset("paper").to_dict(), "solver": "strict", "codec": "jpeg"}


def with_recipe(result: Any, recipe: Any, **overrides: Any) -> dict[Any, Any]:
    overrides = {"bn_renewal_steps": 0, **overrides}  # which this short list would have, unlike the official ones
    configs = make_configs(
        recipe, num_classes=len(result.classes), num_videos=NUM_TRAIN, short_side=256, weights="imagenet", overrides=overrides
    )
    flow: dict[str, Any] = {"quantiser": Quantiser(20.0, "paper").to_dict(), "extraction": EXTRACTION}
    return {phase: replace(result.provenances[phase], config=configs[phase], **flow) for phase in PHASES}


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
    assert "batch 64 (official code: 256)" in told[0]
    assert "motion_dropout 0.5 (official code: 0.8)" in told[1]
    assert "injection direct (official code: residual)" in told[2]
    assert "plain mean" in told[4]
    small = {phase: replace(made, config=replace(made.config, weights="none")) for phase, made in with_recipe(result, "small").items()}
    told = compare_with_paper(split, replace(result, provenances=small), evaluation).differences
    assert all("base_width 16 (official code: 64)" in line and "random first weights" in line for line in told[:4])


# Every setting with another value, the phases that list it, and what else follows from it.
SAMPLED, STREAMS = ["st-resnet", "st-resnet-star"], list(PHASES)
CHANGES: dict[str, tuple[Any, list[str], set[str]]] = {
    "batch": (64, STREAMS, {"schedule"}),
    "bn_group": (2, STREAMS, set()),
    "schedule": ([[7, 0.5]], STREAMS, set()),
    "steps": (5, STREAMS, {"schedule"}),
    "lr": (0.5, STREAMS, {"schedule"}),
    "num_samples": (3, STREAMS, set()),
    "tau_min": (2, SAMPLED, set()),
    "tau_max": (20, SAMPLED, set()),
    "seed": (5, [], set()),
    "decay": ("cosine", STREAMS, set()),
    "warmup_steps": (3, STREAMS, set()),
    "momentum": (0.5, STREAMS, set()),
    "weight_decay": (0.1, STREAMS, set()),
    "bn_momentum": (0.2, STREAMS, set()),
    "bn_average_first": (True, STREAMS, set()),
    "bn_moments": ("variance", STREAMS, set()),
    "bn_renewal_steps": (7, STREAMS, set()),
    "crop": ("none", STREAMS, set()),
    "flip": (False, STREAMS, set()),
    "balance": ("weights", STREAMS, set()),
    "depth": (101, STREAMS, {"units"}),
    "stage_units": ([2, 2, 2, 2], STREAMS, {"units"}),
    "base_width": (8, STREAMS, set()),
    "input_size": (96, STREAMS, set()),
    "rgb_offset": ([0.5, 0.25, 0.0], STREAMS, set()),
    "injection": ("direct", SAMPLED, set()),
    "injection_direction": ("both", SAMPLED, set()),
    "injection_kind": ("multiplicative", SAMPLED, set()),
    "injection_stages": ([2], SAMPLED, set()),
    "temporal_convolution": (False, SAMPLED, set()),
    "temporal_stages": ([5], SAMPLED, set()),
    "temporal_init": ("center", SAMPLED, set()),
    "temporal_padding": ("replicate", SAMPLED, set()),
    "temporal_pool": (False, ["st-resnet-star"], set()),
    "temporal_pool_stride": (1, SAMPLED, set()),
    "head_pool": ("global", STREAMS, set()),
    "motion_dropout": (0.25, ["motion", *SAMPLED], set()),
    **{name.removeprefix("network."): (code, [], set()) for name, (_, code, _) in FREE_CHOICES.items()},
}
NOT_NAMED = {"steps", "lr", "depth", "stage_units"}  # listed as what follows from them


def names_in(line: str) -> set[str]:
    """Return the names of the settings in a line such as ``motion: batch 8 (official code: 128), schedule 1 x 0.1, 2 x 0.01 (...)``."""
    text = re.sub(r"\([^()]*\)|\[[^]]*\]", "", line.partition(": ")[2])
    return {word for word in re.split(r"[ ,]+", text) if word in {*OVERRIDES, "units"}}


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_a_setting_of_training_or_network_is_listed_with_what_follows_and_nothing_else(case: tuple[Any, ...], name: str) -> None:
    split, result, evaluation = case
    value, phases, follows = CHANGES[name]
    one_by_one = name in ("temporal_pool", "motion_dropout", "tau_min")  # not the same in all phases of the recipe
    overrides = {f"{phase}.{name}": value for phase in phases} if one_by_one else {name: value}
    changed = replace(result, provenances=with_recipe(result, "official", **overrides))
    differences = compare_with_paper(split, changed, evaluation).differences
    assert [line.partition(": ")[0] for line in differences] == phases
    for line in differences:
        assert (follows if name in NOT_NAMED else {name}) <= names_in(line)
        assert names_in(line) <= follows | {name}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        *(({"tvl1": {**EXTRACTION["tvl1"], key: value * 2}}, f"TV-L1 {key.rstrip('_')} ") for key, value in EXTRACTION["tvl1"].items()),
        ({"short_side": 128}, "short side 128 (official code: 256)"),
        ({"codec": "zstd"}, "codec zstd (official code: jpeg)"),
        ({"solver": "fast"}, "solver fast (official code: gpu_flow)"),
        ({"solver": "cuda"}, "solver cuda (official code: gpu_flow)"),
    ],
)
def test_flow_that_was_made_in_another_way_is_listed_alone(case: tuple[Any, ...], changes: dict[str, Any], told: str) -> None:
    split, result, evaluation = case
    for in_training in ({}, changes):
        made = {phase: replace(one, extraction={**EXTRACTION, **in_training}) for phase, one in result.provenances.items()}
        tested = {**EXTRACTION, **changes}
        (line,) = compare_with_paper(split, replace(result, provenances=made), evaluation, tested=tested).differences
        assert line.startswith(f"frames and flow: {told}")
        assert line.count("official code") == 1


PLAIN_MEAN = "(official code: the plain mean of their logits)"


@pytest.mark.parametrize(
    ("in_training", "in_test", "told"),
    [
        ({"quantiser": {"bound": 15.0, "mapping": "paper"}}, {}, ["frames and flow: quantiser bound 15.0 (official code: 20.0)"]),
        ({"quantiser": Quantiser().to_dict()}, {}, ["frames and flow: quantiser mapping symmetric (official code: paper)"]),
        ({"extraction": {}}, {}, ["frames and flow: how frames and flow were made is not recorded"]),
        ({"precision": "bf16"}, {}, [f"{phase}: trained in bf16 (official code: float32)" for phase in PHASES]),
        ({}, {"environment": {"amp": "fp16"}}, ["test: computed in fp16 (official code: float32)"]),
        ({}, {"environment": {}}, ["test: computed in a precision that is not recorded (official code: float32)"]),
        ({}, {"fusion": "softmax_mean"}, [f"test: streams joined by softmax_mean with weights 1 : 1 {PLAIN_MEAN}"]),
        ({}, {"weights": (1.0, 2.0)}, [f"test: streams joined by logits_mean with weights 1 : 2 {PLAIN_MEAN}"]),
        ({}, {"protocol": ("5 frames",)}, ["test: 5 frames (official code: " + "; ".join(PROTOCOL) + ")"]),
    ],
)
def test_quantiser_precision_fusion_and_protocol_are_each_listed_alone(
    case: tuple[Any, ...], in_training: dict[str, Any], in_test: dict[str, Any], told: list[str]
) -> None:
    split, result, evaluation = case
    made = {phase: replace(one, **in_training) for phase, one in result.provenances.items()}
    assert list(compare_with_paper(split, replace(result, provenances=made), replace(evaluation, **in_test)).differences) == told


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ("imagenet", []),
        ("none", ["random first weights (official code: ImageNet)"]),
        ("sha256:dead", ["first weights of a file, sha256:dead"]),
    ],
)
def test_first_weights_are_listed_alone(case: tuple[Any, ...], weights: str, told: list[str]) -> None:
    split, result, evaluation = case
    made = {phase: replace(one, config=replace(one.config, weights=weights)) for phase, one in result.provenances.items()}
    differences = compare_with_paper(split, replace(result, provenances=made), evaluation).differences
    assert len(differences) == len(PHASES) * len(told)
    assert all(line.partition(": ")[2].startswith(text) for text in told for line in differences)


def test_the_authors_networks_differ_in_nothing_that_the_file_does_not_say(case: tuple[Any, ...]) -> None:
    split, result, evaluation = case
    own = with_recipe(result, "official", batch=2, rgb_offset=[0.5, 0.0, 0.0], stem_pool="ceil")
    made = {phase: replace(one, digest="", started_from={"matconvnet": "ab"}) for phase, one in own.items()}
    comparison = compare_with_paper(split, replace(result, provenances=made), evaluation)
    assert (comparison.obstacles, comparison.differences) == ((), ())
    assert [line.partition(":")[0] for line in comparison.choices] == ["frames and flow"]


def test_flowkit_s_own_choices_are_never_called_the_paper_s(case: tuple[Any, ...]) -> None:
    split, result, evaluation = case
    choices = compare_with_paper(split, result, evaluation).choices
    assert "tau_drawn clip (official code: once for a sub-batch" in choices[2]
    assert "temporal_pool_position after_pool5 (paper, Table 1: after_pool5; official code: before_pool5" in choices[3]
    assert ["up to epoch 300" in line for line in choices[:4]] == [True, True, False, True]
    own = {name.removeprefix("network."): code for name, (_, code, _) in FREE_CHOICES.items()}
    left = compare_with_paper(split, replace(result, provenances=with_recipe(result, "official", **own)), evaluation).choices
    assert not [line for line in left for name in own if name in line]


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
