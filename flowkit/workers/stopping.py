"""Requests to stop a run, which signal handlers make and the loops of a run look for."""

from __future__ import annotations

import signal
import time

GRACE_SECONDS = 20.0  # after a request to stop, for what is in flight


class StopRequest:
    """A request to stop a run: new work is no longer started, and the work in flight may finish within a grace period.

    Attributes
    ----------
    signal_number : int or None
        The signal that caused the first request.
    since : float or None
        When the first request came (`time.monotonic`); the grace period starts there.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self.since: float | None = None

    def requested(self) -> bool:
        """Whether a stop was requested."""
        return self.since is not None

    def request(self, signal_number: int = signal.SIGINT) -> None:
        """Request a stop; only the first request counts."""
        if self.since is None:
            self.signal_number, self.since = signal_number, time.monotonic()
