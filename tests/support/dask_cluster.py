"""A Dask cluster on this machine, for tests."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_SCRIPT = """
import sys, time
from pathlib import Path
from distributed import LocalCluster
if __name__ == '__main__':
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host=sys.argv[2]) as cluster:
        Path(sys.argv[1] + '.part').write_text(cluster.scheduler_address)
        Path(sys.argv[1] + '.part').rename(sys.argv[1])
        sys.stdin.read()
"""


@contextmanager
def running_cluster(folder: Path, here: dict[str, str], host: str = "127.0.0.1") -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Yield the process of a scheduler, and its address. It has two workers of one thread each; each has its own process.

    `host` is the address on which they listen; IPv6 in brackets, as Dask wants it.
    """
    ready = folder / "address"
    path = folder / "cluster.py"
    path.write_text(_SCRIPT)
    environment = {
        **here,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), here["PYTHONPATH"]]),
        "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "3",  # the default; tasks that wait on a killed worker count too
        "DASK_DISTRIBUTED__NANNY__PRE_SPAWN_ENVIRON__OMP_NUM_THREADS": "1",
    }
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, str(path), str(ready), host], stdin=subprocess.PIPE, stderr=log, env=environment)
    try:
        end = time.monotonic() + 300  # usually seconds, but more than a minute on a busy machine
        while not ready.exists():
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < end, (folder / "log").read_text()
            time.sleep(0.1)
        yield process, ready.read_text()
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
