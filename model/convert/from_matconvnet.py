"""Networks of MatConvNet as flowkit's weights: their inputs folded in, their classes named, their origin recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from flowkit.errors import CheckpointError, ParameterError
from flowkit.files import file_sha256, read_file
from flowkit.flow.params import TVL1Params
from flowkit.model.data.grey_level_inputs import fold_inputs
from flowkit.model.foreign.class_lists import CLASS_LISTS
from flowkit.model.foreign.matconvnet import MatConvNetNetwork, read_matconvnet
from flowkit.model.foreign.vgg_files import holds_chain, read_vgg
from flowkit.model.networks.phase_networks import build_network
from flowkit.model.runs.checkpoint import Checkpoint
from flowkit.model.runs.provenance import Provenance
from flowkit.model.settings.network import STResNetConfig
from flowkit.model.settings.training import Phase, TrainConfig
from flowkit.model.settings.vgg import VggConfig
from flowkit.model.systems.configs import make_configs
from flowkit.quantise import Quantiser
from flowkit.words import counted

_MAX_LIST_BYTES = 1 << 20
_NUM_TRAINING_VIDEOS = {"ucf101": 9537, "hmdb51": 3570}  # of split 1; by these the schedule is recorded


@dataclass(frozen=True)
class ConvertedNetwork:
    """A network out of a MATLAB file.

    Parameters
    ----------
    checkpoint : Checkpoint
        Its weights, float32, with the record of where they come from.
    sha256 : str
        The digest of the MATLAB file.
    notes : tuple of str
        What was converted other than one to one, in words.
    """

    checkpoint: Checkpoint
    sha256: str
    notes: tuple[str, ...]


def convert_matconvnet(path: Path, *, data_set: str | None = None, split: int = 1, classes: Sequence[str] = ()) -> ConvertedNetwork:
    """Read a network that the ST-ResNet authors trained, or a VGG network, in the form in which flowkit evaluates its own.

    Parameters
    ----------
    path : Path
        A MATLAB file with a DagNN: a base stream, ST-ResNet, ST-ResNet* or ST-MulNet with ResNet-50, 101 or 152; or a SimpleNN or DagNN
        that is a VGG-M-2048 or VGG-16, for frames or for stacks of flow, such as ``imagenet-vgg-m-2048.mat``.
    data_set : {"ucf101", "hmdb51"}, optional
        What it was trained on, which the file does not say.
    split : int
        The split that it was trained on.
    classes : sequence of str
        The class names in the order of the network's outputs. By default the authors' order for `data_set`; for 1,000 outputs the
        names in the file.

    Raises
    ------
    CheckpointError
        If the file is damaged, or holds another kind of network.
    ParameterError
        If the class names are unknown, or are not as many as the network's outputs.
    OSError
        If the file cannot be read.

    Notes
    -----
    The authors' networks take grey levels minus a mean, flowkit's take normalised values (see `fold_inputs`).
    """
    digest = file_sha256(path)
    is_vgg = holds_chain(path)
    network = read_vgg(path) if is_vgg else read_matconvnet(path)
    if file_sha256(path) != digest:
        raise CheckpointError(f"{path} changed while it was being read; convert it again")
    names = _class_names(network, data_set, classes)
    state, offset = fold_inputs(network)
    settings = network.settings | ({"rgb_offset": offset} if "appearance" in network.means else {})
    made: STResNetConfig | VggConfig = VggConfig(**settings) if is_vgg else STResNetConfig(**settings)
    config = _train_config(f"{settings['kind']}-{network.phase}" if is_vgg else network.phase, made, data_set)
    _check_shapes(path, config, state)
    provenance = Provenance(
        config=config,
        classes=names,
        split=split,
        protocol=data_set or "csv",
        digest="",  # the file says nothing about the authors' lists
        quantiser=Quantiser(bound=20.0, mapping="paper").to_dict(),
        started_from={"matconvnet": digest},
        extraction={"short_side": 256, "tvl1": TVL1Params.preset("paper").to_dict(), "solver": "strict", "codec": "jpeg"},
    )
    tensors = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise CheckpointError(f"{path}: {name} would have values that float32 cannot hold, so the file is damaged; download it again")
    return ConvertedNetwork(Checkpoint(provenance, config.num_steps, tensors), digest, network.notes)


def read_class_names(path: Path) -> tuple[str, ...]:
    """Read class names, one a line, from a text file; numbers before the names, as UCF101's ``classInd.txt`` has them, must count up.

    Raises
    ------
    ParameterError
        If the file is no such list.
    OSError
        If it cannot be read, or is larger than 1 MiB.
    """
    try:
        lines = read_file(path, most_bytes=_MAX_LIST_BYTES).decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as cause:
        raise ParameterError(f"{path} is no list of class names: it is not UTF-8 text ({cause.reason})") from cause
    names = tuple(line.strip() for line in lines if line.strip())
    numbered = [name.partition(" ") for name in names]
    if names and all(number.isdigit() for number, _, _ in numbered):
        if [int(number) for number, _, _ in numbered] != list(range(1, len(names) + 1)):
            raise ParameterError(f"{path}: the numbers before the class names do not count up from 1")
        names = tuple(name.strip() for _, _, name in numbered)
    if not names or not all(name.isprintable() and name for name in names):
        raise ParameterError(f"{path} is no list of class names, one a line")
    return names


def _class_names(network: MatConvNetNetwork, data_set: str | None, classes: Sequence[str]) -> tuple[str, ...]:
    count = network.settings["num_classes"]
    names = tuple(classes) or (CLASS_LISTS[data_set] if data_set else network.class_names)
    if not names:
        raise ParameterError(f"the network has {counted(count, 'class')} without names: give --data-set ucf101, hmdb51 or --classes FILE")
    if len(names) != count:
        whose = "the list of --classes" if classes else f"{data_set}" if data_set else "the file's list"
        raise ParameterError(f"the network has {counted(count, 'class')}, and {whose} has {len(names)}")
    if len(set(names)) != count:
        raise ParameterError("a class name stands twice in the list")
    return names


def _train_config(phase: Phase, network: STResNetConfig | VggConfig, data_set: str | None) -> TrainConfig:
    """Return the official recipe's settings of the phase with this network. The file does not say how it was trained."""
    num_videos = _NUM_TRAINING_VIDEOS.get(data_set or "", 1)
    config = make_configs("official", phases=[phase], num_classes=network.num_classes, num_videos=num_videos, short_side=256)
    return replace(config[phase], network=network, weights="matconvnet", bn_renewal_steps=0)


def _check_shapes(path: Path, config: TrainConfig, state: Mapping[str, Tensor]) -> None:
    with torch.device("meta"):
        wanted = {name: tensor.shape for name, tensor in build_network(config).state_dict().items()}
    for name in sorted({*wanted, *state}):
        found = state[name].shape if name in state else None
        if found != wanted.get(name):
            raise CheckpointError(f"{path}: {name} has the shape {_shape(found)}, where the network needs {_shape(wanted.get(name))}")


def _shape(shape: torch.Size | None) -> str:
    return "x".join(map(str, shape)) or "()" if shape is not None else "nothing"
