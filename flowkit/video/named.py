"""The videos that somebody names: a folder with all that lies in it, one video, or a text file that lists videos."""

from __future__ import annotations

import os
from pathlib import Path

from flowkit.errors import ManifestError, VideoDecodeError
from flowkit.files import read_file
from flowkit.video.folders import read_layout
from flowkit.video.ids import first_few, utf8_name
from flowkit.video.pictures.folder import picture_folder
from flowkit.video.tree import Scan, VideoFile, check_one_file_each, scan_videos, video_fault

MAX_LIST_BYTES = 1 << 28
_COMMENT = "#"


def find_videos(videos: Path, suffixes: frozenset[str], *, data_root: Path | None = None, source: Path | None = None) -> tuple[Path, Scan]:
    """Find the videos that a path stands for, and the folder to which their ids are relative.

    Parameters
    ----------
    videos : Path
        A folder, which is searched as `scan_videos` does; a video, that is a file or a folder of pictures; or a text file with the path
        of a video in each line, relative to the folder of the list or to the working folder. Empty lines and lines that begin with
        ``#`` are skipped.
    suffixes : frozenset of str
        The suffixes of videos, in lower case, with the dot.
    data_root : Path, optional
        The folder that clips of the videos are written to.
    source : Path, optional
        The folder to which the ids of the same data root are relative already. Ids of files in it are relative to it; those of other
        files to the innermost folder that contains all of them.

    Returns
    -------
    folder : Path
        The folder to which the ids are relative.
    scan : Scan
        The videos.

    Raises
    ------
    ManifestError
        If there is no such file or folder, a list names something that is no video, or files would share an id.
    """
    is_file = videos.is_file()
    if not is_file:
        scan = scan_videos(videos, suffixes, data_root=data_root)
        if [video.path for video in scan.videos] != [videos]:  # of a folder of pictures these are equal
            return videos, scan
    files = [videos] if not is_file or videos.suffix.lower() in suffixes else _listed(videos, suffixes)
    whole = [Path(os.path.abspath(path)) for path in files]
    folder = None if source is None else Path(os.path.abspath(source))
    if folder is None or not all(path.is_relative_to(folder) for path in whole):
        folder = Path(os.path.commonpath([path.parent for path in whole]))
    paths: dict[str, list[str]] = {}
    unreadable = []
    for path in dict.fromkeys(whole):
        relative = path.relative_to(folder)
        video_id = (relative if path.is_dir() else relative.with_suffix("")).as_posix()
        fault = video_fault(video_id, str(path))
        if fault is None:
            paths.setdefault(video_id, []).append(str(path))
        else:
            unreadable.append((utf8_name(path.relative_to(folder).as_posix()), fault))
    check_one_file_each(paths)
    layout = read_layout(paths)
    found = tuple(VideoFile(video_id, Path(paths[video_id][0]), layout.class_of[video_id]) for video_id in sorted(paths))
    return folder, Scan(found, layout, {}, tuple(sorted(unreadable)))


def _listed(path: Path, suffixes: frozenset[str]) -> list[Path]:
    """Return the videos that a list names."""
    form = "a list is a UTF-8 text file with the path of a video in each line"
    try:
        lines = read_file(path, most_bytes=MAX_LIST_BYTES).decode("utf-8-sig").splitlines()
    except OSError as cause:
        raise ManifestError(f"cannot read {str(path)!r}: {cause.strerror}") from cause
    except UnicodeDecodeError as cause:
        raise ManifestError(f"{str(path)!r} is neither a folder, nor a video by its suffix, nor a list of videos: {form}") from cause
    files, wrong = [], []
    for number, line in enumerate(lines, start=1):
        name = line.strip()
        if not name or name.startswith(_COMMENT):
            continue
        file = next((place for place in (path.parent / name, Path(name)) if "\0" not in name and place.exists()), None)
        if file is None or not (_has_pictures(file) if file.is_dir() else file.suffix.lower() in suffixes):
            wrong.append(f"line {number}: {name[:200]!r}")
        else:
            files.append(file)
    if wrong or not files:
        what = f"names no video in {first_few(wrong, most=3)}" if wrong else "names no video"
        raise ManifestError(f"{str(path)!r} {what}; {form}, relative to the folder of the list or to the working folder")
    return files


def _has_pictures(folder: Path) -> bool:
    """Return whether a folder of numbered pictures is a video."""
    try:
        picture_folder(folder)
    except VideoDecodeError:
        return False
    return True
