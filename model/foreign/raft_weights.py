"""The weights of RAFT: torchvision's, or those of a file, a copy of which is kept under their digest, so that they are found again.

A data root records the digest of the weights and not the place of their file, which may move. Worker processes, later runs, and networks
that were trained on the flow find the weights by it.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowkit.errors import CheckpointError, ParameterError
from flowkit.files import file_sha256, replacing, user_cache_folder
from flowkit.model.foreign.state_dicts import PYTORCH_SUFFIXES, first_line, read_state
from flowkit.video.ids import first_few

DIGEST = "sha256:"
MAX_BYTES = 1 << 30  # raft_large has 21 MB
_SUFFIXES = (".safetensors", *PYTORCH_SUFFIXES)
_GIVE_FILE = "give a file with --method-param weights=FILE"


def known_weights(size: str, weights: str, own: Mapping[str, Tensor]) -> str:
    """Return the digest of weights, as ``sha256:...``, by which `find_weights` finds them on this machine from now on.

    Parameters
    ----------
    size : {"large", "small"}
        The network.
    weights : str
        A file, which is copied; a digest; or an empty text for torchvision's, which are downloaded once.
    own : dict of str to Tensor
        The state of the network, which a file must fit; its tensors may be on the meta device.

    Raises
    ------
    CheckpointError
        If the file is damaged, foreign or of another network, or torchvision's cannot be downloaded.
    ParameterError
        If there is no such file, it cannot be copied, or there are no weights with this digest here.
    """
    if weights.startswith(DIGEST):
        find_weights(size, weights)
        return weights
    if not weights:
        return DIGEST + file_sha256(_download(size))
    path = Path(weights)
    if path.suffix not in _SUFFIXES or not path.is_file():
        why = "there is no such file" if path.suffix in _SUFFIXES else f"its name must end in {', '.join(_SUFFIXES)}"
        raise ParameterError(f"weights of raft must be a file of weights, got {weights!r}: {why}")
    digest = _checked_digest(path)
    fitting_state(path, own, size)
    kept = _kept(digest, path.suffix)
    if not kept.is_file():
        try:
            with replacing(kept) as part:
                shutil.copyfile(path, part)
                if file_sha256(part) != digest:
                    raise CheckpointError(f"{path} was changed while it was read; try again")
        except OSError as cause:
            raise ParameterError(
                f"{path} cannot be kept as {kept}: {cause.strerror or cause}; set XDG_CACHE_HOME to another folder"
            ) from cause
    return DIGEST + digest


def find_weights(size: str, digest: str) -> Path:
    """Return the file of the weights that have a digest.

    Raises
    ------
    CheckpointError
        If torchvision's must be downloaded and cannot be.
    ParameterError
        If they are not here, or this is no digest.
    """
    sha256 = digest.removeprefix(DIGEST)
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise ParameterError(f"weights of raft must be a file, or {DIGEST} and 64 hexadecimal digits, got {digest!r}")
    kept = [path for suffix in _SUFFIXES if (path := _kept(sha256, suffix)).is_file()]
    if kept:
        return kept[0]
    if Path(_of_torchvision(size).url).stem.endswith(f"-{sha256[:8]}"):
        return _download(size)
    raise ParameterError(f"the weights of raft {size} with the digest {sha256[:12]}... are not on this machine; {_GIVE_FILE}")


def load_weights(size: str, digest: str, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights that have a digest, after checking that they do and fit the network."""
    path = find_weights(size, digest)
    if DIGEST + _checked_digest(path) != digest:
        raise CheckpointError(f"{path} is damaged: its digest is another one; delete it, and {_GIVE_FILE}")
    return fitting_state(path, own, size)


def fitting_state(path: Path, own: Mapping[str, Tensor], size: str) -> dict[str, Tensor]:
    """Return the state in a file; raise `CheckpointError` unless it has the names and shapes of the network's, and finite numbers."""
    try:
        state = read_state(path)
    except CheckpointError as cause:
        raise CheckpointError(f"{path}: {cause}") from cause
    wrong = [name for name in own if name not in state] + [name for name in state if name not in own]
    wrong = wrong or [name for name, tensor in own.items() if state[name].shape != tensor.shape]
    if wrong:
        names = first_few([repr(name) for name in wrong], most=3)
        raise CheckpointError(f"{path} does not hold the state of torchvision's raft_{size}: other names or shapes, {names}")
    if not all(tensor.isfinite().all() for tensor in state.values()):
        raise CheckpointError(f"{path} holds NaN or infinity, so its training failed; use another file")
    return state


def _checked_digest(path: Path) -> str:
    if path.stat().st_size > MAX_BYTES:
        raise CheckpointError(f"{path} has more than {MAX_BYTES >> 20} MiB, which no weights of raft have")
    return file_sha256(path)


def _kept(sha256: str, suffix: str) -> Path:
    return user_cache_folder() / "flowkit" / "raft" / f"{sha256}{suffix}"


def _of_torchvision(size: str) -> Any:
    from torchvision.models.optical_flow import Raft_Large_Weights, Raft_Small_Weights

    return (Raft_Large_Weights if size == "large" else Raft_Small_Weights).DEFAULT


def _download(size: str) -> Path:
    """Return the file of torchvision's weights, which is downloaded if it is not there yet."""
    weights = _of_torchvision(size)
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    if not path.is_file():
        try:
            weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
        except Exception as error:  # no internet, no disk space: whatever torch raises then
            raise CheckpointError(f"could not get {weights} from {weights.url} ({first_line(error)}); {_GIVE_FILE}") from error
    return path
