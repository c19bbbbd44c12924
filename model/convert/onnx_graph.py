"""A network as an ONNX graph, written node by node from its modules, so that clips, frames, height and width may have any size.

torch's exporter traces one size; with all sizes free it took minutes for the smallest network, and it depends on the version of
torch. The network has ten kinds of operation, so writing them directly is simple and fast, and keeps every parameter's name.
`flowkit.model.convert.network_files` compares each graph with the network itself before it writes a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from flowkit.errors import ParameterError
from flowkit.model.networks.layers.temporal_conv import TemporalConv
from flowkit.model.networks.resnet import Bottleneck, ResidualStream
from flowkit.model.networks.stresnet import SingleStream, STResNet
from flowkit.model.settings.network import NUM_CHANNELS, NUM_RGB_CHANNELS
from flowkit.model.settings.network_config import TEMPORAL_POOL_SIZE, StreamName

OPSET, IR_VERSION = 20, 9  # those of ONNX 1.15 (2023), which all later runtimes read
INPUT_NAMES: dict[StreamName, str] = {"appearance": "rgb", "motion": "flow"}
_FLOAT = 1  # onnx.TensorProto.FLOAT
_TO_TIME_INSIDE = (0, 2, 1, 3, 4)  # (B, T, C, H, W) to (B, C, T, H, W), and back


def onnx_model(network: SingleStream | STResNet, *, metadata: Mapping[str, str]) -> Any:
    """Return the ONNX model of a network in eval mode.

    Parameters
    ----------
    network : SingleStream or STResNet
        Its parameters are float32, on the CPU.
    metadata : dict of str to str
        Stored in the model's properties.

    Returns
    -------
    onnx.ModelProto
        Inputs ``rgb`` (B, T, 3, H, W) and ``flow`` (B, T, 20, H, W), normalised float32, of which single streams have one; outputs
        ``appearance_logits`` and ``motion_logits``, (B, T', C). B, T, H and W may have any size.

    Notes
    -----
    As in the network, frames pass as (B*T, C, H, W) through two-dimensional layers, and are grouped into clips and separated again
    around every layer that extends over time. The network shrinks a pooling window that is larger than its input; here the input is
    padded instead, with the same result (ONNX Runtime 1.32 aborts the process if a window is larger than its input).
    """
    from onnx import TensorProto, checker, helper

    graph = _Graph(network)
    if isinstance(network, STResNet):
        streams: tuple[StreamName, ...] = ("appearance", "motion")
        logits: tuple[str, ...] = graph.two_streams(network)
    else:
        streams = (network.stream_name,)
        logits = (graph.single_stream(network),)
    inputs, outputs = [], []
    for stream, produced in zip(streams, logits, strict=True):
        shape: list[str | int | None] = ["clips", "frames", NUM_CHANNELS[stream], "height", "width"]
        inputs.append(helper.make_tensor_value_info(INPUT_NAMES[stream], TensorProto.FLOAT, shape))
        name = f"{stream}_logits"
        graph.nodes.append(helper.make_node("Identity", [produced], [name], name=name))
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["clips", "steps", network.config.num_classes]))
    model = helper.make_model(
        helper.make_graph(graph.nodes, "flowkit", inputs, outputs, initializer=list(graph.initializers.values())),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="flowkit",
    )
    helper.set_model_props(model, dict(metadata))
    checker.check_model(model, full_check=True)
    return model


class _Graph:
    """The nodes and tensors of a graph. Methods add nodes and return the name of the value that they compute."""

    def __init__(self, network: nn.Module) -> None:
        self.nodes: list[Any] = []
        self.initializers: dict[str, Any] = {}
        self._names = {module: name for name, module in network.named_modules()}
        self._num_values = 0

    def two_streams(self, network: STResNet) -> tuple[str, str]:
        """Return the logits of both streams, which are computed side by side as in `STResNet.forward`."""
        config = network.config
        frames_a, time = self.frames(INPUT_NAMES["appearance"])
        frames_m, _ = self.frames(INPUT_NAMES["motion"])
        a, m = network.appearance, network.motion
        x_a, x_m = self.stem(a, frames_a), self.stem(m, frames_m)

        def unit_b_inputs(s: str, x: str, other: str, injected: bool) -> tuple[str, str]:
            if not injected:
                return x, x
            branch = self.node("Add" if config.injection_kind == "additive" else "Mul", s, other)
            return (branch if config.injection == "direct" else x), branch

        for stage in range(a.num_stages):
            s_a = self.unit(_units(a, stage)[0], x_a, x_a, time)
            s_m = self.unit(_units(m, stage)[0], x_m, x_m, time)
            x_a, x_m = self.node("Relu", s_a), self.node("Relu", s_m)
            inputs_a = unit_b_inputs(s_a, x_a, x_m, network.injects("motion_to_appearance", stage))
            inputs_m = unit_b_inputs(s_m, x_m, x_a, network.injects("appearance_to_motion", stage))
            x_a = self.units_from_b(a, stage, *inputs_a, time)
            x_m = self.units_from_b(m, stage, *inputs_m, time)
        return self.head(a, x_a, time), self.head(m, x_m, time)

    def single_stream(self, network: SingleStream) -> str:
        """Return the logits of a base stream."""
        stream = network.stream
        frames, time = self.frames(INPUT_NAMES[network.stream_name])
        x = self.stem(stream, frames)
        for stage in range(stream.num_stages):
            x = self.node("Relu", self.unit(_units(stream, stage)[0], x, x, time))
            x = self.units_from_b(stream, stage, x, x, time)
        return self.head(stream, x, time)

    def frames(self, clips: str) -> tuple[str, str]:
        """Return the frames (B*T, C, H, W) of clips (B, T, C, H, W), and T as a vector of length one."""
        return self.by_frame(clips), self.node("Shape", clips, start=1, end=2)

    def stem(self, stream: ResidualStream, frames: str) -> str:
        """Compute everything before the first unit."""
        if stream.conv1.in_channels == NUM_RGB_CHANNELS and any(stream.config.rgb_offset):
            offset = np.array(stream.config.rgb_offset, np.float32)[:, None, None]
            frames = self.node("Sub", frames, self._tensor("rgb_offset", offset))
        x = self.node("Relu", self.batch_norm(stream.bn1, self.convolution(stream.conv1, frames)))
        if stream.config.stem_pool == "ceil":
            return self.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
        return self.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])

    def unit(self, unit: Bottleneck, identity: str, branch: str, time: str) -> str:
        """Compute one residual unit, before its ReLU (eq. 2 of the paper)."""
        x = self.node("Relu", self.batch_norm(unit.bn1, self.convolution(unit.conv1, branch, time)))
        x = self.node("Relu", self.batch_norm(unit.bn2, self.convolution(unit.conv2, x)))
        s = self.batch_norm(unit.bn3, self.convolution(unit.conv3, x, time))
        if unit.downsample is not None:
            convolution, norm = unit.downsample
            identity = self.batch_norm(norm, self.convolution(convolution, identity))
        return self.node("Add", s, identity)

    def units_from_b(self, stream: ResidualStream, stage: int, identity: str, branch: str, time: str) -> str:
        """Return the output of a stage, given the inputs of its second unit."""
        unit_b, *later = _units(stream, stage)[1:]
        x = self.node("Relu", self.unit(unit_b, identity, branch, time))
        for unit in later:
            x = self.node("Relu", self.unit(unit, x, x, time))
        return x

    def head(self, stream: ResidualStream, x: str, time: str) -> str:
        """Pool, classify, and group the frames into clips again: (B, T', C)."""
        config = stream.config
        pools_time = stream.temporal and config.temporal_pool
        if pools_time and config.temporal_pool_position == "before_pool5":
            x, time = self.temporal_max_pool(x, time, config.temporal_pool_stride)
        x = self.node("GlobalAveragePool", x) if config.head_pool == "global" else self.average_pool(x, config.head_window)
        if pools_time and config.temporal_pool_position == "after_pool5":
            x, time = self.temporal_max_pool(x, time, config.temporal_pool_stride)
        x = self.node("ReduceMean", x, self.integers(2, 3), keepdims=0)
        logits = self.node("Gemm", x, *self.parameters(stream.fc, "weight", "bias"), transB=1)
        return self.by_clip(logits, time)

    def average_pool(self, x: str, window: int) -> str:
        """Average over windows that are at most as large as the maps."""
        size, side = self.node("Shape", x, start=2), self.integers(window, window)
        x = self.padded(x, size, side, axes=(2, 3), value=0)
        shares = self.node("Div", *(self.node("Cast", length, to=_FLOAT) for length in (side, self.node("Min", size, side))))
        x = self.node("AveragePool", x, kernel_shape=[window, window], strides=[1, 1])
        return self.node("Mul", x, self.node("ReduceProd", shares, keepdims=1))

    def padded(self, x: str, size: str, least: str, *, axes: tuple[int, ...], value: float) -> str:
        """Pad axes that are shorter than `least` with `value` at their end."""
        missing = self.node("Max", self.node("Sub", least, size), self.integers(0))
        pads = self.node("Concat", self.integers(*[0] * len(axes)), missing, axis=0)
        return self.node("Pad", x, pads, self._tensor(f"fill_{len(axes)}", np.array(value, np.float32)), self.integers(*axes))

    def temporal_max_pool(self, x: str, time: str, stride: int) -> tuple[str, str]:
        """Take the maximum over 5 frames (or fewer, if there are no more); return the remaining frames and T'."""
        clips = self.padded(self.by_clip(x, time), time, self.integers(TEMPORAL_POOL_SIZE), axes=(1,), value=-np.inf)
        clips = self.node("Transpose", clips, perm=_TO_TIME_INSIDE)
        pooled = self.node("MaxPool", clips, kernel_shape=[TEMPORAL_POOL_SIZE, 1, 1], strides=[stride, 1, 1])
        return self.frames(self.node("Transpose", pooled, perm=_TO_TIME_INSIDE))

    def convolution(self, module: Any, x: str, time: str = "") -> str:
        """Convolve frames in space, or clips in time."""
        weight = self.parameters(module, "weight")
        if not isinstance(module, TemporalConv):
            stride, padding = _pair(module.stride), _pair(module.padding)
            return self.node("Conv", x, *weight, strides=stride, pads=padding * 2)
        clips = self.by_clip(x, time)
        if module.replicate:
            clips = self.node("Pad", clips, self.integers(1, 1), "", self.integers(1), mode="edge")
        clips = self.node("Transpose", clips, perm=_TO_TIME_INSIDE)
        num_zeros = 0 if module.replicate else 1  # on either side
        clips = self.node("Conv", clips, *weight, pads=[num_zeros, 0, 0] * 2)
        return self.by_frame(self.node("Transpose", clips, perm=_TO_TIME_INSIDE))

    def batch_norm(self, module: Any, x: str) -> str:
        """Normalise by the running moments."""
        parts = self.parameters(module, "weight", "bias", "running_mean", "running_var")
        return self.node("BatchNormalization", x, *parts, epsilon=module.eps)

    def by_clip(self, frames: str, time: str) -> str:
        """Group frames into clips of `time` each: (B*T, ...) to (B, T, ...)."""
        return self.node("Reshape", frames, self.node("Concat", self.integers(-1), time, self.node("Shape", frames, start=1), axis=0))

    def by_frame(self, clips: str) -> str:
        """Separate clips into frames: (B, T, ...) to (B*T, ...)."""
        return self.node("Reshape", clips, self.node("Concat", self.integers(-1), self.node("Shape", clips, start=2), axis=0))

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output."""
        from onnx import helper

        self._num_values += 1
        output = f"{operator.lower()}_{self._num_values}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=output, **attributes))
        return output

    def parameters(self, module: nn.Module, *names: str) -> list[str]:
        """Return the names of a module's tensors, which are those of the network's state."""
        return [self._tensor(f"{self._names[module]}.{name}", getattr(module, name).detach().numpy()) for name in names]

    def integers(self, *values: int) -> str:
        """Return a constant vector."""
        return self._tensor("int_" + "_".join(str(value).replace("-", "minus") for value in values), np.array(values, np.int64))

    def _tensor(self, name: str, values: NDArray[Any]) -> str:
        from onnx import numpy_helper

        if name not in self.initializers:
            if values.dtype not in (np.float32, np.int64):
                raise ParameterError(f"{name} is {values.dtype}; ONNX files are written for float32 networks")
            self.initializers[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name


def _units(stream: ResidualStream, stage: int) -> list[Bottleneck]:
    return list(getattr(stream, f"layer{stage + 1}"))


def _pair(value: int | Sequence[int]) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)
