"""What each phase starts from, and whether that fits, which is known before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from flowkit.errors import CheckpointError, ParameterError
from flowkit.files import file_sha256
from flowkit.model.data.grey_level_inputs import matlab_weights, with_recorded_settings
from flowkit.model.data.sampling import initial_seed
from flowkit.model.foreign.state_dicts import PretrainedWeights
from flowkit.model.networks.family import NetworkFamily, PhaseNetwork, State
from flowkit.model.networks.fitting import fit_exactly
from flowkit.model.networks.phase_networks import FAMILIES, build_network
from flowkit.model.runs.checkpoint import Checkpoint, load_checkpoint
from flowkit.model.settings.recipes import Weights
from flowkit.model.settings.training import Phase, TrainConfig
from flowkit.model.systems.registry import description_of, starts_from


class WeightsMisfitError(CheckpointError):
    """The file of first weights that was given cannot be that of a phase, of whose kind another file may be."""


class Start:
    """What the base streams start from; it is read when it is first needed.

    Parameters
    ----------
    source : {"imagenet", "none"} or Path
        The weights.
    overrides : mapping
        The user's values of the recipe, for the depth of torchvision's network and for the place of the stride.
    first : sequence of str
        The phases that start from the weights; their networks are of one kind.
    """

    def __init__(self, source: Weights, overrides: Mapping[str, Any], *, first: Sequence[Phase] = ()) -> None:
        kinds = dict.fromkeys(description_of(phase).network for phase in first)
        if len(kinds) > 1:
            groups = ("/".join(phase for phase in first if description_of(phase).network is kind) for kind in kinds)
            raise ParameterError(
                f"{' and '.join(groups)} are networks of different kinds, and first weights are of one kind; train them one after the "
                "other, with --phase, and name --weights for those that take them"
            )
        fixed = [description_of(phase).fixed for phase in first]
        self.source, self._given = source, {**(fixed[0] if fixed else {}), **overrides}
        self._kind = next(iter(kinds), None)
        self._pretrained: PretrainedWeights | None = None
        # A file is identified by its contents, so that it may be renamed.
        self.identity = source if isinstance(source, str) else f"sha256:{self._digest(source)}"
        self.overrides = self.family.settings_of(self.read()) if isinstance(source, Path) else {}
        if isinstance(source, Path) and f"sha256:{self._digest(source)}" != self.identity:
            raise CheckpointError(f"{source} was changed while it was read; once it is complete, run the same command again")

    @property
    def family(self) -> NetworkFamily:
        """The kind of network that starts from the weights."""
        assert self._kind is not None, "no phase starts from them"
        return FAMILIES[self._kind]

    def read(self) -> PretrainedWeights:
        """Return the weights, which are downloaded or read only once."""
        if self._pretrained is None:
            assert self.source != "none"
            if isinstance(self.source, Path) and self.source.suffix == ".mat":
                self._pretrained = matlab_weights(self.source, self._kind, self._given)
            else:
                self._pretrained = self.family.pretrained(self.source, self._given)
                if isinstance(self.source, Path):
                    self._pretrained = with_recorded_settings(self._pretrained, self.source, self._kind)
        return self._pretrained

    def check(self, config: TrainConfig) -> None:
        """Raise `CheckpointError` if the weights cannot start a base stream; only names and shapes are compared, nothing is downloaded."""
        if self.source == "none":
            return
        is_file = isinstance(self.source, Path)
        state, name = (self.read().state, str(self.source)) if is_file else (self.family.imagenet_shapes(self._given), "imagenet")
        with torch.device("meta"):
            network = build_network(config)
        try:
            self.family.check_pretrained(network, state, name)
        except CheckpointError as cause:
            hint = (
                " (The small recipe's network is narrow; the weights of a ResNet need --recipe own or official.)"
                if config.recipe == "small"
                else ""
            )
            raise WeightsMisfitError(f"the weights do not fit the {config.phase} stream: {cause}{hint}") from cause
        needed = self.overrides if is_file else self.family.imagenet_settings()
        for key, its in needed.items():
            ours = getattr(config.network, key)
            description = description_of(config.phase)
            if its != ours and key in {*description.network_keys, *description.fixed}:
                raise WeightsMisfitError(f"the weights do not fit the {config.phase} stream: {name} has {key}={its}, this network {ours}")

    def describe(self) -> str:
        """Return which weights the base streams start from, and what of a file is used."""
        note = self.family.describe(self.read(), str(self.source)) if isinstance(self.source, Path) else ""
        return f"{self.source} ({note})" if note else str(self.source)

    def initialise(
        self,
        network: PhaseNetwork,
        config: TrainConfig,
        earlier: Mapping[Phase, Path],
        digests: Mapping[str, str],
        taken: Callable[[TrainConfig], dict[Phase, State]],
    ) -> None:
        """Set the first weights of a phase's network; the files of earlier phases must have the digests that its provenance records.

        `taken` returns the states that ``--init-from`` gives a phase, as `start_network` takes them.
        """
        before: dict[Phase, State] = {name: load_checkpoint(path).network for name, path in earlier.items()}
        before |= taken(config)
        starts_here = not starts_from(config.phase) and config.phase not in before
        weights = self.read() if starts_here and self.source != "none" else None
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
        for key in (*checkpoint.provenance.config.network.kept_settings(name), *config.network.feature_settings):
            its, ours = (getattr(network, key) for network in (checkpoint.provenance.config.network, config.network))
            if its != ours:
                raise CheckpointError(f"{config.phase} starts from {name}, which was trained with {key}={its}, not {ours}")
    with torch.device("meta"):
        network = build_network(config)
    try:
        FAMILIES[type(config.network)].check_start(network, {name: checkpoint.network for name, checkpoint in before.items()})
    except CheckpointError as cause:
        raise CheckpointError(f"{config.phase} cannot start from {' and '.join(before)}: {cause}") from cause


def settings_before(before: Mapping[Phase, Mapping[Phase, Checkpoint]]) -> dict[str, Any]:
    """Return those settings of the networks of earlier phases that the weights do not show; no setting in which two differ."""
    found: dict[str, list[Any]] = {}
    for name, checkpoint in (pair for given in before.values() for pair in given.items()):
        network = checkpoint.provenance.config.network
        for key in network.kept_settings(name):
            found.setdefault(key, []).append(getattr(network, key))
    return {key: values[0] for key, values in found.items() if all(value == values[0] for value in values)}


def start_network(network: PhaseNetwork, config: TrainConfig, weights: PretrainedWeights | None, before: Mapping[Phase, State]) -> None:
    """Set the first weights of a phase's network, which is on the CPU.

    Parameters
    ----------
    network : PhaseNetwork
        The network of the phase.
    config : TrainConfig
        The settings of the phase.
    weights : PretrainedWeights, optional
        What a phase starts from that starts from no other; None draws random weights.
    before : dict from phase to state
        The final weights of the phases that it starts from; or under the phase's own name, those of a network of its kind.
    """
    family = FAMILIES[type(config.network)]
    generator = torch.Generator().manual_seed(initial_seed(config.seed, config.phase))
    if config.phase in before:
        fit_exactly(network.state_dict(), before[config.phase], f"the first weights of {config.phase}")
        network.load_state_dict(dict(before[config.phase]))
    elif before:
        family.start(network, before, generator=generator)
    else:
        family.initialise(network, weights, generator=generator)
