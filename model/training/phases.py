"""What each of the four phases starts from, and whether that fits, which is known before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowkit.errors import CheckpointError
from flowkit.files import file_sha256
from flowkit.model.data.grey_level_inputs import matconvnet_weights
from flowkit.model.data.sampling import initial_seed
from flowkit.model.foreign.backbones import find_backbone
from flowkit.model.foreign.state_dicts import PretrainedWeights, imagenet_shapes, pretrained_state
from flowkit.model.networks.fitting import fit_exactly
from flowkit.model.networks.phase_networks import build_network
from flowkit.model.networks.stresnet import SingleStream, STResNet
from flowkit.model.networks.weights import check_pretrained, check_streams, initialise_from_streams, initialise_single_stream
from flowkit.model.runs.checkpoint import Checkpoint, load_checkpoint
from flowkit.model.settings.recipes import Weights
from flowkit.model.settings.training import BASE_PHASES, Phase, TrainConfig

BEFORE: dict[Phase, tuple[Phase, ...]] = {
    "appearance": (),
    "motion": (),
    "st-resnet": ("appearance", "motion"),
    "st-resnet-star": ("st-resnet",),
}


class Start:
    """What the base streams start from; it is read when it is first needed.

    Parameters
    ----------
    source : {"imagenet", "none"} or Path
        The weights.
    overrides : mapping
        The user's values of the recipe, for the depth of torchvision's network and for the place of the stride.
    """

    def __init__(self, source: Weights, overrides: Mapping[str, Any]) -> None:
        self.source = source
        self._depth = overrides.get("depth", 50)
        self._stride = overrides.get("stride_in_1x1")
        self._pretrained: PretrainedWeights | None = None
        # A file is identified by its contents, so that it may be renamed.
        self.identity = source if isinstance(source, str) else f"sha256:{self._digest(source)}"
        # A file says which convolutions have the stride; in torchvision's network it is the 3x3.
        self.overrides = {"stride_in_1x1": self.read().stride_in_1x1, **self.read().network} if isinstance(source, Path) else {}
        if isinstance(source, Path) and f"sha256:{self._digest(source)}" != self.identity:
            raise CheckpointError(f"{source} was changed while it was read; once it is complete, run the same command again")

    def read(self) -> PretrainedWeights:
        """Return the weights, which are downloaded or read only once."""
        if self._pretrained is None:
            assert self.source != "none"
            if isinstance(self.source, Path) and self.source.suffix == ".mat":
                self._pretrained = matconvnet_weights(self.source, stride_in_1x1=self._stride)
            else:
                self._pretrained = pretrained_state(self.source, self._depth, stride_in_1x1=self._stride)
        return self._pretrained

    def check(self, config: TrainConfig) -> None:
        """Raise `CheckpointError` if the weights cannot start a base stream; only names and shapes are compared, nothing is downloaded."""
        if self.source == "none":
            return
        state, name = (self.read().state, str(self.source)) if isinstance(self.source, Path) else (imagenet_shapes(self._depth), "imagenet")
        with torch.device("meta"):
            network = build_network(config)
        assert isinstance(network, SingleStream)
        try:
            check_pretrained(network, state, name)
        except CheckpointError as cause:
            hint = (
                " (The small recipe's network is narrow; the weights of a ResNet need --recipe own or official.)"
                if config.recipe == "small"
                else ""
            )
            raise CheckpointError(f"the weights do not fit the {config.phase} stream: {cause}{hint}") from cause
        needed = {"stride_in_1x1": False} if self.source == "imagenet" else self.overrides
        for key, its in needed.items():
            ours = getattr(config.network, key)
            if its != ours and (config.phase, key) != ("motion", "rgb_offset"):
                raise CheckpointError(f"the weights do not fit the {config.phase} stream: {name} has {key}={its}, this network {ours}")

    def describe(self) -> str:
        """Return which weights the base streams start from, and what of a file is used."""
        note = str(find_backbone(self.read().state, str(self.source))) if isinstance(self.source, Path) else ""
        return f"{self.source} ({note})" if note else str(self.source)

    def initialise(
        self,
        network: SingleStream | STResNet,
        config: TrainConfig,
        earlier: Mapping[Phase, Path],
        digests: Mapping[str, str],
        taken: Callable[[TrainConfig], dict[Phase, dict[str, Tensor]]],
    ) -> None:
        """Set the first weights of a phase's network; the files of earlier phases must have the digests that its provenance records.

        `taken` returns the states that ``--init-from`` gives a phase, as `start_network` takes them.
        """
        before = {name: load_checkpoint(path).network for name, path in earlier.items()} | taken(config)
        weights = self.read() if config.phase in BASE_PHASES and config.phase not in before and self.source != "none" else None
        for name, path in earlier.items():
            if file_sha256(path) != digests[name]:
                raise CheckpointError(f"{path} was changed while {config.phase} began to train from it; run the same command again")
        start_network(network, config, weights, before)

    @staticmethod
    def _digest(source: Path) -> str:
        if not source.is_file():
            raise CheckpointError(f"no weights file at {source}; give another with --weights FILE, or use --weights none")
        return file_sha256(source)


def check_earlier(config: TrainConfig, before: Mapping[Phase, Checkpoint]) -> None:
    """Raise `CheckpointError` if a phase's network cannot start from the weights of those earlier phases that are given."""
    for name, checkpoint in before.items():
        for key in _kept_settings(name):
            its, ours = getattr(checkpoint.provenance.config.network, key), getattr(config.network, key)
            if its != ours:
                raise CheckpointError(f"{config.phase} starts from {name}, which was trained with {key}={its}, not {ours}")
    with torch.device("meta"):
        network = build_network(config)
    states = {name: checkpoint.network for name, checkpoint in before.items()}
    try:
        if isinstance(network, STResNet) and config.phase == "st-resnet":
            check_streams(network, **{f"{name}_state": state for name, state in states.items()})
        elif "st-resnet" in states:
            fit_exactly(network.state_dict(), states["st-resnet"], "the weights of st-resnet")
    except CheckpointError as cause:
        raise CheckpointError(f"{config.phase} cannot start from {' and '.join(before)}: {cause}") from cause


def settings_before(before: Mapping[Phase, Mapping[Phase, Checkpoint]]) -> dict[str, Any]:
    """Return those settings of the networks of earlier phases that the weights do not show; no setting in which two differ."""
    found: dict[str, list[Any]] = {}
    for name, checkpoint in (pair for given in before.values() for pair in given.items()):
        for key in _kept_settings(name):
            found.setdefault(key, []).append(getattr(checkpoint.provenance.config.network, key))
    return {key: values[0] for key, values in found.items() if all(value == values[0] for value in values)}


def _kept_settings(phase: Phase) -> list[str]:
    """Return the settings of a phase's network that change what it computes, but no tensor; the next phase must have the same."""
    keys = ["stride_in_1x1", "stem_pool"]
    keys += ["rgb_offset"] if phase != "motion" else []
    joining = ["injection", "injection_direction", "injection_kind", "injection_stages", "temporal_padding"]
    return keys + (joining if phase not in BASE_PHASES else [])


def start_network(
    network: SingleStream | STResNet, config: TrainConfig, weights: PretrainedWeights | None, before: Mapping[Phase, dict[str, Tensor]]
) -> None:
    """Set the first weights of a phase's network, which is on the CPU.

    Parameters
    ----------
    network : SingleStream or STResNet
        The network of the phase.
    config : TrainConfig
        The settings of the phase.
    weights : PretrainedWeights, optional
        What a base stream starts from; None draws random weights.
    before : dict from phase to state
        The final weights of the phases named in `BEFORE`; or under the phase's own name, those of a network of its kind.
    """
    if config.phase in before:
        fit_exactly(network.state_dict(), before[config.phase], f"the first weights of {config.phase}")
        network.load_state_dict(before[config.phase])
    elif isinstance(network, SingleStream):
        generator = torch.Generator().manual_seed(initial_seed(config.seed, config.phase))
        initialise_single_stream(network, weights, generator=generator)
    elif config.phase == "st-resnet":
        initialise_from_streams(network, before["appearance"], before["motion"])
    else:
        fit_exactly(network.state_dict(), before["st-resnet"], "the weights of st-resnet")
        network.load_state_dict(before["st-resnet"])
