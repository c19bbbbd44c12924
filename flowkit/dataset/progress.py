"""Progress of long calls on stderr: a live bar on a terminal, one line that changes in a notebook, a line now and then elsewhere.

ProgressBar     one stage; ``with ProgressBar("pack", unit="videos") as bar: ... bar.update(done, total)``
StageProgress   several stages in a row; ``progress.update("pack", done, total)`` ends the bar of the stage before

Both take ``progress``: True shows them, False does not, and None shows them on a terminal and in a notebook. `set_verbosity` says for
the whole process how much is printed.
"""

from __future__ import annotations

import sys
import time
from enum import IntEnum
from typing import Any

from flowkit.words import duration, printable, printable_name

PLAIN_SECONDS = 10.0  # between two plain lines
_VERBOSE_SECONDS = 1.0  # the same, where much is printed
_NOTEBOOK_SECONDS = 0.5  # between two changes of a notebook's line


class Verbosity(IntEnum):
    """How much this process prints: results, warnings and errors only; progress and notes too; or plain lines of progress every second."""

    QUIET = -1
    NORMAL = 0
    VERBOSE = 1


_verbosity = Verbosity.NORMAL


def set_verbosity(verbosity: Verbosity) -> None:
    """Set how much this process prints from now on."""
    global _verbosity  # noqa: PLW0603 - it is a property of the process, as logging's levels are
    _verbosity = verbosity


def in_notebook() -> bool:
    """Return whether this code runs in a notebook (Jupyter, Colab)."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


def is_shown(progress: bool | None) -> bool:
    """Return whether to show progress; None leaves the decision to where stderr goes."""
    if _verbosity is Verbosity.QUIET:
        return False
    return on_terminal() or in_notebook() if progress is None else progress


def on_terminal() -> bool:
    """Return whether stderr is a terminal. A program without a window, or a service, may have no stderr at all."""
    return sys.stderr is not None and sys.stderr.isatty()


def print_line(text: str) -> None:
    """Print a line to stderr, above a live bar if there is one; nothing if there is no stderr."""
    _write(text + "\n")


def _write(text: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write(text)
        sys.stderr.flush()


def print_note(text: str) -> None:
    """Print a line about what is done, which is no warning, to stderr, unless this process is quiet."""
    if _verbosity is not Verbosity.QUIET:
        print_line(text)


class ProgressBar:
    """The progress of one stage; use it as a context manager, or call `close`.

    Parameters
    ----------
    what : str
        The stage's name.
    total : float
        How much there is to do, in `unit`; 0 if that is not known (yet: `update` takes it too).
    unit : str
        What is counted, in the plural: ``flow fields``, ``steps``, ``videos``.
    progress : bool or None
        Whether to show it; None: on a terminal and in a notebook.
    first : float
        How much of it was done before: it is counted, and took none of the time.
    """

    def __init__(self, what: str, *, total: float = 0.0, unit: str, progress: bool | None = True, first: float = 0.0) -> None:
        self.what, self.total, self.unit, self.first = what, total, unit, first
        self.done, self.fraction, self.note = 0.0, 0.0, ""
        self._started = self._printed = time.monotonic()
        self._shown, self._live = is_shown(progress), None
        self._notebook = self._shown and in_notebook()
        if self._shown and not self._notebook and on_terminal() and _verbosity is not Verbosity.VERBOSE:
            self._live = _live_bar()
            self._live.start()
            self._task = self._live.add_task(printable_name(what), total=total, rate="")

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        self.close(failed=kind is not None)

    def close(self, *, failed: bool = False) -> None:
        """End the bar and leave a line that sums it up, unless the stage failed."""
        if self._live is not None:
            self._live.stop()
        if self._notebook:
            self._print_over(self._line())
            print_line("")
        elif self._shown and not failed:
            print_line(self._line())
        self._shown, self._live, self._notebook = False, None, False

    def advance(self, amount: float = 1.0, *, note: str = "") -> None:
        """Count `amount` more as done; `note` says what else is worth knowing (failures, the loss)."""
        self.update(self.done + amount, note=note)

    def update(self, done: float, total: float | None = None, *, fraction: float | None = None, note: str = "") -> None:
        """Set how much is done (and of how much), or which `fraction` of all is where that is known better than ``done / total``."""
        self.done, self.note = done, note
        self.total = self.total if total is None else total
        self.fraction = done / self.total if fraction is None and self.total else fraction or 0.0
        if self._live is not None:
            shown = max(self.total, done) if fraction is None else done / fraction if fraction else None
            self._live.update(self._task, completed=done, total=shown, rate=printable_name(self._rate()))
        elif self._shown and time.monotonic() - self._printed >= self._seconds_between_lines():
            self._printed = time.monotonic()
            if self._notebook:
                self._print_over(self._line())
            else:
                print_line(self._line())

    def _seconds_between_lines(self) -> float:
        if self._notebook:
            return _NOTEBOOK_SECONDS
        return _VERBOSE_SECONDS if _verbosity is Verbosity.VERBOSE else PLAIN_SECONDS

    def _print_over(self, text: str) -> None:
        """Replace the line that a notebook shows."""
        _write(f"\r{text:<100}")

    def _rate(self) -> str:
        elapsed = max(time.monotonic() - self._started, 1e-9)
        rate = max(self.done - self.first, 0.0) / elapsed
        parts = [f"{rate:.1f} {self.unit}/s" if rate >= 1 or not rate else f"{1 / rate:.1f} s per {self.unit.removesuffix('s')}"]
        before = self.first / self.total if self.total else 0.0
        if before < self.fraction < 1:
            parts.append(f"{duration(elapsed * (1 - self.fraction) / (self.fraction - before))} left")
        if self.note:
            parts.append(self.note)
        return ", ".join(parts)

    def _line(self) -> str:
        elapsed = duration(time.monotonic() - self._started)
        count = f"{self.done:.0f}/{max(self.total, self.done):.0f}" if self.total else f"{self.done:.0f}"
        return f"{printable_name(self.what)}: {count} {self.unit} in {elapsed}, {printable_name(self._rate())}"


class StageProgress:
    """The progress of several stages in a row, each with a bar of its own; use it as a context manager, or call `close`.

    Parameters
    ----------
    progress : bool or None
        Whether to show it; None: on a terminal and in a notebook.
    """

    def __init__(self, progress: bool | None = True) -> None:
        self.shown = is_shown(progress)
        self._warns = self.shown if progress is None else progress
        self._bar: ProgressBar | None = None

    def __enter__(self) -> StageProgress:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        self.close(failed=kind is not None)

    def update(
        self,
        stage: str,
        done: float,
        total: float = 0.0,
        *,
        unit: str = "videos",
        fraction: float | None = None,
        note: str = "",
        first: float = 0.0,
    ) -> None:
        """Show how far a stage is, as `ProgressBar.update` does; a stage with another name ends the bar of the one before.

        `first` of a new stage was done before.
        """
        if self._bar is None or self._bar.what != stage:
            self.close()
            self._bar = ProgressBar(stage, total=total, unit=unit, progress=self.shown, first=first)
        self._bar.update(done, total, fraction=fraction, note=note)

    def close(self, *, failed: bool = False) -> None:
        """End the current stage's bar; the next update begins another."""
        if self._bar is not None:
            self._bar.close(failed=failed)
            self._bar = None

    def message(self, text: str) -> None:
        """Print a line to stderr if progress is shown."""
        if self.shown:
            print_line(printable(text))

    def warning(self, text: str) -> None:
        """Print a line to stderr where progress is wanted, even if this process is quiet."""
        if self._warns:
            print_line(printable(text))


def _live_bar() -> Any:
    """Return rich's bar for a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        console=Console(stderr=True),
        transient=True,
    )
