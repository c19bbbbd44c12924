"""The settings of an ST-ResNet, as a frozen dataclass (standard library only)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal

from flowkit.errors import ParameterError
from flowkit.model.settings.checks import brief_repr, check, check_choices, is_int, is_number
from flowkit.model.settings.network_config import NetworkConfig, StreamName

Injection = Literal["none", "residual", "direct"]
InjectionDirection = Literal["motion_to_appearance", "appearance_to_motion", "both"]
InjectionKind = Literal["additive", "multiplicative"]
TemporalInit = Literal["average", "center"]
TemporalPadding = Literal["zeros", "replicate"]
TemporalPoolPosition = Literal["after_pool5", "before_pool5"]
HeadPool = Literal["7x7", "global"]
StemPool = Literal["same", "ceil"]

STAGE_UNITS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
DEPTH_OF_UNITS: dict[tuple[int, ...], int] = {units: depth for depth, units in STAGE_UNITS.items()}
STAGES = (2, 3, 4, 5)  # the stages of residual units as the paper counts them: conv2_x to conv5_x
INPUT_SIZES = (32, 4096)  # px; no tensor depends on it, so without a limit foreign weights could ask for any amount of memory
NUM_RGB_CHANNELS = 3
BATCH_NORM_EPS = 1e-5
LARGEST_RGB_OFFSET = 5.0  # in units of the normalised input, whose whole range is narrower
NUM_FLOW_FIELDS = 10  # L: flow fields in one stack, 2L input channels
NUM_CHANNELS: dict[StreamName, int] = {"appearance": NUM_RGB_CHANNELS, "motion": 2 * NUM_FLOW_FIELDS}  # of each stream's input


# Which settings one network takes from another, by what they concern.
_OF_STREAMS = ("units", "base_width", "stride_in_1x1", "stem_pool")
_FREE = ("input_size", "head_pool")  # no tensor depends on them, so the user may choose others
_OF_TIME_POOL = ("temporal_pool_position", "temporal_pool_stride")
_OF_TWO_STREAMS = (
    *("injection", "injection_direction", "injection_kind", "injection_stages"),
    *("temporal_convolution", "temporal_padding", "temporal_stages"),
)
_JOINING = ("injection", "injection_direction", "injection_kind", "injection_stages", "temporal_padding")
_CONVS_PER_UNIT = 2  # both 1x1 convolutions of unit b extend over three samples


@dataclass(frozen=True)
class STResNetConfig(NetworkConfig):
    """The architecture of an `STResNet`; stored in every checkpoint.

    Parameters
    ----------
    num_classes : int
        Number of classes, at least 1.
    depth : {50, 101, 152}
        Bottleneck ResNet depth; ignored where `stage_units` is given.
    stage_units : tuple of 4 int, optional
        Residual units per stage, at least 2 each (the second, unit b, has the temporal convolutions). Default: those of `depth`.
    base_width : int
        Channels of conv1; stage k has ``base_width * 2**k`` bottleneck channels. 64 is ResNet's.
    input_size : int, px
        S, the side of a training crop, 32 to 4096. Test sides are clamped to [S, 2S]; the head's window is ``ceil(S/32)``.
    stride_in_1x1 : bool
        Put a stage's stride on the first 1x1 convolution (the original layout of He et al.) instead of the 3x3 (torchvision's).
    stem_pool : {"same", "ceil"}
        How the first max pool (3x3, stride 2) is aligned: padded by one on all sides, as torchvision's, or only after the last row
        and column, as Caffe's, with which the authors' ImageNet weights were trained.
    rgb_offset : tuple of 3 float
        Subtracted from the normalised RGB input before conv1, so that its zero padding stands for another mean colour than
        ImageNet's. Converted networks need it; training starts with zeros.
    injection : {"none", "residual", "direct"}
        How one stream enters the other before unit b of a stage. ``residual``: it is added to the input of the residual branch only
        (eq. 2 of the paper). ``direct``: to that and to the identity path.
    injection_direction : {"motion_to_appearance", "appearance_to_motion", "both"}
        Which stream enters which; in the paper, motion enters appearance (eq. 2).
    injection_kind : {"additive", "multiplicative"}
        The paper adds (eq. 2); multiplicative gating is the authors' follow-up (CVPR 2017).
    injection_stages : tuple of int
        The stages, out of 2 to 5, in which one stream enters the other; all in the paper (Table 1).
    temporal_convolution : bool
        Whether the 1x1 convolutions of unit b are 1x1x3 (space x time).
    temporal_stages : tuple of int
        The stages, out of 2 to 5, that have temporal convolutions; all in the paper (Table 1).
    temporal_init : {"average", "center"}
        Taps of a convolution that is inflated in time: w/3 each (eq. 5), or (0, w, 0) as in the follow-up (CVPR 2017, where the
        temporal convolutions are separate layers).
    temporal_padding : {"zeros", "replicate"}
        What lies before the first and after the last frame of a clip: zeros, or that frame again.
    temporal_pool : bool
        Max pooling over time, size 5; it makes the network an ST-ResNet*.
    temporal_pool_position : {"after_pool5", "before_pool5"}
        Whether time is pooled after or before the average pool over space.
    temporal_pool_stride : {1, 2}
        The stride of the max pooling over time: 2 in ST-ResNet* (STResNet_stage2.m:30-32), 1 in the follow-up (CVPR 2017).
    head_pool : {"7x7", "global"}
        Window of the average pool before the classifier: ``ceil(S/32)`` with stride 1 (7 for 224 px), or the whole map.
    motion_dropout : float
        Dropout before the motion classifier, in [0, 1). The official code's motion base stream has 0.8 (cnn_ucf101_temporal.m:25),
        everything else none.

    Raises
    ------
    ParameterError
        If a value is not one of those listed.

    References
    ----------
    C. Feichtenhofer, A. Pinz, R. P. Wildes, "Spatiotemporal Residual Networks for Video Action Recognition", NIPS 2016,
    arXiv:1611.02155; the same authors, "Spatiotemporal Multiplier Networks for Video Action Recognition", CVPR 2017.

    Examples
    --------
    >>> from flowkit.model import STResNetConfig
    >>> STResNetConfig(num_classes=101)  # shows what is not the default
    STResNetConfig(num_classes=101)
    >>> config = STResNetConfig(num_classes=5, base_width=4, stage_units=(2, 2, 2, 2), input_size=32)
    >>> config.head_window
    1
    >>> STResNetConfig.from_dict(config.to_dict()) == config
    True
    """

    kinds: ClassVar[tuple[str, ...]] = ("residual",)
    alike: ClassVar[tuple[str, ...]] = _OF_STREAMS
    num_classes: int
    depth: int = 50
    stage_units: tuple[int, int, int, int] | None = None
    base_width: int = 64
    input_size: int = 224
    stride_in_1x1: bool = False
    stem_pool: StemPool = "same"
    rgb_offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    injection: Injection = "residual"
    injection_direction: InjectionDirection = "motion_to_appearance"
    injection_kind: InjectionKind = "additive"
    injection_stages: tuple[int, ...] = STAGES
    temporal_convolution: bool = True
    temporal_stages: tuple[int, ...] = STAGES
    temporal_init: TemporalInit = "average"
    temporal_padding: TemporalPadding = "zeros"
    temporal_pool: bool = False
    temporal_pool_position: TemporalPoolPosition = "after_pool5"
    temporal_pool_stride: int = 2
    head_pool: HeadPool = "7x7"
    motion_dropout: float = 0.0

    __repr__ = brief_repr

    def __post_init__(self) -> None:
        check_choices(self)
        for name in ("num_classes", "base_width"):
            value = getattr(self, name)
            check(is_int(value) and value >= 1, name, "a whole number of at least 1", value)
        smallest, largest = INPUT_SIZES
        good = is_int(self.input_size) and smallest <= self.input_size <= largest
        check(good, "input_size", f"a whole number of {smallest} to {largest}", self.input_size)
        if self.stage_units is None:
            good = is_int(self.depth) and self.depth in STAGE_UNITS
            check(good, "depth", f"one of {', '.join(map(str, STAGE_UNITS))} (or give stage_units)", self.depth)
        else:
            units = tuple(self.stage_units) if isinstance(self.stage_units, (tuple, list)) else ()
            check(
                len(units) == 4 and all(is_int(n) and n >= 2 for n in units),
                "stage_units",
                "four whole numbers of at least 2",
                self.stage_units,
            )
            object.__setattr__(self, "stage_units", units)
        for name, otherwise in (("injection_stages", "injection none"), ("temporal_stages", "temporal_convolution false")):
            object.__setattr__(self, name, _stages(name, getattr(self, name), otherwise))
        offset = tuple(self.rgb_offset) if isinstance(self.rgb_offset, (tuple, list)) else ()
        good = len(offset) == 3 and all(is_number(value) and abs(value) <= LARGEST_RGB_OFFSET for value in offset)
        check(good, "rgb_offset", f"three numbers of -{LARGEST_RGB_OFFSET:g} to {LARGEST_RGB_OFFSET:g}", self.rgb_offset)
        object.__setattr__(self, "rgb_offset", tuple(map(float, offset)))
        good = is_int(self.temporal_pool_stride) and self.temporal_pool_stride in (1, 2)
        check(good, "temporal_pool_stride", "1 or 2", self.temporal_pool_stride)
        good = is_number(self.motion_dropout) and 0 <= self.motion_dropout < 1
        check(good, "motion_dropout", "in [0, 1)", self.motion_dropout)

    @property
    def units(self) -> tuple[int, int, int, int]:
        """Residual units of each stage."""
        return self.stage_units or STAGE_UNITS[self.depth]

    @property
    def head_window(self) -> int:
        """Side of the average-pooling window on the last feature map: 7 for 224 px."""
        return math.ceil(self.input_size / 32)

    def temporal_reach(self, phase: str) -> int:
        """Return how far the temporal convolutions of all stages see; base streams look at each sample by itself."""
        return _CONVS_PER_UNIT * len(self.temporal_stages) if self.temporal_convolution and len(self.streams_of(phase)) > 1 else 0

    def temporal_stride(self, phase: str) -> int:
        """Return the stride of the max pooling over time; 0 if time is not pooled."""
        return self.temporal_pool_stride if self.temporal_pool and len(self.streams_of(phase)) > 1 else 0

    def has_dropout(self, phase: str) -> bool:
        """Return whether the network draws random numbers in training."""
        return bool(self.motion_dropout) and "motion" in self.streams_of(phase)

    @property
    def has_batch_norm(self) -> bool:
        """Whether the network has running moments, which may be renewed after the last step."""
        return True

    @property
    def frame_cost(self) -> float:
        """The memory for the activations of one frame in training, in units of a ResNet-50 that sees 224 px."""
        return (self.input_size / 224) ** 2 * self.base_width / 64 * sum(self.units) / 16

    @property
    def least_tensors(self) -> int:
        """The number of residual units, each of which has several tensors."""
        return sum(self.units)

    def metadata(self) -> dict[str, str]:
        """Return which convolution has a stage's stride, which other programs cannot see in the weights."""
        return {"stride_in_1x1": str(self.stride_in_1x1).lower()}

    def kept_settings(self, phase: str) -> tuple[str, ...]:
        """Return the settings that change what the network computes but no tensor; a phase that starts from it must have the same."""
        streams = self.streams_of(phase)
        offset = ("rgb_offset",) if "appearance" in streams else ()
        return ("stride_in_1x1", "stem_pool", *offset, *(_JOINING if len(streams) > 1 else ()))

    def adopted(self, its_streams: tuple[str, ...], streams: tuple[str, ...]) -> dict[str, Any]:
        """Return the settings that a network with these streams takes from this one, which has `its_streams`, if it starts from it."""
        names = ["base_width", "stride_in_1x1", "stem_pool", *_FREE, "depth" if self.stage_units is None else "stage_units"]
        names += ["rgb_offset"] if "appearance" in its_streams else []
        names += _OF_TWO_STREAMS if len(its_streams) > 1 and len(streams) > 1 else ()
        names += _OF_TIME_POOL if self.temporal_pool else ()
        return {name: getattr(self, name) for name in names}

    def must_match(self, other: NetworkConfig, its_streams: tuple[str, ...], streams: tuple[str, ...]) -> tuple[str, ...]:
        """Return the settings in which `other`, a network with these streams that starts from this one, may not differ from it."""
        offset = ("rgb_offset",) if "appearance" in its_streams and "appearance" in streams else ()
        if len(its_streams) == 1 or len(streams) == 1:
            return (*_OF_STREAMS, *offset)
        pools = self.temporal_pool and getattr(other, "temporal_pool", False)
        return (*_OF_STREAMS, *offset, *_OF_TWO_STREAMS, *(_OF_TIME_POOL if pools else ()))

    def shown_settings(self, phase: str) -> tuple[str, ...]:
        """Return the settings that are worth a line where a phase takes them from another network."""
        joined = (*_OF_TWO_STREAMS, *_OF_TIME_POOL) if len(self.streams_of(phase)) > 1 else ()
        return (*_OF_STREAMS, "rgb_offset", *_FREE, *joined)

    def note_of_one_stream(self) -> str:
        """Return what happens to the weights of one stream where a network of that stream alone starts from this one."""
        return "with its taps in time summed" if self.temporal_convolution else ""

    def described(self, phase: str) -> dict[str, str]:
        """Return in words what a report says of the network, under ``network`` and further names."""
        base = len(self.streams_of(phase)) == 1
        kind = f"{self.injection} injection, {self.injection_direction.replace('_', ' ')}, {self.injection_kind}"
        time = f"{self.temporal_init} taps, {self.temporal_padding} outside" if self.temporal_convolution else "none"
        return {
            "network": f"units {'-'.join(map(str, self.units))}, width {self.base_width}, input {self.input_size} px"
            + (", stride in the 1x1" if self.stride_in_1x1 else ""),
            "streams": "one" if base else "two, not connected" if self.injection == "none" else f"two: {kind}",
            "temporal convolution": "-" if base else time,
            "temporal pooling": f"max, {self.temporal_pool_position.replace('_', ' ')}" if self.temporal_pool and not base else "-",
            "dropout": f"{self.motion_dropout:g}" if self.has_dropout(phase) else "-",
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as built-in types, without a kind, which a residual network has never stored."""
        values = asdict(self)
        values["stage_units"] = list(self.stage_units) if self.stage_units else None
        return values | {name: list(values[name]) for name in ("injection_stages", "temporal_stages", "rgb_offset")}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> STResNetConfig:
        """Make a configuration from what `to_dict` returned; an unknown name raises `ParameterError`."""
        names = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - names - {"kind"})
        if unknown:
            raise ParameterError(f"unknown network settings: {', '.join(unknown)}")
        # The kind itself is a setting only of a class for several kinds.
        given = {name: value for name, value in values.items() if name in names}
        return cls(**{**given, "stage_units": values.get("stage_units") or None})


def _stages(name: str, value: object, otherwise: str) -> tuple[int, ...]:
    """Return the stages in order, each once."""
    given = tuple(value) if isinstance(value, (tuple, list)) else ()
    good = given and all(is_int(stage) and stage in STAGES for stage in given)
    check(bool(good), name, f"a list of some of {', '.join(map(str, STAGES))} (for none: {otherwise})", value)
    return tuple(stage for stage in STAGES if stage in given)
