"""VGG-M-2048 and VGG-16 in MatConvNet's files, as settings and tensors under torchvision's names.

The files are a chain of layers, fully connected ones as convolutions. Names say nothing here: each layer is compared with the one that
stands in its place in the network.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import ParameterError
from flowkit.model.foreign.backbones import VGG
from flowkit.model.foreign.dagnn import DagNN, Layer, read_stored
from flowkit.model.foreign.matconvnet import MatConvNetNetwork, channel_means
from flowkit.model.foreign.matlab_values import CellArray, StructArray
from flowkit.model.foreign.simplenn import read_chain
from flowkit.model.settings.network import NUM_CHANNELS
from flowkit.model.settings.vgg import HIDDEN, LAYERS, VggConfig, VggKind, VggLayer

_BY_CHANNELS = {count: name for name, count in NUM_CHANNELS.items()}
_NUM_CONVS: dict[VggKind, int] = {kind: sum(layer.kind == "conv" for layer in layers) + 3 for kind, layers in LAYERS.items()}
_HIDDEN_PLACES = (0, 3, 6)  # of torchvision's `classifier`
_INPUT_SIZE = 224
_OF_RESIDUAL = (".BatchNorm", ".Sum", ".Mul", ".ConvTime", ".PoolTime")  # layers that no VGG network has


def read_vgg(path: Path) -> MatConvNetNetwork:
    """Read a VGG-M-2048 or VGG-16 for RGB or flow, also a narrow one.

    Returns
    -------
    MatConvNetNetwork
        Its `settings` are fields of `VggConfig`; its state keeps the file's type of numbers.

    Raises
    ------
    CheckpointError
        If the file is damaged or holds another kind of network; names the layer.
    OSError
        If the file cannot be read.

    Notes
    -----
    MatConvNet's local response normalisation multiplies alpha by the plain sum of squares, where `VggConfig` has Caffe's and torch's
    mean, so that alpha is multiplied by the size here.
    """
    return _Conversion(read_chain(path)).network()


def holds_chain(path: Path) -> bool:
    """Return whether a MATLAB file holds a chain of layers, as a VGG network is, and no residual network; raises as `read_vgg` does."""
    layers = read_stored(path)["layers"]
    if isinstance(layers, CellArray):  # a SimpleNN, which can be nothing else
        return True
    kinds = [item.get("type") for item in layers.elements] if isinstance(layers, StructArray) else []
    return not any(isinstance(kind, str) and kind.endswith(_OF_RESIDUAL) for kind in kinds)


class _Conversion:
    def __init__(self, net: DagNN) -> None:
        self._net = net
        self._state: dict[str, NDArray[Any]] = {}
        self._notes: list[str] = []

    def network(self) -> MatConvNetNetwork:
        chain = self._chain()
        convs = [layer for layer in chain if layer.kind == "Conv"]
        kind = next((kind for kind, count in _NUM_CONVS.items() if count == len(convs)), None)
        if kind is None:
            wanted = " or ".join(f"{count} ({name})" for name, count in _NUM_CONVS.items())
            self._net.refuse(f"it holds a network of {len(convs)} convolutions where a VGG network has {wanted}")
        channels = self._net.filter_shape(convs[0])[2]
        if channels not in _BY_CHANNELS:
            self._net.refuse(f"its first layer {convs[0].name!r} takes {channels} channels; RGB has 3, and stacks of flow have 20")
        stream = _BY_CHANNELS[channels]
        settings = self._settings(kind, convs)
        config = self._config(settings)
        in_channels, lrn, numbers = channels, [], iter(range(len(LAYERS[kind]) * 2))
        place, num_lrn = iter(chain), 0
        for layer in config.layers:
            number = next(numbers)
            if layer.kind == "conv":
                self._conv(self._next(place, "Conv"), f"features.{number}", layer, in_channels)
                self._relu(self._next(place, "ReLU"))
                next(numbers)
                in_channels = layer.channels
            elif layer.kind == "lrn":
                num_lrn += 1
                if num_lrn == 1 or stream == "appearance":
                    lrn.append(self._lrn(self._next(place, "LRN")))
            else:
                self._pool(self._next(place, "Pooling"), layer)
        if len(set(lrn)) > 1:
            self._net.refuse("its local response normalisations differ")
        self._head(place, config, in_channels)
        if lrn:
            settings["lrn"] = lrn[0]
        settings |= self._dropout(chain)
        self._config(settings)
        state = {f"{stream}.{name}": values for name, values in self._state.items()}
        means = {stream: channel_means(self._net, (stream,))[stream]}
        names = self._net.class_names if len(self._net.class_names) == config.num_classes else ()
        return MatConvNetNetwork(stream, settings, state, means, names, tuple(self._notes), first=VGG.first)

    def _chain(self) -> list[Layer]:
        """Return the layers in the order of execution, up to the softmax and the losses; each reads what the one before it writes."""
        layers = [layer for layer in self._net.layers if layer.kind not in ("Loss", "SoftMax")]
        readers = {layer.inputs[0]: layer for layer in layers if len(layer.inputs) == len(layer.outputs) == 1}
        written = {name for layer in layers for name in layer.outputs}
        starts = [name for name in readers if name not in written]
        if len(readers) != len(layers) or len(starts) != 1:
            self._net.refuse("it holds no chain of layers, as a VGG network is")
        chain, x = [], starts[0]
        while x in readers:
            chain.append(readers.pop(x))
            x = chain[-1].outputs[0]
        if readers:
            self._net.refuse(f"layer {next(iter(readers.values())).name!r} is not connected to the network")
        return chain

    def _settings(self, kind: VggKind, convs: list[Layer]) -> dict[str, Any]:
        """Return the settings that the shapes of filters show."""
        width = self._net.filter_shape(convs[0])[3] / next(layer.channels for layer in LAYERS[kind] if layer.channels)
        hidden = self._net.filter_shape(convs[-2])[3]
        if not 0 < width <= 1 or hidden != max(round(HIDDEN[kind][1] * width), 1):
            self._net.refuse(f"its layers are not those of {kind}, at {width:g} times the width or any other")
        window = self._net.filter_shape(convs[-3])[0]
        sizes = (_INPUT_SIZE, *range(32, _INPUT_SIZE))  # crops of 224 px, or of the smallest size with this window
        config = VggConfig(1, kind)
        size = next((size for size in sizes if min(config.sides(size)) > 0 and config.sides(size)[-1] == window), _INPUT_SIZE)
        return {"num_classes": self._net.filter_shape(convs[-1])[3], "kind": kind, "width": width, "input_size": size}

    def _config(self, settings: dict[str, Any]) -> VggConfig:
        try:
            return VggConfig(**settings)
        except ParameterError as cause:
            self._net.refuse(f"it holds no network that flowkit can build: {cause}")

    def _next(self, chain: Any, kind: str) -> Layer:
        """Return the next layer, dropout apart, which must be of this kind."""
        layer: Layer | None = next((layer for layer in chain if layer.kind != "DropOut"), None)
        if layer is None or layer.kind != kind:
            found = "the end of the network" if layer is None else f"layer {layer.name!r}, a {layer.kind},"
            self._net.refuse(f"{found} stands where a VGG network has a {kind}")
        return layer

    def _conv(self, layer: Layer, name: str, wanted: VggLayer, in_channels: int) -> None:
        self._check_numbers(layer, "stride", (wanted.stride,) * 2, default=1)
        self._check_numbers(layer, "pad", (wanted.padding,) * 4)
        self._check_numbers(layer, "dilate", (1, 1), default=1)
        self._state[f"{name}.weight"] = self._filter(layer, (wanted.kernel, wanted.kernel, in_channels, wanted.channels))
        self._state[f"{name}.bias"] = self._bias(layer, wanted.channels)

    def _head(self, chain: Any, config: VggConfig, in_channels: int) -> None:
        """Store the fully connected layers, which are convolutions in the file."""
        window, units = config.head_window, (*config.hidden, config.num_classes)
        for number, out in zip(_HIDDEN_PLACES, units, strict=True):
            layer = self._next(chain, "Conv")
            self._check_numbers(layer, "stride", (1, 1), default=1)
            self._check_numbers(layer, "pad", (0,) * 4)
            filters = self._filter(layer, (window, window, in_channels, out))
            self._state[f"classifier.{number}.weight"] = filters.reshape(out, -1)
            self._state[f"classifier.{number}.bias"] = self._bias(layer, out)
            if number != _HIDDEN_PLACES[-1]:
                self._relu(self._next(chain, "ReLU"))
            window, in_channels = 1, out
        rest = next((layer for layer in chain if layer.kind != "DropOut"), None)
        if rest is not None:
            self._net.refuse(f"layer {rest.name!r}, a {rest.kind}, stands after the classifier")

    def _filter(self, layer: Layer, shape: tuple[int, int, int, int]) -> NDArray[Any]:
        """Return a filter as (out, in, height, width); MatConvNet correlates, as PyTorch does."""
        found = self._net.filter_shape(layer)
        if found != shape:
            sizes = ("x".join(map(str, each)) for each in (found, shape))
            self._net.refuse("layer {!r} has a filter of {} where {} belongs".format(layer.name, *sizes))
        return self._net.params[layer.params[0]].reshape(shape).transpose(3, 2, 0, 1)

    def _bias(self, layer: Layer, count: int) -> NDArray[Any]:
        if len(layer.params) == 1:
            return np.zeros(count, np.float32)
        bias = self._net.params[layer.params[1]]
        if bias.size != count or max(bias.shape) != count:
            self._net.refuse(f"layer {layer.name!r} has biases of the shape {bias.shape} for {count} channels")
        return bias.ravel(order="F")

    def _relu(self, layer: Layer) -> None:
        leak = layer.block.get("leak")
        if isinstance(leak, np.ndarray) and leak.size and leak.any():
            self._net.refuse(f"layer {layer.name!r} is a leaky ReLU")

    def _lrn(self, layer: Layer) -> tuple[int, float, float, float]:
        values = layer.block.get("param")
        numbers = values.ravel(order="F").tolist() if isinstance(values, np.ndarray) and values.size == 4 else []
        if not numbers or not np.isfinite(numbers).all() or numbers[0] != int(numbers[0]):
            self._net.refuse(f"layer {layer.name!r} has a param that is not a whole number and three more")
        size, k, alpha, beta = numbers
        return int(size), float(alpha * size), float(beta), float(k)

    def _pool(self, layer: Layer, wanted: VggLayer) -> None:
        if layer.block.get("method", "max") != "max":
            self._net.refuse(f"layer {layer.name!r} does not pool by the maximum")
        self._check_numbers(layer, "poolSize", (wanted.kernel,) * 2, default=1)
        self._check_numbers(layer, "stride", (wanted.stride,) * 2, default=1)
        pad = self._net.numbers(layer, "pad", 4)
        if pad == (0, 0, 0, 0) and wanted.kernel == wanted.stride:
            note = "its pools leave out a last odd row or column, which those here take; crops of 224 px have none"
            self._notes += [] if note in self._notes else [note]
        elif pad != (0, 1, 0, 1):
            self._net.refuse(f"layer {layer.name!r} has pad {list(pad)} where [0, 1, 0, 1] belongs, which rounds sizes up")

    def _dropout(self, chain: list[Layer]) -> dict[str, Any]:
        """Return the rates of dropout before the second and the third layer from the end, as far as there are any."""
        kinds = [layer.kind for layer in chain]
        convs = [place for place, kind in enumerate(kinds) if kind == "Conv"][-3:]
        rates = []
        for start, end in ((convs[0], convs[1]), (convs[1], convs[2])):
            found = [layer for layer in chain[start:end] if layer.kind == "DropOut"]
            value = found[0].block.get("rate") if found else None
            if found and (not isinstance(value, np.ndarray) or value.size != 1 or not 0 <= float(value.item()) < 1):
                self._net.refuse(f"layer {found[0].name!r} has a rate that is not a number in [0, 1)")
            rates.append(float(value.item()) if isinstance(value, np.ndarray) else 0.0)
        return {"dropout": tuple(rates)} if "DropOut" in kinds else {}

    def _check_numbers(self, layer: Layer, key: str, expected: tuple[int, ...], *, default: int = 0) -> None:
        found = self._net.numbers(layer, key, len(expected), default=default)
        if found != expected:
            self._net.refuse(f"layer {layer.name!r} has {key} {list(found)} where {list(expected)} belongs")
