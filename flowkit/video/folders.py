"""What the folders of videos say: the class of each video and, if the folders at the top are train, val and test, its subset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from flowkit.video.ids import comparable_name, first_few

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Subset = Literal["train", "val", "test"]

# What data sets call the folders, and the rows of lists, of each subset. Case does not matter.
SUBSET_OF_NAME: dict[str, Subset] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


@dataclass(frozen=True)
class FolderLayout:
    """The classes and subsets that folders give to videos.

    Parameters
    ----------
    class_of : mapping of str to str
        The class of each video, by id: its folder, or the part of it below the folder of the subset; empty if there is none.
    subset_of : mapping of str to str
        The subset of each video in a folder, by id: ``train``, ``val`` or ``test``. Empty if the folders give no subsets.
    subset_folders : mapping of str to tuple of str
        The folders at the top that stand for each subset, sorted.
    doubt : str
        Why folders at the top do not give subsets although some of them are called so; empty if none is, or they do.
    """

    class_of: Mapping[str, str]
    subset_of: Mapping[str, Subset]
    subset_folders: Mapping[Subset, tuple[str, ...]]
    doubt: str = ""

    @property
    def has_subsets(self) -> bool:
        """Whether the folders at the top are the subsets of a split."""
        return bool(self.subset_of)

    @property
    def subset_folder_names(self) -> str:
        """The folders that stand for subsets, as messages name them."""
        return first_few((repr(name) for names in self.subset_folders.values() for name in names), last="and")

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, sorted by code point."""
        return tuple(sorted({name for name in self.class_of.values() if name}))


def subset_of_name(name: str) -> Subset | None:
    """Return the subset that a name stands for, whatever its case; None if it stands for none."""
    return SUBSET_OF_NAME.get(comparable_name(name))


def read_layout(video_ids: Iterable[str]) -> FolderLayout:
    """Return what the folders of videos say.

    Parameters
    ----------
    video_ids : iterable of str
        All videos of a tree: paths relative to its root.

    Notes
    -----
    The folders at the top are subsets if all of them have such names and no video lies directly in one of them: this is how
    Kinetics and other data sets are arranged, ``train/archery/x.mp4``. If a folder with another name were beside them, or a
    video without a class folder in them, the same names could as well be classes.

    Examples
    --------
    >>> from flowkit.video.folders import read_layout
    >>> layout = read_layout(["train/archery/a", "train/bowling/b", "val/archery/c"])
    >>> layout.class_of["val/archery/c"], layout.subset_of["val/archery/c"]
    ('archery', 'val')
    >>> read_layout(["archery/a", "bowling/b"]).classes
    ('archery', 'bowling')
    """
    ids = list(video_ids)
    folder_of = {video_id: video_id.rpartition("/")[0] for video_id in ids}
    tops = sorted({folder.partition("/")[0] for folder in folder_of.values() if folder})
    subset_at = {top: subset for top in tops if (subset := subset_of_name(top))}
    named = list(subset_at)
    others = [top for top in tops if top not in subset_at]
    flat = [top for top in named if top in folder_of.values()]
    if not named or others or flat:
        return FolderLayout(folder_of, {}, {}, _doubt(named, others, flat) or _doubt_inside(folder_of.values()))
    subset_of: dict[str, Subset] = {}
    for video_id, folder in folder_of.items():
        top = folder.partition("/")[0]
        if top in subset_at:
            subset_of[video_id] = subset_at[top]
    class_of = {video_id: folder.partition("/")[2] for video_id, folder in folder_of.items()}
    folders: dict[Subset, tuple[str, ...]] = {}
    for top, subset in subset_at.items():
        folders[subset] = (*folders.get(subset, ()), top)
    return FolderLayout(class_of, subset_of, folders)


def _doubt(named: list[str], others: list[str], flat: list[str]) -> str:
    """Say why the folders at the top are not subsets, if it seems that they were meant to be."""
    if len(named) < 2 and (not named or flat):  # one class may well be called "train"
        return ""
    what = f"{first_few(map(repr, named), last='and')} {'is a name' if len(named) == 1 else 'are names'} of subsets"
    if flat:
        return f"{what}, but videos lie directly in {first_few(map(repr, flat), last='and')}, without a class folder"
    return f"{what}, but {first_few(map(repr, others), last='and')} {'is' if len(others) == 1 else 'are'} beside them"


def _doubt_inside(folders: Iterable[str]) -> str:
    """Say that folders inside others have the names of several subsets, if they do: they will be parts of the names of classes."""
    above: dict[str, str] = {}
    for folder in set(folders):
        parts = folder.split("/")
        above |= {part: "/".join(parts[:k]) for k, part in enumerate(parts) if k and subset_of_name(part)}
    if len({subset_of_name(name) for name in above}) < 2:
        return ""
    names = sorted(above)
    return f"{first_few(map(repr, names), last='and')} are names of subsets, but they lie in other folders, such as {above[names[0]]!r}"
