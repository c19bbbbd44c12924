"""Compare TV-L1 solvers on the same frames: OpenCV's DualTVL1, flowkit's strict and fast solvers, scikit-image's, and the GPU's.

    python benchmarks/bench_flow.py                              # generated moving textures, 340x256 (no data needed)
    python benchmarks/bench_flow.py --video FILE [--video FILE]  # real videos, frames spread over each
    python benchmarks/bench_flow.py --frames FILE.npz            # "frames" uint8 (T, H, W) or "pairs" uint8 (N, 2, H, W)
    ... [--pairs 12] [--device cuda] [--json FILE]

The solvers take turns on every pair, in one process bound to one core, so that other load affects them equally. The table shows
the median time and the median of the pairs' ratios to OpenCV. There are two clocks: wall time, and the processor time of the
thread, which other processes disturb less. OpenCV's solver gets a new object for each pair (because `calc` changes the object) and
one thread; its row is left out if `cv2.optflow` is missing, and scikit-image's row if that is not installed. "All cores" runs as
many processes as there are cores (at most --processes), each over all pairs, and compares them with one process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from flowkit.flow import TVL1Params, compute_flow
from flowkit.flow.cpu.solver import CpuSolver

if TYPE_CHECKING:
    from collections.abc import Callable

Pairs = NDArray[np.uint8]  # (N, 2, H, W)
BOUND_PX = 20.0


def generated_pairs(num_pairs: int, height: int = 256, width: int = 340) -> Pairs:
    """Return pairs of textures of several scales with a moving camera, a moving foreground and noise."""
    pairs = []
    for seed in range(num_pairs):
        rng = np.random.default_rng(seed)
        shape = (height + 64, width + 64)
        texture = sum(cv2.GaussianBlur(rng.random(shape).astype(np.float32), (0, 0), s) * s for s in (1.5, 4.0, 12.0))
        texture = cv2.normalize(texture, None, 10, 245, cv2.NORM_MINMAX)
        y, x = np.mgrid[32 : 32 + height, 32 : 32 + width].astype(np.float32)
        near = (x - 32 - width * rng.random()) ** 2 + (y - 32 - height * rng.random()) ** 2 < (height / 4) ** 2
        moves = rng.normal(scale=(1.0, 4.0), size=(2, 2))
        frames = []
        for k in range(2):
            shift = [np.where(near, moves[axis, 1], moves[axis, 0]).astype(np.float32) * k for axis in range(2)]
            frame = cv2.remap(texture, x - shift[0], y - shift[1], cv2.INTER_CUBIC) + rng.normal(scale=2, size=(height, width))
            frames.append(frame.clip(0, 255).astype(np.uint8))
        pairs.append(frames)
    return np.asarray(pairs)


def video_pairs(paths: list[Path], num_pairs: int) -> Pairs:
    """Return pairs of consecutive frames with a short side of 256 px, spread over the videos."""
    from flowkit.flow import to_grey
    from flowkit.video.decode import read_frames

    pairs = []
    per_video = -(-num_pairs // len(paths))
    for path in paths:
        grey = np.concatenate([to_grey(batch.frames) for batch in read_frames(path)])
        starts = np.linspace(0, len(grey) - 2, per_video).astype(int)
        pairs += [grey[start : start + 2] for start in starts]
    sizes = {pair.shape for pair in pairs}
    if len(sizes) > 1:
        raise SystemExit(f"the videos differ in size: {sorted(sizes)}; give one at a time")
    return np.asarray(pairs[:num_pairs])


def load_pairs(path: Path, num_pairs: int) -> Pairs:
    with np.load(path) as arrays:
        if "pairs" in arrays:
            return arrays["pairs"][:num_pairs]
        frames = arrays["frames"]
    starts = np.linspace(0, len(frames) - 2, min(num_pairs, len(frames) - 1)).astype(int)
    return np.stack([frames[start : start + 2] for start in starts])


def solvers(height: int, width: int, params: TVL1Params) -> dict[str, Callable[[Pairs], NDArray[np.float32]]]:
    """Return the solvers for one core; each maps a pair (2, H, W) to flow (2, H, W)."""
    strict, fast = CpuSolver(height, width, params), CpuSolver(height, width, params, mode="fast")
    available: dict[str, Callable[[Pairs], NDArray[np.float32]]] = {}
    if hasattr(cv2, "optflow"):
        available["OpenCV DualTVL1"] = lambda pair: opencv_flow(pair, params)
    available["flowkit strict"] = lambda pair: strict.solve(*pair)
    available["flowkit fast"] = lambda pair: fast.solve(*pair)
    try:
        from skimage.registration import optical_flow_tvl1
    except ImportError:
        pass
    else:
        available["scikit-image tvl1"] = lambda pair: optical_flow_tvl1(*(frame / np.float32(255) for frame in pair))[::-1]
    return available


def opencv_flow(pair: Pairs, params: TVL1Params) -> NDArray[np.float32]:
    solver = cv2.optflow.DualTVL1OpticalFlow_create(
        params.tau,
        params.lambda_,
        params.theta,
        params.num_scales,
        params.num_warps,
        params.epsilon,
        params.inner_iterations,
        params.outer_iterations,
        params.scale_step,
        0.0,
        params.median_size,
    )
    flow: NDArray[np.float32] = solver.calc(pair[0], pair[1], None).transpose(2, 0, 1)
    return flow


def measure_on_one_core(pairs: Pairs, params: TVL1Params) -> dict[str, dict[str, float]]:
    """Time every solver on every pair, in turn, and compare the flows with those of the strict solver."""
    available = solvers(*pairs.shape[2:], params)
    for solve in available.values():
        solve(np.zeros_like(pairs[0]))  # compiles or loads kernels, touches memory
    wall: dict[str, list[float]] = {name: [] for name in available}
    thread: dict[str, list[float]] = {name: [] for name in available}
    differences: dict[str, list[tuple[float, float, float]]] = {name: [] for name in available}
    for pair in pairs:
        flows = {}
        for name, solve in available.items():
            start, start_thread = time.perf_counter(), time.thread_time()
            flows[name] = solve(pair)
            wall[name].append(time.perf_counter() - start)
            thread[name].append(time.thread_time() - start_thread)
        for name, flow in flows.items():
            differences[name].append(difference(flow, flows["flowkit strict"]))
    base = "OpenCV DualTVL1" if "OpenCV DualTVL1" in available else "flowkit strict"
    return {
        name: {
            "median_wall_ms": statistics.median(wall[name]) * 1e3,
            "median_processor_ms": statistics.median(thread[name]) * 1e3,
            f"times_{base.split(maxsplit=1)[0].lower()}_wall": statistics.median(
                b / t for b, t in zip(wall[base], wall[name], strict=True)
            ),
            f"times_{base.split(maxsplit=1)[0].lower()}_processor": statistics.median(
                b / t for b, t in zip(thread[base], thread[name], strict=True)
            ),
            "mean_epe_px": float(np.mean([d[0] for d in differences[name]])),
            "p99_epe_px": float(np.mean([d[1] for d in differences[name]])),
            "levels_off_percent": 100 * float(np.mean([d[2] for d in differences[name]])),
        }
        for name in available
    }


def difference(flow: NDArray[np.float32], exact: NDArray[np.float32]) -> tuple[float, float, float]:
    """Return the mean and the 99th percentile of the end-point error, and the share of bytes that differ by more than one level."""
    error_px = np.hypot(*(flow - exact))
    levels = [np.clip(np.rint(f * 127 / BOUND_PX), -127, 127) for f in (flow, exact)]
    return float(error_px.mean()), float(np.percentile(error_px, 99)), float(np.mean(np.abs(levels[0] - levels[1]) > 1))


def solve_alone(pairs: Pairs, mode: str, params: TVL1Params, barrier: Any) -> float:
    """Solve all pairs in this process once all processes are ready; return pairs per second."""
    cv2.setNumThreads(1)
    solver = CpuSolver(*pairs.shape[2:], params, mode)
    solver.solve(*pairs[0])
    barrier.wait()
    start = time.perf_counter()
    for pair in pairs:
        solver.solve(*pair)
    return len(pairs) / (time.perf_counter() - start)


def _worker(pairs: Pairs, mode: str, params: TVL1Params, barrier: Any, results: Any) -> None:
    results.put(solve_alone(pairs, mode, params, barrier))


def measure_on_all_cores(pairs: Pairs, params: TVL1Params, num_processes: int, rounds: int) -> dict[str, dict[str, float]]:
    """Return the pairs per second of one process and of several at once, measured in turn, for both modes."""
    context = get_context("spawn")
    speeds: dict[str, dict[int, list[float]]] = {mode: {1: [], num_processes: []} for mode in ("strict", "fast")}
    for _ in range(rounds):
        for mode, by_count in speeds.items():
            for count, measured in by_count.items():
                barrier, results = context.Barrier(count), context.Queue()
                workers = [context.Process(target=_worker, args=(pairs, mode, params, barrier, results)) for _ in range(count)]
                for worker in workers:
                    worker.start()
                measured.append(sum(results.get() for _ in workers))
                for worker in workers:
                    worker.join()
    return {
        f"flowkit {mode}": {
            "one_process_pairs_per_second": statistics.median(by_count[1]),
            "all_pairs_per_second": statistics.median(by_count[num_processes]),
            "times_one": statistics.median(a / o for o, a in zip(by_count[1], by_count[num_processes], strict=True)),
        }
        for mode, by_count in speeds.items()
    }


def measure_gpu(pairs: Pairs, params: TVL1Params, device: str, rounds: int) -> dict[str, float]:
    """Time `compute_flow` on the device, including the copies of frames to it and of float flow from it."""
    frames = pairs.reshape(-1, *pairs.shape[2:])
    compute_flow(frames[:4], params=params, device=device)
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        compute_flow(frames, params=params, device=device)
        seconds.append(time.perf_counter() - start)
    return {"pairs_per_second": (len(frames) - 1) / statistics.median(seconds)}


def machine() -> dict[str, object]:
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        models = [line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        cpu = models[0] if models else cpu
    import numba

    return {
        "cpu": cpu,
        "cores": available_cores(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "opencv": cv2.__version__,
        "numba": numba.__version__,
        "numpy": np.__version__,
    }


def available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=Path)
    parser.add_argument("--video", type=Path, action="append", default=[])
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--preset", default="opencv")
    parser.add_argument("--processes", type=int, default=available_cores())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", help="also measure this GPU, such as cuda")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    if options.frames:
        pairs, source = load_pairs(options.frames, options.pairs), "frames from a file"
    elif options.video:
        pairs, source = video_pairs(options.video, options.pairs), f"{len(options.video)} real video(s)"
    else:
        pairs, source = generated_pairs(options.pairs), "generated textures (real frames: --video or --frames)"
    params = TVL1Params.preset(options.preset)
    cv2.setNumThreads(1)
    report: dict[str, object] = {"machine": machine(), "preset": options.preset}
    report["input"] = f"{len(pairs)} pairs of {pairs.shape[3]}x{pairs.shape[2]}, {source}"
    print(f"{report['input']}, preset {options.preset}\n{report['machine']}\n")

    if options.processes > 1:
        report["all_cores"] = many = measure_on_all_cores(pairs, params, options.processes, options.rounds)
        for name, row in many.items():
            print(
                f"{name:18s} {row['one_process_pairs_per_second']:6.2f} pairs/s in one process, {row['all_pairs_per_second']:6.2f} in "
                f"{options.processes}: x{row['times_one']:.2f}"
            )
        print()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    report["one_core"] = one = measure_on_one_core(pairs, params)
    ratio = next(key for key in next(iter(one.values())) if key.endswith("_processor"))
    print(f"{'one core':18s} {'wall ms':>9s} {'cpu ms':>9s} {ratio[:-10]:>14s} {'EPE px':>8s} {'p99 px':>8s} {'q>1 %':>7s}")
    for name, row in one.items():
        print(
            f"{name:18s} {row['median_wall_ms']:9.1f} {row['median_processor_ms']:9.1f} {row[ratio]:14.1f} "
            f"{row['mean_epe_px']:8.4f} {row['p99_epe_px']:8.4f} {row['levels_off_percent']:7.3f}"
        )
    if options.device:
        report["gpu"] = gpu = measure_gpu(pairs, params, options.device, options.rounds)
        print(f"\nflowkit {options.device}: {gpu['pairs_per_second']:.0f} pairs/s (including the copies of frames and flow)")
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
