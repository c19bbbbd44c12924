"""Which videos that official lists name are in a folder, and what to do about the others."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flowkit.dataset.lists.data_sets import DATA_SETS
from flowkit.dataset.lists.entries import ListEntry
from flowkit.dataset.lists.list_check import ARCHIVES, CheckedLists, unpack_command
from flowkit.dataset.lists.matching import pair_names
from flowkit.video.containers import VIDEO_SUFFIXES
from flowkit.video.ids import comparable_name, first_few
from flowkit.video.tree import scan_videos
from flowkit.words import counted

_MOST_NAMED = 5


@dataclass(frozen=True)
class CheckedVideos:
    """The videos that lists name, compared with a folder.

    Parameters
    ----------
    folder : Path
        The folder.
    num_listed, num_found : int
        Videos that the lists name, and those of them that are in the folder.
    missing : tuple of str
        Videos that are not there, as the lists spell them, sorted.
    missing_classes : tuple of str
        Classes of which no video is there.
    unlisted : tuple of str
        Videos of the folder that the lists do not name.
    empty : tuple of str
        Files without a byte, such as a download that was stopped leaves.
    problems : tuple of str
        What is wrong and what to do, without a full stop.
    notes : tuple of str
        What is remarkable but no problem.
    """

    folder: Path
    num_listed: int
    num_found: int
    missing: tuple[str, ...]
    missing_classes: tuple[str, ...]
    unlisted: tuple[str, ...]
    empty: tuple[str, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def check_videos(checked: CheckedLists, folder: str | os.PathLike[str]) -> CheckedVideos:
    """Compare the videos that checked lists name with those in a folder.

    Parameters
    ----------
    checked : CheckedLists
        What `flowkit.dataset.lists.list_check.check_lists` returned.
    folder : path
        The folder of the videos.

    Raises
    ------
    ManifestError
        If there is no such folder, or its files do not give each video an id of its own.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from flowkit.dataset.lists.list_check import check_lists
    >>> from flowkit.dataset.lists.video_check import check_videos
    >>> lists, videos = (Path(tempfile.mkdtemp(), name) for name in ("lists", "videos"))
    >>> lists.mkdir(), videos.mkdir()
    (None, None)
    >>> check_videos(check_lists("ucf101", lists), videos).num_listed
    0
    """
    videos, facts = Path(folder), DATA_SETS[checked.data_set]
    entries = _all_entries(checked)
    scan = scan_videos(videos, VIDEO_SUFFIXES)
    pairs = pair_names(entries, [video.video_id for video in scan.videos])
    found = {entry.video_id for entry in entries if entry.video_id in pairs.video_of}
    missing = [entry for entry in entries if entry.video_id not in found]
    classes_there = {entry.class_name for entry in entries if entry.video_id in found}
    missing_classes = tuple(sorted({entry.class_name for entry in missing} - classes_there))
    matched = set(pairs.video_of.values())
    unlisted = tuple(video.video_id for video in scan.videos if video.video_id not in matched)
    empty = tuple(video.video_id for video in scan.videos if video.video_id in matched and video.path.stat().st_size == 0)

    problems, notes = [], []
    archives = _archives(videos)
    of_classes = {comparable_name(name) for name in missing_classes}
    class_archives = [path for path in archives if comparable_name(path.stem) in of_classes]
    whole = [path for path in archives if path not in class_archives]
    if missing and class_archives:
        names = first_few([path.name for path in class_archives], most=_MOST_NAMED)
        have = "archive of a class has" if len(class_archives) == 1 else "archives of classes have"
        command = unpack_command(class_archives[0], videos, all_alike=True)
        problems.append(f"{len(class_archives):,} {have} not been unpacked ({names}): `{command}`")
    elif missing and whole and not found:
        problems += [f"{str(path)!r} has not been unpacked: `{unpack_command(path)}`" for path in whole[:_MOST_NAMED]]
    elif missing and not found:
        made = f"the folder that {facts.video_archive} was unpacked to, which holds a folder for each class"
        problems.append(f"{str(videos)!r} holds no video of {facts.name}: give {made}")
    if missing_classes and found:
        problems.append(f"no video of {counted(len(missing_classes), 'class')}: {first_few(missing_classes, most=_MOST_NAMED)}")
    if missing and found:
        some = [entry.video_id for entry in missing if entry.class_name in classes_there]
        if some:
            per_class = Counter(entry.class_name for entry in missing if entry.class_name in classes_there)
            worst = ", ".join(f"{name} {number}" for name, number in per_class.most_common(_MOST_NAMED))
            problems.append(
                f"{counted(len(some), 'video')} of {counted(len(per_class), 'class')} {'is' if len(some) == 1 else 'are'} missing "
                f"({first_few(some, most=_MOST_NAMED)}); by class: {worst}"
            )
    if pairs.several:
        problems.append(f"{counted(len(pairs.several), 'listed video')} could be several files ({first_few(sorted(pairs.several))})")
    if empty:
        problems.append(f"{counted(len(empty), 'file')} without a byte: {first_few(empty, most=_MOST_NAMED)}; unpack or download again")
    problems += [f"{name}: {why}" for name, why in scan.unreadable[:_MOST_NAMED]]
    if pairs.by_end:
        notes.append(_note_on_ends(videos, pairs.by_end))
    if unlisted:
        notes.append(f"{counted(len(unlisted), 'video')} that no list names: {first_few(unlisted, most=_MOST_NAMED)}")
    return CheckedVideos(
        videos,
        len(entries),
        len(found),
        tuple(sorted(entry.video_id for entry in missing)),
        missing_classes,
        unlisted,
        empty,
        tuple(problems),
        tuple(notes),
    )


def _note_on_ends(videos: Path, by_end: Mapping[str, str]) -> str:
    """Say that videos lie deeper than the lists say, and which folder was probably meant."""
    places = {video_id.removesuffix(name).rstrip("/") for name, video_id in by_end.items() if video_id.endswith(f"/{name}")}
    advice = f"; {str(videos / min(places))!r} is probably the folder to extract" if len(places) == 1 else ""
    return f"{counted(len(by_end), 'video')} matched by the end of {'its name' if len(by_end) == 1 else 'their names'} only{advice}"


def _all_entries(checked: CheckedLists) -> list[ListEntry]:
    """Return every video that a split names, once."""
    entries: dict[str, ListEntry] = {}
    for lists in checked.lists:
        for entry in (*lists.train, *lists.test, *lists.unused):
            entries.setdefault(comparable_name(entry.video_id), entry)
    return list(entries.values())


def _archives(folder: Path) -> list[Path]:
    """Return the archives in a folder of videos, and beside it."""
    found = []
    for place in (folder, folder.absolute().parent):
        try:
            found += sorted(path for path in place.iterdir() if path.name.lower().endswith(ARCHIVES) and path.is_file())
        except OSError:
            continue
    return found
