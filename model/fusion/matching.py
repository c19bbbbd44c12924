"""Which video, and which class, of another system's scores is which of ours: by name, and never by guess."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING

from flowkit.errors import ScoresError
from flowkit.video.decode import VIDEO_SUFFIXES
from flowkit.video.ids import comparable_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flowkit.model.evaluation.scores import ScoreTable

_NAMES_SHOWN = 5
_VIDEO_SUFFIX = re.compile("(" + "|".join(map(re.escape, sorted(VIDEO_SUFFIXES))) + ")$")


def match_videos(ours: ScoreTable, theirs: ScoreTable) -> list[int | None]:
    """Return where the other system has each of our videos, None where it does not.

    Notes
    -----
    Ids match exactly; else without regard to case, to a video file's suffix, and to folders that only one of the two has
    (``ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01`` and ``v_ApplyEyeMakeup_g01_c01.avi``).

    Raises
    ------
    ScoresError
        If such a match is not unique.
    """
    exact = {name: place for place, name in enumerate(theirs.video_ids)}
    by_tail: dict[str, list[int]] = defaultdict(list)  # the ends of their ids
    for place, name in enumerate(theirs.video_ids):
        for tail in _tails(name):
            by_tail[tail].append(place)
    by_whole: dict[str, list[int]] = defaultdict(list)
    for place, name in enumerate(theirs.video_ids):
        by_whole[_tails(name)[0]].append(place)
    found: list[int | None] = []
    taken: dict[int, str] = {}
    for name in ours.video_ids:
        whole, *shorter = _tails(name)
        places = [exact[name]] if name in exact else by_tail.get(whole) or [place for tail in shorter for place in by_whole.get(tail, ())]
        if len(places) > 1:
            fitting = " and ".join(repr(theirs.video_ids[place]) for place in places[:2])
            raise ScoresError(f"{theirs.source}: our video {name!r} could be {fitting}; write the whole ids there")
        for place in places:
            if place in taken:
                ours_too = f"{taken[place]!r} and {name!r}"
                raise ScoresError(f"{theirs.source}: {theirs.video_ids[place]!r} could be our videos {ours_too}; write the whole ids there")
            taken[place] = name
        found.append(places[0] if places else None)
    return found


def match_classes(ours: ScoreTable, theirs: ScoreTable) -> list[int]:
    """Return which column of the other system is each of our classes: the same name, or the same but for case.

    Raises
    ------
    ScoresError
        If a class is missing there, or is none of ours, or the match is not unique.
    """
    exact = {name: column for column, name in enumerate(theirs.classes)}
    by_folded: dict[str, list[int]] = defaultdict(list)
    for column, name in enumerate(theirs.classes):
        by_folded[comparable_name(name)].append(column)
    columns, missing = [], []
    for name in ours.classes:
        fitting = [exact[name]] if name in exact else by_folded.get(comparable_name(name), [])
        if len(fitting) > 1:
            names = " and ".join(repr(theirs.classes[column]) for column in fitting[:2])
            raise ScoresError(f"{theirs.source}: our class {name!r} could be {names}; use our spelling")
        columns += fitting
        missing += [] if fitting else [name]
    unknown = [name for column, name in enumerate(theirs.classes) if column not in set(columns)]
    if missing or unknown or len(set(columns)) < len(columns):
        parts = [f"lacks {len(missing)} of our classes ({some(missing)})"] if missing else []
        parts += [f"has {len(unknown)} that are none of ours ({some(unknown)})"] if unknown else []
        raise ScoresError(f"{theirs.source}: {' and '.join(parts) or 'has a class that fits two of ours'}; classes are matched by name")
    return columns


def _tails(video_id: str) -> list[str]:
    """Return an id, folded and without a video's suffix, and what is left of it without its first folder, its first two, ..."""
    parts = _VIDEO_SUFFIX.sub("", comparable_name(video_id)).strip("/").split("/")
    return ["/".join(parts[k:]) for k in range(len(parts))]


def some(names: Iterable[str]) -> str:
    """Return the first few names, and that there are more."""
    shown = list(names)
    return ", ".join(map(repr, shown[:_NAMES_SHOWN])) + (", ..." if len(shown) > _NAMES_SHOWN else "")
