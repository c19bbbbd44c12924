"""Trained networks as safetensors and ONNX files, which describe the network and how its input is made."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from flowkit.errors import CheckpointError, ParameterError
from flowkit.files import write_atomically
from flowkit.model.data.transforms import input_normalisation
from flowkit.model.networks.phase_networks import stream_logits
from flowkit.model.networks.stresnet import SingleStream, STResNet
from flowkit.model.runs.checkpoint import Checkpoint, save_weights
from flowkit.model.runs.trained_network import trained_network
from flowkit.model.settings.network import NUM_CHANNELS
from flowkit.versions import __version__

ONNX_TOLERANCE = 1e-4  # of the largest logit, if that is above 1; rounding causes about 1e-6 of it
_VERIFIED_SIDES = ((0, 0), (13, 40))  # px by which the compared frames are higher and wider than the network's input
_MAX_PROTOBUF_BYTES = 2**31 - 1


@dataclass(frozen=True)
class OnnxCheck:
    """How an ONNX file compares with the network it was made from.

    Parameters
    ----------
    max_difference : float
        Largest absolute difference of a logit.
    largest_logit : float
        Largest absolute logit of the network.
    shapes : tuple of (int, int, int, int)
        (B, T, H, W) of the random clips that were compared.
    """

    max_difference: float
    largest_logit: float
    shapes: tuple[tuple[int, int, int, int], ...]


def write_safetensors(path: Path, checkpoint: Checkpoint) -> None:
    """Write the weights of a trained phase as safetensors, once they are known to fit their network.

    Notes
    -----
    The file's metadata has, as JSON, ``network`` (for `STResNetConfig.from_dict`), ``classes`` (names by label), ``input`` (how
    pixels become the network's input) and ``provenance``; and ``phase``. `load_checkpoint` can read the file.
    """
    trained_network(checkpoint, "the weights")
    save_weights(path, checkpoint, description=_description(checkpoint))


def write_onnx(path: Path, checkpoint: Checkpoint) -> OnnxCheck:
    """Write the network of a trained phase as ONNX, after comparing what ONNX Runtime computes with the network itself.

    Raises
    ------
    ParameterError
        If onnx or onnxruntime is not installed, or it is a kind of network that has no ONNX file.
    CheckpointError
        If the two differ by more than rounding, or the network is too large for one file; nothing is written then.

    Notes
    -----
    For inputs, outputs and their sizes see `flowkit.model.convert.onnx_graph.onnx_model`. The properties are those of
    `write_safetensors`, except ``provenance``.
    """
    try:
        import onnx  # noqa: F401 - onnx_model needs it
        import onnxruntime

        from flowkit.model.convert.onnx_graph import onnx_model
    except ImportError as cause:
        raise ParameterError(f'writing ONNX needs onnx and onnxruntime ({cause}): pip install "flowkit-video[onnx]"') from cause

    network = trained_network(checkpoint, "the weights").float()
    if not isinstance(network, SingleStream | STResNet):
        config = checkpoint.provenance.config
        raise ParameterError(f"ONNX files are of residual networks only, and {config.phase} is {config.network.kinds[0]}; use safetensors")
    num_bytes = sum(tensor.nbytes for tensor in network.state_dict().values())
    if num_bytes > 0.99 * _MAX_PROTOBUF_BYTES:
        raise CheckpointError(f"the network has {num_bytes} bytes, but an ONNX file holds 2 GiB at most; use safetensors")
    metadata = {"format": "flowkit-onnx", "created_by": f"flowkit {__version__}", **_description(checkpoint)}
    data = onnx_model(network, metadata=metadata).SerializeToString()
    check = _compare(network, onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]))
    if not check.max_difference <= ONNX_TOLERANCE * max(check.largest_logit, 1):
        raise CheckpointError(
            f"the ONNX model differs from the network by {check.max_difference:.3g} where logits are up to {check.largest_logit:.3g}; "
            "nothing was written. Please report this, with the versions of onnx and onnxruntime. safetensors needs no such comparison"
        )
    write_atomically(path, data)
    return check


def _compare(network: SingleStream | STResNet, session: Any) -> OnnxCheck:
    """Run both on random clips of two sizes."""
    generator = torch.Generator().manual_seed(0)
    side, names = network.config.input_size, [item.name for item in session.get_inputs()]
    shapes = tuple((2 - k, 5 + k, side + more_height, side + more_width) for k, (more_height, more_width) in enumerate(_VERIFIED_SIDES))
    difference = largest = 0.0
    for num_clips, num_frames, height, width in shapes:
        rgb, flow = (torch.randn(num_clips, num_frames, channels, height, width, generator=generator) for channels in NUM_CHANNELS.values())
        given = {"rgb": rgb.numpy(), "flow": flow.numpy()}
        with torch.inference_mode():
            expected = stream_logits(network, rgb, flow)
        computed = session.run([f"{stream}_logits" for stream in expected], {name: given[name] for name in names})
        for logits, theirs in zip(expected.values(), computed, strict=True):
            largest = _larger(largest, float(logits.abs().max()))
            difference = _larger(difference, float((logits - torch.from_numpy(theirs)).abs().max()))
    return OnnxCheck(difference, largest, shapes)


def _larger(first: float, second: float) -> float:
    """Return the larger, or NaN if either is NaN, which `max` may drop."""
    return math.nan if math.isnan(first) or math.isnan(second) else max(first, second)


def _description(checkpoint: Checkpoint) -> dict[str, str]:
    """Return what a reader without flowkit needs to know, each part as JSON."""
    provenance = checkpoint.provenance
    return {
        "phase": provenance.config.phase,
        "network": json.dumps(provenance.config.network.to_dict(), sort_keys=True),
        "classes": json.dumps(list(provenance.classes), ensure_ascii=False),
        "input": json.dumps({**input_normalisation(), "flow_quantiser": dict(provenance.quantiser)}, sort_keys=True),
    }
