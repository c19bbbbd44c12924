"""The videos of a folder and its subfolders, by id."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flowkit.errors import ManifestError
from flowkit.video.ids import check_video_id, printable_name

if TYPE_CHECKING:
    from collections.abc import Iterator

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VideoFile:
    """A video in a folder tree: its id, its file, and the folder that names its class (``a/b`` if nested, empty at the root)."""

    video_id: str
    path: Path
    class_name: str


@dataclass(frozen=True)
class Scan:
    """What a folder tree of videos contains.

    Parameters
    ----------
    videos : tuple of VideoFile
        The videos, sorted by id.
    ignored : int
        Number of files without the suffix of a video, and of ``._`` files, which macOS makes.
    unreadable : tuple of (str, str)
        Videos and folders that cannot be used, and why: a name that is not UTF-8 or cannot be an id, a dangling link, a
        folder without permission. The names are relative to the root and printable as UTF-8.
    """

    videos: tuple[VideoFile, ...]
    ignored: int
    unreadable: tuple[tuple[str, str], ...]


def scan_videos(root: Path, suffixes: frozenset[str], *, leave_out: Path | None = None) -> Scan:
    """Find the videos of a tree.

    Parameters
    ----------
    root : Path
        The folder to search, with all its subfolders. Links to files and folders are followed, except links to a folder
        that contains them.
    suffixes : frozenset of str
        The suffixes of videos, in lower case, with the dot.
    leave_out : Path, optional
        A folder below the root that is not searched: a data root, which contains the videos that ``flowkit inspect`` wrote.

    Raises
    ------
    ManifestError
        If there is no such folder, or two files would share an id because they differ only in their suffix. Ids that
        differ only in case belong to two videos.
    """
    if not root.is_dir():
        raise ManifestError(f"there is no folder {str(root)!r}; name the folder that holds the videos")
    videos: dict[str, VideoFile] = {}
    unreadable: list[tuple[str, str]] = []
    ignored = 0
    left_out = _identity(leave_out) if leave_out is not None and leave_out.is_dir() else None
    for relative, path, folder_fault in walk_files(str(root), leave_out=left_out):
        video_id, suffix = os.path.splitext(relative)
        if folder_fault is None and (suffix.lower() not in suffixes or os.path.basename(relative).startswith("._")):
            ignored += 1
            continue
        fault = folder_fault or _video_fault(video_id, path)
        if fault is not None:
            unreadable.append((printable_name(relative), fault))
            continue
        video = VideoFile(video_id, Path(path), video_id.rpartition("/")[0])
        twin = videos.setdefault(video_id, video)
        if twin is not video:
            raise ManifestError(f"{str(twin.path)!r} and {path!r} differ only in their suffix, so both would be {video_id!r}; rename one")
    return Scan(tuple(videos[video_id] for video_id in sorted(videos)), ignored, tuple(sorted(unreadable)))


def _video_fault(video_id: str, path: str) -> str | None:
    try:
        check_video_id(video_id)
    except ManifestError as error:
        return str(error)
    return None if os.path.isfile(path) else "it is not a regular file, or a dangling link"


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def walk_files(
    folder: str, relative: str = "", above: tuple[tuple[int, int], ...] = (), *, leave_out: tuple[int, int] | None = None
) -> Iterator[tuple[str, str, str | None]]:
    """Yield each file below a folder; links to folders are followed, except to a folder that contains them.

    Parameters
    ----------
    folder, relative : str
        The folder to begin with, and its path relative to the root, which is empty at the root.
    above : tuple
        The folders that contain this one, by device and inode.
    leave_out : (int, int), optional
        A folder below, by device and inode, that is skipped.

    Yields
    ------
    (str, str, str or None)
        The path relative to the root with ``/``, the path, and None, or the reason why a folder cannot be read.
    """
    try:
        status = os.stat(folder)
        with os.scandir(folder) as scanned:
            entries = sorted(scanned, key=lambda entry: entry.name)
    except OSError as error:
        yield relative or ".", folder, f"the folder cannot be read: {error.strerror}"
        return
    here = (status.st_dev, status.st_ino)
    if here in above:
        _logger.info("%r links to a folder that contains it; the link is not followed", printable_name(folder))
        return
    if above and here == leave_out:
        return
    for entry in entries:
        name = f"{relative}/{entry.name}" if relative else entry.name
        if entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry.path)):
            yield from walk_files(entry.path, name, (*above, here), leave_out=leave_out)
        else:
            yield name, entry.path, None
