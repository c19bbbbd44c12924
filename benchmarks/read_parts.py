"""Measure the parts of reading a clip (10 flow fields and 1 frame): decompression, checksums, JPEG and the rest.

    python benchmarks/read_parts.py DATA_ROOT

Each part is timed separately on the same random windows of the default codec, many times, and the shortest time counts for each
window, so that other work on the machine matters little. The last row, half the size of the frame, shows that decoding at a smaller
scale saves nothing, because a JPEG decoder spends most of its time on entropy coding. The structure is what a process reads of a
clip before its first window.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import h5py
import numpy as np

from flowkit.dataset.paths import clip_paths
from flowkit.shards.chunks import CHECKSUM_BYTES, check_chunk
from flowkit.shards.native import zstd_decompressor
from flowkit.shards.reader import ShardReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowkit.shards.reader import Clip

WINDOW = 10


def least_ms(repeats: int, part: Callable[[], object]) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        part()
        times.append(time.perf_counter() - started)
    return 1000 * min(times)


def parts_of(path: Path, clip: Clip, start: int, repeats: int) -> dict[str, float]:
    """Return the milliseconds of each part of reading one window."""
    with h5py.File(path, "r", locking=False) as file:
        flow = file["videos/000000/flow"].id
        chunks = [bytes(flow.read_direct_chunk((k, 0, 0, 0))[1]) for k in range(start, start + WINDOW)]
    jpeg = np.frombuffer(clip.encoded_frames(start + 5, start + 6)[0], np.uint8)
    pairs = np.empty((WINDOW, 2, clip.height, clip.width), np.uint8)
    decompress = zstd_decompressor()
    assert decompress is not None, "libzstd is hidden on this system"
    sources = [(np.frombuffer(chunk, np.uint8).ctypes.data, len(chunk) - CHECKSUM_BYTES) for chunk in chunks]
    targets = [pair.ctypes.data for pair in pairs]

    def structure() -> None:
        with ShardReader(path) as reader:
            reader.clip(clip.video_id)

    return {
        "all": least_ms(repeats, lambda: (clip.flow(start, start + WINDOW), clip.frames([start + 5]))),
        "flow: zstd": least_ms(repeats, lambda: [decompress(*s, t, pairs[0].nbytes) for s, t in zip(sources, targets, strict=True)]),
        "flow: checksums": least_ms(repeats, lambda: [check_chunk(chunk) for chunk in chunks]),
        "frame: JPEG": least_ms(repeats, lambda: cv2.imdecode(jpeg, cv2.IMREAD_COLOR)),
        "(structure, once per process)": least_ms(repeats, structure),
        "(frame at half its size)": least_ms(repeats, lambda: cv2.imdecode(jpeg, cv2.IMREAD_REDUCED_COLOR_2)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0] if __doc__ else None)
    parser.add_argument("root", type=Path, help="a data root with clip files")
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    paths = clip_paths(arguments.root)
    if not paths:
        parser.error(f"{arguments.root} holds no clip files")
    draw = np.random.default_rng(0)
    times: dict[str, list[float]] = {}
    for k in range(arguments.clips):
        path = paths[k % len(paths)]
        with ShardReader(path) as reader:
            clip = reader.clip(reader.video_ids[0])
            start = int(draw.integers(clip.num_frames - WINDOW))
            for name, ms in parts_of(path, clip, start, arguments.repeats).items():
                times.setdefault(name, []).append(ms)
    total = float(np.mean(times["all"]))
    print("| part | ms per clip | of all |\n|---|--:|--:|")
    for name, values in times.items():
        print(f"| {name} | {np.mean(values):.2f} | {100 * np.mean(values) / total:.0f} % |")


if __name__ == "__main__":
    main()
