"""Whether a Dask scheduler answers at an address, found out in a bounded time.

Dask's own client waits much longer than it is asked to: for a name to be resolved, for a server that accepts a connection and says
nothing, and once more when the process ends.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from typing import Any

from flowkit.errors import DeviceError
from flowkit.workers.addresses import DaskAddress, parse_address

ANSWER_SECONDS = 6.0


def check_scheduler(address: str, *, seconds: float = ANSWER_SECONDS) -> None:
    """Check that a scheduler answers at an address.

    Parameters
    ----------
    address : str
        The address, as for `parse_address`.
    seconds : float
        The time in which it must answer, in all.

    Raises
    ------
    ParameterError
        If it is no address.
    DeviceError
        If Dask is not installed, or no scheduler answers.

    Notes
    -----
    The work is done by threads that do not keep the process from ending.
    """
    where = parse_address(address)
    try:
        import distributed  # noqa: F401 - first, as its parts may be loaded although it cannot be used
        from distributed.comm.registry import backends
    except ImportError as cause:
        raise DeviceError("--cluster needs Dask: pip install 'flowkit-video[cluster]'") from cause
    if where.scheme not in backends:
        raise _unreachable(where, f"this Dask has no {where.scheme}://")
    found = _in_time(lambda: socket.getaddrinfo(where.host, where.port, type=socket.SOCK_STREAM), seconds / 2)
    if isinstance(found, Exception):
        why = f"there is no machine called {where.host!r}" if isinstance(found, socket.gaierror) else f"{where.host!r}: {found}"
        raise _unreachable(where, why)
    answer = _in_time(lambda: asyncio.run(_identity(str(where), seconds)), seconds + 1)
    if isinstance(answer, Exception):
        raise _unreachable(where, _reason(answer, seconds))
    if not isinstance(answer, dict) or answer.get("type") != "Scheduler":
        raise _unreachable(where, "what answers there is no Dask scheduler")


def _unreachable(address: DaskAddress, why: str) -> DeviceError:
    return DeviceError(
        f"no Dask scheduler answers at {address} ({why}): start one with `dask scheduler`, and give the address that it prints to --cluster"
    )


async def _identity(address: str, seconds: float) -> Any:
    """Ask a server what it is."""
    from distributed.core import rpc

    async def ask() -> Any:
        async with rpc(address, timeout=seconds) as server:
            return await server.identity()

    return await asyncio.wait_for(ask(), seconds)


def _in_time(function: Callable[[], Any], seconds: float) -> Any:
    """Return what a function returns or raises, or a `TimeoutError` if that takes too long."""
    answers: list[Any] = []

    def work() -> None:
        try:
            answers.append(function())
        except Exception as error:
            answers.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    return answers[0] if answers else TimeoutError(f"no answer in {seconds:g} s")


def _reason(error: Exception, seconds: float) -> str:
    """Return in words why a server gave no answer."""
    if isinstance(error, TimeoutError):
        return f"no answer in {seconds:g} s"
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    if not isinstance(cause, OSError | TypeError):  # Dask read the bytes of another protocol as its own; TypeError: there is no TLS key
        return "what answers there is no Dask scheduler"
    return str(cause) or type(cause).__name__
