"""MatConvNet's networks, whose inputs are grey levels minus a mean, as networks for flowkit's normalised inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flowkit.errors import CheckpointError, ParameterError
from flowkit.model.data.transforms import input_normalisation
from flowkit.model.foreign.backbones import VGG
from flowkit.model.foreign.matconvnet import MatConvNetNetwork, read_matconvnet
from flowkit.model.foreign.state_dicts import PretrainedWeights, safetensors_metadata
from flowkit.model.foreign.vgg_files import read_vgg
from flowkit.model.settings.network import STResNetConfig
from flowkit.model.settings.network_config import NetworkConfig
from flowkit.model.settings.vgg import VggConfig
from flowkit.records import parse_json


def fold_inputs(network: MatConvNetNetwork) -> tuple[dict[str, Tensor], tuple[float, float, float]]:
    """Fold the scale of flowkit's inputs into the first convolution; return the state and the `rgb_offset` that it needs.

    The offset is the difference between the two mean colours. Folding that into the convolution too would be wrong at the border.
    """
    state = dict(network.state)
    inputs = input_normalisation()
    offset = (0.0, 0.0, 0.0)
    if "appearance" in network.means:
        mean, std = (255 * np.array(inputs["rgb"][key]) for key in ("mean", "std"))
        first, second, third = ((network.means["appearance"] - mean) / std).tolist()
        offset = (first, second, third)
        first_filters = f"appearance.{network.first}"
        state[first_filters] = state[first_filters] * std[:, None, None]
    if "motion" in network.means:
        first_filters = f"motion.{network.first}"
        state[first_filters] = state[first_filters] * inputs["flow"]["std"]
    tensors = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in state.items()}
    for name in [name for name in tensors if name.endswith(".running_mean")]:
        tensors[name.removesuffix("running_mean") + "num_batches_tracked"] = torch.tensor(0)
    return tensors, offset


def matconvnet_weights(path: Path, *, stride_in_1x1: bool | None = None) -> PretrainedWeights:
    """Read a ResNet of MatConvNet, such as ``imagenet-resnet-50-dag.mat``, as first weights of base streams.

    Parameters
    ----------
    path : Path
        A MATLAB file with a network of one stream.
    stride_in_1x1 : bool, optional
        What the caller expects. By default what the file says.

    Raises
    ------
    CheckpointError
        If the file is damaged, or holds another kind of network.
    ParameterError
        If `stride_in_1x1` contradicts the file.
    OSError
        If the file cannot be read.

    Notes
    -----
    The filters of a motion stream are the mean of the RGB filters as the file has them, and then on the scale of flow, as in the
    official code (``cnn_ucf101_temporal.m``, line 116).
    """
    network = read_matconvnet(path)
    if len(network.means) != 1:
        raise CheckpointError(
            f"{path} holds {network.phase}, a network of two streams: make a file of it by `flowkit convert`, and start from that with "
            "--init-from"
        )
    stride = network.settings["stride_in_1x1"]
    if stride_in_1x1 not in (None, stride):
        raise ParameterError(
            f"stride_in_1x1={stride_in_1x1} contradicts {path}, which was trained with stride_in_1x1={stride}; do without the option"
        )
    (stream,) = network.means
    tensors, offset = fold_inputs(network)
    of_flow = torch.from_numpy(network.state[f"{stream}.conv1.weight"] * input_normalisation()["flow"]["std"])
    return PretrainedWeights(
        state={name.removeprefix(f"{stream}."): tensor for name, tensor in tensors.items()},
        stride_in_1x1=stride,
        source=str(path),
        network={"stem_pool": network.settings["stem_pool"], "rgb_offset": offset},
        conv1_for_flow=of_flow,
    )


def vgg_weights(path: Path) -> PretrainedWeights:
    """Read a VGG network of MatConvNet, such as ``imagenet-vgg-m-2048.mat``, as first weights of VGG streams.

    Parameters
    ----------
    path : Path
        A MATLAB file with a VGG-M-2048 or a VGG-16, as SimpleNN or DagNN.

    Returns
    -------
    PretrainedWeights
        Its `network` are the fields of `VggConfig` that a stream needs to compute the same: kind, width, `rgb_offset` and `lrn`.

    Raises
    ------
    CheckpointError
        If the file is damaged, or holds another kind of network.
    OSError
        If the file cannot be read.

    Notes
    -----
    The filters of a motion stream are the mean of the RGB filters as the file has them, and then on the scale of flow, as for the
    ResNets of `matconvnet_weights`.
    """
    network = read_vgg(path)
    (stream,) = network.means
    first = f"{stream}.{network.first}"
    of_flow = torch.from_numpy(network.state[first] * np.float32(input_normalisation()["flow"]["std"]))
    tensors, offset = fold_inputs(network)
    needed = {key: value for key, value in network.settings.items() if key in ("kind", "width", "lrn")}
    return PretrainedWeights(
        state={name.removeprefix(f"{stream}."): tensor for name, tensor in tensors.items()},
        stride_in_1x1=False,
        source=str(path),
        network=needed | ({"rgb_offset": offset} if stream == "appearance" else {}),
        conv1_for_flow=of_flow,
    )


def with_recorded_settings(weights: PretrainedWeights, path: Path, kind: type[NetworkConfig] | None) -> PretrainedWeights:
    """Return first weights with what flowkit's own file of them records, which their tensors do not show.

    Parameters
    ----------
    weights : PretrainedWeights
        What was read from the file.
    path : Path
        The file. Any but one that flowkit wrote of a VGG network changes nothing.
    kind : type
        The data class of the settings of the network that will start from them.

    Raises
    ------
    CheckpointError
        If the record is damaged.

    Notes
    -----
    A network that was converted from MatConvNet has the filters of a motion stream as in `vgg_weights`: the scale of RGB inputs is taken
    out of them first.
    """
    metadata = safetensors_metadata(path) if kind is VggConfig and path.suffix == ".safetensors" else {}
    if "provenance" not in metadata:
        return weights
    try:
        record = parse_json(metadata["provenance"])
        network, phase, started_from = record["config"]["network"], str(record["config"]["phase"]), dict(record["started_from"])
        if network["kind"] not in VggConfig.kinds:
            return weights
        config = VggConfig.from_dict(network)
    except (ValueError, KeyError, TypeError, ParameterError) as cause:
        raise CheckpointError(f"{path}: the record of its network is damaged ({cause})") from cause
    needed: dict[str, Any] = {"kind": config.kind, "width": config.width, "lrn": config.lrn}
    if "appearance" not in config.streams_of(phase):
        return replace(weights, network=needed)
    first = weights.state.get(f"appearance.{VGG.first}")
    of_flow: Tensor | None = None
    if "matconvnet" in started_from and first is not None:
        inputs = input_normalisation()
        scale = torch.tensor([inputs["flow"]["std"] / (255 * std) for std in inputs["rgb"]["std"]], dtype=torch.float64)
        of_flow = (first.double() * scale[:, None, None]).to(first.dtype)
    return replace(weights, network={**needed, "rgb_offset": config.rgb_offset}, conv1_for_flow=of_flow)


def matlab_weights(path: Path, kind: type[NetworkConfig] | None, overrides: Mapping[str, Any]) -> PretrainedWeights:
    """Read a network of MatConvNet as first weights of streams of a kind of network.

    Parameters
    ----------
    path : Path
        A MATLAB file.
    kind : type
        The data class of the network's settings.
    overrides : mapping
        The user's values of the recipe.

    Raises
    ------
    CheckpointError
        If the file is damaged or holds another kind of network, or this kind is not read from such files.
    """
    if kind is STResNetConfig:
        return matconvnet_weights(path, stride_in_1x1=overrides.get("stride_in_1x1"))
    if kind is VggConfig:
        return vgg_weights(path)
    raise CheckpointError(f"{path}: this kind of network is not read from MATLAB files; use --weights none")
