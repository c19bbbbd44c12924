"""Where and how a run computes does not change what it learns: activation checkpointing, compilation, crops on the device, precision."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from phases import PHASES
from training_runs import TINY, metrics, run, same, weights

from flowkit.errors import DeviceError, ParameterError
from flowkit.model.compute.execution import Execution, compile_in_place
from flowkit.model.networks.phase_networks import build_network
from flowkit.model.networks.resnet import GroupedBatchNorm
from flowkit.model.runs import events
from flowkit.model.runs.checkpoint import load_checkpoint
from flowkit.model.runs.run_folder import phase_folder
from flowkit.model.systems.configs import make_configs
from flowkit.model.training.passes import groups_per_pass

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_a_mistyped_number_of_reading_processes_is_refused() -> None:
    with pytest.raises(ParameterError, match="num_workers must be at most 1024, got 99999999999"):
        Execution(num_workers=99999999999)


def environment(root: Path, phase: str) -> Any:
    return load_checkpoint(phase_folder(root, "default", 1, phase) / "checkpoint.pt").environment


def test_with_checkpointed_activations_all_weights_and_moments_are_the_same_bit_for_bit(
    undisturbed: tuple[Path, list[Any]], root: Path
) -> None:
    run(root, execution=Execution(device="cpu", checkpoint_activations=True))
    for phase in PHASES:
        assert same(weights(root, phase), weights(undisturbed[0], phase)), phase
        assert metrics(root, phase) == metrics(undisturbed[0], phase)
        assert environment(root, phase)["checkpoint_activations"] is True
    assert environment(undisturbed[0], "motion")["checkpoint_activations"] is False


def test_a_gpu_without_memory_is_reported_with_advice(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 10 GiB")

    monkeypatch.setattr("flowkit.model.training.loop.stream_logits", full)
    with pytest.raises(
        DeviceError, match=r"memory left \(CUDA out of memory\. Tried to allocate 2\.00 GiB\.\); 2 videos .*--videos-per-pass"
    ):
        run(root, phases=["motion"])


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="needs g++: without it, train refuses to compile")
@pytest.mark.parametrize(
    ("phase", "videos_per_pass"),
    [("motion", None), ("motion", 4), ("appearance", 4)],
)
def test_a_compiled_step_is_the_same_step_but_for_rounding_and_is_compiled_once(
    root: Path, monkeypatch: pytest.MonkeyPatch, phase: str, videos_per_pass: int | None
) -> None:
    """With the backend that compiles both passes into torch's own operations: tracing without inductor."""
    counters = torch._dynamo.utils.counters
    monkeypatch.setattr("flowkit.model.training.loop.compile_in_place", lambda network: compile_in_place(network, backend="aot_eager"))
    settings = {"phases": [phase], "overrides": {"steps": 12}}
    torch._dynamo.reset()
    run(root, **settings, run="eager", execution=Execution(device="cpu", videos_per_pass=2 if phase == "motion" else videos_per_pass))
    before = counters["stats"]["unique_graphs"]
    run(root, **settings, execution=Execution(device="cpu", compile=True, checkpoint_activations=True, videos_per_pass=videos_per_pass))
    assert counters["stats"]["unique_graphs"] == before + 1
    received = environment(root, phase)
    assert received["compile"] is True
    assert received["videos_per_pass"] == (4 if phase == "appearance" else 2)  # a compiled network cannot seed each group's dropout
    plain, compiled = metrics(root, phase, "eager"), metrics(root, phase)
    assert [line["loss"] for line in compiled] == pytest.approx([line["loss"] for line in plain], rel=1e-4)
    expected, got = weights(root, phase, "eager"), weights(root, phase)
    assert expected.keys() == got.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(got[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("crop_on", ["host", pytest.param("device", marks=pytest.mark.slow)])
def test_groups_that_share_a_pass_are_trained_as_one_after_another(root: Path, crop_on: str) -> None:
    """Each group has its own batch statistics, running moments and dropout; after a step everything is the same but for rounding."""
    settings = {"overrides": {"batch": 12, "bn_group": 3, "steps": 1, "lr": 0.01, "input_size": 64, "motion.motion_dropout": 0.5}}
    run(root, **settings, run="alone", execution=Execution(device="cpu", crop_on=crop_on))
    run(root, **settings, execution=Execution(device="cpu", crop_on=crop_on, videos_per_pass=10))  # a pass of three groups and one of one
    assert environment(root, "motion")["videos_per_pass"] == 9
    for phase in PHASES:
        alone, joined = metrics(root, phase, "alone"), metrics(root, phase)
        for name in alone[0]:
            near = 1e-5 if phase in ("appearance", "motion") else 1e-2  # the others start from slightly different weights
            assert [line[name] for line in joined] == pytest.approx([line[name] for line in alone], rel=near), (phase, name)
        expected, got = ({key: x.double() for key, x in weights(root, phase, name).items()} for name in ("alone", "default"))
        difference = torch.stack([torch.linalg.norm(got[name] - x) for name, x in expected.items()]).norm()
        far = {"st-resnet": 1e-2, "st-resnet-star": 1e-1}.get(phase, 1e-3)  # a step enlarges what the phases before left
        assert difference <= far * torch.stack([torch.linalg.norm(x) for x in expected.values()]).norm(), phase


@pytest.mark.parametrize(("num_groups", "shape"), [(1, (3, 5, 4, 4)), (3, (9, 4, 5, 3)), (4, (4, 7, 2, 3)), (2, (10, 1, 1, 1))])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_grouped_batch_norm_is_batch_norm_of_each_group(num_groups: int, shape: tuple[Any, ...], memory_format: Any) -> None:
    torch.manual_seed(0)
    grouped = GroupedBatchNorm(shape[1]).train()
    plain = GroupedBatchNorm(shape[1], momentum=1.0).train()  # its running moments are those of the last batch
    grouped.divide(num_groups)
    x = torch.randn(shape).to(memory_format=memory_format)
    gradient = torch.randn(shape).to(memory_format=memory_format)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    together = grouped(inputs[0])
    outputs, moments = [], []
    for part in inputs[1].chunk(num_groups):
        outputs.append(plain(part))
        moments.append(torch.stack([plain.running_mean, plain.running_var]))
    apart = torch.cat(outputs)
    together.backward(gradient)
    apart.backward(gradient)
    assert torch.equal(together, apart)
    assert together.is_contiguous(memory_format=memory_format)
    assert torch.equal(inputs[0].grad, inputs[1].grad)
    for ours, theirs in ((grouped.weight, plain.weight), (grouped.bias, plain.bias)):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-6)  # the same terms in another order
    assert torch.equal(grouped.group_moments, torch.stack(moments, 1))
    assert int(grouped.values_per_group) == x.numel() // (num_groups * shape[1])
    assert torch.equal(grouped.running_mean, torch.zeros(shape[1]))
    assert torch.equal(grouped.running_var, torch.ones(shape[1]))
    expected = (x[: len(x) // num_groups] - x[: len(x) // num_groups].mean((0, 2, 3), keepdim=True)).flatten()
    assert expected @ together[: len(x) // num_groups].flatten().detach() > 0  # from the first group's moments
    plain.load_state_dict(grouped.state_dict())
    assert torch.equal(grouped.eval()(x), plain.eval()(x))


@pytest.mark.parametrize(
    ("execution", "phase", "free", "expected"),
    [
        ({"device": "cpu"}, "st-resnet", 0, 1),
        ({"device": "cpu", "videos_per_pass": 3}, "st-resnet", 0, 1),
        ({"device": "cpu", "videos_per_pass": 70}, "st-resnet", 0, 17),
        ({"device": "cuda"}, "st-resnet", 140, 8),  # 32 clips of 5 frames
        ({"device": "cuda"}, "appearance", 140, 4),  # 128 frames: of 160, a divisor of the 8 groups
        ({"device": "cuda", "rank": 1, "world": 16}, "st-resnet", 140, 2),
        ({"device": "cuda", "amp": "bf16"}, "st-resnet", 16, 4),
        ({"device": "cuda"}, "st-resnet", 16, 2),
        ({"device": "cuda", "checkpoint_activations": True}, "st-resnet", 16, 4),
        ({"device": "cuda"}, "st-resnet", 2, 1),
        ({"device": "cuda", "compile": True}, "motion", 140, 1),
    ],
)
def test_as_many_groups_share_a_pass_as_memory_holds(
    monkeypatch: pytest.MonkeyPatch, execution: dict[str, Any], phase: str, free: int, expected: int
) -> None:
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (int(free * 2**30), 0))
    config = make_configs("official", num_classes=101, num_videos=1000, short_side=256)[phase]
    network = build_network(config) if free in (2, 16) else torch.nn.Identity()
    assert groups_per_pass(config, network, Execution(**execution), torch.device(execution["device"])) == expected


@pytest.mark.parametrize("phase", ["appearance", "motion"])
def test_cropped_on_the_device_a_run_is_nearly_the_same(root: Path, phase: str) -> None:
    settings = {"phases": [phase], "overrides": {"batch": 12, "bn_group": 12, "steps": 2, "lr": 0.001, "input_size": 64}}
    run(root, **settings, run="host", execution=Execution(device="cpu"))
    run(root, **settings, execution=Execution(device="cpu", crop_on="device", num_workers=1))
    assert environment(root, phase)["crop_on"] == "device"
    mine, theirs = ([line["loss"] for line in metrics(root, phase, name)] for name in ("default", "host"))
    assert mine == pytest.approx(theirs, rel=1e-2)
    assert mine[0] != theirs[0]  # from rounding to bytes


def test_st_resnet_trains_with_crops_on_the_device(undisturbed: tuple[Path, list[Any]], root: Path) -> None:
    shutil.copytree(undisturbed[0] / "runs", root / "runs")
    report, _ = run(root, phases=["st-resnet"], run="cropped", base_run="default", execution=Execution(device="cpu", crop_on="device"))
    assert report.trained == ("st-resnet",)
    mine, theirs = metrics(root, "st-resnet", "cropped"), metrics(root, "st-resnet")
    assert mine[0]["loss"] == pytest.approx(theirs[0]["loss"], rel=0.1)  # batch norm over two tiny clips magnifies the rounding


def test_resuming_with_crops_on_another_device_is_reported(root: Path) -> None:
    run(root, stop_after=2)
    _, received = run(root, phases=["appearance"], execution=Execution(device="cpu", crop_on="device"))
    (started,) = [event for event in received if isinstance(event, events.PhaseStarted)]
    assert started.changes == ("crop_on was host, now device",)


@pytest.mark.parametrize(("crop_on", "device", "expected"), [("auto", CPU, False), ("auto", CUDA, True), ("host", CUDA, False)])
def test_crops_are_taken_on_the_device_where_that_is_cuda(crop_on: str, device: Any, expected: bool) -> None:
    assert Execution(crop_on=crop_on).crops_on_device(device) == expected


def scale_losses_by(monkeypatch: pytest.MonkeyPatch, scale: Any) -> None:
    make = torch.amp.GradScaler.__init__
    monkeypatch.setattr(
        torch.amp.GradScaler, "__init__", lambda self, device, enabled: make(self, device, init_scale=scale, enabled=enabled)
    )


def scaler_of(root: Path) -> Any:
    return load_checkpoint(phase_folder(root, "default", 1, "appearance") / "checkpoint.pt").scaler


def test_fp16_scales_the_loss_once_a_step_however_many_sub_batches(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scale_losses_by(monkeypatch, 16.0)
    settings = {"phases": ["appearance"], "overrides": {"batch": 12, "bn_group": 6, "steps": 5, "lr": 0.001, "input_size": 64}}
    run(root, **settings, run="plain", execution=Execution(device="cpu"))
    run(root, **settings, execution=Execution(device="cpu", amp="fp16"))
    assert scaler_of(root)["_growth_tracker"] == 5  # updates since the last change of the scale
    assert scaler_of(root)["scale"] == 16
    plain, half = metrics(root, "appearance", "plain"), metrics(root, "appearance")
    assert [line["loss"] for line in half] == pytest.approx([line["loss"] for line in plain], rel=2e-2)
    assert half[0]["loss"] != plain[0]["loss"]


def test_a_step_whose_fp16_gradients_overflow_is_left_out_and_leaves_nothing_in_the_momentum(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch's fused SGD starts its momentum from uninitialised memory if the first step is skipped."""
    scale_losses_by(monkeypatch, 2.0**120)
    settings = {"phases": ["appearance"], "run": "default"}
    execution = Execution(device="cpu", amp="fp16", checkpoint_steps=1)
    run(root, **settings, overrides={"steps": 3, "lr": 0.01}, execution=execution, stop_after=2)
    stopped = load_checkpoint(phase_folder(root, "default", 1, "appearance") / "checkpoint.pt")
    assert stopped.step == 2
    assert stopped.scaler["scale"] == 2.0**118
    assert stopped.momentum == {}
    run(root, phases=["appearance"], run="still", overrides={"steps": 1, "lr": 0.0}, execution=execution)
    start = weights(root, "appearance", "still")
    assert all(torch.equal(tensor, start[name]) for name, tensor in stopped.network.items() if "running" not in name and "num_" not in name)


@pytest.mark.parametrize("amp", ["float32", "tf32", "bf16"])
def test_cuda_s_float32_is_tf32_only_where_that_was_asked_for_and_the_process_s_settings_are_put_back(amp: str) -> None:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32
    with Execution(amp=amp).arithmetic(CUDA, fixed_shapes=True):
        assert cudnn.allow_tf32 == matmul.allow_tf32 == (amp == "tf32")
        assert cudnn.benchmark
    assert (cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32) == before
    with Execution(amp=amp).arithmetic(CPU):
        assert (cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32) == before


def test_a_cpu_has_no_tf32() -> None:
    with pytest.raises(ParameterError, match="a CPU has float32 and bf16"):
        Execution(device="cpu", amp="tf32").torch_device()


def test_compiling_without_a_compiler_is_refused_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(DeviceError, match=r"--compile needs a C\+\+ compiler \(no-such-compiler\); install one, or do without --compile"):
        Execution(device="cpu", compile=True).torch_device()
    Execution(device="cpu").torch_device()


@pytest.mark.parametrize("settings", [{"amp": "int8"}, {"crop_on": "gpu"}, {"num_workers": -1}, {"checkpoint_steps": 0}, {"rank": 1}])
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match=next(iter(settings))):
        Execution(**settings)


def test_the_command_line_s_options_reach_the_checkpoint(root: Path) -> None:
    from click.testing import CliRunner

    from flowkit.cli.main import flowkit

    overrides = ["--base-width", "4", "--batch", "4", "--bn-group", "2", "--steps-per-phase", "2", "--input-size", str(TINY["input_size"])]
    options = ["--checkpoint-activations", "--crop-on", "device", "--amp", "bf16", "--workers", "0", "--device", "cpu"]
    arguments = ["train", "--data", str(root), "--phase", "appearance", *overrides, *options]
    assert CliRunner().invoke(flowkit, arguments, standalone_mode=False).return_value == 0
    received = environment(root, "appearance")
    assert (received["checkpoint_activations"], received["crop_on"], received["amp"], received["compile"]) == (
        True,
        "device",
        "bf16",
        False,
    )
