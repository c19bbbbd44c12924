"""What a network computes before its classifier: the pooled features of each time step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from flowkit.model.networks.family import PhaseNetwork
from flowkit.model.networks.layers.temporal_conv import by_clip
from flowkit.model.networks.phase_networks import stream_logits
from flowkit.model.settings.network_config import StreamName


def stream_features(network: PhaseNetwork, rgb: Tensor | None, flow: Tensor | None) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the input and the output of the classifier of each stream.

    Parameters
    ----------
    network : PhaseNetwork
        The network of a phase, in eval mode.
    rgb, flow : float tensor, shape (B, T, 3, H, W) and (B, T, 20, H, W), normalised, or None
        The inputs of the appearance and of the motion stream, for the streams that the network has.

    Returns
    -------
    dict from stream to (float tensor, shape (B, T', D); float tensor, shape (B, T', num_classes))
        The features (the paper's pool5: the maps of the last unit, averaged over space) and the logits. ``logits = features W^T + b``
        with the weights of the classifier.
    """
    classifiers = network.classifiers
    with _inputs_of(classifiers) as seen:
        logits = stream_logits(network, rgb, flow)
    return {name: (by_clip(seen[name], logits[name].shape[1]), logits[name]) for name in classifiers}


@contextmanager
def _inputs_of(modules: Mapping[StreamName, nn.Linear]) -> Iterator[dict[StreamName, Tensor]]:
    """Keep the last input of each module while a block runs."""
    seen: dict[StreamName, Tensor] = {}

    def keep(name: StreamName) -> Any:
        return lambda _, inputs: seen.__setitem__(name, inputs[0])

    handles = [module.register_forward_pre_hook(keep(name)) for name, module in modules.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
