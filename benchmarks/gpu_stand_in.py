"""Measure what `extract --device cuda` does beside the GPU: its own worker processes and its own process of a GPU, with a stand-in solver.

    python benchmarks/gpu_stand_in.py VIDEO ... [--workers 2 4] [--batch-pairs 16] [--batch-ms 90] [--rounds 3]
    python benchmarks/gpu_stand_in.py VIDEO ... --other CHECKOUT      # another version of flowkit, in turn

The stand-in takes a fixed time for each batch, whatever its size, with three batches in flight as on a GPU: so it does
3 * batch-pairs / batch-time pairs per second, if its batches are full. It copies frames and flow as the real solver does, and returns
real flow, because the compression depends on what the flow shows. A table shows, for each number of workers and each version, the
pairs per second, the processor time of the workers and of the GPU's process per pair, how full the batches were, and the memory of
the largest worker: medians of rounds in turn. Every version must write the same bytes, or else the exit code is 1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import deque
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
FIELDS_PER_VIDEO = 4  # of real flow


class StandInBatch:
    """A batch of the stand-in: it is finished after a fixed time."""

    def __init__(self, seconds: float, copy_out: Callable[[], None], on_batch: Callable[[], None]) -> None:
        self._copy_out, self._on_batch, self._finished = copy_out, on_batch, threading.Event()
        timer = threading.Timer(seconds, self._finish)
        timer.daemon = True
        timer.start()

    def _finish(self) -> None:
        self._finished.set()
        self._on_batch()

    def is_finished(self) -> bool:
        return self._finished.is_set()

    def result(self) -> None:
        self._finished.wait()
        self._copy_out()


class StandInSolver:
    """In place of `CudaSolver` in the process of a GPU: the flow of a pair is one of some real fields, chosen by its first frame."""

    is_cramped = False

    def __init__(
        self, height: int, width: int, *, on_batch: Callable[[], None], fields: str, seconds: float, max_pairs: int, sizes: str
    ) -> None:
        self._fields = np.load(fields, mmap_mode="r")
        assert self._fields.shape[2:] == (height, width), f"the stand-in has flow of {self._fields.shape[2:]} only"
        self._seconds, self._on_batch, self._sizes, self.max_pairs = seconds, on_batch, sizes, max_pairs
        self._lanes = [np.empty((2 * max_pairs, height, width), np.uint8) for _ in range(3)]
        self._next = 0

    def submit(self, frames: Sequence[NDArray[np.uint8]], pairs: NDArray[np.int64], out: Sequence[NDArray[np.uint8]]) -> StandInBatch:
        lane = self._lanes[self._next % 3]
        self._next += 1
        for staged, frame in zip(lane, frames, strict=False):
            staged[...] = frame
        chosen = [zlib.crc32(frames[first][::16].tobytes()) % len(self._fields) for first in pairs[:, 0]]
        with open(self._sizes, "a") as file:
            file.write(f"{len(pairs)}\n")

        def copy_out() -> None:
            for target, index in zip(out, chosen, strict=True):
                target[...] = self._fields[index]

        return StandInBatch(self._seconds, copy_out, self._on_batch)

    def close(self) -> None:
        pass


def real_fields(videos: Sequence[Path], path: Path) -> None:
    """Write some quantised flow fields of each video."""
    from flowkit.flow import compute_flow, to_grey
    from flowkit.quantise import Quantiser
    from flowkit.video.decode import read_frames

    fields = []
    for video in videos:
        frames = next(iter(read_frames(video, batch_size=FIELDS_PER_VIDEO + 1))).frames
        fields.append(Quantiser().encode(compute_flow(to_grey(frames), mode="fast")))
    np.save(path, np.concatenate(fields))


def one_round() -> None:
    """Extract the videos once, in this version of flowkit, after each worker has done one video; print what was measured."""
    from flowkit.dataset.settings import ExtractSettings
    from flowkit.extraction.plan import make_plan
    from flowkit.extraction.schedule import run_task
    from flowkit.extraction.solving import prepare_process
    from flowkit.flow.cuda.service import FlowService
    from flowkit.workers import processes

    given = json.loads(sys.argv[1])
    sizes, folder = Path(given["folder"], "sizes"), Path(given["folder"])
    solver = {"fields": given["fields"], "seconds": given["batch_seconds"], "max_pairs": given["batch_pairs"], "sizes": str(sizes)}
    settings = ExtractSettings(solver="cuda", codec=given["codec"])
    with FlowService([partial(StandInSolver, **solver)]) as service:

        def extract(videos: Path, root: Path) -> int:
            jobs = [replace(job, service=service.addresses[0]) for job in make_plan(videos, root, settings=settings).jobs]
            prepare = partial(prepare_process, settings)
            outcomes = processes.run_tasks(run_task, deque(jobs), jobs=given["workers"], prepare=prepare, keep=True)
            num_pairs = 0
            for outcome in outcomes:
                assert outcome.result is not None, outcome.crash
                assert outcome.result.video is None or outcome.result.video.status == "ok", outcome.result.video
                num_pairs += outcome.result.num_pairs
            return num_pairs

        extract(folder / "first", folder / "first-data")
        sizes.unlink()
        workers = [child._process.pid for _, child in processes._kept]
        ids = (workers, [service._processes[0].pid])
        began, used = time.perf_counter(), [sum(map(processor_seconds, some)) for some in ids]
        num_pairs = extract(folder / "videos", folder / "data")
        seconds = time.perf_counter() - began
        peak = max(map(peak_bytes, workers))
        used = [sum(map(processor_seconds, some)) - before for some, before in zip(ids, used, strict=True)]
    digest = hashlib.sha256()
    for path in sorted((folder / "data" / "clips").rglob("*.h5")):
        digest.update(path.read_bytes())
    batches = [int(line) for line in sizes.read_text().split()]
    measured = {
        "pairs/s": num_pairs / seconds,
        "workers, ms a pair": 1e3 * used[0] / num_pairs,
        "GPU's process, ms a pair": 1e3 * used[1] / num_pairs,
        "pairs in a batch": sum(batches) / len(batches),
        "MiB at most in a worker": peak / 2**20,
    }
    print(json.dumps({"pairs": num_pairs, "sha256": digest.hexdigest(), "measured": measured}))


def processor_seconds(pid: int) -> float:
    """Return the processor time of a process and all its threads so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_bytes(pid: int) -> int:
    """Return the most memory that a process has used so far, with what it shares."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def measure(checkout: Path, workers: int, videos: Sequence[Path], fields: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run a round in a new process with a version of flowkit."""
    with tempfile.TemporaryDirectory(prefix="flowkit-bench-") as name:
        folder = Path(name)
        for group, copies in (("first", -(-workers // len(videos))), ("videos", options.copies)):
            for copy in range(copies):
                for number, video in enumerate(videos):
                    if group == "first" and copy * len(videos) + number >= workers:
                        continue
                    place = folder / group / "class" / f"{number:03d}-{copy}{video.suffix}"
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.symlink_to(video.resolve())
        given = {"folder": name, "fields": str(fields), "workers": workers, "codec": options.codec}
        given |= {"batch_seconds": options.batch_ms / 1e3, "batch_pairs": options.batch_pairs}
        command = [sys.executable, "-c", "import gpu_stand_in; gpu_stand_in.one_round()", json.dumps(given)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(checkout), str(HERE)])}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=name, check=True)
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path, nargs="+", help="of one frame size")
    parser.add_argument("--other", type=Path, nargs="*", default=[], help="checkouts of other versions of flowkit")
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--batch-pairs", type=int, default=16, help="that the stand-in takes at once")
    parser.add_argument("--batch-ms", type=float, default=90.0, help="the time of each batch")
    parser.add_argument("--copies", type=int, default=2, help="how often each video is extracted")
    parser.add_argument("--codec", default="zstd")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    checkouts = [*options.other, HERE.parent]
    names = [f"other {number}" for number, _ in enumerate(options.other, start=1)] + ["this"]
    digests = set()
    with tempfile.TemporaryDirectory(prefix="flowkit-bench-") as folder:
        fields = Path(folder, "fields.npy")
        real_fields(options.videos, fields)
        for workers in options.workers:
            rounds: dict[str, list[dict[str, float]]] = {name: [] for name in names}
            for _ in range(options.rounds):
                for name, checkout in zip(names, checkouts, strict=True):
                    result = measure(checkout, workers, options.videos, fields, options)
                    digests.add(result["sha256"])
                    rounds[name].append(result["measured"])
            for name, measured in rounds.items():
                values = ", ".join(f"{statistics.median(each[what] for each in measured):.4g} {what}" for what in measured[0])
                print(f"{workers} workers, {name}: {values}", flush=True)
            if options.other:
                speeds = [[each["pairs/s"] for each in rounds[name]] for name in (names[0], "this")]
                ratios = [new / old for old, new in zip(*speeds, strict=True)]
                print(f"{workers} workers, this over other 1: {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    full = 3 * options.batch_pairs / (options.batch_ms / 1e3)
    print(f"the stand-in alone does {full:.0f} pairs/s; load {os.getloadavg()[0]:.1f}; {os.cpu_count()} cores")
    if len(digests) > 1:
        print("the versions wrote different bytes", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
