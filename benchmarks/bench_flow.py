"""TV-L1 solvers side by side on the same frames: OpenCV's DualTVL1, flowkit strict and fast, scikit-image, and the GPU.

    python benchmarks/bench_flow.py                              # generated textures that move, 340x256 (no data needed)
    python benchmarks/bench_flow.py --video FILE [--video FILE]  # real videos, frames spread over each
    python benchmarks/bench_flow.py --frames FILE.npz            # "frames" uint8 (T, H, W) or "pairs" uint8 (N, 2, H, W)
    ... [--pairs 12] [--device cuda] [--json FILE]

Solvers take turns on every pair in one process bound to one core, so that other load meets them alike; shown are the median
time and the median of each pair's ratio to OpenCV. Two clocks: the wall, and the processor time of the thread, which other
processes disturb less. OpenCV's solver gets a fresh object per pair (its calc changes the object) and one thread; its row
is left out where `cv2.optflow` is missing, scikit-image's where it is not installed. "All cores": as many processes as
cores (at most --processes), each over all pairs, against one process.
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
from typing import TYPE_CHECKING

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
    """Textures of several scales under a moving camera and a moving foreground, with noise."""
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
    """Pairs of consecutive frames at short side 256, spread over the videos."""
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
    """Return what takes part on one core; each maps a pair (2, H, W) to flow (2, H, W)."""
    strict, fast = CpuSolver(height, width, params), CpuSolver(height, width, params, mode="fast")
    taking_part: dict[str, Callable[[Pairs], NDArray[np.float32]]] = {}
    if hasattr(cv2, "optflow"):
        taking_part["OpenCV DualTVL1"] = lambda pair: opencv_flow(pair, params)
    taking_part["flowkit strict"] = lambda pair: strict.solve(*pair)
    taking_part["flowkit fast"] = lambda pair: fast.solve(*pair)
    try:
        from skimage.registration import optical_flow_tvl1
    except ImportError:
        pass
    else:
        taking_part["scikit-image tvl1"] = lambda pair: optical_flow_tvl1(*(frame / np.float32(255) for frame in pair))[::-1]
    return taking_part


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
    """Time every solver on every pair, in turn, and compare the flows to strict's."""
    taking_part = solvers(*pairs.shape[2:], params)
    for solve in taking_part.values():
        if len(taking_part) > 0:
            solve(np.zeros_like(pairs[0]))  # compile or load kernels, touch memory
    wall: dict[str, list[float]] = {name: [] for name in taking_part}
    thread: dict[str, list[float]] = {name: [] for name in taking_part}
    differences: dict[str, list[tuple[float, float, float]]] = {name: [] for name in taking_part}
    for pair in pairs:
        flows = {}
        for name, solve in taking_part.items():
            start, start_thread = time.perf_counter(), time.thread_time()
            flows[name] = solve(pair)
            wall[name].append(time.perf_counter() - start)
            thread[name].append(time.thread_time() - start_thread)
        for name, flow in flows.items():
            differences[name].append(difference(flow, flows["flowkit strict"]))
    base = "OpenCV DualTVL1" if "OpenCV DualTVL1" in taking_part else "flowkit strict"
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
        for name in taking_part
    }


def difference(flow: NDArray[np.float32], exact: NDArray[np.float32]) -> tuple[float, float, float]:
    """Return mean and 99th percentile of the end-point error, and the share of bytes more than one level apart."""
    error_px = np.hypot(*(flow - exact))
    levels = [np.clip(np.rint(f * 127 / BOUND_PX), -127, 127) for f in (flow, exact)]
    return float(error_px.mean()), float(np.percentile(error_px, 99)), float(np.mean(np.abs(levels[0] - levels[1]) > 1))


def solve_alone(pairs: Pairs, mode: str, params: TVL1Params, barrier) -> float:
    """Solve all pairs in this process once all others are ready; return pairs per second."""
    cv2.setNumThreads(1)
    solver = CpuSolver(*pairs.shape[2:], params, mode)
    solver.solve(*pairs[0])
    barrier.wait()
    start = time.perf_counter()
    for pair in pairs:
        solver.solve(*pair)
    return len(pairs) / (time.perf_counter() - start)


def _worker(pairs: Pairs, mode: str, params: TVL1Params, barrier, results) -> None:
    results.put(solve_alone(pairs, mode, params, barrier))


def measure_on_all_cores(pairs: Pairs, params: TVL1Params, num_processes: int, rounds: int) -> dict[str, dict[str, float]]:
    """Return pairs per second of one process and of several at once, in turn, for either mode."""
    context = get_context("spawn")
    speeds: dict[str, dict[int, list[float]]] = {mode: {1: [], num_processes: []} for mode in ("strict", "fast")}
    for _ in range(rounds):
        for mode, by_count in speeds.items():
            for count, seen in by_count.items():
                barrier, results = context.Barrier(count), context.Queue()
                workers = [context.Process(target=_worker, args=(pairs, mode, params, barrier, results)) for _ in range(count)]
                for worker in workers:
                    worker.start()
                seen.append(sum(results.get() for _ in workers))
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
    """Time `compute_flow` on the device, frames up and float flow down included."""
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
    parser.add_argument("--device", help="a GPU to measure too, such as cuda")
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
        print(f"\nflowkit {options.device}: {gpu['pairs_per_second']:.0f} pairs/s (frames up, float flow down)")
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
