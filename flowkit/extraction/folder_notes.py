"""What the folders of videos mean for an extraction, said before any flow is computed."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

from flowkit.dataset.root import Dataset
from flowkit.video.containers import VIDEO_SUFFIXES
from flowkit.video.folders import FolderLayout, read_layout
from flowkit.video.ids import first_few
from flowkit.video.tree import is_hidden, parent_of
from flowkit.words import counted

_MOST_NAMED = 3


def folder_notes(layout: FolderLayout) -> Iterator[str]:
    """Yield what the folders say about classes and subsets, where that may be a surprise."""
    if layout.has_subsets:
        yield (
            f"the folders at the top, {layout.subset_folder_names}, give the split, and those inside them the classes "
            f"({len(layout.classes)}, such as {layout.classes[0]!r})"
        )
    elif layout.doubt:
        yield (
            f"{layout.doubt}, so flowkit does not read a split from the folders, and the classes have names such as "
            f"{layout.classes[0]!r}; lists can still give the split and the classes (`flowkit pack --lists`)"
        )


def folder_warnings(videos: Path, layout: FolderLayout, existing: Dataset | None, known: Iterable[str]) -> Iterator[str]:
    """Yield what is probably wrong with the folder that is to be extracted.

    Parameters
    ----------
    videos : Path
        The folder.
    layout : FolderLayout
        What its folders say.
    existing : Dataset or None
        The data root, if there is one.
    known : iterable of str
        The videos that were extracted into it before.

    Yields
    ------
    str
        That no video has a class, or some have none; that all have the same class, also those extracted before; that the data root was
        made from another folder. In sentences without a full stop.
    """
    before = set(known)
    if layout.class_of and not layout.classes:
        yield _no_class(videos)
    elif classless := [video_id for video_id, class_name in layout.class_of.items() if not class_name]:
        yield (
            f"{counted(len(classless), 'video')} {'lies' if len(classless) == 1 else 'lie'} in no class folder, beside "
            f"{counted(len(layout.classes), 'class')} ({first_few(map(repr, classless), most=_MOST_NAMED)}), so the class is unknown: move "
            "such a video to <class>/<video>, or have a list that names its class (`flowkit pack --lists FILE.csv`)"
        )
    elif len(layout.classes) == 1 and not {*read_layout(before).classes} - {*layout.classes}:
        yield (
            f"all videos have the class {layout.classes[0]!r}, so a network can learn nothing from them alone: the class of a video is its "
            f"folder below the folder that you give, which is {str(videos)!r}"
        )
    if existing is not None and existing.source and not _is_same(Path(existing.source), videos):
        new = [video_id for video_id in layout.class_of if video_id not in before]
        if new:
            apart = "to keep the two apart, extract into another data root with --data DIR"
            if Path(existing.source) in Path(os.path.abspath(videos)).parents:
                whole = f"`flowkit extract {shlex.quote(existing.source)}`"
                apart = (
                    f"it lies in that folder, so they get other ids than there: give the whole folder, {whole}, which skips what is done"
                )
            yield (
                f"the data root {str(existing.root)!r} holds videos of {existing.source!r}, and {counted(len(new), 'video')} of "
                f"{str(videos)!r} will be added to them; {apart}"
            )


def gone_note(videos: Path, existing: Dataset | None, others: Iterable[str]) -> Iterator[str]:
    """Yield that clips stay whose videos have been renamed, moved or deleted since, if this is the folder that they were made from.

    `others` are the clips that have no video there.
    """
    if existing is None or not existing.source or not _is_same(Path(existing.source), videos):
        return
    gone = sorted(others)
    if gone:
        yield (
            f"{counted(len(gone), 'clip')} of videos that are no longer in {str(videos)!r} {'stays' if len(gone) == 1 else 'stay'} in the "
            f"data root and in its splits ({first_few(map(repr, gone), most=_MOST_NAMED)}); lists can leave them out "
            "(`flowkit pack --lists`)"
        )


def _no_class(videos: Path) -> str:
    """Say that the videos lie directly in the folder, and which folder was probably meant."""
    name, parent = os.path.basename(os.path.abspath(videos)), parent_of(videos)
    beside = _folders_of_videos(parent, besides=videos)
    give = f"`flowkit extract {shlex.quote(str(parent))}`"
    if beside:
        meant = f"{str(parent)!r} holds more folders of videos ({first_few(map(repr, beside), most=_MOST_NAMED)}): give the parent, {give}"
    else:
        meant = f"if {name!r} is the name of their class, give its parent, {give}"
    return (
        f"no video lies in a class folder, so no class is known; {meant}; otherwise move each video to <class>/<video>, or have a list "
        "that names the class of each (`flowkit pack --lists FILE.csv`)"
    )


def _folders_of_videos(parent: Path, *, besides: Path) -> list[str]:
    """Return the names of the other folders in one that hold videos themselves."""
    found = []
    try:
        for path in sorted(parent.iterdir()):
            if path.is_dir() and not is_hidden(path.name) and not _is_same(path, besides) and _holds_a_video(path):
                found.append(path.name)
    except OSError:
        return found
    return found


def _holds_a_video(folder: Path) -> bool:
    try:
        return any(path.suffix.lower() in VIDEO_SUFFIXES and path.is_file() for path in folder.iterdir())
    except OSError:
        return False


def _is_same(folder: Path, other: Path) -> bool:
    try:
        return folder.samefile(other)
    except OSError:
        return os.path.abspath(folder) == os.path.abspath(other)
