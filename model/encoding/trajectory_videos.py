"""Which videos have their trajectories computed, and from which pixels: their source files, or the frames that their clips store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flowkit.dataset.clips import StoredClips, each_clip
from flowkit.dataset.root import Dataset
from flowkit.dataset.shard_files import find_asked
from flowkit.extraction.loose_videos import loose_videos
from flowkit.files import file_sha256
from flowkit.model.encoding.trajectory_settings import Pixels
from flowkit.model.scoring.feature_journal import VideoToDo
from flowkit.shards.reader import Clip
from flowkit.video.ids import first_few
from flowkit.video.reading import Reading
from flowkit.words import counted


@dataclass(frozen=True)
class TrajectoryVideo:
    """A video whose trajectories are wanted. It can be pickled.

    Parameters
    ----------
    about : VideoToDo
        What is recorded of it; of a video that is in no data root, its id and the digest of its file.
    stored : Path, optional
        The clip file or shard that holds its frames; None for a video that is in no data root.
    source : Path, optional
        The video file to read; None to read the stored frames.
    reading : Reading
        Which frames of the file are read.
    """

    about: VideoToDo
    stored: Path | None
    source: Path | None
    reading: Reading = field(default_factory=Reading)


@dataclass(frozen=True)
class TrajectoryVideos:
    """Videos of a data root, or video files.

    Parameters
    ----------
    pixels : {"source", "stored"}
        What all of them are read from.
    videos : dict from video id to TrajectoryVideo
        The videos that can be read.
    unreadable : dict from video id to str
        The others, and why.
    notes : tuple of str
        What the user should know, in sentences without a full stop.
    stored : StoredClips, optional
        The clips of the data root; None if the videos are in none.
    reading : Reading
        Which frames of the video files are read.
    """

    pixels: Pixels
    videos: Mapping[str, TrajectoryVideo]
    unreadable: Mapping[str, str]
    notes: tuple[str, ...] = ()
    stored: StoredClips | None = None
    reading: Reading = field(default_factory=Reading)


def find_trajectory_videos(dataset: Dataset, video_ids: Sequence[str] | None, *, pixels: Pixels | None = None) -> TrajectoryVideos:
    """Find the videos of a data root, and decide once for all of them what is read.

    Parameters
    ----------
    dataset : Dataset
        The data root.
    video_ids : sequence of str, optional
        Which videos. Default: all.
    pixels : {"source", "stored"}, optional
        ``source``: the video files, at their own size; a video whose file is gone cannot be read. ``stored``: the frames of the data
        root. Default: the video files if none of them is gone, and otherwise the stored frames of all videos.

    Raises
    ------
    ManifestError
        If there is no such video, or a shard is missing or truncated.
    """
    stored, ids = find_asked(dataset, video_ids)
    about: dict[str, VideoToDo] = {}
    sources: dict[str, Path | None] = {}
    unreadable: dict[str, str] = {}
    for video_id, clip in each_clip(stored, ids):
        if isinstance(clip, str):
            unreadable[video_id] = clip
        else:
            about[video_id], sources[video_id] = VideoToDo.of(clip), source_of(dataset, clip)
    gone = [video_id for video_id, path in sources.items() if path is None or not path.is_file()]
    chosen: Pixels = pixels or ("stored" if gone else "source")
    notes = (_note(gone, len(sources)),) if pixels is None and gone else ()
    if chosen == "source":
        unreadable |= {video_id: _missing(sources[video_id]) for video_id in gone}
    reading = dataset.settings.reading
    videos = {
        video_id: TrajectoryVideo(video, stored.paths[video_id], sources[video_id] if chosen == "source" else None, reading)
        for video_id, video in about.items()
        if video_id not in unreadable
    }
    return TrajectoryVideos(chosen, videos, unreadable, notes, stored, reading)


def loose_trajectory_videos(paths: Sequence[Path], reading: Reading) -> TrajectoryVideos:
    """Return video files that are in no data root, of which these frames are read, with ids as `loose_videos` gives them.

    Raises
    ------
    ManifestError
        If one is no file, or two have the same name.
    """
    videos, unreadable = {}, {}
    for video in loose_videos(paths):
        try:
            about = VideoToDo(video.video_id, video.class_name, 0, "0/1", "", file_sha256(video.path))
        except OSError as error:
            unreadable[video.video_id] = f"{error.strerror}: {str(video.path)!r}"
            continue
        videos[video.video_id] = TrajectoryVideo(about, None, video.path, reading)
    return TrajectoryVideos("source", videos, unreadable, reading=reading)


def source_of(dataset: Dataset, clip: Clip) -> Path | None:
    """Return where the file of a video was when it was extracted; None if its clip was not made from a file.

    The name that a clip records is foreign data: it leads to no other folder.
    """
    about = clip.attributes
    leads_away = about.source_name == ".." or Path(about.source_name).name != about.source_name
    if not about.source_sha256 or not dataset.source or leads_away:
        return None
    return Path(dataset.source, *clip.video_id.split("/")[:-1], about.source_name)


def _missing(path: Path | None) -> str:
    return "no video file is known that it was made from" if path is None else f"its video file {str(path)!r} is missing"


def _note(gone: Iterable[str], num_videos: int) -> str:
    names = sorted(gone)
    if len(names) == num_videos:
        return "the video files are gone, so trajectories are computed from the stored frames"
    return (
        f"{counted(len(names), 'video file')} of {num_videos} are gone ({first_few(names, most=3)}), so the trajectories of all videos are "
        "computed from the stored frames; --pixels source reads the files and leaves these videos out"
    )
