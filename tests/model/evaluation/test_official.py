"""A run with one setting changed from the official one lists that difference and what follows from it, and nothing else.

Every setting of flowkit that may change a figure has a row in one of the tables here, or a reason why no report lists it. A new
setting has neither, and the first test fails until it has.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from official_runs import EXTRACTION, with_recipe
from phases import PHASES

from flowkit.dataset.settings import ExtractSettings
from flowkit.flow.methods import FlowMethod
from flowkit.flow.params import TVL1Params
from flowkit.model.compute.execution import Execution
from flowkit.model.evaluation.fusion_weights import ChosenWeights
from flowkit.model.evaluation.official import PROTOCOL, flow_differences
from flowkit.model.evaluation.protocol import evaluate
from flowkit.model.evaluation.published import compare_with_paper
from flowkit.model.evaluation.results import Evaluation, SplitEvaluation
from flowkit.model.fusion.late_fusion import FusionSettings
from flowkit.model.runs.first_network import FirstNetwork
from flowkit.model.runs.provenance import Provenance
from flowkit.model.settings.network import STResNetConfig
from flowkit.model.settings.recipes import TrainSettings
from flowkit.model.settings.training import TrainConfig
from flowkit.model.systems.configs import OVERRIDES
from flowkit.model.systems.shared.residual_code import FREE_CHOICES
from flowkit.model.training.chain import train
from flowkit.quantise import Quantiser
from flowkit.video.reading import Reading

if TYPE_CHECKING:
    from official_runs import OfficialCase

SAMPLED, STREAMS = ["st-resnet", "st-resnet-star"], list(PHASES)
# Every setting of training and network with another value, the phases that list it, and what else follows from it.
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
    "skip_cuts": (True, STREAMS, set()),
    "select": ("best", STREAMS, set()),
    "validation_steps": (3, [], set()),
    "depth": (101, STREAMS, {"units"}),
    "stage_units": ([2, 2, 2, 2], STREAMS, {"units"}),
    "base_width": (8, STREAMS, set()),
    "input_size": (96, STREAMS, set()),
    "rgb_offset": ([0.5, 0.25, 0.0], ["appearance", *SAMPLED], set()),
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
NO_SETTINGS = {  # fields of `TrainConfig` and `STResNetConfig` without a row of their own
    "phase": "each phase is compared with the official settings of the same phase",
    "network": "its fields have rows",
    "recipe": "a name; the settings that it stands for have rows",
    "weights": "has a test of its own, below",
    "num_classes": "a property of the data set",
}
# What is listed if one setting of extraction is not the official code's.
PAPER_TVL1 = TVL1Params.preset("paper")
OFFICIAL_EXTRACTION = ExtractSettings(preset="paper", tvl1=PAPER_TVL1, quantiser=Quantiser(20.0, "paper"), codec="jpeg")
TVL1: dict[str, Any] = {
    "tau": 0.125,
    "lambda_": 0.3,
    "theta": 0.1,
    "num_scales": 3,
    "scale_step": 0.8,
    "num_warps": 2,
    "epsilon": 0.05,
    "inner_iterations": 30,
    "outer_iterations": 10,
    "median_size": 5,
}
QUANTISER: dict[str, tuple[Any, str]] = {
    "bound": (15.0, "quantiser bound 15.0 (official code: 20.0)"),
    "mapping": ("symmetric", "quantiser mapping symmetric (official code: paper)"),
}
EXTRACTIONS: dict[str, tuple[Any, str]] = {
    "solver": ("fast", "solver fast (official code: gpu_flow)"),
    "short_side": (128, "short side 128 (official code: 256)"),
    "codec": ("zstd", "codec zstd (official code: jpeg)"),
    "camera_motion": ("sift", "removed camera motion sift (official code: none)"),
    "reading": (Reading(every=2), "frames were read otherwise: every 2nd frame (official code: all frames as they are)"),
}
NO_EXTRACTIONS = {
    "preset": "a name; the parameters that it stands for have rows",
    "tvl1": "its fields have rows",
    "quantiser": "its fields have rows",
    "method": "has a test of its own, because no parameters of TV-L1 are recorded beside it",
}
EXECUTIONS: dict[str, tuple[Any, str]] = {"amp": ("bf16", "test: computed in bf16 (official code: float32)")}
ROUNDING = "changes the order of operations or the rounding of bytes, not what is computed"
NO_EXECUTIONS = {
    **dict.fromkeys(("device", "compile", "checkpoint_activations", "crop_on", "channels_last", "rank", "world"), ROUNDING),
    **dict.fromkeys(("num_workers", "videos_per_pass"), "changes nothing that is computed"),
    **dict.fromkeys(("checkpoint_seconds", "checkpoint_steps"), "changes when checkpoints are written"),
}
PLAIN_MEAN = "(official code: the plain mean of their logits)"
TESTS: dict[str, tuple[Any, str]] = {
    "protocol": (("5 frames",), "test: 5 frames (official code: " + "; ".join(PROTOCOL) + ")"),
    "fusion": ("softmax_mean", f"test: streams joined by softmax_mean with weights 1 : 1 {PLAIN_MEAN}"),
    "weights": ((1.0, 2.0), f"test: streams joined by logits_mean with weights 1 : 2 {PLAIN_MEAN}"),
    "environment": ({}, "test: computed in a precision that is not recorded (official code: float32)"),
}
NO_TESTS = {"splits": "what was scored, see SCORED", "command": "its options have rows"}
NOT_THE_DATA = "an obstacle: no published figure is shown (test_published.py)"
SCORED = {
    **dict.fromkeys(("split", "classes", "video_ids", "labels", "num_listed", "failed", "untrained_classes", "warnings"), NOT_THE_DATA),
    **dict.fromkeys(("rows", "stream_scores", "majority_label"), "computed from what is compared"),
    "provenances": "see RECORDS",
    "fusion_weights": "has a test of its own, below",
    "svms": "of the rows of SVMs, whose differences from its paper are those of the system",
    "notes": "what is not known of converted networks; their frames and flow are compared by their records",
    **dict.fromkeys(("checkpoints", "started", "seconds"), "where and when, not how"),
}
RECORDS: dict[str, tuple[Any, list[str]]] = {
    "precision": ("bf16", [f"{phase}: trained in bf16 (official code: float32)" for phase in PHASES]),
    "started_from": (
        {"another": "00" * 32},
        [f"{phase}: started from another, which is not tested here, so its training is not compared" for phase in PHASES],
    ),
    "first_network": (
        FirstNetwork("a.safetensors", {"motion": "ab" * 32}, {"motion": "new"}, "9 classes", ("the short side was 256, and is 128",)),
        [
            f"{phase}: first weights of a trained network: motion (SHA-256 abababababab…) of a.safetensors, trained on 9 classes; "
            f"classifier new; the short side was 256, and is 128 (official code: {start})"
            for phase, start in zip(PHASES, (*["ResNet-50 of MSRA, trained on ImageNet"] * 2, "the base streams", "st-resnet"), strict=True)
        ],
    ),
    "extraction": ({}, ["frames and flow: how frames and flow were made is not recorded"]),
    "quantiser": (Quantiser().to_dict(), [f"frames and flow: {QUANTISER['mapping'][1]}"]),
    "validation": (
        {"groups": [1], "video_ids": ["a/v"]},
        [f"{phase}: 1 training video held out for validation (official code: none)" for phase in PHASES],
    ),
}
NO_RECORDS = {
    "config": "its fields have rows",
    "cuts": "what follows from skip_cuts, which has a row",
    **dict.fromkeys(("classes", "split", "protocol", "digest", "earlier_digests", "num_videos"), NOT_THE_DATA),
}
WHERE_AND_HOW = {
    **dict.fromkeys(
        ("root", "runs", "run", "split", "splits", "base_run", "phases", "checkpoint", "system"), "which data and networks, not how"
    ),
    **dict.fromkeys(("progress", "on_event", "on_split", "should_stop", "restart"), "changes nothing that is computed"),
    **dict.fromkeys(("keep_scores_in", "forget_scores"), "changes nothing that is computed"),
    "force": NOT_THE_DATA,
    "execution": "its fields have rows",
    **dict.fromkeys(("overrides", "file"), "each value has a row"),
    "recipe": "test_published.py: the recipe small",
    "weights": "has a test of its own, below (of `evaluate`: a row of TESTS)",
    "init_from": "a row of RECORDS, first_network",
    "paper_schedule": "has a test of its own, below",
    **dict.fromkeys(("validation", "validation_groups"), "a row of RECORDS"),
    "fusion": "a row of TESTS",
    "crops": "the protocol says which; a row of TESTS",
}
FUSIONS = {
    **dict.fromkeys(("method", "normalise", "weights"), "test_late_fusion.py: the paper's figures stand beside a fusion"),
    **dict.fromkeys(("num_folds", "seed"), "of the SVM, beside which no published figure is shown"),
}
# What has settings, where their rows are, and the settings without a row, with the reason.
TABLES: dict[Callable[..., Any], tuple[Mapping[str, Any], Mapping[str, str]]] = {
    TrainConfig: (CHANGES, NO_SETTINGS),
    STResNetConfig: (CHANGES, NO_SETTINGS),
    TVL1Params: (TVL1, {}),
    Quantiser: (QUANTISER, {}),
    ExtractSettings: (EXTRACTIONS, NO_EXTRACTIONS),
    Execution: (EXECUTIONS, NO_EXECUTIONS),
    Evaluation: (TESTS, NO_TESTS),
    SplitEvaluation: ({}, SCORED),
    Provenance: (RECORDS, NO_RECORDS),
    FusionSettings: ({}, FUSIONS),
    TrainSettings: ({}, WHERE_AND_HOW),
    train: ({}, WHERE_AND_HOW),
    evaluate: ({}, WHERE_AND_HOW),
}


def settings_of(what: Callable[..., Any]) -> set[str]:
    """Return the fields of a data class, or the parameters of a function."""
    return {item.name for item in fields(what)} if is_dataclass(what) else set(inspect.signature(what).parameters)


def name_in_tests(value: object) -> str:
    """Return the name of a table of this file."""
    return next(name for name, known in globals().items() if known is value)


@pytest.mark.parametrize("what", TABLES, ids=lambda what: what.__name__)
def test_every_setting_is_compared_with_the_official_code_or_has_a_reason_why_not(what: Callable[..., Any]) -> None:
    rows, reasons = TABLES[what]
    new = sorted(settings_of(what) - {*rows, *reasons})
    assert not new, (
        f"{what.__name__} has new settings: {', '.join(new)}. A report must list a setting that differs from the official code. "
        "Find out what the official code does instead, make model/systems/shared/residual_code.py (or official.py) list it, and add a row "
        f"with another value to {name_in_tests(rows) if rows else 'a table'} in {__name__.rpartition('.')[2]}.py. If it changes no figure, "
        f"or is compared elsewhere, add it to {name_in_tests(reasons) if reasons else 'a table of reasons'} with the reason."
    )


def test_no_table_has_a_row_for_a_setting_that_is_gone() -> None:
    for table in {id(table): table for tables in TABLES.values() for table in tables}.values():
        known = {"steps", "lr"}.union(*(settings_of(what) for what, tables in TABLES.items() if any(one is table for one in tables)))
        assert sorted(set(table) - known) == []


def names_in(line: str) -> set[str]:
    """Return the names of the settings in a line such as ``motion: batch 8 (official code: 128), schedule 1 x 0.1, 2 x 0.01 (...)``."""
    text = re.sub(r"\([^()]*\)|\[[^]]*\]", "", line.partition(": ")[2])
    return {word for word in re.split(r"[ ,]+", text) if word in {*OVERRIDES, "units"}}


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_a_setting_of_training_or_network_is_listed_with_what_follows_and_nothing_else(case: OfficialCase, name: str) -> None:
    value, phases, follows = CHANGES[name]
    one_by_one = name in ("temporal_pool", "motion_dropout", "tau_min")  # not the same in all phases of the recipe
    overrides = {f"{phase}.{name}": value for phase in phases} if one_by_one else {name: value}
    changed = replace(case.result, provenances=with_recipe(case.result, "official", **overrides))
    assert changed.provenances != case.result.provenances
    differences = compare_with_paper(case.split, changed, case.evaluation).differences
    assert [line.partition(": ")[0] for line in differences] == phases
    for line in differences:
        assert (follows if name in NOT_NAMED else {name}) <= names_in(line)
        assert names_in(line) <= follows | {name}


def test_the_paper_s_schedule_lists_its_batches_groups_and_steps(case: OfficialCase) -> None:
    changed = replace(case.result, provenances=with_recipe(case.result, "official", paper_schedule=True))
    differences = compare_with_paper(case.split, changed, case.evaluation).differences
    assert [names_in(line) for line in differences] == [
        {"bn_group", "schedule"},
        {"batch", "bn_group", "schedule"},
        {"schedule"},
        {"schedule"},
    ]


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ("imagenet", []),
        ("none", ["random first weights (official code: ImageNet)"]),
        ("sha256:dead", ["first weights of a file, sha256:dead"]),
    ],
)
def test_first_weights_are_listed_alone(case: OfficialCase, weights: str, told: list[str]) -> None:
    made = {phase: replace(one, config=replace(one.config, weights=weights)) for phase, one in case.result.provenances.items()}
    differences = compare_with_paper(case.split, replace(case.result, provenances=made), case.evaluation).differences
    assert len(differences) == len(PHASES) * len(told)
    assert all(line.partition(": ")[2].startswith(text) for text in told for line in differences)


def recorded(settings: ExtractSettings) -> dict[str, Any]:
    """Return what a run records of its frames and flow beside the quantiser."""
    made = {"short_side": settings.short_side, "tvl1": settings.tvl1.to_dict(), "solver": settings.solver, "codec": settings.codec}
    return {**made, **settings.stored_options()}


ALL_EXTRACTIONS = {
    **{name: ({name: value}, told) for name, (value, told) in EXTRACTIONS.items()},
    "solver cuda": ({"solver": "cuda"}, "solver cuda (official code: gpu_flow)"),
    **{
        name: ({"tvl1": replace(PAPER_TVL1, **{name: value})}, f"TV-L1 {name.rstrip('_')} {value} (official code: ")
        for name, value in TVL1.items()
    },
    **{name: ({"quantiser": replace(OFFICIAL_EXTRACTION.quantiser, **{name: value})}, told) for name, (value, told) in QUANTISER.items()},
}


def test_flow_of_another_method_is_a_difference() -> None:
    settings = ExtractSettings(method=FlowMethod("dis", {"preset": "fast"}), quantiser=Quantiser(20.0, "paper"), codec="jpeg")
    stored = {"short_side": 256, "tvl1": {}, "solver": "dis", "codec": "jpeg", "method": settings.stored_method()}
    differences, choices = flow_differences(stored, settings.quantiser.to_dict())
    assert differences == ["flow method dis (preset fast) (official code: TV-L1, by gpu_flow)"]
    assert choices == []


@pytest.mark.parametrize("name", ALL_EXTRACTIONS)
def test_flow_that_was_made_in_another_way_is_listed_alone(case: OfficialCase, name: str) -> None:
    """The flow of the training and of the test, or only that of the test; the quantiser must be the same in both."""
    changes, told = ALL_EXTRACTIONS[name]
    other = replace(OFFICIAL_EXTRACTION, **changes)
    for trained_on in (other,) if "quantiser" in changes else (other, OFFICIAL_EXTRACTION):
        made = {
            phase: replace(one, extraction=recorded(trained_on), quantiser=trained_on.quantiser.to_dict())
            for phase, one in case.result.provenances.items()
        }
        (line,) = compare_with_paper(
            case.split, replace(case.result, provenances=made), case.evaluation, tested=recorded(other)
        ).differences
        assert line.startswith(f"frames and flow: {told}")
        assert line.count("official code") == 1


def test_the_official_extraction_is_that_of_the_official_run() -> None:
    assert recorded(OFFICIAL_EXTRACTION) == EXTRACTION


@pytest.mark.parametrize("name", RECORDS)
def test_what_a_record_says_of_a_training_is_listed_alone(case: OfficialCase, name: str) -> None:
    value, told = RECORDS[name]
    made = {phase: replace(one, **{name: value}) for phase, one in case.result.provenances.items()}
    assert list(compare_with_paper(case.split, replace(case.result, provenances=made), case.evaluation).differences) == told


@pytest.mark.parametrize("name", TESTS)
def test_how_the_test_was_made_is_listed_alone(case: OfficialCase, name: str) -> None:
    value, told = TESTS[name]
    assert compare_with_paper(case.split, case.result, replace(case.evaluation, **{name: value})).differences == (told,)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        *(({name: value}, [told]) for name, (value, told) in EXECUTIONS.items()),
        ({"compile": True, "checkpoint_activations": True, "crop_on": "device", "channels_last": False, "world": 4}, []),
    ],
)
def test_of_how_a_test_was_computed_only_the_precision_is_listed(case: OfficialCase, settings: dict[str, Any], told: list[str]) -> None:
    environment = Execution(**settings).environment(torch.device("cpu"))
    assert list(compare_with_paper(case.split, case.result, replace(case.evaluation, environment=environment)).differences) == told


def test_weights_that_were_chosen_on_validation_videos_are_listed_alone(case: OfficialCase) -> None:
    split, result, evaluation = case
    chosen = {"two-streams": ChosenWeights((3.0, 7.0), 0.9, 0.8, 12), "ST-ResNet": ChosenWeights((5.0, 5.0), 0.9, 0.9, 12)}
    told = compare_with_paper(split, replace(result, fusion_weights=chosen), replace(evaluation, weights="auto")).differences
    how = "logits_mean with weights chosen on validation videos, two-streams 3 : 7, ST-ResNet 5 : 5"
    assert list(told) == [f"test: streams joined by {how} {PLAIN_MEAN}"]
