"""The four phases: which network each trains, what it starts from, and how a batch goes through it."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING, cast

import torch

from flowkit.errors import CheckpointError
from flowkit.model.data.sampling import initial_seed
from flowkit.model.networks.stresnet import SingleStream, STResNet
from flowkit.model.networks.weights import initialise_from_streams, initialise_single_stream
from flowkit.model.settings.recipes import BASE_PHASES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from flowkit.model.networks.stresnet import StreamName
    from flowkit.model.networks.weights import PretrainedWeights
    from flowkit.model.runs.checkpoint import Checkpoint
    from flowkit.model.settings.recipes import Phase, TrainConfig

BEFORE: dict[Phase, tuple[Phase, ...]] = {
    "appearance": (),
    "motion": (),
    "st-resnet": ("appearance", "motion"),
    "st-resnet-star": ("st-resnet",),
}


def phase_folder(root: Path, run: str, split: int, phase: Phase) -> Path:
    """Return where a phase of a run is kept in a data root."""
    return root / "runs" / run / f"split{split}" / phase


def report_folder(root: Path, run: str, split: int) -> Path:
    """Return where the results of a run are kept in a data root."""
    return root / "reports" / run / f"split{split}"


def build_network(config: TrainConfig, *, checkpoint_activations: bool = False) -> SingleStream | STResNet:
    """Return a phase's network, on the CPU and without the weights it is to have; torch's random numbers are left alone."""
    with torch.random.fork_rng(devices=[]):
        if config.phase in BASE_PHASES:
            return SingleStream(config.network, cast("StreamName", config.phase), checkpoint_activations=checkpoint_activations)
        return STResNet(config.network, checkpoint_activations=checkpoint_activations)


def start_network(
    network: SingleStream | STResNet, config: TrainConfig, weights: PretrainedWeights | None, before: Mapping[Phase, dict[str, Tensor]]
) -> None:
    """Give a phase's network the weights it starts from.

    Parameters
    ----------
    network : SingleStream or STResNet
        On the CPU.
    config : TrainConfig
    weights : PretrainedWeights, optional
        For the base streams; None draws random ones.
    before : dict from phase to state
        Final weights of the phases named in `BEFORE`.

    Raises
    ------
    CheckpointError
        If they do not fit.
    """
    if isinstance(network, SingleStream):
        generator = torch.Generator().manual_seed(initial_seed(config.seed, config.phase))
        initialise_single_stream(network, weights, generator=generator)
    elif config.phase == "st-resnet":
        initialise_from_streams(network, before["appearance"], before["motion"])
    else:
        network.load_state_dict(before["st-resnet"])


def trained_network(checkpoint: Checkpoint, source: str) -> SingleStream | STResNet:
    """Return the network of a checkpoint with its weights, in eval mode, on the CPU.

    Raises
    ------
    CheckpointError
        If the weights do not fit the network; names `source`.
    """
    config, given = checkpoint.provenance.config, {name: tensor.shape for name, tensor in checkpoint.network.items()}
    differing = ["its size"]
    if sum(config.network.units) <= len(given):  # a network is made only of the size that the weights have
        with suppress(RuntimeError), torch.device("meta"):  # sizes beyond 2^63
            wanted = {name: tensor.shape for name, tensor in build_network(config).state_dict().items()}
            differing = sorted(name for name in {*wanted, *given} if wanted.get(name) != given.get(name))
    if differing:
        more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
        raise CheckpointError(f"{source}: the weights do not fit the network they name, in {differing[0]}{more}")
    network = build_network(config)
    network.load_state_dict(checkpoint.network)
    return network.eval()


def stream_logits(network: SingleStream | STResNet, rgb: Tensor | None, flow: Tensor | None) -> dict[str, Tensor]:
    """Return the logits of each stream that a network has.

    Parameters
    ----------
    network : SingleStream or STResNet
    rgb : float tensor, shape (B, T, 3, H, W), normalised, where there is an appearance stream
    flow : float tensor, shape (B, T, 20, H, W), normalised, where there is a motion stream

    Returns
    -------
    dict from stream to float tensor, shape (B, T', num_classes)
    """
    if isinstance(network, SingleStream):
        return {network.stream_name: network(rgb if network.stream_name == "appearance" else flow)}
    return network(rgb, flow)._asdict()  # type: ignore[no-any-return]


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stored:
        while block := stored.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
