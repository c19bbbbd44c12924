"""Import trees of flow images that other tools wrote into a data root: one clip file per video, the bytes of JPEGs kept."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from flowkit.dataset.clips import ClipSource, StoredClips, find_clips
from flowkit.dataset.lists.entries import ListEntry
from flowkit.dataset.lists.matching import pair_names
from flowkit.dataset.lists.official import split_numbers
from flowkit.dataset.lists.reading import read_lists
from flowkit.dataset.paths import clip_path
from flowkit.dataset.progress import ProgressBar
from flowkit.dataset.root import Dataset, check_apart, open_root
from flowkit.dataset.root_locks import changing
from flowkit.dataset.settings import Codec, ExtractSettings, ForeignTool
from flowkit.dataset.shard_files import check_readable
from flowkit.errors import FlowkitError, ManifestError, ParameterError, ShardFormatError
from flowkit.exchange.bounds import bounds_text
from flowkit.exchange.foreign_images import read_image
from flowkit.exchange.foreign_trees import TreeVideo, find_videos
from flowkit.exchange.image_runs import read_flow_runs, read_runs
from flowkit.exchange.import_video import ImportJob, Trim, import_task, prepare_process
from flowkit.exchange.layouts import LAYOUTS
from flowkit.exchange.own_files import refuse_links
from flowkit.exchange.record import ExportRecord, read_record
from flowkit.extraction.results import IndexWriter, VideoResult
from flowkit.files import write_atomically
from flowkit.quantise import Quantiser
from flowkit.video.ids import MOST_CLASHES, OWN_FOLDERS, first_few, name_ends, without_suffix
from flowkit.workers.processes import TaskLimits, num_cores, run_tasks
from flowkit.workers.progress import PATIENCE_SECONDS
from flowkit.workers.stopping import StopRequest

_TOOL_OF_LAYOUT: dict[str, ForeignTool] = {"gpu_flow": "gpu_flow", "rawframes": "denseflow", "denseflow": "denseflow"}


@dataclass(frozen=True)
class ImportSettings:
    """How to read a tree.

    Parameters
    ----------
    tool : {"gpu_flow", "denseflow", "dense_flow"}, optional
        The tool that wrote the tree. Needed unless flowkit exported it.
    bound_px : float, optional
        The displacement, px/frame, that bytes 0 and 255 stand for. Needed unless flowkit exported the tree.
    trim : {"none", "first", "last"}
        The end at which surplus frames or flow fields are dropped.
    frame_rate : Fraction
        The frame rate of the videos; 0 if it is unknown.
    codec : {"zstd", "gzip", "none"}
        How flow that comes as PNGs is compressed. JPEGs are kept.
    resize : bool
        Resize frames that have another size than the flow, instead of refusing their video. The report names the sizes.

    Raises
    ------
    ParameterError
        If the bound is outside the range of a quantiser.
    """

    tool: ForeignTool | None = None
    bound_px: float | None = None
    trim: Trim = "none"
    frame_rate: Fraction = Fraction(0)
    codec: Codec = "zstd"
    resize: bool = False

    def __post_init__(self) -> None:
        if self.bound_px is not None:
            Quantiser(self.bound_px, "paper")


@dataclass(frozen=True)
class ImportReport:
    """The outcome of an import; saved as ``import-report.json``.

    Parameters
    ----------
    done, skipped, failed : tuple of VideoResult
        Videos that were written now, that existed already, and that have no clip, with the reason. The `error` of a video that was
        written says what was dropped from it, and how its frames were resized.
    num_without_class : int
        The number of videos that are in no folder and in no list.
    pending : int
        The number of videos that were left when the run was stopped.
    seconds : float
        Duration of the import.
    """

    done: tuple[VideoResult, ...]
    skipped: tuple[VideoResult, ...]
    failed: tuple[VideoResult, ...]
    num_without_class: int = 0
    pending: int = 0
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the report as built-in types."""
        lists = {"done": self.done, "skipped": self.skipped, "failed": self.failed}
        return {
            "format": "flowkit-import-report",
            "format_version": 1,
            "counts": {**{name: len(results) for name, results in lists.items()}, "pending": self.pending},
            "num_without_class": self.num_without_class,
            "seconds": round(self.seconds, 3),
            **{name: [asdict(result) for result in results] for name, results in lists.items()},
        }


def import_tree(
    tree: str | os.PathLike[str],
    root: str | os.PathLike[str],
    *,
    settings: ImportSettings,
    frames: str | os.PathLike[str] | None = None,
    lists: str | os.PathLike[str] | None = None,
    jobs: int | None = None,
    stop: StopRequest | None = None,
    progress: bool | None = None,
) -> ImportReport:
    """Import every video of a tree that is not in the data root yet.

    Parameters
    ----------
    tree : path
        A tree that another tool wrote (see `flowkit.exchange.foreign_trees.find_videos`), or one that flowkit exported.
    root : path
        The data root, made if need be. All its clips must come from the same tool with the same bound.
    settings : ImportSettings
        How to read the tree.
    frames : path, optional
        The folder of the frames, if they are in an unusual place.
    lists : path, optional
        Split lists that give videos their class, and flat trees their ids: a folder or a CSV file, as `pack` reads them.
    jobs : int, optional
        Worker processes; with 1 the work is done in this process. By default one per core.
    stop : StopRequest, optional
        A request to stop: videos in progress are finished, and no further ones begin.
    progress : bool, optional
        Show the progress on stderr. By default it is shown on a terminal and in a notebook.

    Returns
    -------
    ImportReport

    Raises
    ------
    ParameterError
        If the tool or bound is missing or contradicts the tree's record, or the root was made with other settings.
    ManifestError
        If no video is found, two would have the same id, or a shard of the root is truncated or damaged.
    BusyError
        If another process changes the root.
    """
    started = time.monotonic()
    tree, root = Path(tree), Path(root)
    record = read_record(tree)
    tool = _tool(settings, record, tree)
    videos = find_videos(tree, tool, frames=None if frames is None else Path(frames), record=record)
    if record is not None:
        videos = _recorded(videos, record)
    elif lists is not None:
        videos = _listed(videos, Path(lists))
    _check_different(videos)
    check_apart(root, (video.video_id for video in videos if not video.fault))
    root_has = _root_settings(videos, tool, settings, record)
    refuse_links(root / "clips", root / "clips" / OWN_FOLDERS[0])
    open_root(root, tree, root_has)
    with changing(root, "imports into"):
        stored = find_clips(root)
        check_readable(Dataset.open(root), stored)
        earlier = _ids_in_root(videos, stored)

        todo: deque[ImportJob] = deque()
        done: list[VideoResult] = []
        skipped, failed = [], []
        rate = f"{settings.frame_rate.numerator}/{settings.frame_rate.denominator}"
        for video in videos:
            if fault := video.fault or _link_fault(root, video):
                failed.append(VideoResult(video.folder, "failed", 0, 0, error=fault))
                continue
            path = clip_path(root, video.video_id)
            if video.video_id in stored.paths or video.video_id in earlier:
                video_id = earlier.get(video.video_id, video.video_id)
                path = clip_path(root, video_id)
                skipped.append(VideoResult(video_id, "ok", 0, 0, clip_bytes=path.stat().st_size if path.is_file() else 0))
            else:
                known = (record.videos or {}).get(video.folder) if record is not None else None
                times = (record.times or {}).get(video.folder) if record is not None else None
                todo.append(ImportJob(video, tool, root_has, str(path), settings.trim, rate, known, times, settings.resize))
        num_todo, num_settled = len(todo), 0
        index = IndexWriter(root)
        try:
            with ProgressBar("import", total=num_todo, unit="videos", progress=progress) as bar:
                num_processes, limits = min(jobs or num_cores(), max(num_todo, 1)), TaskLimits(_patience)
                # Worker processes alone decode the images, because a decoder may crash or hang.
                for outcome in run_tasks(
                    import_task, todo, jobs=num_processes, prepare=prepare_process, limits=limits, stop=stop, keep=True
                ):
                    result = outcome.result
                    if outcome.crash is not None:
                        result = VideoResult(outcome.task.video.video_id, "failed", 0, 0, error=outcome.crash)
                    if result is None:
                        continue
                    index.append(result)
                    num_settled += 1
                    (done if result.status == "ok" else failed).append(result)
                    bar.update(num_settled, note=f"{len(failed)} failed" if failed else "")
        finally:
            index.close()
            report = ImportReport(
                done=tuple(sorted(done, key=lambda result: result.video_id)),
                skipped=tuple(skipped),
                failed=tuple(sorted(failed, key=lambda result: result.video_id)),
                num_without_class=sum(not video.class_name for video in videos),
                pending=num_todo - num_settled,
                seconds=time.monotonic() - started,
            )
            write_atomically(root / "import-report.json", json.dumps(report.to_dict(), indent=1, ensure_ascii=False) + "\n")
    return report


def _tool(settings: ImportSettings, record: ExportRecord | None, tree: Path) -> ForeignTool:
    """Return the tool whose layout a tree has, after checking that the settings agree with the record of the tree."""
    if record is None:
        if settings.tool is None:
            raise ParameterError(
                f"{str(tree)!r} was not exported by flowkit: name the tool that wrote it with --tool gpu_flow|denseflow|dense_flow"
            )
        if settings.bound_px is None:
            raise ParameterError(
                f"the bound at which {settings.tool} clipped flow is not in its images: give it with --bound, in px/frame or by the name "
                f"of what ran it ({bounds_text(settings.tool)})"
            )
        return settings.tool
    if record.layout not in LAYOUTS:
        raise ParameterError(f"{str(tree)!r} is a {record.layout} export, which cannot be imported; import an export in another layout")
    if not record.complete:
        raise ParameterError(f"{str(tree)!r} is an unfinished export: run that export again first")
    tool = _TOOL_OF_LAYOUT[record.layout]
    if settings.tool not in (None, tool):
        raise ParameterError(f"{str(tree)!r} was exported by flowkit as {record.layout}: leave out --tool {settings.tool}")
    if settings.bound_px not in (None, record.settings.quantiser.bound):
        raise ParameterError(f"{str(tree)!r} was exported with bound {record.settings.quantiser.bound:g}, not {settings.bound_px:g}")
    return tool


def _link_fault(root: Path, video: TreeVideo) -> str:
    """Return why the clip file of a video cannot be written into a data root, whose ``clips`` may be a link and nothing below it."""
    try:
        refuse_links(root / "clips", clip_path(root, video.video_id).parent)
    except ManifestError as error:
        return str(error)
    return ""


def _recorded(videos: Iterable[TreeVideo], record: ExportRecord) -> list[TreeVideo]:
    """Restore the ids and classes of the videos of an exported tree."""
    known = record.videos or {}
    found = []
    for video in videos:
        attributes = known.get(video.folder)
        if attributes is None:
            found.append(replace(video, fault=video.fault or "is not in the record of the export"))
        else:
            found.append(replace(video, video_id=attributes.video_id, class_name=attributes.class_name, fault=""))
    missing = sorted(set(known) - {video.folder for video in videos})
    nowhere = Path()
    found += [
        TreeVideo(known[f].video_id, "", f, nowhere, nowhere, nowhere, fault="is in the record of the export, but missing") for f in missing
    ]
    return found


def _listed(videos: Sequence[TreeVideo], lists: Path) -> list[TreeVideo]:
    """Give videos their ids and classes from lists: by the same name, or one that is the end of the other (see `pair_names`)."""
    entries: dict[str, ListEntry] = {}
    for number in (1,) if lists.is_file() else split_numbers(lists) or (1,):
        found = read_lists(lists, number)
        entries.update({entry.video_id: entry for entry in (*found.train, *found.test, *found.unused)})
    pairs = pair_names(list(entries.values()), [video.video_id for video in videos if not video.fault])
    if pairs.several:
        clashes = [f"{first_few(map(repr, folders), last='and')} could be {name!r}" for name, folders in sorted(pairs.several.items())]
        raise ManifestError(f"several folders fit one row of {str(lists)!r}; rename all but one: {first_few(clashes, most=MOST_CLASHES)}")
    entry_of = {video_id: entries[name] for name, video_id in pairs.video_of.items()}
    listed = []
    for video in videos:
        entry = entry_of.get(video.video_id)
        listed.append(video if entry is None else replace(video, video_id=without_suffix(entry.video_id), class_name=entry.class_name))
    return listed


def _ids_in_root(videos: Iterable[TreeVideo], stored: StoredClips) -> dict[str, str]:
    """Return under which id an earlier import wrote videos that it named otherwise, with or without lists."""
    by_name: dict[str, list[str]] = {}
    for video_id in stored.paths:
        by_name.setdefault(video_id.rpartition("/")[2], []).append(video_id)
    earlier = {}
    with ClipSource(stored) as source:
        for video in videos:
            if video.fault or video.video_id in stored.paths:
                continue
            for name in {video.video_id.rpartition("/")[2], video.folder.rpartition("/")[2]}:
                for other in by_name.get(name, []):
                    is_end = {video.folder, video.video_id} & {*name_ends(other)} or other in name_ends(video.video_id)
                    if is_end and _is_clip_of(source, other, video):
                        earlier[video.video_id] = other
    return earlier


def _is_clip_of(source: ClipSource, video_id: str, video: TreeVideo) -> bool:
    """Return whether a clip was imported from the folder of a video: by its name and its first frame, if the frame is kept as it is."""
    try:
        clip = source.clip(video_id)
        if clip.attributes.source_name != video.folder.rpartition("/")[2]:
            return False
        frames, _, _ = read_runs(video)
        surplus = max(len(frames.paths) - clip.num_frames, 0)  # an import may have dropped frames at either end
        images = [read_image(frames.paths[k]) for k in sorted({0, surplus})]
        if frames.is_png or images[0][1] != (clip.height, clip.width):  # it was encoded again
            return surplus == 0
        return clip.encoded_frames(0, 1)[0] in [data for data, _ in images]
    except (FlowkitError, OSError):
        return False


def _check_different(videos: Iterable[TreeVideo]) -> None:
    folders: dict[str, list[str]] = {}
    for video in videos:
        if not video.fault:
            folders.setdefault(video.video_id, []).append(video.folder)
    clashes = [f"{first_few(map(repr, several), last='and')} would be {name!r}" for name, several in folders.items() if len(several) > 1]
    if clashes:
        raise ManifestError(f"several folders would be one video; rename all but one of each: {first_few(clashes, most=MOST_CLASHES)}")


def _root_settings(
    videos: Iterable[TreeVideo], tool: ForeignTool, settings: ImportSettings, record: ExportRecord | None
) -> ExtractSettings:
    """Return the settings for the data root."""
    if record is not None:
        kept: Codec | Literal["no-flow"] = (
            "jpeg" if record.flow == "jpeg" else "zstd" if record.settings.codec == "jpeg" else record.settings.codec
        )
        return replace(record.settings, codec=kept)
    assert settings.bound_px is not None
    quantiser = Quantiser(settings.bound_px, "paper")
    codec: Codec = "jpeg"
    for video in videos:
        try:
            codec = settings.codec if read_flow_runs(video)[0].is_png else "jpeg"
            break
        except ShardFormatError:
            continue
    return ExtractSettings(preset="imported", solver=tool, quantiser=quantiser, short_side=0, codec=codec)


def _patience(job: ImportJob) -> float:
    return PATIENCE_SECONDS
