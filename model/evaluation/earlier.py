"""An earlier evaluation in the folder of a report: what it scored, and whether a new one may replace it; failures in few lines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from flowkit.errors import FlowkitError
from flowkit.model.data.whole_videos import Unreadable
from flowkit.model.evaluation.results import read_results
from flowkit.model.evaluation.scores import read_own_scores
from flowkit.video.ids import first_few
from flowkit.words import counted

SCORES_NAME = "scores.h5"
_NAMES_SHOWN = 3


def scored_before(folder: Path) -> frozenset[str]:
    """Return the videos that the evaluation in a folder scored; none if there is no evaluation, or it cannot be read."""
    try:
        return frozenset(read_own_scores(folder / SCORES_NAME)[0].video_ids)
    except (FlowkitError, OSError):
        return frozenset()


def lost_videos(folder: Path, video_ids: Iterable[str]) -> list[str]:
    """Return the videos that the evaluation in a folder scored and that are not among these, sorted."""
    return sorted(scored_before(folder) - frozenset(video_ids))


def lost_rows(folder: Path, rows: Iterable[str]) -> list[str]:
    """Return the rows of the evaluation in a folder that are not among these; none if there is no evaluation, or it cannot be read."""
    try:
        (earlier,) = read_results(folder).splits
    except (FlowkitError, OSError):
        return []
    return [row for row in earlier.rows if row not in set(rows)]


def failure_lines(failed: Sequence[Unreadable]) -> list[str]:
    """Return one line for each kind of failure: the first reason, how many videos have it, and the first of them."""
    kinds: dict[str, list[Unreadable]] = {}
    for clip in failed:
        kinds.setdefault(re.sub(r"\d+", "#", clip.reason.replace(clip.video_id, "")), []).append(clip)
    lines = []
    for clips in kinds.values():
        names = first_few((clip.video_id for clip in clips), most=_NAMES_SHOWN)
        count = counted(len(clips), "video")
        lines.append(f"{count} could not be scored ({names}): {clips[0].reason}")
    return lines
