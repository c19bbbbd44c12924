"""Ctrl-C and SIGTERM: the first ends a run in good order, the second at once; and the line that goes on."""

from __future__ import annotations

import shlex
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flowkit.cli.console import warn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flowkit.parallel import StopRequest


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
    """Say on stderr which line goes on where this one was stopped."""
    warn(f"stopped; to go on: {shlex.join(['flowkit', *arguments])}")
