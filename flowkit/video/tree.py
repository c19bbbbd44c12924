"""The videos of a folder and its subfolders, by id."""

from __future__ import annotations

import logging
import os
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flowkit.errors import ManifestError
from flowkit.files import open_without_waiting
from flowkit.video.folders import FolderLayout, read_layout
from flowkit.video.ids import MAX_ID_BYTES, MOST_CLASHES, check_video_id, first_few, utf8_name
from flowkit.video.pictures.folder import PictureFolders
from flowkit.words import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

_logger = logging.getLogger(__name__)


# Folders that systems and programs keep on disks and in archives. Their names begin with no dot, unlike those of other hidden folders.
_SYSTEM_FOLDERS = frozenset(
    ["__macosx", "$recycle.bin", "recycler", "system volume information", "lost+found", "@eadir", "#recycle", "@recycle", "#snapshot"]
)
# What flowkit itself writes into a folder, by the name and the format of the record there: the names in it, or all that is there.
DATA_ROOT_FOLDERS = frozenset(["clips", "features", "inspect", "reports", "runs", "shards", "splits"])
_OWN_NAMES: dict[str, tuple[bytes, frozenset[str] | None]] = {
    "dataset.json": (b'"flowkit-dataset"', DATA_ROOT_FOLDERS | {"dataset.json", "extract-report.json"}),
    "flowkit-export.json": (b'"flowkit-export"', None),
    "gallery.json": (b'"flowkit-gallery"', None),
}
_FORMAT_BYTES = 1 << 10  # the format is the first value of a record
_HIDDEN, _OWN, _NO_SUFFIX, _PICTURES, _OTHER = "hidden", "of flowkit", "without suffix", "stray pictures", "others"
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
        Numbers of files that are not videos, by suffix, the most frequent first; ``hidden`` counts hidden files and folders, and
        ``of flowkit`` the folders that hold what flowkit wrote.
    unreadable : tuple of (str, str)
        Videos and folders that cannot be used, and why: a name that is not UTF-8 or cannot be an id, a dangling link, a
        folder without permission. The names are relative to the root and printable as UTF-8.
    """

    videos: tuple[VideoFile, ...]
    layout: FolderLayout
    ignored: dict[str, int]
    unreadable: tuple[tuple[str, str], ...]


def scan_videos(root: Path, suffixes: frozenset[str], *, data_root: Path | None = None) -> Scan:
    """Find the videos of a tree.

    Parameters
    ----------
    root : Path
        The folder to search, with all its subfolders but hidden ones and those that flowkit writes in a data root, a gallery or
        an export. A folder of numbered pictures is a video. Links to files and folders are followed, except links to a folder
        that contains them.
    suffixes : frozenset of str
        The suffixes of videos, in lower case, with the dot.
    data_root : Path, optional
        The folder that clips of the videos are written to; it may be the same folder, or lie in it.

    Raises
    ------
    ManifestError
        If there is no such folder, or files would share an id because they differ only in their suffix; names all of them. Ids
        that differ only in case belong to two videos. Also if a video lies where flowkit would write in a new data root.
    """
    if not root.is_dir():
        raise ManifestError(f"there is no folder {str(root)!r}; name the folder that holds the videos")
    paths: dict[str, list[str]] = {}
    unreadable: list[tuple[str, str]] = []
    ignored: Counter[str] = Counter()

    def on_own(folder: str) -> None:
        if data_root is None or os.path.realpath(folder) != os.path.realpath(data_root):
            ignored[_OWN] += 1

    pictures = PictureFolders()
    for relative, path, folder_fault in walk_files(str(root), on_own=on_own, on_hidden=lambda _: ignored.update([_HIDDEN])):
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
    if data_root is not None:
        _check_places(paths, root, data_root)
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


def _check_places(video_ids: Iterable[str], root: Path, data_root: Path) -> None:
    """Raise `ManifestError` if videos lie in a folder that flowkit would use for its own files."""
    within = os.path.relpath(os.path.realpath(data_root), os.path.realpath(root)).replace(os.sep, "/")
    if within.split("/")[0] == "..":
        return
    places = tuple(f"{name}/" if within == "." else f"{within}/{name}/" for name in sorted(DATA_ROOT_FOLDERS))
    there = sorted(video_id for video_id in video_ids if video_id.startswith(places))
    if there:
        raise ManifestError(
            f"{counted(len(there), 'video')} of {str(root)!r} lie where flowkit would keep its own files: {first_few(map(repr, there))}; "
            "choose a data root outside the folder of videos with --data DIR"
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


def _own_names(folder: str, names: set[str], *, named: bool) -> frozenset[str]:
    """Return what in a folder flowkit wrote, as a record there says; of a gallery or export only if no user named the folder."""
    own: set[str] = set()
    for record in _OWN_NAMES.keys() & names:
        form, written = _OWN_NAMES[record]
        with suppress(OSError), open(os.path.join(folder, record), "rb", opener=open_without_waiting) as file:
            if form in file.read(_FORMAT_BYTES) and not (named and written is None):
                own |= names if written is None else written & names
    return frozenset(own)


def walk_files(
    folder: str,
    relative: str = "",
    above: tuple[tuple[int, int], ...] = (),
    *,
    on_own: Callable[[str], object] | None = None,
    on_hidden: Callable[[str], object] | None = None,
) -> Iterator[tuple[str, str, str | None]]:
    """Yield each file below a folder; links to folders are followed, except to a folder that contains them.

    Parameters
    ----------
    folder, relative : str
        The folder to begin with, and its path relative to the root, which is empty at the root.
    above : tuple
        The folders that contain this one, by device and inode.
    on_own : callable, optional
        Called with the path of each folder in which something is that flowkit wrote; that is skipped. The folder to begin with is
        searched nevertheless if it is a gallery or an export. By default they are searched like others.
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
    if len(relative) > MAX_ID_BYTES:  # no video in it could have an id
        yield relative, folder, f"the folder is nested too deeply (a path has at most {MAX_ID_BYTES} bytes)"
        return
    own = frozenset() if on_own is None else _own_names(folder, {entry.name for entry in entries}, named=not above)
    if own and on_own is not None:
        on_own(folder)
    for entry in entries:
        name = f"{relative}/{entry.name}" if relative else entry.name
        if entry.name in own:
            continue
        if is_hidden(entry.name):
            if on_hidden is not None and not own:  # in a data root they are locks
                on_hidden(name)
        elif entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and os.path.isdir(entry.path)):
            yield from walk_files(entry.path, name, (*above, here), on_own=on_own, on_hidden=on_hidden)
        else:
            yield name, entry.path, None
