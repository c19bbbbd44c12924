"""Validation: no phase trains on held-out videos; they are measured without a trace in the training, and the best is kept."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from command_lines import call_flowkit
from phases import PHASES
from training_runs import TINY, copy_phases, metrics, run, same, share_root, weights

from flowkit.dataset.manifest import write_split
from flowkit.dataset.root import Dataset
from flowkit.errors import CheckpointError, ManifestError, ParameterError
from flowkit.model.compute.execution import Execution
from flowkit.model.data.training_clips import ClipDataset
from flowkit.model.data.whole_videos import WholeClipDataset
from flowkit.model.evaluation.protocol import evaluate
from flowkit.model.runs import events
from flowkit.model.runs.checkpoint import Checkpoint, load_checkpoint
from flowkit.model.runs.run_folder import phase_folder
from flowkit.model.settings.validation import validation_interval
from flowkit.model.systems.configs import make_configs
from flowkit.model.training import validation
from flowkit.model.training.chain import train


def test_no_phase_trains_on_held_out_videos_and_all_record_them(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained_on: dict[str, set[str]] = {phase: set() for phase in PHASES}
    read = ClipDataset.uncropped

    def recorded(self: Any, key: Any) -> Any:
        sample = read(self, key)
        trained_on[self.config.phase].add(sample.video_id)
        return sample

    monkeypatch.setattr(ClipDataset, "uncropped", recorded)
    _, received = run(root, validation=0.5, overrides={"steps": 2})
    listed = {record.video_id for record in Dataset.open(root).split(1).train}
    for phase in PHASES:
        stored = json.loads((phase_folder(root, "default", 1, phase) / "config.json").read_text())["validation"]
        assert (stored["fraction"], stored["seed"], len(stored["video_ids"])) == (0.5, 0, 6)
        assert trained_on[phase] == listed - set(stored["video_ids"])
        assert load_checkpoint(phase_folder(root, "default", 1, phase)).provenance.validation == stored
    (started,) = [event for event in received if isinstance(event, events.RunStarted)]
    assert (started.num_videos, started.num_held_out) == (6, 6)


def test_a_phase_resumes_only_with_the_same_videos_held_out(root: Path) -> None:
    run(root, phases=["motion"], stop_after=2, validation=0.5)
    with pytest.raises(CheckpointError, match=r"held out for validation were 6 videos \(fraction 0.5, seed 0: .*\), now nothing"):
        run(root, phases=["motion"])
    with pytest.raises(CheckpointError, match=r"held out for validation .*seed 0.*, now 6 videos \(fraction 0.5, seed 3"):
        run(root, phases=["motion"], validation=0.5, overrides={"seed": 3})
    report, _ = run(root, phases=["motion"], validation=0.5)
    assert report.trained == ("motion",)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_phase_does_not_start_from_phases_that_held_out_other_videos(
    undisturbed: tuple[Path, list[Any]], root: Path, elsewhere: bool
) -> None:
    copy_phases(undisturbed[0], root, "appearance", "motion", run="base" if elsewhere else "default")
    with pytest.raises(CheckpointError, match=r"must hold out the same videos for validation: .* was nothing, now 6 videos.*--validation"):
        run(root, phases=["st-resnet"], validation=0.5, base_run="base" if elsewhere else None)
    assert not phase_folder(root, "default", 1, "st-resnet").exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--validation", "0.2", "--validation-groups", "1"], "exclude each other"),
        (["--validation", "1"], "not in the range"),
        (["--validation-groups", "1,x"], "'1,x' is not a list of groups"),
        (["--select", "best"], "select best needs validation videos"),
        (["--set", "motion.validation_steps=5"], "motion.validation_steps 5 needs validation videos"),
    ],
)
def test_options_that_mean_nothing_are_usage_errors(root: Path, options: list[str], reason: str) -> None:
    with pytest.raises(click.UsageError, match=reason):
        call_flowkit("train", "--data", root, *options)


def measured(root: Path, name: str = "default", phase: Any = "motion") -> list[dict[str, Any]]:
    return [line for line in metrics(root, phase, name) if "validation_accuracy" in line]


def test_measuring_leaves_the_training_as_it_is(root: Path) -> None:
    run(root, phases=["motion"], validation=0.5, run="once")
    run(root, phases=["motion"], validation=0.5, run="often", overrides={"validation_steps": 1})
    assert same(weights(root, "motion", "once"), weights(root, "motion", "often"))
    assert [line["step"] for line in measured(root, "once")] == [3]  # so few steps are not worth more
    assert [line["step"] for line in measured(root, "often")] == [0, 1, 2, 3]
    assert measured(root, "often")[-1] == measured(root, "once")[0]
    assert [line for line in metrics(root, "motion", "often") if "loss" in line] == [
        line for line in metrics(root, "motion", "once") if "loss" in line
    ]


def test_accuracy_and_loss_are_those_of_the_test_if_it_sees_as_many_frames(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "validation_samples", lambda _: 25)
    run(root, phases=["motion"], validation=0.5)
    (line,) = measured(root)
    dataset = Dataset.open(root)
    split = dataset.split(1)
    held = load_checkpoint(phase_folder(root, "default", 1, "motion")).provenance.validation_ids
    tested = [record for record in split.train if record.video_id in held]
    values = {"protocol": split.protocol, "classes": split.classes, "train": split.test, "test": tested}
    write_split(root, 1, **values, num_listed_train=6, num_listed_test=6, quantiser=split.quantiser, shards=split.shards)
    (result,) = evaluate(root, execution=Execution(device="cpu"), force=True).splits
    assert line["validation_accuracy"] == line["validation_accuracy_motion"] == result.rows["motion"].top1
    scores = torch.from_numpy(result.rows["motion"].scores)
    assert line["validation_loss"] == pytest.approx(torch.nn.functional.cross_entropy(scores, torch.from_numpy(result.labels)).item())


def test_measuring_takes_the_weights_wherever_they_are(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A digest can only be computed of weights on the CPU, and would take longer than some validations.
    monkeypatch.setattr(Checkpoint, "digest", lambda _: pytest.fail("the weights in training have no digest"))
    run(root, phases=["motion"], validation=0.5)
    assert len(measured(root)) == 1


@pytest.mark.needs_cuda
def test_videos_are_measured_on_a_gpu(root: Path) -> None:
    run(root, phases=["motion"], validation=0.5, execution=Execution(device="cuda"))
    (line,) = measured(root)
    assert 0 <= line["validation_accuracy"] <= 1
    assert math.isfinite(line["validation_loss"])


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accuracies by step that are known: the best is that of step 2, which step 3 only equals."""

    def by_step(self: Any, network: Any, step: int, **_: Any) -> dict[str, float | None]:
        return {"validation_accuracy": [0.0, 0.25, 0.75, 0.75, 0.5][step], "validation_loss": 1.0}

    monkeypatch.setattr(validation.Validator, "_measured", by_step)


BEST = {"select": "best", "validation_steps": 1}


@pytest.mark.usefixtures("scripted")
@pytest.mark.parametrize("renewal", [0, 2])
def test_a_phase_ends_with_the_weights_of_the_best_step_the_earlier_of_equals(root: Path, renewal: int) -> None:
    overrides = {**BEST, "bn_renewal_steps": renewal}
    _, received = run(root, phases=["motion"], validation=0.5, overrides=overrides)
    run(root, phases=["motion"], validation=0.5, overrides=overrides, run="stopped", stop_after=2)
    best = load_checkpoint(phase_folder(root, "default", 1, "motion"))
    at_step_2 = load_checkpoint(phase_folder(root, "stopped", 1, "motion")).network
    assert (best.step, best.provenance.config.select) == (2, "best")
    parameters = [name for name in at_step_2 if "running" not in name and "tracked" not in name]
    assert all(torch.equal(best.network[name], at_step_2[name]) for name in parameters)
    assert same(best.network, at_step_2) == (renewal == 0)  # its moments were renewed
    (selected,) = [event for event in received if isinstance(event, events.WeightsSelected)]
    assert (selected.step, selected.accuracy) == (2, 0.75)
    assert [event.is_best for event in received if isinstance(event, events.Validated)] == [True, True, False, False]


class Killed(BaseException):
    """Simulates a kill."""


@pytest.mark.usefixtures("scripted")
@pytest.mark.parametrize("kill_at", [events.StepDone("motion", 3, 4, 0, 0, 0, 0), events.Validated("motion", 3, 4, 6, 0.75, 1.0)])
def test_a_killed_phase_keeps_the_best_so_far(root: Path, kill_at: Any) -> None:
    def kill(event: Any) -> None:
        if type(event) is type(kill_at) and event.step == kill_at.step:
            raise Killed

    settings: dict[str, Any] = {"phases": ["motion"], "validation": 0.5}
    run(root, **settings, run="whole", overrides=BEST)
    overrides = {**TINY, **BEST}
    with pytest.raises(Killed):
        train(root, **settings, overrides=overrides, on_event=kill, execution=Execution(device="cpu", checkpoint_steps=1))
    run(root, **settings, overrides=BEST)
    assert same(weights(root, "motion"), weights(root, "motion", "whole"))
    assert metrics(root, "motion") == metrics(root, "motion", "whole")
    assert load_checkpoint(phase_folder(root, "default", 1, "motion")).step == 2


def test_a_stop_while_videos_are_measured_has_a_checkpoint_and_measures_them_again(root: Path) -> None:
    settings: dict[str, Any] = {"phases": ["motion"], "validation": 0.5}
    overrides = {**TINY, "validation_steps": 2, "select": "best"}
    asked: list[Any] = []

    def started(event: Any) -> None:
        if isinstance(event, events.Validating) and event.done == 1:
            asked.append(event)

    report = train(
        root, **settings, overrides=overrides, on_event=started, should_stop=lambda: bool(asked), execution=Execution(device="cpu")
    )
    assert report.stopped
    assert load_checkpoint(phase_folder(root, "default", 1, "motion")).step == 2
    assert measured(root) == []
    run(root, **settings, overrides=overrides)
    run(root, **settings, overrides=overrides, run="whole")
    assert metrics(root, "motion") == metrics(root, "motion", "whole")
    assert same(weights(root, "motion"), weights(root, "motion", "whole"))


def test_a_validation_video_that_cannot_be_read_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any, index: int) -> Any:
        raise ManifestError("it is gone")

    monkeypatch.setattr(WholeClipDataset, "_read", broken)
    with pytest.raises(ManifestError, match=r"a validation video cannot be read, .*/v\d\d: it is gone"):
        run(root, phases=["motion"], validation=0.5)


KEEPS_BEST: dict[str, Any] = {"phases": ["motion"], "validation": 0.5, "overrides": {"select": "best"}}


@pytest.fixture(scope="module")
def stopped(packed_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with a phase that was stopped after two steps. Treat it as read-only."""
    path = share_root(packed_root, tmp_path_factory.mktemp("stopped"))
    run(path, **KEEPS_BEST, stop_after=2)
    return path


@pytest.mark.parametrize(
    "best",
    [
        "a text",
        {"step": 1, "accuracy": 1, "network": {}},
        {"step": 1, "accuracy": 0.5, "network": {"x": 3}},
        {"step": 1, "accuracy": 0.5},
        {"step": 1, "accuracy": 0.5, "network": {"other": torch.zeros(3)}},
    ],
)
def test_a_checkpoint_with_a_damaged_best_network_is_refused(stopped: Path, root: Path, best: Any) -> None:
    copy_phases(stopped, root, "motion")
    path = phase_folder(root, "default", 1, "motion") / "checkpoint.pt"
    torch.save({**torch.load(path, weights_only=True), "validated": 1, "best": best}, path)
    with pytest.raises(CheckpointError, match=r"best weights|does not fit"):
        run(root, **KEEPS_BEST)


def test_best_without_validation_is_refused(root: Path) -> None:
    with pytest.raises(ParameterError, match="select best needs validation videos"):
        run(root, overrides={"select": "best"})


@pytest.mark.parametrize(
    ("recipe", "phase", "num_trained", "num_held_out", "interval"),
    [
        ("official", "appearance", 8583, 954, 202),  # a tenth of the phase
        ("official", "motion", 8583, 954, 2683),
        ("small", "motion", 100, 100, 73),  # so many videos that they would cost more than a quarter of the training
    ],
)
def test_videos_are_measured_as_often_as_the_work_allows(
    recipe: Any, phase: Any, num_trained: int, num_held_out: int, interval: int
) -> None:
    config = make_configs(recipe, num_classes=101, num_videos=num_trained, short_side=256)[phase]
    assert validation_interval(config, num_trained=num_trained, num_held_out=num_held_out) == interval
