"""VGG networks of MatConvNet: `convert` makes our file of them, and training starts from either file with the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from command_lines import call_flowkit
from dagnn_files import FLOW_MEAN
from matlab_files import write_v5
from training_runs import share_root
from vgg_matlab_files import RGB_MEAN, as_dagnn, run_layers, simplenn, vgg_layers

from flowkit.errors import ParameterError
from flowkit.model.convert.from_matconvnet import convert_matconvnet
from flowkit.model.convert.network_files import write_safetensors
from flowkit.model.data.transforms import normalise_flow, normalise_rgb
from flowkit.model.runs.checkpoint import load_checkpoint
from flowkit.model.runs.trained_network import trained_network
from flowkit.model.training.chain import train

NAMES = tuple(f"class {number}" for number in range(7))
MEANS = {3: RGB_MEAN.reshape(1, 1, 3), 20: FLOW_MEAN.reshape(1, 1, 20)}
CASES: Any = pytest.mark.parametrize(("kind", "channels", "style"), [("vgg-m", 3, "new"), ("vgg-m", 20, "dagnn"), ("vgg-16", 3, "old")])


def write_network(path: Path, kind: str, channels: int, style: str = "new", *, share: int = 16, window: int = 2) -> list[dict[str, Any]]:
    """Write a small VGG network; return its layers."""
    layers = vgg_layers(kind, channels=channels, share=share, window=window)
    mean = MEANS[channels]
    write_v5(path, as_dagnn(layers, mean) if style == "dagnn" else simplenn(layers, mean, style=style, class_names=NAMES))
    return layers


@CASES
def test_a_converted_network_computes_what_the_file_s_network_computes(tmp_path: Path, kind: str, channels: int, style: str) -> None:
    layers = write_network(tmp_path / "vgg.mat", kind, channels, style)
    converted = convert_matconvnet(tmp_path / "vgg.mat", classes=NAMES)
    write_safetensors(tmp_path / "vgg.safetensors", converted.checkpoint)
    read = load_checkpoint(tmp_path / "vgg.safetensors")
    stream = "appearance" if channels == 3 else "motion"
    assert read.provenance.config.phase == f"{kind}-{stream}"
    assert read.provenance.classes == NAMES
    network = trained_network(read, "the file").double().eval()
    grey = np.random.default_rng(1).integers(0, 256, (1, 80, 107, channels), dtype=np.uint8)
    mean = (RGB_MEAN if channels == 3 else FLOW_MEAN).astype("f4")
    expected = run_layers(layers, (grey - mean).transpose(0, 3, 1, 2).astype(np.float64))
    given = torch.from_numpy(grey)
    rgb = normalise_rgb(given).double()[None] if channels == 3 else None
    flow = None if channels == 3 else normalise_flow(given.permute(0, 3, 1, 2)).double()[None]
    with torch.inference_mode():
        computed = network.stream_logits(rgb, flow)[stream][0].numpy()
    assert np.abs(computed - expected).max() < 1e-5 * np.abs(expected).max()


def test_both_files_give_a_training_the_same_first_weights(packed_root: Path, tmp_path: Path) -> None:
    """The filters of the motion stream too, which are the mean of the RGB filters as the file has them."""
    write_network(tmp_path / "vgg.mat", "vgg-m", 3, share=32, window=1)
    code, _, err = call_flowkit("convert", tmp_path / "vgg.mat", tmp_path / "vgg.safetensors", "--classes", names_file(tmp_path))
    assert code == 0, err
    states = []
    for name in ("vgg.mat", "vgg.safetensors"):
        root = share_root(packed_root, tmp_path / f"root of {name}")
        line = ("train", "--data", root, "--system", "two-streams-vgg-m", "--recipe", "small", "--weights", tmp_path / name)
        tiny = ("--set", "input_size=64", "--batch", "4", "--steps-per-phase", "1", "--lr", "1e-30", "--device", "cpu", "--workers", "0")
        code, _, err = call_flowkit(*line, *tiny)
        assert code == 0, err
        folder = root / "runs/default/split1"
        states.append({phase: load_checkpoint(folder / phase) for phase in ("vgg-m-appearance", "vgg-m-motion")})
    first, second = states
    for phase, checkpoint in first.items():
        assert checkpoint.provenance.config.network == second[phase].provenance.config.network
        assert checkpoint.provenance.config.network.width == pytest.approx(1 / 32)  # type: ignore[attr-defined]
        for name, tensor in checkpoint.network.items():
            torch.testing.assert_close(second[phase].network[name], tensor, rtol=1e-5, atol=1e-5)


def test_one_file_for_several_kinds_of_networks_is_for_those_that_it_fits(packed_root: Path, tmp_path: Path) -> None:
    write_network(tmp_path / "vgg.mat", "vgg-m", 3, share=32, window=1)
    root = share_root(packed_root, tmp_path / "root")
    options = ("--data", root, "--recipe", "small", "--weights", tmp_path / "vgg.mat", "--device", "cpu", "--workers", "0")
    tiny = ("--set", "input_size=64", "--batch", "4", "--steps-per-phase", "1")
    with pytest.raises(ParameterError, match="vgg-m-appearance and c3d-appearance are networks of different kinds"):
        train(root, phases=["c3d-appearance", "vgg-m-appearance"], recipe="small", weights=tmp_path / "vgg.mat")
    systems = ("--system", "two-streams-vgg-m", "--system", "c3d")
    for _ in range(2):  # the same line again finds both trained
        code, _, err = call_flowkit("compare", "--train", *options, *tiny, *systems)
        assert code == 0, err
        assert "is for vgg-m-appearance, vgg-m-motion; the others start as the recipe says: c3d-appearance" in err
    with pytest.raises(click.UsageError, match="fits no network of these systems"):
        call_flowkit("compare", "--train", *options, *tiny, "--system", "c3d", "--run", "other")


def names_file(folder: Path) -> Path:
    """Write the names of the classes; return their file."""
    (folder / "names.txt").write_text("\n".join(NAMES) + "\n")
    return folder / "names.txt"
