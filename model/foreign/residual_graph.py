"""Find the residual network in a graph of MatConvNet: which layer stands in which place, checked along every connection.

Names lie (the layer ``prediction`` of a flow stream is its dropout), so only the names of layers with parameters are used, to say where a
layer belongs, and then the connections, the strides and the padding must be those of that place.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

import numpy as np

from flowkit.model.foreign.dagnn import DagNN, Layer
from flowkit.model.settings.network import NUM_CHANNELS, STAGES
from flowkit.model.settings.network_config import StreamName

_SUFFIXES: dict[str, StreamName] = {"_spatial": "appearance", "_temporal": "motion"}
_UNIT_LAYER = re.compile(r"(res|bn)([2-5])([a-z]|b\d{1,2})_branch(1|2a|2b|2c)(_relu_Time)?")
_BY_CHANNELS = {count: name for name, count in NUM_CHANNELS.items()}
_CHANNEL_AXIS = 2  # of a filter (height, width, in, out)


@dataclass(frozen=True)
class Place:
    """Where a layer with parameters belongs.

    Parameters
    ----------
    role : str
        ``conv1``, ``bn1``, ``fc``; or of a unit ``conv``, ``bn`` or ``time`` (the temporal convolution before branch 2c).
    stage, unit : int
        Stage 0 to 3 and unit 0, 1, ... of a residual unit.
    branch : str
        ``1`` (the shortcut), ``2a``, ``2b`` or ``2c``.
    """

    role: str
    stage: int = 0
    unit: int = 0
    branch: str = ""


@dataclass(frozen=True)
class TimePool:
    """A max pool over five frames: its stride, and whether it stands before or after the pool over space."""

    stride: int
    position: Literal["before_pool5", "after_pool5"]


@dataclass(frozen=True)
class Injection:
    """How one stream enters the other in one stage."""

    stage: int
    direction: Literal["motion_to_appearance", "appearance_to_motion"]
    kind: Literal["additive", "multiplicative"]
    is_direct: bool  # whether the identity path of unit b sees it too


@dataclass(frozen=True)
class StreamGraph:
    """One stream: its layers by place, and what its layers without parameters say."""

    layers: Mapping[Place, Layer]
    num_units: tuple[int, ...]
    stem_pool: Literal["same", "ceil"]
    stride_in_1x1: bool
    dropout: float
    time_pool: TimePool | None


@dataclass(frozen=True)
class ResidualGraph:
    """A residual network of one or two streams.

    Parameters
    ----------
    streams : dict of StreamGraph
        By name.
    injections : tuple of Injection
        Of a network of two streams, by stage.
    """

    streams: Mapping[StreamName, StreamGraph]
    injections: tuple[Injection, ...] = ()


def find_residual_network(net: DagNN) -> ResidualGraph:
    """Recognise a ResNet, or two in lock-step.

    Raises
    ------
    CheckpointError
        If a layer is missing, unknown, connected otherwise, or has another stride or padding; names the layer.
    """
    return _Walk(net).graph()


@dataclass
class _Stream:
    """The state of the walk along one stream: the variables before and after the last ReLU, and what was found so far."""

    name: StreamName
    layers: dict[Place, Layer]
    num_units: tuple[int, ...]
    before_relu: str = ""
    x: str = ""
    strides_in_1x1: set[bool] = field(default_factory=set)
    stem_pool: Literal["same", "ceil"] = "same"


class _Walk:
    """Follows the streams from their inputs to their classifiers and ticks off every layer."""

    def __init__(self, net: DagNN) -> None:
        self._net = net
        self._writer = {name: layer for layer in net.layers for name in layer.outputs}
        self._readers: dict[str, list[Layer]] = defaultdict(list)
        for layer in net.layers:
            for name in layer.inputs:
                self._readers[name].append(layer)
        self._seen: set[str] = set()

    def graph(self) -> ResidualGraph:
        streams = self._streams()
        injections: list[Injection] = []
        for stream in streams.values():
            self._stem(stream)
        if len({stream.num_units for stream in streams.values()}) > 1:
            units = " and ".join("-".join(map(str, stream.num_units)) for stream in streams.values())
            self._refuse(f"its streams have different depths ({units} units); a network of flowkit has one depth")
        for stage in range(len(STAGES)):
            for stream in streams.values():
                self._unit(stream, stage, 0)
            after_a = {name: (stream.x, stream.before_relu) for name, stream in streams.items()}
            for name, stream in streams.items():
                other = next((state for state in after_a if state != name), None)
                injections += self._unit(stream, stage, 1, injected=after_a[other][0] if other else None)
                for unit in range(2, stream.num_units[stage]):
                    self._unit(stream, stage, unit)
        graphs = {name: self._head(stream) for name, stream in streams.items()}
        self._check_all_seen(streams)
        return ResidualGraph(graphs, tuple(injections))

    def _streams(self) -> dict[StreamName, _Stream]:
        """Sort the layers with parameters by stream and place."""
        found: dict[str, dict[Place, Layer]] = defaultdict(dict)
        for layer in self._net.layers:
            if not layer.params:
                continue
            stripped, suffix = layer.name, ""
            for ending in _SUFFIXES:
                if ending in stripped:
                    stripped, suffix = stripped.replace(ending, "", 1), ending
                    break
            place = self._place(stripped, layer)
            if place in found[suffix]:
                self._refuse(f"layers {found[suffix][place].name!r} and {layer.name!r} have the same place")
            found[suffix][place] = layer
        if set(found) == set(_SUFFIXES):
            return {name: self._stream(name, found[suffix]) for suffix, name in _SUFFIXES.items()}
        if len(found) != 1:
            self._refuse(f"its layers belong to streams {sorted(found)}; two streams end in _spatial and _temporal")
        (layers,) = found.values()
        conv1 = layers.get(Place("conv1"))
        if conv1 is None:
            self._refuse("it has no layer conv1")
        channels = self._net.filter_shape(conv1)[_CHANNEL_AXIS]
        if channels not in _BY_CHANNELS:
            self._refuse(f"conv1 takes {channels} channels; flowkit reads networks for RGB (3) and for 10 flow fields (20)")
        return {_BY_CHANNELS[channels]: self._stream(_BY_CHANNELS[channels], layers)}

    def _place(self, name: str, layer: Layer) -> Place:
        if name in ("conv1", "bn_conv1"):
            return Place("conv1" if name == "conv1" else "bn1")
        match = _UNIT_LAYER.fullmatch(name)
        if match:
            letter = match[3]
            unit = ord(letter) - ord("a") if len(letter) == 1 else int(letter[1:])
            role = "time" if match[5] else "bn" if match[1] == "bn" else "conv"
            if role == "time" and match[4] != "2b":
                self._refuse(f"layer {layer.name!r} is a temporal convolution in an unknown place")
            return Place(role, int(match[2]) - 2, unit, match[4])
        if layer.kind != "Conv":
            self._refuse(f"layer {layer.name!r} ({layer.kind}) has no place in a residual network")
        return Place("fc")

    def _stream(self, name: StreamName, layers: dict[Place, Layer]) -> _Stream:
        units = []
        for stage in range(len(STAGES)):
            numbers = {place.unit for place in layers if place.role == "conv" and place.branch and place.stage == stage}
            if numbers != set(range(len(numbers))) or len(numbers) < 2:
                self._refuse(
                    f"stage {stage + 2} of the {name} stream has units {sorted(numbers)}; at least two, numbered from a, are needed"
                )
            units.append(len(numbers))
        channels = NUM_CHANNELS[name]
        if Place("conv1") in layers and self._net.filter_shape(layers[Place("conv1")])[_CHANNEL_AXIS] != channels:
            self._refuse(f"conv1 of the {name} stream must take {channels} channels")
        return _Stream(name, layers, tuple(units))

    def _stem(self, stream: _Stream) -> None:
        conv1 = self._take(stream, Place("conv1"), ("Conv",))
        if conv1.inputs[0] in self._writer:
            self._refuse(f"layer {conv1.name!r} does not read the network's input")
        self._check_conv(conv1, (7, 7), stride=2, pad=3)
        x = self._relu(self._batch_norm(stream, Place("bn1"), conv1.outputs[0]))
        pool = self._reader(x, "Pooling")
        self._check_numbers(pool, "poolSize", (3, 3))
        self._check_numbers(pool, "stride", (2, 2), default=1)
        pad = self._net.numbers(pool, "pad", 4)
        if self._method(pool) != "max" or pad not in ((0, 1, 0, 1), (1, 1, 1, 1)):
            self._refuse(f"layer {pool.name!r} must be a max pool padded by [0 1 0 1] or [1 1 1 1], not by {list(pad)}")
        stream.stem_pool = "ceil" if pad == (0, 1, 0, 1) else "same"
        stream.x = pool.outputs[0]

    def _unit(self, stream: _Stream, stage: int, unit: int, *, injected: str | None = None) -> list[Injection]:
        """Follow one residual unit; `injected` is the output of the other stream's unit a, which may enter here."""

        def conv(branch: str, kinds: Sequence[str] = ("Conv",)) -> Layer:
            return self._take(stream, Place("conv", stage, unit, branch), kinds)

        def norm(branch: str, x: str) -> str:
            return self._batch_norm(stream, Place("bn", stage, unit, branch), x)

        time = ("Conv", "ConvTime") if unit == 1 else ("Conv",)
        stride = 2 if stage and not unit else 1
        x, own_sum = stream.x, stream.before_relu
        first, second, third = conv("2a", time), conv("2b"), conv("2c", time)
        in_1x1 = self._net.numbers(first, "stride", 2, default=1) == (2, 2)
        if stride == 2:
            stream.strides_in_1x1.add(in_1x1)
        self._check_conv(first, (1, 1), stride=stride if in_1x1 else 1)
        self._check_conv(second, (3, 3), stride=1 if in_1x1 else stride, pad=1)
        self._check_conv(third, (1, 1))
        branch = first.inputs[0]
        source = None if branch == x else self._writer.get(branch)
        if branch != x and (source is None or injected is None):
            self._refuse(f"layer {first.name!r} reads {branch!r} where {x!r} belongs")
        if source is not None and injected is not None:
            if source.kind not in ("Sum", "Mul") or sorted(source.inputs) != sorted((injected, own_sum)):
                self._refuse(f"layer {source.name!r} must join the other stream with this stream's sum before its ReLU")
            self._seen.add(source.name)
        y = self._relu(norm("2a", first.outputs[0]))
        self._check_input(second, y)
        y = self._relu(norm("2b", second.outputs[0]))
        if Place("time", stage, unit, "2b") in stream.layers:
            between = self._take(stream, Place("time", stage, unit, "2b"), ("ConvTime",))
            self._check_input(between, y)
            self._check_conv(between, (1, 1))
            y = between.outputs[0]
        self._check_input(third, y)
        y = norm("2c", third.outputs[0])
        total = self._reader(y, "Sum")
        shortcut = next((name for name in total.inputs if name != y), "")
        if len(total.inputs) != 2 or not shortcut:
            self._refuse(f"layer {total.name!r} must add a shortcut and a residual branch")
        if Place("conv", stage, unit, "1") in stream.layers:
            projection = conv("1")
            self._check_conv(projection, (1, 1), stride=stride)
            self._check_input(projection, x)
            expected = norm("1", projection.outputs[0])
        else:
            expected = branch if source is not None and shortcut == branch else x
        if shortcut != expected:
            self._refuse(f"layer {total.name!r} adds {shortcut!r} where {expected!r} belongs")
        stream.before_relu, stream.x = total.outputs[0], self._relu(total.outputs[0])
        if source is None:
            return []
        direction: Any = "motion_to_appearance" if stream.name == "appearance" else "appearance_to_motion"
        return [Injection(stage, direction, "additive" if source.kind == "Sum" else "multiplicative", shortcut == branch)]

    def _head(self, stream: _Stream) -> StreamGraph:
        x, pool_before = self._time_pool(stream.x, "before_pool5")
        pool = self._reader(x, "Pooling")
        self._check_numbers(pool, "poolSize", (7, 7))
        self._check_numbers(pool, "stride", (1, 1), default=1)
        self._check_numbers(pool, "pad", (0, 0, 0, 0))
        if self._method(pool) != "avg":
            self._refuse(f"layer {pool.name!r} must be an average pool")
        x, pool_after = self._time_pool(pool.outputs[0], "after_pool5")
        dropout = 0.0
        while any(layer.kind == "DropOut" for layer in self._readers[x]):
            layer = self._reader(x, "DropOut")
            rate = layer.block.get("rate")
            dropout = float(rate.ravel()[0]) if isinstance(rate, np.ndarray) and rate.size == 1 else 0.5
            x = layer.outputs[0]
        fc = self._take(stream, Place("fc"), ("Conv",))
        self._check_input(fc, x)
        self._check_conv(fc, (1, 1))
        if len(fc.params) != 2:
            self._refuse(f"the classifier {fc.name!r} has no bias")
        for layer in self._readers[fc.outputs[0]]:
            if layer.kind not in ("Loss", "SoftMax"):
                self._refuse(f"layer {layer.name!r} reads the classifier's scores; only losses and SoftMax may")
            self._seen.add(layer.name)
        if len(stream.strides_in_1x1) != 1:
            self._refuse("some stages have their stride in the first 1x1 convolution and others in the 3x3")
        if pool_before and pool_after:
            self._refuse("time is pooled twice")
        (in_1x1,) = stream.strides_in_1x1
        return StreamGraph(stream.layers, stream.num_units, stream.stem_pool, in_1x1, dropout, pool_before or pool_after)

    def _time_pool(self, x: str, position: Literal["before_pool5", "after_pool5"]) -> tuple[str, TimePool | None]:
        if not any(layer.kind == "PoolTime" for layer in self._readers[x]):
            return x, None
        pool = self._reader(x, "PoolTime")
        self._check_numbers(pool, "poolSize", (1, 5))
        self._check_numbers(pool, "pad", (0, 0, 0, 0))
        stride = self._net.numbers(pool, "stride", 2, default=1)
        if self._method(pool) != "max" or stride not in ((1, 1), (1, 2)):
            self._refuse(f"layer {pool.name!r} must be a max pool over time with a stride of 1 or 2")
        return pool.outputs[0], TimePool(int(stride[1]), position)

    def _check_all_seen(self, streams: Mapping[StreamName, _Stream]) -> None:
        for stream in streams.values():
            for place, layer in stream.layers.items():
                if layer.name not in self._seen:
                    self._refuse(f"layer {layer.name!r} ({place.role}) is not connected to the network")
        for layer in self._net.layers:
            if layer.name not in self._seen:
                self._refuse(f"layer {layer.name!r} ({layer.kind}) is no part of a residual network")

    def _take(self, stream: _Stream, place: Place, kinds: Sequence[str]) -> Layer:
        """Return the layer of a place, which must be of one of these kinds, and read and write one variable."""
        layer = stream.layers.get(place)
        if layer is None:
            where = f"{place.role} of branch {place.branch}, unit {place.unit}, stage {place.stage + 2}" if place.branch else place.role
            self._refuse(f"its {stream.name} stream lacks the layer for {where}")
        if layer.kind not in kinds or len(layer.inputs) != 1 or len(layer.outputs) != 1:
            self._refuse(f"layer {layer.name!r} is a {layer.kind} of {len(layer.inputs)} inputs where a {kinds[0]} of one input belongs")
        self._seen.add(layer.name)
        return layer

    def _batch_norm(self, stream: _Stream, place: Place, x: str) -> str:
        layer = self._take(stream, place, ("BatchNorm",))
        self._check_input(layer, x)
        if len(layer.params) != 3:
            self._refuse(f"layer {layer.name!r} has {len(layer.params)} parameters; scale, bias and moments are needed")
        return layer.outputs[0]

    def _relu(self, x: str) -> str:
        layer = self._reader(x, "ReLU")
        leak = layer.block.get("leak")
        if isinstance(leak, np.ndarray) and leak.size and leak.any():
            self._refuse(f"layer {layer.name!r} is a leaky ReLU")
        return layer.outputs[0]

    def _reader(self, x: str, kind: str) -> Layer:
        """Return the one layer of a kind that reads a variable; it has one output."""
        found = [layer for layer in self._readers[x] if layer.kind == kind]
        if len(found) != 1 or len(found[0].outputs) != 1:
            self._refuse(f"{len(found)} layers of type {kind} read the variable {x!r} where one should")
        self._seen.add(found[0].name)
        return found[0]

    def _check_input(self, layer: Layer, x: str) -> None:
        if layer.inputs != (x,):
            self._refuse(f"layer {layer.name!r} reads {layer.inputs[0]!r} where {x!r} belongs")

    def _check_conv(self, layer: Layer, size: tuple[int, int], *, stride: int = 1, pad: int = 0) -> None:
        height, width = (1, 3) if layer.kind == "ConvTime" else size
        shape = self._net.filter_shape(layer)
        if shape[:2] != (height, width):
            self._refuse(f"layer {layer.name!r} has a filter of {shape[0]}x{shape[1]} where {height}x{width} belongs")
        self._check_numbers(layer, "stride", (stride, stride), default=1)
        self._check_numbers(layer, "pad", (0, 0, 1, 1) if layer.kind == "ConvTime" else (pad,) * 4)
        self._check_numbers(layer, "dilate", (1, 1), default=1)

    def _check_numbers(self, layer: Layer, key: str, expected: tuple[int, ...], *, default: int = 0) -> None:
        found = self._net.numbers(layer, key, len(expected), default=default)
        if found != expected:
            self._refuse(f"layer {layer.name!r} has {key} {list(found)} where {list(expected)} belongs")

    def _method(self, layer: Layer) -> str:
        method = layer.block.get("method")
        return method if isinstance(method, str) else ""

    def _refuse(self, why: str) -> NoReturn:
        self._net.refuse(why)
