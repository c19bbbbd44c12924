"""Names of videos: what a video id may be, and when two names count as the same."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

from flowkit.errors import ManifestError
from flowkit.video.containers import VIDEO_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterable

# The part file of a clip adds a suffix to the last part of the name, and file systems allow 255 bytes per part.
MAX_PART_BYTES = 240
MAX_ID_BYTES = 1024
PIECES_FOLDER, OLD_PIECES_FOLDER = ".pieces", ".segments"
OWN_FOLDERS = (".index", PIECES_FOLDER, OLD_PIECES_FOLDER)  # folders of flowkit's own files in `clips/`

_GROUP = re.compile(r"_g(\d+)_")
_DEVICES = {"con", "prn", "aux", "nul"} | {f"{port}{k}" for port in ("com", "lpt") for k in range(1, 10)}


def check_video_id(video_id: object) -> None:
    """Refuse a video id that is not a relative POSIX path, or could name a place outside the folder that it is joined to.

    Parameters
    ----------
    video_id : object
        A path relative to the video root, without suffix, with ``/`` between its parts; any Unicode.

    Raises
    ------
    ManifestError
        If the id is not a string, is empty or absolute (on POSIX or Windows), has an empty, ``.`` or ``..`` part, a
        backslash, a NUL, a lone surrogate (a name that is not UTF-8) or the name of a Windows device, begins with one of
        `OWN_FOLDERS`, or is too long for the name of a clip file.
    """
    if not isinstance(video_id, str) or not video_id:
        raise ManifestError(f"a video id must be a string that is not empty, got {video_id!r}")
    fault = _fault(video_id)
    if fault is not None:
        raise ManifestError(f"{video_id!r} cannot be a video id: {fault}; rename the video")


def _fault(video_id: str) -> str | None:
    try:
        num_bytes = len(video_id.encode("utf-8"))
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    if "\0" in video_id:
        return "it contains a NUL"
    if "\\" in video_id:
        return "it contains a backslash, which separates folders on other systems"
    if video_id.startswith("/") or video_id[1:2] == ":":
        return "it is an absolute path, or begins with a drive of Windows"
    parts = video_id.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "it has an empty, '.' or '..' part"
    if any(part.split(".")[0].rstrip(" ").lower() in _DEVICES for part in parts):
        return "it contains the name of a Windows device"
    if parts[0].lower() in OWN_FOLDERS:
        return f"flowkit keeps its own files in a folder named {parts[0]!r}"
    if num_bytes > MAX_ID_BYTES or any(len(part.encode("utf-8")) > MAX_PART_BYTES for part in parts):
        return f"it is too long (at most {MAX_PART_BYTES} bytes per part, {MAX_ID_BYTES} in all)"
    return None


def comparable_name(name: str) -> str:
    """Return the form in which names that do not match exactly are compared: without case, in composed Unicode (NFC)."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def without_suffix(name: str) -> str:
    """Return the name of a file without its suffix, if that is the suffix of a video."""
    stem, dot, suffix = name.rpartition(".")
    return stem if f".{suffix}".lower() in VIDEO_SUFFIXES and dot and not stem.endswith("/") and stem else name


def name_ends(name: str) -> list[str]:
    """Return a name and what remains of it without its first folder, its first two, ...: ``a/b/c``, ``b/c``, ``c``."""
    parts = name.split("/")
    return ["/".join(parts[k:]) for k in range(len(parts))]


def utf8_name(name: str) -> str:
    """Return the name of a file as text that can be written as UTF-8: bytes that are not UTF-8 become hexadecimal."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


MOST_CLASHES = 10  # that one error names


def first_few(names: Iterable[str], *, most: int = 5, last: str = "") -> str:
    """Return names as a text of bounded length: ``a, b, c`` or ``a, b and 7 more``; `last`, such as ``and``, joins the last two."""
    shown = list(names)
    if len(shown) > most:
        return f"{', '.join(shown[:most])} and {len(shown) - most:,} more"
    return f" {last} ".join([", ".join(shown[:-1]), shown[-1]]) if last and len(shown) > 1 else ", ".join(shown)


def group_of(video_id: str) -> int | None:
    """Return the number in the last ``_gNN_`` of a video's name, which UCF101 gives to videos of one actor or scene; None without one."""
    groups = _GROUP.findall(video_id.rpartition("/")[2])
    return int(groups[-1]) if groups else None


def group_name(video_id: str) -> str:
    """Return the name of the group that a video is in: its id up to the last ``_gNN_`` of its name, or the complete id without one."""
    folder, slash, name = video_id.rpartition("/")
    ends = [found.end() for found in _GROUP.finditer(name)]
    return f"{folder}{slash}{name[: ends[-1]]}" if ends else video_id
