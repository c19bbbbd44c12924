"""Compare the flow of the presets of TV-L1 on real videos: how far `paper` and `denseflow` are from `opencv`, and how long each takes.

    python benchmarks/compare_presets.py VIDEO|FOLDER ... [--pairs 6]

Frames have a short side of 256 px, and the pairs are spread over each video. The presets take turns on every pair, in one process on
one core, by the strict solver. For each video and for all together this prints the mean distance between the two flows, its 99th
percentile, and the share of the stored bytes (mapping `paper`, bound 20 px) that differ, and that differ by more than one.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import cv2
import numpy as np
from bench_flow import Pairs, video_pairs
from numpy.typing import NDArray

from flowkit.flow import TVL1Params
from flowkit.flow.cpu.solver import CpuSolver
from flowkit.flow.params import PRESETS
from flowkit.quantise import Quantiser
from flowkit.words import counted

BASE = "opencv"
QUANTISER = Quantiser(20.0, "paper")


def distances(flow: NDArray[np.float32], base: NDArray[np.float32]) -> tuple[float, float, float, float]:
    """Return mean and 99th percentile of the distance, px, and the share of bytes that differ, and that differ by more than one."""
    error_px = np.hypot(*(flow - base))
    levels = np.abs(QUANTISER.encode(flow).astype(int) - QUANTISER.encode(base))
    return float(error_px.mean()), float(np.percentile(error_px, 99)), float((levels > 0).mean()), float((levels > 1).mean())


def measure(pairs: Pairs, seconds: dict[str, list[float]]) -> dict[str, list[tuple[float, ...]]]:
    """Solve each pair with all presets in turn; append the processor time of each to `seconds`, and return the distances."""
    height, width = pairs.shape[2:]
    solvers = {name: CpuSolver(height, width, TVL1Params.preset(name)) for name in PRESETS}
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in PRESETS if name != BASE}
    for pair in pairs:
        flows = {}
        for name, solver in solvers.items():
            start = time.thread_time()
            flows[name] = solver.solve(*pair)
            seconds[name].append(time.thread_time() - start)
        for name, values in found.items():
            values.append(distances(flows[name], flows[BASE]))
    return found


def line(name: str, preset: str, values: list[tuple[float, ...]]) -> str:
    mean, p99, bytes_off, more = np.mean(values, axis=0)
    return f"| {name} | {preset} | {mean:.3f} | {p99:.2f} | {100 * bytes_off:.0f} % | {100 * more:.1f} % |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path, nargs="+")
    parser.add_argument("--pairs", type=int, default=6, help="pairs of each video")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    paths = [found for path in args.videos for found in ([path] if path.is_file() else sorted(path.rglob("*.avi")))]
    seconds: dict[str, list[float]] = {name: [] for name in PRESETS}
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in PRESETS if name != BASE}
    for name in PRESETS:  # compiles or loads kernels
        CpuSolver(64, 64, TVL1Params.preset(name)).solve(*np.zeros((2, 64, 64), np.uint8))
    print(f"| video | preset, compared with {BASE} | mean px | p99 px | other bytes | off by more than one |")
    print("|---|---|--:|--:|--:|--:|")
    for path in paths:
        for preset, values in measure(video_pairs([path], args.pairs), seconds).items():
            found[preset] += values
            print(line(path.stem, preset, values), flush=True)
    for preset, values in found.items():
        print(line(f"all {counted(len(paths), 'video')}, {counted(len(values), 'pair')}", preset, values))
    for name, times in seconds.items():
        ratio = statistics.median(own / base for own, base in zip(times, seconds[BASE], strict=True))
        print(f"{name}: {1e3 * statistics.median(times):.1f} ms per pair, {ratio:.2f} times {BASE}'s")


if __name__ == "__main__":
    main()
