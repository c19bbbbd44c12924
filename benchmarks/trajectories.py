"""Time improved dense trajectories, whole and in parts, and compare them with a program in NumPy.

    python benchmarks/trajectories.py --video FILE [--video FILE]       # real videos at their own size
    ... [--frames 40] [--rounds 5] [--camera-motion sift] [--prototype FILE]

`--prototype` names a program with the function `run(path, mode, limit)`, which returns one row per trajectory; its mode without
camera motion is called `identity`, and computes the second flow nevertheless. Both take turns, in one process bound to one core with
one thread; the table shows the median processor time of the thread per frame, and the median of the ratios within a turn. "motion" is
what `frame_motions` does: the two flows of all levels and the camera's motion. The rest is sampling, tracks and descriptors.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from bench_flow import machine
from numpy.typing import NDArray

from flowkit import improved_trajectories, read_frames
from flowkit.flow import to_grey
from flowkit.trajectories.frame_motion import CAMERA_MOTIONS, frame_motions

if TYPE_CHECKING:
    from collections.abc import Callable


def grey_frames(path: Path, limit: int) -> NDArray[np.uint8]:
    """Return the first grey frames of a video at its own size."""
    return np.concatenate([to_grey(batch.frames) for batch in read_frames(path, short_side=None)])[:limit]


def load(path: Path) -> Any:
    """Import a Python file of any name."""
    spec = importlib.util.spec_from_file_location("prototype", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def seconds(task: Callable[[], Any]) -> tuple[float, Any]:
    """Return the processor time of a task, and its result."""
    start = time.thread_time()
    result = task()
    return time.thread_time() - start, result


def measure(path: Path, camera_motion: str, options: argparse.Namespace, prototype: Any) -> str:
    """Return a row of the table."""
    frames = grey_frames(path, options.frames)
    tasks: dict[str, Callable[[], Any]] = {
        "whole": lambda: improved_trajectories(frames, camera_motion=camera_motion),
        "motion": lambda: sum(1 for _ in frame_motions(frames, camera_motion=camera_motion)),
    }
    if prototype is not None:
        mode = "identity" if camera_motion == "none" else camera_motion
        tasks["prototype"] = lambda: prototype.run(str(path), mode, len(frames))[0]
    improved_trajectories(frames[:3], camera_motion=camera_motion)  # compiles or loads the kernels
    times: dict[str, list[float]] = {name: [] for name in tasks}
    num: dict[str, int] = {}
    for _ in range(options.rounds):
        for name, task in tasks.items():
            taken, result = seconds(task)
            times[name].append(taken)
            num[name] = 0 if name == "motion" else len(result)
    milliseconds = {name: 1000 * statistics.median(taken) / (len(frames) - 1) for name, taken in times.items()}
    row = f"{path.stem[:24]:24s} {frames.shape[2]}x{frames.shape[1]} {camera_motion:5s} {num['whole']:6d} found"
    whole, motion = milliseconds["whole"], milliseconds["motion"]
    row += f" {whole:6.1f} ms, motion {motion:5.1f}, rest {whole - motion:5.1f}"
    if prototype is not None:
        ratio = statistics.median(theirs / ours for theirs, ours in zip(times["prototype"], times["whole"], strict=True))
        row += f"; prototype {milliseconds['prototype']:6.1f} ms ({num['prototype']:6d}): {ratio:.2f} times"
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path, action="append", required=True)
    parser.add_argument("--frames", type=int, default=40, help="of each video, from the first one on")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--camera-motion", choices=CAMERA_MOTIONS, action="append")
    parser.add_argument("--prototype", type=Path)
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    print(machine())
    prototype = load(options.prototype) if options.prototype else None
    for path in options.video:
        for camera_motion in options.camera_motion or CAMERA_MOTIONS:
            print(measure(path, camera_motion, options, prototype), flush=True)


if __name__ == "__main__":
    main()
