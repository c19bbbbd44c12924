"""What training leaves behind: checkpoints to resume from and final weights, written whole or not at all, read as foreign data.

A checkpoint holds only tensors and built-in types and is read with ``weights_only=True``, so opening one runs no code.
"""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from flowkit.errors import CheckpointError, ParameterError
from flowkit.files import replacing, write_atomically
from flowkit.model.settings.recipes import TrainConfig
from flowkit.versions import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from flowkit.dataset.manifest import Split

CHECKPOINT_NAME = "checkpoint.pt"
WEIGHTS_NAME = "weights.safetensors"
_CHECKPOINT_FORMAT = "flowkit-checkpoint"
_WEIGHTS_FORMAT = "flowkit-weights"
_FORMAT_VERSION = 1


@dataclass(frozen=True)
class Provenance:
    """What weights were trained on, and how; the same wherever it is stored.

    Parameters
    ----------
    config : TrainConfig
    classes : tuple of str
        Class names by label.
    split : int
    protocol : str
        Where the split's lists come from.
    digest : str
        Of the split's manifest and shards.
    quantiser : dict
        Settings of the flow's quantiser.
    started_from : dict
        SHA-256 of the weights files of the phases before.
    extraction : dict
        How the videos became frames and flow: `short_side` in px, `tvl1` parameters, `solver`, `codec`; what a new video needs to be
        treated alike. Empty in weights from before it was recorded, which is no difference: `digest` covers it.
    """

    config: TrainConfig
    classes: tuple[str, ...]
    split: int
    protocol: str
    digest: str
    quantiser: dict[str, Any]
    started_from: dict[str, str] = field(default_factory=dict)
    extraction: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return it as built-in types."""
        return {
            "config": self.config.to_dict(),
            "classes": list(self.classes),
            "split": self.split,
            "protocol": self.protocol,
            "digest": self.digest,
            "quantiser": dict(self.quantiser),
            "started_from": dict(self.started_from),
            "extraction": dict(self.extraction),
        }

    @classmethod
    def from_dict(cls, values: object) -> Provenance:
        """Read what `to_dict` returned.

        Raises
        ------
        CheckpointError
            If it is not that.
        """
        try:
            if not isinstance(values, dict):
                raise TypeError("it is no table")
            classes, split, protocol, digest = (values[key] for key in ("classes", "split", "protocol", "digest"))
            texts = [protocol, digest, *classes, *values["started_from"].keys(), *values["started_from"].values()]
            if not isinstance(classes, list) or not isinstance(split, int) or not all(isinstance(text, str) for text in texts):
                raise TypeError("a value has the wrong type")
            config = TrainConfig.from_dict(values["config"])
            if config.network.num_classes != len(classes):
                raise ParameterError(f"{config.network.num_classes} classes in the network, {len(classes)} names")
            quantiser, started_from, extraction = map(dict, (values["quantiser"], values["started_from"], values.get("extraction", {})))
        except (KeyError, TypeError, ValueError, AttributeError) as cause:
            raise CheckpointError(f"the record of what the weights were trained on is damaged or foreign: {cause}") from cause
        return cls(config, tuple(classes), split, protocol, digest, quantiser, started_from, extraction)

    def differences(self, other: Provenance) -> list[str]:
        """Return ``name is ..., now ...`` for every setting in which `other` differs."""
        mine, theirs = self.to_dict(), other.to_dict()
        if not (self.extraction and other.extraction):
            del mine["extraction"], theirs["extraction"]
        mine, theirs = flattened(mine), flattened(theirs)
        names = sorted(key for key in {*mine, *theirs} if mine.get(key) != theirs.get(key))
        return [f"{name} is {_brief(mine.get(name))}, now {_brief(theirs.get(name))}" for name in names]


@dataclass(frozen=True)
class Checkpoint:
    """Weights with their provenance; while training lasts, also all that resuming needs.

    Parameters
    ----------
    provenance : Provenance
    step : int
        Steps done.
    network : dict from parameter name to tensor
    momentum : dict from parameter name to tensor
        The optimiser's; empty in final weights.
    environment : dict
        Versions, device, precision, threads and ranks: on others, resuming is not bit-equal.
    scaler : dict
        State of fp16's loss scaling.
    """

    provenance: Provenance
    step: int
    network: dict[str, Tensor]
    momentum: dict[str, Tensor] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint to resume from; a reader sees the one before or this one whole.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    values = {
        "format": _CHECKPOINT_FORMAT,
        "format_version": _FORMAT_VERSION,
        "created_by": f"flowkit {__version__}",
        "provenance": checkpoint.provenance.to_dict(),
        "step": checkpoint.step,
        "network": checkpoint.network,
        "momentum": checkpoint.momentum,
        "environment": checkpoint.environment,
        "scaler": checkpoint.scaler,
    }
    with replacing(path) as part:
        try:
            torch.save(values, part)
        except RuntimeError as cause:  # all that torch makes of a write that failed
            raise OSError(f"{path} could not be written, for want of room perhaps ({cause})") from cause


def save_weights(path: Path, checkpoint: Checkpoint, *, description: Mapping[str, str] | None = None) -> None:
    """Write final weights as safetensors, with their provenance, and more that may describe them, in its header."""
    from safetensors.torch import save

    metadata = {
        **(description or {}),
        "format": _WEIGHTS_FORMAT,
        "format_version": str(_FORMAT_VERSION),
        "created_by": f"flowkit {__version__}",
        "provenance": json.dumps(checkpoint.provenance.to_dict(), sort_keys=True),
        "step": str(checkpoint.step),
        "stride_in_1x1": str(checkpoint.provenance.config.network.stride_in_1x1).lower(),
    }
    tensors = {name: tensor.contiguous() for name, tensor in checkpoint.network.items()}
    write_atomically(path, _in_order(save(tensors, metadata)))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint, final weights, or the folder of a phase (its weights, else its checkpoint).

    Parameters
    ----------
    path : Path

    Returns
    -------
    Checkpoint
        Tensors on the CPU.

    Raises
    ------
    CheckpointError
        If there is none, or it is damaged, foreign, or holds anything but tensors and built-in types.
    """
    if path.is_dir():
        path = next((path / name for name in (WEIGHTS_NAME, CHECKPOINT_NAME) if (path / name).is_file()), path / WEIGHTS_NAME)
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}; train it first, or give a phase's folder, {WEIGHTS_NAME} or {CHECKPOINT_NAME}")
    try:
        return _load_weights(path) if path.suffix == ".safetensors" else _load_checkpoint(path)
    except CheckpointError as cause:
        raise CheckpointError(f"{path}: {cause}") from cause


def _load_checkpoint(path: Path) -> Checkpoint:
    if not zipfile.is_zipfile(path):  # all that `save_checkpoint` writes; a bare pickle is not even looked into
        raise CheckpointError("cannot be read as a checkpoint: it is cut off, or foreign")
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as cause:
        raise CheckpointError(
            "refused: it is damaged, or holds Python objects, which could run code when read; a flowkit checkpoint never does"
        ) from cause
    except (RuntimeError, ValueError, EOFError, KeyError, AttributeError, TypeError, io.UnsupportedOperation) as cause:
        raise CheckpointError(f"cannot be read as a checkpoint: {str(cause).splitlines()[0] if str(cause) else cause!r}") from cause
    _check_format(values if isinstance(values, dict) else {}, _CHECKPOINT_FORMAT, _FORMAT_VERSION)
    provenance = Provenance.from_dict(values.get("provenance"))
    step, network, momentum = values.get("step"), values.get("network"), values.get("momentum")
    environment, scaler = values.get("environment"), values.get("scaler")
    tensors = all(isinstance(part, dict) and all(map(_is_plain, part.values())) for part in (network, momentum))
    if not (tensors and isinstance(step, int) and isinstance(environment, dict) and isinstance(scaler, dict)):
        raise CheckpointError("a part of the checkpoint is missing or has the wrong type")
    return Checkpoint(provenance, step, network, momentum, environment, scaler)


def _is_plain(item: object) -> bool:
    return isinstance(item, Tensor) and item.layout == torch.strided and item.device.type == "cpu"


def _load_weights(path: Path) -> Checkpoint:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as stored:
            metadata = stored.metadata() or {}
            network = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, ValueError, RuntimeError) as cause:
        raise CheckpointError(f"cannot be read as safetensors: {cause}") from cause
    _check_format(metadata, _WEIGHTS_FORMAT, str(_FORMAT_VERSION))
    try:
        provenance, step = json.loads(metadata["provenance"]), int(metadata["step"])
    except (KeyError, ValueError) as cause:
        raise CheckpointError(f"its header lacks what the weights were trained on: {cause}") from cause
    return Checkpoint(Provenance.from_dict(provenance), step, network)


def _check_format(values: Mapping[str, object], name: str, version: object) -> None:
    if values.get("format") != name:
        raise CheckpointError("not a flowkit checkpoint (for ImageNet and other foreign weights there is `flowkit train --weights FILE`)")
    if values.get("format_version") != version:
        raise CheckpointError(f"format version {values.get('format_version')!r}; this flowkit reads {version!r}: upgrade flowkit")


def _in_order(data: bytes) -> bytes:
    """Return a safetensors file with the keys of its header sorted: the library lets chance order the metadata."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # tensors begin at a multiple of 8 bytes
    return len(header).to_bytes(8, "little") + header + data[end:]


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested tables as one, with dotted names: ``network.depth``."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flattened(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _brief(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def foreign_data(split: Split, checkpoint: Checkpoint) -> list[str]:
    """Return in what the data of the training differ from this split's."""
    theirs = checkpoint.provenance
    different = []
    if sorted(theirs.classes) != sorted(split.classes):
        different.append(f"its {len(theirs.classes)} classes are not the {len(split.classes)} of this split")
    for name, was, now in (
        ("split", theirs.split, split.number),
        ("quantiser", theirs.quantiser, dict(split.quantiser)),
        ("digest", theirs.digest, split.digest),
    ):
        if was != now:
            different.append(f"{name} was {was}, is {now}")
    return different
