"""The chain of phases: finished phases are kept, a killed run continues bit for bit, and what does not fit is refused."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import click
import h5py
import pytest
import torch
from command_lines import call_flowkit
from first_lines import DIES_BEFORE_ITS_FOURTH_STEP, environment_with
from hostile_pickles import Payload
from phases import PHASES
from training_runs import TINY, copy_phases, metrics, run, same, weights

from flowkit.dataset.manifest import write_split
from flowkit.dataset.root import Dataset
from flowkit.errors import BusyError, CheckpointError, DeviceError, ManifestError, ParameterError, ShardFormatError
from flowkit.files import file_sha256
from flowkit.locks import exclusive_lock
from flowkit.model.compute.execution import Execution
from flowkit.model.evaluation.protocol import evaluate
from flowkit.model.runs import events
from flowkit.model.runs.checkpoint import load_checkpoint
from flowkit.model.runs.run_folder import phase_folder
from flowkit.model.settings.recipes import TrainSettings
from flowkit.model.settings.training import TrainConfig
from flowkit.model.training.chain import TrainReport, train
from flowkit.run_digests import verify_phase

COMMAND = [sys.executable, "-m", "flowkit.cli", "train", "--base-width", "4", "--batch", "4", "--bn-group", "2", "--workers", "0"]


def test_all_phases_are_trained_in_order_with_their_files(undisturbed: tuple[Path, list[Any]]) -> None:
    root, received = undisturbed
    assert [event.phase for event in received if isinstance(event, events.PhaseDone)] == list(PHASES)
    assert Counter(event.phase for event in received if isinstance(event, events.StepDone)) == dict.fromkeys(PHASES, 4)
    for phase in PHASES:
        folder = phase_folder(root, "default", 1, phase)
        names = {path.name for path in folder.iterdir()}
        assert names == {"config.json", "metrics.jsonl", "videos.json", "checkpoint.pt", "weights.safetensors", "digests.json"}
        assert [line["step"] for line in metrics(root, phase)] == [0, 1, 2, 3]
        streams = ["appearance", "motion"] if phase.startswith("st") else [phase]
        for line in metrics(root, phase):
            assert line["loss"] == pytest.approx(sum(line[f"loss_{stream}"] for stream in streams) / len(streams))
        assert load_checkpoint(folder / "checkpoint.pt").step == 4
        stored = json.loads((folder / "config.json").read_text())
        assert stored["config"]["phase"] == phase
        assert stored["classes"] == list(Dataset.open(root).split(1).classes)


def test_the_lock_of_a_training_that_was_killed_at_its_very_end_is_removed_unless_a_process_holds_it(
    undisturbed: tuple[Path, list[Any]],
) -> None:
    root, _ = undisturbed
    left, held = (phase_folder(root, "default", 1, phase).with_name(f".{phase}.lock") for phase in ("motion", "st-resnet"))
    left.touch()
    with exclusive_lock(held, "trains"):
        assert run(root)[0].skipped == PHASES
        assert (left.exists(), held.exists()) == (False, True)


def test_an_empty_classifier_starts_at_the_loss_of_chance(undisturbed: tuple[Path, list[Any]]) -> None:
    first = metrics(undisturbed[0], "appearance")[0]["loss"]
    assert first == pytest.approx(torch.log(torch.tensor(6.0)).item(), rel=0.1)


def test_a_second_run_does_nothing_and_says_so(undisturbed: tuple[Path, list[Any]]) -> None:
    root, _ = undisturbed
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    report, received = run(root)
    assert (report.trained, report.skipped) == ((), PHASES)
    assert [event.phase for event in received if isinstance(event, events.PhaseSkipped)] == list(PHASES)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()} == before


def test_training_leaves_the_caller_s_random_numbers_alone(root: Path) -> None:
    torch.manual_seed(9)
    expected = torch.rand(4)
    torch.manual_seed(9)
    run(root, phases=["motion"])
    assert torch.equal(torch.rand(4), expected)


def test_the_same_run_gives_the_same_weights_and_another_seed_others(undisturbed: tuple[Path, list[Any]], root: Path) -> None:
    run(root, phases=["motion"], execution=Execution(device="cpu", num_workers=2))  # workers do not change anything either
    assert same(weights(root, "motion"), weights(undisturbed[0], "motion"))
    run(root, phases=["motion"], run="other", overrides={"seed": 1})
    assert not same(weights(root, "motion", "other"), weights(undisturbed[0], "motion"))


class Killed(BaseException):
    """Simulates a kill: nothing in the library may catch it, and nothing is written after it."""


@pytest.mark.parametrize("kill_at", [6, *(pytest.param(step, marks=pytest.mark.slow) for step in (1, 3, 4, 9, 13, 16))])
def test_killed_after_any_step_and_run_again_gives_the_same_weights_and_metrics(
    undisturbed: tuple[Path, list[Any]], root: Path, kill_at: int
) -> None:
    steps = 0

    def kill(event: object) -> None:
        nonlocal steps
        steps += isinstance(event, events.StepDone)
        if steps == kill_at:
            raise Killed

    execution = Execution(device="cpu", checkpoint_steps=2)
    with pytest.raises(Killed):
        train(root, overrides=TINY, execution=execution, on_event=kill)
    run(root)
    for phase in PHASES:
        assert same(weights(root, phase), weights(undisturbed[0], phase)), phase
        assert metrics(root, phase) == metrics(undisturbed[0], phase)


def test_a_stop_on_request_finishes_the_step_and_the_run_continues_from_its_checkpoint(
    undisturbed: tuple[Path, list[Any]], root: Path
) -> None:
    report, received = run(root, stop_after=3, execution=Execution(device="cpu"))
    assert report.stopped
    assert isinstance(received[-1], events.RunStopped)
    assert (received[-1].phase, received[-1].step) == ("appearance", 3)
    assert load_checkpoint(phase_folder(root, "default", 1, "appearance")).step == 3
    _, received = run(root, phases=["appearance"])
    assert next(event for event in received if isinstance(event, events.PhaseStarted)).first_step == 3
    assert same(weights(root, "appearance"), weights(undisturbed[0], "appearance"))


def test_digests_that_a_killed_run_did_not_write_are_written_by_the_next(root: Path) -> None:
    run(root, phases=["appearance"])
    folder = phase_folder(root, "default", 1, "appearance")
    before = (folder / "digests.json").read_bytes()
    (folder / "digests.json").unlink()
    run(root, phases=["appearance"])
    assert (folder / "digests.json").read_bytes() == before
    (folder / "weights.safetensors").unlink()  # now it resumes from its checkpoint, and the digests are those of nothing
    run(root, phases=["appearance"])
    assert verify_phase(folder).state == "intact"


def test_a_phase_does_not_start_from_damaged_weights(undisturbed: tuple[Path, list[Any]], root: Path) -> None:
    copy_phases(undisturbed[0], root, "appearance", "motion")
    path = phase_folder(root, "default", 1, "motion") / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    for work in (partial(run, root, phases=["st-resnet"]), partial(evaluate, root, execution=Execution(device="cpu"))):
        with pytest.raises(CheckpointError, match=r"motion/weights\.safetensors: it is damaged: its SHA-256"):
            work()


def test_a_line_of_metrics_that_was_cut_off_is_dropped(undisturbed: tuple[Path, list[Any]], root: Path) -> None:
    run(root, stop_after=2)
    path = phase_folder(root, "default", 1, "appearance") / "metrics.jsonl"
    with path.open("a") as file:
        file.write('{"step": 2, "loss": 1}\n{"step": 3, "lo')
    run(root, phases=["appearance"])
    assert metrics(root, "appearance") == metrics(undisturbed[0], "appearance")


def test_resuming_elsewhere_is_reported(root: Path) -> None:
    run(root, stop_after=2)
    _, received = run(root, phases=["appearance"], execution=Execution(device="cpu", amp="bf16"))
    (started,) = [event for event in received if isinstance(event, events.PhaseStarted)]
    assert started.changes == ("amp was float32, now bf16",)


def test_another_config_is_refused_with_all_that_differs(undisturbed: tuple[Path, list[Any]]) -> None:
    root, _ = undisturbed
    with pytest.raises(CheckpointError) as caught:
        run(root, overrides={"batch": 6, "bn_group": 3})
    message = str(caught.value)
    assert "config.batch is 4, now 6" in message
    assert "config.bn_group is 2, now 3" in message
    assert "another run (--run)" in message


@pytest.mark.parametrize("stop_after", [None, 2])
def test_a_later_phase_of_other_settings_is_found_before_the_first_is_trained(root: Path, stop_after: int | None) -> None:
    run(root, phases=["motion"], overrides={"lr": 0.001}, stop_after=stop_after)
    told: list[Any] = []
    with pytest.raises(CheckpointError, match=r"motion was begun with other settings or data: config\.schedule is"):
        train(root, overrides=TINY, execution=Execution(device="cpu"), on_event=told.append)
    assert told == []
    assert not phase_folder(root, "default", 1, "appearance").exists()


def test_later_phases_stay_if_an_earlier_one_ends_with_the_same_weights_again(undisturbed: tuple[Path, list[Any]], root: Path) -> None:
    copy_phases(undisturbed[0], root, *PHASES)
    folder = phase_folder(root, "default", 1, "appearance")
    (folder / "weights.safetensors").unlink()  # the checkpoint of its last step is there
    report, _ = run(root)
    assert (report.trained, report.skipped) == (("appearance",), PHASES[1:])


def repack(root: Path, **changes: Any) -> None:
    """Write the split's manifest again with other contents, by default without its first training video."""
    split = Dataset.open(root).split(1)
    values = {"protocol": split.protocol, "classes": split.classes, "train": split.train[1:], "test": split.test, **changes}
    write_split(root, 1, **values, num_listed_train=12, num_listed_test=7, quantiser=split.quantiser, shards=split.shards)


def test_other_data_are_refused(root: Path) -> None:
    run(root, phases=["appearance"])
    repack(root)
    with pytest.raises(CheckpointError, match=r"1 training video was removed \(.*/v00\)\. Use another run"):
        run(root, phases=["appearance"])


@pytest.mark.parametrize("trained_before", ["appearance", "motion"])
def test_a_phase_does_not_start_from_weights_of_other_data(root: Path, trained_before: str) -> None:
    split = Dataset.open(root).split(1)
    run(root, phases=[trained_before])
    repack(root, train=split.test, test=split.train)  # the test would use what the base stream was trained on
    run(root, phases=[phase for phase in ("appearance", "motion") if phase != trained_before])
    with pytest.raises(
        CheckpointError,
        match=rf"(?s)st-resnet starts from .*{trained_before}.*other data.*18 videos were moved to the other half.*--run NAME",
    ):
        run(root, phases=["st-resnet"])
    assert not phase_folder(root, "default", 1, "st-resnet").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no fcntl")
@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_phase_is_trained_by_one_process_at_a_time_and_other_phases_meanwhile(root: Path, num_workers: int) -> None:
    messages = []

    def another(event: object) -> None:
        if isinstance(event, events.StepDone) and not messages:
            for restart in (False, True):
                with pytest.raises(BusyError) as caught:
                    train(root, phases=["motion"], overrides=TINY, execution=Execution(device="cpu"), restart=restart)
                messages.append(str(caught.value))
            run(root, phases=["appearance"])

    execution = Execution(device="cpu", num_workers=num_workers)
    report = train(root, phases=["motion"], overrides=TINY, execution=execution, on_event=another)
    assert report.trained == ("motion",)
    assert all("another process trains" in message for message in messages)
    assert len(messages) == 2
    assert {path.name for path in phase_folder(root, "default", 1, "motion").parent.iterdir()} == {"appearance", "motion"}


@pytest.mark.parametrize("momentum", [{"appearance.fc.bias": torch.zeros(2)}, {"other": torch.zeros(6)}])
def test_a_checkpoint_whose_momentum_does_not_fit_is_refused(root: Path, momentum: dict[str, Any]) -> None:
    run(root, phases=["appearance"], stop_after=2)
    path = phase_folder(root, "default", 1, "appearance") / "checkpoint.pt"
    values = torch.load(path, weights_only=True)
    torch.save({**values, "momentum": {**values["momentum"], **momentum}}, path)
    with pytest.raises(CheckpointError, match="does not fit its network"):
        run(root, phases=["appearance"])


def test_restart_discards_and_begins_again(undisturbed: tuple[Path, list[Any]], root: Path) -> None:
    copy_phases(undisturbed[0], root, "motion")
    report, _ = run(root, phases=["motion"], overrides={"lr": 0.001}, restart=True)
    assert report.trained == ("motion",)
    assert len(metrics(root, "motion")) == 4


@pytest.mark.slow
def test_a_stopped_restart_continues_without_the_old_phases(root: Path) -> None:
    run(root)
    report, _ = run(root, overrides={"lr": 0.001}, restart=True, stop_after=2)
    assert report.stopped
    report, _ = run(root, overrides={"lr": 0.001})  # the line that the command names
    assert report.trained == PHASES


def test_a_restart_that_cannot_begin_discards_nothing(
    undisturbed: tuple[Path, list[Any]], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_phases(undisturbed[0], root, "appearance", "motion")
    monkeypatch.setattr("flowkit.model.foreign.state_dicts._download", lambda *given: (_ for _ in ()).throw(CheckpointError("no network")))
    with pytest.raises(CheckpointError, match="no network"):
        run(root, weights="imagenet", restart=True, overrides={"depth": 50, "base_width": 64})
    with pytest.raises(CheckpointError, match="st-resnet-star starts from st-resnet"):
        run(root, phases=["appearance", "st-resnet-star"], restart=True)
    assert weights(root, "appearance")
    assert weights(root, "motion")


def test_a_phase_without_what_it_starts_from_names_it(undisturbed: tuple[Path, list[Any]], root: Path) -> None:
    copy_phases(undisturbed[0], root, "appearance")
    with pytest.raises(CheckpointError, match=r"st-resnet starts from motion.*--phase motion"):
        run(root, phases=["st-resnet"])
    with pytest.raises(CheckpointError, match="--phase st-resnet"):
        run(root, phases=["st-resnet-star"])


def test_st_resnet_must_be_restarted_when_a_base_stream_was(undisturbed: tuple[Path, list[Any]], root: Path) -> None:
    copy_phases(undisturbed[0], root, "appearance", "motion", "st-resnet")
    run(root, phases=["motion"], overrides={"seed": 5}, restart=True)
    with pytest.raises(CheckpointError, match=r"started_from\.motion is"):
        run(root, phases=["st-resnet"])


def test_st_resnet_with_a_rate_of_zero_keeps_the_base_streams_weights(undisturbed: tuple[Path, list[Any]], root: Path) -> None:
    copy_phases(undisturbed[0], root, "appearance", "motion")
    run(root, phases=["st-resnet"], overrides={"lr": 0.0})
    trained = weights(root, "st-resnet")
    for stream in ("appearance", "motion"):
        for name, tensor in weights(root, stream).items():
            if "running" in name or "num_batches" in name:
                continue
            expected = (tensor / 3).unsqueeze(2).repeat(1, 1, 3, 1, 1) if trained[name].ndim == 5 else tensor
            assert torch.equal(trained[name], expected), name


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_training_video_that_cannot_be_read_is_named_in_one_line_whoever_reads_it(
    packed_root: Path, root: Path, num_workers: int
) -> None:
    record = Dataset.open(root).split(1).train[5]
    path = root / "shards" / record.shard
    path.unlink()  # it is shared with other tests
    shutil.copy(packed_root / "shards" / record.shard, path)
    with h5py.File(path, "r") as file:
        (group,) = [group for group in file["videos"].values() if group.attrs["video_id"].decode() == record.video_id]
        start, size = group["frames"].id.get_offset(), group["frames"].size
    with path.open("r+b") as file:
        file.seek(start)
        file.write(bytes(size))
    with pytest.raises(ShardFormatError) as caught:
        run(root, phases=["appearance"], execution=Execution(device="cpu", num_workers=num_workers))
    assert str(caught.value).startswith(f"{path}: video '{record.video_id}'")
    assert "\n" not in str(caught.value)


def test_a_loss_that_is_no_number_stops_with_advice(root: Path) -> None:
    with pytest.raises(ParameterError, match=r"the loss of appearance is .* at step \d+; its learning rate, .*, is too high"):
        run(root, phases=["appearance"], overrides={"lr": 1e30})


@pytest.mark.slow
@pytest.mark.parametrize("depth", [50, 101, 152])
def test_every_depth_trains(root: Path, depth: int) -> None:
    """One step of base streams and ST-ResNet at a small width, otherwise with the official recipe's settings."""
    settings = {"depth": depth, "base_width": 2, "batch": 2, "bn_group": 2, "steps": 1, "motion.motion_dropout": 0.8}
    report, received = run(root, recipe="official", weights="none", overrides=settings, phases=["appearance", "motion", "st-resnet"])
    assert report.trained == ("appearance", "motion", "st-resnet")
    for phase in report.trained:
        config = load_checkpoint(phase_folder(root, "default", 1, phase)).provenance.config
        assert (config.network.depth, config.network.stage_units, config.recipe) == (depth, None, "official")
    assert all(0 < event.loss < 100 for event in received if isinstance(event, events.StepDone))


def test_a_run_that_recorded_the_recipe_paper_continues_as_official(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"base_width": 2, "batch": 2, "bn_group": 2, "steps": 1, "input_size": 32}
    written = TrainConfig.to_dict
    with monkeypatch.context() as earlier:
        earlier.setattr(TrainConfig, "to_dict", lambda self: {**written(self), "recipe": "paper"})
        run(root, recipe="official", weights="none", overrides=settings, phases=["appearance"])
    folder = phase_folder(root, "default", 1, "appearance")
    assert json.loads((folder / "config.json").read_text())["config"]["recipe"] == "paper"
    assert load_checkpoint(folder).provenance.config.recipe == "official"
    report, _ = run(root, recipe="official", weights="none", overrides=settings, phases=["appearance", "motion"])
    assert (report.skipped, report.trained) == (("appearance",), ("motion",))


def test_a_phase_starts_from_another_run_where_its_own_has_not_what_it_needs(undisturbed: tuple[Path, list[Any]], root: Path) -> None:
    copy_phases(undisturbed[0], root, *PHASES)
    ablated = {"injection": "direct", "temporal_stages": [5], "steps": 1}
    report, _ = run(root, run="direct", base_run="default", phases=["st-resnet", "st-resnet-star"], overrides=ablated)
    assert report.trained == ("st-resnet", "st-resnet-star")
    started = {
        phase: load_checkpoint(phase_folder(root, "direct", 1, phase)).provenance.started_from for phase in ("st-resnet", "st-resnet-star")
    }
    digests = {
        (name, phase): file_sha256(phase_folder(root, name, 1, phase) / "weights.safetensors")
        for name, phase in (("default", "appearance"), ("default", "motion"), ("direct", "st-resnet"))
    }
    assert started == {
        "st-resnet": {"appearance": digests["default", "appearance"], "motion": digests["default", "motion"]},
        "st-resnet-star": {"st-resnet": digests["direct", "st-resnet"]},  # its own, now that it exists
    }
    assert [weights(root, "st-resnet", "direct")[f"motion.layer{k}.1.conv1.weight"].ndim for k in range(1, 5)] == [4, 4, 4, 5]
    report, _ = run(root, run="direct", base_run="default", phases=["st-resnet", "st-resnet-star"], overrides=ablated)
    assert report.skipped == ("st-resnet", "st-resnet-star")
    with pytest.raises(CheckpointError, match=r"st-resnet starts from appearance, and .*elsewhere"):
        run(root, run="third", base_run="elsewhere", phases=["st-resnet"])
    with pytest.raises(ParameterError, match="a run's name"):
        run(root, run="third", base_run="../x", phases=["st-resnet"])


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"phases": ["fusion"]}, ParameterError, "phases must be some of"),
        ({"phases": []}, ParameterError, "phases must be some of"),
        ({"run": "../x"}, ParameterError, "a run's name"),
        ({"run": ""}, ParameterError, "a run's name"),
        ({"split": 2}, ManifestError, "pack --split 2"),
        ({"execution": Execution(device="tpu")}, ParameterError, "device must be auto, cpu, cuda"),
        ({"execution": Execution(device="cpu", rank=0, world=3)}, ParameterError, "cannot be shared evenly by 3 processes"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_written(
    root: Path, settings: dict[str, Any], error: Any, message: str
) -> None:
    with pytest.raises(error, match=message):
        run(root, **settings)
    assert not (root / "runs").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there_is_refused(root: Path) -> None:
    with pytest.raises(DeviceError, match="--device cpu"):
        run(root, execution=Execution(device="cuda"))


def test_a_missing_weights_file_names_the_option(root: Path) -> None:
    with pytest.raises(CheckpointError, match="--weights FILE"):
        run(root, weights=root / "gone.safetensors")


def test_weights_that_do_not_fit_the_small_network_name_the_recipe_and_leave_nothing_in_the_way(root: Path) -> None:
    from safetensors.torch import save_file

    save_file({"conv1.weight": torch.zeros(64, 3, 7, 7)}, root / "resnet.safetensors")
    with pytest.raises(CheckpointError, match="--recipe own or official"):
        run(root, weights=root / "resnet.safetensors")
    assert run(root, phases=["appearance"])[0].trained == ("appearance",)


@pytest.fixture
def environment() -> dict[Any, Any]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def wait_for(path: Path, num_lines: int) -> None:
    end = time.monotonic() + 1000
    while time.monotonic() < end:
        if path.is_file() and len(path.read_text().splitlines()) >= num_lines:
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} did not grow")


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)])
def test_a_signal_ends_with_a_checkpoint_the_resuming_command_and_the_correct_code(
    root: Path, environment: dict[Any, Any], sent: Any, code: int
) -> None:
    path = phase_folder(root, "default", 1, "appearance") / "metrics.jsonl"
    command = [*COMMAND, "--data", str(root), "--steps-per-phase", "100000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    wait_for(path, 3)
    process.send_signal(sent)
    _, errors = process.communicate(timeout=1000)
    assert process.returncode == code, errors
    done = load_checkpoint(path.parent).step
    assert done >= 3
    assert len(metrics(root, "appearance")) == done
    assert f"flowkit train {' '.join(command[4:])}" in errors
    assert "Traceback" not in errors


@pytest.mark.slow
def test_kill_nine_and_then_the_same_line_gives_the_same_weights(root: Path, tmp_path: Path, environment: dict[Any, Any]) -> None:
    arguments = [*COMMAND[3:], "--data", root, "--phase", "motion", "--steps-per-phase", "9", "--checkpoint-steps", "1"]
    assert call_flowkit(*arguments, "--run", "whole")[0] == 0
    path = phase_folder(root, "default", 1, "motion") / "metrics.jsonl"
    dying = environment | environment_with(tmp_path / "dies", DIES_BEFORE_ITS_FOURTH_STEP)
    for num_lines in (3, 6):
        done = subprocess.run([*COMMAND[:3], *map(str, arguments)], capture_output=True, env=dying, timeout=3000, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert len(path.read_text().splitlines()) == num_lines
        assert not (path.parent / "weights.safetensors").exists()
    code, _, output = call_flowkit(*arguments)
    assert code == 0
    assert "motion: continues at step" in output
    assert same(weights(root, "motion"), weights(root, "motion", "whole"))
    assert metrics(root, "motion") == metrics(root, "motion", "whole")


def test_the_command_says_what_it_does_and_that_it_is_done(root: Path) -> None:
    arguments = [*COMMAND[3:], "--data", root, "--steps-per-phase", "3", "--phase", "appearance"]
    code, _, output = call_flowkit(*arguments)
    assert code == 0
    assert output.startswith(
        "Recipe small (auto: the device is not a GPU) on cpu, from random weights: 12 training videos, 6 classes.\nappearance: 3 steps"
    )
    code, _, output = call_flowkit(*arguments)
    assert code == 0
    assert "appearance: already done" in output
    with pytest.raises(CheckpointError, match=r"config\.schedule is"):
        call_flowkit(*arguments, "--lr", "1")


@pytest.mark.parametrize("text", ["batch", "speed=3", "st.batch=3"])
def test_a_setting_that_is_none_is_a_usage_error(root: Path, text: str) -> None:
    with pytest.raises(click.UsageError, match=f"--set list.*got '{text}'"):
        call_flowkit("train", "--data", root, "--set", text)


def test_recipe_schedule_and_weights_are_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    handed = []

    def record(root: Path, settings: Any, **_: Any) -> Any:
        handed.append(settings)
        return TrainReport((), (), stopped=False)

    monkeypatch.setattr("flowkit.model.training.chain.train_phases", record)
    assert (
        call_flowkit("train", "--recipe", "official", "--schedule", "paper", "--weights", "none", "--depth", "101", "--device", "cpu")[0]
        == 0
    )
    assert call_flowkit("train", "--weights", "resnet.pth", "--set", "motion.lr=0.5", "--device", "cpu")[0] == 0
    train("root", recipe="small", weights="resnet.pth", overrides={"lr": 0.5})
    assert handed == [
        TrainSettings("official", "none", True, {"depth": 101}),
        TrainSettings("auto", Path("resnet.pth"), False, {"motion.lr": 0.5}),
        TrainSettings("small", Path("resnet.pth"), False, {"lr": 0.5}),
    ]


def test_every_option_of_the_network_reaches_it(root: Path) -> None:
    options = {
        "--injection": "direct",
        "--injection-direction": "both",
        "--injection-kind": "multiplicative",
        "--injection-stages": "3,5",
        "--temporal-stages": "4",
        "--temporal-init": "center",
        "--temporal-padding": "replicate",
        "--temporal-pool-position": "before_pool5",
        "--head-pool": "global",
    }
    arguments = [*COMMAND[3:], "--data", root, "--steps-per-phase", "1", *(part for option in options.items() for part in option)]
    assert call_flowkit(*arguments)[0] == 0
    network = load_checkpoint(phase_folder(root, "default", 1, "st-resnet-star")).provenance.config.network
    assert (network.injection, network.injection_direction, network.injection_kind) == ("direct", "both", "multiplicative")
    assert (network.injection_stages, network.temporal_stages, network.temporal_convolution) == ((3, 5), (4,), True)
    assert (network.temporal_init, network.temporal_padding) == ("center", "replicate")
    assert (network.temporal_pool_position, network.head_pool) == ("before_pool5", "global")
    base = ["--base-run", "default", "--run", "flat", "--phase", "st-resnet", "--head-pool", "7x7"]
    call_flowkit(*COMMAND[3:], "--data", root, "--steps-per-phase", "1", *base, "--no-temporal-convolution")
    assert not load_checkpoint(phase_folder(root, "flat", 1, "st-resnet")).provenance.config.network.temporal_convolution
    with pytest.raises(click.BadParameter, match="'2,6' is not a list of stages; give some of 2,3,4,5, joined by commas"):
        call_flowkit(*COMMAND[3:], "--data", root, "--injection-stages", "2,6")


def test_settings_are_read_as_json_or_text(root: Path) -> None:
    arguments = [*COMMAND[3:], "--data", root, "--steps-per-phase", "2", "--phase", "motion"]
    call_flowkit(*arguments, "--set", "motion.motion_dropout=0.25", "--set", "decay=steps", "--set", "stage_units=[2,2,3,2]")
    config = load_checkpoint(phase_folder(root, "default", 1, "motion")).provenance.config
    assert (config.network.motion_dropout, config.decay, config.network.units) == (0.25, "steps", (2, 2, 3, 2))


@pytest.mark.parametrize("plain_pickle", [False, True])
@pytest.mark.parametrize("part", ["network", "environment"])
@pytest.mark.parametrize("way_in", ["resume", "evaluate --checkpoint", "--weights"])
def test_a_poisoned_file_runs_nothing_and_is_refused_in_one_clear_line_by_every_command_that_takes_it(
    undisturbed: tuple[Path, list[Any]], root: Path, capsys: pytest.CaptureFixture[str], way_in: str, part: str, plain_pickle: bool
) -> None:
    from flowkit.cli.main import main

    stored = torch.load(phase_folder(undisturbed[0], "default", 1, "appearance") / "checkpoint.pt", weights_only=True)
    values = {**stored, part: {**stored[part], "more": Payload(root / "trap")}}
    folder = phase_folder(root, "default", 1, "appearance")
    path = root / "evil.pt" if way_in == "--weights" else folder / "checkpoint.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    if plain_pickle:
        path.write_bytes(pickle.dumps(values))
    else:
        torch.save(values, path)
    arguments = {
        "resume": [*COMMAND[3:], "--data", root],
        "evaluate --checkpoint": ["evaluate", "--data", root, "--checkpoint", path],
        "--weights": [*COMMAND[3:], "--data", root, "--weights", path],
    }[way_in]
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    output = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("Recipe small")]
    assert ended.value.code == 1
    assert len(output) == 1
    assert output[0].startswith(f"flowkit: error: {path}: ")
    assert not (root / "trap").exists()
    if not plain_pickle:
        assert "refused" in output[0]
