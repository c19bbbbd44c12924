"""A gallery of a data root: a folder that opens in a browser without a server, with a still and a short film of each video.

`plan_gallery` chooses the videos and finds out which pictures are there already. Of a `GalleryDrawing`, `forecast` says what drawing
the others takes, and `draw` draws them in several processes and writes the page last. So a gallery that was stopped shows what it
showed before, and the same calls go on where it stopped.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

from flowkit.dataset.clips import ClipSource, StoredClips
from flowkit.dataset.progress import ProgressBar, StageProgress
from flowkit.describe.gallery_files import FILM_SUFFIX, PAGE_NAME, STILL_SUFFIX, GalleryFolder, PictureFacts, pictures_name
from flowkit.describe.gallery_page import GalleryAbout, render_page
from flowkit.describe.gallery_pictures import MOST_BYTES, draw_pictures, shown_fields
from flowkit.describe.gallery_videos import GalleryVideo, spread_sample
from flowkit.errors import DeviceError, FlowkitError, SourceChangedError
from flowkit.files import write_atomically
from flowkit.shards.reader import ShardReader
from flowkit.workers.processes import num_cores, run_tasks
from flowkit.workers.progress import TaskProgress

SAMPLE_SIZE = 500  # videos of a gallery, by default

_MEASURED = 3  # videos that are drawn first, one after another, to see how long that takes
_SECONDS_BETWEEN_RECORDS = 5.0  # what a killed run loses at most


@dataclass(frozen=True)
class DrawTask:
    """What a worker process draws: the pictures of a clip.

    Parameters
    ----------
    video_id, path, sha256 : str, Path, str
        The video, the file that holds its clip, and the digest of that clip.
    num_frames : int
        Frames of the film.
    name, folder : str, Path or None
        The name and the folder of the pictures; without a folder nothing is written.
    """

    video_id: str
    path: Path
    sha256: str
    num_frames: int
    name: str
    folder: Path | None


@dataclass(frozen=True)
class Drawn:
    """What came of a task: facts, or the reason why there are none; and how long it took."""

    facts: PictureFacts | None
    seconds: float
    failure: str = ""


@dataclass(frozen=True)
class GalleryPlan:
    """What a gallery will show.

    Parameters
    ----------
    videos : tuple of GalleryVideo
        The videos of the page, in its order; those without a clip included.
    names : dict of str to str
        The name of the pictures of each video that has some or will have some.
    tasks : tuple of DrawTask
        What is to be drawn; the pictures of the other videos are there already.
    kept : frozenset of str
        Names of pictures of further videos of the data root, which the page does not show, but which stay for a gallery that does.
    failures : dict of str to str
        Why videos could not be opened.
    """

    videos: tuple[GalleryVideo, ...]
    names: dict[str, str]
    tasks: tuple[DrawTask, ...]
    kept: frozenset[str]
    failures: dict[str, str]

    @property
    def num_reused(self) -> int:
        """The number of videos whose pictures are there already."""
        return len(self.names) - len(self.tasks)


@dataclass(frozen=True)
class GalleryForecast:
    """What drawing a gallery takes: the size of all its pictures, the time, and the number of processes."""

    num_bytes: int
    seconds: float
    jobs: int


@dataclass(frozen=True)
class Gallery:
    """A gallery that was written.

    Parameters
    ----------
    page : Path
        The page to open.
    num_videos, num_drawn, num_reused, num_removed : int
        Videos of the page; videos that were drawn, whose pictures were there already, and whose pictures were removed.
    num_bytes : int
        What the page and the pictures that it shows take.
    failures : tuple of (str, str)
        Videos that could not be drawn, and why.
    """

    page: Path
    num_videos: int
    num_drawn: int
    num_reused: int
    num_removed: int
    num_bytes: int
    failures: tuple[tuple[str, str], ...]


def plan_gallery(
    videos: Sequence[GalleryVideo],
    stored: StoredClips,
    folder: GalleryFolder,
    *,
    most: int | None = SAMPLE_SIZE,
    progress: bool | None = None,
) -> GalleryPlan:
    """Choose the videos of a gallery, and find out which of them must be drawn.

    Parameters
    ----------
    videos : sequence of GalleryVideo
        All videos, in the order in which the page shows them.
    stored : StoredClips
        Where their clips are.
    folder : GalleryFolder
        The folder of the gallery.
    most : int, optional
        How many videos are drawn at most; they are spread over classes and subsets. None draws all. Videos without a clip are on the
        page in any case.
    progress : bool, optional
        Show the progress on stderr. By default it is shown on a terminal and in a notebook.
    """
    with_clip = [video for video in videos if video.video_id in stored.paths]
    sample = with_clip if most is None else spread_sample(with_clip, most)
    chosen = {video.video_id for video in sample}
    shown = tuple(video for video in videos if video.video_id in chosen or video.video_id not in stored.paths)
    # Pictures of other videos are not on the page; those of clips that are still the same stay for a later gallery.
    further = {facts.video_id for facts in folder.facts.values()} & stored.paths.keys() - chosen
    names, tasks, kept, failures = {}, [], set(), {}
    with ClipSource(stored) as source, StageProgress(progress) as stages:
        for num_done, video_id in enumerate([*(video.video_id for video in sample), *sorted(further)], start=1):
            stages.update("gallery: opening clips", num_done, len(sample) + len(further))
            try:
                clip = source.clip(video_id)
            except (FlowkitError, OSError) as error:
                if video_id in chosen:
                    failures[video_id] = str(error)
                continue
            name = pictures_name(video_id, clip.sha256)
            if video_id not in chosen:
                kept |= {name} & folder.facts.keys()
                continue
            names[video_id] = name
            if not folder.has(name):
                num_shown = len(shown_fields(clip.num_frames, clip.frame_rate).indices)
                tasks.append(DrawTask(video_id, stored.paths[video_id], clip.sha256, num_shown, name, folder.pictures))
    return GalleryPlan(shown, names, tuple(tasks), frozenset(kept), failures)


class GalleryDrawing:
    """The drawing of a plan: `forecast` draws a few videos first, then `draw` the others and the page.

    Parameters
    ----------
    plan : GalleryPlan
        What to draw.
    folder : GalleryFolder
        The folder, which must be held by `GalleryFolder.writing` if anything is written.
    jobs : int, optional
        Number of worker processes; by default one per core.
    dry_run : bool
        Write nothing.
    """

    def __init__(self, plan: GalleryPlan, folder: GalleryFolder, *, jobs: int | None = None, dry_run: bool = False) -> None:
        self.plan, self._folder, self._dry_run = plan, folder, dry_run
        self._jobs = jobs or num_cores()
        self._failures = dict(plan.failures)
        # Those that are drawn first are spread over all: neighbours are of one class, and alike.
        step = max(len(plan.tasks) // _MEASURED, 1)
        self._first = plan.tasks[::step][:_MEASURED]
        self._others = [task for task in plan.tasks if task not in self._first]
        self._num_drawn = 0

    def forecast(self) -> GalleryForecast:
        """Draw the first few videos, and tell from them what the gallery takes.

        Raises
        ------
        OSError
            If a picture cannot be written.
        """
        there = [self._folder.facts[name] for name in set(self.plan.names.values()) - {task.name for task in self.plan.tasks}]
        num_bytes_there = sum(facts.num_bytes for facts in there)
        drawn: list[tuple[int, int, float]] = []

        def note(task: DrawTask, result: Drawn) -> None:
            if result.facts is not None:
                drawn.append((task.num_frames, result.facts.num_bytes, result.seconds))

        self._run(self._first, note, jobs=1)
        frames = sum(num_frames for num_frames, _, _ in drawn)
        if not frames:
            return GalleryForecast(num_bytes_there, 0.0, self._jobs)
        bytes_per_frame, seconds_per_frame = (sum(entry[k] for entry in drawn) / frames for k in (1, 2))
        seconds = sum(task.num_frames for task in self.plan.tasks) * seconds_per_frame / self._jobs
        num_bytes = sum(min(task.num_frames * bytes_per_frame, MOST_BYTES) for task in self.plan.tasks)
        return GalleryForecast(round(num_bytes_there + num_bytes), seconds, self._jobs)

    def draw(self, about: GalleryAbout, *, progress: bool | None = None) -> Gallery:
        """Draw the videos that `forecast` has not drawn, write the page, and remove pictures that nothing needs any more.

        Parameters
        ----------
        about : GalleryAbout
            What the page says about the data.
        progress : bool, optional
            Show the progress on stderr. By default it is shown on a terminal and in a notebook.

        Raises
        ------
        OSError
            If a file cannot be written.
        """
        if self._others:
            with ProgressBar("gallery: drawing", total=len(self._others), unit="videos", progress=progress) as bar:
                self._run(self._others, lambda *_: bar.advance(note=self._failed_note()), jobs=self._jobs)
        page = self._folder.path / PAGE_NAME
        facts = {video_id: self._folder.facts[name] for video_id, name in self.plan.names.items() if video_id not in self._failures}
        text = render_page(about, self.plan.videos, facts, self.plan.names, self._failures)
        write_atomically(page, text)
        self._folder.shown = frozenset(self.plan.names[video_id] for video_id in facts)
        num_removed = self._folder.remove_others(self._folder.shown | self.plan.kept)
        return Gallery(
            page=page,
            num_videos=len(self.plan.videos),
            num_drawn=self._num_drawn,
            num_reused=self.plan.num_reused,
            num_removed=num_removed,
            num_bytes=len(text.encode("utf-8")) + sum(one.num_bytes for one in facts.values()),
            failures=tuple(sorted(self._failures.items())),
        )

    def _failed_note(self) -> str:
        return f"{len(self._failures)} failed" if self._failures else ""

    def _run(self, tasks: Sequence[DrawTask], on_drawn: Callable[[DrawTask, Drawn], None], *, jobs: int) -> None:
        """Draw pictures in worker processes; the record of the folder is written now and then, and at the end, however it comes."""
        todo = deque(replace(task, folder=None) if self._dry_run else task for task in tasks)
        saved_at = time.monotonic()
        try:
            for outcome in run_tasks(draw_task, todo, jobs=min(jobs, len(todo)), prepare=load_libraries, keep=True):
                task, result = outcome.task, outcome.result or Drawn(None, 0.0, outcome.crash or "")
                if result.facts is None:
                    self._failures[task.video_id] = result.failure
                elif not self._dry_run:
                    self._folder.facts[task.name] = result.facts
                    self._num_drawn += 1
                if not self._dry_run and time.monotonic() - saved_at > _SECONDS_BETWEEN_RECORDS:
                    self._folder.save()
                    saved_at = time.monotonic()
                on_drawn(task, result)
        finally:
            if not self._dry_run:
                self._folder.save()


def load_libraries() -> None:
    """In a worker process, load what drawing needs, so that the first video does not seem to take longer than others."""
    for name in ("av", "cv2", "PIL.Image", "PIL.JpegImagePlugin"):
        import_module(name)


def draw_task(task: DrawTask, progress: TaskProgress) -> Drawn:
    """Draw the pictures of one clip; this is what the worker processes do. What is wrong with the clip is returned, not raised."""
    started = time.monotonic()
    try:
        with ShardReader(task.path) as reader:
            clip = reader.clip(task.video_id)
            if clip.sha256 != task.sha256:
                raise SourceChangedError(f"{task.path} was changed while the gallery was drawn; run the same command again")
            pictures = draw_pictures(clip)
            frame_rate, num_frames = clip.frame_rate, clip.num_frames
    except DeviceError:
        raise
    except (FlowkitError, OSError) as error:
        return Drawn(None, time.monotonic() - started, str(error))
    shown = pictures.shown
    rate = shown.rate * shown.step  # of the video as it is shown
    facts = PictureFacts(
        video_id=task.video_id,
        speed_px=round(pictures.speed_px, 3),
        scale_px=pictures.scale_px,
        width=pictures.width,
        height=pictures.height,
        start_seconds=round(float(shown.start / rate), 3),
        seconds=round(shown.seconds, 3),
        whole_seconds=round(float((num_frames - 1) / rate), 3),
        num_frames=num_frames,
        num_shown=len(shown.indices),
        frame_rate=round(float(frame_rate), 3),
        still_bytes=len(pictures.still),
        film_bytes=len(pictures.film),
    )
    if task.folder is not None:
        for suffix, data in ((STILL_SUFFIX, pictures.still), (FILM_SUFFIX, pictures.film)):
            write_atomically(task.folder / f"{task.name}{suffix}", data)
    return Drawn(facts, time.monotonic() - started)
