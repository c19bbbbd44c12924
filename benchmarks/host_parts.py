"""Measure what the host does for each pair of frames beside a GPU: decoding, resizing, grey, JPEG, cuts, compression, writing.

    python benchmarks/host_parts.py VIDEO ... [--frames 40]

The times are processor time of one thread, per pair, as medians over the videos; from their sum follows how many cores it takes to
keep a GPU busy. Flow is solved first, in mode `fast`, because its compression depends on what it shows.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import av
import cv2
import numpy as np
from gpu_pipeline import clip_attributes_for

from flowkit.dataset.settings import ExtractSettings
from flowkit.extraction.flow_range import VideoRange
from flowkit.flow import compute_flow, to_grey
from flowkit.quantise import Quantiser
from flowkit.scenes.measures import PairScan
from flowkit.shards.writer import ClipWriter
from flowkit.video.decode import read_frames

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

GOALS = (2500, 3500, 4500)  # pairs per second of a GPU


@contextmanager
def clock(parts: dict[str, float], name: str) -> Iterator[None]:
    """Add the processor time of a block to a part."""
    began = time.thread_time()
    yield
    parts[name] = parts.get(name, 0.0) + time.thread_time() - began


def measure(video: Path, num_frames: int, folder: Path) -> dict[str, float]:
    """Return the seconds of each part per pair."""
    parts: dict[str, float] = {}
    with clock(parts, "decode"), av.open(str(video)) as container:
        container.streams.video[0].thread_type = "NONE"
        for k, _ in enumerate(container.decode(video=0)):
            if k + 1 == num_frames:
                break
    batches: list[NDArray[np.uint8]] = []
    with clock(parts, "decode, convert, resize"):
        for batch in read_frames(video):
            batches.append(batch.frames)
            if sum(map(len, batches)) >= num_frames:
                break
    rgb = np.concatenate(batches)[:num_frames]
    with clock(parts, "grey"):
        grey = to_grey(rgb)
    shared = np.empty_like(grey)
    with clock(parts, "to and from the GPU's process"):  # one copy there, one back
        shared[...] = grey
    q = Quantiser().encode(compute_flow(grey, mode="fast"))
    with clock(parts, "to and from the GPU's process"):
        q = q.copy()
    for codec in ("none", "zstd"):
        with ClipWriter(folder / f"{codec}.h5", codec=codec, height=grey.shape[1], width=grey.shape[2]) as writer:
            with clock(parts, f"JPEG ({codec})"):
                jpegs = writer.append_frames(rgb)
            if codec == "none":
                with clock(parts, "cuts and repeated frames"):
                    PairScan().add(jpegs, rgb.shape[1:3])
                with clock(parts, "range of the flow"):
                    VideoRange(ExtractSettings()).add(rgb, q)
            with clock(parts, f"flow ({codec})"):
                writer.append_flow(q)
            with clock(parts, f"end of the file ({codec})"):
                writer.finish(clip_attributes_for("part", len(rgb), codec))
    return {name: seconds / len(q) for name, seconds in parts.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path, nargs="+")
    parser.add_argument("--frames", type=int, default=40, help="of each video")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        measure(options.videos[0], 3, Path(folder))  # loads and compiles
        measured = [measure(video, options.frames, Path(folder)) for video in options.videos]
    parts = {name: statistics.median(one[name] for one in measured) for name in measured[0]}
    for name, seconds in parts.items():
        print(f"{name:32} {1e3 * seconds:8.3f} ms per pair")
    for codec in ("zstd", "none"):
        names = [
            "decode, convert, resize",
            "grey",
            "to and from the GPU's process",
            "cuts and repeated frames",
            "range of the flow",
            f"JPEG ({codec})",
            f"flow ({codec})",
            f"end of the file ({codec})",
        ]
        total = sum(parts[name] for name in names)
        cores = ", ".join(f"{goal * total:.1f} for {goal:,}" for goal in GOALS)
        print(f"all with {codec}: {1e3 * total:.3f} ms, so {1 / total:.0f} pairs/s and core; cores needed: {cores} pairs/s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
