"""Frames of textures in motion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def moving_texture(
    num_frames: int, height: int, width: int, *, seed: int = 0, step: tuple[float, float] = (1.7, -0.8), noise: float = 1.5
) -> NDArray[np.uint8]:
    """Return grey frames (T, H, W) of a smooth texture that moves by `step` px per frame, with noise of that deviation."""
    rng = np.random.default_rng(seed)
    texture = cv2.GaussianBlur(rng.random((height + 60, width + 60)).astype(np.float32), (0, 0), 1.8)
    texture = (texture - texture.min()) / np.ptp(texture) * 255
    x, y = np.meshgrid(np.arange(width, dtype=np.float32) + 30, np.arange(height, dtype=np.float32) + 30)
    frames = []
    for k in range(num_frames):
        moved = cv2.remap(texture, x - np.float32(step[0] * k), y - np.float32(step[1] * k), cv2.INTER_CUBIC)
        frames.append((moved + rng.normal(scale=noise, size=(height, width))).clip(0, 255).astype(np.uint8))
    return np.stack(frames)


def moving_blocks(num_frames: int, seed: int = 0, *, height: int = 46, width: int = 60) -> NDArray[np.uint8]:
    """Return RGB frames (T, H, W, 3) of coloured blocks of 4 x 4 px that move by whole pixels, faster for some seeds."""
    texture = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    speed = 1 + seed % 3
    return np.stack([texture[k % 60 : k % 60 + height, speed * k % 90 : speed * k % 90 + width] for k in range(num_frames)])
