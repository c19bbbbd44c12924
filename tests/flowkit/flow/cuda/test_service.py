"""The process of a GPU, with a stand-in solver: it joins requests of many clients, answers them in place, and returns errors."""

from __future__ import annotations

import errno
import functools
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from flowkit.errors import DeviceError
from flowkit.extraction.solving import service_client
from flowkit.flow.cuda.service import MAX_IN_FLIGHT, FlowClient, FlowService

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray


class Batch:
    """Solved when `work` is called, a moment later."""

    def __init__(self, work: Callable[[], None], on_batch: Callable[[], None]) -> None:
        self.thread = threading.Timer(0.002, self.run, (work, on_batch))  # so that requests meet
        self.finished = threading.Event()
        self.thread.start()

    def run(self, work: Callable[[], None], on_batch: Callable[[], None]) -> None:
        work()
        self.finished.set()
        on_batch()

    def is_finished(self) -> bool:
        return self.finished.is_set()

    def result(self) -> None:
        self.finished.wait()


class Difference:
    """Channel 0 is the difference of the two frames, and channel 1 the size of the batch."""

    num_made = 0
    num_open = 0

    def __init__(
        self, height: int, width: int, *, on_batch: Callable[[], None], worst: int = 0, max_open: int = 100, max_pairs: int = 20
    ) -> None:
        if height == worst or Difference.num_open >= max_open:
            raise DeviceError("out of memory")
        Difference.num_open += 1
        Difference.num_made += 1
        self.height, self.width, self.on_batch, self.max_pairs = height, width, on_batch, max_pairs
        self.is_cramped = Difference.num_open == max_open
        self.batches: list[Batch] = []

    def submit(self, frames: Sequence[NDArray[np.uint8]], pairs: NDArray[np.int64], out: Sequence[NDArray[np.uint8]]) -> Batch:
        taken = np.stack(frames)  # the answer may go to the same memory
        assert taken.shape[1:] == (self.height, self.width)
        assert len(pairs) == len(out)
        assert sum(not batch.is_finished() for batch in self.batches) < MAX_IN_FLIGHT

        def work() -> None:
            for (first, second), field in zip(pairs, out, strict=True):
                field[0] = taken[second] - taken[first]
                field[1] = Difference.num_made if len(pairs) == 1 else len(pairs)

        self.batches.append(Batch(work, self.on_batch))
        return self.batches[-1]

    def close(self) -> None:
        assert all(batch.is_finished() for batch in self.batches)
        Difference.num_open -= 1


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


def test_a_client_that_comes_when_the_process_is_dead_gets_a_device_error_too() -> None:
    with FlowService([Difference]) as service:
        service._processes[0].kill()
        service._processes[0].join()
        with pytest.raises(DeviceError, match="ended"):
            FlowClient(service.addresses[0])


def test_a_worker_keeps_its_connection_to_each_device() -> None:
    with FlowService([Difference, Difference]) as service:
        for address in 3 * service.addresses:
            service_client(address).solve(np.zeros((2, 8, 10), np.uint8))
        clients = {service_client(address) for address in service.addresses}
        shared = [name for name in os.listdir(service._folder.name) if not name.endswith(".sock")]
        service_client.cache_clear()
        for client in clients:
            client.close()
    assert len(shared) == 2


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot reserve a file's bytes")
def test_no_room_for_shared_memory_is_a_device_error_not_a_killed_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, start: int, length: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with FlowService([Difference]) as service:
        client = FlowClient(service.addresses[0])
        monkeypatch.setattr(os, "posix_fallocate", full)
        with pytest.raises(DeviceError, match=r"No space left on device.*TMPDIR"):
            client.solve(np.zeros((2, 8, 10), np.uint8))
        monkeypatch.undo()
        assert client.solve(np.zeros((2, 8, 10), np.uint8)).shape == (1, 2, 8, 10)
        client.close()


def test_a_temporary_folder_whose_name_is_too_long_for_a_socket_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ("long" * 25)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with pytest.raises(DeviceError, match="TMPDIR"), FlowService([Difference]):
        pass
    assert not list(folder.iterdir())


def test_batches_hold_no_more_than_the_solver_takes_at_once_but_for_one_long_request() -> None:
    sizes: list[int] = []

    def run(client: FlowClient) -> None:
        for _ in range(20):
            sizes.extend(client.solve(np.zeros((8, 8, 10), np.uint8))[:, 1, 0, 0].tolist())

    with FlowService([Difference]) as service:
        clients = [FlowClient(service.addresses[0]) for _ in range(8)]
        threads = [threading.Thread(target=run, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert clients[0].solve(np.zeros((41, 8, 10), np.uint8))[0, 1, 0, 0] == 40
        for client in clients:
            client.close()
    assert set(sizes) <= {7, 14}
    assert 14 in sizes


@pytest.mark.parametrize(("max_open", "num_made"), [(100, [1, 2, 2, 2]), (2, [1, 3, 5, 7]), (1, [1, 2, 3, 4])])
def test_solvers_of_several_sizes_are_kept_while_memory_suffices(max_open: int, num_made: list[int]) -> None:
    # If there is memory for two, the second solver is cramped, so the first one is closed and the second made again; with memory for one
    # it cannot be made.
    with FlowService([functools.partial(Difference, max_open=max_open)]) as service:
        client = FlowClient(service.addresses[0])
        made = [client.solve(np.zeros((2, height, 10), np.uint8))[0, 1, 0, 0] for height in (8, 9, 8, 9)]
        client.close()
    assert made == num_made


PARENT = """
import functools, sys, time
import numpy as np
sys.path.insert(0, {tests!r})
from test_service import Difference
from flowkit.flow.cuda.service import FlowClient, FlowService
if __name__ == "__main__":
    with FlowService([Difference]) as service:
        FlowClient(service.addresses[0]).solve(np.zeros((2, 8, 10), np.uint8))
        print(service._processes[0].pid, service._folder.name, flush=True)
        time.sleep(100)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_and_sigterm_are_the_parents_and_a_killed_parent_takes_the_process_with_it(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"  # a main module with a path, which spawn imports
    script.write_text(PARENT.format(tests=str(Path(__file__).parent)))
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=os.environ)
    assert parent.stdout is not None
    line = parent.stdout.readline().split()
    pid, folder = int(line[0]), Path(line[1])
    assert any(not path.is_socket() for path in folder.iterdir())  # shared memory
    os.kill(pid, signal.SIGINT)
    os.kill(pid, signal.SIGTERM)
    time.sleep(0.3)
    os.kill(pid, 0)  # still there
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 300
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_running(pid)
    assert not folder.exists()


def is_running(pid: int) -> bool:
    """Return whether a process runs; an orphan that has ended may remain as a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
