"""Compare `flowkit extract`, end to end, with its solver alone; compare peak memory for videos of different lengths.

    python benchmarks/bench_extract.py [--videos DIR] [--jobs N] [--mode strict|fast] [--rounds 5] [--json FILE]

Speed: in alternate rounds, `flowkit extract` runs over the videos (including the start of the process, which a run over a data set
pays only once), and the solver alone runs over the same decoded frames in the same number of processes. Memory: the peak of the
largest process of `extract` for a video of 500 frames and for one of 5,000; the frames are small, so that this takes a minute.
Without --videos, short videos of drifting textures are generated.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flowkit.workers.processes import num_cores, run_tasks

if TYPE_CHECKING:
    from flowkit.workers.progress import TaskProgress


def write_video(path: Path, num_frames: int, width: int, height: int, seed: int) -> None:
    """Write a video of a drifting texture, for which TV-L1 needs as much work as for a real video."""
    import av
    import cv2

    rng = np.random.default_rng(seed)
    texture = cv2.GaussianBlur(rng.integers(0, 256, (height + 64, width + 64, 3), dtype=np.uint8), (0, 0), 3)
    texture = cv2.normalize(texture, None, 20, 235, cv2.NORM_MINMAX)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = width, height, "yuv420p", 1_000_000
        for k in range(num_frames):
            x, y = (round(32 + 30 * f(k / 9)) for f in (np.cos, np.sin))
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(texture[y : y + height, x : x + width]), format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def solve_file(task: tuple[str, str], progress: TaskProgress) -> int:
    """Solve the frames of an .npy file, in a worker process; return the number of pairs."""
    from flowkit.flow import compute_flow

    frames = np.load(task[0])
    for start in range(0, len(frames) - 1, 16):
        compute_flow(frames[start : start + 17], mode=task[1])
    return len(frames) - 1


def extract(videos: Path, root: Path, jobs: int, mode: str) -> tuple[float, int]:
    """Run the command; return seconds and the peak memory of its largest process, bytes."""
    shutil.rmtree(root, ignore_errors=True)
    command = [sys.executable, "-m", "flowkit.cli", "extract", str(videos), "--data", str(root)]
    command += ["--jobs", str(jobs), "--mode", mode, "--device", "cpu"]
    # The command runs below a process of its own, so that the resource usage of children is the command's alone.
    measure = (
        "import resource, subprocess, sys\n"
        "code = subprocess.run(sys.argv[1:], stdout=2).returncode\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
        "sys.exit(code)"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", measure, *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    return time.monotonic() - started, int(done.stdout) * 1024


def bench_speed(videos: Path, folder: Path, jobs: int, mode: str, rounds: int) -> dict[str, object]:
    """Run `extract` and the solver in turn; return medians."""
    from flowkit import read_frames
    from flowkit.flow import to_grey

    tasks = []
    for number, path in enumerate(sorted(p for p in videos.rglob("*") if p.is_file())):
        np.save(folder / f"{number}.npy", np.concatenate([to_grey(batch.frames) for batch in read_frames(path)]))
        tasks.append((str(folder / f"{number}.npy"), mode))
    tasks.sort(key=lambda task: -os.path.getsize(task[0]))
    num_pairs = 0
    seconds: dict[str, list[float]] = {"extract": [], "solver": []}
    for _ in range(rounds):
        seconds["extract"].append(extract(videos, folder / "data", jobs, mode)[0])
        started = time.monotonic()
        num_pairs = sum(outcome.result or 0 for outcome in run_tasks(solve_file, deque(tasks), jobs=jobs))
        seconds["solver"].append(time.monotonic() - started)
    ratios = [b / a for a, b in zip(seconds["extract"], seconds["solver"], strict=True)]
    return {
        "pairs": num_pairs,
        "processes": jobs,
        "mode": mode,
        "rounds": rounds,
        **{f"{name}_pairs_per_second": num_pairs / statistics.median(values) for name, values in seconds.items()},
        "extract_over_solver": statistics.median(ratios),
        "extract_over_solver_range": [min(ratios), max(ratios)],
    }


def bench_memory(folder: Path, lengths: tuple[int, ...] = (500, 5000)) -> dict[str, object]:
    """Extract one video of each length; return peak memory."""
    peaks = {}
    for length in lengths:
        videos = folder / f"long-{length}"
        write_video(videos / "v.avi", length, 64, 48, seed=0)
        command_root = folder / "memory-data"
        shutil.rmtree(command_root, ignore_errors=True)
        os.environ["FLOWKIT_SHORT_SIDE"] = "48"
        peaks[length] = extract(videos, command_root, 1, "fast")[1]
        del os.environ["FLOWKIT_SHORT_SIDE"]
    return {"peak_bytes": peaks, "longest_over_shortest": peaks[lengths[-1]] / peaks[lengths[0]]}


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path)
    parser.add_argument("--jobs", type=int, default=num_cores())
    parser.add_argument("--mode", choices=["strict", "fast"], default="strict")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--skip-memory", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flowkit-bench-") as name:
        folder = Path(name)
        videos = options.videos
        if videos is None:
            videos = folder / "videos"
            for k in range(2 * options.jobs):
                write_video(videos / f"v{k}.avi", 40, 320, 240, seed=k)
        results: dict[str, object] = {
            "machine": f"{platform.system()} {platform.machine()}, {num_cores()} cores, Python {platform.python_version()}",
            "speed": bench_speed(videos, folder, options.jobs, options.mode, options.rounds),
        }
        if not options.skip_memory:
            results["memory"] = bench_memory(folder)
    print(json.dumps(results, indent=1))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
