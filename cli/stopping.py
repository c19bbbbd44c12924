"""Ctrl-C and SIGTERM: the first ends a run in good order, the second at once; and the line that goes on."""

from __future__ import annotations

import os
import shlex
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from flowkit.cli.console import warn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flowkit.parallel import StopRequest


class TrainingStop:
    """Which signal asked training to stop, None while none did; and the time that is left until it is stopped at once."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._timer: threading.Timer | None = None

    def asked(self) -> bool:
        """Whether to stop, asked at the end of a step: there is then time to write the checkpoint."""
        if self.signal is not None:
            self.stop_counting()
        return self.signal is not None

    def count(self, signum: int, grace: float) -> None:
        """Note the signal; when `grace` seconds are over, it comes once more."""
        self.signal = signum
        self._timer = threading.Timer(grace, os.kill, (os.getpid(), signum))
        self._timer.daemon = True
        self._timer.start()

    def stop_counting(self) -> None:
        """Let the signal not come again."""
        if self._timer is not None:
            self._timer.cancel()


@contextmanager
def stop_signals(grace: float) -> Iterator[TrainingStop]:
    """Let the first SIGINT or SIGTERM ask for a stop after the step in hand; the second, or the end of `grace` seconds, stop at once."""
    stop = TrainingStop()
    before: dict[int, Any] = {}

    def receive(signum: int, frame: object) -> None:
        for stopped, handler in before.items():
            signal.signal(stopped, handler)
        stop.count(signum, grace)
        warn(f"\nstopping: the step in hand may finish within {grace:g} s; once more to stop at once")

    for listened in (signal.SIGINT, signal.SIGTERM):
        before[listened] = signal.signal(listened, receive)
    try:
        yield stop
    finally:
        stop.stop_counting()
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def signals_to(stop: StopRequest, grace: float) -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM ask for a stop in good order, and the second stop at once."""

    def ask(signum: int, frame: object) -> None:
        if stop.requested():
            raise KeyboardInterrupt if signum == signal.SIGINT else SystemExit(128 + signum)
        stop.request(signum)
        warn(f"\nstopping: what is in flight may finish within {grace:g} s; once more to stop at once")

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
