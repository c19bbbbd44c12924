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

from flowkit.dataset.settings import ExtractSettings
from flowkit.extraction import solving
from flowkit.flow.cuda.service import FlowService
from flowkit.flow.cuda.solver import CudaSolver
from flowkit.flow.params import TVL1Params
from flowkit.quantise import Quantiser
from flowkit.shards.schema import ClipAttributes
from flowkit.shards.writer import ClipWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from flowkit.flow.cuda.client import ServiceAddress

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


def write_clips(frames_path: Path, folder: str, address: ServiceAddress, batches_ahead: int, worker: int, repeats: int) -> int:
    """Solve, encode and write a clip `repeats` times, with so many clips in flight; return the number of pairs."""
    solving.BATCHES_AHEAD = batches_ahead
    clips = stored_clips(frames_path)

    def begun() -> Iterator[tuple[ClipWriter, int]]:
        for repeat in range(repeats):
            grey = clips[(worker + repeat) % len(clips)]
            height, width = grey.shape[1:]
            flows.begin(grey)
            writer = ClipWriter(Path(folder) / f"{worker}-{repeat}.h5", codec="none", height=height, width=width)
            writer.append_frames(np.repeat(grey[..., None], 3, axis=-1))
            yield writer, len(grey)

    num_pairs = 0
    with solving.FlowQueue(ExtractSettings(solver="cuda", codec="none"), address) as flows:
        for writer, num_frames in flows.in_order(begun()):
            writer.append_flow(flows.take())
            writer.finish(clip_attributes_for(writer.path.stem, num_frames, "none"))
            num_pairs += num_frames - 1
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


def run_pipeline(frames_path: Path, device: int, *, num_workers: int, repeats: int, batches_ahead: int = solving.BATCHES_AHEAD) -> float:
    """Return the pairs per second with this many processes, each with so many batches in flight, without the start of the processes."""
    with (
        tempfile.TemporaryDirectory() as folder,
        FlowService([partial(make_solver, device)]) as service,
        ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool,
    ):
        work = partial(write_clips, frames_path, folder, service.addresses[0], batches_ahead)
        list(pool.map(work, range(num_workers), [1] * num_workers))  # afterwards imports, kernels and memory are ready
        began = time.perf_counter()
        num_pairs = sum(pool.map(work, range(num_workers), [repeats] * num_workers))
        return num_pairs / (time.perf_counter() - began)
