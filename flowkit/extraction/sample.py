"""Read chosen frames and flow fields from a video file, byte for byte as its clip file would hold them.

This is for a video that is not in a data set, for instance to classify it. The video is decoded twice: once to count its
frames, since a header may be wrong, and once to keep the chosen ones. So memory does not grow with the video's length, and only
the chosen flow fields are solved, each of them once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flowkit.dataset.settings import ExtractSettings
from flowkit.errors import VideoDecodeError
from flowkit.extraction.results import VideoResult, with_report
from flowkit.extraction.solving import prepare_solver, quantised_flow, solver_frames
from flowkit.shards.jpeg import decode_jpeg, encode_jpeg
from flowkit.video.decode import read_frames
from flowkit.video.reading import Reading
from flowkit.warped_flow import NONE, pairs_without_camera_motion

_ALL_FRAMES = Reading()
PAIRS_AT_ONCE = 8  # flow fields that one thread solves in a row


class Sample(NamedTuple):
    """Frames and flow fields of a video, as its clip file would return them.

    Parameters
    ----------
    frames : uint8 array, shape (n, H, W, 3), RGB
        After the JPEG compression that a clip's frames go through.
    fields : uint8 array, shape (m, 2, H, W)
        Quantised flow.
    times : float64 array, shape (n,), s, or None
        The time stamps of the frames, if all are known.
    """

    frames: NDArray[np.uint8]
    fields: NDArray[np.uint8]
    times: NDArray[np.float64] | None


def count_frames(
    path: Path, *, short_side: int, reading: Reading = _ALL_FRAMES, on_frames: Callable[[int], None] | None = None
) -> VideoResult:
    """Decode a complete video and return what `flowkit extract` would report about it.

    Parameters
    ----------
    path : Path
        The video file.
    short_side : int, px
        Short side of the frames; a size that cannot be made is noticed here.
    reading : Reading
        Which frames are read.
    on_frames : callable, optional
        Receives the number of frames so far, from time to time.

    Returns
    -------
    VideoResult
        With the path as `video_id`; its status is ``ok``, ``damaged``, ``short`` or ``undecodable``.
    """
    result = VideoResult(str(path), "undecodable", 0, 0)
    try:
        for batch in read_frames(path, short_side=short_side, reading=reading):
            num_frames = batch.start + len(batch.frames)
            if on_frames is not None:
                on_frames(num_frames)
            if batch.report is not None:
                result = with_report(replace(result, num_frames=num_frames), batch.report)
    except VideoDecodeError as error:
        return replace(result, error=str(error))
    return result


def read_sample(
    path: Path,
    *,
    frames: Sequence[int],
    fields: Sequence[int],
    settings: ExtractSettings,
    device_index: int = 0,
    num_threads: int = 1,
    on_field: Callable[[int], None] | None = None,
) -> Sample:
    """Return chosen frames and quantised flow fields of a video, as its clip file would return them.

    Parameters
    ----------
    path : Path
        The video file.
    frames, fields : sequence of int
        Increasing indices, at least one of each; field k leads from frame k to k + 1.
    settings : ExtractSettings
        How clips are made: the size, the parameters and the solver of TV-L1, the quantiser, the codec.
    device_index : int
        The GPU to use, with the cuda solver.
    num_threads : int
        Number of threads that solve flow on the CPU, each for its own fields.
    on_field : callable, optional
        Receives the number of flow fields that are solved, from time to time.

    Returns
    -------
    Sample
        The frames, the flow fields and the times of the frames.

    Raises
    ------
    VideoDecodeError
        If the video cannot be decoded, or has fewer frames than are asked for.
    DeviceError
        If the device of the solver is unavailable.
    """
    first = np.asarray(fields, np.int64)
    needed = np.union1d(first, first + 1)  # the frames that the solver needs
    chosen = np.asarray(frames, np.int64)
    last = max(needed[-1], chosen[-1])
    images: list[NDArray[np.uint8]] = []
    solved_from: list[NDArray[np.uint8]] = []
    times: list[float] = []
    for batch in read_frames(path, short_side=settings.short_side, reading=settings.reading):
        stop = batch.start + len(batch.frames)
        for index in chosen[(chosen >= batch.start) & (chosen < stop)] - batch.start:
            image = np.empty_like(batch.frames[index])
            decode_jpeg(encode_jpeg(batch.frames[index]), image)
            images.append(image)
            times.append(float(batch.times[index]) if batch.times is not None else np.nan)
        inside = needed[(needed >= batch.start) & (needed < stop)] - batch.start
        solved_from.extend(solver_frames(batch.frames[inside], settings))
        if stop > last:
            break
    if len(images) < len(chosen) or len(solved_from) < len(needed):
        raise VideoDecodeError(f"{str(path)!r} has fewer than {last + 1} frames; was it changed while it was read?")
    pairs = np.stack([np.searchsorted(needed, first), np.searchsorted(needed, first + 1)], axis=1)
    if settings.solver == "cuda":
        q = _solved_on_gpu(np.stack(solved_from), pairs, settings, device_index)
    else:
        solved = []
        for run in _solved_on_cpu(np.stack(solved_from), pairs, settings, num_threads):
            solved.append(run)
            if on_field is not None:
                on_field(sum(map(len, solved)))
        q = np.concatenate(solved)
    if settings.codec == "jpeg":
        for plane in q.reshape(-1, *q.shape[2:]):
            decode_jpeg(encode_jpeg(plane), plane)
    return Sample(np.stack(images), q, np.array(times) if np.isfinite(times).all() else None)


def _solved_on_gpu(greys: NDArray[np.uint8], pairs: NDArray[np.int64], settings: ExtractSettings, device_index: int) -> NDArray[np.uint8]:
    """Return the quantised flow of pairs (m, 2) of grey frames (n, H, W): uint8 (m, 2, H, W)."""
    from flowkit.flow.cuda.solver import MAX_PAIRS, CudaSolver

    height, width = greys.shape[1:]
    if settings.camera_motion != NONE:
        runs = [greys[run[0, 0] : run[-1, 1] + 1] for run in _runs(pairs)]
        warped = [few for run in runs for few in pairs_without_camera_motion(run, camera_motion=settings.camera_motion)]
        greys, pairs = np.concatenate(warped).reshape(-1, height, width), np.arange(2 * len(pairs)).reshape(-1, 2)
    bound, mapping, at_once = settings.quantiser.bound, settings.quantiser.mapping, min(len(pairs), MAX_PAIRS)
    with CudaSolver(height, width, settings.tvl1, device_index=device_index, bound=bound, mapping=mapping, max_pairs=at_once) as solver:
        return solver.solve(greys, pairs)


def _solved_on_cpu(
    frames: NDArray[np.uint8], pairs: NDArray[np.int64], settings: ExtractSettings, num_threads: int
) -> Iterator[NDArray[np.uint8]]:
    """Yield the quantised flow of increasing pairs (m, 2) of neighbours among frames (n, H, W[, 3]), run by run, in order."""

    def solve(run: NDArray[np.int64]) -> NDArray[np.uint8]:
        return quantised_flow(frames[run[0, 0] : run[-1, 1] + 1], settings)

    prepare_solver(settings)  # in one thread: the others would compile the same kernels again
    with ThreadPoolExecutor(num_threads) as threads:
        yield from threads.map(solve, _runs(pairs))


def _runs(pairs: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Split pairs of neighbours into runs of at most `PAIRS_AT_ONCE`, in which each pair starts where the one before ends."""
    runs = np.split(pairs, np.flatnonzero(np.diff(pairs[:, 0]) != 1) + 1)
    return [run[at : at + PAIRS_AT_ONCE] for run in runs for at in range(0, len(run), PAIRS_AT_ONCE)]
