"""The states of pretrained networks, from files of PyTorch and safetensors or from torchvision."""

from __future__ import annotations

import pickle
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from flowkit.errors import CheckpointError, ParameterError
from flowkit.model.foreign.torch_archives import check_archive, check_tensors
from flowkit.model.settings.network import STAGE_UNITS

PretrainedKind = Literal["resnet", "vgg-16"]
PYTORCH_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".tar", ".pyth")  # .pth.tar is common
_STATE_KEYS = ("state_dict", "model_state_dict", "model_state", "model", "network", "net", "weights")  # of training checkpoints
_DEEPEST = 3  # how many dictionaries may lie around a state dict
ALTERNATIVES = "give a file with --weights FILE, or --weights none to start from random weights"


@dataclass(frozen=True)
class PretrainedWeights:
    """A network's state, and what its tensors do not show.

    Parameters
    ----------
    state : dict of str to Tensor
        The tensors under torchvision's names; floating-point tensors have at least float32.
    stride_in_1x1 : bool
        Which convolution has a stage's stride; see `STResNetConfig`.
    source : str
        The file, or torchvision's name of the weights.
    network : dict
        Further settings that the network needs; see `STResNetConfig`.
    conv1_for_flow : Tensor, optional
        The filters of conv1 from which a motion stream starts, if they are not those of `state`, whose scale is that of RGB.
    """

    state: dict[str, Tensor]
    stride_in_1x1: bool
    source: str
    network: dict[str, Any] = field(default_factory=dict)
    conv1_for_flow: Tensor | None = None


def pretrained_state(
    source: Path | Literal["imagenet"], depth: int = 50, *, kind: PretrainedKind = "resnet", stride_in_1x1: bool | None = None
) -> PretrainedWeights:
    """Read a pretrained network.

    Parameters
    ----------
    source : "imagenet" or Path
        torchvision's ImageNet weights (IMAGENET1K_V1), which are downloaded once; or a ``.safetensors`` file or one of PyTorch
        (``.pt``, ``.pth``, ``.ckpt``, ``.bin``, ``.tar``) with a network's state, float16 to float64. The state may be the file itself
        or a part of a training checkpoint, such as its ``state_dict``.
    depth : {50, 101, 152}
        The depth of torchvision's ResNet. The depth of a file follows from its names.
    kind : {"resnet", "vgg-16"}
        Which of torchvision's networks.
    stride_in_1x1 : bool, optional
        What the caller expects. By default what the file says, or if it says nothing, False as in torchvision.

    Raises
    ------
    CheckpointError
        If the weights cannot be downloaded, or the file is damaged, foreign or holds more than tensors.
    ParameterError
        If `stride_in_1x1` contradicts the weights, or torchvision has no such depth.
    """
    if isinstance(source, Path):
        name = str(source)
        try:
            state, stride = _read_file(source)
        except CheckpointError as cause:
            raise CheckpointError(f"{source}: {cause}") from cause
    else:
        if source != "imagenet":
            raise ParameterError(f"weights must be imagenet or a file, got {source!r}")
        state, name = _download(depth, kind)
        stride = False
    if stride is not None and stride_in_1x1 is not None and stride != stride_in_1x1:
        raise ParameterError(
            f"stride_in_1x1={stride_in_1x1} contradicts {name}, which was trained with stride_in_1x1={stride}; do without the option"
        )
    if stride is None:
        stride = bool(stride_in_1x1)
    return PretrainedWeights({key: _at_least_float32(tensor) for key, tensor in state.items()}, stride, name)


def imagenet_shapes(depth: int = 50, *, kind: PretrainedKind = "resnet") -> dict[str, Tensor]:
    """Return what the state of torchvision's ImageNet weights will be, without its values and without a download."""
    name = _torchvision_name(depth, kind)
    from torchvision.models import get_model

    with torch.device("meta"):
        state: dict[str, Tensor] = get_model(name, weights=None).state_dict()
    return state


def _torchvision_name(depth: int, kind: PretrainedKind) -> str:
    if kind == "vgg-16":
        return "vgg16"
    if depth not in STAGE_UNITS:
        raise ParameterError(f"torchvision has ImageNet weights for depths {', '.join(map(str, STAGE_UNITS))}, not {depth!r}")
    return f"resnet{depth}"


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its type if it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() and tensor.dtype != torch.float64 else tensor


def _download(depth: int, kind: PretrainedKind) -> tuple[dict[str, Tensor], str]:
    """Return torchvision's ImageNet state, from its cache or the internet, and its name."""
    name = _torchvision_name(depth, kind)
    from torchvision.models import get_model_weights

    weights = get_model_weights(name).IMAGENET1K_V1
    try:
        state: dict[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except Exception as error:  # no internet, no disk space, a damaged cache: whatever torch raises then
        raise CheckpointError(f"could not get {weights} from {weights.url} ({first_line(error)}); {ALTERNATIVES}") from error
    return state, f"torchvision's {weights}"


def _read_file(path: Path) -> tuple[dict[str, Tensor], bool | None]:
    """Return the state in a file and its `stride_in_1x1`, None if the file does not say."""
    if not path.is_file():
        raise CheckpointError(f"no such weights file; {ALTERNATIVES}")
    if path.suffix == ".safetensors":
        state, metadata = read_safetensors(path)
        stride = metadata.get("stride_in_1x1")
        if stride not in (None, "true", "false"):
            raise CheckpointError(f"its metadata has stride_in_1x1={stride!r}, which must be 'true' or 'false'")
        return state, None if stride is None else stride == "true"
    if path.suffix in PYTORCH_SUFFIXES:
        return _read_pickle(path), None
    raise CheckpointError(f"weights must be a .safetensors file, one of PyTorch ({', '.join(PYTORCH_SUFFIXES)}) or a .mat of MatConvNet")


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the tensors in a ``.safetensors`` file or one of PyTorch, as they are; raise `CheckpointError` if it holds anything else."""
    return read_safetensors(path)[0] if path.suffix == ".safetensors" else _read_pickle(path)


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"damaged, or not a safetensors file ({first_line(error)})") from error


def safetensors_metadata(path: Path) -> dict[str, str]:
    """Return the metadata in the header of a safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"damaged, or not a safetensors file ({first_line(error)})") from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd pickles, which are refused below
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            "refused, because it is damaged or holds more than tensors and built-in types; nothing in it was run. Use a .safetensors file"
        ) from error
    except Exception as error:  # a damaged file can make the unpickler raise anything
        raise CheckpointError(f"damaged, or not a file of weights ({first_line(error)}); download it again") from error
    found = _state_within(state)
    check_tensors(found, path)
    return found


def _state_within(value: object, depth: int = 0) -> dict[str, Tensor]:
    """Return the state dict that a file holds: the file's value itself, or what lies under one of the usual keys."""
    if isinstance(value, dict):
        if value and all(isinstance(name, str) and isinstance(item, Tensor) for name, item in value.items()):
            return dict(value)
        inner = next((value[key] for key in _STATE_KEYS if isinstance(value.get(key), dict)), None)
        if inner is not None and depth < _DEEPEST:
            return _state_within(inner, depth + 1)
    held = f"; it holds {', '.join(map(repr, list(value)[:5]))}" if isinstance(value, dict) and value else ""
    raise CheckpointError(
        f"does not hold a state dict of names and tensors, neither by itself nor under {', '.join(_STATE_KEYS)}{held}; save one with "
        "torch.save(model.state_dict(), FILE)"
    )
