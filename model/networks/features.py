"""What a network computes before its classifier: the pooled features of each time step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from flowkit.model.networks.layers.temporal_conv import by_clip
from flowkit.model.networks.phase_networks import stream_logits
from flowkit.model.networks.resnet import ResidualStream
from flowkit.model.networks.stresnet import SingleStream, STResNet
from flowkit.model.settings.network import StreamName


def streams_of(network: SingleStream | STResNet) -> dict[StreamName, ResidualStream]:
    """Return the streams of a network by their names."""
    if isinstance(network, SingleStream):
        return {network.stream_name: network.stream}
    return {"appearance": network.appearance, "motion": network.motion}


def stream_features(network: SingleStream | STResNet, rgb: Tensor | None, flow: Tensor | None) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the input and the output of the classifier of each stream.

    Parameters
    ----------
    network : SingleStream or STResNet
        The network of a phase, in eval mode.
    rgb, flow : float tensor, shape (B, T, 3, H, W) and (B, T, 20, H, W), normalised, or None
        The inputs of the appearance and of the motion stream, for the streams that the network has.

    Returns
    -------
    dict from stream to (float tensor, shape (B, T', D); float tensor, shape (B, T', num_classes))
        The features (the paper's pool5: the maps of the last unit, averaged over space) and the logits. ``logits = features W^T + b``
        with the weights of the classifier.
    """
    streams = streams_of(network)
    with _inputs_of({name: stream.fc for name, stream in streams.items()}) as seen:
        logits = stream_logits(network, rgb, flow)
    return {name: (by_clip(seen[name], logits[name].shape[1]), logits[name]) for name in streams}


@contextmanager
def _inputs_of(modules: dict[Any, nn.Module]) -> Iterator[dict[Any, Tensor]]:
    """Keep the last input of each module while a block runs."""
    seen: dict[Any, Tensor] = {}

    def keep(name: Any) -> Any:
        return lambda _, inputs: seen.__setitem__(name, inputs[0])

    handles = [module.register_forward_pre_hook(keep(name)) for name, module in modules.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
