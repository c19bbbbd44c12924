"""The shard format as declarations: groups, attributes, data sets, codecs and limits. Every module that reads or writes shards uses them.

``docs/format.md`` describes the same for people; a test compares the two.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from flowkit.errors import ManifestError, ParameterError, ShardFormatError
from flowkit.flow.methods import NO_FLOW, FlowMethod
from flowkit.quantise import Quantiser
from flowkit.records import canonical_json, is_sha256, parse_json
from flowkit.video.ids import check_video_id
from flowkit.video.reading import Reading
from flowkit.video.segments.segment import check_stored_segment

FORMAT = "flowkit-shard"
FORMAT_VERSION = 1
VIDEOS_GROUP = "videos"  # contains one group per video, named 000000, 000001, ...
CODECS = ("zstd", "gzip", "none", "jpeg", NO_FLOW)

JPEG_QUALITY = 95
ZSTD_FILTER, GZIP_FILTER, FLETCHER32_FILTER = 32015, 1, 3  # numbers of the HDF5 registry
ZSTD_LEVEL, GZIP_LEVEL = 3, 4

# Limits of what a file may declare; beyond them it is refused before memory is allocated.
MAX_VIDEOS = 1_000_000
MAX_SIDE_PX = 16_384
MAX_PIXELS = 1 << 26
MAX_JPEG_BYTES = 1 << 28
MAX_TEXT_BYTES = 16_384

CAMERA_MOTIONS = ("", "sift", "flow")

AttributeKind = Literal["text", "integer"]  # fixed-length UTF-8, padded with NUL; signed 64 bit, little-endian


@dataclass(frozen=True)
class Attribute:
    """One attribute, which is always a scalar. An optional one is stored only if it is not empty."""

    name: str
    kind: AttributeKind
    is_optional: bool = False


@dataclass(frozen=True)
class DataSet:
    """One data set in the group of a video.

    Parameters
    ----------
    name : str
        Name of the data set.
    dtype : str
        NumPy's name of the type, with ``<`` for little-endian, so that a file means the same on every machine.
    shape : tuple of str
        The shape in terms of T (frames), H, W (px) and ``bytes`` (the length of the JPEGs).
    chunk : tuple of str
        Shape of a chunk; empty for contiguous storage.
    codecs : tuple of str
        The codecs whose files contain the data set.
    is_optional : bool
        Whether a file may lack it.
    """

    name: str
    dtype: str
    shape: tuple[str, ...]
    chunk: tuple[str, ...] = ()
    codecs: tuple[str, ...] = CODECS
    is_optional: bool = False


ROOT_ATTRIBUTES = (
    Attribute("format", "text"),
    Attribute("format_version", "integer"),
    Attribute("created_by", "text"),
)

VIDEO_ATTRIBUTES = (
    Attribute("video_id", "text"),
    Attribute("class_name", "text"),
    Attribute("source_name", "text"),
    Attribute("source_sha256", "text"),
    Attribute("frame_rate", "text"),
    Attribute("num_frames", "integer"),
    Attribute("header_frames", "integer"),
    Attribute("decode_errors", "integer"),
    Attribute("codec", "text"),
    Attribute("quantiser", "text"),
    Attribute("tvl1", "text"),
    Attribute("solver", "text"),
    Attribute("method", "text", is_optional=True),
    Attribute("camera_motion", "text", is_optional=True),
    Attribute("losses", "text", is_optional=True),
    Attribute("notes", "text", is_optional=True),
    Attribute("reading", "text", is_optional=True),
    Attribute("source_frames", "integer", is_optional=True),
    Attribute("segment", "text", is_optional=True),
    Attribute("sha256", "text"),
)

CHUNKED = ("zstd", "gzip", "none")

DATA_SETS = (
    DataSet("flow", "<u1", ("T-1", "2", "H", "W"), ("1", "2", "H", "W"), codecs=CHUNKED),
    DataSet("flow", "<u1", ("bytes",), codecs=("jpeg",)),
    DataSet("flow_offsets", "<i8", ("2(T-1)+1",), codecs=("jpeg",)),
    DataSet("flow_crc32", "<u4", ("2(T-1)",), codecs=("jpeg",)),
    DataSet("frames", "<u1", ("bytes",)),
    DataSet("frame_offsets", "<i8", ("T+1",)),
    DataSet("frame_crc32", "<u4", ("T",)),
    DataSet("times", "<f8", ("T",), is_optional=True),
)

# HDF5 filters of `flow`, in the order in which they are applied when writing.
FILTERS: dict[str, tuple[int, ...]] = {
    "zstd": (ZSTD_FILTER, FLETCHER32_FILTER),
    "gzip": (GZIP_FILTER, FLETCHER32_FILTER),
    "none": (FLETCHER32_FILTER,),
}


def data_sets(codec: str) -> dict[str, DataSet]:
    """Return the data sets of a video that is stored with `codec`, by name."""
    return {data_set.name: data_set for data_set in DATA_SETS if codec in data_set.codecs}


def group_name(index: int) -> str:
    """Return the name of the group of the video with this index."""
    return f"{index:06d}"


@dataclass(frozen=True)
class ClipAttributes:
    """What is stored about a clip besides its pixels, as attributes; it is checked whenever an object is made.

    Parameters
    ----------
    video_id : str
        The path of the video relative to the folder of videos, without suffix, with ``/`` between folders.
    class_name : str
        The folder that contained the video; may be empty. Labels come from the manifest of a split, not from here.
    source_name : str
        The name of the video file.
    source_sha256 : str
        SHA-256 of the video file, in hexadecimal; empty if there was no such file.
    frame_rate : str
        Frames per second as a fraction, ``"25/1"``; ``"0/1"`` if unknown.
    num_frames : int
        Number of frames, T, at least 2.
    header_frames : int
        Number of frames that the container promised; 0 if it gave no number.
    decode_errors : int
        Number of packets and frames that could not be decoded.
    codec : {"zstd", "gzip", "none", "jpeg", "no-flow"}
        How the flow is stored; ``no-flow`` if there is none.
    quantiser : dict
        ``bound`` in px/frame and ``mapping``, as `Quantiser.to_dict` returns them.
    tvl1 : dict
        The parameters of TV-L1; empty if they are not known.
    solver : str
        The solver that computed the flow: ``strict``, ``fast``, ``cuda``, the tool from which it was imported, or
        the name of `method`; ``no-flow`` if there is none.
    method : dict
        The flow method, by ``name``, and its parameters, if it is not TV-L1.
    camera_motion : {"", "sift", "flow"}
        How the camera's motion was found that was removed before the flow was computed; empty if it was not removed.
    losses : str
        What was lost of the video, in words, if the counts above do not say it all.
    notes : str
        What is odd about the video but no damage, in words.
    reading : dict
        Which frames of the video were chosen, as `Reading.to_dict` returns it; empty if all were.
    source_frames : int
        Number of frames of the video that were decoded, if only some were chosen; otherwise 0.
    segment : dict
        If the clip is a part of a video: the ``video_id`` of that video, and ``start_frame`` and ``end_frame``; otherwise empty.

    Raises
    ------
    ShardFormatError
        If a value has a wrong type or is out of its range.
    """

    video_id: str
    class_name: str
    source_name: str
    source_sha256: str
    frame_rate: str
    num_frames: int
    header_frames: int
    decode_errors: int
    codec: str
    quantiser: dict[str, Any]
    tvl1: dict[str, Any]
    solver: str
    method: dict[str, Any] = field(default_factory=dict)
    camera_motion: str = ""
    losses: str = ""
    notes: str = ""
    reading: dict[str, Any] = field(default_factory=dict)
    source_frames: int = 0
    segment: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            check_video_id(self.video_id)
        except ManifestError as cause:
            raise ShardFormatError(str(cause)) from cause
        for name in ("class_name", "source_name", "source_sha256", "frame_rate", "codec", "solver", "losses", "notes"):
            _check_text(name, getattr(self, name))
        for name, least in (("num_frames", 2), ("header_frames", 0), ("decode_errors", 0), ("source_frames", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 1 << 62:
                raise ShardFormatError(f"{name} must be a whole number of at least {least}, got {value!r}")
        if self.source_sha256 and not is_sha256(self.source_sha256):
            raise ShardFormatError(f"source_sha256 must be 64 hexadecimal digits or empty, got {self.source_sha256!r}")
        if not re.fullmatch(r"(0|[1-9][0-9]{0,9})/[1-9][0-9]{0,9}", self.frame_rate):
            raise ShardFormatError(f'frame_rate must be a fraction such as "25/1", got {self.frame_rate!r}')
        if self.codec not in CODECS:
            raise ShardFormatError(f"codec must be one of {', '.join(CODECS)}, got {self.codec!r}")
        if self.camera_motion not in CAMERA_MOTIONS:
            raise ShardFormatError(f"camera_motion must be sift, flow or empty, got {self.camera_motion!r}")
        if not self.solver:
            raise ShardFormatError("solver must not be empty")
        for name in ("quantiser", "tvl1", "method", "reading", "segment"):
            _check_settings(name, getattr(self, name))
        if (self.codec == NO_FLOW) != (self.solver == NO_FLOW):
            raise ShardFormatError(f"codec and solver must both be {NO_FLOW} or neither, got {self.codec!r} and {self.solver!r}")
        if not self.has_flow and (self.tvl1 or self.method or self.camera_motion):
            raise ShardFormatError("tvl1, method and camera_motion are of flow, and there is none")
        try:
            Quantiser.from_dict(self.quantiser)
            Reading.from_dict(self.reading)
            if self.segment:
                check_stored_segment(self.segment)
            if self.method and FlowMethod.from_dict(self.method).name != self.solver:
                raise ShardFormatError(f"solver must name the flow method, {self.method['name']!r}, got {self.solver!r}")
        except ParameterError as cause:
            raise ShardFormatError(str(cause)) from cause

    @property
    def has_flow(self) -> bool:
        """Whether the clip has flow, and not frames only."""
        return self.codec != NO_FLOW

    def to_stored(self) -> dict[str, str | int]:
        """Return the values as they are stored: text and integers, with dictionaries as canonical JSON, without empty optional ones."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        for attribute in VIDEO_ATTRIBUTES:
            if attribute.is_optional and not values[attribute.name]:
                del values[attribute.name]
        return {name: canonical_json(value) if isinstance(value, dict) else value for name, value in values.items()}

    @classmethod
    def from_stored(cls, stored: dict[str, str | int]) -> ClipAttributes:
        """Return attributes from what a file contains, without the stored `sha256`, which is not one of them."""
        values: dict[str, Any] = dict(stored)
        for name in values.keys() & {"quantiser", "tvl1", "method", "reading", "segment"}:
            try:
                values[name] = parse_json(values[name])
            except ValueError as cause:
                raise ShardFormatError(f"attribute {name} is not JSON: {values[name]!r}") from cause
        return cls(**values)

    def to_json(self) -> str:
        """Return everything as one line of canonical JSON, with which the sha256 of the clip begins."""
        return canonical_json(self.to_stored())


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise ShardFormatError(f"{name} must be text, got {value!r}")
    try:
        num_bytes = len(value.encode("utf-8"))
    except UnicodeEncodeError as cause:
        raise ShardFormatError(f"{name} {value!r} is not valid Unicode; rename the file") from cause
    if "\0" in value or num_bytes > MAX_TEXT_BYTES:
        raise ShardFormatError(f"{name} must contain no NUL and at most {MAX_TEXT_BYTES} bytes, got {value[:80]!r} ({num_bytes} bytes)")


def _check_settings(name: str, value: object) -> None:
    """Require a flat dictionary of numbers, strings and booleans, which JSON stores without loss."""
    if not isinstance(value, dict) or len(value) > 64:
        raise ShardFormatError(f"{name} must be a dictionary of settings, got {str(value)[:200]!r}")
    for key, entry in value.items():
        finite = not isinstance(entry, float) or math.isfinite(entry)
        if not isinstance(key, str) or not isinstance(entry, (str, int, float, bool)) or not finite:
            raise ShardFormatError(f"{name} must contain numbers, strings and booleans, got {key!r}: {entry!r}")
    _check_text(name, canonical_json(value))
