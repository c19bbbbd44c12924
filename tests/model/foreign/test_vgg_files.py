"""VGG networks of MatConvNet: what a network with their weights computes, and what is refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dagnn_files import FLOW_MEAN, VERSIONS, resnet, row, stored
from dagnn_files import RGB_MEAN as RESNET_MEAN
from matlab_files import write_v5
from vgg_matlab_files import LRN, RGB_MEAN, Layer, as_dagnn, run_layers, simplenn, vgg_layers

from flowkit.errors import CheckpointError
from flowkit.model.data.grey_level_inputs import matconvnet_weights, vgg_weights
from flowkit.model.data.transforms import normalise_flow, normalise_rgb
from flowkit.model.foreign.vgg_files import read_vgg
from flowkit.model.networks.vgg import VggSingleStream
from flowkit.model.networks.weights import initialise_single_stream
from flowkit.model.settings.vgg import VggConfig

GENUINE = "matconvnet/DCFNet-net-7-125-2.mat"
MEANS = {3: RGB_MEAN.reshape(1, 1, 3), 20: FLOW_MEAN.reshape(1, 1, 20)}
KINDS: Any = pytest.mark.parametrize("kind", ["vgg-m", "vgg-16"])


def stream_of(path: Path, name: Any, num_classes: int = 7) -> VggSingleStream:
    """Return a stream in float64 that starts from a file."""
    weights = vgg_weights(path)
    config = VggConfig(num_classes, input_size=read_vgg(path).settings["input_size"], **weights.network)
    network = VggSingleStream(config, name).double()
    done = initialise_single_stream(network, weights)
    assert done.new_classifier == (num_classes != 7)
    return network.eval()


def difference(computed: torch.Tensor, expected: np.ndarray[Any, Any]) -> float:
    assert tuple(computed.shape) == expected.shape
    return float(np.abs(computed.numpy() - expected).max() / np.abs(expected).max())


@KINDS
@pytest.mark.parametrize(
    ("version", "style"), [("v5", "new"), ("v7", "old"), ("v7", "net"), ("v7", "dagnn"), ("v7.3", "new"), ("v7.3", "dagnn")]
)
def test_a_stream_computes_what_the_file_s_network_computes(tmp_path: Path, kind: str, style: str, version: str) -> None:
    layers = vgg_layers(kind, window=2)
    variables = as_dagnn(layers, MEANS[3]) if style == "dagnn" else simplenn(layers, MEANS[3], style=style)
    network = stream_of(VERSIONS[version](tmp_path / "vgg.mat", variables), "appearance")
    assert network.config.kind == kind
    assert network.config.head_window == 2
    frames = np.random.default_rng(1).integers(0, 256, (1, 80, 107, 3), dtype=np.uint8)
    expected = run_layers(layers, (frames - RGB_MEAN.astype("f4")).transpose(0, 3, 1, 2).astype(np.float64))
    with torch.inference_mode():
        computed = network(normalise_rgb(torch.from_numpy(frames)).double()[None])[0]
    assert difference(computed, expected) < 1e-5  # the normalised input is float32


@KINDS
def test_the_published_size_has_the_published_window(tmp_path: Path, kind: str) -> None:
    layers = vgg_layers(kind, share=32)
    network = stream_of(write_v5(tmp_path / "vgg.mat", simplenn(layers, RGB_MEAN + np.zeros((4, 5, 3)))), "appearance")
    assert network.config.input_size == 224
    frames = np.random.default_rng(1).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)
    expected = run_layers(layers, (frames - RGB_MEAN.astype("f4")).transpose(0, 3, 1, 2).astype(np.float64))
    with torch.inference_mode():
        assert difference(network(normalise_rgb(torch.from_numpy(frames)).double()[None])[0], expected) < 1e-5


@KINDS
def test_a_file_for_flow_starts_a_motion_stream_and_keeps_its_dropout(tmp_path: Path, kind: str) -> None:
    layers = vgg_layers(kind, channels=20, window=1, rates=(0.9, 0.8))
    path = write_v5(tmp_path / "flow.mat", simplenn(layers, MEANS[20], style="net"))
    assert read_vgg(path).settings["dropout"] == (0.9, 0.8)
    network = stream_of(path, "motion")
    levels = np.random.default_rng(1).integers(0, 256, (2, 20, 64, 64), dtype=np.uint8)
    with torch.inference_mode():
        computed = network(normalise_flow(torch.from_numpy(levels)).double()[None])[0]
    assert difference(computed, run_layers(layers, levels - 128.0)) < 1e-5


@KINDS
def test_the_filters_of_flow_are_the_mean_of_those_of_rgb_on_the_scale_of_flow(tmp_path: Path, kind: str) -> None:
    layers = vgg_layers(kind, window=1)
    network = stream_of(write_v5(tmp_path / "vgg.mat", simplenn(layers, MEANS[3])), "motion", num_classes=4)
    mean = layers[0]["weights"][0].transpose(3, 2, 0, 1).astype(np.float64).mean(1, keepdims=True)
    np.testing.assert_allclose(network.stream.conv1.weight.detach().numpy(), np.repeat(mean, 20, 1) * 255 * 0.226, rtol=1e-5, atol=1e-6)
    assert network.stream.fc.out_features == 4


def test_alpha_is_multiplied_by_the_size_and_names_are_those_of_the_file(tmp_path: Path) -> None:
    layers = vgg_layers("vgg-m", window=1)
    made = read_vgg(write_v5(tmp_path / "vgg.mat", simplenn(layers, MEANS[3], class_names=tuple("abcdefg"))))
    size, k, alpha, beta = LRN
    assert made.settings["lrn"] == (5, pytest.approx(alpha * size), beta, k) == (5, pytest.approx(5e-4), 0.75, 2.0)
    assert made.class_names == tuple("abcdefg")
    assert made.phase == "appearance"
    np.testing.assert_allclose(made.means["appearance"], RGB_MEAN, rtol=1e-6)


def test_pools_that_round_down_are_accepted_with_a_note_where_crops_do_not_show_it(tmp_path: Path) -> None:
    layers = vgg_layers("vgg-16", window=2)
    for layer in layers:
        if layer["type"] == "pool":
            layer["pad"] = row(0)
    path = write_v5(tmp_path / "vgg.mat", simplenn(layers, MEANS[3]))
    assert read_vgg(path).notes == ("its pools leave out a last odd row or column, which those here take; crops of 224 px have none",)
    frames = np.random.default_rng(1).integers(0, 256, (1, 64, 96, 3), dtype=np.uint8)
    for layer in layers:
        if layer["type"] == "pool":
            layer["pad"] = row(0, 0, 0, 0)
    expected = run_layers(layers, (frames - RGB_MEAN.astype("f4")).transpose(0, 3, 1, 2).astype(np.float64))
    with torch.inference_mode():
        assert difference(stream_of(path, "appearance")(normalise_rgb(torch.from_numpy(frames)).double()[None])[0], expected) < 1e-5


# -- refusals ----------------------------------------------------------------------------------------------------------------------


def layer(layers: list[Layer], name: str) -> Layer:
    return next(item for item in layers if item.get("name") == name)


def set_layer(of: str, **values: Any) -> Callable[[list[Layer]], Any]:
    return lambda layers: layer(layers, of).update(values)


def without(name: str) -> Callable[[list[Layer]], Any]:
    return lambda layers: layers.remove(layer(layers, name))


def filters(layers: list[Layer], name: str, values: Any) -> None:
    layer(layers, name)["weights"] = (values, layer(layers, name)["weights"][1])


REFUSED: dict[str, tuple[Callable[[list[Layer]], Any], str]] = {
    "an unknown type": (set_layer("relu3", type="sigmoid"), "layer 'relu3' has the type 'sigmoid'"),
    "no type": (set_layer("relu3", type=""), "layer 10 has no type"),
    "a name twice": (set_layer("relu3", name="relu2"), "2 layers called 'relu2'"),
    "a name that is no text": (set_layer("relu3", name=row(1)), "the name of layer 10 is no text"),
    "no relu": (without("relu3"), "layer 'conv4', a Conv, stands where a VGG network has a ReLU"),
    "no first normalisation": (without("norm1"), "stands where a VGG network has a LRN"),
    "no second normalisation": (without("norm2"), "stands where a VGG network has a LRN"),
    "no convolution": (without("conv3"), "a network of 7 convolutions"),
    "a relu at the end": (lambda layers: layers.insert(-1, {"type": "relu", "name": "r"}), "'r', a ReLU, stands after the classifier"),
    "another stride": (set_layer("conv1", stride=row(1)), "layer 'conv1' has stride [1, 1] where [2, 2] belongs"),
    "another padding": (set_layer("conv3", pad=row(0)), "layer 'conv3' has pad [0, 0, 0, 0] where [1, 1, 1, 1] belongs"),
    "a dilation": (set_layer("conv3", dilate=row(2)), "layer 'conv3' has dilate [2, 2]"),
    "a pad that is not whole": (set_layer("conv3", pad=row(0.5)), "pad that is not 4 whole numbers"),
    "an average pool": (set_layer("pool1", method="avg"), "layer 'pool1' does not pool by the maximum"),
    "another pool": (set_layer("pool1", pool=row(2, 2)), "layer 'pool1' has poolSize [2, 2] where [3, 3] belongs"),
    "a pool that rounds down": (set_layer("pool1", pad=row(0)), "layer 'pool1' has pad [0, 0, 0, 0] where [0, 1, 0, 1] belongs"),
    "a leak": (set_layer("relu4", leak=row(0.1)), "layer 'relu4' is a leaky ReLU"),
    "normalisations that differ": (set_layer("norm2", param=row(5, 1, 1e-4, 0.75)), "local response normalisations differ"),
    "a short normalisation": (set_layer("norm2", param=row(5, 1)), "layer 'norm2' has a param"),
    "an even normalisation": (lambda layers: [set_layer(f"norm{k}", param=row(4, 2, 1e-4, 0.75))(layers) for k in (1, 2)], "lrn must be"),
    "a param that is NaN": (set_layer("norm1", param=row(5, np.nan, 1e-4, 0.75)), "layer 'norm1' has a param"),
    "no weights": (set_layer("conv2", weights=()), "layer 'conv2' has 0 arrays of weights"),
    "weights that are text": (set_layer("conv2", weights=("a", "b")), "the weights of layer 'conv2' are not arrays"),
    "whole-number weights": (lambda layers: filters(layers, "conv2", np.ones((5, 5, 6, 16), "i4")), "'conv2' are not arrays of single"),
    "weights that are NaN": (lambda layers: filters(layers, "conv2", np.full((5, 5, 6, 16), np.nan, "f4")), "'conv2' have values that are"),
    "filters of another size": (lambda layers: filters(layers, "conv2", np.ones((3, 3, 6, 16), "f4")), "3x3x6x16 where 5x5x6x16 belongs"),
    "filters of other channels": (lambda layers: filters(layers, "conv2", np.ones((5, 5, 3, 16), "f4")), "5x5x3x16 where 5x5x6x16 belongs"),
    "too few biases": (
        lambda layers: layer(layers, "conv2").update(weights=(layer(layers, "conv2")["weights"][0], np.ones((1, 3), "f4"))),
        "layer 'conv2' has biases of the shape (1, 3) for 16 channels",
    ),
    "grey pictures": (lambda layers: filters(layers, "conv1", np.ones((7, 7, 1, 6), "f4")), "takes 1 channels"),
    "another width of one layer": (lambda layers: filters(layers, "full7", np.ones((1, 1, 256, 5), "f4")), "not those of vgg-m"),
    "wider than the published": (lambda layers: filters(layers, "conv1", np.ones((7, 7, 3, 200), "f4")), "not those of vgg-m"),
    "a rate of 1": (
        lambda layers: layers.insert(-3, {"type": "dropout", "name": "d", "rate": row(1)}),
        "layer 'd' has a rate that is not a number in [0, 1)",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_another_network_is_refused_in_one_line_that_names_the_layer(tmp_path: Path, what: str) -> None:
    change, message = REFUSED[what]
    layers = vgg_layers("vgg-m", window=1)
    change(layers)
    path = write_v5(tmp_path / "vgg.mat", simplenn(layers, MEANS[3]))
    with pytest.raises(CheckpointError) as caught:
        read_vgg(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_means_other_networks_and_other_files_are_refused(tmp_path: Path, shared_data: Path) -> None:
    layers = vgg_layers("vgg-m", window=1)
    for number, (variables, message) in enumerate(
        [
            (simplenn(layers, np.zeros((0, 0))), "averageImage is missing"),
            (simplenn(layers, np.ones((1, 1, 4))), "averageImage has the shape"),
            (simplenn(layers, np.full((1, 1, 3), 300.0)), "not within 0 to 255"),
            ({"layers": (), "meta": {"normalization": {"averageImage": MEANS[3]}}}, "no chain of layers"),
            ({"layers": ("conv",)}, "layer 1 has no type"),
            ({"other": row(1)}, "no network of MatConvNet"),
            (stored(resnet(3, seed=1), RESNET_MEAN.reshape(1, 1, 3)), "no chain of layers"),
        ]
    ):
        path = write_v5(tmp_path / f"{number}.mat", variables)
        with pytest.raises(CheckpointError, match=message):
            read_vgg(path)
    with pytest.raises(CheckpointError, match="a network of 2 convolutions"):
        read_vgg(shared_data / GENUINE)
    with pytest.raises(CheckpointError, match="flowkit reads residual networks"):
        matconvnet_weights(write_v5(tmp_path / "vgg.mat", simplenn(layers, MEANS[3])))


def test_a_chain_that_is_not_connected_is_refused(tmp_path: Path) -> None:
    variables = as_dagnn(vgg_layers("vgg-m", window=1), MEANS[3])
    for item in variables["net"]["layers"]:
        if item["name"] == "relu3":
            item["inputs"] = ("elsewhere",)
    with pytest.raises(CheckpointError, match="no chain of layers"):
        read_vgg(write_v5(tmp_path / "vgg.mat", variables))


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_file_is_read_or_refused_in_one_line(tmp_path: Path, seed: int) -> None:
    draw = np.random.default_rng(seed)
    path = VERSIONS["v5"](tmp_path / "vgg.mat", simplenn(vgg_layers("vgg-m", share=96, window=1), MEANS[3]))
    data = bytearray(path.read_bytes())
    for at in draw.integers(0, len(data), 20):
        data[at] ^= 1 << int(draw.integers(8))
    # Most bytes are weights, so the structure is aimed at too.
    start = data.find(b"conv3") - 200
    data[start + int(draw.integers(400))] = int(draw.integers(256))
    path.write_bytes(data[: len(data) - int(draw.integers(2)) * int(draw.integers(len(data)))])
    outcome = attempt(path)
    if isinstance(outcome, str):
        assert outcome.startswith(f"{path}: ")
        assert "\n" not in outcome
    else:
        assert all(np.isfinite(values).all() for values in outcome.state.values())


def attempt(path: Path) -> Any:
    """Return the network in a file, or why it is refused."""
    try:
        return read_vgg(path)
    except CheckpointError as refused:
        return str(refused)
