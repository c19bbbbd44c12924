"""C3D: 3 x 3 x 3 convolutions over clips of 16 frames, under the names of the authors' Caffe files.

References
----------
D. Tran, L. Bourdev, R. Fergus, L. Torresani, M. Paluri, "Learning Spatiotemporal Features with 3D Convolutional Networks", ICCV 2015;
its code, facebookarchive/C3D.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from flowkit.errors import CheckpointError, ParameterError
from flowkit.model.foreign.backbones import C3D, Naming, find_backbone
from flowkit.model.foreign.state_dicts import PretrainedWeights, pretrained_state
from flowkit.model.networks.family import NetworkFamily, PhaseNetwork, State
from flowkit.model.networks.layers.conv3d import Conv3d
from flowkit.model.networks.layers.dropout import GroupedDropout
from flowkit.model.networks.vgg import CLASSIFIER_STD, slide
from flowkit.model.networks.weights import check_pretrained, initialise_single_stream
from flowkit.model.settings.c3d import CLIP_FRAMES, C3DConfig
from flowkit.model.settings.network import NUM_RGB_CHANNELS
from flowkit.model.settings.network_config import StreamName
from flowkit.model.settings.training import TrainConfig


class C3DStream(nn.Module):
    """The network itself, over clips of 16 frames (N, 3, 16, H, W).

    Parameters
    ----------
    config : C3DConfig
        The architecture.
    checkpoint_activations : bool
        Keep only the input of each stage for the backward pass and compute the rest again.

    Notes
    -----
    Pools round up, as Caffe's do: the last maps of 7 x 7 become 4 x 4. On frames larger than a training crop, the first fully connected
    layer slides over the maps, and the logits of its positions are averaged.
    """

    naming: Naming = C3D

    def __init__(self, config: C3DConfig, *, checkpoint_activations: bool = False) -> None:
        super().__init__()
        self.config = config
        self.checkpoint_activations = checkpoint_activations
        channels, self._stages = NUM_RGB_CHANNELS, []
        for number, stage in enumerate(config.stages, start=1):
            names = [f"conv{number}{letter}" for letter in "ab"[: len(stage)]]
            for name, out in zip(names, stage, strict=True):
                self.add_module(name, Conv3d(channels, out, 3, padding=1))
                channels = out
            self._stages.append(tuple(names))
        self.fc6 = nn.Linear(channels * config.head_window**2, config.hidden)
        self.drop6 = GroupedDropout(config.dropout[0])
        self.fc7 = nn.Linear(config.hidden, config.hidden)
        self.drop7 = GroupedDropout(config.dropout[1])
        self.fc8 = nn.Linear(config.hidden, config.num_classes)
        self.reset_parameters()

    @property
    def fc(self) -> nn.Linear:
        """The last layer, which gives the logits."""
        return self.fc8

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw new weights: as He et al. (normal, fan-in), N(0, 0.01^2) for the classifier, and zero biases."""
        for module in self.modules():
            if isinstance(module, (nn.Conv3d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
                nn.init.zeros_(cast("Tensor", module.bias))
        self.reset_classifier(generator)

    def reset_classifier(self, generator: torch.Generator | None = None) -> None:
        """Draw a new classifier: weights from N(0, 0.01^2), zero biases."""
        nn.init.normal_(self.fc8.weight, std=CLASSIFIER_STD, generator=generator)
        nn.init.zeros_(self.fc8.bias)

    def maps(self, clips: Tensor) -> Tensor:
        """Return the maps after the last pool: (N, 3, 16, H, W) to (N, C, h, w)."""
        for stage in range(len(self._stages)):
            if self.checkpoint_activations and torch.is_grad_enabled():
                clips = checkpoint(self._stage, stage, clips, use_reentrant=False, preserve_rng_state=False)
            else:
                clips = self._stage(stage, clips)
        return clips.squeeze(2)  # one time step is left of 16 frames

    def features(self, clips: Tensor) -> Tensor:
        """Return fc6 after its ReLU, which the paper classifies by an SVM, averaged over the positions of the head: (N, D)."""
        return slide(self.fc6, self.maps(clips), self.config.head_window).relu().mean(1)

    def forward(self, clips: Tensor) -> Tensor:
        """Classify clips (N, 3, 16, H, W), each side at least the training crop's: logits (N, num_classes)."""
        x = self.drop6(slide(self.fc6, self.maps(clips), self.config.head_window).relu())
        x = self.drop7(self.fc7(x).relu())
        return cast("Tensor", self.fc8(x.mean(1)))

    def _stage(self, stage: int, x: Tensor) -> Tensor:
        """Apply the convolutions of a stage and its pool, which leaves time alone in the first one."""
        for name in self._stages[stage]:
            x = functional.relu(getattr(self, name)(x), inplace=True)
        window = (1 if stage == 0 else 2, 2, 2)
        return functional.max_pool3d(x, window, stride=window, ceil_mode=True)


class C3DNetwork(PhaseNetwork):
    """C3D over the clips of a video.

    Parameters
    ----------
    config : C3DConfig
        The architecture.
    checkpoint_activations : bool
        Trade computation for memory; see `C3DStream`.

    Examples
    --------
    A narrow network on two videos of three clips of 16 frames each:

    >>> import torch
    >>> from flowkit.model.networks.c3d import C3DNetwork
    >>> from flowkit.model.settings.c3d import C3DConfig
    >>> network = C3DNetwork(C3DConfig(num_classes=5, kind="c3d-scratch", width=0.0625, input_size=32)).eval()
    >>> with torch.inference_mode():
    ...     logits = network(torch.randn(2, 3 * 16, 3, 32, 32))
    >>> logits.shape
    torch.Size([2, 3, 5])
    """

    streams: tuple[StreamName, ...] = ("appearance",)
    stream_name: StreamName = "appearance"

    def __init__(self, config: C3DConfig, *, checkpoint_activations: bool = False) -> None:
        super().__init__()
        self.config = config
        self.appearance = C3DStream(config, checkpoint_activations=checkpoint_activations)

    @property
    def stream(self) -> C3DStream:
        """The network itself."""
        return self.appearance

    @property
    def classifiers(self) -> dict[StreamName, nn.Linear]:
        """The last layer of each stream; its input are the stream's features."""
        return {"appearance": self.appearance.fc}

    def forward(self, frames: Tensor) -> Tensor:
        """Classify n clips of 16 consecutive frames of each video, (B, n * 16, 3, H, W): logits (B, n, num_classes)."""
        clips = self._clips(frames)
        return cast("Tensor", self.appearance(clips.flatten(0, 1))).view(*clips.shape[:2], -1)

    def features(self, frames: Tensor) -> Tensor:
        """Return the features of n clips of each video, (B, n * 16, 3, H, W): fc6 (B, n, D)."""
        clips = self._clips(frames)
        return self.appearance.features(clips.flatten(0, 1)).view(*clips.shape[:2], -1)

    def first_hidden(self, rgb: Tensor | None, flow: Tensor | None) -> dict[str, Tensor]:
        """Return fc6 of the clips of its one stream."""
        assert rgb is not None
        return {"appearance": self.features(rgb)}

    @property
    def hidden_sizes(self) -> dict[str, int]:
        """The size of fc6."""
        return {"appearance": self.config.hidden}

    def _clips(self, frames: Tensor) -> Tensor:
        """Cut frames into clips (B, n, 3, 16, H, W)."""
        size = self.config.input_size
        good = frames.ndim == 5 and frames.shape[2] == NUM_RGB_CHANNELS and min(frames.shape[3:]) >= size
        if not good or frames.shape[1] == 0 or frames.shape[1] % CLIP_FRAMES:
            raise ParameterError(
                f"C3D takes frames of shape (B, T, 3, H, W) with T a multiple of {CLIP_FRAMES} and sides of at least {size} px, "
                f"got {tuple(frames.shape)}"
            )
        return frames.reshape(len(frames), -1, CLIP_FRAMES, *frames.shape[2:]).transpose(2, 3)

    def stream_logits(self, rgb: Tensor | None, flow: Tensor | None) -> dict[str, Tensor]:
        """Return the logits of its one stream."""
        assert rgb is not None
        return {"appearance": self(rgb)}


class C3DFamily(NetworkFamily):
    """`C3DNetwork`, from random weights or from a file."""

    classifier = C3D.classifier

    def build(self, config: TrainConfig, *, checkpoint_activations: bool = False) -> C3DNetwork:
        """Return the network of a phase, on the CPU."""
        assert isinstance(config.network, C3DConfig)
        return C3DNetwork(config.network, checkpoint_activations=checkpoint_activations)

    def initialise(self, network: PhaseNetwork, weights: PretrainedWeights | None, *, generator: torch.Generator) -> None:
        """Start from a file's weights, or from random ones."""
        assert isinstance(network, C3DNetwork)
        initialise_single_stream(network, weights, generator=generator)

    def check_pretrained(self, network: PhaseNetwork, state: State, source: str) -> None:
        """Check whether a network can start from pretrained weights."""
        assert isinstance(network, C3DNetwork)
        check_pretrained(network, state, source)

    def pretrained(self, source: Path | Literal["imagenet"], overrides: Mapping[str, Any]) -> PretrainedWeights:
        """Read weights from a file."""
        if source == "imagenet":
            raise CheckpointError("C3D is not trained on ImageNet; give a file with --weights FILE, or use --weights none")
        return pretrained_state(source)

    def describe(self, weights: PretrainedWeights, source: str) -> str:
        """Return which part of a larger model is used."""
        return str(find_backbone(weights.state, source, C3D))
