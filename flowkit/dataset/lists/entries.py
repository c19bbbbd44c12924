"""What every kind of list becomes: entries, each with the name and the class of a video, divided into train and test."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flowkit.errors import ManifestError
from flowkit.files import read_file
from flowkit.video.folders import Subset, subset_of_name
from flowkit.video.ids import check_video_id

MAX_LIST_BYTES = 2**28
MAX_ENTRIES = 2_000_000  # of one file; the largest public list has about 650,000
MAX_LINE_LENGTH = 20_000  # characters


@dataclass(frozen=True)
class ListEntry:
    """One row of a list: a video as the list spells its name, with ``/`` between folders, and its class.

    Parameters
    ----------
    video_id : str
        The name, without or with the suffix of a file.
    class_name : str
        The class.
    also : tuple of str
        Other names that the file of the video may have.
    """

    video_id: str
    class_name: str
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class SplitLists:
    """One split as its lists define it: the classes in order of label, and the videos of each half.

    Parameters
    ----------
    protocol : str
        The kind of lists, in words: ``ucf101``, ``hmdb51``, ``csv``, ``kinetics``, ``something-something``, ``mmaction2``,
        ``3d-resnets``, ``folders ...`` or ``automatic``. What becomes of a validation subset is added: ``csv (val for test)``.
    classes : tuple of str
        ``classes[label]``, with labels from 0. UCF101: all of classInd.txt in its order; HMDB51: all that have a list, sorted;
        lists with numbered labels: in order of the numbers; otherwise the names that occur, sorted by code point.
    train, test : tuple of ListEntry
        The videos of each half.
    unused : tuple of ListEntry
        Videos that the lists name but leave out (code 0 of HMDB51, a validation subset beside a test subset).
    left_out : tuple of str
        Classes of the lists that were not chosen, in their order; nothing of them is in the other fields.
    """

    protocol: str
    classes: tuple[str, ...]
    train: tuple[ListEntry, ...]
    test: tuple[ListEntry, ...]
    unused: tuple[ListEntry, ...] = ()
    left_out: tuple[str, ...] = ()


def divide(protocol: str, subsets: Mapping[Subset, Sequence[ListEntry]], *, classes: Sequence[str] | None = None) -> SplitLists:
    """Make a split of three subsets: test is tested on, or val if there is no test; val beside test is left out.

    Parameters
    ----------
    protocol : str
        The kind of lists.
    subsets : mapping of str to sequence of ListEntry
        The entries of ``train``, ``val`` and ``test``.
    classes : sequence of str, optional
        The classes in order of label; by default those of the two halves, sorted by code point.
    """
    train, val, test = (tuple(subsets.get(name, ())) for name in ("train", "val", "test"))
    unused: tuple[ListEntry, ...] = ()
    if val:
        protocol = f"{protocol} (val unused)" if test else f"{protocol} (val for test)"
        test, unused = (test, val) if test else (val, ())
    names = sorted({entry.class_name for entry in (*train, *test)}) if classes is None else classes
    return SplitLists(protocol, tuple(names), train, test, unused)


def subset_of_row(name: str, where: str) -> Subset:
    """Return the subset that a row of a list names, or raise a `ManifestError` that says where."""
    subset = "val" if name.strip().lower() == "validate" else subset_of_name(name.strip())
    if subset is None:
        raise ManifestError(f"{where}: the subset must be train, val or test (or training, validation, testing), got {name!r}")
    return subset


def name_in_list(name: str, where: str, *, absolute: bool = False) -> str:
    """Return the name of a video with ``/`` between folders and without ``./`` before it, after checking that it can be one.

    Parameters
    ----------
    name : str
        The name in a list.
    where : str
        The file and the row, for the error.
    absolute : bool
        Whether it may be an absolute path, of which only the end will be compared with videos.
    """
    relative = name.replace("\\", "/")
    while relative.startswith("./"):
        relative = relative[2:].lstrip("/")
    if absolute:
        relative = (relative[2:] if relative[1:2] == ":" else relative).strip("/")
    try:
        check_video_id(relative)
    except ManifestError as cause:
        raise ManifestError(f"{where}: {cause}") from cause
    return relative


def read_text(path: Path, *, most_bytes: int = MAX_LIST_BYTES) -> str:
    """Read the text of a list.

    Raises
    ------
    ManifestError
        If the file cannot be read, is too large, or is not UTF-8.
    """
    try:
        return read_file(path, most_bytes=most_bytes).decode("utf-8-sig")
    except OSError as cause:
        raise ManifestError(f"cannot read the split list {path}: {cause.strerror}") from cause
    except UnicodeDecodeError as cause:
        raise ManifestError(f"{path} is not UTF-8 text ({cause}); save it as UTF-8") from cause


def lines_of(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (where, line) for each line that is not blank; where is for messages."""
    for number, line in enumerate(io.StringIO(read_text(path), newline=None), start=1):
        check_row_number(number, path)
        if len(line) > MAX_LINE_LENGTH:
            raise ManifestError(f"{path}, line {number}: longer than {MAX_LINE_LENGTH} characters; it is no split list")
        if line.strip():
            yield f"{path}, line {number}", line.strip()


def check_row_number(number: int, path: Path) -> None:
    """Refuse a file with more rows than any list has."""
    if number > MAX_ENTRIES:
        raise ManifestError(f"{path} has more than {MAX_ENTRIES} rows, more than a split list may have")


def whole_number(text: str) -> int | None:
    """Return the number that a field of ASCII digits holds; None if it holds none, or one that no list needs."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None


def last_number(line: str) -> tuple[str, int | None]:
    """Divide a line into a name and the whole number after it; without one, the name is the line and the number None."""
    parts = line.rsplit(maxsplit=1)
    number = whole_number(parts[1]) if len(parts) == 2 else None
    return (line, None) if number is None else (parts[0], number)


def check_unique(lists: SplitLists, path: Path) -> None:
    """Refuse lists that name a video twice: in one half it would count double, in both it would leak."""
    half_of: dict[str, str] = {}
    for half, entries in (("train", lists.train), ("test", lists.test), ("unused", lists.unused)):
        for entry in entries:
            if entry.video_id in half_of:
                where = f"in {half}" if half_of[entry.video_id] == half else f"in {half_of[entry.video_id]} and {half}"
                raise ManifestError(f"{str(path)!r} names {entry.video_id!r} twice, {where}; remove one line")
            half_of[entry.video_id] = half
