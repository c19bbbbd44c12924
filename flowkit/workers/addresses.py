"""Addresses of the schedulers and workers of a Dask cluster: a name, an IPv4 or an IPv6 address, and a port."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from flowkit.errors import ParameterError

SCHEMES = ("tcp", "tls", "ws", "wss")
SCHEDULER_PORT = 8786  # where a scheduler listens by default
_NAME = re.compile(r"(?=.{1,253}\Z)(?!-)[\w-]{1,63}(?<!-)(\.(?!-)[\w-]{1,63}(?<!-))*\.?")


@dataclass(frozen=True)
class DaskAddress:
    """Where a scheduler or a worker listens. As a text it has all three parts, and an IPv6 address in brackets."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.scheme}://[{self.host}]:{self.port}" if ":" in self.host else f"{self.scheme}://{self.host}:{self.port}"


def parse_address(text: str) -> DaskAddress:
    """Return the parts of an address, without asking the network.

    Parameters
    ----------
    text : str
        The address, such as ``tcp://10.0.0.1:8786``, ``tcp://[fd00::1]:8786`` or ``machine:8786``. Without a scheme it is tcp, and
        without a port the scheduler's usual one.

    Raises
    ------
    ParameterError
        If no machine can have this address.
    """
    before, separator, location = text.rpartition("://")
    scheme = before.lower() if separator else "tcp"
    if scheme not in SCHEMES:
        raise _no_address(text, f"{before}:// is not one of the schemes tcp:// and tls://")
    bracketed = re.fullmatch(r"\[([^\[\]]*)\](:.*)?", location)
    if bracketed is None and (location.count(":") > 1 or "[" in location or "]" in location):
        raise _no_address(text, "an IPv6 address needs brackets, before the port")
    host, colon, digits = (bracketed[1], *(bracketed[2] or "").partition(":")[1:]) if bracketed else location.partition(":")
    if not host:
        raise _no_address(text, "it names no machine")
    if colon and not (re.fullmatch(r"[0-9]{1,5}", digits) and 0 < int(digits) < 1 << 16):
        raise _no_address(text, f"{digits!r} is not the number of a port, which is from 1 to 65535")
    if bracketed is not None and not _is_ip(host, 6):
        raise _no_address(text, f"{host!r} is no IPv6 address")
    if bracketed is None and re.fullmatch(r"[0-9.]+", host) and not _is_ip(host, 4):
        raise _no_address(text, f"{host!r} is no IPv4 address, which has four numbers up to 255")
    if bracketed is None and not _NAME.fullmatch(host):
        raise _no_address(text, f"no machine can be called {host!r}")
    return DaskAddress(scheme, host, int(digits) if colon else SCHEDULER_PORT)


def _is_ip(host: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(host).version == version
    except ValueError:
        return False


def _no_address(text: str, why: str) -> ParameterError:
    return ParameterError(
        f"{text!r} is no address of a Dask scheduler ({why}): give the one that `dask scheduler` prints, such as tcp://10.0.0.1:8786, "
        "tcp://[fd00::1]:8786 or tcp://machine:8786"
    )
