"""Write the clips of a data root as trees of images, in the layouts of other tools.

Frames are the stored JPEGs, byte for byte. Flow images hold the stored bytes: PNGs lose nothing; JPEGs of quality 95 are what the
tools themselves write, and flow that was stored as JPEG stays the same JPEG.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from flowkit.dataset.clips import ClipSource, StoredClips, find_clips
from flowkit.dataset.progress import ProgressBar
from flowkit.dataset.root import Dataset
from flowkit.dataset.shard_files import check_flow, check_stored
from flowkit.errors import FlowkitError, ManifestError, ParameterError
from flowkit.exchange.export_tars import TarExport
from flowkit.exchange.flow_images import FlowEncoder, Labelled
from flowkit.exchange.layouts import LAYOUTS, SUFFIX, FlowImages, TreeLayout, folder_name
from flowkit.exchange.own_files import is_own_file, refuse_links
from flowkit.exchange.record import RECORD_NAME, ExportRecord, read_record
from flowkit.files import is_temporary_of, remove_leftovers, with_file_name, write_atomically
from flowkit.locks import exclusive_lock
from flowkit.shards.reader import Clip
from flowkit.shards.schema import ClipAttributes

MappingChoice = Literal["keep", "paper", "symmetric"]

_PART_FOLDER = ".part"  # where the images of a video are written first
_LOCK_NAME = ".export.lock"
_OLD_NAMES = re.compile(
    rf"{re.escape(RECORD_NAME)}|classes\.txt|(all|train|test)(_split_\d+)?_(rgb|flow)\.txt|(all|train|test)-\d{{6}}\.tar"
)


@dataclass(frozen=True)
class ExportReport:
    """What an export did.

    Parameters
    ----------
    num_done, num_skipped : int
        The numbers of videos that were written now, and that existed already.
    failed : tuple of (str, str)
        Videos that could not be exported, and why.
    num_bytes : int
        Bytes that were written now.
    mean_error_px, max_error_px : float
        How far the flow in the images is from the flow in the clips, measured on one field of each video written now.
    """

    num_done: int
    num_skipped: int
    failed: tuple[tuple[str, str], ...]
    num_bytes: int
    mean_error_px: float
    max_error_px: float


def export(
    root: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    layout: str,
    flow: FlowImages = "jpeg",
    mapping: MappingChoice = "keep",
    split: int | None = None,
    shard_bytes: int = 1 << 30,
    progress: bool | None = None,
) -> ExportReport:
    """Export a data root.

    Parameters
    ----------
    root : path
        The data root.
    output : path
        A new or empty folder, or one in which the same export was begun, which is then finished.
    layout : {"rawframes", "gpu_flow", "denseflow", "webdataset"}
        The arrangement of files, that of mmaction2, gpu_flow, denseflow or WebDataset.
    flow : {"jpeg", "png"}
        The kind of flow images; PNG is lossless.
    mapping : {"keep", "paper", "symmetric"}
        The mapping from flow to the bytes of the images. Other tools write ``paper``; to keep ``symmetric`` loses nothing, and for
        networks that subtract 128 it differs only by a factor of 254/255.
    split : int, optional
        Export only a split's videos, with lists of its train and test videos. By default all videos.
    shard_bytes : int
        A WebDataset tar ends with the first video that brings it past this size.
    progress : bool, optional
        Show the progress on stderr. By default it is shown on a terminal and in a notebook.

    Returns
    -------
    ExportReport
        What was written.

    Raises
    ------
    ManifestError
        If `root` is not a data root, or has no such split or no clips, or a shard that is needed is missing or truncated.
    ParameterError
        If the output folder holds something else.
    NoFlowError
        If the root has frames only.
    BusyError
        If another process exports to the output folder.
    OSError
        If it cannot be written.
    """
    dataset, output = Dataset.open(root), Path(output)
    check_flow(dataset, "export")
    settings = dataset.settings
    if mapping != "keep":
        settings = replace(settings, quantiser=replace(settings.quantiser, mapping=mapping))
    stored = find_clips(dataset.root)
    check_stored(dataset, stored, split=split)
    with ClipSource(stored) as source:
        videos, classes = _videos(dataset, stored, split, source)
    if not videos:
        raise ManifestError(f"{str(root)!r} holds no clip to export: run `flowkit extract VIDEOS` first")
    record = ExportRecord(layout, flow, settings, split)
    _earlier_record(output, record)
    output.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(output / _LOCK_NAME, f"exports to {str(output)!r}"):
        before = _earlier_record(output, record)  # again, now that no other process changes it
        _begin(output, before)
        missing = [
            (video.video_id, "is in the split, but not in any clip file or shard") for video in videos if video.video_id not in stored.paths
        ]
        videos = [video for video in videos if video.video_id in stored.paths]
        encoder = FlowEncoder(flow, settings.quantiser)
        with ClipSource(stored) as source, ProgressBar("export", total=len(videos), unit="videos", progress=progress) as bar:
            writer: _TreeExport | TarExport
            if layout in LAYOUTS:
                writer = _TreeExport(output, LAYOUTS[layout], encoder, before.videos or {})
            else:
                writer = TarExport(output, encoder, shard_bytes, redo=frozenset(before.failed or {}))
            writer.write(videos, source, bar)
        failed = (*writer.failed, *missing)
        _write_lists(output, layout, videos, classes, writer.exported, split)
        replace(record, complete=True, videos=dict(writer.exported), failed=dict(failed), times=writer.times).write(output)
        return ExportReport(writer.num_done, writer.num_skipped, failed, writer.num_bytes, encoder.mean_error_px, encoder.max_error_px)


def _videos(dataset: Dataset, stored: StoredClips, number: int | None, source: ClipSource) -> tuple[list[Labelled], tuple[str, ...]]:
    """Return the videos to export, sorted by id, and the classes in order of label."""
    if number is not None:
        split = dataset.split(number)
        halves = (("train", split.train), ("test", split.test))
        found = [Labelled(record.video_id, record.label, subset) for subset, half in halves for record in half]
        return sorted(found, key=lambda video: video.video_id), split.classes
    class_of: dict[str, str] = {}
    for video_id in stored.paths:
        try:
            class_of[video_id] = source.clip(video_id).class_name
        except (FlowkitError, OSError):  # reported when the clip is exported
            continue
    classes = sorted({name for name in class_of.values() if name})
    label = {name: k for k, name in enumerate(classes)}
    return [Labelled(video_id, label.get(class_of.get(video_id, ""), -1), "all") for video_id in stored.paths], tuple(classes)


def _earlier_record(output: Path, record: ExportRecord) -> ExportRecord:
    """Return the record of the same export that was begun in a folder, or `record` if the folder is new or empty."""
    # A process that was killed while it wrote the first record left a temporary file of it.
    if not output.is_dir() or all(path.name == _LOCK_NAME or is_temporary_of(path.name, RECORD_NAME) for path in output.iterdir()):
        return record
    before = read_record(output)
    if before is None:
        raise ParameterError(f"{str(output)!r} is neither empty nor an export of flowkit (it has no {RECORD_NAME}); choose another folder")
    if not record.same_export(before):
        raise ParameterError(f"{str(output)!r} holds an export with other options or of another data root; choose another folder")
    if (output / _PART_FOLDER).is_symlink():
        raise ParameterError(f"{str(output / _PART_FOLDER)!r} is a link; choose another folder")
    return before


def _begin(output: Path, before: ExportRecord) -> None:
    """Remove what a killed process left, and record that the export is not complete."""
    shutil.rmtree(output / _PART_FOLDER, ignore_errors=True)
    remove_leftovers(output, alone=True, old_names=_OLD_NAMES)
    replace(before, complete=False).write(output)


class _TreeExport:
    """Writes each video as a folder of images."""

    def __init__(self, output: Path, layout: TreeLayout, encoder: FlowEncoder, before: dict[str, ClipAttributes]) -> None:
        self.output, self.layout, self.encoder, self.before = output, layout, encoder, before
        self.num_done, self.num_skipped, self.num_bytes = 0, 0, 0
        self.failed: list[tuple[str, str]] = []
        self.exported: dict[str, ClipAttributes] = {}
        self.times: dict[str, tuple[float, ...]] = {}
        prefixes = "|".join(re.escape(prefix) for _, prefix in (layout.frames, layout.u, layout.v))
        self._image_name = re.compile(rf"({prefixes})\d+\.(jpg|png)")

    def write(self, videos: Sequence[Labelled], source: ClipSource, bar: ProgressBar) -> None:
        """Write every video that was not written before."""
        try:
            for video in videos:
                self._write_if_missing(video, source)
                bar.advance()
        finally:  # also on a full disk, where every byte counts
            shutil.rmtree(self.output / _PART_FOLDER, ignore_errors=True)

    def _write_if_missing(self, video: Labelled, source: ClipSource) -> None:
        folder = folder_name(video.video_id)
        try:
            clip = source.clip(video.video_id)
        except (FlowkitError, OSError) as error:
            self.failed.append((video.video_id, str(error)))
            return
        try:
            for what in ("frames", "u", "v"):
                refuse_links(self.output, self._folder(what, folder))
            if self._is_there(clip, folder):
                self.num_skipped += 1
            else:
                self.num_bytes += self._write_video(clip, folder)
                self.num_done += 1
            self.exported[folder] = clip.attributes
            if clip.times is not None:
                self.times[folder] = tuple(clip.times.tolist())
        except FlowkitError as error:
            self.failed.append((video.video_id, str(error)))

    def _is_there(self, clip: Clip, folder: str) -> bool:
        """Return whether all images of this version of a video exist, by the record or else by its first frame."""
        first = self._folder("frames", folder) / self.layout.image_name(self.layout.frames[1], 0, ".jpg")
        if not is_own_file(first):
            return False
        if folder in self.before:
            return self.before[folder] == clip.attributes
        return first.read_bytes() == clip.encoded_frames(0, 1)[0]

    def _folder(self, what: Literal["frames", "u", "v"], folder: str) -> Path:
        top: str = getattr(self.layout, what)[0]
        return self.output / top / folder

    def _write_video(self, clip: Clip, folder: str) -> int:
        """Write the images of a video aside, then give them their names, the first frame last: if it exists, all do."""
        layout, part = self.layout, self.output / _PART_FOLDER
        shutil.rmtree(part, ignore_errors=True)
        suffix, num_bytes = SUFFIX[self.encoder.flow], 0
        for top, _ in (layout.frames, layout.u, layout.v):
            (part / top).mkdir(parents=True, exist_ok=True)

        def put(top_and_prefix: tuple[str, str], index: int, data: bytes, suffix: str) -> int:
            top, prefix = top_and_prefix
            path = part / top / layout.image_name(prefix, index, suffix)
            with with_file_name(path):
                path.write_bytes(data)
            return len(data)

        for k, (u, v) in enumerate(self.encoder.pairs(clip)):
            num_bytes += put(layout.u, k, u, suffix) + put(layout.v, k, v, suffix)
        for k in range(clip.num_frames):
            num_bytes += put(layout.frames, k, clip.encoded_frames(k, k + 1)[0], ".jpg")
        first = layout.image_name(layout.frames[1], 0, ".jpg")
        for top in dict.fromkeys((layout.frames[0], layout.u[0], layout.v[0])):  # delete an older version, its first frame before all else
            final = self.output / top / folder
            final.mkdir(parents=True, exist_ok=True)
            old = [path for path in final.iterdir() if self._image_name.fullmatch(path.name)]
            for path in sorted(old, key=lambda path: (path.name != first, path.name)):
                path.unlink()
        for top in dict.fromkeys((layout.u[0], layout.v[0], layout.frames[0])):
            final = self.output / top / folder
            for path in sorted((part / top).iterdir(), key=lambda path: (path.name == first, path.name)):
                os.replace(path, final / path.name)
        return num_bytes


def _write_lists(
    output: Path, layout: str, videos: Iterable[Labelled], classes: Sequence[str], exported: dict[str, ClipAttributes], split: int | None
) -> None:
    """Write the class names, and lists that RawframeDataset of mmaction2 reads: ``folder num_images label``."""
    if classes:
        write_atomically(
            output / "classes.txt",
            "".join(name.encode("unicode_escape").decode() + "\n" if not name.isprintable() else name + "\n" for name in classes),
        )
    if layout not in LAYOUTS:
        return
    lines: dict[str, list[tuple[str, int, int]]] = {}
    for video in videos:
        folder = folder_name(video.video_id)
        if video.label >= 0 and folder in exported:
            lines.setdefault(video.subset, []).append((folder, exported[folder].num_frames, video.label))
    for subset, rows in lines.items():
        name = subset if split is None else f"{subset}_split_{split}"
        for modality, fewer in (("rgb", 0), ("flow", 1)):
            text = "".join(f"{folder} {num_frames - fewer} {label}\n" for folder, num_frames, label in rows)
            write_atomically(output / f"{name}_{modality}.txt", text)
