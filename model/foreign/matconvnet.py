"""The ST-ResNet authors' MatConvNet networks under flowkit's names: tensors in float64, and what the network's settings must be.

References
----------
feichtenhofer/st-resnet, commit 8b4f284: ``STResNet_stage1.m``, ``STResNet_stage2.m``, ``STMulNet.m``. matconvnet 7543221:
``bnorm_cpu.cpp`` (moments), ``ConvTime.m``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowkit.model.foreign.backbones import RESNET
from flowkit.model.foreign.dagnn import DagNN, Layer, read_dagnn
from flowkit.model.foreign.residual_graph import Place, ResidualGraph, StreamGraph, find_residual_network
from flowkit.model.settings.network import BATCH_NORM_EPS, DEPTH_OF_UNITS, NUM_CHANNELS, STAGES
from flowkit.model.settings.network_config import StreamName
from flowkit.model.settings.training import Phase
from flowkit.words import counted

Array = NDArray[np.float64]

_CONV = {"1": "downsample.0", "2a": "conv1", "2b": "conv2", "2c": "conv3"}
_NORM = {"1": "downsample.1", "2a": "bn1", "2b": "bn2", "2c": "bn3"}
_FLOW_MEAN = 128.0
_FLOW_MEAN_TOLERANCE = 1e-3
_INPUT_SIZE = 224  # whose last maps the pool of 7x7 covers


@dataclass(frozen=True)
class MatConvNetNetwork:
    """A network as the authors trained it.

    Parameters
    ----------
    phase : str
        What it is in flowkit: a base stream, ST-ResNet, or, with max pooling over time, ST-ResNet*.
    settings : dict
        Fields of the network's configuration, `STResNetConfig` or `VggConfig`.
    state : dict of str to float array
        Tensors under flowkit's names, in PyTorch's layout. The first convolution takes grey levels (RGB 0 to 255, flow bytes) minus
        `means`.
    means : dict of float64 array
        By stream: the mean that is subtracted from each input channel, in grey levels.
    class_names : tuple of str
        What the file says, which after training on other data is ImageNet's list.
    notes : tuple of str
        What was converted other than one to one, in words.
    first : str
        The name of the first convolution's filters, after the stream's.
    """

    phase: Phase
    settings: dict[str, Any]
    state: dict[str, NDArray[Any]]
    means: dict[StreamName, Array]
    class_names: tuple[str, ...]
    notes: tuple[str, ...]
    first: str = RESNET.first


def read_matconvnet(path: Path) -> MatConvNetNetwork:
    """Read a trained residual network of one or two streams from a MATLAB file.

    Raises
    ------
    CheckpointError
        If the file is damaged or holds another kind of network; names the layer or parameter.
    OSError
        If the file cannot be read.
    """
    net = read_dagnn(path)
    graph = find_residual_network(net)
    return _Conversion(net, graph).network()


class _Conversion:
    def __init__(self, net: DagNN, graph: ResidualGraph) -> None:
        self._net, self._graph = net, graph
        self._state: dict[str, Array] = {}
        self._notes: list[str] = []

    def network(self) -> MatConvNetNetwork:
        streams = self._graph.streams
        has_time = self._temporal_stages()
        num_biases = 0
        for name, stream in streams.items():
            for place, layer in stream.layers.items():
                if place.role in ("conv1", "conv"):
                    num_biases += self._convolution(name, place, layer)
                elif place.role in ("bn", "bn1"):
                    self._batch_norm(_key(name, place), layer)
                elif place.role == "fc":
                    self._classifier(name, layer)
            for stage in has_time:
                self._extend_in_time(name, stream, stage)
        for name, stream in streams.items():  # once the moments are there
            self._fold_biases(name, stream)
        if num_biases:
            self._notes.append(
                f"folded into the means of the batch normalisations that follow: {counted(num_biases, 'bias')} of convolutions"
            )
        means = channel_means(self._net, tuple(streams))
        settings = self._settings(has_time)
        names = self._net.class_names if len(self._net.class_names) == settings["num_classes"] else ()
        return MatConvNetNetwork(self._phase(), settings, self._state, means, names, tuple(self._notes))

    def _phase(self) -> Phase:
        if len(self._graph.streams) == 1:
            return next(iter(self._graph.streams))
        return "st-resnet-star" if any(stream.time_pool for stream in self._graph.streams.values()) else "st-resnet"

    def _temporal_stages(self) -> tuple[int, ...]:
        """Return the stages whose unit b extends over time in some stream, from 0."""
        stages = set()
        for name, stream in self._graph.streams.items():
            for place, layer in stream.layers.items():
                if layer.kind == "ConvTime":
                    if len(self._graph.streams) == 1:
                        self._net.refuse(f"layer {layer.name!r} convolves over time in a network of one stream ({name})")
                    stages.add(place.stage)
        return tuple(sorted(stages))

    def _convolution(self, name: StreamName, place: Place, layer: Layer) -> int:
        """Store the filter of a convolution, (out, in, h, w) or (out, in, 3, 1, 1); return how many biases it has."""
        taps = self._filter(layer)
        self._state[_key(name, place) + ".weight"] = np.swapaxes(taps, 2, 3)[..., None] if layer.kind == "ConvTime" else taps
        return len(layer.params) - 1

    def _filter(self, layer: Layer) -> Array:
        """Return a filter as (out, in, height, width); MatConvNet correlates, as PyTorch does."""
        return self._net.params[layer.params[0]].reshape(self._net.filter_shape(layer)).transpose(3, 2, 0, 1)

    def _batch_norm(self, key: str, layer: Layer) -> None:
        scale, bias, moments = (self._net.params[name] for name in layer.params)
        if moments.ndim != 2 or moments.shape[1] != 2:
            self._net.refuse(
                f"parameter {layer.params[2]!r} has the shape {moments.shape}; moments have a mean and a deviation per channel"
            )
        mean, sigma = moments.T
        if not (sigma > 0).all():
            self._net.refuse(f"parameter {layer.params[2]!r} has deviations that are not positive: the network was not trained")
        # PyTorch adds epsilon to a variance; MatConvNet stores sqrt(variance + epsilon).
        variance = np.maximum(sigma**2 - BATCH_NORM_EPS, 0)
        self._state |= {
            key + ".weight": self._vector(layer.params[0], scale) * np.sqrt(variance + BATCH_NORM_EPS) / sigma,
            key + ".bias": self._vector(layer.params[1], bias),
            key + ".running_mean": mean.copy(),
            key + ".running_var": variance,
        }

    def _classifier(self, name: StreamName, layer: Layer) -> None:
        self._state[f"{name}.fc.weight"] = self._filter(layer)[:, :, 0, 0]
        self._state[f"{name}.fc.bias"] = self._vector(layer.params[1], self._net.params[layer.params[1]])

    def _vector(self, name: str, values: Array) -> Array:
        if values.size != max(values.shape):
            self._net.refuse(f"parameter {name!r} has the shape {values.shape} where one number per channel belongs")
        return values.ravel(order="F").copy()

    def _extend_in_time(self, name: StreamName, stream: StreamGraph, stage: int) -> None:
        """Give both 1x1 convolutions of unit b three taps in time, where the file has other layers.

        A temporal convolution M, c between the 3x3 convolution and the 1x1 convolution W (CVPR 2017) folds into the latter, since no
        nonlinearity stands between them: its taps are W M[k], and W c joins the mean of the batch normalisation.
        """
        unit = f"{name}.layer{stage + 1}.1."
        between = stream.layers.get(Place("time", stage, 1, "2b"))
        if between is not None:
            if self._state[unit + "conv3.weight"].ndim != 4:
                self._net.refuse(f"layer {between.name!r} stands before a convolution that extends over time itself")
            weight, taps = self._state[unit + "conv3.weight"][:, :, 0, 0], self._filter(between)[:, :, 0]
            if taps.shape[0] != weight.shape[1]:
                self._net.refuse(f"layer {between.name!r} has {taps.shape[0]} channels where {weight.shape[1]} belong")
            self._state[unit + "conv3.weight"] = np.einsum("om,mik->oik", weight, taps)[..., None, None]
            if len(between.params) > 1:
                bias = self._vector(between.params[1], self._net.params[between.params[1]])
                self._state[unit + "bn3.running_mean"] = self._state[unit + "bn3.running_mean"] - weight @ bias
            self._notes.append(f"layer {between.name} is folded into the 1x1 convolution after it")
        for conv in ("conv1", "conv3"):
            weight = self._state[f"{unit}{conv}.weight"]
            if weight.ndim == 4:
                self._state[f"{unit}{conv}.weight"] = np.stack([0 * weight, weight, 0 * weight], axis=2)

    def _fold_biases(self, name: StreamName, stream: StreamGraph) -> None:
        for place, layer in stream.layers.items():
            if place.role in ("conv1", "conv") and len(layer.params) > 1:
                norm = _key(name, Place("bn1") if place.role == "conv1" else Place("bn", place.stage, place.unit, place.branch))
                bias = self._vector(layer.params[1], self._net.params[layer.params[1]])
                mean = self._state[norm + ".running_mean"]
                if bias.shape != mean.shape:
                    self._net.refuse(f"parameter {layer.params[1]!r} has {bias.size} numbers for {mean.size} channels")
                self._state[norm + ".running_mean"] = mean - bias

    def _settings(self, has_time: tuple[int, ...]) -> dict[str, Any]:
        streams = self._graph.streams
        units = next(iter(streams.values())).num_units
        settings: dict[str, Any] = {
            "num_classes": self._same("number of classes", {n: len(self._state[f"{n}.fc.bias"]) for n in streams}),
            **({"depth": DEPTH_OF_UNITS[units]} if units in DEPTH_OF_UNITS else {"stage_units": units}),
            "base_width": self._same("width", {n: len(self._state[f"{n}.conv1.weight"]) for n in streams}),
            "input_size": _INPUT_SIZE,
            "stride_in_1x1": self._same("place of the stride", {n: stream.stride_in_1x1 for n, stream in streams.items()}),
            "stem_pool": self._same("first max pool", {n: stream.stem_pool for n, stream in streams.items()}),
        }
        if "motion" in streams and streams["motion"].dropout:
            settings["motion_dropout"] = streams["motion"].dropout
        if "appearance" in streams and streams["appearance"].dropout:
            self._notes.append(
                f"the appearance stream's dropout of {streams['appearance'].dropout:g} is left out; it has no effect in tests"
            )
        if len(streams) == 1:
            return settings
        pool = self._same("pooling over time", {n: stream.time_pool for n, stream in streams.items()})
        settings |= {"temporal_convolution": bool(has_time), "temporal_pool": pool is not None}
        if has_time:
            settings["temporal_stages"] = tuple(STAGES[stage] for stage in has_time)
        if pool is not None:
            settings |= {"temporal_pool_position": pool.position, "temporal_pool_stride": pool.stride}
        return settings | self._injection()

    def _injection(self) -> dict[str, Any]:
        injections = self._graph.injections
        if not injections:
            return {"injection": "none"}
        directions = {injection.direction for injection in injections}
        stages = {direction: {i.stage for i in injections if i.direction == direction} for direction in directions}
        kinds = {(injection.kind, injection.is_direct) for injection in injections}
        if len(kinds) > 1 or len({frozenset(found) for found in stages.values()}) > 1:
            self._net.refuse("its streams are joined in different ways in different stages")
        ((kind, is_direct),) = kinds
        return {
            "injection": "direct" if is_direct else "residual",
            "injection_direction": "both" if len(directions) == 2 else next(iter(directions)),
            "injection_kind": kind,
            "injection_stages": tuple(STAGES[stage] for stage in sorted(next(iter(stages.values())))),
        }

    def _same(self, what: str, values: Mapping[StreamName, Any]) -> Any:
        first, *others = values.values()
        if any(other != first for other in others):
            self._net.refuse(f"its streams differ in their {what}: {', '.join(f'{name} {value}' for name, value in values.items())}")
        return first


def channel_means(net: DagNN, streams: Sequence[StreamName]) -> dict[StreamName, Array]:
    """Return the mean of each stream's channels: pixels are averaged, and in a file of two streams the flow comes first."""
    image = net.average_image
    if image is None:
        net.refuse("it does not say what is subtracted from the input: meta.normalization.averageImage is missing")
    mean = image.mean((0, 1)) if image.ndim == 3 else image.ravel(order="F")
    expected = sum(NUM_CHANNELS[name] for name in streams)
    if mean.size != expected or (image.ndim == 2 and min(image.shape) != 1):
        net.refuse(f"its averageImage has the shape {image.shape} where {expected} channels belong")
    means = {name: mean[: NUM_CHANNELS[name]] if name == "motion" else mean[-NUM_CHANNELS[name] :] for name in streams}
    if "motion" in means and np.abs(means["motion"] - _FLOW_MEAN).max() > _FLOW_MEAN_TOLERANCE:
        order = " (its last 20 numbers are: RGB stands first, where flow belongs)" if np.all(mean[-20:] == _FLOW_MEAN) else ""
        net.refuse(f"the mean of its flow channels is not {_FLOW_MEAN:g}{order}")
    if "appearance" in means and not ((means["appearance"] >= 0) & (means["appearance"] <= 255)).all():
        net.refuse(f"the mean of its RGB channels, {means['appearance'].tolist()}, is not within 0 to 255")
    return means


def _key(name: StreamName, place: Place) -> str:
    """Return the name of a convolution or batch normalisation, under torchvision's names with the stream as a prefix."""
    if not place.branch:
        return f"{name}.{place.role}"
    part = _CONV[place.branch] if place.role == "conv" else _NORM[place.branch]
    return f"{name}.layer{place.stage + 1}.{place.unit}.{part}"
