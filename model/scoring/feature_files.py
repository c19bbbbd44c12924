"""Files of features: one HDF5 file with all videos, which is written in one step and read as foreign data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import FeaturesError
from flowkit.files import remove_leftovers, replacing
from flowkit.model.scoring.plain_hdf5 import group_of, read_data_set, refusing, text_of
from flowkit.records import canonical_json, parse_json
from flowkit.versions import __version__
from flowkit.video.ids import first_few

FORMAT, FORMAT_VERSION = "flowkit-features", 1
TEXTS = ("video_id", "class_name", "frame_rate", "sha256", "source_sha256")  # what is stored of a video as text
# What may be done about other features that are there already.
OTHER_OUTPUT = "give another --output, or --replace"
_KIND = "an HDF5 file of features, as `flowkit features` writes it"


@dataclass(frozen=True)
class VideoFeatures:
    """The features of one video.

    Parameters
    ----------
    video_id : str
        The video.
    class_name : str
        The name of its class; may be empty.
    num_frames : int
        The number of its frames.
    frame_rate : str
        Frames per second, as a fraction; ``0/1`` if it is unknown.
    sha256 : str
        The digest of its clip, as `flowkit.Clip.sha256` gives it.
    frames : int64 array, shape (T',)
        The frame that each time step is about, from 0.
    arrays : dict from stream to float32 array, shape (T', D) or, averaged over time, (1, D)
        The features.
    source_sha256 : str
        The SHA-256 of the video file; empty if it was not noted.
    frame_times : float64 array, shape (T',), s, optional
        The time stamps of `frames`, if the clip has them.

    Examples
    --------
    >>> import numpy as np
    >>> from flowkit.model import VideoFeatures
    >>> arrays = {"motion": np.zeros((3, 2048), np.float32)}
    >>> made = VideoFeatures("run/a", "run", 13, "25/1", "", frames=np.array([5, 6, 7]), arrays=arrays)
    >>> made.times
    array([0.2 , 0.24, 0.28])
    """

    video_id: str
    class_name: str
    num_frames: int
    frame_rate: str
    sha256: str
    frames: NDArray[np.int64]
    arrays: dict[str, NDArray[np.float32]]
    source_sha256: str = ""
    frame_times: NDArray[np.float64] | None = None

    @property
    def times(self) -> NDArray[np.float64] | None:
        """The time of each frame of `frames`, s: its time stamp, or counted from the first frame by the frame rate; None without either."""
        if self.frame_times is not None:
            return self.frame_times
        rate = Fraction(self.frame_rate)
        return self.frames / float(rate) if rate > 0 else None


@dataclass(frozen=True)
class PlannedFeatures:
    """A video whose features are ready to be written, block by block, so that a long one need not fit into memory.

    Parameters
    ----------
    about : VideoFeatures
        Everything but the arrays.
    shapes : dict from stream to (int, int)
        The shape of each array.
    blocks : callable
        Returns the arrays of the video in order, each a dict from stream to float32 array (n, D).
    """

    about: VideoFeatures
    shapes: dict[str, tuple[int, int]]
    blocks: Callable[[], Iterator[Mapping[str, NDArray[np.float32]]]]

    @classmethod
    def of(cls, found: VideoFeatures, read: Callable[[], VideoFeatures]) -> PlannedFeatures:
        """Return what `found` is about, without its arrays, which `read` reads again when they are written."""

        def blocks() -> Iterator[Mapping[str, NDArray[np.float32]]]:
            yield read().arrays

        shapes = {stream: (len(array), array.shape[1]) for stream, array in found.arrays.items()}
        return cls(replace(found, arrays={}), shapes, blocks)


def write_features(path: Path, provenance: Mapping[str, Any], videos: Sequence[PlannedFeatures]) -> None:
    """Write an HDF5 file of features. The same features give the same bytes. What killed calls left beside it is removed.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    import h5py

    with replacing(path) as part, h5py.File(part, "w", libver=("v110", "v110"), track_order=False, locking=False) as file:
        file.attrs.update(
            {"format": np.bytes_(FORMAT), "format_version": FORMAT_VERSION, "created_by": np.bytes_(f"flowkit {__version__}")}
        )
        text = np.frombuffer(canonical_json(provenance).encode("utf-8", "surrogateescape"), np.uint8)
        file.create_dataset("provenance", data=text, track_times=False)
        group = _new_group(file, "videos")
        for number, video in enumerate(videos):
            _write_video(_new_group(group, f"{number:06d}"), video)
    remove_leftovers(path.parent, alone=False)


def _new_group(parent: Any, name: str) -> Any:
    """Make a group that does not record when it was made, so that the same features give the same bytes."""
    import h5py

    properties = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
    properties.set_obj_track_times(False)
    return h5py.Group(h5py.h5g.create(parent.id, name.encode(), gcpl=properties))


def _write_video(group: Any, video: PlannedFeatures) -> None:
    about = video.about
    for name in TEXTS:
        group.attrs[name] = np.bytes_(getattr(about, name).encode("utf-8"))
    group.attrs["num_frames"] = about.num_frames
    group.create_dataset("frames", data=about.frames, track_times=False)
    if about.times is not None:
        group.create_dataset("times", data=about.times, track_times=False)
    stored = {stream: group.create_dataset(stream, shape, np.float32, track_times=False) for stream, shape in video.shapes.items()}
    first = 0
    for block in video.blocks():
        length = len(next(iter(block.values())))
        for stream, data_set in stored.items():  # in this order, because HDF5 allocates the space of a data set when it is first written
            data_set[first : first + length] = block[stream]
        first += length


def holds_other_data(path: Path) -> bool:
    """Return whether a file is an intact HDF5 file of something else than features, such as a shard, which no option may replace."""
    import h5py

    try:
        with h5py.File(path, "r", locking=False) as file:
            return text_of(file.attrs.get("format", "")) != FORMAT
    except (OSError, RuntimeError, ValueError):
        return False


class FeatureFile:
    """An HDF5 file of features, read as foreign data: bounded, and nothing outside the file is opened.

    Parameters
    ----------
    path : path
        The file.

    Raises
    ------
    FeaturesError
        If it is missing, damaged or of another kind or version.

    Attributes
    ----------
    provenance : dict
        What the features depend on.

    Examples
    --------
    >>> from flowkit.dataset.example import example_root
    >>> from flowkit.model import FeatureFile, features, train
    >>> root = example_root()
    >>> tiny = {"base_width": 4, "input_size": 32, "batch": 2, "bn_group": 2, "steps": 1}
    >>> _ = train(root, phases=["appearance"], recipe="small", overrides=tiny)
    >>> stored = FeatureFile(features(root, frames="all", stride=2).path)
    >>> len(stored), stored.provenance["of"]
    (18, 'appearance')
    >>> one = stored.read("colour2-motion1/v17")
    >>> one.frames, one.arrays["appearance"].shape
    (array([ 5,  7,  9, 11, 13]), (5, 128))
    """

    def __init__(self, path: str | Path) -> None:
        import h5py

        self.path = path = Path(path)
        if not path.is_file():
            raise FeaturesError(f"no file of features at {path}; `flowkit features` makes one")
        with refusing(path, _KIND, FeaturesError), h5py.File(path, "r", locking=False) as file:
            kind, version = text_of(file.attrs.get("format", "")), file.attrs.get("format_version")
            if kind != FORMAT:
                raise FeaturesError(f"{path} is no file of features (its format is {kind[:60]!r}); name another file")
            if version != FORMAT_VERSION:
                raise FeaturesError(
                    f"{path} has format version {version!r}, and this flowkit reads version {FORMAT_VERSION}; make it again with "
                    "`flowkit features`"
                )
            self.provenance = checked_provenance(parse_json(read_data_set(file, "provenance").tobytes().decode("utf-8")))
            videos = group_of(file, "videos")
            self._groups = {text_of(group_of(videos, name).attrs["video_id"]): name for name in sorted(videos)}
            attributes = {video_id: videos[name].attrs for video_id, name in self._groups.items()}
            self._digests = {video_id: text_of(stored["sha256"]) for video_id, stored in attributes.items()}
            self._sources = {video_id: text_of(stored.get("source_sha256", "")) for video_id, stored in attributes.items()}
            if len(self._groups) != len(videos):
                raise FeaturesError(f"{path}: a video occurs twice")

    @property
    def video_ids(self) -> tuple[str, ...]:
        """The videos, sorted."""
        return tuple(self._groups)

    def __len__(self) -> int:
        return len(self._groups)

    def digests(self) -> dict[str, str]:
        """Return the digest of the clip of each video."""
        return dict(self._digests)

    def source_digests(self) -> dict[str, str]:
        """Return the SHA-256 of the file of each video; an empty text where it was not noted."""
        return dict(self._sources)

    def read(self, video_id: str) -> VideoFeatures:
        """Return the features of a video.

        Raises
        ------
        FeaturesError
            If there is no such video, or its arrays are damaged.
        """
        (found,) = self.read_all([video_id])
        return found

    def planned(self, video_id: str) -> PlannedFeatures:
        """Return the features of a video so that they can be written to another file; its arrays are read when they are written."""
        return PlannedFeatures.of(self.read(video_id), lambda: self.read(video_id))

    def read_all(self, video_ids: Sequence[str] | None = None) -> Iterator[VideoFeatures]:
        """Yield the features of these videos, or of all."""
        import h5py

        wanted = self.video_ids if video_ids is None else video_ids
        missing = [name for name in wanted if name not in self._groups]
        if missing:
            raise FeaturesError(f"{self.path} has no features of {first_few(missing, most=3)}")
        with refusing(self.path, _KIND, FeaturesError), h5py.File(self.path, "r", locking=False) as file:
            videos = group_of(file, "videos")
            for name in wanted:
                group = group_of(videos, self._groups[name])
                texts = {key: text_of(group.attrs[key]) for key in TEXTS if key != "source_sha256" or key in group.attrs}
                frames = read_data_set(group, "frames").astype(np.int64)
                arrays = {stream: read_data_set(group, stream) for stream in self.provenance["streams"]}
                times = read_data_set(group, "times").astype(np.float64) if "times" in group else None
                found = VideoFeatures(num_frames=int(group.attrs["num_frames"]), frames=frames, arrays=arrays, frame_times=times, **texts)
                yield checked_features(found, self.provenance["streams"])


def checked_provenance(values: object) -> dict[str, Any]:
    """Return the provenance of foreign features; `ValueError` unless it is a table that names the streams and their numbers of features."""
    streams = values.get("streams") if isinstance(values, dict) else None
    good = isinstance(streams, dict) and streams and all(type(size) is int and size > 0 for size in streams.values())
    if not isinstance(values, dict) or not good:
        raise ValueError("its provenance does not name its streams")
    return values


def checked_features(found: VideoFeatures, sizes: Mapping[str, int]) -> VideoFeatures:
    """Return the features of one video of a foreign file; `ValueError` unless their shapes agree and all numbers are finite."""
    for stream, array in found.arrays.items():
        if array.dtype != np.float32 or array.ndim != 2 or array.shape[1] != sizes[stream] or not np.isfinite(array).all():
            raise ValueError(f"the {stream} features of {found.video_id!r} must be finite numbers (T, {sizes[stream]})")
    times = found.frame_times
    if times is not None and (times.shape != found.frames.shape or not np.isfinite(times).all()):
        raise ValueError(f"the times of {found.video_id!r} must be finite numbers, one for each frame")
    try:
        Fraction(found.frame_rate)
    except (ValueError, ZeroDivisionError) as cause:
        raise ValueError(f"the frame rate of {found.video_id!r} is no fraction: {found.frame_rate[:40]!r}") from cause
    return found
