"""The rows of the results table: which streams of which phases each of them combines, as the systems say (standard library only)."""

from __future__ import annotations

from collections.abc import Container

from flowkit.model.settings.training import Phase
from flowkit.model.systems.registry import DEFAULT_SYSTEM, PHASES, SYSTEMS

_OF_SYSTEM: dict[str, tuple[str, ...]] = {system.name: tuple(row.name for row in system.rows) for system in SYSTEMS.values()}
ROWS: dict[str, tuple[tuple[Phase, str], ...]] = {row.name: row.parts for system in SYSTEMS.values() for row in system.rows}
# Below them, the rows of SVMs, and those that join rows, in the order of the systems: row -> the rows that it joins; none for an SVM's.
SYSTEM_ROWS: dict[str, tuple[str, ...]] = {
    row: joined
    for system in SYSTEMS.values()
    for row, joined in (*((svm.row, ()) for svm in system.svms), (system.row, system.joined))
    if row not in ROWS
}
ALL_ROWS: tuple[str, ...] = (*ROWS, *SYSTEM_ROWS)
# The outputs of networks of two streams by themselves, below the table.
HEADS: dict[str, tuple[Phase, str]] = {
    f"{row.name}, {stream} head": (phase, stream)
    for system in SYSTEMS.values()
    for row in system.rows
    if row.has_heads
    for phase, stream in row.parts
}
# The rows that are joined by the mean of the softmax, as their publication did, unless the user says otherwise: row -> weights.
OWN_FUSION: dict[str, tuple[float, float]] = {
    row.name: row.softmax_weights for system in SYSTEMS.values() for row in system.rows if row.softmax_weights is not None
}
ROW_OF_PHASE: dict[Phase, str] = {
    phase: next(row for row, parts in ROWS.items() if {part[0] for part in parts} == {phase}) for phase in PHASES
}


def rows_of(phases: Container[Phase]) -> list[str]:
    """Return the rows for which all phases that they need are there, in the order of the table."""
    return [row for row, parts in ROWS.items() if all(phase in phases for phase, _ in parts)]


def last_row(rows: Container[str]) -> str | None:
    """Return which of these rows reports and predictions are about: the last of the first system that has any, or else of the table."""
    ordered = [row for names in _OF_SYSTEM.values() for row in reversed(names)]
    return next((row for row in (*ordered, *reversed(SYSTEM_ROWS)) if row in rows), None)


def table_rows(rows: Container[str]) -> tuple[str, ...]:
    """Return the rows that a table shows: all of networks, trained or not, of each system that has scores; and those of further systems.

    If no network has scores, the rows of the default system are shown.
    """
    shown = [name for name, own in _OF_SYSTEM.items() if any(row in rows for row in own)] or [DEFAULT_SYSTEM]
    return (*(row for name in shown for row in _OF_SYSTEM[name]), *(row for row in SYSTEM_ROWS if row in rows))
