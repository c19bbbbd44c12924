"""Measure the parts of the time of the CPU solvers: iterations, median filters, warps, pyramids.

    python benchmarks/flow_parts.py VIDEO ... [--pairs 6]

Each pair is solved some times, and the shortest processor time of each part counts, so that other work on the machine matters little.
The table shows means over the pairs, and what an iteration of a pixel takes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from bench_flow import video_pairs

from flowkit.flow.cpu.solver import CpuSolver

if TYPE_CHECKING:
    from numpy.typing import NDArray

PARTS = {"_iterate": "iterations", "_smooth": "median filters", "_fill": "pyramids"}


class Clock:
    """Counts the processor time of the calls of some methods of a solver."""

    def __init__(self, solver: CpuSolver) -> None:
        self.seconds: dict[str, float] = {}
        for name, part in PARTS.items():
            setattr(solver, name, self._timed(part, getattr(solver, name)))
        for name in ("set_image", "linearise"):
            setattr(solver._warp, name, self._timed("warps", getattr(solver._warp, name)))

    def _timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            began = time.thread_time()
            result = function(*arguments)
            self.seconds[part] = self.seconds.get(part, 0.0) + time.thread_time() - began
            return result

        return call


def measure(pairs: NDArray[np.uint8], mode: str, repeats: int) -> tuple[dict[str, float], float]:
    """Return the seconds of each part per pair, and the pixel-iterations per pair."""
    parts: list[dict[str, float]] = []
    iterations = 0
    solver = CpuSolver(*pairs.shape[2:], mode=mode)
    clock = Clock(solver)
    for pair in pairs:
        solver.solve(*pair)  # compiles, touches memory
        iterations += solver.pixel_iterations
        best: dict[str, float] = {}
        for _ in range(repeats):
            clock.seconds.clear()
            began = time.thread_time()
            solver.solve(*pair)
            whole = time.thread_time() - began
            seconds = clock.seconds | {"all": whole, "the rest": whole - sum(clock.seconds.values())}
            best = {name: min(value, best.get(name, np.inf)) for name, value in seconds.items()}
        parts.append(best)
    return {name: float(np.mean([one[name] for one in parts])) for name in parts[0]}, iterations / len(pairs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path, nargs="+")
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    pairs = video_pairs(options.videos, options.pairs)
    for mode in ("strict", "fast"):
        parts, iterations = measure(pairs, mode, options.repeats)
        print(f"{mode}: {1e3 * parts['all']:.1f} ms per pair, {iterations / 1e6:.1f} million pixel-iterations")
        for name, seconds in sorted(parts.items(), key=lambda part: -part[1]):
            if name != "all":
                print(f"  {name:16} {1e3 * seconds:7.2f} ms  {seconds / parts['all']:6.1%}")
        print(f"  an iteration of a pixel: {1e9 * parts['iterations'] / iterations:.3f} ns")
    return 0


if __name__ == "__main__":
    sys.exit(main())
