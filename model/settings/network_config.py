"""What the settings of every kind of network have in common (standard library only)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal, get_args

from flowkit.errors import ParameterError

StreamName = Literal["appearance", "motion"]
View = Literal["whole", "centre"]
STREAMS: tuple[StreamName, ...] = get_args(StreamName)
TEMPORAL_POOL_SIZE = 5  # samples
MANY_CLIPS = 1 << 16  # more than a video has


@dataclass(frozen=True)
class ClipPlan:
    """How a network sees a video that does not look at single frames and stacks: as clips of consecutive frames.

    Parameters
    ----------
    length : int
        Frames of a clip. The network receives the frames, or flow fields, of n clips one after the other.
    stride : int
        The distance between the first frames of neighbouring clips in a test.
    training_stride : int
        The same for the clips from which training draws.
    first : int
        The first frame of the first of these.
    most : int
        The largest number of clips in a test; of more, so many are taken at equal distances.
    view : {"whole", "centre"}
        What a test sees of a frame: all of it; or the centre, of the size of a training crop, of a frame that is resized to 128 x 171 px
        for crops of 112 px.
    """

    length: int
    stride: int
    training_stride: int
    first: int = 0
    most: int = MANY_CLIPS
    view: View = "whole"


class NetworkConfig:
    """The base of the settings of networks: a frozen dataclass for each kind of network, stored in every checkpoint.

    Everything outside `flowkit.model.networks` knows a network through these settings only. Each kind has a name, which
    ``config.json`` stores as ``kind``; a record without one has the settings of a residual network.

    Examples
    --------
    >>> from flowkit.model import STResNetConfig
    >>> config = STResNetConfig(num_classes=5)
    >>> config.kinds, config.streams_of("motion"), config.streams_of("st-resnet")
    (('residual',), ('motion',), ('appearance', 'motion'))
    """

    kinds: ClassVar[tuple[str, ...]]  # the names under which they are stored
    learns_from_features: ClassVar[bool] = False  # it is trained on features that the phase from which it starts gives whole videos
    alike: ClassVar[tuple[str, ...]] = ()  # what all networks from which phases start together must have in common
    num_classes: int
    input_size: int

    def streams_of(self, phase: str) -> tuple[StreamName, ...]:
        """Return the streams of the network: what it reads, frames or stacks of flow, and what it gives scores for.

        A phase whose name is that of a stream, or ends with it, trains that stream by itself; any other trains all streams.
        """
        return tuple(stream for stream in STREAMS if phase == stream or phase.endswith(f"-{stream}")) or STREAMS

    @property
    def clip_plan(self) -> ClipPlan | None:
        """How the network sees a video as clips of consecutive frames; None if it sees single frames and stacks of flow."""
        return None

    @property
    def feature_settings(self) -> tuple[str, ...]:
        """Settings that change such features but no tensor, beside `kept_settings`; the phase from which it starts must have the same."""
        return ()

    def temporal_reach(self, phase: str) -> int:
        """Return how many samples before and after a time step have an influence on it, before time is pooled."""
        return 0

    def temporal_stride(self, phase: str) -> int:
        """Return the stride of the max pooling over time; 0 if time is not pooled."""
        return 0

    def num_outputs(self, phase: str, num_samples: int) -> int:
        """Return T', the number of time steps for which the network has scores of a clip of `num_samples`."""
        stride = self.temporal_stride(phase)
        return pooled_length(num_samples, stride) if stride else num_samples

    def has_dropout(self, phase: str) -> bool:
        """Return whether the network draws random numbers in training."""
        return False

    @property
    def has_batch_norm(self) -> bool:
        """Whether the network has running moments, which may be renewed after the last step."""
        return False

    @property
    def frame_cost(self) -> float:
        """The memory for the activations of one frame in training, in units of a ResNet-50 that sees 224 px."""
        return (self.input_size / 224) ** 2

    @property
    def least_tensors(self) -> int:
        """A number of tensors that the network's state surely has; a file with fewer is not worth building the network."""
        return 1

    def metadata(self) -> dict[str, str]:
        """Return what the header of a file of weights says of the network beside its provenance."""
        return {}

    def kept_settings(self, phase: str) -> tuple[str, ...]:
        """Return the settings that change what the network computes but no tensor; a phase that starts from it must have the same."""
        return ()

    def adopted(self, its_streams: tuple[str, ...], streams: tuple[str, ...]) -> dict[str, Any]:
        """Return the settings that a network with these streams takes from this one, which has `its_streams`, if it starts from it."""
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name != "num_classes"}  # type: ignore[arg-type]

    def must_match(self, other: NetworkConfig, its_streams: tuple[str, ...], streams: tuple[str, ...]) -> tuple[str, ...]:
        """Return the settings in which `other`, a network with these streams that starts from this one, may not differ from it."""
        return tuple(name for name in self.adopted(its_streams, streams) if name != "input_size")

    def shown_settings(self, phase: str) -> tuple[str, ...]:
        """Return the settings that are worth a line where a phase takes them from another network."""
        return tuple(item.name for item in fields(self) if item.name != "num_classes")  # type: ignore[arg-type]

    def note_of_one_stream(self) -> str:
        """Return what happens to the weights of one stream where a network of that stream alone starts from this one."""
        return ""

    def described(self, phase: str) -> dict[str, str]:
        """Return in words what a report says of the network, under ``network`` and further names."""
        values = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "num_classes"}  # type: ignore[arg-type]
        return {"network": f"{self.kinds[0]}: {', '.join(f'{name} {value}' for name, value in values.items())}"}

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as built-in types."""
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}  # type: ignore[call-overload]
        return {"kind": self.kinds[0], **values}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> NetworkConfig:
        """Make the settings from what `to_dict` returned; an unknown name raises `ParameterError`."""
        given = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        known = {item.name for item in fields(cls)}  # type: ignore[arg-type]
        unknown = sorted(set(given) - known - {"kind"})
        if unknown:
            raise ParameterError(f"unknown network settings: {', '.join(unknown)}")
        return cls(**{name: value for name, value in given.items() if name in known})


def pooled_length(num_samples: int, stride: int = 2) -> int:
    """Return the time steps that max pooling over time leaves of `num_samples`: with stride 2, 5 -> 1, 11 -> 4, 25 -> 11."""
    return (num_samples - min(TEMPORAL_POOL_SIZE, num_samples)) // stride + 1
