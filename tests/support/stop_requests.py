"""Requests to stop that come by themselves."""

from __future__ import annotations

from flowkit.workers.stopping import StopRequest


class StopAfter(StopRequest):
    """A request that comes after some looks."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self._looks = looks

    def requested(self) -> bool:
        self._looks -= 1
        if self._looks < 0:
            self.request()
        return super().requested()
