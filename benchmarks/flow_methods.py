"""Compare flow methods: errors on pairs with ground truth; time, bytes on disk and agreement with TV-L1 on real videos.

    python benchmarks/flow_methods.py --data ../shared/data [--raft small=FILE] [--raft large=torchvision] [--clips 6] [--fields 8]

DATA holds ``flow_gt`` (Middlebury, FlyingChairs, KITTI) and ``videos/ucf101``. The methods take turns on every pair or clip, in one process
on one core, and times are processor times; so their ratios to TV-L1 can be compared, and the times themselves only within one run. The end-
point error is that of all pixels with ground truth, at the size of the frames. Real clips have a short side of 256 px; the bytes are those
of the codec zstd. ``--raft small=random`` measures the time of RAFT without its weights, whose flow means nothing.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from flowkit import Quantiser, compute_flow, read_frames
from flowkit.shards.schema import ClipAttributes
from flowkit.shards.structure import ShardStructure
from flowkit.shards.writer import ClipWriter

FLO_MAGIC = 202021.25
UNKNOWN_PX = 1e9
QUANTISER = Quantiser()
BASE = "tvl1"
FIRST_FRAME = 20


@dataclass(frozen=True)
class Method:
    """One row of the tables: what `compute_flow` is given."""

    name: str
    arguments: dict[str, Any]
    has_meaning: bool = True  # RAFT with random weights has none

    def flow(self, frames: NDArray[np.uint8]) -> tuple[NDArray[np.float32], float]:
        """Return the flow and the processor time of this thread, s."""
        start = time.thread_time()
        flow = compute_flow(frames, **self.arguments)
        return flow, time.thread_time() - start


@dataclass
class Measured:
    """What was found of one method on all clips, one number for each."""

    ms: list[float] = field(default_factory=list)
    num_bytes: list[float] = field(default_factory=list)
    mean: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    bytes_off: list[float] = field(default_factory=list)


def ground_truth(data: Path) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.float32], NDArray[np.bool_]]]:
    """Yield name, RGB frames (2, H, W, 3), flow (2, H, W) and which pixels have flow, (H, W)."""
    folder = data / "flow_gt"
    for pair in sorted((folder / "middlebury").iterdir()):
        yield pair.name, _frames(pair / "frame10.png", pair / "frame11.png"), *_read_flo(pair / "flow10.flo")
    for path in sorted((folder / "flyingchairs").glob("*-gt.flo")):
        stem = path.name.removesuffix("-gt.flo")
        yield f"FlyingChairs {stem}", _frames(*(path.with_name(f"{stem}-img{k}.ppm") for k in (0, 1))), *_read_flo(path)
    for path in sorted((folder / "kitti").glob("kitti_occ_*.png")):
        stem = path.name.removeprefix("kitti_occ_").removesuffix("_10.png")
        stored = cv2.imread(str(path), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_COLOR)[..., ::-1].astype(np.float32)  # u, v, whether it is known
        flow = ((stored[..., :2] - 2**15) / 64).transpose(2, 0, 1)
        yield f"KITTI {stem}", _frames(*(path.with_name(f"kitti_{stem}_1{k}.png") for k in (0, 1))), flow, stored[..., 2] > 0


def _frames(*paths: Path) -> NDArray[np.uint8]:
    return np.stack([cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in paths])


def _read_flo(path: Path) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    stored = path.read_bytes()
    assert np.frombuffer(stored, "<f4", 1)[0] == FLO_MAGIC, path
    width, height = np.frombuffer(stored, "<i4", 2, 4)
    flow = np.frombuffer(stored, "<f4", 2 * width * height, 12).reshape(height, width, 2).transpose(2, 0, 1)
    return flow, (abs(flow) < UNKNOWN_PX).all(axis=0)


def compare_with_truth(data: Path, methods: list[Method]) -> None:
    """Print the end-point error of every method on every pair, and how long it takes compared with TV-L1."""
    methods = [method for method in methods if method.has_meaning and "camera_motion" not in method.arguments]
    print("\n| end-point error, px | " + " | ".join(method.name for method in methods) + " |")
    print("|---|" + "--:|" * len(methods))
    ratios: list[list[float]] = []
    for name, frames, truth, known in ground_truth(data):
        flows, seconds = zip(*(method.flow(frames) for method in methods), strict=True)
        errors = [np.hypot(*(flow[0] - truth))[known].mean() for flow in flows]
        ratios.append([own / seconds[0] for own in seconds])
        print(f"| {name}, {frames.shape[2]}x{frames.shape[1]} | " + " | ".join(f"{error:.3f}" for error in errors) + " |", flush=True)
    medians = [statistics.median(column) for column in zip(*ratios, strict=True)]
    print("| time, as a multiple of TV-L1's (median of the pairs) | " + " | ".join(f"{ratio:.3g}" for ratio in medians) + " |")


def clips(data: Path, num_clips: int, num_frames: int) -> Iterator[NDArray[np.uint8]]:
    """Yield consecutive RGB frames of so many of the videos, spread over them."""
    paths = sorted((data / "videos" / "ucf101").rglob("*.avi"))
    for path in [paths[k * len(paths) // num_clips] for k in range(min(num_clips, len(paths)))]:
        kept: list[NDArray[np.uint8]] = []
        for batch in read_frames(path, short_side=256):
            kept += list(batch.frames)
            if len(kept) >= FIRST_FRAME + num_frames:
                break
        yield np.stack(kept[FIRST_FRAME : FIRST_FRAME + num_frames])


def stored_bytes(frames: NDArray[np.uint8], q: NDArray[np.uint8]) -> float:
    """Return the bytes that one flow field takes in a clip file."""
    attributes = ClipAttributes("a/v", "a", "v", "", "25/1", len(frames), 0, 0, "zstd", QUANTISER.to_dict(), {}, "strict")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "v.h5"
        with ClipWriter(path, codec="zstd", height=frames.shape[1], width=frames.shape[2]) as writer:
            writer.append_frames(frames)
            writer.append_flow(q)
            writer.finish(attributes)
        with ShardStructure(path) as structure:
            return float(structure.layout(0).flow.sizes.sum()) / len(q)  # type: ignore[union-attr]


def compare_on_clips(data: Path, methods: list[Method], most_clips: int, num_fields: int) -> None:
    """Print time, bytes and agreement with TV-L1 of every method over all clips."""
    found = {method.name: Measured() for method in methods}
    num_clips = 0
    for frames in clips(data, most_clips, num_fields + 1):
        num_clips += 1
        base: NDArray[np.float32] | None = None
        for method in methods:
            flow, seconds = method.flow(frames)
            base = flow if base is None else base
            q, q_base = (QUANTISER.encode(some).astype(int) for some in (flow, base))
            error = np.hypot(*(flow - base).transpose(1, 0, 2, 3))
            into = found[method.name]
            into.ms.append(1000 * seconds / num_fields)
            into.num_bytes.append(stored_bytes(frames, q.astype(np.uint8)))
            into.mean.append(float(error.mean()))
            into.p99.append(float(np.percentile(error, 99)))
            into.bytes_off.append(float((abs(q - q_base) > 1).mean()))
    print(f"\n{num_clips} clips of {num_fields} flow fields, 340x256; times are medians over the clips of ms and of the ratio to TV-L1")
    print("\n| method | ms a pair | times TV-L1's | kB a field | mean px from TV-L1 | p99 px | bytes off by more than one |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for method in methods:
        own, base_ms = found[method.name], found[BASE].ms
        ratio = statistics.median(ms / other for ms, other in zip(own.ms, base_ms, strict=True))
        apart = f"{np.mean(own.mean):.3f} | {np.mean(own.p99):.2f} | {100 * np.mean(own.bytes_off):.1f} %"
        shown = f"{np.mean(own.num_bytes) / 1000:.1f} | {apart}" if method.has_meaning else "- | - | - | -"
        print(f"| {method.name} | {statistics.median(own.ms):.1f} | {ratio:.3g} | {shown} |")


def raft(text: str, folder: str) -> Method:
    """Return RAFT of a size with the weights that ``SIZE=FILE``, ``SIZE=torchvision`` or ``SIZE=random`` names."""
    import torch

    size, _, weights = text.partition("=")
    torch.set_num_threads(1)
    if weights == "random":
        import torchvision

        path = Path(folder) / f"{size}.pth"
        torch.manual_seed(0)
        torch.save(torchvision.models.get_model(f"raft_{size}", weights=None).state_dict(), path)
        return Method(f"raft {size}, random weights", {"method": "raft", "params": {"size": size, "weights": str(path)}}, has_meaning=False)
    file = "" if weights == "torchvision" else weights
    return Method(f"raft {size}", {"method": "raft", "params": {"size": size, "weights": file}})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--clips", type=int, default=18, help="real clips")
    parser.add_argument("--part", choices=("truth", "clips", "both"), default="both", help="which of the two tables")
    parser.add_argument("--fields", type=int, default=8, help="flow fields of each real clip")
    parser.add_argument("--raft", action="append", default=[], metavar="SIZE=FILE|torchvision|random")
    options = parser.parse_args()
    if not (options.data / "flow_gt").is_dir():
        print(f"{options.data} holds no flow_gt; name the folder of flow_gt and videos/ucf101 with --data", file=sys.stderr)
        return 2
    cv2.setNumThreads(1)
    presets: list[Method] = [
        Method(f"dis {preset}", {"method": "dis", "params": {"preset": preset}}) for preset in ("medium", "fast", "ultrafast")
    ]
    with tempfile.TemporaryDirectory() as folder:
        methods = [Method(BASE, {}), Method("farneback", {"method": "farneback"}), *presets, *(raft(text, folder) for text in options.raft)]
        warped = [Method(f"tvl1, camera motion {how}", {"camera_motion": how}) for how in ("sift", "flow")]
        for method in [*methods, *warped]:  # compiles or loads what they need
            method.flow(np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3), dtype=np.uint8))
        if options.part != "clips":
            compare_with_truth(options.data, methods)
        if options.part != "truth":
            compare_on_clips(options.data, [*methods, *warped], options.clips, options.fields)
    return 0


if __name__ == "__main__":
    sys.exit(main())
