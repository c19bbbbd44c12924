"""What an extraction has to do: which videos of a tree are new or changed, and which are done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from flowkit.dataset.clips import Packed, find_clips, packed_videos
from flowkit.dataset.paths import clip_path, clip_paths, shard_paths
from flowkit.dataset.root import RECORD_NAME, Dataset, check_apart
from flowkit.dataset.settings import ExtractSettings
from flowkit.dataset.shard_files import check_readable
from flowkit.dataset.shard_update import settings_differences
from flowkit.errors import ManifestError, ParameterError, ShardFormatError, SourceChangedError
from flowkit.extraction.folder_notes import folder_notes, folder_warnings, gone_note
from flowkit.extraction.jobs import VideoJob
from flowkit.extraction.results import WRITTEN, VideoResult, read_index, with_status
from flowkit.extraction.segments.resolving import ResolvedList, resolve_segments
from flowkit.extraction.source import Source
from flowkit.file_versions import FileVersion
from flowkit.shards.reader import ShardReader
from flowkit.shards.schema import ClipAttributes
from flowkit.shards.structure import ShardStructure
from flowkit.video.containers import VIDEO_SUFFIXES
from flowkit.video.folders import FolderLayout
from flowkit.video.ids import MOST_CLASHES, first_few
from flowkit.video.named import find_videos
from flowkit.video.segments.segment import Segment
from flowkit.video.tree import Scan, ignored_text
from flowkit.words import counted


@dataclass(frozen=True)
class Plan:
    """What an extraction will do, found by `make_plan` before anything is written.

    Parameters
    ----------
    settings : ExtractSettings
        The settings that all clips of the root share.
    jobs : tuple of VideoJob
        Videos to extract, largest first, so that no long video is left for the end.
    skipped : tuple of VideoResult
        Videos that are done already.
    failed : tuple of VideoResult
        Files that cannot even be tried, such as those whose name is not UTF-8.
    ignored : dict of str to int
        Numbers of files that are not videos, by suffix, and of hidden files and folders.
    notes : tuple of str
        What the user should know about the folders before the work begins, in sentences without a full stop.
    elsewhere : tuple of str
        Videos of the other parts of a sharded extraction, whose runs note their results in the index.
    failed_elsewhere : tuple of VideoResult
        Files that cannot be tried, if it is the first part that reports them.
    confirmed : tuple of VideoResult
        Those of `skipped` that are done although the index does not say so of the present version of their file.
    warnings : tuple of str
        What is probably wrong with the folder, in such sentences: that no class is known, for one.
    source : Path
        The folder to which the ids of the videos are relative.
    """

    settings: ExtractSettings
    jobs: tuple[VideoJob, ...]
    skipped: tuple[VideoResult, ...]
    failed: tuple[VideoResult, ...]
    ignored: dict[str, int]
    notes: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()
    failed_elsewhere: tuple[VideoResult, ...] = ()
    confirmed: tuple[VideoResult, ...] = ()
    warnings: tuple[str, ...] = ()
    source: Path = Path()


def make_plan(
    videos: Path,
    root: Path,
    *,
    settings: ExtractSettings | None = None,
    part: tuple[int, int] = (0, 1),
    segments: Path | None = None,
    jobs: int | None = None,
) -> Plan:
    """Find what there is to extract and what is done already.

    Parameters
    ----------
    videos : Path
        The video tree, a video file, or a list of video files; see `flowkit.video.named.find_videos`.
    root : Path
        The data root; need not exist yet.
    settings : ExtractSettings, optional
        The settings that all clips of the root share; by default those of the root, or `ExtractSettings()` for a new one.
    part : (int, int)
        (i, n): only every n-th video, from the i-th (0-based); for runs on n machines that share the root.
    segments : Path, optional
        A list of segments: these parts of videos are extracted, and no other video.
    jobs : int, optional
        Number of processes that look into the videos of segments; by default one per core.

    Raises
    ------
    ManifestError
        If something is wrong with the list of segments, there is no video, or if two files would share a video id or a clip file; one
        of the two may be in the folder that the root was made from.
    ParameterError
        If the root was made with other settings, or by an import; also if its dataset.json is gone, and its clips show that.
    """
    existing = Dataset.open_if_present(root)
    if settings is None:
        settings = ExtractSettings() if existing is None else existing.settings
    if existing is not None:
        existing.check_settings(settings)
    else:
        _check_clips_without_record(root, settings)
    if settings.is_imported:
        raise ParameterError(f"the data root {str(root)!r} holds flow imported from {settings.solver}; extract into another data root")
    if settings.method is not None:
        settings.method.solver()  # it must be installed, in the version that the root records
        settings.method.check_size(settings.short_side, settings.short_side)
    known_source = Path(existing.source) if existing is not None and existing.source else None
    asked_for = videos
    videos, scan = find_videos(videos, VIDEO_SUFFIXES, data_root=root, source=known_source)
    if not scan.videos and not scan.unreadable:
        nothing = "it is a data root" if (videos / RECORD_NAME).is_file() else "the folder is empty"
        found = ignored_text(scan.ignored) or nothing
        raise ManifestError(
            f"no video found under {str(videos)!r} ({found}); names of videos end in .avi, .mp4, .mkv, .webm, .mov, .mpg or another of "
            f"{len(VIDEO_SUFFIXES)} suffixes, which docs/pipeline.md lists"
        )
    listed = _listed(scan, None if segments is None else resolve_segments(segments, scan, settings, jobs=jobs))
    check_apart(root, (each.video_id for each in listed.all))
    index = read_index(root)
    try:
        packed = packed_videos(root)
    except ShardFormatError:
        if existing is not None:
            check_readable(existing, find_clips(root))  # names all of them, and the command that makes them again
        raise
    todo, skipped, confirmed, vanished = [], [], [], []
    digests = SourceDigests()
    here = listed.of_part(part)
    for each in here:
        try:
            version = FileVersion.of(each.path)
        except OSError as cause:
            vanished.append(VideoResult(each.video_id, "failed", 0, 0, error=f"{cause.strerror}: {str(each.path)!r}"))
            continue
        job = VideoJob(each.video_id, each.path, each.class_name, root, settings, 0, 0, segment=each.segment, share=each.share)
        job = job.with_version(version)
        done = done_before(job, index.get(each.video_id), packed, digests)
        if done is None:
            todo.append(replace(job, frames_sha256=stored_frames_sha256(job, index.get(each.video_id), packed)))
        else:
            skipped.append(done)
            if done is not index.get(each.video_id):
                confirmed.append(done)
    if existing is not None and existing.source:
        _check_one_source(existing, videos, [job for job in todo if job.video_id in packed or job.clip_path.is_file()])
    unusable = tuple(VideoResult(name, "failed", 0, 0, error=why) for name, why in listed.unreadable)
    ids_here = {each.video_id for each in here}
    elsewhere = tuple(each.video_id for each in listed.all if each.video_id not in ids_here)
    failed, failed_elsewhere = ((*unusable, *vanished), ()) if part[0] == 0 else (tuple(vanished), unusable)
    others = (name for name, result in index.items() if name not in listed.layout.class_of and result.status in WRITTEN)
    stored = (name for name in others if name in packed or clip_path(root, name).is_file())
    gone = gone_note(asked_for, existing, stored) if segments is None else ()
    largest_first = tuple(sorted(todo, key=lambda job: -job.work_bytes))
    return Plan(
        settings,
        largest_first,
        tuple(skipped),
        failed,
        scan.ignored,
        (*folder_notes(listed.layout), *listed.notes, *gone),
        elsewhere,
        failed_elsewhere,
        tuple(confirmed),
        tuple(folder_warnings(videos, listed.layout, existing, [name for name, result in index.items() if result.status in WRITTEN])),
        videos,
    )


def _check_clips_without_record(root: Path, settings: ExtractSettings) -> None:
    """Refuse settings that differ from those of the first clip in a folder that has lost its dataset.json."""
    for path in (*clip_paths(root), *shard_paths(root)):
        try:
            with ShardStructure(path) as structure:
                if not structure.num_videos:
                    continue
                first = structure.layout(0)
        except ShardFormatError:
            continue
        differing = settings_differences(first.settings, settings)
        if differing:
            raise ParameterError(
                f"{str(root)!r} has lost its dataset.json, but holds clips, and that of {first.attributes.video_id!r} was extracted "
                f"with other settings ({'; '.join(differing)}): restore dataset.json, use the same options, or choose another data "
                "root with --data DIR"
            )
        return


@dataclass(frozen=True)
class _Listed:
    """A video, or a segment of one, that the user wants."""

    video_id: str
    path: Path
    class_name: str
    segment: Segment | None = None
    share: float = 1.0


@dataclass(frozen=True)
class _Everything:
    """All that the user wants, with what cannot be read and what the folders say."""

    all: tuple[_Listed, ...]
    layout: FolderLayout
    unreadable: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()

    def of_part(self, part: tuple[int, int]) -> list[_Listed]:
        """Return every n-th video file, from the i-th; all segments of a file are in the same part."""
        number = {path: k for k, path in enumerate(dict.fromkeys(each.path for each in self.all))}
        return [each for each in self.all if number[each.path] % part[1] == part[0]]


def _listed(scan: Scan, segments: ResolvedList | None) -> _Everything:
    """Return all videos of a folder, or the segments of those that a list names."""
    if segments is None:
        return _Everything(
            tuple(_Listed(video.video_id, video.path, video.class_name) for video in scan.videos), scan.layout, scan.unreadable
        )
    found = tuple(
        _Listed(each.segment.segment_id, each.video.path, each.class_name, each.segment, each.share) for each in segments.segments
    )
    num_videos = len({each.path for each in found})
    notes = [f"{counted(len(found), 'segment')} of {counted(num_videos, 'video')} are listed"]
    if segments.num_unlisted:
        notes.append(f"{counted(segments.num_unlisted, 'video')} of the folder that the list of segments does not name are left out")
    layout = replace(scan.layout, class_of={each.video_id: each.class_name for each in found})
    return _Everything(found, layout, segments.unreadable, (", ".join(notes),))


def _folder(job: VideoJob) -> str:
    return job.video_id.rpartition("/")[0]


def _check_one_source(dataset: Dataset, videos: Path, replacing: Sequence[VideoJob]) -> None:
    """Refuse to replace the clips of one folder's videos with those of another folder whose videos have the same ids."""
    source = Path(dataset.source)
    if not replacing or not source.is_dir() or source.samefile(videos):  # moved, or the same
        return
    both = []
    for folder, jobs in groupby(sorted(replacing, key=_folder), key=_folder):
        others: dict[str, Path] = {}
        for path in sorted((source / folder).iterdir() if (source / folder).is_dir() else ()):
            if path.suffix.lower() in VIDEO_SUFFIXES:
                others.setdefault(path.stem, path)
        both += [
            f"{str(other)!r} and {str(job.path)!r} would both be {job.video_id!r}"
            for job in jobs
            if (other := others.get(job.video_id.rpartition("/")[2])) is not None
        ]
    if both:
        raise ManifestError(
            f"{str(dataset.root)!r} holds clips of other videos with the same ids: "
            f"{first_few(sorted(both), most=MOST_CLASHES)}; extract the second folder into a separate data root with --data DIR, "
            "or rename the videos"
        )


class SourceDigests:
    """The SHA-256 of each video file, computed once although several videos may be segments of it."""

    def __init__(self) -> None:
        self._known: dict[tuple[Path, FileVersion], str] = {}

    def of(self, job: VideoJob) -> str:
        """Return the digest of the file of a video.

        Raises
        ------
        SourceChangedError, OSError
            If it has another version than the job, or cannot be read.
        """
        key = (job.path, job.version)
        if key not in self._known:
            self._known[key] = Source(*key).sha256
        return self._known[key]


def done_before(
    job: VideoJob, earlier: VideoResult | None, packed: dict[str, Packed], digests: SourceDigests | None = None
) -> VideoResult | None:
    """Return an earlier run's result if the video has not changed since then and its clip is still in a clip file or a shard.

    A clip that has frames only is not done if flow is to be stored.
    """
    path = job.clip_path
    in_shard = None if path.is_file() else packed.get(job.video_id)
    if in_shard is None and not path.is_file():
        return None
    stored = path if in_shard is None else in_shard.path
    unchanged = earlier is not None and job.version.may_be(
        FileVersion(earlier.source_bytes, earlier.source_mtime_ns, earlier.source_ctime_ns)
    )
    if earlier is not None and earlier.status in WRITTEN and unchanged:
        # The index may know a newer clip than the one that is stored. Before 0.1 it did not say what a clip was extracted from.
        is_this = earlier.clip_bytes == path.stat().st_size if in_shard is None else earlier.source_sha256 in ("", in_shard.source_sha256)
        has_flow = earlier.has_flow if in_shard is None else in_shard.has_flow
        if is_this and has_flow != job.settings.has_flow:
            return None
        if is_this and (job.segment is None or _holds_segment(stored, job)):
            return earlier
    # A run was killed between renaming the clip and noting it, or the video was copied, touched or replaced: its bytes decide.
    try:
        with ShardReader(stored) as reader:
            attributes = reader.clip(job.video_id).attributes
    except ShardFormatError:
        if stored == path:  # a damaged clip is replaced; a shard holds other videos too
            return None
        raise
    if attributes.has_flow != job.settings.has_flow:
        return None
    try:
        if attributes.source_sha256 != (digests or SourceDigests()).of(job):
            return None
    except (SourceChangedError, OSError):  # reported when it is extracted
        return None
    if job.segment is not None and not _is_of_segment(attributes, job):
        return None
    counts = (attributes.num_frames, attributes.header_frames, attributes.decode_errors)
    clip_bytes = stored.stat().st_size if stored == path else 0
    result = VideoResult(job.video_id, "ok", job.source_bytes, job.source_mtime_ns, *counts, clip_bytes)
    result = replace(result, source_ctime_ns=job.source_ctime_ns, source_sha256=attributes.source_sha256, notes=attributes.notes)
    result = replace(result, source_frames=attributes.source_frames, has_flow=attributes.has_flow)
    return with_status(result, losses=attributes.losses)


def stored_frames_sha256(job: VideoJob, earlier: VideoResult | None, packed: dict[str, Packed]) -> str:
    """Return the SHA-256 of the file whose frames are stored without flow, to which the flow is to be added; otherwise an empty text."""
    path = job.clip_path
    if not job.settings.has_flow:
        return ""
    if not path.is_file():
        in_shard = packed.get(job.video_id)
        return "" if in_shard is None or in_shard.has_flow else in_shard.source_sha256
    if earlier is not None and earlier.source_sha256 and earlier.clip_bytes == path.stat().st_size:
        return "" if earlier.has_flow else earlier.source_sha256
    try:
        with ShardReader(path) as reader:
            about = reader.clip(job.video_id).attributes
    except ShardFormatError:  # a damaged clip is replaced
        return ""
    return "" if about.has_flow else about.source_sha256


def _holds_segment(stored: Path, job: VideoJob) -> bool:
    """Whether a file holds a clip of a segment, with the class that the list gives it now."""
    try:
        with ShardReader(stored) as reader:
            return _is_of_segment(reader.clip(job.video_id).attributes, job)
    except ShardFormatError:
        return False


def _is_of_segment(about: ClipAttributes, job: VideoJob) -> bool:
    """Whether a clip is that of a segment, with the class that the list gives it now."""
    return job.segment is not None and (about.segment, about.class_name) == (job.segment.to_dict(), job.class_name)
