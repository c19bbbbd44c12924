"""Small networks as MatConvNet stores the ST-ResNet authors' ones, and an interpreter of such a graph, layer by layer.

The interpreter is the tests' reference: it knows MatConvNet's operations (with padding, order of axes and moments as its documentation and
code define them) and nothing of flowkit's networks. Everything is float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matlab_files import write_v5, write_v73
from numpy.typing import NDArray

Array = NDArray[np.float64]
UNITS, WIDTH = (3, 2, 2, 2), 4
NAMES = tuple("abcde")
IMAGENET_NAMES = tuple(f"class {k}" for k in range(1000))
RGB_MEAN, FLOW_MEAN = np.array([122.7, 114.9, 101.6]), np.full(20, 128.0)


class Graph:
    """The layers and parameters of a network in the order of the file."""

    def __init__(self, seed: int) -> None:
        self.layers: list[dict[str, Any]] = []
        self.params: dict[str, NDArray[np.float32]] = {}
        self.draw = np.random.default_rng(seed)

    def layer(self, name: str) -> dict[str, Any]:
        return next(layer for layer in self.layers if layer["name"] == name)

    def add(self, name: str, kind: str, inputs: Sequence[str], output: str, params: Mapping[str, Any] | None = None, **block: Any) -> str:
        params = {key: np.asarray(value, np.float32) for key, value in (params or {}).items()}
        self.params |= params
        inputs = tuple(inputs)
        self.layers.append(
            {"name": name, "type": f"dagnn.{kind}", "inputs": inputs, "outputs": (output,), "params": tuple(params), "block": block}
        )
        return output

    def conv(self, name: str, x: str, size: tuple[int, int, int, int], *, stride: int = 1, pad: int = 0, bias: bool = False) -> str:
        params = {f"{name}_filter": self.draw.normal(0, (2 / np.prod(size[:3])) ** 0.5, size)}
        if bias:
            params[f"{name}_bias"] = self.draw.normal(0, 0.3, (size[3], 1))
        numbers = {"size": row(*size), "pad": row(*[pad] * 4), "stride": row(stride, stride), "dilate": row(1, 1)}
        return self.add(name, "Conv", [x], name, params, hasBias=np.array([[bias]]), opts=("cuDNN",), **numbers)

    def norm(self, name: str, x: str, channels: int) -> str:
        moments = np.stack([self.draw.normal(0, 0.3, channels), np.sqrt(self.draw.uniform(0.05, 2, channels) + 1e-5)], 1)
        params = {
            f"{name}_mult": self.draw.uniform(0.5, 1.5, (channels, 1)),
            f"{name}_bias": self.draw.normal(0, 0.3, (channels, 1)),
            f"{name}_moments": moments,
        }
        return self.add(name, "BatchNorm", [x], x + "x", params, numChannels=np.zeros((0, 0)), epsilon=row(1e-5), opts=())

    def relu(self, name: str, x: str) -> str:
        return self.add(name, "ReLU", [x], x + "_r", leak=row(0), useShortCircuit=np.array([[True]]), opts=())

    def pool(self, name: str, kind: str, x: str, method: str, size: Sequence[int], pad: Sequence[int], stride: Sequence[int]) -> str:
        return self.add(name, kind, [x], name, method=method, poolSize=row(*size), pad=row(*pad), stride=row(*stride), opts=("cuDNN",))


def row(*numbers: float) -> Array:
    return np.array([numbers], np.float64)


def resnet(
    channels: int,
    *,
    seed: int,
    num_classes: int = len(NAMES),
    dropout: float = 0.0,
    numbered: bool = False,
    pool1: str = "ceil",
    is_imagenet: bool = False,
) -> Graph:
    """Return a base stream, or a network for ImageNet; `numbered` spells units as ResNet-101 and 152 do (3b1, 3b2, ...)."""
    graph = Graph(seed)
    entrance = graph.conv("conv1", "data" if is_imagenet else "input", (7, 7, channels, WIDTH), stride=2, pad=3, bias=True)
    x = graph.norm("bn_conv1", entrance, WIDTH)
    x = graph.pool("pool1", "Pooling", graph.relu("conv1_relu", x), "max", (3, 3), (0, 1, 0, 1) if pool1 == "ceil" else (1,) * 4, (2, 2))
    width_in = WIDTH
    for stage, count in enumerate(UNITS, start=2):
        width = WIDTH * 2 ** (stage - 2)
        for k in range(count):
            unit = f"{stage}" + (f"b{k}" if numbered and stage in (3, 4) and k else "abcdef"[k])
            stride, shortcut = 2 if stage > 2 and k == 0 else 1, x
            if k == 0:
                projected = graph.conv(f"res{unit}_branch1", x, (1, 1, width_in, 4 * width), stride=stride)
                shortcut = graph.norm(f"bn{unit}_branch1", projected, 4 * width)
            y = graph.conv(f"res{unit}_branch2a", x, (1, 1, width_in, width), stride=stride)
            y = graph.relu(f"res{unit}_branch2a_relu", graph.norm(f"bn{unit}_branch2a", y, width))
            y = graph.conv(f"res{unit}_branch2b", y, (3, 3, width, width), pad=1)
            y = graph.relu(f"res{unit}_branch2b_relu", graph.norm(f"bn{unit}_branch2b", y, width))
            y = graph.norm(f"bn{unit}_branch2c", graph.conv(f"res{unit}_branch2c", y, (1, 1, width, 4 * width)), 4 * width)
            x = graph.relu(f"res{unit}_relu", graph.add(f"res{unit}", "Sum", [shortcut, y], f"res{unit}", numInputs=row(2)))
            width_in = 4 * width
    x = graph.pool("pool5", "Pooling", x, "avg", (7, 7), (0, 0, 0, 0), (1, 1))
    if dropout:
        x = graph.add("drop_pool5", "DropOut", [x], "dropped", rate=row(dropout))
    graph.conv("fc1000", x, (1, 1, width_in, num_classes), bias=True)
    if is_imagenet:
        graph.add("prob", "SoftMax", ["fc1000"], "prob")
    else:
        graph.add("loss_fc1000", "Loss", ["fc1000", "label"], "objective", loss="softmaxlog", opts=())
    return graph


def of_twostreamfusion(channels: int, *, seed: int) -> Graph:
    """Return a base stream as twostreamfusion's older MatConvNet stores it: another epsilon in the blocks, and vectors as 1 x 1 x C."""
    graph = resnet(channels, seed=seed, dropout=0.85)
    for layer in graph.layers:
        for unknown in ("dilate", "freeze", "leak"):
            layer["block"].pop(unknown, None)
        if layer["type"] == "dagnn.BatchNorm":
            layer["block"]["epsilon"] = row(1e-4)
            for name in layer["params"][:2]:
                graph.params[name] = graph.params[name].reshape(1, 1, -1)
    return graph


def two_streams(kind: str, *, num_classes: int = 5, numbered: bool = False) -> Graph:
    """Return ``st-resnet``, ``st-resnet-star`` or ``st-mulnet``, joined from two base streams as the authors' scripts do."""
    joined, multiplies = Graph(9), kind == "st-mulnet"
    for suffix, seed, channels in (("_spatial", 1, 3), ("_temporal", 2, 20)):
        stream = resnet(
            channels, seed=seed, num_classes=num_classes, dropout=0.8 if multiplies and channels == 20 else 0, numbered=numbered
        )
        # The layer before the loss, of which the script believes that it is the classifier.
        order = [layer["name"] for layer in stream.layers]
        misnamed = "drop_pool5" if "drop_pool5" in order else "fc1000"
        stream.layer(misnamed)["name"] = "prediction"
        for layer in stream.layers:
            layer["name"] += suffix
            for key in ("inputs", "outputs", "params"):
                layer[key] = tuple(part if part == "label" else part + suffix for part in layer[key])
        joined.layers += stream.layers
        joined.params |= {name + suffix: values for name, values in stream.params.items()}
    joined.layer("conv1_spatial")["inputs"], joined.layer("conv1_temporal")["inputs"] = ("input",), ("input_flow",)
    for stage in range(2, 6):
        width, second = WIDTH * 2 ** (stage - 2), "b1" if numbered and stage in (3, 4) else "b"
        own, other = f"res{stage}a_spatial", f"res{stage}a_r_temporal"
        entered = joined.add(
            f"res{stage}a_relu_spatial_sum", "Mul" if multiplies else "Sum", [other, own], f"res{stage}a_joined", numInputs=row(2)
        )
        joined.layer(f"res{stage}{second}_branch2a_spatial")["inputs"] = (entered,)
        for suffix in ("_spatial", "_temporal"):
            if multiplies:
                relu = joined.layer(f"res{stage}{second}_branch2b_relu{suffix}")
                name = f"res{stage}{second}_branch2b_relu{suffix}_Time"
                params = {
                    name + "_f": joined.draw.normal(0, 0.3, (1, 3, width, width)),
                    name + "_b": joined.draw.normal(0, 0.3, (width, 1)),
                }
                joined.add(name, "ConvTime", relu["outputs"], name, params, pad=row(0, 0, 1, 1), stride=row(1, 1))
                joined.layer(f"res{stage}{second}_branch2c{suffix}")["inputs"] = (name,)
                continue
            for branch in "ac":
                layer = joined.layer(f"res{stage}{second}_branch2{branch}{suffix}")
                (name,) = layer["params"]
                joined.params[name] = np.concatenate([joined.params[name] * np.float32(tap) for tap in (0.2, 0.5, 0.3)], axis=1)
                layer["type"], layer["block"] = "dagnn.ConvTime", layer["block"] | {"pad": row(0, 0, 1, 1)}
    for suffix in () if kind == "st-resnet" else ("_spatial", "_temporal"):
        pool5 = joined.layer("pool5" + suffix)
        stride = 1 if multiplies else 2
        pooled = joined.pool(f"pool_time{suffix}", "PoolTime", pool5["inputs"][0], "max", (1, 5), (0, 0, 0, 0), (1, stride))
        pool5["inputs"] = (pooled,)
    return joined


def stored(graph: Graph, mean: Array, class_names: Sequence[str] = ("tench, Tinca tinca",)) -> dict[str, Any]:
    """Return what MatConvNet saves of a network; `mean` is its averageImage."""
    params = [{"name": name, "value": values, "learningRate": row(1)} for name, values in graph.params.items()]
    classes = {"name": tuple(f"n{k:08}" for k in range(len(class_names))), "description": tuple(class_names)}
    return {
        "layers": graph.layers,
        "params": params,
        "meta": {"normalization": {"imageSize": row(224, 224, 3), "averageImage": mean.astype(np.float32)}, "classes": classes},
    }


@dataclass(frozen=True)
class Kind:
    """A kind of network file: its graph, its averageImage, and whether it is one of the files for ImageNet, which have no `net`."""

    graph: Callable[[], Graph]
    mean: Array
    is_imagenet: bool = False

    def variables(self, graph: Graph) -> dict[str, Any]:
        """Return the variables of a file that holds a graph of this kind."""
        if self.is_imagenet:
            return stored(graph, self.mean, IMAGENET_NAMES) | {"vars": [{"name": "data", "precious": np.array([[False]])}]}
        return {"net": stored(graph, self.mean), "state": {"solverState": ()}, "stats": row(1)}

    @property
    def class_names(self) -> tuple[str, ...]:
        """Return the names that `convert` needs: a file for ImageNet has them itself."""
        return () if self.is_imagenet else NAMES


BOTH_MEANS = np.concatenate([FLOW_MEAN, RGB_MEAN])
KINDS: dict[str, Kind] = {
    "appearance": Kind(lambda: resnet(3, seed=1), RGB_MEAN + np.zeros((4, 5, 3))),
    "appearance, torchvision's pool": Kind(lambda: resnet(3, seed=1, pool1="same"), RGB_MEAN.reshape(1, 1, 3)),
    "motion": Kind(lambda: resnet(20, seed=2, dropout=0.8), FLOW_MEAN.reshape(1, 1, 20)),
    "numbered units": Kind(lambda: resnet(3, seed=3, numbered=True), RGB_MEAN.reshape(1, 1, 3)),
    "ImageNet": Kind(
        lambda: resnet(3, seed=4, num_classes=len(IMAGENET_NAMES), is_imagenet=True), RGB_MEAN + np.zeros((4, 5, 3)), is_imagenet=True
    ),
    "twostreamfusion, RGB": Kind(lambda: of_twostreamfusion(3, seed=5), RGB_MEAN.reshape(1, 1, 3)),
    "twostreamfusion, flow": Kind(lambda: of_twostreamfusion(20, seed=6), FLOW_MEAN.reshape(1, 1, 20)),
    "st-resnet": Kind(lambda: two_streams("st-resnet"), BOTH_MEANS.reshape(1, 1, 23)),
    "st-resnet-star": Kind(lambda: two_streams("st-resnet-star"), BOTH_MEANS.reshape(1, 23)),
    "st-mulnet": Kind(lambda: two_streams("st-mulnet"), BOTH_MEANS.reshape(1, 1, 23)),
    "st-mulnet, numbered units": Kind(lambda: two_streams("st-mulnet", numbered=True), BOTH_MEANS.reshape(1, 1, 23)),
}
VERSIONS: dict[str, Callable[[Path, dict[str, Any]], Path]] = {
    "v5": lambda path, variables: write_v5(path, variables, compress=False),
    "v7": write_v5,
    "v7.3": write_v73,
}


def write_network(path: Path, kind: str, *, version: str = "v7", change: Callable[[Graph], None] | None = None) -> tuple[Path, Graph]:
    """Write a network of one of the kinds; return the file and the graph in it."""
    graph = KINDS[kind].graph()
    if change is not None:
        change(graph)
    return VERSIONS[version](path, KINDS[kind].variables(graph)), graph


def run(graph: Graph, inputs: Mapping[str, Array], num_frames: int) -> dict[str, Array]:
    """Compute every variable of a network; frames are (N, C, H, W), N clips of `num_frames` after one another."""
    values = dict(inputs)
    left = [layer for layer in graph.layers if layer["type"] not in ("dagnn.Loss", "dagnn.SoftMax")]
    while left:
        ready = [layer for layer in left if all(name in values for name in layer["inputs"])]
        assert ready, "a layer waits for a variable that nothing computes"
        for layer in ready:
            params = [graph.params[name].astype(np.float64) for name in layer["params"]]
            x = [values[name] for name in layer["inputs"]]
            values[layer["outputs"][0]] = _OPERATIONS[layer["type"].removeprefix("dagnn.")](x, params, layer["block"], num_frames)
        left = [layer for layer in left if layer not in ready]
    return values


def _windows(x: Array, size: tuple[int, int], stride: tuple[int, int], pad: tuple[int, int, int, int], fill: float) -> Array:
    """Return the windows (..., h, w, kh, kw) of the last two axes after padding top, bottom, left and right."""
    top, bottom, left, right = pad
    x = np.pad(x, [(0, 0)] * (x.ndim - 2) + [(top, bottom), (left, right)], constant_values=fill)
    return np.lib.stride_tricks.sliding_window_view(x, size, axis=(-2, -1))[..., :: stride[0], :: stride[1], :, :]


def _ints(block: Mapping[str, Any], key: str, default: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(value) for value in np.ravel(block[key])) if key in block else tuple(default)


def _conv(x: list[Array], params: list[Array], block: Mapping[str, Any], num_frames: int) -> Array:
    filters: Any = params[0].reshape(params[0].shape + (1,) * (4 - params[0].ndim))
    stride, pad = _ints(block, "stride", (1, 1)), _ints(block, "pad", (0, 0, 0, 0))
    windows = _windows(x[0], (filters.shape[0], filters.shape[1]), (stride[0], stride[1]), (pad[0], pad[1], pad[2], pad[3]), 0)
    y: Array = np.einsum("nchwij,ijco->nohw", windows, filters, optimize=True)
    return y + params[1].reshape(1, -1, 1, 1) if len(params) > 1 else y


def _by_time(x: Array, num_frames: int) -> Array:
    """(B*T, C, H, W) to (B, C, H*W, T): the layout in which the authors' layers see time as the width of an image."""
    return x.reshape(-1, num_frames, x.shape[1], x.shape[2] * x.shape[3]).transpose(0, 2, 3, 1)


def _by_frame(y: Array, height: int, width: int) -> Array:
    return y.transpose(0, 3, 1, 2).reshape(-1, y.shape[1], height, width)


def _conv_time(x: list[Array], params: list[Array], block: Mapping[str, Any], num_frames: int) -> Array:
    return _by_frame(_conv([_by_time(x[0], num_frames)], params, block, num_frames), *x[0].shape[2:])


def _pool(x: list[Array], params: list[Array], block: Mapping[str, Any], num_frames: int) -> Array:
    size, stride, pad = _ints(block, "poolSize", ()), _ints(block, "stride", (1, 1)), _ints(block, "pad", (0, 0, 0, 0))
    is_max = block["method"] == "max"
    windows = _windows(x[0], (size[0], size[1]), (stride[0], stride[1]), (pad[0], pad[1], pad[2], pad[3]), -np.inf if is_max else 0)
    return np.asarray(windows.max((-2, -1)) if is_max else windows.mean((-2, -1)))


def _pool_time(x: list[Array], params: list[Array], block: Mapping[str, Any], num_frames: int) -> Array:
    return _by_frame(_pool([_by_time(x[0], num_frames)], params, block, num_frames), *x[0].shape[2:])


def _norm(x: list[Array], params: list[Array], block: Mapping[str, Any], num_frames: int) -> Array:
    scale, bias, mean, sigma = (part.reshape(1, -1, 1, 1) for part in (params[0], params[1], params[2][:, 0], params[2][:, 1]))
    return np.asarray(scale * (x[0] - mean) / sigma + bias)


_OPERATIONS = {
    "Conv": _conv,
    "ConvTime": _conv_time,
    "Pooling": _pool,
    "PoolTime": _pool_time,
    "BatchNorm": _norm,
    "ReLU": lambda x, *_: np.maximum(x[0], 0),
    "Sum": lambda x, *_: x[0] + x[1],
    "Mul": lambda x, *_: x[0] * x[1],
    "DropOut": lambda x, *_: x[0],
}
