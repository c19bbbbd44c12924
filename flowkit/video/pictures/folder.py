"""Which files of a folder are the frames of a video: numbered JPEG or PNG files, in the order of their numbers."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowkit.errors import VideoDecodeError
from flowkit.files import file_sha256
from flowkit.video.ids import first_few, utf8_name

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PICTURE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png"))
LEAST_PICTURES = 2  # fewer are stray pictures, not a video
_NAME = re.compile(r"(.*?)(\d{1,18})(\.(?:jpe?g|png))", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class PictureFolder:
    """The frames of a folder.

    Parameters
    ----------
    path : Path
        The folder.
    names : tuple of str
        The names of the files, in the order of their numbers.
    numbers : tuple of int
        These numbers, ascending.
    """

    path: Path
    names: tuple[str, ...]
    numbers: tuple[int, ...]

    @property
    def num_promised(self) -> int:
        """How many frames there are from the first number to the last."""
        return self.numbers[-1] - self.numbers[0] + 1

    def gaps(self) -> str:
        """Return in words which numbers are missing; empty if none is."""
        first = next((a for a, b in zip(self.numbers, self.numbers[1:], strict=False) if b > a + 1), None)
        return "" if first is None else f"the first missing number is {first + 1}"

    def sha256(self) -> str:
        """Return a digest of the names and the contents of all files that are frames."""
        digest = hashlib.sha256()
        for name in self.names:
            digest.update(os.fsencode(name) + b"\0" + file_sha256(self.path / name).encode() + b"\n")
        return digest.hexdigest()


def picture_number(name: str) -> tuple[str, int] | None:
    """Return what stands before the number in the name of a numbered picture, and the number; None for other names.

    Examples
    --------
    >>> picture_number("img_00012.jpg"), picture_number("cover.png")
    (('img_', 12), None)
    """
    match = _NAME.fullmatch(name)
    return None if match is None else (match[1], int(match[2]))


def picture_folder(path: Path) -> PictureFolder:
    """Return the frames of a folder.

    Raises
    ------
    VideoDecodeError
        If it holds fewer than two numbered pictures, several series of them, or two pictures with the same number.
    """
    try:
        with os.scandir(path) as entries:
            names = [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_file()]
    except OSError as cause:
        raise VideoDecodeError(f"cannot read the folder {str(path)!r}: {cause.strerror}") from cause
    series: dict[str, dict[int, str]] = {}
    for name in sorted(names):
        found = picture_number(name)
        if found is None:
            continue
        prefix, number = found
        other = series.setdefault(prefix, {}).setdefault(number, name)
        if other != name:
            raise VideoDecodeError(f"{str(path)!r} holds two pictures with the number {number}, {other!r} and {name!r}; remove one of them")
    if len(series) > 1:
        kinds = first_few((repr(f"{utf8_name(prefix)}...") for prefix in sorted(series)), last="and", most=4)
        raise VideoDecodeError(
            f"{str(path)!r} holds several series of numbered pictures, {kinds}; a video has one. `flowkit import` reads frames and flow of "
            "other tools"
        )
    frames = next(iter(series.values()), {})
    if len(frames) < LEAST_PICTURES:
        raise VideoDecodeError(f"{str(path)!r} holds no video: it has {len(frames)} numbered pictures, and a video needs {LEAST_PICTURES}")
    numbers = tuple(sorted(frames))
    return PictureFolder(path, tuple(frames[number] for number in numbers), numbers)


class PictureFolders:
    """Finds the folders of a tree that are videos, from the names of its files as they come.

    A folder is a video if it holds at least two numbered pictures, and neither it nor a folder in it holds a video file or such a folder:
    pictures beside videos are thumbnails.
    """

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._with_videos: set[str] = set()

    def add(self, relative: str) -> bool:
        """Take the path of a file relative to the root; return whether it is a numbered picture, which perhaps belongs to a video."""
        folder, _, name = relative.rpartition("/")
        if picture_number(name) is None:
            return False
        self._counts[folder] = self._counts.get(folder, 0) + 1
        return True

    def add_video(self, relative: str) -> None:
        """Take the path of a video file relative to the root."""
        self._with_videos.update(_folders_above(relative))

    def found(self, on_stray: Callable[[str, int], object]) -> list[str]:
        """Return the folders that are videos; call `on_stray` with each other folder that has numbered pictures, and with their number."""
        large = {folder for folder, number in self._counts.items() if number >= LEAST_PICTURES}
        above = {upper for folder in large for upper in _folders_above(folder)}
        videos = sorted(large - above - self._with_videos)
        for folder in sorted(self._counts.keys() - {*videos}):
            on_stray(folder, self._counts[folder])
        return videos


def _folders_above(relative: str) -> set[str]:
    """Return the folders in which something lies, up to the root, which is empty."""
    parts = relative.split("/")[:-1] if relative else []
    return {"/".join(parts[:k]) for k in range(len(parts) + 1)} if relative else set()
