"""Measure encoding processes beside the GPU's process, as `extract` runs them, with stored frames instead of a video decoder."""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flowkit.flow.cuda.service import FlowClient, FlowService, ServiceAddress
from flowkit.flow.cuda.solver import CudaSolver
from flowkit.flow.params import TVL1Params
from flowkit.quantise import Quantiser
from flowkit.shards.schema import ClipAttributes
from flowkit.shards.writer import ClipWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

BOUND = 20.0


def make_solver(device: int, height: int, width: int, *, on_batch: Callable[[], None]) -> CudaSolver:
    """Return the solver for a frame size, in the GPU's process."""
    return CudaSolver(height, width, TVL1Params(), device_index=device, bound=BOUND, on_batch=on_batch)


@cache
def stored_clips(path: Path) -> NDArray[np.uint8]:
    """Return the clips, which each process reads once."""
    with np.load(path) as file:
        clips: NDArray[np.uint8] = file["clips_340x256"]
    return clips


def write_clips(frames_path: Path, folder: str, address: ServiceAddress, worker: int, repeats: int) -> int:
    """Solve, encode and write a clip `repeats` times; return the number of pairs."""
    clips = stored_clips(frames_path)
    client = FlowClient(address)
    num_pairs = 0
    for repeat in range(repeats):
        grey = clips[(worker + repeat) % len(clips)]
        height, width = grey.shape[1:]
        path = Path(folder) / f"{worker}-{repeat}.h5"
        with ClipWriter(path, codec="none", height=height, width=width) as writer:
            writer.append_frames(np.repeat(grey[..., None], 3, axis=-1))
            writer.append_flow(client.solve(grey))
            writer.finish(clip_attributes_for(path.stem, len(grey), "none"))
        num_pairs += len(grey) - 1
    client.close()
    return num_pairs


def clip_attributes_for(name: str, num_frames: int, codec: str) -> ClipAttributes:
    """Return the attributes of a clip file that a benchmark writes."""
    return ClipAttributes(
        video_id=f"benchmark/{name}",
        class_name="benchmark",
        source_name=f"{name}.avi",
        source_sha256="0" * 64,
        frame_rate="25/1",
        num_frames=num_frames,
        header_frames=num_frames,
        decode_errors=0,
        codec=codec,
        quantiser=Quantiser(BOUND).to_dict(),
        tvl1=TVL1Params().to_dict(),
        solver="cuda",
    )


def run_pipeline(frames_path: Path, device: int, *, num_workers: int, repeats: int) -> float:
    """Return the pairs per second with this many processes, without their start."""
    with (
        tempfile.TemporaryDirectory() as folder,
        FlowService([partial(make_solver, device)]) as service,
        ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool,
    ):
        work = partial(write_clips, frames_path, folder, service.addresses[0])
        list(pool.map(work, range(num_workers), [1] * num_workers))  # afterwards imports, kernels and memory are ready
        began = time.perf_counter()
        num_pairs = sum(pool.map(work, range(num_workers), [repeats] * num_workers))
        return num_pairs / (time.perf_counter() - began)
