"""Ctrl-C and SIGTERM: the first finishes the work in progress, the second stops at once; and the command that resumes."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from flowkit.cli.shared.console import warn
from flowkit.workers.stopping import StopRequest


class Terminated(SystemExit):
    """A SIGTERM arrived that stops the command at once."""


class TrainingStop(StopRequest):
    """A request to stop after the current training step; if the step outlasts the grace period, the signal is sent a second time."""

    def __init__(self, grace: float) -> None:
        super().__init__()
        self._grace = grace
        self._timer: threading.Timer | None = None

    def request(self, signal_number: int = signal.SIGINT) -> None:
        super().request(signal_number)
        self._timer = threading.Timer(self._grace, os.kill, (os.getpid(), signal_number))
        self._timer.daemon = True
        self._timer.start()

    def asked(self) -> bool:
        """Whether a stop was requested. Training asks at the end of a step; the grace period is then over, so a checkpoint has time."""
        self.end_grace()
        return self.requested()

    def end_grace(self) -> None:
        """Do not send the signal a second time."""
        if self._timer is not None:
            self._timer.cancel()


@contextmanager
def stop_signals(grace: float) -> Iterator[TrainingStop]:
    """Yield a request that the first SIGINT or SIGTERM makes; the second, or the end of `grace` seconds, stops training at once."""
    stop = TrainingStop(grace)
    with signals_to(stop, grace, what="the current step"):
        try:
            yield stop
        finally:
            stop.end_grace()


@contextmanager
def signals_to(stop: StopRequest, grace: float, *, what: str = "the work in progress") -> Iterator[None]:
    """Let the first SIGINT or SIGTERM make the request, and the second stop the command at once."""

    def ask(signum: int, frame: object) -> None:
        if stop.requested():
            raise KeyboardInterrupt if signum == signal.SIGINT else Terminated(128 + signum)
        stop.request(signum)
        warn(f"\nstopping: {what} may take {grace:g} s more; press Ctrl-C again to stop at once")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def report_stopped(stop: StopRequest, what: str = "stopped") -> int:
    """Print the command that resumes, and return the exit code of a command that was stopped."""
    print_resume_command(sys.argv[1:], what)
    return exit_code_of(stop)


def exit_code_of(stop: StopRequest) -> int:
    """Return the exit code of a command that was stopped."""
    return 128 + (stop.signal_number or signal.SIGTERM)


def print_resume_command(arguments: Sequence[str], what: str = "stopped") -> None:
    """Print to stderr, once for all ranks, the command that resumes where this one was stopped."""
    if os.environ.get("RANK", "0") == "0" or "WORLD_SIZE" not in os.environ:
        warn(f"{what}; to resume: {resume_command(arguments)}")


def resume_command(arguments: Sequence[str]) -> str:
    """Return the command line that was given, without ``--restart``; torchrun's own options are not known here."""
    start = "flowkit" if os.environ.get("WORLD_SIZE", "1") == "1" else "torchrun ... -m -- flowkit.cli"
    return f"{start} {shlex.join(argument for argument in arguments if argument != '--restart')}"
