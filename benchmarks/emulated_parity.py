"""Compare the GPU kernels, emulated on the CPU, with the strict solver on real pairs: this needs g++ but no GPU.

    python benchmarks/emulated_parity.py --data ../shared/data --pairs 20 --jobs 2

    python benchmarks/emulated_parity.py --tile 64x48 --rows 2 --fused 3 --pairs 3   # one tiling, for all levels of the pyramid
    python benchmarks/emulated_parity.py --every-tiling --pairs 3                    # every tile that a plan may choose, 1 to 5 iterations
    python benchmarks/emulated_parity.py --size 65x33                                # the middle of each pair: small frames

By default the tilings are those that the plan chooses on an H200. The pairs are 340x256 px, from UCF101 videos and from Middlebury's
ground truth, with default parameters. For each pair and for all together this prints the mean end-point error, its 99th percentile,
the share of bytes that differ by more than one level, and the gates. The exit code is 1 if a gate fails. One pair takes one to ten
seconds on one core.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from flow_gates import GPU_GATES, FlowDistance
from numpy.typing import NDArray

from flowkit.flow.cuda.tiles import HALF_VARIANTS, NUM_FUSED_ITERATIONS, VARIANTS, TileShape, Tiling

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


def middle(pair: Pair, width: int, height: int) -> Pair:
    """Return the middle of the frames of a pair."""
    name, frames = pair
    top, left = (frames.shape[1] - height) // 2, (frames.shape[2] - width) // 2
    return name, np.ascontiguousarray(frames[:, top : top + height, left : left + width])


def _first_batches(batches: Any, num_frames: int) -> Iterator[Any]:  # type: ignore[no-untyped-def]
    for batch in batches:
        yield batch
        if batch.start + len(batch.frames) >= num_frames:
            return


def emulated_flow(pair: Pair, preset: str, tile: TileShape | None, fused: int | None) -> tuple[NDArray[np.float32], float]:
    """Return the flow of a pair from the emulated kernels, and the time in s."""
    from emulated_device import EmulatedDevice

    from flowkit.flow.cuda.solver import CudaSolver
    from flowkit.flow.params import TVL1Params

    _, frames = pair
    start, size = time.perf_counter(), frames.shape[1:]
    one = {"max_pairs": 1, "num_lanes": 1}
    with CudaSolver(*size, TVL1Params.preset(preset), device=EmulatedDevice, tile=tile, num_fused_iterations=fused, **one) as solver:
        flow = solver.solve(frames)
    return flow, time.perf_counter() - start


def strict_flow(pair: Pair, preset: str) -> NDArray[np.float32]:
    """Return the flow of a pair from the strict solver."""
    import cv2

    from flowkit.flow import compute_flow
    from flowkit.flow.params import TVL1Params

    cv2.setNumThreads(1)
    return compute_flow(pair[1], params=TVL1Params.preset(preset))


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{2,3})x(\d{2,3})", text)
    width, height = (int(match[1]), int(match[2])) if match else (0, 0)
    if not (16 <= width <= 340 and 16 <= height <= 256):
        raise argparse.ArgumentTypeError(f"write width and height in px, from 16x16 to 340x256, got {text!r}")
    return width, height


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data", help="folder of real videos and pairs"
    )
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--preset", default="opencv")
    parser.add_argument("--size", type=_size, default=(340, 256), metavar="WIDTHxHEIGHT", help="the middle of each frame, at most 340x256")
    parser.add_argument("--tile", metavar="WIDTHxHEIGHT", help="tile of iterate; by default the plan's choice")
    parser.add_argument("--rows", type=int, choices=(1, 2, 4), help="rows of a patch, where two variants have the same tile")
    parser.add_argument("--fused", type=int, help="iterations per launch; by default the plan's choice")
    parser.add_argument("--half", action="store_true", help="the variant with dual variables in half precision, with --tile 64x32")
    parser.add_argument("--every-tiling", action="store_true", help="every variant, with 1 to 5 iterations per launch or with --fused")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    options = parser.parse_args()
    if not options.data.is_dir():
        print(f"no such folder: {options.data}; name one with flow_gt/middlebury and videos/ucf101 with --data", file=sys.stderr)
        return 2
    tilings = chosen_tilings(options)
    if not tilings:
        parser.error(f"no variant has tiles of {options.tile} px; there are {', '.join(map(str, VARIANTS))}")
    pairs = [middle(pair, *options.size) for pair in real_pairs(options.data, options.pairs)]
    size, all_within = "x".join(map(str, options.size)), True
    with ProcessPoolExecutor(options.jobs) as pool:
        references = [pool.submit(strict_flow, pair, options.preset) for pair in pairs]
        for tile, fused in tilings:
            name = f"{tile or 'the plan of an H200'}, {fused or 'its'} iterations"
            jobs = [pool.submit(emulated_flow, pair, options.preset, tile, fused) for pair in pairs]
            flows = []
            for pair, job, reference in zip(pairs, jobs, references, strict=True):
                flow, seconds = job.result()
                print(f"{pair[0]:32} {FlowDistance.between(flow, reference.result())}   ({seconds:.1f} s)", flush=True)
                flows.append(flow)
            overall = FlowDistance.between(np.concatenate(flows), np.concatenate([reference.result() for reference in references]))
            verdict = "within" if overall.within(GPU_GATES) else "BEYOND"
            all_within &= overall.within(GPU_GATES)
            print(
                f"{name}, {len(pairs)} pairs, {size}, {options.preset}: {overall}: {verdict} the gates ({GPU_GATES})",
                flush=True,
            )
    return 0 if all_within else 1


def chosen_tilings(options: argparse.Namespace) -> list[tuple[TileShape | None, int | None]]:
    """Return (tile, iterations per launch) of each tiling to compare; None: what the plan chooses."""
    if options.every_tiling:
        depths = [options.fused] if options.fused else range(1, NUM_FUSED_ITERATIONS + 1)
        return [(tile, fused) for tile in (*VARIANTS, *HALF_VARIANTS) for fused in depths if Tiling(tile, fused).is_possible]
    if options.tile is None:
        return [(None, options.fused)]
    found = [
        tile
        for tile in (*VARIANTS, *HALF_VARIANTS)
        if tile.half_dual == options.half and f"{tile.width}x{tile.height}" == options.tile and options.rows in (None, tile.rows)
    ]
    return [(tile, options.fused) for tile in found[:1]]


if __name__ == "__main__":
    sys.exit(main())
