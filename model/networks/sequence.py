"""Networks over the features of a video's frames: an LSTM, and two ways of taking the maximum over time.

References
----------
J. Y.-H. Ng et al., "Beyond Short Snippets: Deep Networks for Video Classification", CVPR 2015.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from flowkit.errors import ParameterError
from flowkit.model.foreign.backbones import RESNET
from flowkit.model.foreign.state_dicts import PretrainedWeights
from flowkit.model.networks.family import NetworkFamily, PhaseNetwork, State
from flowkit.model.networks.fitting import fit_exactly
from flowkit.model.networks.layers.dropout import GroupedDropout
from flowkit.model.networks.resnet import ResidualStream
from flowkit.model.settings.network import NUM_CHANNELS
from flowkit.model.settings.network_config import StreamName
from flowkit.model.settings.sequence import SequenceConfig
from flowkit.model.settings.training import TrainConfig

CLASSIFIER_STD = 0.01


class SequenceHead(nn.Module):
    """What follows the features of a video's frames: see `SequenceConfig`. Features are (B, T, D), frames in their order."""

    def __init__(self, config: SequenceConfig) -> None:
        super().__init__()
        self.config = config
        if config.is_lstm:
            sizes = [config.num_features, *[config.hidden] * (config.layers - 1)]
            # One module per layer, because torch's dropout between the layers of a single one cannot draw for groups of a batch.
            self.lstm = nn.ModuleList(nn.LSTM(size, config.hidden, batch_first=True) for size in sizes)
        else:
            self.fc_hidden = nn.Linear(config.num_features, config.hidden)
        self.drops = nn.ModuleList(GroupedDropout(config.dropout) for _ in range(config.layers if config.is_lstm else 1))
        self.fc = nn.Linear(config.hidden, config.num_classes)
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw new weights: for an LSTM uniform within 1/sqrt(cells), for a hidden layer as He et al., N(0, 0.01^2) for the classifier.

        Biases are zero, except for those of an LSTM, which are drawn too.
        """
        bound = self.config.hidden**-0.5
        for layer in self.lstm if self.config.is_lstm else ():
            for parameter in layer.parameters():
                nn.init.uniform_(parameter, -bound, bound, generator=generator)
        if not self.config.is_lstm:
            nn.init.kaiming_normal_(self.fc_hidden.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(self.fc_hidden.bias)
        self.reset_classifier(generator)

    def reset_classifier(self, generator: torch.Generator | None = None) -> None:
        """Draw a new classifier: weights from N(0, 0.01^2), zero biases."""
        nn.init.normal_(self.fc.weight, std=CLASSIFIER_STD, generator=generator)
        nn.init.zeros_(self.fc.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Classify features (B, T, D): logits (B, T, C) of an LSTM, one at every step, else (B, 1, C)."""
        x = features
        if self.config.is_lstm:
            for layer, drop in zip(self.lstm, self.drops, strict=True):
                x = drop(layer(x)[0])
        elif not self.config.late_pooling:
            x = self.drops[0](self.fc_hidden(x.amax(1, keepdim=True)).relu())
        else:
            x = self.drops[0](self.fc_hidden(x).relu().amax(1, keepdim=True))
        return cast("Tensor", self.fc(x))


class SequenceNetwork(PhaseNetwork):
    """A ResNet that no longer learns, and a network over the features that it gives the frames, or stacks of flow, of a video.

    The parameters of the ResNet are torchvision's after the stream's name, ``appearance.layer1.0.conv1.weight``; those of what follows
    begin with ``appearance.sequence``.

    Parameters
    ----------
    config : SequenceConfig
        The architecture.
    stream : {"appearance", "motion"}
        Whether the features are those of frames or of stacks of flow.
    checkpoint_activations : bool
        Without effect: no activations are kept of a ResNet that does not learn.

    Examples
    --------
    >>> import torch
    >>> from flowkit.model.networks.sequence import SequenceNetwork
    >>> from flowkit.model.settings.sequence import SequenceConfig
    >>> config = SequenceConfig(num_classes=5, base_width=4, stage_units=(2, 2, 2, 2), input_size=32, hidden=8, layers=2)
    >>> network = SequenceNetwork(config, "appearance")
    >>> network.logits_of_features(torch.randn(2, 25, config.num_features))["appearance"].shape  # of every step, for training
    torch.Size([2, 25, 5])
    >>> with torch.inference_mode():
    ...     network.eval()(torch.randn(2, 25, 3, 32, 32)).shape  # of the video
    torch.Size([2, 1, 5])
    """

    def __init__(self, config: SequenceConfig, stream: StreamName, *, checkpoint_activations: bool = False) -> None:
        super().__init__()
        if stream not in NUM_CHANNELS:
            raise ParameterError(f"stream must be appearance or motion, got {stream!r}")
        self.config = config
        self.stream_name: StreamName = stream
        trunk = ResidualStream(config, NUM_CHANNELS[stream], temporal=False)
        del trunk.fc
        trunk.requires_grad_(False).eval()
        trunk.add_module("fc", nn.Identity())  # its classifier is not needed: what it would receive are the features
        trunk.add_module("sequence", SequenceHead(config))
        self.add_module(stream, trunk)

    @property
    def streams(self) -> tuple[StreamName, ...]:
        """The streams whose logits the network returns."""
        return (self.stream_name,)

    @property
    def trunk(self) -> ResidualStream:
        """The ResNet, with what follows it."""
        return cast("ResidualStream", getattr(self, self.stream_name))

    @property
    def sequence(self) -> SequenceHead:
        """What follows the features."""
        return cast("SequenceHead", self.trunk.sequence)

    @property
    def classifiers(self) -> dict[StreamName, nn.Linear]:
        """The last layer of each stream."""
        return {self.stream_name: self.sequence.fc}

    def train(self, mode: bool = True) -> SequenceNetwork:
        """Set the mode of what follows the features; the ResNet stays in eval mode."""
        super().train(False)
        self.training = mode
        self.sequence.train(mode)
        return self

    def features(self, clips: Tensor) -> Tensor:
        """Return the features of every frame or stack of clips (B, T, 3 or 2L, H, W): (B, T, D)."""
        channels = NUM_CHANNELS[self.stream_name]
        if clips.ndim != 5 or clips.shape[1] == 0 or clips.shape[2] != channels:
            raise ParameterError(
                f"the {self.stream_name} network takes clips of shape (B, T, {channels}, H, W) with T >= 1, got {tuple(clips.shape)}"
            )
        return cast("Tensor", self.trunk(clips.flatten(0, 1), clips.shape[1]))

    def forward(self, clips: Tensor) -> Tensor:
        """Classify videos, (B, T, 3 or 2L, H, W) of T frames or stacks in their order: logits (B, 1, num_classes); see `joined_steps`."""
        return joined_steps(self.logits_of_features(self.features(clips))[self.stream_name])

    def stream_logits(self, rgb: Tensor | None, flow: Tensor | None) -> dict[str, Tensor]:
        """Return the logits of its stream, by the stream's name."""
        return {self.stream_name: self(rgb if self.stream_name == "appearance" else flow)}

    def logits_of_features(self, features: Tensor) -> dict[str, Tensor]:
        """Classify the features (B, T, D) of T frames in their order: logits (B, T', num_classes), T' = T for an LSTM, else 1."""
        if features.ndim != 3 or features.shape[1] == 0 or features.shape[2] != self.config.num_features:
            raise ParameterError(
                f"the {self.stream_name} network takes features of shape (B, T, {self.config.num_features}) with T >= 1, "
                f"got {tuple(features.shape)}"
            )
        return {self.stream_name: self.sequence(features)}

    def step_weights(self, num_steps: int) -> Tensor:
        """Return how much each step counts in the loss; see `step_gains`."""
        return step_gains(num_steps)


class SequenceFamily(NetworkFamily):
    """`SequenceNetwork`; its ResNet is that of the phase from which it starts."""

    def build(self, config: TrainConfig, *, checkpoint_activations: bool = False) -> SequenceNetwork:
        """Return the network of a phase, on the CPU."""
        assert isinstance(config.network, SequenceConfig)
        return SequenceNetwork(config.network, config.streams[0], checkpoint_activations=checkpoint_activations)

    def initialise(self, network: PhaseNetwork, weights: PretrainedWeights | None, *, generator: torch.Generator) -> None:
        """Draw random weights of what follows the features; the ResNet keeps those with which it was built."""
        assert isinstance(network, SequenceNetwork)
        network.sequence.reset_parameters(generator)

    def start(self, network: PhaseNetwork, states: Mapping[str, State], *, generator: torch.Generator) -> None:
        """Take the ResNet of a trained stream without its classifier, and draw random weights of what follows."""
        self.check_start(network, states)
        self.initialise(network, None, generator=generator)
        (state,) = states.values()
        network.load_state_dict(_without_classifier(state), strict=False)

    def check_start(self, network: PhaseNetwork, states: Mapping[str, State]) -> None:
        """Check whether its ResNet is that of a trained stream."""
        own = {name: tensor for name, tensor in network.state_dict().items() if ".sequence." not in name}
        for name, state in states.items():
            fit_exactly(own, _without_classifier(state), f"the weights of {name}")


def _without_classifier(state: State) -> State:
    return {name: tensor for name, tensor in state.items() if not name.endswith(RESNET.classifier)}


def step_gains(num_steps: int) -> Tensor:
    """Return how much each step of an LSTM counts, in the loss and in the score: float32 (T,), rising linearly from 0 to 1.

    A single step counts 1.

    Examples
    --------
    >>> from flowkit.model.networks.sequence import step_gains
    >>> step_gains(5)
    tensor([0.0000, 0.2500, 0.5000, 0.7500, 1.0000])
    """
    return torch.ones(1) if num_steps == 1 else torch.arange(num_steps) / (num_steps - 1)


def joined_steps(logits: Tensor) -> Tensor:
    """Return one logit per class from those of all steps; their softmax is the mean softmax, each step counted by `step_gains`.

    Parameters
    ----------
    logits : float tensor, shape (B, T, C)
        What a `SequenceHead` returns.

    Returns
    -------
    float tensor, shape (B, 1, C)
        The logarithm of that mean; of a single step, its logits themselves.
    """
    if logits.shape[1] == 1:
        return logits
    exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
    gains = step_gains(logits.shape[1]).to(exact)
    return (exact.log_softmax(-1) + (gains / gains.sum()).log()[:, None]).logsumexp(1, keepdim=True)
