"""ResNets of MatConvNet as first weights of base streams."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_lines import run_flowkit
from dagnn_files import BOTH_MEANS, FLOW_MEAN, RGB_MEAN, Graph, resnet, run, stored, two_streams
from matlab_files import write_v5

from flowkit.errors import CheckpointError, ParameterError
from flowkit.files import file_sha256
from flowkit.model.data.grey_level_inputs import matconvnet_weights
from flowkit.model.data.transforms import normalise_rgb
from flowkit.model.networks.stresnet import SingleStream
from flowkit.model.networks.weights import initialise_single_stream
from flowkit.model.runs.checkpoint import load_checkpoint
from flowkit.model.runs.run_folder import phase_folder
from flowkit.model.settings.network import STResNetConfig

SHAPE: dict[str, Any] = {"stage_units": (3, 2, 2, 2), "base_width": 4}
TINY = ["--base-width", 4, "--set", "stage_units=[3,2,2,2]", "--input-size", 32, "--batch", 4, "--bn-group", 2, "--steps-per-phase", 1]


def imagenet(path: Path, *, num_classes: int = 1000) -> tuple[Path, Graph]:
    """Write a file like ``imagenet-resnet-50-dag.mat``: its parts lie at the top, and it ends in a softmax."""
    graph = resnet(3, seed=5, num_classes=num_classes, is_imagenet=True)
    return write_v5(path, stored(graph, RGB_MEAN.reshape(1, 1, 3)), compress=False), graph


def stream(name: Any, path: Path, num_classes: int) -> SingleStream:
    weights = matconvnet_weights(path)
    network = SingleStream(STResNetConfig(num_classes, **SHAPE, stride_in_1x1=weights.stride_in_1x1, **weights.network), name)
    initialise_single_stream(network.double(), weights)
    return network.eval()


def test_a_stream_that_starts_from_a_file_computes_what_the_file_s_network_computes(tmp_path: Path) -> None:
    path, graph = imagenet(tmp_path / "resnet.mat", num_classes=7)
    network = stream("appearance", path, 7)
    frames = np.random.default_rng(1).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)
    given = {"data": (frames - RGB_MEAN.astype("f4")).transpose(0, 3, 1, 2)}
    expected = run(graph, given, 1)["fc1000"][:, :, 0, 0]
    with torch.inference_mode():
        computed = network(normalise_rgb(torch.from_numpy(frames)).double()[None])[0]
    # The normalised input is float32.
    assert np.abs(expected - computed.numpy()).max() < 1e-5 * np.abs(expected).max()


def test_the_filters_of_flow_are_the_mean_of_those_of_rgb_on_the_scale_of_flow(tmp_path: Path) -> None:
    path, graph = imagenet(tmp_path / "resnet.mat")
    mean = graph.params["conv1_filter"].transpose(3, 2, 0, 1).astype(np.float64).mean(1, keepdims=True)
    network = stream("motion", path, 9)
    np.testing.assert_allclose(network.stream.conv1.weight.detach().numpy(), np.repeat(mean, 20, 1) * 255 * 0.226, rtol=1e-6)


def test_train_takes_a_matlab_file_with_the_settings_of_its_network(root: Path, tmp_path: Path) -> None:
    path, _ = imagenet(tmp_path / "resnet.mat")
    for phase, has_offset in (("appearance", True), ("motion", False)):
        options = ["--device", "cpu", "--workers", 0, "--phase", phase]
        ended = run_flowkit("train", "--data", root, "--weights", path, *TINY, *options)
        assert ended.code == 0, ended
        made = load_checkpoint(phase_folder(root, "default", 1, phase)).provenance  # type: ignore[arg-type]
        network = made.config.network
        assert (network.stem_pool, network.stride_in_1x1, any(network.rgb_offset), network.num_classes) == ("ceil", True, has_offset, 6)
        assert made.config.weights == f"sha256:{file_sha256(path)}"


def test_a_written_file_has_the_settings_of_a_matlab_file_although_one_of_them_was_given(root: Path, tmp_path: Path) -> None:
    path, _ = imagenet(tmp_path / "resnet.mat")
    written = tmp_path / "mine.toml"
    options = ["--weights", path, *TINY, "--set", "stride_in_1x1=true", "--write-config", written]
    ended = run_flowkit("train", "--data", root, "--device", "cpu", *options)
    assert ended.code == 0, ended
    assert 'stem_pool = "ceil"' in written.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--set", "stem_pool=same"], "has stem_pool=ceil, this network same"),
        (["--set", "stride_in_1x1=false"], "stride_in_1x1=False contradicts"),
        (["--set", "rgb_offset=[0,0,0]"], "has rgb_offset=("),
    ],
)
def test_a_setting_that_contradicts_the_file_is_refused(root: Path, tmp_path: Path, options: list[str], text: str) -> None:
    path, _ = imagenet(tmp_path / "resnet.mat")
    ended = run_flowkit("train", "--data", root, "--device", "cpu", "--weights", path, *TINY, *options)
    assert ended.code == 1
    assert text in ended.err
    assert not (root / "runs").exists()


def test_files_of_other_networks_are_refused_by_what_they_hold(root: Path, tmp_path: Path) -> None:
    flow = write_v5(tmp_path / "flow.mat", {"net": stored(resnet(20, seed=2), FLOW_MEAN.reshape(1, 1, 20))})
    ended = run_flowkit("train", "--data", root, "--device", "cpu", "--weights", flow, *TINY)
    assert "flow.mat: its conv1 takes 20 channels (10 flow fields)" in ended.err
    two = write_v5(tmp_path / "two.mat", {"net": stored(two_streams("st-resnet"), BOTH_MEANS.reshape(1, 1, 23))})
    with pytest.raises(CheckpointError, match=r"two\.mat holds st-resnet, a network of two streams: .*--init-from"):
        matconvnet_weights(two)
    with pytest.raises(ParameterError, match="stride_in_1x1=False contradicts"):
        matconvnet_weights(flow, stride_in_1x1=False)
