"""Networks over the features of a video's frames: an LSTM, and two ways of taking the maximum over time.

References
----------
J. Y.-H. Ng et al., "Beyond Short Snippets: Deep Networks for Video Classification", CVPR 2015.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from flowkit.errors import ParameterError
from flowkit.model.networks.layers.dropout import GroupedDropout
from flowkit.model.settings.network import NUM_CHANNELS
from flowkit.model.settings.network_config import StreamName
from flowkit.model.settings.sequence import SequenceConfig

CLASSIFIER_STD = 0.01


class SequenceHead(nn.Module):
    """The network of one stream: see `SequenceConfig`. Features are (B, T, D), frames in their order."""

    def __init__(self, config: SequenceConfig) -> None:
        super().__init__()
        self.config = config
        if config.kind == "lstm":
            sizes = [config.num_features, *[config.hidden] * (config.layers - 1)]
            # One module per layer, because torch's dropout between the layers of a single one cannot draw for groups of a batch.
            self.lstm = nn.ModuleList(nn.LSTM(size, config.hidden, batch_first=True) for size in sizes)
        else:
            self.fc_hidden = nn.Linear(config.num_features, config.hidden)
        self.drops = nn.ModuleList(GroupedDropout(config.dropout) for _ in range(config.layers if config.kind == "lstm" else 1))
        self.fc = nn.Linear(config.hidden, config.num_classes)
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw new weights: for an LSTM uniform within 1/sqrt(cells), for a hidden layer as He et al., N(0, 0.01^2) for the classifier.

        Biases are zero, except for those of an LSTM, which are drawn too.
        """
        bound = self.config.hidden**-0.5
        for layer in self.lstm if self.config.kind == "lstm" else ():
            for parameter in layer.parameters():
                nn.init.uniform_(parameter, -bound, bound, generator=generator)
        if self.config.kind != "lstm":
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
        if self.config.kind == "lstm":
            for layer, drop in zip(self.lstm, self.drops, strict=True):
                x = drop(layer(x)[0])
        elif self.config.kind == "conv_pool":
            x = self.drops[0](self.fc_hidden(x.amax(1, keepdim=True)).relu())
        else:
            x = self.drops[0](self.fc_hidden(x).relu().amax(1, keepdim=True))
        return cast("Tensor", self.fc(x))


class SequenceNetwork(nn.Module):
    """A network over the cached features of one stream.

    Parameters
    ----------
    config : SequenceConfig
        The architecture.
    stream : {"appearance", "motion"}
        The stream whose features it classifies; its parameters have this name before theirs.

    Examples
    --------
    >>> import torch
    >>> from flowkit.model.networks.sequence import SequenceNetwork, step_gains
    >>> from flowkit.model.settings.sequence import SequenceConfig
    >>> network = SequenceNetwork(SequenceConfig(num_classes=5, num_features=16, hidden=8, layers=2), "appearance").eval()
    >>> with torch.inference_mode():
    ...     logits = network(torch.randn(2, 30, 16))
    >>> logits.shape
    torch.Size([2, 30, 5])
    >>> step_gains(5)
    tensor([0.0000, 0.2500, 0.5000, 0.7500, 1.0000])
    """

    def __init__(self, config: SequenceConfig, stream: StreamName) -> None:
        super().__init__()
        if stream not in NUM_CHANNELS:
            raise ParameterError(f"stream must be appearance or motion, got {stream!r}")
        self.config = config
        self.stream_name: StreamName = stream
        self.add_module(stream, SequenceHead(config))

    @property
    def streams(self) -> tuple[StreamName, ...]:
        """The streams whose logits the network returns."""
        return (self.stream_name,)

    @property
    def stream(self) -> SequenceHead:
        """The network itself."""
        return cast("SequenceHead", getattr(self, self.stream_name))

    @property
    def classifiers(self) -> dict[StreamName, nn.Linear]:
        """The last layer of each stream; its input are the stream's features."""
        return {self.stream_name: self.stream.fc}

    def forward(self, features: Tensor) -> Tensor:
        """Classify features (B, T, D) of T frames in their order: logits (B, T', num_classes), T' = T for an LSTM, else 1."""
        if features.ndim != 3 or features.shape[1] == 0 or features.shape[2] != self.config.num_features:
            raise ParameterError(
                f"the {self.stream_name} network takes features of shape (B, T, {self.config.num_features}) with T >= 1, "
                f"got {tuple(features.shape)}"
            )
        return cast("Tensor", self.stream(features))


def step_gains(num_steps: int) -> Tensor:
    """Return how much each step of an LSTM counts, in the loss and in the score: float32 (T,), rising linearly from 0 to 1.

    A single step counts 1.
    """
    return torch.ones(1) if num_steps == 1 else torch.arange(num_steps) / (num_steps - 1)


def joined_steps(logits: Tensor) -> Tensor:
    """Return one score per class from the logits of all steps: the mean softmax, each step counted by `step_gains`.

    Parameters
    ----------
    logits : float tensor, shape (B, T, C)
        What a `SequenceNetwork` returns.

    Returns
    -------
    float tensor, shape (B, C), rows sum to 1
    """
    gains = step_gains(logits.shape[1]).to(logits)
    return (logits.softmax(-1) * gains[:, None]).sum(1) / gains.sum()
