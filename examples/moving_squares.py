"""Small generated videos for the other examples: a textured square that moves to the right, moves down, or grows."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

HEIGHT, WIDTH, NUM_FRAMES = 64, 80, 12


def frames_of(motion: str, seed: int) -> np.ndarray:
    """Return one video: uint8 (T, H, W, 3), BGR as OpenCV has it."""
    draw = np.random.default_rng(seed)
    background = cv2.GaussianBlur(draw.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8), (0, 0), 3)
    square = cv2.GaussianBlur(draw.integers(0, 256, (24, 24, 3), dtype=np.uint8), (0, 0), 1)
    left, top = int(draw.integers(4, 20)), int(draw.integers(4, 12))
    frames = np.repeat(background[None], NUM_FRAMES, axis=0)
    for k, frame in enumerate(frames):
        x, y, side = left + 2 * k * (motion == "right"), top + 2 * k * (motion == "down"), 24 + k * (motion == "grows")
        frame[y : y + side, x : x + side] = cv2.resize(square, (side, side))
    return frames


def write_videos(folder: Path, *, per_class: int = 6) -> Path:
    """Write ``folder/<class>/v_<class>_g<group>_c01.avi`` for three classes, and return the folder."""
    for motion in ("right", "down", "grows"):
        (folder / motion).mkdir(parents=True, exist_ok=True)
        for group in range(per_class):
            path = folder / motion / f"v_{motion}_g{group + 1:02d}_c01.avi"
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 12, (WIDTH, HEIGHT))
            for frame in frames_of(motion, seed=group):
                writer.write(frame)
            writer.release()
    return folder
