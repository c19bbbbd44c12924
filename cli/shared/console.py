"""What the commands show: data on stdout, everything else on stderr, names escaped, progress live or in plain lines."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType


def show(text: object) -> str:
    """Return text with control characters (and lone surrogates) escaped, so that a file's name cannot drive the terminal."""
    return "".join(
        c if c == "\n" or (c.isprintable() and not 0xD800 <= ord(c) <= 0xDFFF) else c.encode("unicode_escape").decode() for c in str(text)
    )


def show_name(name: object) -> str:
    """Return a file or video name on one line: newlines are escaped too."""
    return show(name).replace("\n", "\\n")


def say(text: str = "") -> None:
    """Print a result to stdout."""
    click.echo(text)


def warn(text: str) -> None:
    """Print a message to stderr."""
    click.echo(text, err=True)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a plain, aligned text table (numbers to the right) that pastes well into Markdown."""
    cells = [[show_name(cell) for cell in row] for row in rows]
    widths = [max(len(line[k]) for line in [list(header), *cells]) for k in range(len(header))]
    right = [
        all(
            line[k].replace(".", "", 1).replace("-", "", 1).replace("%", "").replace(",", "").isdigit() or line[k] in ("", "-")
            for line in cells
        )
        for k in range(len(header))
    ]

    def line(parts: Sequence[str]) -> str:
        return "| " + " | ".join(p.rjust(w) if r else p.ljust(w) for p, w, r in zip(parts, widths, right, strict=True)) + " |"

    rule = "|" + "|".join("-" * (w + 1) + (":" if r else "-") for w, r in zip(widths, right, strict=True)) + "|"
    return "\n".join([line(header), rule, *map(line, cells)])


def duration(seconds: float) -> str:
    """Return seconds as people write them: 8 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(num_bytes: float) -> str:
    """Return a number of bytes as people write it: 17.5 kB, 1.2 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} B" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"


class Progress:
    """Progress on stderr: a live bar on a terminal, a plain line every few seconds elsewhere.

    Parameters
    ----------
    what : str
        The stage's name.
    total : float
        How much there is to do, in `unit`; 0 where that is not known.
    unit : str
        What is counted: ``pairs``, ``steps``, ``videos``.
    """

    def __init__(self, what: str, *, total: float, unit: str, every_seconds: float = 10.0) -> None:
        self.what, self.total, self.unit, self.every_seconds = what, total, unit, every_seconds
        self.done, self.fraction, self.note = 0.0, 0.0, ""
        self._started = self._told = time.monotonic()
        self._live: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        self._started = self._told = time.monotonic()
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
            from rich.progress import Progress as Bar

            self._live = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}", markup=False),
                console=Console(stderr=True),
                transient=True,
            )
            self._live.start()
            self._task = self._live.add_task(self.what, total=self.total, rate="")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()
        if kind is None:
            warn(self._line())

    def advance(self, amount: float = 1.0, *, note: str = "") -> None:
        """Count `amount` more as done; `note` says what else is worth knowing (failures, the loss)."""
        self.update(self.done + amount, note=note)

    def update(self, done: float, *, fraction: float | None = None, note: str = "") -> None:
        """Set how much is done; `fraction` of the whole where that is known better than ``done / total``."""
        self.done, self.note = done, note
        self.fraction = done / self.total if fraction is None and self.total else fraction or 0.0
        if self._live is not None:
            total = max(self.total, self.done) if fraction is None else self.done / fraction if fraction else None
            self._live.update(self._task, completed=self.done, total=total, rate=show_name(self._rate()))
        elif time.monotonic() - self._told >= self.every_seconds:
            self._told = time.monotonic()
            warn(self._line())

    def _rate(self) -> str:
        elapsed = max(time.monotonic() - self._started, 1e-9)
        rate = self.done / elapsed
        parts = [f"{rate:.1f} {self.unit}/s" if rate >= 1 or not rate else f"{1 / rate:.1f} s per {self.unit.removesuffix('s')}"]
        if 0 < self.fraction < 1:
            parts.append(f"{duration(elapsed / self.fraction - elapsed)} left")
        if self.note:
            parts.append(self.note)
        return ", ".join(parts)

    def _line(self) -> str:
        elapsed = duration(time.monotonic() - self._started)
        count = f"{self.done:.0f}/{max(self.total, self.done):.0f}" if self.total else f"{self.done:.0f}"
        return f"{self.what}: {count} {self.unit} in {elapsed}, {show_name(self._rate())}"
