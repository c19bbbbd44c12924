"""What training leaves behind: checkpoints to resume from, and final weights; written completely or not at all, read as foreign data.

A checkpoint holds only tensors and built-in types and is read with ``weights_only=True``, so reading one runs no code.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import shlex
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowkit.errors import CheckpointError
from flowkit.files import replacing, write_atomically
from flowkit.model.foreign.state_dicts import read_safetensors
from flowkit.model.foreign.torch_archives import check_archive, check_tensors
from flowkit.model.runs.array_files import with_sorted_header
from flowkit.model.runs.provenance import Provenance
from flowkit.records import parse_json
from flowkit.run_digests import check_digest
from flowkit.versions import __version__
from flowkit.words import counted

CHECKPOINT_NAME = "checkpoint.pt"
WEIGHTS_NAME = "weights.safetensors"
_CHECKPOINT_FORMAT = "flowkit-checkpoint"
_WEIGHTS_FORMAT = "flowkit-weights"
_FORMAT_VERSION = 1


@dataclass(frozen=True)
class BestSoFar:
    """The weights of a phase that had the best accuracy on the validation videos so far, and after how many steps they had it."""

    step: int
    accuracy: float
    network: dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """Weights with their provenance; during training, also everything that resuming needs.

    Parameters
    ----------
    provenance : Provenance
        What the weights were trained on, and how.
    step : int
        The number of steps done.
    network : dict from parameter name to tensor
        The network's state.
    momentum : dict from parameter name to tensor
        The optimiser's state; empty in final weights.
    environment : dict
        Versions, device, precision, threads and ranks. If they change, resuming is not bit-equal.
    scaler : dict
        The state of fp16's loss scaling.
    validated : int
        The number of steps after which the validation videos were last measured; 0 if never.
    best : BestSoFar, optional
        The best weights so far, if the phase will end with the best instead of the last.
    """

    provenance: Provenance
    step: int
    network: dict[str, Tensor]
    momentum: dict[str, Tensor] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)
    validated: int = 0
    best: BestSoFar | None = None

    def __repr__(self) -> str:
        config = self.provenance.config
        steps, classes = f"{self.step} of {config.num_steps} steps", counted(len(self.provenance.classes), "class")
        return f"Checkpoint({config.phase}, {steps}, {classes}, {len(self.network)} tensors)"

    def digest(self) -> str:
        """Return the SHA-256 of the weights and their provenance as they are in memory, whatever happens to their file meanwhile."""
        digest = hashlib.sha256(json.dumps(self.provenance.to_dict(), sort_keys=True).encode())
        for name, tensor in sorted(self.network.items()):
            digest.update(f"\0{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode("utf-8", "surrogateescape"))
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint to resume from. A reader sees either the one before or all of this one."""
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
        **({"validated": checkpoint.validated} if checkpoint.validated else {}),
        **({"best": dict(vars(checkpoint.best))} if checkpoint.best else {}),
    }
    with replacing(path) as part:
        try:
            with part.open("wb") as file:  # not by its name, which torch would store
                torch.save(values, file)
        except RuntimeError as cause:  # what torch raises when a write fails
            raise OSError(f"{path} could not be written; perhaps the disk is full ({cause})") from cause


def save_weights(path: Path, checkpoint: Checkpoint, *, description: Mapping[str, str] | None = None) -> None:
    """Write final weights as safetensors. The header holds their provenance and a further `description`."""
    from safetensors.torch import save

    metadata = {
        **(description or {}),
        "format": _WEIGHTS_FORMAT,
        "format_version": str(_FORMAT_VERSION),
        "created_by": f"flowkit {__version__}",
        "provenance": json.dumps(checkpoint.provenance.to_dict(), sort_keys=True),
        "step": str(checkpoint.step),
        **checkpoint.provenance.config.network.metadata(),
    }
    tensors = {name: tensor.contiguous() for name, tensor in checkpoint.network.items()}
    write_atomically(path, with_sorted_header(save(tensors, metadata)))


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint, final weights, or the folder of a phase (its weights, else its checkpoint).

    Parameters
    ----------
    path : path
        A ``checkpoint.pt``, a ``weights.safetensors``, or ``runs/<run>/split<n>/<phase>``.

    Returns
    -------
    Checkpoint
        With its tensors on the CPU.

    Raises
    ------
    CheckpointError
        If there is none, or it is damaged, foreign, or holds anything but tensors and built-in types; also if it is not the file
        that the ``digests.json`` beside it names.

    Notes
    -----
    Reading runs no code: a checkpoint holds only tensors and built-in types, and anything else is refused.

    Examples
    --------
    >>> from flowkit.dataset.example import example_root
    >>> from flowkit.model import load_checkpoint, train
    >>> root = example_root()  # 12 training videos of 6 classes
    >>> overrides = {"base_width": 4, "input_size": 32, "batch": 4, "steps": 2}
    >>> report = train(root, phases=["appearance"], overrides=overrides)
    >>> checkpoint = load_checkpoint(root / "runs/default/split1/appearance")
    >>> checkpoint
    Checkpoint(appearance, 2 of 2 steps, 6 classes, 176 tensors)
    >>> checkpoint.provenance.config.learning_rate(0)
    0.05
    """
    path = Path(path)
    if path.is_dir():
        path = next((path / name for name in (WEIGHTS_NAME, CHECKPOINT_NAME) if (path / name).is_file()), path / WEIGHTS_NAME)
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}; train it first, or give a phase's folder, {WEIGHTS_NAME} or {CHECKPOINT_NAME}")
    if path.suffix == ".mat":
        raise CheckpointError(
            f"{path} is a MATLAB file; `flowkit convert {shlex.quote(str(path))} OUT.safetensors --data-set ucf101` (or hmdb51, or "
            "--classes FILE) makes a file of it that can be given here"
        )
    try:
        check_digest(path)
        return _load_weights(path) if path.suffix == ".safetensors" else _load_checkpoint(path)
    except CheckpointError as cause:
        raise CheckpointError(f"{path}: {cause}") from cause


def _load_checkpoint(path: Path) -> Checkpoint:
    if not zipfile.is_zipfile(path):  # as `save_checkpoint` writes it; a bare pickle is not opened
        raise CheckpointError("cannot be read as a checkpoint: it is truncated or foreign")
    check_archive(path)
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as cause:
        raise CheckpointError(
            "refused: it is damaged, or it holds Python objects, which could run code when read; a flowkit checkpoint never holds any"
        ) from cause
    except Exception as cause:  # a damaged file can make the unpickler raise anything
        raise CheckpointError(f"cannot be read as a checkpoint: {str(cause).splitlines()[0] if str(cause) else cause!r}") from cause
    _check_format(values if isinstance(values, dict) else {}, _CHECKPOINT_FORMAT, _FORMAT_VERSION)
    provenance = Provenance.from_dict(values.get("provenance"))
    step, network, momentum = values.get("step"), values.get("network"), values.get("momentum")
    environment, scaler, validated = values.get("environment"), values.get("scaler"), values.get("validated", 0)
    tensors = all(isinstance(part, dict) and all(map(_is_plain, part.values())) for part in (network, momentum))
    numbers = isinstance(step, int) and isinstance(validated, int)
    if not (tensors and numbers and isinstance(environment, dict) and isinstance(scaler, dict)):
        raise CheckpointError("a part of the checkpoint is missing or has the wrong type")
    check_tensors({**{"momentum " + name: tensor for name, tensor in momentum.items()}, **network}, path)
    return Checkpoint(provenance, step, network, momentum, environment, scaler, validated, _best_so_far(values.get("best"), path))


def _best_so_far(values: Any, path: Path) -> BestSoFar | None:
    """Read the best weights of a checkpoint, if it has any."""
    if values is None:
        return None
    step, accuracy, network = (values.get(name) for name in ("step", "accuracy", "network")) if isinstance(values, dict) else (None,) * 3
    tensors = isinstance(network, dict) and all(isinstance(name, str) and _is_plain(tensor) for name, tensor in network.items())
    if not (isinstance(step, int) and isinstance(accuracy, float) and isinstance(network, dict) and tensors):
        raise CheckpointError("the best weights so far in the checkpoint are incomplete or have the wrong type")
    check_tensors({f"best {name}": tensor for name, tensor in network.items()}, path)
    return BestSoFar(step, accuracy, network)


def _is_plain(item: object) -> bool:
    return isinstance(item, Tensor) and item.layout == torch.strided and item.device.type == "cpu"


def _load_weights(path: Path) -> Checkpoint:
    network, metadata = read_safetensors(path)
    _check_format(metadata, _WEIGHTS_FORMAT, str(_FORMAT_VERSION))
    try:
        provenance, step = parse_json(metadata["provenance"]), int(metadata["step"])
    except (KeyError, ValueError) as cause:
        raise CheckpointError(f"its header does not say what the weights were trained on: {cause}") from cause
    return Checkpoint(Provenance.from_dict(provenance), step, network)


def _check_format(values: Mapping[str, object], name: str, version: object) -> None:
    if values.get("format") != name:
        raise CheckpointError("not a flowkit checkpoint (for ImageNet and other foreign weights there is `flowkit train --weights FILE`)")
    if values.get("format_version") != version:
        raise CheckpointError(f"format version {values.get('format_version')!r}; this flowkit reads {version!r}: upgrade flowkit")
