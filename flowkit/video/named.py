"""The videos that somebody names: a folder with all that lies in it, one video file, or a text file that lists video files."""

from __future__ import annotations

import os
from pathlib import Path

from flowkit.errors import ManifestError
from flowkit.files import read_file
from flowkit.video.folders import read_layout
from flowkit.video.ids import first_few, utf8_name
from flowkit.video.tree import Scan, VideoFile, check_one_file_each, parent_of, scan_videos, video_fault

MAX_LIST_BYTES = 1 << 28
_COMMENT = "#"


def find_videos(videos: Path, suffixes: frozenset[str], *, leave_out: Path | None = None, source: Path | None = None) -> tuple[Path, Scan]:
    """Find the videos that a path stands for, and the folder to which their ids are relative.

    Parameters
    ----------
    videos : Path
        A folder, which is searched as `scan_videos` does; a video file; or a text file with the path of a video in each line, relative
        to the folder of the list or to the working folder. Empty lines and lines that begin with ``#`` are skipped.
    suffixes : frozenset of str
        The suffixes of videos, in lower case, with the dot.
    leave_out : Path, optional
        A folder below that is not searched.
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
        If there is no such file or folder, a list names something that is no video file, or files would share an id.
    """
    if not videos.is_file():
        scan = scan_videos(videos, suffixes, leave_out=leave_out)
        is_one = len(scan.videos) == 1 and scan.videos[0].path == videos  # a folder of pictures
        return (parent_of(videos) if is_one else videos), scan
    files = [videos] if videos.suffix.lower() in suffixes else _listed(videos, suffixes)
    whole = [Path(os.path.abspath(path)) for path in files]
    folder = None if source is None else Path(os.path.abspath(source))
    if folder is None or not all(path.is_relative_to(folder) for path in whole):
        folder = Path(os.path.commonpath([path.parent for path in whole]))
    paths: dict[str, list[str]] = {}
    unreadable = []
    for path in dict.fromkeys(whole):
        video_id = path.relative_to(folder).with_suffix("").as_posix()
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
    """Return the video files that a list names."""
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
        file = next((place for place in (path.parent / name, Path(name)) if "\0" not in name and place.is_file()), None)
        if file is None or file.suffix.lower() not in suffixes:
            wrong.append(f"line {number}: {name[:200]!r}")
        else:
            files.append(file)
    if wrong or not files:
        what = f"names no video file in {first_few(wrong, most=3)}" if wrong else "names no video"
        raise ManifestError(f"{str(path)!r} {what}; {form}, relative to the folder of the list or to the working folder")
    return files
