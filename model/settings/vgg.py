"""The settings of VGG networks, as a frozen dataclass, and the sizes of their maps (standard library only)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, get_args

from flowkit.model.settings.checks import brief_repr, check, check_choices, from_record, is_int, is_number, numbers, to_record
from flowkit.model.settings.network import INPUT_SIZES, LARGEST_RGB_OFFSET
from flowkit.model.settings.network_config import NetworkConfig

VggKind = Literal["vgg-m", "vgg-16"]


class VggLayer(NamedTuple):
    """One layer before the classifier: a convolution with its ReLU, a local response normalisation, or a max pool.

    Parameters
    ----------
    kind : {"conv", "lrn", "pool"}
        What it does.
    kernel, stride, padding : int, px
        Its window. A pool rounds the size of its result up, so that its last window may begin inside the map and end outside.
    channels : int
        The channels that a convolution returns, at width 1.
    """

    kind: Literal["conv", "lrn", "pool"]
    kernel: int = 0
    stride: int = 1
    padding: int = 0
    channels: int = 0

    def side(self, before: int) -> int:
        """Return how many rows of maps the layer makes of so many; 0 if they are too few for it."""
        if self.kind == "lrn":
            return before
        room = before + 2 * self.padding - self.kernel
        return max(-(-room // self.stride) + 1 if self.kind == "pool" else room // self.stride + 1, 0)


def _convs(count: int, channels: int) -> tuple[VggLayer, ...]:
    return (VggLayer("conv", 3, 1, 1, channels),) * count


_LRN, _POOL_2, _POOL_3 = VggLayer("lrn"), VggLayer("pool", 2, 2), VggLayer("pool", 3, 2)
# In the order of execution. The last one is the pool before the classifier.
LAYERS: dict[VggKind, tuple[VggLayer, ...]] = {
    "vgg-m": (
        *(VggLayer("conv", 7, 2, 0, 96), _LRN, _POOL_3),
        *(VggLayer("conv", 5, 2, 1, 256), _LRN, _POOL_3),
        *(*_convs(3, 512), _POOL_3),
    ),
    "vgg-16": (
        *(*_convs(2, 64), _POOL_2, *_convs(2, 128), _POOL_2),
        *(*_convs(3, 256), _POOL_2, *_convs(3, 512), _POOL_2, *_convs(3, 512), _POOL_2),
    ),
}
VALUES_OF_RESNET_50 = 25e6  # of all maps that training keeps of a frame of 224 px
HIDDEN: dict[VggKind, tuple[int, int]] = {"vgg-m": (4096, 2048), "vgg-16": (4096, 4096)}  # units of the first two fully connected layers


@dataclass(frozen=True)
class VggConfig(NetworkConfig):
    """The architecture of a VGG stream; stored in every checkpoint.

    Parameters
    ----------
    num_classes : int
        Number of classes, at least 1.
    kind : {"vgg-m", "vgg-16"}
        VGG-M-2048 of Chatfield et al., or configuration D of Simonyan and Zisserman.
    width : float
        The channels of each layer, and the units of each hidden layer, as a share of the published ones: above 0, at most 1.
    input_size : int, px
        S, the side of a training crop, at most 4096; the window of the first fully connected layer follows from it.
    dropout : tuple of 2 float
        Dropout after the first and after the second fully connected layer, in [0, 1).
    rgb_offset : tuple of 3 float
        Subtracted from the normalised RGB input, so that the zero padding stands for another mean colour than ImageNet's; see
        `STResNetConfig`.
    lrn : tuple of (int, float, float, float)
        Size, alpha, beta and k of local response normalisation, ``x / (k + alpha / size * sum of squares over size channels) ** beta``.
    without_mean : bool
        Subtract from u and v of each flow field their mean over what the network sees of it, which removes a translation of the camera.

    Raises
    ------
    ParameterError
        If a value is not one of those listed, or the crop is too small for the network.

    References
    ----------
    K. Chatfield, K. Simonyan, A. Vedaldi, A. Zisserman, "Return of the Devil in the Details", BMVC 2014. K. Simonyan, A. Zisserman,
    "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015.

    Examples
    --------
    >>> from flowkit.model.settings.vgg import VggConfig
    >>> config = VggConfig(num_classes=101)
    >>> config.sides(224)  # after each convolution and each pool
    (109, 54, 26, 13, 13, 13, 13, 6)
    >>> VggConfig(num_classes=5, width=0.125, input_size=64).head_window
    1
    >>> VggConfig.from_dict(config.to_dict()) == config
    True
    """

    kinds: ClassVar[tuple[str, ...]] = get_args(VggKind)
    num_classes: int
    kind: VggKind = "vgg-m"
    width: float = 1.0
    input_size: int = 224
    dropout: tuple[float, float] = (0.5, 0.5)
    rgb_offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    lrn: tuple[int, float, float, float] = (5, 5e-4, 0.75, 2.0)
    without_mean: bool = False

    __repr__ = brief_repr

    def __post_init__(self) -> None:
        check_choices(self)
        check(is_int(self.num_classes) and self.num_classes >= 1, "num_classes", "a whole number of at least 1", self.num_classes)
        check(is_number(self.width) and 0 < self.width <= 1, "width", "above 0 and at most 1", self.width)
        smallest, largest = self._smallest_input(), INPUT_SIZES[1]
        good = is_int(self.input_size) and smallest <= self.input_size <= largest
        check(good, "input_size", f"a whole number of {smallest} to {largest} for {self.kind}", self.input_size)
        rates = numbers(self.dropout, 2)
        check(all(0 <= rate < 1 for rate in rates) and bool(rates), "dropout", "two numbers in [0, 1)", self.dropout)
        offset = numbers(self.rgb_offset, 3)
        good = bool(offset) and all(abs(value) <= LARGEST_RGB_OFFSET for value in offset)
        check(good, "rgb_offset", f"three numbers of -{LARGEST_RGB_OFFSET:g} to {LARGEST_RGB_OFFSET:g}", self.rgb_offset)
        lrn = numbers(self.lrn, 4)
        good = bool(lrn) and is_int(self.lrn[0]) and lrn[0] >= 1 and lrn[0] % 2 == 1 and all(0 < value <= 1e3 for value in lrn)
        check(good, "lrn", "an odd whole number and three positive numbers", self.lrn)
        for name, value in {
            "width": float(self.width),
            "dropout": rates,
            "rgb_offset": offset,
            "lrn": (int(lrn[0]), *lrn[1:]),
        }.items():
            object.__setattr__(self, name, value)

    @property
    def backbone(self) -> VggKind:
        """Which of the two VGG networks it is."""
        return self.kind

    @property
    def layers(self) -> tuple[VggLayer, ...]:
        """The layers before the classifier, with the channels of this width."""
        return tuple(layer._replace(channels=self._narrowed(layer.channels)) for layer in LAYERS[self.backbone])

    @property
    def hidden(self) -> tuple[int, int]:
        """Units of the first and of the second fully connected layer."""
        first, second = HIDDEN[self.backbone]
        return self._narrowed(first), self._narrowed(second)

    @property
    def channels(self) -> int:
        """Channels of the maps that the classifier receives."""
        return next(layer.channels for layer in reversed(self.layers) if layer.channels)

    @property
    def head_window(self) -> int:
        """Side of the maps that the classifier receives from a training crop: 6 or 7 for 224 px."""
        return self.sides(self.input_size)[-1]

    def sides(self, side: int) -> tuple[int, ...]:
        """Return the side of the maps after each convolution and each pool, for an image with this side."""
        found = []
        for layer in LAYERS[self.backbone]:
            side = layer.side(side)
            if layer.kind != "lrn":
                found.append(side)
        return tuple(found)

    def has_dropout(self, phase: str) -> bool:
        """Return whether the network draws random numbers in training."""
        return any(self.dropout)

    @property
    def frame_cost(self) -> float:
        """The memory for the activations of one frame in training, in units of a ResNet-50 that sees 224 px."""
        layers = [layer for layer in self.layers if layer.kind != "lrn"]
        values, channels = 0, 0
        for side, layer in zip(self.sides(self.input_size), layers, strict=True):
            channels = layer.channels or channels
            values += channels * side**2
        return values / VALUES_OF_RESNET_50

    def kept_settings(self, phase: str) -> tuple[str, ...]:
        """Return the settings that change what the network computes but no tensor; a phase that starts from it must have the same."""
        streams = self.streams_of(phase)
        return ("lrn", *(("rgb_offset",) if "appearance" in streams else ()), *(("without_mean",) if "motion" in streams else ()))

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as built-in types."""
        return to_record(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VggConfig:
        """Make a configuration from what `to_dict` returned; an unknown name raises `ParameterError`."""
        return from_record(cls, values)

    def _narrowed(self, channels: int) -> int:
        return max(round(channels * self.width), 1) if channels else 0

    def _smallest_input(self) -> int:
        """Return the smallest image of which every layer makes at least one pixel, at least 32."""
        return next(side for side in range(INPUT_SIZES[0], INPUT_SIZES[1]) if min(self.sides(side)) >= 1)
