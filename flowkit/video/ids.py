"""Names of videos: what a video id may be, and when two names are taken for the same."""

from __future__ import annotations

import unicodedata

from flowkit.errors import ManifestError

# A clip's part file and spool add a suffix to the last part, and file systems hold 255 bytes a part.
MAX_PART_BYTES = 240
MAX_ID_BYTES = 1024
OWN_FOLDERS = (".index", ".segments")  # what `clips/` holds besides clips

_DEVICES = {"con", "prn", "aux", "nul"} | {f"{port}{k}" for port in ("com", "lpt") for k in range(1, 10)}


def check_video_id(video_id: object) -> None:
    """Refuse a video id that is no relative POSIX path, or could name a place outside the folder it is joined to.

    Parameters
    ----------
    video_id : object
        A path relative to the video root, without suffix, with ``/`` between its parts; any Unicode.

    Raises
    ------
    ManifestError
        If it is no string, empty, absolute (on POSIX or Windows), has an empty, ``.`` or ``..`` part, a backslash, a NUL,
        a lone surrogate (a name that is not UTF-8), a Windows device name, begins with a folder of flowkit's own, or is too
        long for a clip file's name.
    """
    if not isinstance(video_id, str) or not video_id:
        raise ManifestError(f"a video id must be a text that is not empty, got {video_id!r}")
    fault = _fault(video_id)
    if fault is not None:
        raise ManifestError(f"{video_id!r} cannot be a video id: {fault}; rename the video")


def _fault(video_id: str) -> str | None:
    try:
        num_bytes = len(video_id.encode("utf-8"))
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    if "\0" in video_id:
        return "it holds a NUL"
    if "\\" in video_id:
        return "it holds a backslash, which separates folders on other systems"
    if video_id.startswith("/") or video_id[1:2] == ":":
        return "it is an absolute path, or starts with a drive of Windows"
    parts = video_id.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "it has an empty, '.' or '..' part"
    if any(part.split(".")[0].rstrip(" ").lower() in _DEVICES for part in parts):
        return "it holds the name of a device of Windows"
    if parts[0].lower() in OWN_FOLDERS:
        return f"flowkit keeps its own files in a folder {parts[0]!r}"
    if num_bytes > MAX_ID_BYTES or any(len(part.encode("utf-8")) > MAX_PART_BYTES for part in parts):
        return f"it is too long (at most {MAX_PART_BYTES} bytes a part, {MAX_ID_BYTES} in all)"
    return None


def comparable_name(name: str) -> str:
    """Return the form in which names are compared when they do not match exactly: without case, composed (NFC)."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def printable_name(name: str) -> str:
    """Return a file's name as text that any file can hold: bytes that are not UTF-8 in hexadecimal."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
