"""Compare the GPU kernels, emulated on the CPU, with the strict solver on real pairs: this needs g++ but no GPU.

    python benchmarks/emulated_parity.py --data ../shared/data --pairs 20 --jobs 2

The pairs are 340x256 px, from UCF101 videos and from Middlebury's ground truth, with default parameters. For each pair and for all
together this prints the mean end-point error, its 99th percentile, the share of bytes that differ by more than one level, and the
gates. The exit code is 1 if a gate fails. One pair takes about ten seconds on one core.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from flow_gates import GPU_GATES, FlowDistance
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "support" / "emulation"))

Pair = tuple[str, NDArray[np.uint8]]


def real_pairs(data: Path, count: int) -> list[Pair]:
    """Return (name, grey frames (2, 256, 340)): crops of Middlebury, then frames of UCF101 videos, spread over videos and time."""
    import cv2

    from flowkit.flow import to_grey
    from flowkit.video.decode import read_frames

    pairs: list[Pair] = []
    for folder in sorted((data / "flow_gt" / "middlebury").iterdir()):
        frames = [cv2.imread(str(folder / name), cv2.IMREAD_GRAYSCALE) for name in ("frame10.png", "frame11.png")]
        top, left = (frames[0].shape[0] - 256) // 2, (frames[0].shape[1] - 340) // 2
        pairs.append((f"middlebury/{folder.name}", np.stack(frames)[:, top : top + 256, left : left + 340]))
    clips = sorted((data / "videos" / "ucf101").rglob("*.avi"))
    for number in range(max(0, count - len(pairs))):
        clip = clips[number % len(clips)]
        first = 20 + 31 * (number // len(clips))
        frames = np.concatenate([batch.frames for batch in _first_batches(read_frames(clip), first + 2)])
        pairs.append((f"{clip.stem}[{first}]", to_grey(frames[first : first + 2])))
    return pairs[:count]


def _first_batches(batches: Any, num_frames: int) -> Iterator[Any]:  # type: ignore[no-untyped-def]
    for batch in batches:
        yield batch
        if batch.start + len(batch.frames) >= num_frames:
            return


def compare(pair: Pair, preset: str, fused: int) -> tuple[str, NDArray[np.float32], NDArray[np.float32], float]:
    """Return the name of the pair, its flow from the emulated kernels and from the strict solver, and the time of the first in s."""
    import cv2
    from emulated_device import EmulatedDevice

    from flowkit.flow import compute_flow
    from flowkit.flow.cuda.solver import CudaSolver
    from flowkit.flow.params import TVL1Params

    cv2.setNumThreads(1)
    name, frames = pair
    params = TVL1Params.preset(preset)
    start = time.perf_counter()
    with CudaSolver(*frames.shape[1:], params, device=EmulatedDevice, max_pairs=1, num_lanes=1, num_fused_iterations=fused) as solver:
        flow = solver.solve(frames)
    seconds = time.perf_counter() - start
    return name, flow, compute_flow(frames, params=params), seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data", help="folder of real videos and pairs"
    )
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--preset", default="opencv")
    parser.add_argument("--fused", type=int, default=5, help="iterations per launch")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    options = parser.parse_args()
    if not options.data.is_dir():
        print(f"no such folder: {options.data}; name one with flow_gt/middlebury and videos/ucf101 with --data", file=sys.stderr)
        return 2
    pairs = real_pairs(options.data, options.pairs)
    flows, references = [], []
    with ProcessPoolExecutor(options.jobs) as pool:
        jobs = [pool.submit(compare, pair, options.preset, options.fused) for pair in pairs]
        for job in jobs:
            name, flow, reference, seconds = job.result()
            print(f"{name:32} {FlowDistance.between(flow, reference)}   ({seconds:.1f} s)", flush=True)
            flows.append(flow)
            references.append(reference)
    overall = FlowDistance.between(np.concatenate(flows), np.concatenate(references))
    verdict = "within" if overall.within(GPU_GATES) else "BEYOND"
    print(f"{f'{len(pairs)} pairs, {options.preset}':32} {overall}: {verdict} the gates ({GPU_GATES})")
    return 0 if overall.within(GPU_GATES) else 1


if __name__ == "__main__":
    sys.exit(main())
