"""The features of the videos of a data root, computed window by window; a run that is stopped goes on where it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset as TorchDataset

from flowkit.dataset.clips import ClipSource, StoredClips
from flowkit.dataset.manifest import MIN_FRAMES
from flowkit.errors import FlowkitError, SourceChangedError
from flowkit.model.data.clips import clip_loader
from flowkit.model.data.whole_videos import Unreadable, WholeClip, read_whole
from flowkit.model.scoring.feature_files import FeatureFile, PlannedFeatures, VideoFeatures
from flowkit.model.scoring.feature_folder import FeatureFolder
from flowkit.model.scoring.feature_journal import FeatureJournal, WindowName
from flowkit.model.scoring.feature_network import FeatureNetwork
from flowkit.model.scoring.feature_settings import FeatureSettings
from flowkit.model.scoring.scored_videos import NOT_FINITE
from flowkit.model.scoring.windows import Window, windows
from flowkit.shards.reader import Clip
from flowkit.words import counted


@dataclass(frozen=True)
class VideoToDo:
    """A video whose features are wanted."""

    video_id: str
    class_name: str
    num_frames: int
    frame_rate: str
    sha256: str

    @classmethod
    def of(cls, clip: Clip) -> VideoToDo:
        """Return what is recorded of a clip."""
        return cls(clip.video_id, clip.class_name, clip.num_frames, clip.attributes.frame_rate, clip.sha256)


class WindowClips(TorchDataset["WholeClip | Unreadable | SourceChangedError"]):
    """The windows of stored videos, as a network sees them. It can be pickled; each process opens the files itself.

    Parameters
    ----------
    stored : StoredClips
        The files of the videos.
    videos : sequence of VideoToDo
        The videos.
    settings : FeatureSettings
        Which frames of them.
    input_size : int, px
        The side of the training crops of the network.
    """

    def __init__(self, stored: StoredClips, videos: Iterable[VideoToDo], settings: FeatureSettings, *, input_size: int) -> None:
        self._stored, self._videos, self._settings, self._input_size = stored, tuple(videos), settings, input_size
        self._source: ClipSource | None = None

    def __getitem__(self, item: tuple[int, Window]) -> WholeClip | Unreadable | SourceChangedError:
        number, window = item
        video = self._videos[number]
        self._source = self._source or ClipSource(self._stored)
        try:
            clip = self._source.clip(video.video_id)
            if clip.sha256 != video.sha256:
                return SourceChangedError(f"the clip of {video.video_id!r} was replaced while it was in use; run the same line again")
            centres = self._settings.centres(clip.num_frames)[window.first : window.stop]
            return read_whole(clip, centres, input_size=self._input_size)
        except SourceChangedError as error:
            return error
        except (FlowkitError, OSError) as error:  # one bad video does not stop the others, but is reported
            return Unreadable(video.video_id, str(error))

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_source": None}


class FeatureWork:
    """What is to be computed of some videos, what earlier calls left of it, and what became of it.

    Parameters
    ----------
    stored : StoredClips
        The files of the videos.
    videos : iterable of VideoToDo
        The videos, sorted by id.
    settings : FeatureSettings
        What to compute.
    network : FeatureNetwork
        The network.
    journal : FeatureJournal
        Where windows are kept; it is open.
    finished : FeatureFile or FeatureFolder, optional
        Features of the same provenance that are there already. They are not computed again, and none of them is lost.
    unreadable : iterable of Unreadable
        Further videos, which could not be opened.

    Attributes
    ----------
    failed : list of Unreadable
        The videos that have no features, and why.
    """

    def __init__(
        self,
        stored: StoredClips,
        videos: Iterable[VideoToDo],
        settings: FeatureSettings,
        network: FeatureNetwork,
        journal: FeatureJournal,
        finished: FeatureFile | FeatureFolder | None = None,
        unreadable: Iterable[Unreadable] = (),
    ) -> None:
        self._stored, self._settings, self._network, self._journal, self._finished = stored, settings, network, journal, finished
        self._videos = tuple(videos)
        known = {} if finished is None else finished.digests()
        self._finished_ids = {video.video_id for video in self._videos if known.get(video.video_id) == video.sha256}
        self.failed = list(unreadable)
        self.failed += [
            Unreadable(video.video_id, f"{counted(video.num_frames, 'frame')}; a stack of flow needs {MIN_FRAMES}")
            for video in self._videos
            if video.num_frames < MIN_FRAMES
        ]
        self._bad = {clip.video_id for clip in self.failed}

    @property
    def num_finished(self) -> int:
        """The number of videos that were in the file already."""
        return len(self._finished_ids)

    def compute(self, *, num_workers: int, on_progress: Callable[[int, int, int], None], should_stop: Callable[[], bool]) -> bool:
        """Compute what is missing. Returns False if a stop was requested before all was there.

        `on_progress` receives how many videos are done, how many there are, and how many failed.
        """
        clips = WindowClips(self._stored, self._videos, self._settings, input_size=self._network.input_size)
        todo = [(number, window) for number, window in self._windows() if self._name(number, window) not in self._journal]
        loader = clip_loader(clips, num_workers, sampler=todo, batch_size=None, collate_fn=_unchanged)
        waiting = len({number for number, _ in todo})
        on_progress(len(self._videos) - waiting, len(self._videos), len(self.failed))
        for place, ((number, window), clip) in enumerate(zip(todo, loader, strict=True)):
            if isinstance(clip, SourceChangedError):
                raise clip
            self._take(number, window, clip)
            if place + 1 == len(todo) or todo[place + 1][0] != number:
                waiting -= 1
                on_progress(len(self._videos) - waiting, len(self._videos), len(self.failed))
            if should_stop() and place + 1 < len(todo):
                return False
        return True

    def planned(self) -> list[PlannedFeatures]:
        """Return the videos that have features, sorted by id: those that were asked for, and all others of the file."""
        planned = {video.video_id: self._planned(number, video) for number, video in self._good()}
        asked = {video.video_id for video in self._videos}
        if self._finished is not None:
            kept = self._finished_ids | {video_id for video_id in self._finished.video_ids if video_id not in asked}
            planned |= {video_id: self._finished.planned(video_id) for video_id in kept}
        return [planned[video_id] for video_id in sorted(planned)]

    def is_written(self, planned: Iterable[PlannedFeatures]) -> bool:
        """Return whether the file has exactly these features already."""
        ids = tuple(video.about.video_id for video in planned)
        return self._finished is not None and not any(self._good()) and self._finished.video_ids == ids

    def _good(self) -> Iterator[tuple[int, VideoToDo]]:
        """Yield the videos that the file lacks and that can be read, with their numbers."""
        for number, video in enumerate(self._videos):
            if video.video_id not in self._bad and video.video_id not in self._finished_ids:
                yield number, video

    def _take(self, number: int, window: Window, clip: WholeClip | Unreadable) -> None:
        """Compute a window that was read, and keep it."""
        video_id = self._videos[number].video_id
        if video_id in self._bad:
            return
        if isinstance(clip, Unreadable):
            self._fail(clip)
            return
        arrays: Mapping[str, NDArray[Any]] = self._network.features(clip, window)
        if not all(np.isfinite(values).all() for values in arrays.values()):
            self._fail(Unreadable(video_id, NOT_FINITE))
            return
        if self._settings.average:  # sums in the journal, so that a mean over any number of windows is one division
            arrays = {stream: values.sum(0, dtype=np.float64, keepdims=True) for stream, values in arrays.items()}
        self._journal.add(self._name(number, window), arrays)

    def _fail(self, clip: Unreadable) -> None:
        self._bad.add(clip.video_id)
        self.failed.append(clip)

    def _windows(self) -> Iterator[tuple[int, Window]]:
        """Yield the windows of all videos that are not finished, by the number of their video."""
        for number, video in self._good():
            yield from ((number, window) for window in self._windows_of(video))

    def _windows_of(self, video: VideoToDo) -> Iterator[Window]:
        return windows(len(self._settings.centres(video.num_frames)), self._network.time, most=self._settings.most)

    def _name(self, number: int, window: Window) -> WindowName:
        video = self._videos[number]
        return WindowName(video.video_id, window.output, video.sha256)

    def _planned(self, number: int, video: VideoToDo) -> PlannedFeatures:
        centres, time = self._settings.centres(video.num_frames), self._network.time
        num_outputs = time.num_outputs(len(centres))
        frames = np.array([centres[time.middle(output, len(centres))] for output in range(num_outputs)], np.int64)
        about = VideoFeatures(video.video_id, video.class_name, video.num_frames, video.frame_rate, video.sha256, frames, {})
        names = [self._name(number, window) for window in self._windows_of(video)]

        def blocks() -> Iterator[Mapping[str, NDArray[np.float32]]]:
            if self._settings.average:
                parts = [self._journal.read(name) for name in names]
                sums = {stream: np.sum([part[stream] for part in parts], axis=0) for stream in self._network.sizes}
                yield {stream: (total / num_outputs).astype(np.float32) for stream, total in sums.items()}
            else:
                yield from map(self._journal.read, names)

        length = 1 if self._settings.average else num_outputs
        return PlannedFeatures(about, {stream: (length, size) for stream, size in self._network.sizes.items()}, blocks)


def _unchanged(clip: WholeClip | Unreadable | SourceChangedError) -> WholeClip | Unreadable | SourceChangedError:
    return clip
