"""The features of stored videos, computed window by window; a run that is stopped goes on where it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset as TorchDataset

from flowkit.dataset.clips import ClipSource, StoredClips
from flowkit.dataset.manifest import MIN_FRAMES
from flowkit.errors import FlowkitError, SourceChangedError
from flowkit.model.compute.execution import VIDEOS_AT_ONCE
from flowkit.model.data.clips import clip_loader
from flowkit.model.data.whole_videos import Unreadable, WholeClip, read_whole, view_of
from flowkit.model.scoring.feature_files import FeatureFile, PlannedFeatures, VideoFeatures
from flowkit.model.scoring.feature_folder import FeatureFolder
from flowkit.model.scoring.feature_journal import FeatureJournal, VideoToDo, WindowName
from flowkit.model.scoring.feature_network import FeatureNetwork
from flowkit.model.scoring.feature_settings import FeatureSamples, FeatureSettings
from flowkit.model.scoring.scored_videos import NOT_FINITE
from flowkit.model.scoring.windows import Window, windows
from flowkit.words import counted

TIMES = -1  # stands for the times of a video's frames, where its windows have the number of their first output


class WindowClips(TorchDataset["WholeClip | Unreadable | SourceChangedError"]):
    """The windows of stored videos, as a network sees them. It can be pickled; each process opens the files itself.

    Parameters
    ----------
    stored : StoredClips
        The files of the videos.
    samples : FeatureSamples
        Which frames or clips of them.
    input_size : int, px
        The side of the training crops of the network.
    """

    def __init__(self, stored: StoredClips, samples: FeatureSamples, *, input_size: int) -> None:
        self._stored, self._samples, self._input_size = stored, samples, input_size
        self._source: ClipSource | None = None

    def __getitem__(self, item: tuple[VideoToDo, Window]) -> WholeClip | Unreadable | SourceChangedError:
        video, window = item
        self._source = self._source or ClipSource(self._stored)
        try:
            clip = self._source.clip(video.video_id)
            if clip.sha256 != video.sha256:
                return SourceChangedError(f"the clip of {video.video_id!r} was replaced while it was in use; run the same line again")
            places = self._samples.places(clip.num_frames, window.first, window.stop)
            return read_whole(clip, places, input_size=self._input_size, view=view_of(self._samples.plan))
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
    settings : FeatureSettings
        What to compute.
    network : FeatureNetwork
        The network.
    journal : FeatureJournal
        Where windows are kept; it is open.
    finished : FeatureFile or FeatureFolder, optional
        Features of the same provenance that are there already. They are not computed again, and none of them is lost.

    Attributes
    ----------
    failed : list of Unreadable
        The videos that have no features, and why.
    """

    def __init__(
        self,
        settings: FeatureSettings,
        network: FeatureNetwork,
        journal: FeatureJournal,
        finished: FeatureFile | FeatureFolder | None = None,
    ) -> None:
        self._settings, self._network, self._journal, self._finished = settings, network, journal, finished
        self._known = {} if finished is None else finished.digests()
        self._sources = {} if finished is None else finished.source_digests()
        self._begun = {(video.video_id, video.source_sha256): video for video in journal.videos()}
        self._begun_ids = {video_id for video_id, _ in self._begun}
        self._asked: dict[str, VideoToDo] = {}
        self._kept: set[str] = set()
        self._bad: set[str] = set()
        self.failed: list[Unreadable] = []

    @property
    def num_finished(self) -> int:
        """The number of videos that were in the file already."""
        return len(self._kept)

    def knows(self, video_id: str) -> bool:
        """Return whether the file or the journal has anything of a video with this id, so that it matters which file it was."""
        return video_id in self._sources or video_id in self._begun_ids

    def has(self, video_id: str, source_sha256: str) -> bool:
        """Return whether all of a video file is there already, before it has a clip."""
        if self._sources.get(video_id) == source_sha256:
            self._kept.add(video_id)
            return True
        video = self._begun.get((video_id, source_sha256))
        if video is None or any(self._missing([video])):
            return False
        self._asked[video_id] = video
        return True

    def fail(self, video_id: str, reason: str) -> None:
        """Note that a video has no features, and why."""
        if video_id not in self._bad:
            self._bad.add(video_id)
            self.failed.append(Unreadable(video_id, reason))

    def compute(
        self,
        stored: StoredClips,
        videos: Iterable[VideoToDo],
        *,
        num_workers: int,
        on_progress: Callable[[int], None],
        should_stop: Callable[[], bool],
    ) -> bool:
        """Compute what is missing of the videos of some files. Returns False if a stop was requested before all was there.

        `on_progress` receives how many of them wait.
        """
        wanted = list(videos)
        for video in wanted:
            self._asked[video.video_id] = video
            if self._known.get(video.video_id) == video.sha256:
                self._kept.add(video.video_id)
            elif video.num_frames < MIN_FRAMES:
                self.fail(video.video_id, f"{counted(video.num_frames, 'frame')}; a stack of flow needs {MIN_FRAMES}")
        batches = list(self._batches(wanted))
        clips = WindowClips(stored, self._network.samples, input_size=self._network.input_size)
        items = [item for batch in batches for item in batch]
        loaded = iter(clip_loader(clips, num_workers, sampler=items, batch_size=None, collate_fn=_unchanged))
        waiting = len({video for video, _ in items})
        on_progress(waiting)
        for place, batch in enumerate(batches):
            self._take(batch, [next(loaded) for _ in batch])
            done = {video for video, _ in batch}
            if place + 1 == len(batches) or batches[place + 1][0][0] not in done:
                waiting -= len(done)
                on_progress(waiting)
            if should_stop() and place + 1 < len(batches):
                return False
        return True

    def planned(self) -> list[PlannedFeatures]:
        """Return the videos that have features, sorted by id: those that were asked for, and all others of the file."""
        planned = {video.video_id: self._planned(video) for video in self._good(self._asked.values())}
        if self._finished is not None:
            kept = self._kept | {video_id for video_id in self._finished.video_ids if video_id not in self._asked}
            planned |= {video_id: self._finished.planned(video_id) for video_id in kept}
        return [planned[video_id] for video_id in sorted(planned)]

    def is_written(self, planned: Iterable[PlannedFeatures]) -> bool:
        """Return whether the file has exactly these features already."""
        ids = tuple(video.about.video_id for video in planned)
        return self._finished is not None and not any(self._good(self._asked.values())) and self._finished.video_ids == ids

    def _good(self, videos: Iterable[VideoToDo]) -> Iterator[VideoToDo]:
        """Yield the videos that the file lacks and that can be read."""
        return (video for video in videos if video.video_id not in self._bad and video.video_id not in self._kept)

    def _missing(self, videos: Iterable[VideoToDo]) -> Iterator[tuple[VideoToDo, Window]]:
        """Yield the windows that are to be computed."""
        for video in self._good(videos):
            for window in self._windows_of(video):
                if WindowName(video, window.output) not in self._journal:
                    yield video, window

    def _batches(self, videos: Iterable[VideoToDo]) -> Iterator[list[tuple[VideoToDo, Window]]]:
        """Yield the windows to compute in groups that pass through the network together if their frames have the same size.

        On a GPU, the last digits may depend on the other videos of a group; so one that was stopped is computed as a whole once more.
        """
        size = VIDEOS_AT_ONCE[self._network.device.type]
        if size == 1 or self._network.samples.most is not None:
            yield from ([item] for item in self._missing(videos))
            return
        good = list(self._good(videos))
        for group in (good[first : first + size] for first in range(0, len(good), size)):
            if any(self._missing(group)):
                yield [(video, window) for video in group for window in self._windows_of(video)]

    def _take(self, batch: Iterable[tuple[VideoToDo, Window]], clips: Iterable[WholeClip | Unreadable | SourceChangedError]) -> None:
        """Compute windows that were read, and keep them."""
        together: dict[tuple[Window, tuple[int, ...]], list[tuple[VideoToDo, WholeClip]]] = {}
        for (video, window), clip in zip(batch, clips, strict=True):
            if isinstance(clip, SourceChangedError):
                raise clip
            if isinstance(clip, Unreadable):
                self.fail(video.video_id, clip.reason)
            elif video.video_id not in self._bad:
                if clip.times is not None and WindowName(video, TIMES) not in self._journal:
                    self._journal.add(WindowName(video, TIMES), {"times": clip.times})
                together.setdefault((window, clip.rgb.shape), []).append((video, clip))
        for (window, _), members in together.items():
            for (video, _), arrays in zip(members, self._network.features([clip for _, clip in members], window), strict=True):
                self._keep(WindowName(video, window.output), arrays)

    def _keep(self, name: WindowName, arrays: Mapping[str, NDArray[Any]]) -> None:
        if not all(np.isfinite(values).all() for values in arrays.values()):
            self.fail(name.video.video_id, NOT_FINITE)
            return
        if self._settings.average:  # sums in the journal, so that a mean over any number of windows is one division
            arrays = {stream: values.sum(0, dtype=np.float64, keepdims=True) for stream, values in arrays.items()}
        if name not in self._journal:
            self._journal.add(name, arrays)

    def _windows_of(self, video: VideoToDo) -> Iterator[Window]:
        samples = self._network.samples
        return windows(len(samples.middles(video.num_frames)), self._network.time, most=samples.most)

    def _planned(self, video: VideoToDo) -> PlannedFeatures:
        middles, time = self._network.samples.middles(video.num_frames), self._network.time
        num_outputs = time.num_outputs(len(middles))
        frames = np.array([middles[time.middle(output, len(middles))] for output in range(num_outputs)], np.int64)
        times = self._journal.read(WindowName(video, TIMES))["times"][frames] if WindowName(video, TIMES) in self._journal else None
        about = VideoFeatures(frames=frames, arrays={}, frame_times=times, **asdict(video))
        names = [WindowName(video, window.output) for window in self._windows_of(video)]

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
