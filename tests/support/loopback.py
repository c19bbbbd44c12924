"""Whether this machine has the loopback device of IPv6, for tests."""

from __future__ import annotations

import socket

import pytest


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6: nothing can listen at ::1")
HOSTS = ["127.0.0.1", pytest.param("::1", marks=needs_ipv6), "localhost"]  # IPv4, IPv6 and a name
