"""Time the flow of improved trajectories: all levels of a pair of frames, and the steps that find the camera's motion.

    python benchmarks/level_flow.py                                    # generated moving textures, 320x240 (no data needed)
    python benchmarks/level_flow.py --video FILE [--video FILE]        # real videos at their own size, frames spread over each
    ... [--pairs 12] [--rounds 5] [--prototype FILE]

A flow is one expansion (that of the first frame is kept from the pair before) and the flow of all levels from it. OpenCV's Farneback,
with the same parameters and number of levels, expands both frames, knows no median and returns the finest level only. `--prototype`
names a program in NumPy with the functions `poly_pyr` and `farneback`. All take turns on every pair, in one process bound to one
core with one thread; the table shows the median processor time of the thread, and the median of the ratios within a turn.
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
from bench_flow import generated_pairs, machine
from numpy.typing import NDArray

from flowkit.trajectories import camera_motion, flow_reference, level_flow
from flowkit.trajectories.pyramid import Pyramid

if TYPE_CHECKING:
    from collections.abc import Callable

Pair = NDArray[np.uint8]  # (2, H, W)
Steps = dict[str, "Callable[[], object]"]


def video_pairs(path: Path, num_pairs: int) -> list[Pair]:
    """Return pairs of consecutive grey frames at the video's own size, spread over it."""
    from flowkit.flow import to_grey
    from flowkit.video.decode import read_frames

    grey = np.concatenate([to_grey(batch.frames) for batch in read_frames(path, short_side=None)])
    return [grey[start : start + 2] for start in np.linspace(0, len(grey) - 2, num_pairs).astype(int)]


def flow_steps(pair: Pair, prototype: Any) -> Steps:
    """Return one flow by each implementation; what is kept from the pair before is prepared."""
    pyramid = Pyramid(*pair.shape[1:])
    steps: Steps = {"OpenCV Farneback": lambda: opencv_flow(pair, len(pyramid.sizes))}
    if prototype is not None:
        sizes = [(width, height) for height, width in pyramid.sizes]
        kept = prototype.poly_pyr(pair[0], pyramid.scales, sizes)
        steps["prototype"] = lambda: prototype.farneback(kept, prototype.poly_pyr(pair[1], pyramid.scales, sizes), sizes)
    for name, module in (("flow_reference", flow_reference), ("level_flow", level_flow)):
        first = module.expand(pair[0], pyramid)
        steps[name] = lambda module=module, first=first: module.level_flows(first, module.expand(pair[1], pyramid))
    return steps


def opencv_flow(pair: Pair, num_levels: int) -> object:
    flags = cv2.OPTFLOW_FARNEBACK_GAUSSIAN
    return cv2.calcOpticalFlowFarneback(pair[0], pair[1], None, 2**-0.5, num_levels, 10, 2, 7, 1.5, flags)


def camera_steps(pair: Pair) -> Steps:
    """Return the steps from a flow to the warped frame."""
    pyramid = Pyramid(*pair.shape[1:])
    flow = level_flow.level_flows(*(level_flow.expand(frame, pyramid) for frame in pair))[0]
    keypoints = [camera_motion.find_keypoints(frame) for frame in pair]
    pairs = camera_motion.match_keypoints(*keypoints), camera_motion.match_corners(pair[0], flow)
    previous, current = (np.concatenate(points) for points in zip(*pairs, strict=True))
    matrix = camera_motion.homography(previous, current)
    return {
        "SIFT": lambda: camera_motion.find_keypoints(pair[1]),
        "matches of keypoints": lambda: camera_motion.match_keypoints(*keypoints),
        "corners": lambda: camera_motion.match_corners(pair[0], flow),
        "homography": lambda: camera_motion.homography(previous, current),
        "warped frame": lambda: camera_motion.without_camera_motion(pair[0], pair[1], matrix),
    }


def measure(pairs: list[Pair], steps_of: Callable[[Pair], Steps], rounds: int) -> dict[str, list[float]]:
    """Return the processor times of each step, in ms; the steps take turns."""
    times: dict[str, list[float]] = {}
    for pair in pairs:
        steps = steps_of(pair)
        for _ in range(rounds):
            for name, step in steps.items():
                start = time.thread_time()
                step()
                times.setdefault(name, []).append((time.thread_time() - start) * 1e3)
    return times


def load_prototype(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("prototype", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path, action="append", default=[])
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prototype", type=Path)
    options = parser.parse_args()
    per_video = -(-options.pairs // max(len(options.video), 1))
    pairs = [pair for path in options.video for pair in video_pairs(path, per_video)] or list(generated_pairs(options.pairs, 240, 320))
    prototype = load_prototype(options.prototype) if options.prototype else None
    cv2.setNumThreads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    for step in flow_steps(pairs[0], None).values():
        step()  # compiles or loads the kernels
    print(f"{len(pairs)} pairs of {pairs[0].shape[2]}x{pairs[0].shape[1]}\n{machine()}\n")
    times = measure(pairs, lambda pair: flow_steps(pair, prototype), options.rounds)
    ours = times["level_flow"]
    print(f"{'one flow':22s} {'cpu ms':>8s} {'/ level_flow':>13s}")
    for name, each in times.items():
        print(f"{name:22s} {statistics.median(each):8.2f} {statistics.median(a / b for a, b in zip(each, ours, strict=True)):13.2f}")
    print()
    for name, each in measure(pairs, camera_steps, options.rounds).items():
        print(f"{name:22s} {statistics.median(each):8.2f}")


if __name__ == "__main__":
    main()
