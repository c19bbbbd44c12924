"""Small clips for the tests of shards: made, written, and their settings."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from flowkit.dataset.paths import clip_path
from flowkit.dataset.root import open_root
from flowkit.dataset.settings import ExtractSettings
from flowkit.quantise import Quantiser
from flowkit.shards.schema import ClipAttributes
from flowkit.shards.writer import ClipWriter

HEIGHT, WIDTH = 32, 44
SETTINGS = ExtractSettings(short_side=HEIGHT)

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = NDArray[np.uint8]


def attributes(video_id: str, num_frames: int, **changes: object) -> ClipAttributes:
    made = ClipAttributes(
        video_id=video_id,
        class_name=video_id.rpartition("/")[0],
        source_name=video_id.rpartition("/")[2] + ".avi",
        source_sha256=hashlib.sha256(video_id.encode()).hexdigest(),
        frame_rate="25/1",
        num_frames=num_frames,
        header_frames=num_frames,
        decode_errors=0,
        codec=SETTINGS.codec,
        quantiser=SETTINGS.quantiser.to_dict(),
        tvl1=SETTINGS.tvl1.to_dict(),
        solver=SETTINGS.solver,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def clip_arrays(num_frames: int, *, seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> tuple[Array, Array]:
    """Smooth frames (T, H, W, 3) and flow (T-1, 2, H, W) with some texture, different for each seed and at each time."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = rng.uniform(0.02, 0.1, (num_frames, 5, 2)) * np.array([1, 1, 1, 5, 5])[:, None]  # JPEG blurs fine colours
    fields = np.sin(waves[:, :, 0, None, None] * x + waves[:, :, 1, None, None] * y + rng.uniform(0, 6, (num_frames, 5, 1, 1)))
    frames = (127 + 100 * fields[:, :3]).astype(np.uint8).transpose(0, 2, 3, 1)
    flow = (128 + np.rint(40 * fields[:-1, 3:])).astype(np.uint8)
    return np.ascontiguousarray(frames), flow


def write_clip(
    path: Path, video_id: str = "Run/v_Run_g01_c01", *, num_frames: int = 12, seed: int = 0, codec: str = "zstd", **changes: object
) -> tuple[Array, Array]:
    """Write a clip file and return what was put in."""
    frames, flow = clip_arrays(num_frames, seed=seed)
    if codec == "no-flow":
        changes = {"solver": codec, "tvl1": {}, **changes}
    with ClipWriter(path, codec=codec, height=HEIGHT, width=WIDTH) as writer:
        writer.append_frames(frames)
        if codec != "no-flow":
            writer.append_flow(flow)
        writer.finish(attributes(video_id, num_frames, codec=codec, **changes))
    return frames, flow


def make_root(folder: Path, videos: dict[str, int], *, source: Path | None = None) -> Path:
    """Make a data root with a clip for each video id, of the given number of frames; its seed is its place in the sorted ids."""
    root = folder / "flowkit-data"
    open_root(root, source or folder / "videos", SETTINGS)
    for seed, video_id in enumerate(sorted(videos)):
        write_clip(clip_path(root, video_id), video_id, num_frames=videos[video_id], seed=seed)
    return root


def make_smooth_root(
    root: Path, video_ids: Sequence[str], *, codec: Any = "zstd", mapping: Any = "symmetric", num_frames: int = 5, deviation_px: float = 5
) -> Path:
    """Make a data root of clips of 40x56 px with smooth flow, whose header promised one frame more and which had two decode errors.

    Every second one knows the time stamps of its frames.
    """
    settings = ExtractSettings(quantiser=Quantiser(20.0, mapping), short_side=40, codec=codec)
    open_root(root, Path("videos"), settings)
    for number, video_id in enumerate(video_ids):
        draw = np.random.default_rng(number)
        coarse = draw.normal(0, deviation_px, (num_frames - 1, 2, 4, 5)).astype(np.float32)
        flow = np.array([[cv2.resize(plane, (56, 40)) for plane in pair] for pair in coarse])
        with ClipWriter(clip_path(root, video_id), codec=codec, height=40, width=56) as writer:
            writer.append_frames(draw.integers(0, 255, (num_frames, 40, 56, 3), dtype=np.uint8))
            writer.append_flow(settings.quantiser.encode(flow))
            stored = {"codec": codec, "quantiser": settings.quantiser.to_dict(), "tvl1": settings.stored_tvl1()}
            changes = {"source_name": "x.avi", "frame_rate": "30000/1001", "header_frames": num_frames + 1, "decode_errors": 2}
            times = None if number % 2 else np.cumsum(draw.uniform(0.01, 0.1, num_frames))
            writer.finish(attributes(video_id, num_frames, **stored, **changes), times=times)
    return root
