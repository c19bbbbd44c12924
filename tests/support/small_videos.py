"""Small lossless videos that tests write, the settings they are extracted with, and the clip files that come of it."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from flowkit.dataset.settings import ExtractSettings

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = ExtractSettings(short_side=32)


def write_video(path: Path, num_frames: int, *, width: int = 48, height: int = 36, seed: int = 0) -> Path:
    """Write a lossless video of a drifting texture."""
    import av
    import cv2

    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (height + 80, width + 80, 3), dtype=np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    texture = cv2.normalize(smooth, np.empty_like(smooth), 0, 255, cv2.NORM_MINMAX)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "bgr0"
        for k in range(num_frames):
            window = np.ascontiguousarray(texture[k % 80 : k % 80 + height, k % 40 : k % 40 + width], np.uint8)
            frame = av.VideoFrame.from_ndarray(window, format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def files_of(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted((root / "clips").rglob("*.h5"))}
