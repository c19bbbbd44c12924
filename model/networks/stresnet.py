"""ST-ResNet: two residual streams in lock-step, motion entering the appearance stream at every stage.

References
----------
C. Feichtenhofer, A. Pinz, R. P. Wildes, "Spatiotemporal Residual Networks for Video Action Recognition", NIPS 2016,
arXiv:1611.02155. The multiplicative kind: same authors, "Spatiotemporal Multiplier Networks for Video Action Recognition",
CVPR 2017.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from flowkit.errors import ParameterError
from flowkit.model.networks.family import PhaseNetwork
from flowkit.model.networks.resnet import ResidualStream
from flowkit.model.settings.network import NUM_CHANNELS, STAGES, InjectionDirection, InjectionKind, STResNetConfig
from flowkit.model.settings.network_config import StreamName


class StreamLogits(NamedTuple):
    """Logits of the two streams, before any averaging.

    Parameters
    ----------
    appearance, motion : float tensor, shape (B, T', num_classes)
        For every clip and time step.

    Examples
    --------
    >>> import torch
    >>> from flowkit.model import StreamLogits
    >>> logits = StreamLogits(appearance=torch.zeros(1, 2, 3), motion=torch.ones(1, 2, 3))
    >>> torch.stack(logits).mean((0, 2))  # the mean of both streams over time: scores of one clip for 3 classes
    tensor([[0.5000, 0.5000, 0.5000]])
    """

    appearance: Tensor
    motion: Tensor


class SingleStream(PhaseNetwork):
    """A base stream: one ResNet that classifies each frame, or each flow stack, separately.

    Its parameters are named as in `STResNet`: ``appearance.conv1.weight`` and so on.

    Parameters
    ----------
    config : STResNetConfig
        The architecture. Settings of time and injection are not used; ``motion_dropout`` is used by the motion stream.
    stream : {"appearance", "motion"}
        Whether the network classifies frames or stacks of flow.
    checkpoint_activations : bool
        Trade computation for memory; see `ResidualStream`.
    """

    def __init__(self, config: STResNetConfig, stream: StreamName, *, checkpoint_activations: bool = False) -> None:
        super().__init__()
        if stream not in NUM_CHANNELS:
            raise ParameterError(f"stream must be appearance or motion, got {stream!r}")
        self.config = config
        self.stream_name: StreamName = stream
        self.add_module(stream, _residual_stream(config, stream, temporal=False, checkpoint_activations=checkpoint_activations))

    @property
    def stream(self) -> ResidualStream:
        """The residual network."""
        stream = getattr(self, self.stream_name)
        assert isinstance(stream, ResidualStream)
        return stream

    def forward(self, clips: Tensor) -> Tensor:
        """Classify every frame or stack of clips (B, T, 3 or 2L, H, W): logits (B, T, num_classes)."""
        _check_clips(clips, self.stream_name)
        logits: Tensor = self.stream(clips.flatten(0, 1), num_frames=clips.shape[1])
        return logits

    def stream_logits(self, rgb: Tensor | None, flow: Tensor | None) -> dict[str, Tensor]:
        """Return the logits of its stream, by the stream's name."""
        return {self.stream_name: self(rgb if self.stream_name == "appearance" else flow)}

    @property
    def classifiers(self) -> dict[StreamName, nn.Linear]:
        """The last layer of its stream."""
        return {self.stream_name: self.stream.fc}


class STResNet(PhaseNetwork):
    """The two-stream spatiotemporal residual network.

    Parameters
    ----------
    config : STResNetConfig
        The architecture.
    checkpoint_activations : bool
        Trade computation for memory; see `ResidualStream`.

    Notes
    -----
    Let s_a and s_m be the sums before the ReLU of unit a of a stage, and f the ReLU. Then unit b of the appearance stream returns,
    before its ReLU (eq. 2),

        f(s_a) + F(s_a + f(s_m)).

    The motion enters only the residual branch; it is added to the sum *before* the ReLU, and no ReLU follows the addition. The
    gradient flows into the motion stream undiminished (eq. 4). See `inject` for the other variants.

    References
    ----------
    C. Feichtenhofer, A. Pinz, R. P. Wildes, "Spatiotemporal Residual Networks for Video Action Recognition", NIPS 2016,
    arXiv:1611.02155.

    Examples
    --------
    A tiny network on two clips of T = 3 samples, each a frame and a stack of 10 flow fields:

    >>> import torch
    >>> from flowkit.model import STResNet, STResNetConfig
    >>> config = STResNetConfig(num_classes=5, base_width=4, stage_units=(2, 2, 2, 2), input_size=32)
    >>> network = STResNet(config).eval()
    >>> with torch.inference_mode():
    ...     logits = network(torch.randn(2, 3, 3, 32, 32), torch.randn(2, 3, 20, 32, 32))
    >>> logits.appearance.shape, logits.motion.shape
    (torch.Size([2, 3, 5]), torch.Size([2, 3, 5]))
    """

    def __init__(self, config: STResNetConfig, *, checkpoint_activations: bool = False) -> None:
        super().__init__()
        self.config = config
        self.appearance = _residual_stream(config, "appearance", temporal=True, checkpoint_activations=checkpoint_activations)
        self.motion = _residual_stream(config, "motion", temporal=True, checkpoint_activations=checkpoint_activations)

    def forward(self, rgb: Tensor, flow: Tensor) -> StreamLogits:
        """Classify clips by both streams.

        Parameters
        ----------
        rgb : float tensor, shape (B, T, 3, H, W)
            Normalised frames.
        flow : float tensor, shape (B, T, 2L, H, W)
            Normalised stacks of L = 10 flow fields, u and v interleaved.

        Returns
        -------
        StreamLogits
            Two tensors of shape (B, T', num_classes); T' = T without temporal pooling.

        Raises
        ------
        ParameterError
            If the shapes are not these.
        """
        _check_clips(rgb, "appearance")
        _check_clips(flow, "motion")
        if rgb.shape[:2] != flow.shape[:2] or rgb.shape[3:] != flow.shape[3:]:
            raise ParameterError(f"rgb and flow must agree in clips, frames and size, got {tuple(rgb.shape)} and {tuple(flow.shape)}")
        num_frames = rgb.shape[1]
        x_a = self.appearance.stem(rgb.flatten(0, 1))
        x_m = self.motion.stem(flow.flatten(0, 1))
        for stage in range(self.appearance.num_stages):
            s_a = self.appearance.unit_a(stage, x_a, num_frames)
            s_m = self.motion.unit_a(stage, x_m, num_frames)
            # Not in place, since s_a and s_m are used again. Both are computed before either injection, so the order of the streams
            # does not matter when both inject.
            x_a, x_m = functional.relu(s_a), functional.relu(s_m)
            identity_a, branch_a = self._unit_b_inputs(s_a, x_a, x_m, injected=self.injects("motion_to_appearance", stage))
            identity_m, branch_m = self._unit_b_inputs(s_m, x_m, x_a, injected=self.injects("appearance_to_motion", stage))
            x_a = self.appearance.units_from_b(stage, identity_a, branch_a, num_frames)
            x_m = self.motion.units_from_b(stage, identity_m, branch_m, num_frames)
        return StreamLogits(self.appearance.head(x_a, num_frames), self.motion.head(x_m, num_frames))

    def stream_logits(self, rgb: Tensor | None, flow: Tensor | None) -> dict[str, Tensor]:
        """Return the logits of both streams, by their names."""
        return self(rgb, flow)._asdict()  # type: ignore[no-any-return]

    @property
    def classifiers(self) -> dict[StreamName, nn.Linear]:
        """The last layer of each stream."""
        return {"appearance": self.appearance.fc, "motion": self.motion.fc}

    def injects(self, direction: InjectionDirection, stage: int) -> bool:
        """Return whether one stream enters the other at stage 0..3."""
        config = self.config
        return config.injection != "none" and config.injection_direction in (direction, "both") and STAGES[stage] in config.injection_stages

    def _unit_b_inputs(self, s: Tensor, x: Tensor, other: Tensor, *, injected: bool) -> tuple[Tensor, Tensor]:
        """Return the inputs of unit b's identity path and residual branch."""
        if not injected:
            return x, x
        branch = inject(s, other, self.config.injection_kind)
        return (branch if self.config.injection == "direct" else x), branch


def inject(s: Tensor, other: Tensor, kind: InjectionKind) -> Tensor:
    """Combine the other stream with a unit's sum before the ReLU.

    Parameters
    ----------
    s : Tensor
        The sum of unit a before the ReLU, in the receiving stream.
    other : Tensor
        The output of unit a after the ReLU, in the other stream.
    kind : {"additive", "multiplicative"}
        ``s + other`` (eq. 2), or the gating ``s * other`` of the CVPR 2017 follow-up, whose code also multiplies the sum
        before the ReLU.

    Returns
    -------
    Tensor
        The input of unit b's residual branch, and with ``direct`` injection also of its identity path.
    """
    return s + other if kind == "additive" else s * other


def _residual_stream(config: STResNetConfig, stream: StreamName, *, temporal: bool, checkpoint_activations: bool) -> ResidualStream:
    return ResidualStream(
        config,
        NUM_CHANNELS[stream],
        temporal=temporal,
        dropout=config.motion_dropout if stream == "motion" else 0.0,
        checkpoint_activations=checkpoint_activations,
    )


def _check_clips(clips: Tensor, stream: StreamName) -> None:
    if clips.ndim != 5 or clips.shape[2] != NUM_CHANNELS[stream] or clips.shape[1] == 0:
        raise ParameterError(
            f"the {stream} stream takes clips of shape (B, T, {NUM_CHANNELS[stream]}, H, W) with T >= 1, got {tuple(clips.shape)}"
        )
