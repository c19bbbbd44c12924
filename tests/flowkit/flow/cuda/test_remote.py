"""The process of a GPU for other machines, with a stand-in solver, over the loopback device."""

from __future__ import annotations

import functools
import re
import socket
import threading
import time
from multiprocessing import connection
from typing import TYPE_CHECKING

import numpy as np
import pytest
from loopback import HOSTS, needs_ipv6
from stand_in_solver import Difference

from flowkit.errors import DeviceError, ParameterError
from flowkit.extraction.solving import service_connections
from flowkit.flow.cuda.connections import FlowConnections
from flowkit.flow.cuda.remote import Gateway, GatewayGoneError, RemoteAddress, RemoteFlowClient
from flowkit.flow.cuda.service import FlowService

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = b"a key of this test"


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with FlowService([functools.partial(Difference, worst=9, refused=11)]) as service:
        gateway = Gateway(service.addresses[0], "127.0.0.1", KEY)
        yield gateway
        gateway.close()


def test_several_clients_get_their_own_flow(gateway: Gateway) -> None:
    wrong = []

    def run(seed: int) -> None:
        random, client = np.random.default_rng(seed), RemoteFlowClient(gateway.address)
        for _ in range(20):
            grey = random.integers(0, 256, (int(random.integers(2, 9)), 7 + seed % 2, 10), dtype=np.uint8)
            if not np.array_equal(client.solve(grey)[:, 0], grey[1:] - grey[:-1]):
                wrong.append(seed)
        client.close()

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    end = time.monotonic() + 60
    while gateway.idle_seconds == 0 and time.monotonic() < end:
        time.sleep(0.01)
    assert gateway.idle_seconds > 0


def test_pairs_and_frames_that_are_no_contiguous_array(gateway: Gateway) -> None:
    connections = service_connections(gateway.address)
    grey = np.random.default_rng(0).integers(0, 256, (6, 8, 20), dtype=np.uint8)[:, :, ::2]
    assert np.array_equal(connections.begin(grey, are_pairs=True).result()[:, 0], grey[1::2] - grey[::2])
    connections.close()
    service_connections.cache_clear()


def test_several_large_requests_of_one_worker_are_in_flight(gateway: Gateway) -> None:
    """None of them fits into the buffers of a connection, in either direction."""
    connections = FlowConnections(functools.partial(RemoteFlowClient, gateway.address))
    greys = [np.random.default_rng(seed).integers(0, 256, (17, 500, 400), dtype=np.uint8) for seed in range(3)]
    pending = [connections.begin(grey) for grey in greys]
    for grey, each in zip(greys, pending, strict=True):
        assert np.array_equal(each.result()[:, 0], grey[1:] - grey[:-1])
    connections.close()


def test_errors_have_their_kind_and_message_and_the_connection_goes_on(gateway: Gateway) -> None:
    client = RemoteFlowClient(gateway.address)
    with pytest.raises(DeviceError, match="out of memory") as raised:
        client.solve(np.zeros((2, 9, 4), np.uint8))
    assert not isinstance(raised.value, GatewayGoneError)
    with pytest.raises(ParameterError, match=r"^frames of this size are refused$"):
        client.solve(np.zeros((2, 11, 4), np.uint8))
    with pytest.raises(ParameterError, match="too large for the GPU solver"):
        client.solve(np.broadcast_to(np.uint8(0), (2, 1 << 15, (1 << 14) + 1)))
    with pytest.raises(ParameterError, match=r"9 frames of 16384x32768 px are more than the 4,294,967,296 bytes"):
        client.solve(np.broadcast_to(np.uint8(0), (9, 1 << 15, 1 << 14)))
    assert client.solve(np.zeros((2, 8, 4), np.uint8)).shape == (1, 2, 8, 4)
    client.close()


def test_strangers_and_nonsense_end_their_own_connection_only(gateway: Gateway) -> None:
    good = RemoteFlowClient(gateway.address)
    with pytest.raises(GatewayGoneError):
        RemoteFlowClient(RemoteAddress(gateway.address.host, gateway.address.port, b"another key"))
    silent = socket.create_connection((gateway.address.host, gateway.address.port))
    silent.sendall(b"GET / HTTP/1.1")
    for words in (b"", b"x" * 15, b"\xff" * 16, (2).to_bytes(4, "little") * 3 + bytes(4)):
        raw = connection.Client((gateway.address.host, gateway.address.port), authkey=KEY)
        raw.send_bytes(words)
        raw.send_bytes(b"too long for four pixels")
        with pytest.raises((EOFError, OSError)):
            raw.recv_bytes()
        raw.close()
    assert good.solve(np.zeros((2, 8, 4), np.uint8)).shape == (1, 2, 8, 4)
    good.close()
    silent.close()


def test_a_gateway_that_is_gone_is_an_error_of_its_own() -> None:
    with FlowService([Difference]) as service:
        gateway = Gateway(service.addresses[0], "127.0.0.1", KEY)
        client = RemoteFlowClient(gateway.address)
        client.solve(np.zeros((2, 8, 4), np.uint8))
        gateway.close()
        with pytest.raises(GatewayGoneError, match=r"the process of the GPU at 127\.0\.0\.1:\d+ cannot be reached"):
            client.solve(np.zeros((2, 8, 4), np.uint8))
        with pytest.raises(GatewayGoneError):
            RemoteFlowClient(gateway.address)


@pytest.mark.parametrize("host", HOSTS)
def test_it_listens_at_addresses_of_either_kind_and_names(host: str) -> None:
    with FlowService([Difference]) as service:
        gateway = Gateway(service.addresses[0], host, KEY)
        client = RemoteFlowClient(gateway.address)
        grey = np.random.default_rng(0).integers(0, 256, (3, 8, 20), dtype=np.uint8)
        assert np.array_equal(client.solve(grey)[:, 0], grey[1:] - grey[:-1])
        gateway.close()
        shown = f"[{host}]" if ":" in host else host
        with pytest.raises(GatewayGoneError, match=rf"the process of the GPU at {re.escape(shown)}:\d+ cannot be reached"):
            RemoteFlowClient(gateway.address)


@needs_ipv6
def test_a_name_whose_first_address_cannot_be_used_is_listened_to_at_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine whose name has an address of IPv6 that it lost, and one of IPv4."""
    found = [(socket.AF_INET6, ("2001:db8::1", 0, 0, 0)), (socket.AF_INET, ("127.0.0.1", 0))]
    with FlowService([Difference]) as service, monkeypatch.context() as patched:
        patched.setattr(socket, "getaddrinfo", lambda *_, **__: [(family, socket.SOCK_STREAM, 6, "", where) for family, where in found])
        gateway = Gateway(service.addresses[0], "a-name", KEY)
        assert gateway._server.getsockname()[0] == "127.0.0.1"
        gateway.close()


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "no-such-machine.invalid", ""])
def test_an_address_that_this_machine_does_not_have_is_said(host: str) -> None:
    with FlowService([Difference]) as service, pytest.raises(DeviceError, match=f"cannot listen at '{host}'.*start the worker with --host"):
        Gateway(service.addresses[0], host, KEY)


def test_the_key_is_not_shown() -> None:
    assert "secret" not in repr(RemoteAddress("h", 1, b"secret"))
