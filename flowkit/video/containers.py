"""What a file is: which suffixes and containers are read, and what to do about a file that is no video.

A folder of downloaded videos also holds pages of a web site, pointers of Git LFS, pictures and downloads that were not finished,
often under a video's name. FFmpeg calls all of them invalid data. Here their first bytes decide, and the message names the remedy.
"""

from __future__ import annotations

import codecs
import re
import stat
from typing import TYPE_CHECKING, BinaryIO

from flowkit.errors import VideoDecodeError
from flowkit.video.endings import mp4_boxes

if TYPE_CHECKING:
    from pathlib import Path

_SUFFIXES = """
    .3g2 .3gp .3gp2 .3gpp .f4v .ismv .m4v .mov .mp4 .mp4v .mqv .qt
    .avi .divx .xvid .asf .wm .wmv .flv .mk3d .mkv .webm .mxf .nut .ogm .ogv .ogx
    .m2p .mod .mpe .mpeg .mpg .vob .vro .m2t .m2ts .mts .tod .tp .trp .ts
    .264 .265 .av1 .avc .dav .dif .dv .h264 .h265 .h26l .hevc .ivf .m1v .m2v .mp2v .mpv .obu .y4m"""
VIDEO_SUFFIXES = frozenset(_SUFFIXES.split())  # in lower case: those of the containers below, as cameras, recorders and archives use them

# libavformat's names of real containers and elementary streams. Playlists and scripts (hls, concat, dash, image2, sdp ...) are not
# among them, because they read other files than the one that the user named.
CONTAINERS = "asf,avi,dhav,dv,flv,h264,hevc,ivf,m4v,matroska,mov,mpeg,mpegts,mpegvideo,mxf,nut,obu,ogg,yuv4mpegpipe"

_HEAD_BYTES = 1 << 16
_MAX_MOOV_BYTES = 1 << 24
_TS_PACKET = 188

_CONVERT = "which flowkit does not read; convert it to a video first, for instance with ffmpeg -i FILE OUT.mp4"
_REMOVE = "not a video; remove it"
_UNPACK = "not a video; unpack it, or remove it"
_FOLLOW = "which flowkit does not follow; name the videos themselves"
_UNFINISHED = "the copy, download or recording was not finished, so get the file again"
ENCRYPTED = "is encrypted, so its pictures cannot be decoded; decrypt it first, or remove it"

# Regular expressions of the first bytes, what such a file is, and what to do. The first that matches counts.
_SIGNATURES = (
    (rb"GIF8[79]a", "a GIF animation", _CONVERT),
    (rb"RIFF....WEBP", "a WebP picture or animation", _CONVERT),
    (rb"RIFF....AMV ", "an AMV video", _CONVERT),
    (rb"RIFF....CDXA", "a file of a Video CD", _CONVERT),
    (rb"RIFF....WAVE|RF64....WAVE|ID3|fLaC|#!AMR|MThd|\.ra\xfd|FORM....AIF", "a sound file", _REMOVE),
    (rb"\.RMF", "a RealMedia video", _CONVERT),
    (rb"\xb7\xd8\x00\x20\x37\x49\xda\x11", "a WTV recording of Windows Media Center", _CONVERT),
    (rb"[FCZ]WS[\x01-\x40]", "a Flash (SWF) film", _CONVERT),
    (rb"NSV[fs]", "an NSV video", _CONVERT),
    (rb"BIK[a-z]|KB2[a-z]|SMK[24]", "a Bink or Smacker video", _CONVERT),
    (rb"\xff\xd8\xff", "a JPEG picture, or Motion JPEG without a container", _CONVERT),
    (rb"\x89PNG|II\*\x00|MM\x00\*|BM....\x00\x00|\x00\x00\x00\x0cjP  |....ftyp(avif|heic|heix|heim|mif1)|8BPS", "a picture", _REMOVE),
    (rb"PK\x03\x04|PK\x05\x06", "a zip archive", _UNPACK),
    (rb"\x1f\x8b|BZh[1-9]|\xfd7zXZ|\x28\xb5\x2f\xfd|Rar!\x1a\x07|7z\xbc\xaf\x27\x1c|.{257}ustar", "an archive or compressed file", _UNPACK),
    (rb"%PDF-", "a PDF document", _REMOVE),
    (rb"\x89HDF\r\n\x1a\n", "an HDF5 file, perhaps a clip file of flowkit", _REMOVE),
    (rb"\x93NUMPY", "a NumPy array", _REMOVE),
    (rb"SQLite format 3", "a database", _REMOVE),
    (rb"MZ.{58}.\x00\x00\x00|\x7fELF", "a program", _REMOVE),
    (rb"d\d+:(announce|created by|info)", "a torrent file", "not the video itself; download what it names"),
    (rb"version https://(git-lfs|hawser)\b", "a Git LFS pointer", "not the video itself; run `git lfs pull` in its repository"),
    (rb"\.{0,2}/.{0,200}annex/objects/", "a git-annex pointer", "not the video itself; run `git annex get` in its repository"),
    (rb"\s*(#EXTM3U|ffconcat version|\[playlist\]|v=0\r?\n|<\?xml.{0,200}<(MPD|smil))", "a playlist or script", _FOLLOW),
    (
        rb"(?i)\s*(<!--.{0,2000}-->\s*)?(<\?xml.{0,200})?<(!doctype\s+html|html|head|body|script)\b",
        "an HTML page",
        "not a video; download the video again (the link may need a login or a confirmation)",
    ),
    (rb"\s*<\?xml|\s*<Error>", "XML text", "not a video, perhaps the answer of a web server; download the video again, or remove it"),
    (rb"\s*[{\[]\s*[\"{\]}]", "JSON text", "not a video, perhaps the answer of a web server; download the video again, or remove it"),
)
_PARTIAL_SUFFIXES = frozenset((".part", ".partial", ".crdownload", ".download", ".opdownload", ".aria2", ".!qb", ".ytdl"))


def check_regular_file(path: Path) -> None:
    """Refuse what is not a file with at least one byte."""
    try:
        status = path.stat()
    except (OSError, ValueError) as cause:  # ValueError: the name contains NUL
        reason = getattr(cause, "strerror", None) or str(cause)
        raise VideoDecodeError(f"cannot open {str(path)!r}: {reason}; check its name and permissions") from cause
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a device or pipe"
        raise VideoDecodeError(f"{str(path)!r} is {kind}, not a file; name a video file")
    if status.st_size == 0:
        raise VideoDecodeError(f"{str(path)!r} is empty (0 bytes); copy it again or remove it")


def why_unreadable(path: Path) -> str | None:
    """Say why a file gives no frames, as the end of a sentence that begins with its name; None if its bytes do not show it.

    Parameters
    ----------
    path : Path
        A regular file that could not be opened as a video, or of which no frame could be decoded.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name, "clip.mp4")
    >>> _ = path.write_text("version https://git-lfs.github.com/spec/v1")
    >>> why_unreadable(path)
    'is a Git LFS pointer, not the video itself; run `git lfs pull` in its repository'
    >>> folder.cleanup()
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
            begin = head.removeprefix(codecs.BOM_UTF8)
            for pattern, kind, advice in _SIGNATURES:
                if re.match(pattern, begin, re.DOTALL):
                    return f"is {kind}, {advice}"
            if not head.strip(b"\0"):
                return f"begins with nothing but zero bytes: {_UNFINISHED}"
            if _is_text(head):
                return "is a text file, not a video; move it out of the folder of videos"
            if _is_encrypted(file, head):
                return ENCRYPTED
            if head[4:8] in (b"ftyp", b"mdat", b"wide", b"free", b"skip", b"moov"):
                boxes = list(mp4_boxes(file))
                if not any(kind == b"moov" for kind, _, _ in boxes):
                    return f"is an MP4 or MOV file without its index (the moov box): {_UNFINISHED}"
                if max(start + size for _, start, size in boxes) > file.seek(0, 2):
                    return f"is cut off before its end: {_UNFINISHED}"
    except OSError:
        return None
    if path.suffix.lower() in _PARTIAL_SUFFIXES:
        return f"has the name of a download in progress: {_UNFINISHED}"
    return None


def _is_text(head: bytes) -> bool:
    """Whether a file begins like text, without control characters: UTF-8, perhaps cut off in a character, or UTF-16 with its mark."""
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = head[: len(head) & ~1].decode("utf-16", "replace")
    else:
        try:
            text = head[: len(head) - 3 if len(head) == _HEAD_BYTES else None].decode()
        except UnicodeDecodeError as error:
            if error.start < len(head) - 6:
                return False
            text = head[: error.start].decode()
    return "\ufffd" not in text and not re.search(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]", text)


def _is_encrypted(file: BinaryIO, head: bytes) -> bool:
    """Whether a file declares that its pictures are encrypted: MP4 and MOV, Matroska and WebM, ASF and WMV, MPEG transport streams."""
    if head.startswith(b"\x1a\x45\xdf\xa3"):  # the elements ContentEncodings, ContentEncryption and ContentEncAlgo
        return all(element in head for element in (b"\x6d\x80", b"\x50\x35", b"\x47\xe1"))
    if head.startswith(b"\x30\x26\xb2\x75"):  # the objects Content Encryption and Extended Content Encryption
        return any(guid in head for guid in (b"\xfb\xb3\x11\x22\x23\xbd\xd2\x11", b"\x14\xe6\x8a\x29\x22\x26\x17\x4c"))
    if head[0] == 0x47 and head[_TS_PACKET : _TS_PACKET + 1] == b"\x47":
        packets = [head[start : start + 4] for start in range(0, len(head) - 3, _TS_PACKET)]
        return sum(packet[0] == 0x47 and packet[3] >> 6 for packet in packets) > len(packets)  # 2 or 3 in most packets
    for kind, start, size in mp4_boxes(file):
        if kind == b"moov":
            file.seek(start)
            content = file.read(min(size, _MAX_MOOV_BYTES))
            return b"drmi" in content or (b"encv" in content and b"sinf" in content)
    return False
