"""Several connections of one worker to the process of a GPU, so that the worker does other work while its flow is computed.

A connection has one request at a time. With a few of them, a worker asks for the flow of its next frames before the last flow has
come back: the process of the GPU then always has enough pairs for a full batch, and the worker never waits as long as it has work.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import FlowkitError
from flowkit.flow.cuda.client import FlowClient
from flowkit.flow.cuda.remote import RemoteFlowClient

Client = FlowClient | RemoteFlowClient


class FlowConnections:
    """Connections to one service, which are opened when they are needed, and kept.

    Parameters
    ----------
    connect : callable
        Opens one.
    """

    def __init__(self, connect: Callable[[], Client]) -> None:
        self._connect = connect
        self._idle: list[Client] = []

    def begin(self, frames: NDArray[np.uint8], *, are_pairs: bool = False) -> PendingFlow:
        """Ask for the flow of frames, as `FlowClient.begin` does, on a connection that has no request."""
        client = self._idle.pop() if self._idle else self._connect()
        try:
            client.begin(frames, are_pairs=are_pairs)
        except FlowkitError:
            self._idle.append(client)
            raise
        return PendingFlow(client, self._idle)

    def close(self) -> None:
        """End the connections that have no request."""
        while self._idle:
            self._idle.pop().close()


class PendingFlow:
    """Flow that is being computed, as `FlowConnections.begin` returns it. `result` must be called, once."""

    def __init__(self, client: Client, idle: list[Client]) -> None:
        self._client, self._idle = client, idle

    def result(self) -> NDArray[np.uint8]:
        """Wait for the flow and return it; errors are those of `FlowClient.finish`."""
        try:
            flow = self._client.finish()
        except FlowkitError:
            self._idle.append(self._client)
            raise
        except BaseException:  # the answer may still come, and the next request would take it for its own
            self._client.close()
            raise
        self._idle.append(self._client)
        return flow
