"""The rows of the results table: which streams of which phases each of them combines (standard library only)."""

from __future__ import annotations

from collections.abc import Container

from flowkit.model.settings.training import PHASES, Phase
from flowkit.model.systems.registry import SYSTEMS

ROWS: dict[str, tuple[tuple[Phase, str], ...]] = {
    "appearance": (("appearance", "appearance"),),
    "motion": (("motion", "motion"),),
    "two-streams": (("appearance", "appearance"), ("motion", "motion")),
    "ST-ResNet": (("st-resnet", "appearance"), ("st-resnet", "motion")),
    "ST-ResNet*": (("st-resnet-star", "appearance"), ("st-resnet-star", "motion")),
}
# Below them, the rows of systems that are more than networks, if they are trained: row -> the rows that it joins; none for a row by itself.
SYSTEM_ROWS: dict[str, tuple[str, ...]] = {system.row: system.joined for system in SYSTEMS.values() if system.row not in ROWS}
ALL_ROWS: tuple[str, ...] = (*ROWS, *SYSTEM_ROWS)
# The two outputs of a two-stream network by themselves, below the table: a row that joins them equally hides that one is at chance.
HEADS: dict[str, tuple[Phase, str]] = {
    f"{row}, {stream} head": (phase, stream) for row in ("ST-ResNet", "ST-ResNet*") for phase, stream in ROWS[row]
}
ROW_OF_PHASE: dict[Phase, str] = {
    phase: next(row for row, parts in ROWS.items() if {part[0] for part in parts} == {phase}) for phase in PHASES
}


def rows_of(phases: Container[Phase]) -> list[str]:
    """Return the rows for which all phases that they need are there, in the order of the table."""
    return [row for row, parts in ROWS.items() if all(phase in phases for phase, _ in parts)]


def last_row(rows: Container[str]) -> str | None:
    """Return which of these rows reports and predictions are about: the last of a network, or else the last of the table."""
    return next((row for row in (*reversed(ROWS), *reversed(SYSTEM_ROWS)) if row in rows), None)


def table_rows(rows: Container[str]) -> tuple[str, ...]:
    """Return the rows that a table shows: all of networks, whether trained or not, and those of further systems that have scores."""
    return (*ROWS, *(row for row in SYSTEM_ROWS if row in rows))
