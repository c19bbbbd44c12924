"""The videos of a folder and its subfolders, by id."""

from __future__ import annotations

import logging
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flowkit.errors import ManifestError
from flowkit.video.folders import FolderLayout, read_layout
from flowkit.video.ids import MAX_ID_BYTES, MOST_CLASHES, check_video_id, first_few, utf8_name
from flowkit.video.pictures.folder import PictureFolders
from flowkit.words import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_logger = logging.getLogger(__name__)


# Folders that systems and programs keep on disks and in archives. Their names begin with no dot, unlike those of other hidden folders.
_SYSTEM_FOLDERS = frozenset(
    ["__macosx", "$recycle.bin", "recycler", "system volume information", "lost+found", "@eadir", "#recycle", "@recycle", "#snapshot"]
)
_HIDDEN, _NO_SUFFIX, _PICTURES, _OTHER = "hidden", "without suffix", "stray pictures", "others"
_MOST_SUFFIXES = 30  # that are counted one by one


@dataclass(frozen=True)
class VideoFile:
    """A video in a folder tree: its id, its file or its folder of pictures, and the folder that names its class (``a/b`` if nested)."""

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
    layout : FolderLayout
        What the folders say about classes and subsets.
    ignored : dict of str to int
        Numbers of files that are not videos, by suffix, the most frequent first; ``hidden`` counts hidden files and folders.
    unreadable : tuple of (str, str)
        Videos and folders that cannot be used, and why: a name that is not UTF-8 or cannot be an id, a dangling link, a
        folder without permission. The names are relative to the root and printable as UTF-8.
    """

    videos: tuple[VideoFile, ...]
    layout: FolderLayout
    ignored: dict[str, int]
    unreadable: tuple[tuple[str, str], ...]


def scan_videos(root: Path, suffixes: frozenset[str], *, leave_out: Path | None = None) -> Scan:
    """Find the videos of a tree.

    Parameters
    ----------
    root : Path
        The folder to search, with all its subfolders but hidden ones. A folder of numbered pictures is a video. Links to files and
        folders are followed, except links to a folder that contains them.
    suffixes : frozenset of str
        The suffixes of videos, in lower case, with the dot.
    leave_out : Path, optional
        A folder below the root that is not searched: a data root, which contains the videos that ``flowkit inspect`` wrote.

    Raises
    ------
    ManifestError
        If there is no such folder, or files would share an id because they differ only in their suffix; names all of them. Ids
        that differ only in case belong to two videos.
    """
    if not root.is_dir():
        raise ManifestError(f"there is no folder {str(root)!r}; name the folder that holds the videos")
    paths: dict[str, list[str]] = {}
    unreadable: list[tuple[str, str]] = []
    ignored: Counter[str] = Counter()
    left_out = _identity(leave_out) if leave_out is not None and leave_out.is_dir() else None
    pictures = PictureFolders()
    for relative, path, folder_fault in walk_files(str(root), leave_out=left_out, on_hidden=lambda _: ignored.update([_HIDDEN])):
        video_id, suffix = os.path.splitext(relative)
        if folder_fault is None and suffix.lower() not in suffixes:
            if not pictures.add(relative):
                ignored[utf8_name(suffix.lower()) or _NO_SUFFIX] += 1
            continue
        pictures.add_video(relative)
        fault = folder_fault or video_fault(video_id, path)
        if fault is not None:
            unreadable.append((utf8_name(relative), fault))
        else:
            paths.setdefault(video_id, []).append(path)
    for relative in pictures.found(lambda _, number: ignored.update({_PICTURES: number})):
        name = relative or os.path.basename(os.path.abspath(root))
        fault = video_fault(name, os.path.join(root, relative))
        if fault is not None:
            unreadable.append((utf8_name(name), fault))
        else:
            paths.setdefault(name, []).append(os.path.join(root, relative))
    check_one_file_each(paths)
    layout = read_layout(paths)
    videos = (VideoFile(video_id, Path(paths[video_id][0]), layout.class_of[video_id]) for video_id in sorted(paths))
    return Scan(tuple(videos), layout, _fewer_kinds(ignored), tuple(sorted(unreadable)))


def ignored_text(ignored: Mapping[str, int]) -> str:
    """Return what a scan ignored, in words of bounded length: ``13 other files ignored: 8 .txt, 3 .gif, 2 hidden``."""
    total = sum(ignored.values())
    kinds = first_few([f"{number} {kind}" for kind, number in ignored.items()], most=8)
    return f"{counted(total, 'other file')} ignored: {kinds}" if total else ""


def _fewer_kinds(ignored: Counter[str]) -> dict[str, int]:
    """Return the numbers of ignored files by suffix, the most frequent first, with rare and very long suffixes added up."""
    kinds = sorted(ignored.items(), key=lambda kind: (-kind[1], kind[0]))
    kept = dict([(suffix, number) for suffix, number in kinds if len(suffix) <= len(_NO_SUFFIX)][:_MOST_SUFFIXES])
    rest = sum(number for suffix, number in kinds if suffix not in kept)
    return kept | ({_OTHER: rest} if rest else {})


def check_one_file_each(paths: Mapping[str, Sequence[str]]) -> None:
    """Raise `ManifestError` if several files have the same id; names all of them."""
    clashes = [f"{video_id!r}: {first_few(map(repr, sorted(files)), last='and')}" for video_id, files in paths.items() if len(files) > 1]
    if clashes:
        raise ManifestError(
            f"files that differ only in their suffix would share a video id; rename or remove all but one of each. "
            f"{counted(len(clashes), 'id')}: {first_few(sorted(clashes), most=MOST_CLASHES)}"
        )


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden: its name begins with a dot, or is that of a folder that systems keep for themselves."""
    return name.startswith(".") or name.lower() in _SYSTEM_FOLDERS


def parent_of(folder: Path) -> Path:
    """Return the parent of a folder in the user's words, or its absolute path if the user wrote no name, as in ``.`` or ``..``."""
    return folder.parent if folder.name not in ("", "..") else Path(os.path.abspath(folder)).parent


def video_fault(video_id: str, path: str) -> str | None:
    """Return why a file cannot be used: its path cannot be an id, or it is no file; None if it can be."""
    try:
        check_video_id(video_id)
    except ManifestError as error:
        return str(error)
    return None if os.path.isfile(path) or os.path.isdir(path) else "it is not a regular file, or a dangling link"


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def walk_files(
    folder: str,
    relative: str = "",
    above: tuple[tuple[int, int], ...] = (),
    *,
    leave_out: tuple[int, int] | None = None,
    on_hidden: Callable[[str], object] | None = None,
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
    on_hidden : callable, optional
        Called with the path relative to the root of each hidden file and folder (see `is_hidden`); these are skipped.

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
        _logger.info("%r links to a folder that contains it; the link is not followed", utf8_name(folder))
        return
    if above and here == leave_out:
        return
    if len(relative) > MAX_ID_BYTES:  # no video in it could have an id
        yield relative, folder, f"the folder is nested too deeply (a path has at most {MAX_ID_BYTES} bytes)"
        return
    for entry in entries:
        name = f"{relative}/{entry.name}" if relative else entry.name
        if is_hidden(entry.name):
            if on_hidden is not None:
                on_hidden(name)
        elif entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry.path)):
            yield from walk_files(entry.path, name, (*above, here), leave_out=leave_out, on_hidden=on_hidden)
        else:
            yield name, entry.path, None
