"""The process of a GPU for decoding processes on other machines, over TCP.

A `Gateway` runs beside a `FlowService` on the machine of the GPU. Each connection has a thread, which receives grey frames, hands them
to the service as a decoding process of that machine would, and sends the flow back. What goes over the network are a few numbers and
arrays of bytes, never pickled objects. Both ends prove that they know a key; the data itself is not encrypted.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import ProcessError, connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import DeviceError, ParameterError
from flowkit.flow.cuda.client import FlowClient, ServiceAddress
from flowkit.flow.cuda.plan import check_frame_size

MAX_BYTES = 1 << 32  # of the frames of a request
_REQUEST = struct.Struct("<IIII")  # number of frames, height, width, whether the frames are pairs
_DONE, _BAD_FRAMES, _BROKEN = b"\0", b"\1", b"\2"  # the first byte of a reply; then follows the flow, or a message


class GatewayGoneError(DeviceError):
    """The machine of a GPU, or the process there, cannot be reached any more; another one may do the work."""


@dataclass(frozen=True)
class RemoteAddress:
    """Where a `Gateway` listens, and the key that a client must know. The host is a name, an IPv4 or an IPv6 address."""

    host: str
    port: int
    key: bytes = field(repr=False)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class RemoteFlowClient:
    """The connection of a worker to a `Gateway`. It is used as `flowkit.flow.cuda.client.FlowClient` is.

    Raises
    ------
    GatewayGoneError
        If nothing listens at the address.
    """

    def __init__(self, address: RemoteAddress) -> None:
        self._address = address
        self._due = (0, 0, 0, 0)  # the shape of the flow that was asked for
        try:
            self._connection = _connect(address)
        except (EOFError, OSError, ProcessError) as cause:
            raise self._gone() from cause

    def solve(self, grey: NDArray[np.uint8], *, are_pairs: bool = False) -> NDArray[np.uint8]:
        """Return the quantised flow: `begin`, then `finish`."""
        self.begin(grey, are_pairs=are_pairs)
        return self.finish()

    def begin(self, grey: NDArray[np.uint8], *, are_pairs: bool = False) -> None:
        """Ask for the flow of frames; parameters and errors are those of `FlowClient.begin`.

        Raises
        ------
        GatewayGoneError
            If the connection breaks.
        """
        num_frames, height, width = grey.shape
        check_frame_size(height, width)
        if grey.nbytes > MAX_BYTES:
            raise ParameterError(
                f"{num_frames} frames of {width}x{height} px are more than the {MAX_BYTES:,} bytes that the process of a GPU on another "
                "machine takes at once; use a smaller frame size (extract --short-side), or --device cpu"
            )
        self._due = (num_frames // 2 if are_pairs else num_frames - 1, 2, height, width)
        try:
            self._connection.send_bytes(_REQUEST.pack(num_frames, height, width, are_pairs))
            self._connection.send_bytes(np.ascontiguousarray(grey).reshape(-1).data)
        except OSError as cause:
            raise self._gone() from cause

    def finish(self) -> NDArray[np.uint8]:
        """Wait for the flow and return it; result and errors are those of `FlowClient.finish`.

        Raises
        ------
        GatewayGoneError
            If the connection breaks.
        """
        try:
            status = self._connection.recv_bytes(1)
            if status != _DONE:
                message = self._connection.recv_bytes(1 << 16).decode()
                raise ParameterError(message) if status == _BAD_FRAMES else DeviceError(message)
            flow = np.empty(self._due, np.uint8)
            received = self._connection.recv_bytes_into(flow.reshape(-1))
        except (EOFError, OSError) as cause:
            raise self._gone() from cause
        if received != flow.nbytes:
            raise self._gone()
        return flow

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def _gone(self) -> GatewayGoneError:
        return GatewayGoneError(f"the process of the GPU at {self._address} cannot be reached")


class Gateway:
    """Accepts connections from other machines for a local service, until it is closed.

    Parameters
    ----------
    service : ServiceAddress
        The local service.
    host : str
        The name, IPv4 or IPv6 address of this machine at which others reach it.
    key : bytes
        What clients must know.

    Raises
    ------
    DeviceError
        If this machine does not have the address.
    """

    def __init__(self, service: ServiceAddress, host: str, key: bytes) -> None:
        self._service, self._key = service, key
        self._server = _listen(host)
        self.address = RemoteAddress(host, self._server.getsockname()[1], key)
        self._open: set[Any] = set()
        self._last_used = time.monotonic()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, name="flowkit-gateway", daemon=True).start()

    @property
    def idle_seconds(self) -> float:
        """How long no client has been connected."""
        with self._lock:
            return 0.0 if self._open else time.monotonic() - self._last_used

    def close(self) -> None:
        """Accept nothing more, and end all connections."""
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)  # or else the thread that accepts would keep it open
        self._server.close()
        with self._lock:
            clients = [*self._open]
        for client in clients:
            with suppress(OSError), socket.socket(fileno=os.dup(client.fileno())) as view:
                view.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client = connection.Connection(self._server.accept()[0].detach())
            except ConnectionError:
                continue
            except OSError:  # closed
                return
            with self._lock:
                self._open.add(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: Any) -> None:
        """Answer the requests of a client until its connection ends."""
        local: FlowClient | None = None
        try:
            _keep_alive(client)
            connection.deliver_challenge(client, self._key)  # here, so that a stranger who says nothing keeps nobody waiting
            connection.answer_challenge(client, self._key)
            while True:
                request = _REQUEST.unpack(client.recv_bytes(_REQUEST.size))
                frames = _receive_frames(client, *request[:3])
                try:
                    local = local or FlowClient(self._service)
                    flow = local.solve(frames, are_pairs=bool(request[3]))
                except Exception as error:
                    client.send_bytes(_BAD_FRAMES if isinstance(error, ParameterError) else _BROKEN)
                    client.send_bytes(str(error).encode()[: 1 << 16])
                    continue
                client.send_bytes(_DONE)
                client.send_bytes(flow.reshape(-1).data)
        except (EOFError, OSError, ValueError, struct.error, ProcessError):  # the client has finished or was killed, or speaks nonsense
            pass
        finally:
            if local is not None:
                local.close()
            with self._lock:
                self._open.discard(client)
                self._last_used = time.monotonic()
            client.close()


def _listen(host: str) -> socket.socket:
    """Return a socket that listens at an address of this machine, on a port that the system chooses."""
    reason: OSError | None = None
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except OSError as error:
        found, reason = [], error
    for family, _, _, _, address in found:  # a name may have addresses of both kinds, and the system only one
        try:
            return socket.create_server(address, family=family, backlog=64)
        except OSError as error:
            reason = error
    raise DeviceError(
        f"{socket.gethostname()} cannot listen at {host!r}, the address of its Dask worker ({reason}): start the worker with --host and an "
        "address of that machine, IPv6 in brackets"
    ) from reason


def _connect(address: RemoteAddress) -> Any:
    """Return a connection to a gateway, both ends of which have proven that they know the key."""
    with socket.create_connection((address.host, address.port)) as plain:  # tries each address of a name
        client = connection.Connection(plain.detach())
    try:
        _keep_alive(client)
        connection.answer_challenge(client, address.key)
        connection.deliver_challenge(client, address.key)
    except BaseException:
        client.close()
        raise
    return client


def _receive_frames(client: Any, num_frames: int, height: int, width: int) -> NDArray[np.uint8]:
    """Return the frames of a request; raise ValueError if they have another size than it says, or are too large."""
    if num_frames < 2 or not 0 < num_frames * height * width <= MAX_BYTES:
        raise ValueError
    frames = np.empty((num_frames, height, width), np.uint8)
    if client.recv_bytes_into(frames.reshape(-1)) != frames.nbytes:
        raise ValueError
    return frames


def _keep_alive(client: Any) -> None:
    """Let the system find out within two minutes that the machine at the other end is gone, and send small messages at once."""
    with socket.socket(fileno=os.dup(client.fileno())) as view:
        view.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        view.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 6)):
            if hasattr(socket, name):  # not on every system
                view.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
