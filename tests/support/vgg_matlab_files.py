"""Small VGG networks as MatConvNet stores them, new and old, and an interpreter of such a chain of layers with MatConvNet's arithmetic.

The interpreter is the tests' reference: it knows nothing of flowkit's networks. Everything is float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from dagnn_files import row
from numpy.typing import NDArray

Array = NDArray[np.float64]
RGB_MEAN = np.array([123.68, 116.779, 103.939])
LRN = (5.0, 2.0, 1e-4, 0.75)  # size, k, alpha, beta, as in imagenet-vgg-m-2048.mat
_VGG_16 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)
Layer = dict[str, Any]


def vgg_layers(
    kind: str, *, channels: int = 3, num_classes: int = 7, share: int = 16, window: int | None = None, seed: int = 0, rates: Any = None
) -> list[Layer]:
    """Return the layers of a VGG network for crops of 224 px, or with another window of the first fully connected layer."""
    draw, layers = np.random.default_rng(seed), []

    def conv(name: str, size: int, out: int, *, stride: int = 1, pad: int = 0) -> None:
        nonlocal channels
        filters = draw.normal(0, (2 / (size * size * channels)) ** 0.5, (size, size, channels, out)).astype(np.float32)
        biases = draw.normal(0, 0.3, (1, out)).astype(np.float32)
        layers.append({"type": "conv", "name": name, "weights": (filters, biases), "stride": row(stride), "pad": row(pad)})
        channels = out

    def relu(name: str) -> None:
        layers.append({"type": "relu", "name": name})

    def pool(name: str, size: int) -> None:
        layers.append({"type": "pool", "name": name, "method": "max", "pool": row(size, size), "stride": row(2, 2), "pad": row(0, 1, 0, 1)})

    has_second = channels == 3
    if kind == "vgg-m":
        for number, (size, out, stride, pad) in enumerate([(7, 96, 2, 0), (5, 256, 2, 1), (3, 512, 1, 1), (3, 512, 1, 1), (3, 512, 1, 1)]):
            conv(f"conv{number + 1}", size, out // share, stride=stride, pad=pad)
            relu(f"relu{number + 1}")
            if number == 0 or (number == 1 and has_second):
                layers.append({"type": "lrn", "name": f"norm{number + 1}", "param": row(*LRN)})
            if number in (0, 1, 4):
                pool(f"pool{number + 1}", 3)
    else:
        for place, out in enumerate(_VGG_16):
            if out:
                conv(f"conv{place}", 3, out // share, pad=1)
                relu(f"relu_conv{place}")
            else:
                pool(f"pool{place}", 2)
    side = window or (6 if kind == "vgg-m" else 7)
    for number, (size, out) in enumerate([(side, 4096), (1, 2048 if kind == "vgg-m" else 4096)], start=6):
        conv(f"full{number}", size, out // share)
        relu(f"relu{number}")
        if rates:
            layers.append({"type": "dropout", "name": f"dropout{number}", "rate": row(rates[number - 6])})
    conv("full8", 1, num_classes)
    layers.append({"type": "softmax", "name": "prob"})
    return layers


def simplenn(layers: Sequence[Layer], mean: Array, *, style: str = "new", class_names: Sequence[str] = ("tench",)) -> dict[str, Any]:
    """Return a file's variables: ``new``, ``old`` (filters and biases, lrn called normalize, meta data at the top) or ``net``."""
    meta = {
        "normalization": {"imageSize": row(224, 224, 3), "averageImage": mean.astype(np.float32)},
        "classes": {"name": tuple(f"n{k}" for k in range(len(class_names))), "description": tuple(class_names)},
    }
    if style == "old":
        old = []
        for layer in layers:
            made = {key: value for key, value in layer.items() if key != "weights"}
            if layer["type"] == "conv":
                made |= dict(zip(("filters", "biases"), layer["weights"], strict=True))
            old.append(made | {"type": "normalize" if layer["type"] == "lrn" else layer["type"]})
        return {"layers": tuple(old), **meta}
    variables = {"layers": tuple(layers), "meta": meta}
    return {"net": variables, "info": row(1)} if style == "net" else variables


def as_dagnn(layers: Sequence[Layer], mean: Array) -> dict[str, Any]:
    """Return the variables of a file with the same network as a DagNN, as ``fromSimpleNN`` and ``saveobj`` make it."""
    kinds = {"conv": "Conv", "relu": "ReLU", "pool": "Pooling", "lrn": "LRN", "dropout": "DropOut", "softmax": "SoftMax"}
    made, params = [], []
    for place, layer in enumerate(layers):
        block = {{"pool": "poolSize"}.get(key, key): value for key, value in layer.items() if key not in ("type", "name", "weights")}
        names: tuple[str, ...] = ()
        if layer["type"] == "conv":
            names = (f"{layer['name']}f", f"{layer['name']}b")
            params += [{"name": name, "value": value} for name, value in zip(names, layer["weights"], strict=True)]
        made.append(
            {
                "name": layer["name"],
                "type": f"dagnn.{kinds[layer['type']]}",
                "inputs": (f"x{place}",),
                "outputs": (f"x{place + 1}",),
                "params": names,
                "block": block or {"opts": ()},
            }
        )
    order = np.random.default_rng(1).permutation(len(made))  # a DagNN's file may have any order
    meta = {"normalization": {"averageImage": mean.astype(np.float32)}}
    return {"net": {"layers": [made[place] for place in order], "params": params, "meta": meta}}


def run_layers(layers: Sequence[Layer], x: Array) -> Array:
    """Compute a chain on images (N, C, H, W) of grey levels minus a mean: the input of its softmax, averaged over positions."""
    for layer in layers:
        if layer["type"] == "conv":
            filters, biases = (values.astype(np.float64) for values in layer["weights"])
            windows = _windows(x, filters.shape[:2], int(layer["stride"].item()), [int(layer["pad"].item())] * 4, 0)
            x = np.einsum("nchwij,ijco->nohw", windows, filters, optimize=True) + biases.reshape(1, -1, 1, 1)
        elif layer["type"] == "relu":
            x = np.maximum(x, 0)
        elif layer["type"] == "pool":
            pads = [int(pad) for pad in layer["pad"].ravel()]
            size = tuple(int(side) for side in layer["pool"].ravel())
            x = _windows(x, size, int(layer["stride"].ravel()[0]), pads, -np.inf).max((-2, -1))
        elif layer["type"] == "lrn":
            size_, k, alpha, beta = layer["param"].ravel()
            half = int(size_) // 2
            padded = np.pad(x**2, ((0, 0), (half, half), (0, 0), (0, 0)))
            sums = np.stack([padded[:, c : c + int(size_)].sum(1) for c in range(x.shape[1])], axis=1)
            x = x / (k + alpha * sums) ** beta
    return np.asarray(x.mean((2, 3)))


def _windows(x: Array, size: tuple[int, ...], stride: int, pad: Sequence[int], fill: float) -> Array:
    top, bottom, left, right = pad
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)
    return np.lib.stride_tricks.sliding_window_view(x, size, axis=(-2, -1))[:, :, ::stride, ::stride]
