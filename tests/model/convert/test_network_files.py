"""Exported networks: ONNX computes what PyTorch does at any size, or is not written; safetensors load without flowkit's reader."""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from command_lines import call_flowkit, run_flowkit
from network_oracle import network
from phases import PHASES
from random_networks import random_checkpoints

from flowkit.cli.main import flowkit
from flowkit.errors import CheckpointError, ParameterError
from flowkit.model import STResNet, STResNetConfig
from flowkit.model.convert.network_files import write_onnx, write_safetensors
from flowkit.model.networks.phase_networks import stream_logits
from flowkit.model.runs.checkpoint import Checkpoint, load_checkpoint, save_weights
from flowkit.model.runs.run_folder import phase_folder
from flowkit.model.runs.trained_network import load_network

CLASSES = ("a", "β", "c,d")

needs_onnx = pytest.mark.skipif(not (find_spec("onnx") and find_spec("onnxruntime")), reason="needs onnx and onnxruntime")


pytestmark = pytest.mark.usefixtures("seeded")


@pytest.fixture(scope="module")
def checkpoints() -> Any:
    return random_checkpoints(CLASSES)


def session_of(data: Any) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def assert_same(session: Any, model: Any, num_clips: int, num_frames: int, height: int, width: int) -> None:
    rgb, flow = (torch.randn(num_clips, num_frames, channels, height, width) for channels in (3, 20))
    given = {"rgb": rgb.numpy(), "flow": flow.numpy()}
    with torch.no_grad():
        expected = stream_logits(model, rgb, flow)
    assert [item.name for item in session.get_outputs()] == [f"{stream}_logits" for stream in expected]
    computed = session.run(None, {item.name: given[item.name] for item in session.get_inputs()})
    for logits, theirs in zip(expected.values(), computed, strict=True):
        assert theirs.shape == tuple(logits.shape)
        assert np.abs(theirs - logits.numpy()).max() < 1e-5 * logits.abs().max()


VARIANTS = [
    {},
    {"temporal_padding": "replicate", "stride_in_1x1": True},
    {"temporal_pool": True},
    {"temporal_pool": True, "temporal_pool_position": "before_pool5", "temporal_padding": "replicate"},
    {"temporal_pool": True, "temporal_pool_position": "before_pool5", "head_pool": "global"},
    {"temporal_pool": True, "head_pool": "global"},
    {"temporal_convolution": False},
    {"temporal_stages": (3, 5), "injection_stages": (2, 4), "injection_direction": "both"},
    {"injection": "none"},
    {"stem_pool": "ceil", "rgb_offset": (-0.5, 0.25, 1.0)},
    {"temporal_pool": True, "temporal_pool_stride": 1, "temporal_pool_position": "before_pool5"},
    *(
        {"injection": injection, "injection_direction": direction, "injection_kind": kind}
        for injection, direction, kind in itertools.product(
            ("residual", "direct"), ("motion_to_appearance", "appearance_to_motion", "both"), ("additive", "multiplicative")
        )
    ),
]


@needs_onnx
@pytest.mark.parametrize("settings", VARIANTS, ids=lambda s: "-".join(map(str, s.values())) or "default")
def test_every_network_is_the_same_in_onnx_at_any_number_and_size_of_frames(settings: Any) -> None:
    from flowkit.model.convert.onnx_graph import onnx_model

    model = network(**settings)
    session = session_of(onnx_model(model, metadata={}).SerializeToString())
    assert_same(session, model, 2, 5, 64, 64)
    assert_same(session, model, 1, 8, 33, 90)


@needs_onnx
@pytest.mark.parametrize("position", ["after_pool5", "before_pool5"])
@pytest.mark.parametrize("size", [(1, 4, 64, 64), (2, 1, 32, 96), (1, 2, 20, 20), (1, 5, 96, 30)])
def test_windows_shrink_to_few_frames_and_small_maps_as_in_the_network(position: str, size: tuple[Any, ...]) -> None:
    from flowkit.model.convert.onnx_graph import onnx_model

    model = network(temporal_pool=True, temporal_pool_position=position)
    assert_same(session_of(onnx_model(model, metadata={}).SerializeToString()), model, *size)


@needs_onnx
@pytest.mark.parametrize("phase", PHASES)
def test_each_phase_is_exported_verified_and_described(checkpoints: Any, tmp_path: Path, phase: str) -> None:
    path = tmp_path / "out" / "network.onnx"
    check = write_onnx(path, checkpoints[phase])
    assert 0 <= check.max_difference < 1e-5 * max(check.largest_logit, 1)
    session = session_of(path.read_bytes())
    assert {item.name: item.shape for item in session.get_inputs()} == {
        name: ["clips", "frames", channels, "height", "width"]
        for stream, name, channels in (("appearance", "rgb", 3), ("motion", "flow", 20))
        if phase == stream or phase.startswith("st-")
    }
    save_weights(tmp_path / "weights.safetensors", checkpoints[phase])
    assert_same(session, load_network(tmp_path / "weights.safetensors"), 2, 9, 40, 56)
    told = session.get_modelmeta().custom_metadata_map
    assert told["phase"] == phase
    assert json.loads(told["classes"]) == list(CLASSES)
    assert STResNetConfig.from_dict(json.loads(told["network"])) == checkpoints[phase].provenance.config.network


@needs_onnx
def test_the_described_input_is_what_the_network_is_given(checkpoints: Any, tmp_path: Path) -> None:
    from flowkit.model.data.transforms import normalise_flow, normalise_rgb

    write_onnx(tmp_path / "network.onnx", checkpoints["motion"])
    told = json.loads(session_of((tmp_path / "network.onnx").read_bytes()).get_modelmeta().custom_metadata_map["input"])
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(-1, 1, 3)
    rgb = (pixels / 255 - told["rgb"]["mean"]) / told["rgb"]["std"]
    assert np.allclose(normalise_rgb(torch.from_numpy(pixels)).permute(1, 2, 0).numpy(), rgb, atol=1e-6)
    flow = (pixels.astype(float) - told["flow"]["zero"]) / told["flow"]["std"]
    assert np.allclose(normalise_flow(torch.from_numpy(pixels)).numpy(), flow, atol=1e-6)
    assert told["flow_quantiser"] == {"bound": 20.0, "mapping": "symmetric"}


@needs_onnx
@pytest.mark.parametrize("fault", [1e-2, float("nan")])
def test_an_onnx_model_that_differs_is_refused_and_nothing_is_written(
    checkpoints: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Any
) -> None:
    from flowkit.model.convert import onnx_graph

    right = onnx_graph.onnx_model

    def wrong(model: Any, *, metadata: Any) -> Any:
        with torch.no_grad():
            model.motion.fc.bias[1] += fault
        made = right(model, metadata=metadata)
        with torch.no_grad():
            model.motion.fc.bias[1] -= fault
        return made

    monkeypatch.setattr(onnx_graph, "onnx_model", wrong)
    monkeypatch.setattr("flowkit.model.convert.network_files.ONNX_TOLERANCE", 1e-6)
    with pytest.raises(CheckpointError, match=r"differs from the network by (0\.01|nan).*nothing was written"):
        write_onnx(tmp_path / "network.onnx", checkpoints["st-resnet"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_without_onnx_the_error_says_what_to_install(
    checkpoints: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ParameterError, match=r'pip install "flowkit-video\[onnx\]"'):
        write_onnx(tmp_path / "network.onnx", checkpoints["motion"])


def test_safetensors_load_as_documented_without_flowkit_s_reader(checkpoints: Any, tmp_path: Path) -> None:
    path = tmp_path / "network.safetensors"
    write_safetensors(path, checkpoints["st-resnet-star"])

    from safetensors import safe_open
    from safetensors.torch import load_file

    with safe_open(path, framework="pt") as file:
        about = file.metadata()
    model = STResNet(STResNetConfig.from_dict(json.loads(about["network"])))
    model.load_state_dict(load_file(path))

    rgb, flow = torch.randn(1, 6, 3, 40, 56), torch.randn(1, 6, 20, 40, 56)
    with torch.no_grad():
        for logits, expected in zip(model.eval()(rgb, flow), load_network(path)(rgb, flow), strict=True):
            assert torch.equal(logits, expected)
    assert json.loads(about["classes"]) == list(CLASSES)
    assert load_checkpoint(path).provenance == checkpoints["st-resnet-star"].provenance


def test_weights_of_another_network_are_refused_and_nothing_is_written(checkpoints: Any, tmp_path: Path) -> None:
    mixed = Checkpoint(checkpoints["motion"].provenance, 4, checkpoints["appearance"].network)
    for export, name in ((write_safetensors, "n.safetensors"), (write_onnx, "n.onnx")):
        with pytest.raises(CheckpointError, match="do not fit the network"):
            export(tmp_path / name, mixed)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "settings", [{"base_width": 10**7}, {"base_width": 10**15}, {"stage_units": (10**7, 2, 2, 2)}, {"num_classes": 10**12}]
)
def test_weights_that_claim_to_be_a_huge_network_are_refused_before_it_is_made(
    checkpoints: Any, tmp_path: Path, settings: dict[str, Any]
) -> None:
    told = checkpoints["motion"].provenance
    claimed = replace(told, config=replace(told.config, network=replace(told.config.network, **settings)))
    with pytest.raises(CheckpointError, match="do not fit the network") as caught:
        write_safetensors(tmp_path / "n.safetensors", Checkpoint(claimed, 4, checkpoints["motion"].network))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


command_line = partial(call_flowkit, "convert")


@pytest.fixture
def root(checkpoints: Any, tmp_path: Path) -> Path:
    for phase in ("appearance", "st-resnet"):
        save_weights(phase_folder(tmp_path, "default", 1, phase) / "weights.safetensors", checkpoints[phase])
    return tmp_path


def test_the_command_converts_the_last_trained_phase_or_the_one_named(root: Any) -> None:
    for options, phase in (((), "st-resnet"), (("--phase", "appearance"), "appearance")):
        code, out, _ = command_line("default", root / "n.safetensors", "--data", root, *options)
        assert code == 0
        assert out.startswith(f"wrote {phase} of ")
        assert load_checkpoint(root / "n.safetensors").provenance.config.phase == phase
    code, out, _ = command_line(root / "n.safetensors", root / "m.safetensors")
    assert (root / "m.safetensors").read_bytes() == (root / "n.safetensors").read_bytes()


@needs_onnx
def test_the_command_prints_how_exact_the_onnx_file_is(root: Any) -> None:
    code, out, _ = command_line("default", root / "n.onnx", "--data", root)
    assert code == 0
    assert "ONNX Runtime and PyTorch differ by at most " in out
    assert "2x5x35x35" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("default", "n.pt"), "OUT must end in .safetensors or .onnx, got n.pt"),
        (("default", "n.onnx", "--layout", "gpu_flow"), "No such option"),
        (("default", "."), "is a directory"),
        (("default",), "Missing argument 'OUT'"),
        (
            ("default", "n.onnx", "--data-set", "ucf101"),
            "--data-set would do nothing here: networks that flowkit trained name their classes",
        ),
        (("net.mat", "n.onnx"), "a .mat file becomes a .safetensors file"),
        (("net.mat", "n.safetensors", "--phase", "motion"), "--phase would do nothing here: a .mat file says itself what it holds"),
    ],
)
def test_an_output_that_is_no_network_file_is_a_usage_error(
    root: Any, options: tuple[Any, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    result = CliRunner().invoke(flowkit, ["convert", *options])
    assert result.exit_code == 2
    assert message in result.stderr
    assert not list(root.glob("n.*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("other",), r"run 'other' .* no trained phase .*nothing is trained there.*flowkit train --split 1 --run other"),
        (("default", "--phase", "motion"), r"no trained motion for split 1 \(trained are appearance, st-resnet\)"),
        (("default", "--split", "2"), "for split 2"),
    ],
)
def test_what_is_not_trained_is_named(root: Any, options: tuple[Any, ...], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        command_line(options[0], root / "n.safetensors", "--data", root, *options[1:])


def test_nothing_is_written_over_the_files_of_a_trained_phase_or_where_nothing_can_be_written(root: Any, tmp_path: Path) -> None:
    weights = phase_folder(root, "default", 1, "appearance") / "weights.safetensors"
    (weights.parent / "config.json").write_text("{}")  # as training leaves it
    before = weights.read_bytes()
    for target in (weights, weights.with_name("copy.safetensors"), weights.with_name("copy.onnx")):
        ended = run_flowkit("convert", "default", target, "--data", root)
        assert ended.code == 2
        assert "which holds a trained phase; choose another folder" in ended.err
    (weights.parent / "config.json").unlink()
    assert weights.read_bytes() == before
    (tmp_path / "file").touch()
    ended = run_flowkit("convert", "default", tmp_path / "file" / "n.onnx", "--data", root)
    assert ended.code == 1
    assert "cannot be written" in ended.err
