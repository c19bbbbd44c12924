"""Where weights come from: ImageNet through torchvision, a file, the base streams, or chance.

Everything is mapped strictly. Between a ResNet's state and a stream's, only this may change: the stream's prefix, temporal
taps (`inflate`, eq. 5), a motion stream's first convolution, and a classifier for another number of classes; each is
reported in an `Initialisation` and logged.
"""

from __future__ import annotations

import logging
import pickle
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from flowkit.errors import CheckpointError, ParameterError
from flowkit.model.networks.resnet import inflate
from flowkit.model.settings.network import STAGE_UNITS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from flowkit.model.networks.resnet import ResidualStream
    from flowkit.model.networks.stresnet import SingleStream, STResNet

logger = logging.getLogger(__name__)

NUM_RGB_CHANNELS = 3
CLASSIFIER = ("fc.weight", "fc.bias")
NUM_NAMES_SHOWN = 3
ALTERNATIVES = "give a file with --weights FILE, or --weights none to start from random weights"


@dataclass(frozen=True)
class PretrainedWeights:
    """A ResNet's state and what must be known of it.

    Parameters
    ----------
    state : dict of str to Tensor
        Under torchvision's names; floating-point tensors in float32 at least.
    stride_in_1x1 : bool
        Where the stages' stride sits; see `STResNetConfig`.
    source : str
        The file, or torchvision's name of the weights.
    """

    state: dict[str, Tensor]
    stride_in_1x1: bool
    source: str


@dataclass(frozen=True)
class Initialisation:
    """What became of one stream: its source and everything that was not a plain copy.

    Parameters
    ----------
    source : str
    num_copied : int
        Tensors copied unchanged.
    inflated : tuple of str
        1x1 convolutions that got temporal taps.
    cross_modality : bool
        Whether conv1's RGB filters were averaged for flow channels.
    new_classifier : bool
        Whether `fc` was drawn anew, for another number of classes.
    """

    source: str
    num_copied: int = 0
    inflated: tuple[str, ...] = ()
    cross_modality: bool = False
    new_classifier: bool = False

    def __str__(self) -> str:
        changes = [f"{len(self.inflated)} layers inflated in time"] if self.inflated else []
        changes += ["conv1 averaged over RGB for flow channels"] if self.cross_modality else []
        changes += ["new classifier"] if self.new_classifier else []
        return "; ".join([f"{self.source}: {self.num_copied} tensors copied", *changes])


def pretrained_state(source: Path | Literal["imagenet"], depth: int = 50, *, stride_in_1x1: bool | None = None) -> PretrainedWeights:
    """Read a pretrained ResNet.

    Parameters
    ----------
    source : "imagenet" or Path
        torchvision's ImageNet weights (IMAGENET1K_V1), downloaded once; or a ``.safetensors``, ``.pt`` or ``.pth`` file of a
        ResNet's state under torchvision's names, float16 to float64.
    depth : {50, 101, 152}
        Of torchvision's network; a file says its depth by its names.
    stride_in_1x1 : bool, optional
        What the caller expects. Default: what the weights say; without a word in the file, torchvision's (False).

    Returns
    -------
    PretrainedWeights

    Raises
    ------
    CheckpointError
        If the weights cannot be fetched, or the file is damaged, foreign or holds more than tensors.
    ParameterError
        If `stride_in_1x1` contradicts the weights, or torchvision has no such depth.
    """
    if isinstance(source, Path):
        state, stride = _read_file(source)
        name = str(source)
    else:
        if source != "imagenet":
            raise ParameterError(f"weights must be imagenet or a file, got {source!r}")
        state, name = _download(depth)
        stride = False
    if stride is not None and stride_in_1x1 is not None and stride != stride_in_1x1:
        raise ParameterError(
            f"stride_in_1x1={stride_in_1x1} contradicts {name}, which was trained with stride_in_1x1={stride}; leave the option out"
        )
    if stride is None:
        stride = bool(stride_in_1x1)
    return PretrainedWeights({key: _at_least_float32(tensor) for key, tensor in state.items()}, stride, name)


def initialise_single_stream(
    model: SingleStream, weights: PretrainedWeights | None, *, generator: torch.Generator | None = None
) -> Initialisation:
    """Start a base stream from pretrained weights, or from random ones.

    Parameters
    ----------
    model : SingleStream
    weights : PretrainedWeights or None
        None draws He et al.'s weights. A state saved from a `SingleStream` of the same stream is accepted as well.
    generator : torch.Generator, optional
        Of everything that is drawn, on the model's device; default: torch's own.

    Returns
    -------
    Initialisation

    Raises
    ------
    CheckpointError
        If a name is missing or unexpected, or a shape differs in another way than the classifier's number of classes.
    ParameterError
        If the network's `stride_in_1x1` is not that of the weights.

    Notes
    -----
    A motion stream's conv1 becomes the mean of the RGB filters for every flow channel, without rescaling.
    """
    if weights is None:
        model.stream.reset_parameters(generator)
        return _reported(model.stream_name, Initialisation("random weights"))
    if weights.stride_in_1x1 != model.config.stride_in_1x1:
        raise ParameterError(
            f"{weights.source} was trained with stride_in_1x1={weights.stride_in_1x1}, the network has "
            f"stride_in_1x1={model.config.stride_in_1x1}; use the weights' own"
        )
    state = _without_prefix(weights.state, model.stream_name)
    return _reported(model.stream_name, _load(model.stream, state, weights.source, pretrained=True, generator=generator))


def initialise_from_streams(
    model: STResNet, appearance_state: Mapping[str, Tensor], motion_state: Mapping[str, Tensor]
) -> tuple[Initialisation, Initialisation]:
    """Start an ST-ResNet from its two trained base streams, classifiers included.

    Parameters
    ----------
    model : STResNet
    appearance_state, motion_state : mapping of str to Tensor
        ``SingleStream.state_dict()`` of the streams.

    Returns
    -------
    tuple of Initialisation
        Of the appearance and of the motion stream.

    Raises
    ------
    CheckpointError
        If a name is missing or unexpected or a shape differs, the temporal taps of eq. 5 aside.
    """
    appearance = _load(model.appearance, _without_prefix(appearance_state, "appearance"), "the appearance stream")
    motion = _load(model.motion, _without_prefix(motion_state, "motion"), "the motion stream")
    return _reported("appearance", appearance), _reported("motion", motion)


def _load(
    stream: ResidualStream, state: Mapping[str, Tensor], source: str, *, pretrained: bool = False, generator: torch.Generator | None = None
) -> Initialisation:
    """Copy a state into a stream, or raise and leave the stream as it was; only `pretrained` weights fit another conv1 or fc."""
    own = stream.state_dict()
    missing = [name for name in own if name not in state]
    if missing and all(map(_is_counter, missing)) and not any(map(_is_counter, state)):
        # Files older than torch 0.4.1 lack these counters, which a batch normalisation with a fixed momentum never reads.
        state = {**state, **{name: torch.zeros_like(own[name]) for name in missing}}
        missing = []
    unexpected = [name for name in state if name not in own]
    if missing or unexpected:
        raise CheckpointError(
            f"{source} does not hold this network's stream: {_names('missing', missing)}{_names('unexpected', unexpected)}"
            "is it another architecture or depth?"
        )
    fitted: dict[str, Tensor] = {}
    inflated = []
    cross_modality = new_classifier = False
    for name, target in own.items():
        tensor = state[name].to(target.dtype)
        if tensor.shape == target.shape:
            fitted[name] = tensor
        elif target.ndim == 5 and tensor.shape == target.shape[:2] + target.shape[3:]:
            fitted[name] = inflate(tensor, stream.config.temporal_init)
            inflated.append(name)
        elif pretrained and name == "conv1.weight" and tensor.shape == (target.shape[0], NUM_RGB_CHANNELS, *target.shape[2:]):
            fitted[name] = tensor.mean(1, keepdim=True).expand_as(target)
            cross_modality = True
        elif pretrained and name in CLASSIFIER and tensor.shape[1:] == target.shape[1:]:
            fitted[name] = target
            new_classifier = True
        else:
            raise CheckpointError(
                f"{source}: {name} has shape {tuple(tensor.shape)}, this network's has {tuple(target.shape)}; "
                "base_width, depth and number of classes must be those of the weights"
            )
    stream.load_state_dict(fitted)
    if new_classifier:
        stream.reset_classifier(generator)
    num_copied = len(own) - len(inflated) - cross_modality - len(CLASSIFIER) * new_classifier
    return Initialisation(source, num_copied, tuple(inflated), cross_modality, new_classifier)


def _reported(stream: str, done: Initialisation) -> Initialisation:
    logger.info("%s stream from %s", stream, done)
    return done


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _is_counter(name: str) -> bool:
    return name.endswith(".num_batches_tracked")


def _names(what: str, names: list[str]) -> str:
    if not names:
        return ""
    more = ", ..." if len(names) > NUM_NAMES_SHOWN else ""
    return f"{len(names)} {what} ({', '.join(names[:NUM_NAMES_SHOWN])}{more}); "


def _without_prefix(state: Mapping[str, Tensor], stream: str) -> dict[str, Tensor]:
    """Drop the stream's prefix if every name has it."""
    prefix = stream + "."
    if all(name.startswith(prefix) for name in state):
        return {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return dict(state)


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() and tensor.dtype != torch.float64 else tensor


def _download(depth: int) -> tuple[dict[str, Tensor], str]:
    """Return torchvision's ImageNet state and its name, from its cache or the network."""
    if depth not in STAGE_UNITS:
        raise ParameterError(f"torchvision has ImageNet weights for depths {', '.join(map(str, STAGE_UNITS))}, not {depth!r}")
    from torchvision.models import get_model_weights

    weights = get_model_weights(f"resnet{depth}").IMAGENET1K_V1
    try:
        state: dict[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except Exception as error:  # no network, no disk, a damaged cache: whatever torch makes of them
        raise CheckpointError(f"could not get {weights} from {weights.url} ({_first_line(error)}); {ALTERNATIVES}") from error
    return state, f"torchvision's {weights}"


def _read_file(path: Path) -> tuple[dict[str, Tensor], bool | None]:
    """Return the state in a file and its word on `stride_in_1x1`, None where it has none."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weights file; {ALTERNATIVES}")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in (".pt", ".pth"):
        return _read_pickle(path), None
    raise CheckpointError(f"{path}: weights are read from .safetensors, .pt and .pth files")


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], bool | None]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: damaged, or no safetensors file ({error}); fetch it again") from error
    stride = metadata.get("stride_in_1x1")
    if stride not in (None, "true", "false"):
        raise CheckpointError(f"{path}: its metadata says stride_in_1x1={stride!r}, which must be 'true' or 'false'")
    return state, None if stride is None else stride == "true"


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd pickles, which are refused below
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: refused, for it is damaged or holds more than tensors and built-in types; nothing in it was run. "
            "Use a .safetensors file"
        ) from error
    except Exception as error:  # a damaged file can make the unpickler raise anything
        raise CheckpointError(f"{path}: damaged, or no file of weights ({_first_line(error)}); fetch it again") from error
    if not isinstance(state, dict) or not all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()):
        raise CheckpointError(f"{path}: holds no plain state dict of names and tensors; save one with torch.save(model.state_dict(), FILE)")
    return dict(state)
