"""Ctrl-C and SIGTERM: the first ends a run in good order, the second at once; and the line that goes on."""

from __future__ import annotations

import os
import shlex
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flowkit.cli.shared.console import warn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flowkit.workers.stopping import StopRequest


class Terminated(SystemExit):
    """SIGTERM came; an exit for all who ask."""


class TrainingStop:
    """Which signal asked training to stop, None while none did; and the time that is left until it is stopped at once."""

    def __init__(self, grace: float) -> None:
        self.signal_number: int | None = None
        self._grace = grace
        self._timer: threading.Timer | None = None

    def requested(self) -> bool:
        """Whether somebody asked to stop."""
        return self.signal_number is not None

    def asked(self) -> bool:
        """Whether to stop, asked at the end of a step: there is then time to write the checkpoint."""
        self.stop_counting()
        return self.requested()

    def request(self, signal_number: int) -> None:
        """Ask to stop; when the grace is over, the signal comes once more."""
        self.signal_number = signal_number
        self._timer = threading.Timer(self._grace, os.kill, (os.getpid(), signal_number))
        self._timer.daemon = True
        self._timer.start()

    def stop_counting(self) -> None:
        """Let the signal not come again."""
        if self._timer is not None:
            self._timer.cancel()


@contextmanager
def stop_signals(grace: float) -> Iterator[TrainingStop]:
    """Let the first SIGINT or SIGTERM ask for a stop after the step in hand; the second, or the end of `grace` seconds, stop at once."""
    stop = TrainingStop(grace)
    with signals_to(stop, grace, what="the step in hand"):
        try:
            yield stop
        finally:
            stop.stop_counting()


@contextmanager
def signals_to(stop: StopRequest | TrainingStop, grace: float, *, what: str = "what is in flight") -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM ask for a stop in good order, and the second stop at once."""

    def ask(signum: int, frame: object) -> None:
        if stop.requested():
            raise KeyboardInterrupt if signum == signal.SIGINT else Terminated(128 + signum)
        stop.request(signum)
        warn(f"\nstopping: {what} may finish within {grace:g} s; once more to stop at once")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def tell_stopped(arguments: Sequence[str]) -> None:
    """Say on stderr, once however many ranks there are, which line goes on where this one was stopped."""
    if os.environ.get("RANK", "0") == "0" or "WORLD_SIZE" not in os.environ:
        warn(f"stopped; to go on: {resume_command(arguments)}")


def resume_command(arguments: Sequence[str]) -> str:
    """Return the command line that was given, less ``--restart``, which would begin anew; of torchrun's own options nothing is known."""
    start = "flowkit" if os.environ.get("WORLD_SIZE", "1") == "1" else "torchrun ... -m -- flowkit.cli"
    return f"{start} {shlex.join(argument for argument in arguments if argument != '--restart')}"
