"""The classes of a split, chosen among those that its lists have: all, those that have a video, or some by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Literal

from flowkit.dataset.lists.automatic import AUTOMATIC
from flowkit.dataset.lists.entries import ListEntry, SplitLists
from flowkit.dataset.lists.matching import Matched
from flowkit.errors import ManifestError
from flowkit.video.ids import comparable_name, first_few
from flowkit.words import counted

ClassChoice = Literal["all", "present"] | Sequence[str]

_SOME = re.compile(r" \(\d+ of \d+ classes\)\Z")
_MOST_NAMED = 10


def keep_classes(
    lists: SplitLists, matched: Matched, choice: ClassChoice, *, is_long_enough: Callable[[str], bool] = lambda video_id: True
) -> tuple[SplitLists, Matched]:
    """Leave out the classes of lists that were not chosen, and number the labels of the others again, in their order.

    Parameters
    ----------
    lists : SplitLists
        The lists.
    matched : Matched
        The lists against the videos.
    choice : "all" or "present" or sequence of str
        All classes; those that have a video in either half; or classes by name, whatever the case.
    is_long_enough : callable
        Whether a video counts as present, by its id.

    Returns
    -------
    lists : SplitLists
        Its protocol says that it is not the complete lists, as in ``ucf101 (6 of 101 classes)``, and `left_out` names the others. Lists
        of which nothing is left out are returned as they are.
    matched : Matched
        The same for what was found. Videos of the other classes are in neither half.

    Raises
    ------
    ManifestError
        If the lists have no class of such a name, or no class has a video.
    """
    if choice == "all":
        return lists, matched
    if choice == "present":
        kept = {entry.class_name for entry in (*matched.train, *matched.test) if is_long_enough(entry.video_id)}
        if not kept:
            raise ManifestError("none of the classes that the lists name has a video that is long enough")
    else:
        kept = _named(choice, lists.classes)
    classes = tuple(name for name in lists.classes if name in kept)
    left_out = tuple(name for name in lists.classes if name not in kept)
    if not left_out:
        return lists, matched

    def of_kept(entries: Sequence[ListEntry]) -> tuple[ListEntry, ...]:
        return tuple(entry for entry in entries if entry.class_name in kept)

    protocol = lists.protocol if lists.protocol == AUTOMATIC else f"{lists.protocol} ({len(classes)} of {len(lists.classes)} classes)"
    fewer = replace(
        lists,
        protocol=protocol,
        classes=classes,
        train=of_kept(lists.train),
        test=of_kept(lists.test),
        unused=of_kept(lists.unused),
        left_out=left_out,
    )
    train, test = of_kept(matched.train), of_kept(matched.test)
    dropped = {entry.video_id for entry in (*matched.train, *matched.test)} - {entry.video_id for entry in (*train, *test)}
    found = replace(
        matched,
        train=train,
        test=test,
        missing_train=of_kept(matched.missing_train),
        missing_test=of_kept(matched.missing_test),
        unlisted=tuple(sorted({*matched.unlisted, *dropped})),
        untrained_classes=tuple(name for name in matched.untrained_classes if name in kept),
        by_end=tuple(pair for pair in matched.by_end if pair[1] not in dropped),
    )
    return fewer, found


def classes_of_videos(class_of: Mapping[str, str], choice: ClassChoice) -> dict[str, str]:
    """Return the videos of the chosen classes, from which a split without lists is made; with ``all``, those without a class too."""
    if choice == "all":
        return dict(class_of)
    with_class = {video_id: name for video_id, name in class_of.items() if name}
    if choice == "present":
        return with_class
    kept = _named(choice, sorted(set(with_class.values())))
    return {video_id: name for video_id, name in with_class.items() if name in kept}


def whole_protocol(protocol: str) -> str:
    """Return the protocol of the complete lists, of which a split may have some classes.

    Examples
    --------
    >>> from flowkit.dataset.lists.classes import whole_protocol
    >>> whole_protocol("ucf101 (6 of 101 classes)"), whole_protocol("csv (val for test)")
    ('ucf101', 'csv (val for test)')
    """
    return _SOME.sub("", protocol)


def _named(names: Sequence[str], classes: Sequence[str]) -> set[str]:
    """Return the classes that were named, in their own spelling."""
    known = {comparable_name(name): name for name in classes}
    kept, unknown = set(), []
    for name in names:
        match = name if name in classes else known.get(comparable_name(name))
        if match is None:
            close = get_close_matches(name, classes, n=1)
            unknown.append(f"{name!r}" + (f" (did you mean {close[0]!r}?)" if close else ""))
        else:
            kept.add(match)
    if unknown or not kept:
        what = f"there is no class {first_few(unknown)}" if unknown else "no class was named"
        raise ManifestError(f"{what}; there are {counted(len(classes), 'class')}: {first_few(map(repr, classes), most=_MOST_NAMED)}")
    return kept
