"""The GPU's process, with a stand-in solver: requests of many clients are joined, answered in place, and errors come back."""

from __future__ import annotations

import functools
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from flowkit.errors import DeviceError
from flowkit.flow_service import FlowClient, FlowService

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Difference:
    """Channel 0 is the difference of the two frames, channel 1 the size of the batch it was solved in."""

    def __init__(self, height: int, width: int, worst: int = 0) -> None:
        if height == worst:
            raise DeviceError("out of memory")
        self.batches: list[NDArray[np.uint8]] = []

    def submit(self, frames: NDArray[np.uint8], pairs: NDArray[np.int64]) -> None:
        assert len(self.batches) < 3
        flow = np.empty((len(pairs), 2, *frames.shape[1:]), np.uint8)
        flow[:, 0] = frames[pairs[:, 1]] - frames[pairs[:, 0]]
        flow[:, 1] = len(pairs)
        self.batches.append(flow)

    def collect(self) -> NDArray[np.uint8]:
        time.sleep(0.002)  # so that requests meet
        return self.batches.pop(0)

    def close(self) -> None:
        assert not self.batches


def test_requests_of_several_clients_sizes_and_devices_get_their_own_answers() -> None:
    rng = np.random.default_rng(0)
    wrong = []

    def run(client: FlowClient, size: tuple[int, int], seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(30):
            grey = rng.integers(0, 256, (rng.integers(2, 9), *size), dtype=np.uint8)
            flow = client.solve(grey)
            if not np.array_equal(flow[:, 0], grey[1:] - grey[:-1]):
                wrong.append(seed)

    with FlowService([Difference, Difference]) as service:
        clients = [FlowClient(service.addresses[k % 2]) for k in range(6)]
        threads = [threading.Thread(target=run, args=(client, [(8, 10), (7, 5)][k % 3 > 0], k)) for k, client in enumerate(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        grey = rng.integers(0, 256, (40, 30, 50), dtype=np.uint8)  # a client's memory grows with its requests
        assert np.array_equal(clients[0].solve(grey)[:, 0], grey[1:] - grey[:-1])
        for client in clients:
            client.close()


def test_an_error_of_the_solver_is_the_clients_device_error_and_the_service_goes_on() -> None:
    with FlowService([functools.partial(Difference, worst=9)]) as service:
        client = FlowClient(service.addresses[0])
        with pytest.raises(DeviceError, match="out of memory"):
            client.solve(np.zeros((2, 9, 4), np.uint8))
        assert client.solve(np.zeros((2, 8, 4), np.uint8)).shape == (1, 2, 8, 4)
        client.close()


def test_a_dead_process_is_a_device_error() -> None:
    with FlowService([Difference]) as service:
        client = FlowClient(service.addresses[0])
        service._processes[0].kill()
        service._processes[0].join()
        with pytest.raises(DeviceError, match="ended"):
            client.solve(np.zeros((2, 8, 4), np.uint8))
        client.close()
