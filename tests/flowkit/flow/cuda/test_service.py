"""The process of a GPU, with a stand-in solver: it joins requests of many clients, answers them in place, and returns errors."""

from __future__ import annotations

import errno
import functools
import os
import pickle
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
from stand_in_solver import Difference

from flowkit.errors import DeviceError, ParameterError
from flowkit.extraction.solving import service_connections
from flowkit.flow.cuda.client import FlowClient
from flowkit.flow.cuda.connections import FlowConnections
from flowkit.flow.cuda.service import FlowService

if TYPE_CHECKING:
    pass


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


def test_pairs_that_do_not_follow_one_another_are_solved_as_they_are() -> None:
    rng = np.random.default_rng(0)
    with FlowService([Difference]) as service:
        client = FlowClient(service.addresses[0])
        for num_pairs in (1, 8, 3, 15):
            grey = rng.integers(0, 256, (2 * num_pairs, 8, 10), dtype=np.uint8)
            flow = client.solve(grey, are_pairs=True)
            assert np.array_equal(flow[:, 0], grey[1::2] - grey[::2])
        client.close()


def test_an_error_of_the_solver_is_the_clients_device_error_and_the_service_goes_on() -> None:
    with FlowService([functools.partial(Difference, worst=9)]) as service:
        client = FlowClient(service.addresses[0])
        with pytest.raises(DeviceError, match="out of memory"):
            client.solve(np.zeros((2, 9, 4), np.uint8))
        assert client.solve(np.zeros((2, 8, 4), np.uint8)).shape == (1, 2, 8, 4)
        client.close()


def test_frames_that_the_solver_refuses_are_an_error_of_these_frames_and_not_of_the_device() -> None:
    with FlowService([functools.partial(Difference, refused=9)]) as service:
        client = FlowClient(service.addresses[0])
        with pytest.raises(ParameterError, match=r"^frames of this size are refused$"):
            client.solve(np.zeros((2, 9, 4), np.uint8))
        assert client.solve(np.zeros((2, 8, 4), np.uint8)).shape == (1, 2, 8, 4)
        client.close()


def test_frames_too_large_for_the_kernels_are_refused_before_they_are_copied() -> None:
    huge = np.broadcast_to(np.uint8(0), (2, 1 << 15, (1 << 14) + 1))  # takes no memory
    with FlowService([Difference]) as service:
        client = FlowClient(service.addresses[0])
        with pytest.raises(ParameterError, match="32768 px are too large for the GPU solver"):
            client.solve(huge)
        assert client.solve(np.zeros((2, 8, 4), np.uint8)).shape == (1, 2, 8, 4)
        client.close()


def test_a_dead_process_is_a_device_error() -> None:
    with FlowService([Difference]) as service:
        client = FlowClient(service.addresses[0])
        service._processes[0].kill()
        service._processes[0].wait()
        with pytest.raises(DeviceError, match="ended"):
            client.solve(np.zeros((2, 8, 4), np.uint8))
        client.close()


def test_a_client_that_comes_when_the_process_is_dead_gets_a_device_error_too() -> None:
    with FlowService([Difference]) as service:
        service._processes[0].kill()
        service._processes[0].wait()
        with pytest.raises(DeviceError, match="ended"):
            FlowClient(service.addresses[0])


def test_a_client_that_is_gone_before_its_request_is_read_harms_nobody() -> None:
    with FlowService([Difference]) as service:
        for _ in range(20):
            gone = FlowClient(service.addresses[0])
            gone.begin(np.zeros((2, 8, 10), np.uint8))
            gone.close()
        client = FlowClient(service.addresses[0])
        assert client.solve(np.zeros((2, 8, 10), np.uint8)).shape == (1, 2, 8, 10)
        client.close()


def test_a_worker_keeps_its_connection_to_each_device() -> None:
    with FlowService([Difference, Difference]) as service:
        for address in 3 * service.addresses:
            service_connections(address).begin(np.zeros((2, 8, 10), np.uint8)).result()
        shared = [name for name in os.listdir(service._folder) if not name.endswith(".sock")]
        for address in service.addresses:
            service_connections(address).close()
        service_connections.cache_clear()
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
        for k in range(10_000):
            sizes.extend(client.solve(np.zeros((8, 8, 10), np.uint8))[:, 1, 0, 0].tolist())
            if k >= 20 and 14 in sizes:  # some requests have met
                break

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
    assert set(sizes) == {7, 14}


@pytest.mark.parametrize(("max_open", "num_made"), [(100, [1, 2, 2, 2]), (2, [1, 3, 5, 7]), (1, [1, 2, 3, 4])])
def test_solvers_of_several_sizes_are_kept_while_memory_suffices(max_open: int, num_made: list[int]) -> None:
    # If there is memory for two, the second solver is cramped, so the first one is closed and the second made again; with memory for one
    # it cannot be made.
    with FlowService([functools.partial(Difference, max_open=max_open)]) as service:
        client = FlowClient(service.addresses[0])
        made = [client.solve(np.zeros((2, height, 10), np.uint8))[0, 1, 0, 0] for height in (8, 9, 8, 9)]
        client.close()
    assert made == num_made


DIES = """
import os, pickle, sys
import numpy as np
from flowkit.extraction.solving import service_connections
connections = service_connections(pickle.load(sys.stdin.buffer))
for k in range(3):
    pending = connections.begin(np.zeros((2, 8, 10), np.uint8))
os._exit(9)
"""


def test_a_worker_that_is_killed_with_several_requests_in_flight_harms_nobody() -> None:
    with FlowService([Difference]) as service:
        for _ in range(3):
            done = subprocess.run([sys.executable, "-c", DIES], input=pickle.dumps(service.addresses[0]), check=False)
            assert done.returncode == 9
        connections = FlowConnections(functools.partial(FlowClient, service.addresses[0]))
        assert connections.begin(np.zeros((2, 8, 10), np.uint8)).result().shape == (1, 2, 8, 10)
        connections.close()


def test_several_requests_of_one_worker_are_in_flight_and_each_has_its_own_answer() -> None:
    rng = np.random.default_rng(0)
    with FlowService([functools.partial(Difference, refused=9)]) as service:
        connections = FlowConnections(functools.partial(FlowClient, service.addresses[0]))
        for _ in range(10):
            greys = [rng.integers(0, 256, (rng.integers(2, 9), 8, 10), dtype=np.uint8) for _ in range(3)]
            pending = [connections.begin(grey) for grey in greys]
            refused = connections.begin(np.zeros((2, 9, 10), np.uint8))
            for k in rng.permutation(3):
                assert np.array_equal(pending[k].result()[:, 0], greys[k][1:] - greys[k][:-1])
            with pytest.raises(ParameterError, match="refused"):
                refused.result()
        assert len([name for name in os.listdir(service._folder) if not name.endswith(".sock")]) == 4
        connections.close()


def test_when_the_process_dies_with_requests_in_flight_each_of_them_says_so() -> None:
    with FlowService([Difference]) as service:
        connections = FlowConnections(functools.partial(FlowClient, service.addresses[0]))
        for pending in [connections.begin(np.zeros((2, 8, 10), np.uint8)) for _ in range(3)]:
            pending.result()
        os.kill(service._processes[0].pid, signal.SIGSTOP)  # so that it answers nothing
        first, second, third = (connections.begin(np.zeros((2, 8, 10), np.uint8)) for _ in range(3))
        service._processes[0].kill()
        for pending in (first, second, third):
            with pytest.raises(DeviceError, match="ended"):
                pending.result()
        connections.close()


PARENT = """
import functools, sys, time
import numpy as np
sys.path.insert(0, {tests!r})
from stand_in_solver import Difference
from flowkit.flow.cuda.client import FlowClient
from flowkit.flow.cuda.service import FlowService
if __name__ == "__main__":
    with FlowService([Difference]) as service:
        FlowClient(service.addresses[0]).solve(np.zeros((2, 8, 10), np.uint8))
        print(service._processes[0].pid, service._folder, flush=True)
        time.sleep(100)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_and_sigterm_are_the_parents_and_a_killed_parent_takes_the_process_with_it(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(tests=str(Path(__file__).parents[3] / "support")))
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
