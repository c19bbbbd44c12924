"""The videos whose features are wanted: those of a data root, or video files that are extracted one after the other for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from shutil import rmtree
from typing import Any

import torch

from flowkit.dataset.clips import ClipSource, StoredClips, each_clip
from flowkit.dataset.paths import clip_path
from flowkit.dataset.root import Dataset
from flowkit.dataset.settings import ExtractSettings
from flowkit.dataset.shard_files import find_asked
from flowkit.errors import FeaturesError, FlowkitError
from flowkit.extraction.loose_videos import loose_clips
from flowkit.extraction.results import WRITTEN, VideoResult
from flowkit.extraction.run import ExtractProgress
from flowkit.files import file_sha256
from flowkit.model.compute.execution import Execution
from flowkit.model.data.whole_videos import Unreadable
from flowkit.model.runs.training_data import extraction_of_clip
from flowkit.model.scoring.extract_features import FeatureWork
from flowkit.model.scoring.feature_files import OTHER_OUTPUT, FeatureFile
from flowkit.model.scoring.feature_folder import FeatureFolder
from flowkit.model.scoring.feature_journal import VideoToDo
from flowkit.video.tree import VideoFile
from flowkit.words import counted
from flowkit.workers.stopping import StopRequest


class RootVideos:
    """Videos of a data root.

    Parameters
    ----------
    root : Path
        The data root.
    video_ids : sequence of str, optional
        Which videos. Default: all.

    Raises
    ------
    ManifestError
        If there is no such data root or video, or a shard is missing or truncated.

    Attributes
    ----------
    quantiser : Quantiser
        The quantiser of their flow.
    extraction : dict
        How frames and flow were made, as `Provenance` has it.
    notes : list of str
        What the user should know about the videos.
    """

    def __init__(self, root: Path, video_ids: Sequence[str] | None) -> None:
        dataset = Dataset.open(root)
        self._root, self.quantiser, self.notes = root, dataset.settings.quantiser, list[str]()
        self.extraction: dict[str, Any] = {}
        self._stored, ids = find_asked(dataset, video_ids)
        self._todo: list[VideoToDo] = []
        self._unreadable: list[Unreadable] = []
        for video_id, clip in each_clip(self._stored, ids):
            if isinstance(clip, str):
                self._unreadable.append(Unreadable(video_id, clip))
            elif clip.quantiser != self.quantiser:
                reason = f"its flow has the {clip.quantiser}, and the data root the {self.quantiser}"
                self._unreadable.append(Unreadable(video_id, reason))
            else:
                self._todo.append(VideoToDo.of(clip))
                self.extraction = self.extraction or extraction_of_clip(clip)

    def __len__(self) -> int:
        return len(self._todo)

    def check_same(self, there: FeatureFile | FeatureFolder) -> None:
        """Raise `FeaturesError` if features that are there already are of another data root: none is of a clip that this one has now."""
        check_features_of_root(there, self._root, self._stored)

    def compute(
        self,
        work: FeatureWork,
        show: Callable[[int, str], None],
        *,
        execution: Execution,
        device: torch.device,
        should_stop: Callable[[], bool],
    ) -> bool:
        """Compute what is missing. Returns False if a stop was requested before all was there.

        `show` receives how many videos are done, and a note on them.
        """
        for clip in self._unreadable:
            work.fail(clip.video_id, clip.reason)

        def waiting(num_waiting: int) -> None:
            show(len(self) - num_waiting, _failed_text(work))

        return work.compute(self._stored, self._todo, num_workers=execution.workers(device), on_progress=waiting, should_stop=should_stop)

    def close(self) -> None:
        """Do nothing: the data root stays as it is."""


class LooseVideos:
    """Video files, each of which has a clip file only until its features are computed.

    Parameters
    ----------
    videos : sequence of VideoFile
        The files, with their ids.
    folder : Path
        Where the clip files are made.
    settings : ExtractSettings
        How they are made.
    jobs : int, optional
        How many processes make them. Default: one per core.
    notes : sequence of str
        What the user should know about the settings.

    Attributes
    ----------
    quantiser, extraction, notes
        As those of `RootVideos`.
    """

    def __init__(
        self, videos: Sequence[VideoFile], folder: Path, settings: ExtractSettings, *, jobs: int | None = None, notes: Sequence[str] = ()
    ) -> None:
        self.quantiser, self.notes = settings.quantiser, list(notes)
        self.extraction: dict[str, Any] = {
            "short_side": settings.short_side,
            "tvl1": settings.stored_tvl1(),
            "solver": settings.solver,
            "codec": settings.codec,
            **settings.stored_options(),
        }
        self._videos, self._folder, self._settings, self._jobs = tuple(videos), folder, settings, jobs

    def __len__(self) -> int:
        return len(self._videos)

    def check_same(self, there: FeatureFile | FeatureFolder) -> None:
        """Raise `FeaturesError` if features that are there already are of the videos of a data root, whose ids name folders too."""
        check_features_of_files(there)

    def compute(
        self,
        work: FeatureWork,
        show: Callable[[int, str], None],
        *,
        execution: Execution,
        device: torch.device,
        should_stop: Callable[[], bool],
    ) -> bool:
        """Extract and compute what is missing. Returns False if a stop was requested before all was there."""
        todo = [video for video in self._videos if not _is_there(video, work)]
        num_waiting, stop = len(todo), StopRequest()
        show(len(self) - num_waiting, _failed_text(work))

        def look(extraction: ExtractProgress) -> None:
            show(len(self) - num_waiting, f"{counted(extraction.pairs_done, 'flow field')}{_failed_text(work, before=', ')}")
            if should_stop():
                stop.request()

        if not todo:
            return True
        clips = loose_clips(
            todo, self._folder, settings=self._settings, jobs=self._jobs, device_index=device.index or 0, stop=stop, on_progress=look
        )
        for result in clips:
            if stop.requested():  # the other processes may finish; what they have made is kept for the next call
                continue
            if self._compute_one(result, work, should_stop):
                num_waiting -= 1
            else:
                stop.request()
        return not num_waiting

    def _compute_one(self, result: VideoResult, work: FeatureWork, should_stop: Callable[[], bool]) -> bool:
        """Compute the features of a video that was extracted, and delete its clip file. Returns False if a stop was requested before."""
        if result.status not in WRITTEN:
            work.fail(result.video_id, result.error)
            return True
        path = clip_path(self._folder, result.video_id)
        stored = StoredClips({result.video_id: path}, 0, ())
        try:
            with ClipSource(stored) as clips:
                video = VideoToDo.of(clips.clip(result.video_id))
        except (FlowkitError, OSError) as error:
            work.fail(result.video_id, str(error))
        else:
            if not work.compute(stored, [video], num_workers=0, on_progress=lambda _: None, should_stop=should_stop):
                return False
        if result.status == "damaged":
            self.notes.append(f"{result.video_id} is damaged: {result.error}")
        path.unlink(missing_ok=True)
        return True

    def close(self) -> None:
        """Delete what is left of the extraction; all features are kept by now."""
        rmtree(self._folder, ignore_errors=True)


def check_features_of_root(there: FeatureFile | FeatureFolder, root: Path, stored: StoredClips) -> None:
    """Raise `FeaturesError` if features are of another data root than one with these clips: none is of a clip that it has now."""
    digests = there.digests()
    with ClipSource(stored) as clips:
        if digests and all(_sha256_of(clips, video_id) != sha256 for video_id, sha256 in digests.items()):
            raise FeaturesError(f"{there.path} has features of other videos: none of them is a clip of {root}; {OTHER_OUTPUT}")


def check_features_of_files(there: FeatureFile | FeatureFolder) -> None:
    """Raise `FeaturesError` if features are of the videos of a data root, whose ids name folders too, and not of video files."""
    if any("/" in video_id for video_id in there.video_ids):
        raise FeaturesError(f"{there.path} has features of the videos of a data root, and these are files outside of it; {OTHER_OUTPUT}")


def _sha256_of(clips: ClipSource, video_id: str) -> str:
    """Return the digest of a clip; an empty text if there is none."""
    try:
        return clips.clip(video_id).sha256
    except (FlowkitError, OSError):
        return ""


def _is_there(video: VideoFile, work: FeatureWork) -> bool:
    """Return whether the features of a file are there already: it is read only if there are some of a video with its id."""
    try:
        return work.knows(video.video_id) and work.has(video.video_id, file_sha256(video.path))
    except OSError:  # the extraction says what is wrong with it
        return False


def _failed_text(work: FeatureWork, *, before: str = "") -> str:
    return f"{before}{len(work.failed)} failed" if work.failed else ""
