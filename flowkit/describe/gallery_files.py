"""The folder of a gallery: which files in it are flowkit's, which of them are current, and what is removed.

``index.html`` is the page and ``pictures/`` has a still and a film for each video. The name of these two says which clip they show,
so a clip that was extracted again gets other files, and the earlier page keeps those it refers to until a new page is there.
``gallery.json`` has the facts about each picture, and which of them the page shows. It also marks the folder as one that flowkit made.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from flowkit.describe.gallery_pictures import DRAWING
from flowkit.describe.pictures import readable_part
from flowkit.errors import ParameterError
from flowkit.files import is_temporary_of, remove_leftovers, write_atomically
from flowkit.locks import exclusive_lock
from flowkit.records import RecordFormat
from flowkit.versions import __version__

PAGE_NAME, RECORD_NAME, PICTURES_NAME = "index.html", "gallery.json", "pictures"
STILL_SUFFIX, FILM_SUFFIX = ".jpg", ".webm"

_LOCK_NAME = ".gallery.lock"
_RECORD = RecordFormat("flowkit-gallery", 1, ParameterError, "delete the folder yourself, or choose another one with --output DIR")
_OWN_PICTURE = re.compile(r"([A-Za-z0-9._-]{0,80}-)?[0-9a-f]{16}\.(jpg|webm)")
_READABLE_LENGTH = 60


@dataclass(frozen=True)
class PictureFacts:
    """What is known about the still and the film of a clip.

    Parameters
    ----------
    video_id : str
        The video.
    speed_px, scale_px : float, px/frame
        Its mean speed, and the speed of full saturation.
    width, height : int, px
        The size of the pictures.
    start_seconds, seconds, whole_seconds : float, s
        Where in the video the film begins, how long it lasts, and how long the video lasts.
    num_frames, num_shown : int
        Frames of the clip, and of the film.
    frame_rate : float, 1/s
        Frames of the clip per second; 0 if it is unknown.
    still_bytes, film_bytes : int
        The sizes of the two files.
    """

    video_id: str
    speed_px: float
    scale_px: float
    width: int
    height: int
    start_seconds: float
    seconds: float
    whole_seconds: float
    num_frames: int
    num_shown: int
    frame_rate: float
    still_bytes: int
    film_bytes: int

    @property
    def num_bytes(self) -> int:
        """The size of both files together."""
        return self.still_bytes + self.film_bytes

    @property
    def is_cut(self) -> bool:
        """Whether the film leaves out the beginning or the end of the video."""
        return self.seconds < self.whole_seconds


def pictures_name(video_id: str, clip_sha256: str) -> str:
    """Return the name, without suffix, of the pictures of a clip: safe on every file system, and different for every clip.

    Examples
    --------
    >>> from flowkit.describe.gallery_files import pictures_name
    >>> pictures_name("run/a <b>?", "00" * 32)
    'a_b-26e74246c80b6bb6'
    """
    digest = hashlib.sha256(json.dumps([DRAWING, video_id, clip_sha256]).encode("utf-8")).hexdigest()[:16]
    return "-".join(filter(None, (readable_part(video_id)[:_READABLE_LENGTH].strip("._-"), digest)))


class GalleryFolder:
    """The folder of a gallery, with the record of the pictures in it.

    Parameters
    ----------
    path : Path
        The folder, which need not exist.

    Attributes
    ----------
    facts : dict of str to PictureFacts
        The pictures that were drawn, by name.
    shown : frozenset of str
        The names of those that the page shows. Others are of an interrupted run, or of videos outside the sample.

    Raises
    ------
    ParameterError
        If it contains files and no record that flowkit wrote, or the record is damaged, or ``pictures`` in it is a link.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pictures = path / PICTURES_NAME
        self._read()

    def _read(self) -> None:
        """Read the record, and refuse a folder that is not a gallery's."""
        self.facts: dict[str, PictureFacts] = {}
        self.shown: frozenset[str] = frozenset()
        for inner in (self.pictures, self.path / PAGE_NAME):
            if inner.is_symlink():
                raise ParameterError(f"{str(inner)!r} is a link, and nothing is written behind it; remove it, then try again")
        record = _RECORD.read_if_present(self.path / RECORD_NAME)
        if record is not None:
            self.facts = _facts_of(record.get("pictures"), self.path / RECORD_NAME)
            self.shown = _names_of(record.get("shown", []), self.path / RECORD_NAME) & self.facts.keys()
            return
        foreign = [name for name in _names_in(self.path) if not (is_temporary_of(name, RECORD_NAME) or name == _LOCK_NAME)]
        if foreign:
            raise ParameterError(
                f"{str(self.path)!r} holds {foreign[0]!r} and no gallery that flowkit made: choose a new or empty folder with --output DIR"
            )

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the only process that writes the folder while the block runs.

        The folder is made if need be, what killed runs left is removed, and the record is read again, as another process may have
        written it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(self.path / _LOCK_NAME, f"draws the gallery {str(self.path)!r}"):
            remove_leftovers(self.path, alone=True)
            remove_leftovers(self.pictures, alone=True)
            self._read()
            self.save()
            self.pictures.mkdir(exist_ok=True)
            yield

    def has(self, name: str) -> bool:
        """Return whether the pictures of this name are complete: in the record, and both files of the size that it gives."""
        facts = self.facts.get(name)
        return facts is not None and all(
            _size_of(path) == num_bytes for path, num_bytes in zip(self.files(name), (facts.still_bytes, facts.film_bytes), strict=True)
        )

    def files(self, name: str) -> tuple[Path, Path]:
        """Return where the still and the film of this name lie."""
        return self.pictures / f"{name}{STILL_SUFFIX}", self.pictures / f"{name}{FILM_SUFFIX}"

    def save(self) -> None:
        """Write the record."""
        record = {
            **_RECORD.header,
            "created_by": f"flowkit {__version__}",
            "shown": sorted(self.shown),
            "pictures": {name: asdict(facts) for name, facts in sorted(self.facts.items())},
        }
        write_atomically(self.path / RECORD_NAME, json.dumps(record, indent=1) + "\n")

    def remove_others(self, names: Collection[str]) -> int:
        """Remove all pictures but these, and return how many; files that do not have the names of pictures stay."""
        removed = set()
        for entry in _names_in(self.pictures):
            path = self.pictures / entry
            if _OWN_PICTURE.fullmatch(entry) and path.stem not in names and not path.is_symlink() and path.is_file():
                path.unlink()
                removed.add(path.stem)
        self.facts = {name: facts for name, facts in self.facts.items() if name in names}
        self.save()
        return len(removed)


def _names_in(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


def _size_of(path: Path) -> int:
    """Return the size of a regular file; -1 if there is none."""
    return path.stat().st_size if path.is_file() and not path.is_symlink() else -1


def _facts_of(values: object, path: Path) -> dict[str, PictureFacts]:
    """Return the facts that a record gives, each with the declared type."""
    error = _not_valid(path)
    if not isinstance(values, dict):
        raise error
    kinds = {"str": (str,), "int": (int,), "float": (int, float)}
    known = {field.name: kinds[str(field.type)] for field in fields(PictureFacts)}
    found = {}
    for name, entry in values.items():
        if not isinstance(entry, dict) or entry.keys() != known.keys():
            raise error
        for key, value in entry.items():
            if type(value) not in known[key] or (isinstance(value, int | float) and not 0 <= value < math.inf):
                raise error
        found[str(name)] = PictureFacts(**entry)
    return found


def _names_of(values: object, path: Path) -> frozenset[str]:
    """Return the names that a record lists."""
    if not isinstance(values, list) or not all(isinstance(name, str) for name in values):
        raise _not_valid(path)
    return frozenset(values)


def _not_valid(path: Path) -> ParameterError:
    return ParameterError(f"{path} is not valid; {_RECORD.remedy}")
