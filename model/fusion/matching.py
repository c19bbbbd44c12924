"""Which video and which class of another system corresponds to which of ours: matched by name, never guessed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from flowkit.errors import ScoresError
from flowkit.model.evaluation.scores import ScoreTable
from flowkit.video.ids import comparable_name, name_ends, without_suffix

_NAMES_SHOWN = 5


def match_videos(ours: ScoreTable, theirs: ScoreTable) -> list[int | None]:
    """Return the row of each of our videos in the other system's scores, None where it has none.

    Notes
    -----
    Ids match exactly, or else without regard to case, to the suffix of a video file, and to folders that only one of the two has
    (``ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01`` and ``v_ApplyEyeMakeup_g01_c01.avi``).

    Raises
    ------
    ScoresError
        If a match is not unique.
    """
    exact = {name: row for row, name in enumerate(theirs.video_ids)}
    by_tail: dict[str, list[int]] = defaultdict(list)  # the rows of their ids that end so
    by_id: dict[str, list[int]] = defaultdict(list)  # the rows of their ids that are just that
    for row, name in enumerate(theirs.video_ids):
        by_id[_tails(name)[0]].append(row)
        for tail in _tails(name):
            by_tail[tail].append(row)
    matches: list[int | None] = []
    taken: dict[int, str] = {}
    for name in ours.video_ids:
        own_id, *shorter = _tails(name)
        rows = [exact[name]] if name in exact else by_tail.get(own_id) or [row for tail in shorter for row in by_id.get(tail, ())]
        if len(rows) > 1:
            fitting = " and ".join(repr(theirs.video_ids[row]) for row in rows[:2])
            raise ScoresError(f"{theirs.source}: our video {name!r} could be {fitting}; write the complete ids there")
        for row in rows:
            if row in taken:
                both = f"{taken[row]!r} and {name!r}"
                raise ScoresError(f"{theirs.source}: {theirs.video_ids[row]!r} could be our videos {both}; write the complete ids there")
            taken[row] = name
        matches.append(rows[0] if rows else None)
    return matches


def match_classes(ours: ScoreTable, theirs: ScoreTable) -> list[int]:
    """Return the column of each of our classes in the other system's scores: the same name, or the same except for case.

    Raises
    ------
    ScoresError
        If a class is missing there, or is not one of ours, or a match is not unique.
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
        parts = [f"lacks {len(missing)} of our classes ({first_names(missing)})"] if missing else []
        parts += [f"has {len(unknown)} that are not ours ({first_names(unknown)})"] if unknown else []
        raise ScoresError(f"{theirs.source}: {' and '.join(parts) or 'has a class that fits two of ours'}; classes are matched by name")
    return columns


def _tails(video_id: str) -> list[str]:
    """Return an id, case-folded and without a video's suffix, and what remains of it without its first folder, its first two, ..."""
    return name_ends(without_suffix(comparable_name(video_id)).strip("/"))


def first_names(names: Iterable[str]) -> str:
    """Return the first few names, with ``...`` if there are more."""
    shown = list(names)
    return ", ".join(map(repr, shown[:_NAMES_SHOWN])) + (", ..." if len(shown) > _NAMES_SHOWN else "")
