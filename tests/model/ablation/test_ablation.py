"""Ablations: what the variants are, that all start from the same base streams, what the table says, stopping and going on, failures."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click
import h5py
import pytest
import torch
from click.testing import CliRunner
from command_lines import call_flowkit
from phases import PHASES
from training_runs import share_root

from flowkit.cli.main import flowkit
from flowkit.cli.shared.stopping import TrainingStop
from flowkit.errors import CheckpointError, ParameterError, RankError
from flowkit.files import file_sha256
from flowkit.model.ablation import run as ablation
from flowkit.model.ablation.run import ablate, plan_ablation
from flowkit.model.ablation.table import NetworkScore, VariantResult, ablation_dict, ablation_table, final_loss, write_ablation
from flowkit.model.ablation.variants import ST_PHASES, VARIANT_SETS, Variant, chosen_variants
from flowkit.model.compute.execution import Execution
from flowkit.model.evaluation.protocol import evaluate
from flowkit.model.runs import events
from flowkit.model.runs.checkpoint import load_checkpoint
from flowkit.model.runs.run_folder import phase_folder
from flowkit.model.settings.recipes import TrainSettings
from flowkit.model.systems.configs import make_configs
from flowkit.model.training.chain import train_phases
from flowkit.workers.stopping import StopRequest

TINY = {"base_width": 2, "input_size": 32, "batch": 2, "bn_group": 2, "steps": 2, "warmup_steps": 0}
CPU = Execution(device="cpu", checkpoint_steps=1)
DIRECT = Variant("direct", {"injection": "direct"})
NO_POOL = Variant("no-pool", {"st-resnet-star.temporal_pool": False})
DIVERGING = Variant("diverging", {"st-resnet-star.lr": 1e30})


def run(root: Path, variants: Any, **settings: Any) -> tuple[Any, ...]:
    told = []
    training = TrainSettings(overrides=settings.pop("overrides", TINY))
    return ablate(root, variants, training, on_event=told.append, **{"execution": CPU, **settings}), told


@pytest.fixture(scope="module")
def finished(packed_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    """An ablation of three variants, one of which cannot be trained to the end."""
    root = share_root(packed_root, tmp_path_factory.mktemp("ablation"))
    return root, *run(root, [DIRECT, NO_POOL, DIVERGING])


def weights(root: Path, name: str, phase: str) -> Path:
    return phase_folder(root, name, 1, phase) / "weights.safetensors"


# -- what is compared --------------------------------------------------------------------------------------------------------------


def test_every_listed_variant_is_a_network_of_its_own_and_differs_from_the_reference(packed_root: Path) -> None:
    variants = chosen_variants(VARIANT_SETS)
    planned, same = plan_ablation(packed_root, variants, TrainSettings("official"), execution=CPU)
    assert not same
    assert [one.variant.name for one in planned] == ["reference", *(variant.name for variant in variants)]
    configs = [json.dumps([one.configs[ST_PHASES[1]].to_dict()], sort_keys=True) for one in planned]
    assert len(set(configs)) == len(planned)
    star_only = {one.variant.name for one in planned if one.phases == ST_PHASES[1:]}
    assert star_only == {variant.name for variant in VARIANT_SETS["pooling"].variants}


def test_without_any_setting_the_network_is_the_recipe_s(packed_root: Path) -> None:
    (reference, _), _ = plan_ablation(packed_root, [DIRECT], TrainSettings("official"), execution=CPU)
    expected = make_configs("official", num_classes=6, num_videos=12, short_side=256)
    assert reference.configs == {phase: expected[phase] for phase in ST_PHASES}
    network = reference.configs["st-resnet-star"].network
    assert (network.injection, network.injection_direction, network.injection_kind) == ("residual", "motion_to_appearance", "additive")
    assert (network.temporal_init, network.temporal_padding, network.temporal_pool_position) == ("average", "zeros", "after_pool5")


def test_a_setting_without_a_phase_is_for_both_st_phases_and_what_is_said_for_one_wins() -> None:
    variant = Variant("x", {"lr": 0.5, "st-resnet-star.lr": 2, "head_pool": "global"})
    assert variant.overrides == {
        "st-resnet.lr": 0.5,
        "st-resnet-star.lr": 2,
        "st-resnet.head_pool": "global",
        "st-resnet-star.head_pool": "global",
    }
    assert str(variant) == "lr 0.5, st-resnet-star.lr 2, head_pool global"
    assert (
        str(Variant("y", {"injection_stages": [2, 3], "temporal_convolution": False})) == "injection_stages 2+3, temporal_convolution off"
    )


def test_variants_that_are_no_others_than_the_reference_are_left_out(packed_root: Path) -> None:
    planned, same = plan_ablation(
        packed_root, [NO_POOL, DIRECT, Variant("residual", {"injection": "residual"})], TrainSettings(), phases=["st-resnet"]
    )
    assert [one.variant.name for one in planned] == ["reference", "direct"]
    assert [variant.name for variant in same] == ["no-pool", "residual"]
    with pytest.raises(ParameterError, match="no variant differs from the reference in st-resnet"):
        plan_ablation(packed_root, [NO_POOL], TrainSettings(), phases=["st-resnet"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variants": []}, "no variant is given"),
        ({"overrides": {"injection": "direct"}}, "injection is a setting that variants vary"),
        ({"overrides": {"st-resnet-star.temporal_pool": False}}, "is a setting that variants vary"),
        ({"variants": [Variant("x", {"injection": "sideways"})]}, "variant x: injection must be one of"),
        ({"variants": [Variant("x", {"base_width": 3})]}, "variant x: base_width must be the same in all phases"),
        ({"phases": ["motion"]}, "phases must be st-resnet"),
        ({"phases": ["st-resnet-star"]}, "phases must be st-resnet"),
        ({"run": "../x"}, "a run's name"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(root: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        run(root, **{"variants": [DIRECT], **settings})
    assert not (root / "runs").exists()


def test_names_and_settings_that_are_none_are_refused() -> None:
    for name in ("", "a/b", "..", "a+b", "a b"):
        with pytest.raises(ParameterError, match="a variant's name"):
            Variant(name)
    for setting in ("motion.lr", "colour", "st.lr"):
        with pytest.raises(ParameterError, match="is not a setting of st-resnet or st-resnet-star"):
            Variant("x", {setting: 1})
    with pytest.raises(ParameterError, match="there is no set of variants 'colours'; the sets are connections"):
        chosen_variants(["colours"])
    with pytest.raises(ParameterError, match="two variants are called direct"):
        chosen_variants(["connections"], [DIRECT])
    with pytest.raises(ParameterError, match="two variants are called reference"):
        chosen_variants([], [Variant("reference", {"lr": 1})])


# -- training and test -------------------------------------------------------------------------------------------------------------


def test_base_streams_are_trained_once_and_every_variant_starts_from_them(finished: tuple[Any, ...]) -> None:
    root, report, told = finished
    trained = [(event.phase, event.folder.parent.parent.name) for event in told if isinstance(event, events.PhaseDone)]
    assert trained == [
        ("appearance", "default"),
        ("motion", "default"),
        ("st-resnet", "default"),
        ("st-resnet-star", "default"),
        ("st-resnet", "default+direct"),
        ("st-resnet-star", "default+direct"),
        ("st-resnet-star", "default+no-pool"),
    ]
    for name in ("default", "default+direct"):
        provenance = load_checkpoint(weights(root, name, "st-resnet")).provenance
        assert provenance.started_from == {phase: file_sha256(weights(root, "default", phase)) for phase in ("appearance", "motion")}
    started = {name: load_checkpoint(weights(root, name, "st-resnet-star")).provenance.started_from["st-resnet"] for name in (
        "default", "default+direct", "default+no-pool",
    )}  # fmt: skip
    assert started["default"] == started["default+no-pool"] == file_sha256(weights(root, "default", "st-resnet"))
    assert started["default+direct"] == file_sha256(weights(root, "default+direct", "st-resnet"))
    assert load_checkpoint(weights(root, "default+direct", "st-resnet")).provenance.config.network.injection == "direct"
    assert [result.variant.name for result in report.results] == ["reference", "direct", "no-pool", "diverging"]


def test_scores_are_those_of_evaluate(finished: tuple[Any, ...]) -> None:
    root, report, _ = finished
    for result in report.results[:3]:
        (split,) = evaluate(root, run=result.run, execution=CPU).splits
        for phase, row in (("st-resnet", "ST-ResNet"), ("st-resnet-star", "ST-ResNet*")):
            if phase in result.phases:
                right = {name for name, rank in zip(split.video_ids, split.rows[row].ranks, strict=True) if rank == 0}
                assert result.scores[phase].correct == right
                assert result.scores[phase].scored == set(split.video_ids)
    assert list(report.results[2].scores) == ["st-resnet-star"]


def test_the_loss_is_that_of_one_output_at_the_end(tmp_path: Path) -> None:
    configs = make_configs("small", num_classes=6, num_videos=12, short_side=64)
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": step, "loss": float(step)}) + "\n" for step in range(25)))
    with path.open("ab") as file:
        file.write(b'[[[[\n{"loss": "text"}\nnull\n\xff\n{"step": 9, "los')  # lines that are foreign or cut off
    assert final_loss(path, configs["st-resnet"]) == pytest.approx((22 + 23 + 24) / 3 / (2 * 5))
    assert final_loss(path, configs["st-resnet-star"]) == pytest.approx((22 + 23 + 24) / 3 / (2 * 4))  # 11 frames pooled to 4


def test_a_variant_that_diverges_is_a_row_that_says_so_and_stops_nothing(finished: tuple[Any, ...]) -> None:
    root, report, told = finished
    failed = report.results[-1]
    assert "the loss of st-resnet-star is" in failed.failure
    assert failed.scores == {}
    (event,) = [event for event in told if isinstance(event, events.VariantFailed)]
    assert event.name == "diverging"
    text = (root / "reports/default/split1/ablation.md").read_text()
    assert "| ST-ResNet* | diverging | failed | - | - | - | - | - | - | - |" in text
    assert "diverging failed: the loss of st-resnet-star is" in text


def test_another_process_s_end_is_no_variant_s_failure(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(*_: Any, run: str = "default", **settings: Any) -> Any:
        if run != "default":
            raise RankError("another process of this run has ended")
        return train_phases(*_, run=run, **settings)

    monkeypatch.setattr("flowkit.model.ablation.run.train_phases", ended)
    with pytest.raises(RankError):
        run(root, [DIRECT], phases=["st-resnet"])


def test_of_a_variant_that_fails_later_the_phases_before_are_still_told(finished: tuple[Any, ...], tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(finished[0], root)
    later = Variant("later", {"injection": "direct", "st-resnet-star.lr": 1e30})
    report, _ = run(root, [later])
    assert set(report.results[1].scores) == {"st-resnet"}
    assert report.results[1].scores["st-resnet"] == finished[1].results[1].scores["st-resnet"]  # the same network, the same draws
    assert "st-resnet-star" in report.results[1].failure


def test_a_second_call_trains_and_tests_nothing(finished: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    root, report, _ = finished
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file() and "diverging" not in str(path)}

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("tested again")

    monkeypatch.setattr(ablation, "evaluate", never)
    again, told = run(root, [DIRECT, NO_POOL, DIVERGING])
    assert again.results[:3] == report.results[:3]
    assert not [event for event in told if isinstance(event, events.PhaseDone)]
    changed = {path.name for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert changed <= {"ablation.md", "ablation.json"}


def test_new_weights_are_tested_anew(finished: tuple[Any, ...], tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(finished[0], root)
    with pytest.raises(CheckpointError, match=r"config\.seed is 0, now 1"):
        run(root, [DIRECT], overrides={**TINY, "seed": 1})
    changed = Variant("direct", {"injection": "direct", "lr": 0.5})
    refused, _ = run(root, [changed])
    assert "begun with other settings" in refused.results[1].failure
    assert refused.results[1].scores == {}  # what is there are not its weights
    report, told = run(root, [changed], restart=True)
    assert [event.folder.parent.parent.name for event in told if isinstance(event, events.PhaseDone)] == ["default+direct"] * 2
    assert [event for event in told if isinstance(event, events.VideosScored)]
    assert report.results[1].scores["st-resnet"].loss != finished[1].results[1].scores["st-resnet"].loss


@pytest.mark.parametrize("stop_after", [pytest.param(step, marks=pytest.mark.slow) for step in (1, 6, 9)])
def test_stopped_anywhere_and_run_again_it_comes_to_the_same(finished: tuple[Any, ...], root: Path, stop_after: int) -> None:
    told = []
    steps = lambda: sum(isinstance(event, events.StepDone) for event in told)  # noqa: E731
    settings = {"settings": TrainSettings(overrides=TINY), "execution": CPU, "on_event": told.append}
    first = ablate(root, [DIRECT, NO_POOL], should_stop=lambda: steps() >= stop_after, **settings)
    assert first.stopped
    assert steps() == stop_after
    done = root / "reports/default/split1/ablation.json"
    assert done.is_file() == bool(first.results)
    if first.results:
        assert not json.loads(done.read_text())["complete"]
    again = ablate(root, [DIRECT, NO_POOL], **settings)
    assert again.results == finished[1].results[:3]
    assert steps() == 14
    for result in again.results:
        for phase in result.phases:
            ours, theirs = (load_checkpoint(weights(path, result.run, phase)).network for path in (root, finished[0]))
            assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


# -- the table ---------------------------------------------------------------------------------------------------------------------


def score(right: Any, scored: str = "abcdefgh", loss: float = 1.0) -> Any:
    return NetworkScore(frozenset(right), frozenset(scored), loss)


def test_the_table_sets_every_variant_against_the_reference(tmp_path: Path) -> None:
    results = [
        VariantResult(Variant("reference"), "r", ST_PHASES, {"st-resnet": score("abcd"), "st-resnet-star": score("abcdef")}),
        VariantResult(DIRECT, "r+direct", ST_PHASES, {"st-resnet": score("cdeg", loss=float("nan"))}, failure="x\ny"),
        VariantResult(NO_POOL, "r+no-pool", ST_PHASES[1:], {"st-resnet-star": score("abcdefg", "abcdefg")}),
    ]
    header, rows = ablation_table(results)
    assert header[:5] == ["network", "variant", "top-1 %", "95 % interval", "correct"]
    assert rows == [
        ["ST-ResNet", "reference", "50.00", "21.52 to 78.48", "4/8", "-", "-", "-", "-", "1.000"],
        ["ST-ResNet", "direct", "50.00", "21.52 to 78.48", "4/8", "+0.00", "2", "2", "1.0000", "-"],
        ["ST-ResNet*", "reference", "75.00", "40.93 to 92.85", "6/8", "-", "-", "-", "-", "1.000"],
        ["ST-ResNet*", "direct", "failed", "-", "-", "-", "-", "-", "-", "-"],
        ["ST-ResNet*", "no-pool", "100.00", "64.57 to 100.00", "7/7", "+25.00", "1", "0", "1.0000", "1.000"],
    ]
    values = ablation_dict(results, split=1, base_run="r", complete=True)
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert values["variants"][2]["networks"]["st-resnet-star"] == {
        "top1": 1.0,
        "top1_interval_95": list(score("abcdefg", "abcdefg").interval),
        "num_correct": 7,
        "num_videos": 7,
        "loss": 1.0,
        "difference": 0.25,
        "gained": 1,
        "lost": 0,
        "mcnemar_p": 1.0,
    }
    paths = write_ablation(tmp_path, results, split=1, base_run="r", complete=True)
    assert [path.name for path in paths] == ["ablation.md", "ablation.json"]
    assert json.loads(paths[1].read_text()) == values
    assert "* direct: injection direct (run r+direct)" in paths[0].read_text()


def test_a_score_of_no_videos_is_none() -> None:
    _, rows = ablation_table([VariantResult(DIRECT, "r", ST_PHASES[:1], {"st-resnet": score("", "")})])
    assert rows[0][2:5] == ["-", "0.00 to 100.00", "0/0"]


# -- the command -------------------------------------------------------------------------------------------------------------------


command_line = partial(call_flowkit, "ablate")


OPTIONS = [
    *("--base-width", "2", "--input-size", "32", "--batch", "2", "--bn-group", "2", "--steps-per-phase", "2"),
    *("--set", "warmup_steps=0", "--device", "cpu"),
]


def test_the_command_prints_the_table_writes_it_and_tells_failures_by_its_exit_code(finished: tuple[Any, ...]) -> None:
    root = finished[0]
    more = ["--data", root, *OPTIONS]
    code, out, err = command_line(
        *more, "--variants", "direct=injection=direct", "--variants", "no-pool=st-resnet-star.temporal_pool=false"
    )
    assert code == 0, err
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines() if line.startswith("| ST-")]
    assert rows == ablation_table(finished[1].results[:3])[1]
    assert "exact McNemar test" in out
    assert "[2/3] direct (injection direct): st-resnet and st-resnet-star in run default+direct" in err
    assert err.count("Recipe small") == 1
    assert "reports/default/split1: ablation.md, ablation.json" in err
    code, out, err = command_line(*more, "--json", "--variants", "diverging=st-resnet-star.lr=1e30")
    assert code == 3
    assert "diverging failed: the loss of st-resnet-star" in err
    told = json.loads(out)
    assert told["complete"]
    assert [variant["name"] for variant in told["variants"]] == ["reference", "diverging"]
    assert json.loads((root / "reports/default/split1/ablation.json").read_text()) == told


def test_dry_run_lists_all_variants_with_their_steps_and_writes_nothing(root: Path) -> None:
    code, out, err = command_line("all", "--data", root, "--device", "cpu", "--dry-run", "--variants", "x=injection_stages=[2,3],lr=0.5")
    assert code == 0
    assert len(out.splitlines()) == 2 + 1 + len(chosen_variants(VARIANT_SETS)) + 1
    assert "injection_stages 2+3, lr 0.5" in out
    code, out, _ = command_line("pooling", "--data", root, "--device", "cpu", "--dry-run", "--json")
    assert code == 0
    assert [(one["name"], list(one["steps"])) for one in json.loads(out)["variants"]] == [
        ("reference", ["st-resnet", "st-resnet-star"]),
        ("pool-before", ["st-resnet-star"]),
        ("no-pool", ["st-resnet-star"]),
    ]
    code, _, err = command_line("pooling", "kinds", "--phase", "st-resnet", "--data", root, "--device", "cpu", "--dry-run")
    assert code == 0
    assert "left out because they equal the reference in st-resnet: pool-before, no-pool." in err
    assert not (root / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name sets of variants"),
        (["colours"], "'colours' is not one of"),
        (["--variants", "x"], "--variants takes NAME=SETTING"),
        (["--variants", "x=colour=1"], "--variants x takes"),
        (["kinds", "--set", "colour=1"], "--set takes"),
    ],
)
def test_what_is_no_variant_is_a_usage_error(root: Path, arguments: list[Any], message: str) -> None:
    with pytest.raises(click.UsageError, match=message):
        command_line(*arguments, "--data", root)


def test_stopped_by_a_signal_it_names_the_line_that_goes_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flowkit.cli.commands import ablate as command

    @contextmanager
    def at_once(grace: Any) -> Iterator[Any]:
        stop = TrainingStop(grace)
        StopRequest.request(stop, signal.SIGINT)  # without the timer of a TrainingStop
        yield stop

    monkeypatch.setattr(command, "stop_signals", at_once)
    monkeypatch.setattr("sys.argv", ["flowkit", "ablate", "kinds", "--restart"])
    code, out, err = command_line("kinds", "--data", root, *OPTIONS)
    assert code == 130
    assert out == ""
    assert "stopped with a checkpoint; to resume: flowkit ablate kinds\n" in err
    assert load_checkpoint(phase_folder(root, "default", 1, "appearance")).step == 1


def test_the_reference_is_the_run_that_train_makes(finished: tuple[Any, ...], root: Path) -> None:
    arguments = ["train", "--data", str(root), *OPTIONS]
    result = CliRunner().invoke(flowkit, arguments, standalone_mode=False)
    assert result.return_value == 0, result.stderr
    for phase in PHASES:
        ours, theirs = (load_checkpoint(weights(path, "default", phase)).network for path in (root, finished[0]))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    with h5py.File(finished[0] / "reports/default/split1/ablation/reference/scores.h5") as file:
        assert set(file["rows"]) == {"appearance", "motion", "two-streams", "ST-ResNet", "ST-ResNet*"}
