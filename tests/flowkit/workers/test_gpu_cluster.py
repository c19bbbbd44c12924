"""GPUs on a Dask cluster: processes of Dask on this machine, whose driver runs the kernels on the CPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from loopback import needs_ipv6
from small_videos import SETTINGS, files_of, write_video

from flowkit.errors import DeviceError
from flowkit.extraction.run import extract
from flowkit.flow.cuda.compile import supported_archs
from flowkit.flow.params import TVL1Params

sys.path.append(str(Path(__file__).parents[2] / "support" / "emulation"))
from emulated_device import build_driver, has_compiler

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("distributed", reason="needs the extra `cluster`")

ROOT = Path(__file__).parents[3]
BRIEF = replace(SETTINGS, solver="cuda", tvl1=TVL1Params(num_scales=1, num_warps=1, outer_iterations=2, inner_iterations=10))
WAIT_SECONDS = 300


def has_nvrtc() -> bool:
    try:
        return bool(supported_archs())
    except DeviceError:
        return False


pytestmark = [
    pytest.mark.slow,  # starts Dask, and emulates a GPU
    pytest.mark.skipif(not (has_compiler() and has_nvrtc() and sys.platform == "linux"), reason="needs Linux, g++, cuda-core and NVRTC"),
]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return an environment in which CUDA's driver is the emulated one."""
    cache = tmp_path_factory.mktemp("cache")
    variables = {"LD_LIBRARY_PATH": str(build_driver()), "XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return os.environ | variables


@contextmanager
def dask(folder: Path, environment: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a scheduler or a worker of Dask in a group of processes of its own, which is ended."""
    with (folder / f"{arguments[0]}-{time.monotonic_ns()}.log").open("w") as log:
        command = [sys.executable, "-m", "distributed.cli.dask_" + arguments[0], *arguments[1:]]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder, start_new_session=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def scheduler(folder: Path, environment: dict[str, str], host: str = "127.0.0.1") -> Iterator[str]:
    """Run a scheduler; yield its address."""
    file = folder / "scheduler.json"
    here = ["--host", host, "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
    with dask(folder, environment, "scheduler", *here) as process:
        end = time.monotonic() + WAIT_SECONDS
        while not file.exists():
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.1)
        yield json.loads(file.read_text())["address"]


def worker(folder: Path, environment: dict[str, str], address: str, *, gpu: bool, host: str = "127.0.0.1") -> object:
    """Return a context in which a worker runs, with a GPU or without."""
    resources = ["--resources", "GPU=1"] if gpu else []
    options = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--host", host, "--local-directory", str(folder / "dask")]
    driver = environment if gpu else {**environment, "LD_LIBRARY_PATH": ""}  # there is no driver on a machine without a GPU
    return dask(folder, driver, "worker", address, *options, *resources)


def wait_for_workers(address: str, count: int) -> None:
    from distributed import Client

    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(count, timeout=WAIT_SECONDS)


def test_two_gpus_and_a_worker_without_one_give_the_bytes_of_one_machine_though_a_gpu_dies(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    for k in range(24):
        write_video(tmp_path / "videos" / "c" / f"v{k:02}.avi", 4 + k % 3, seed=k)
    code = (
        "import sys; from pathlib import Path; from dataclasses import replace; sys.path[:0] = [sys.argv[3], sys.argv[4]]\n"
        "from test_gpu_cluster import BRIEF; from flowkit.extraction.run import extract\n"
        "print(extract(sys.argv[1], sys.argv[2], settings=BRIEF, jobs=1, progress=False))"
    )
    folders = [str(tmp_path / "videos"), str(tmp_path / "near"), str(Path(__file__).parent), str(ROOT / "tests" / "support")]
    done = subprocess.run([sys.executable, "-c", code, *folders], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = files_of(tmp_path / "near")
    assert len(expected) == 24

    with scheduler(tmp_path, environment) as address:
        setting = (tmp_path, environment, address)
        with worker(*setting, gpu=True) as doomed, worker(*setting, gpu=True), worker(*setting, gpu=False):  # type: ignore[attr-defined]
            wait_for_workers(address, 3)

            def kill_midway() -> None:
                clips, end = tmp_path / "far" / "clips" / "c", time.monotonic() + WAIT_SECONDS
                while time.monotonic() < end and len([*clips.glob("*.h5")]) < 6:
                    time.sleep(0.01)
                killed.append(len([*clips.glob("*.h5")]))
                os.killpg(doomed.pid, signal.SIGKILL)

            killed: list[int] = []
            killer = threading.Thread(target=kill_midway)
            killer.start()
            report = extract(tmp_path / "videos", tmp_path / "far", settings=BRIEF, cluster=address)
            killer.join()
    assert len(report.done) == 24
    assert not report.failed
    assert 6 <= killed[0] < 24
    assert files_of(tmp_path / "far") == expected


def test_a_gpu_that_joins_when_the_only_one_has_died_takes_over(tmp_path: Path, environment: dict[str, str]) -> None:
    for k in range(8):
        write_video(tmp_path / "videos" / "c" / f"v{k}.avi", 4, seed=k)
    with scheduler(tmp_path, environment) as address:
        setting = (tmp_path, environment, address)
        with worker(*setting, gpu=True) as doomed, worker(*setting, gpu=False):  # type: ignore[attr-defined]
            wait_for_workers(address, 2)
            reports = []
            running = threading.Thread(
                target=lambda: reports.append(extract(tmp_path / "videos", tmp_path / "far", settings=BRIEF, cluster=address))
            )
            running.start()
            clips, end = tmp_path / "far" / "clips" / "c", time.monotonic() + WAIT_SECONDS
            while time.monotonic() < end and not [*clips.glob("*.h5")]:
                time.sleep(0.01)
            os.killpg(doomed.pid, signal.SIGKILL)
            with worker(*setting, gpu=True):  # type: ignore[attr-defined]
                running.join(WAIT_SECONDS)
    assert len(reports[0].done) == 8


@needs_ipv6
def test_a_gpu_that_only_ipv6_reaches_solves_for_a_worker_without_one(tmp_path: Path, environment: dict[str, str]) -> None:
    for k in range(3):
        write_video(tmp_path / "videos" / "c" / f"v{k}.avi", 4, seed=k)
    host = "[::1]"
    with scheduler(tmp_path, environment, host) as address:
        setting = (tmp_path, environment, address)
        with worker(*setting, gpu=True, host=host), worker(*setting, gpu=False, host=host):  # type: ignore[attr-defined]
            wait_for_workers(address, 2)
            report = extract(tmp_path / "videos", tmp_path / "far", settings=BRIEF, cluster=address)
    assert len(report.done) == 3
    assert not report.failed
