"""The arithmetic of batches of frame pairs: pyramid levels, tiles, device memory, and how pairs are divided into batches."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import ParameterError
from flowkit.flow.cuda.compile import TileShape
from flowkit.flow.params import TVL1Params

NUM_FUSED_ITERATIONS = 5  # per launch; the error is tested once per launch (this costs 0.021 px; versions of OpenCV differ by 0.019 px)
MAX_FUSED_ITERATIONS = 6  # the smallest tile has 16 rows
MAX_PLANE_PIXELS = 1 << 29  # of a frame with padded rows: the kernels count the four planes of `dual` in 32 bits with a sign


@dataclass(frozen=True)
class Level:
    """A level of the pyramid."""

    width: int
    height: int

    @property
    def pitch(self) -> int:
        """The number of floats in a padded row."""
        return (self.width + 3) & ~3

    @property
    def num_padded_pixels(self) -> int:
        """The number of floats in a padded plane."""
        return self.pitch * self.height


def check_frame_size(height: int, width: int) -> None:
    """Raise `ParameterError` if frames of this size, px, are too large for the kernels: beyond 2^29 pixels, with padded rows."""
    if Level(width, height).num_padded_pixels > MAX_PLANE_PIXELS:
        raise ParameterError(
            f"frames of {width}x{height} px are too large for the GPU solver, which takes up to {MAX_PLANE_PIXELS:,} pixels (2^29); "
            "use a smaller frame size (extract --short-side), or --device cpu"
        )


def halo_px(num_iterations: int) -> tuple[int, int]:
    """Return by how many pixels tiles overlap their neighbours on each side, in x and y, for this number of iterations per launch.

    Each iteration spoils one pixel at the rim of a tile. In x the overlap is even, so that tiles begin at multiples of four
    padded columns, where 16-byte loads may begin.
    """
    return (num_iterations + 1) & ~1, num_iterations


def num_tiles(size: int, tile_size: int, halo: int) -> int:
    """Return how many overlapping tiles cover `size` pixels."""
    return max(1, math.ceil((size - 2 * halo) / (tile_size - 2 * halo)))


@dataclass(frozen=True)
class Quantisation:
    """The numbers of ``clip(round((value + offset) * scale), low, high) + zero``, which `quantise_flow` computes in float64."""

    offset: float
    scale: float
    low: float
    high: float
    zero: float

    @classmethod
    def of(cls, bound: float, mapping: str) -> Quantisation:
        """Return the numbers of a `flowkit.Quantiser` with this bound and mapping."""
        if mapping == "symmetric":
            return cls(0.0, 127 / bound, -127.0, 127.0, 128.0)
        assert mapping == "paper", mapping
        return cls(bound, 255 / (2 * bound), 0.0, 255.0, 0.0)


@dataclass(frozen=True)
class BatchPlan:
    """The limits of a batch, and the settings of the solver."""

    levels: tuple[Level, ...]
    params: TVL1Params
    quantisation: Quantisation | None  # None: float flow
    max_pairs: int
    max_frames: int
    num_fused_iterations: int = NUM_FUSED_ITERATIONS

    @property
    def stride(self) -> int:
        """The number of floats from one padded plane to the next: a plane of the finest level."""
        return self.levels[0].num_padded_pixels

    @property
    def output_bytes_per_pair(self) -> int:
        """The number of bytes of the flow of a pair that are downloaded."""
        return 2 * self.levels[0].width * self.levels[0].height * (4 if self.quantisation is None else 1)

    @property
    def frame_bytes(self) -> int:
        """The number of bytes of a frame that are uploaded."""
        return self.levels[0].width * self.levels[0].height

    def max_tiles(self, tile: TileShape) -> int:
        """Return the largest number of tiles of a level."""
        halo_x, halo_y = halo_px(self.num_fused_iterations)
        return max(num_tiles(level.pitch, tile.width, halo_x) * num_tiles(level.height, tile.height, halo_y) for level in self.levels)

    def arrays(self, tile: TileShape) -> dict[str, int]:
        """Return the bytes of each array in device memory."""
        pixels = self.levels[0].width * self.levels[0].height
        sizes = {
            "frames": self.max_frames * self.frame_bytes,
            "gradients": self.max_frames * pixels * 16,
            "flow": 2 * self.max_pairs * 2 * self.stride * 4,
            "data": self.max_pairs * 3 * self.stride * 4,
            "dual": 2 * self.max_pairs * 4 * self.stride * 4,
            "output": self.max_pairs * self.output_bytes_per_pair,
            "pairs": self.max_pairs * 8,
            "state": self.max_pairs * 4,
            "arrivals": self.max_pairs * 4,
            "lists": 3 * self.max_pairs * 4,
            "counts": 3 * 4,
            "partial_errors": self.max_pairs * self.max_tiles(tile) * 4,
        }
        for number, level in enumerate(self.levels):
            sizes[f"image{number}"] = self.max_frames * level.width * level.height * 4
        return sizes

    def device_bytes(self, tile: TileShape) -> int:
        """Return the device memory of one batch in flight, about 87 bytes per pixel and pair."""
        return sum(self.arrays(tile).values())


def plan_batches(pairs: NDArray[np.integer], max_pairs: int, max_frames: int) -> list[tuple[NDArray[np.int32], NDArray[np.int32]]]:
    """Divide pairs, in order, into batches of about equal length, each of which contains a frame only once.

    Parameters
    ----------
    pairs : int array, shape (m, 2)
        Indices of the first and second frame of each pair.
    max_pairs, max_frames : int
        The largest numbers of pairs and frames of a batch; `max_frames` is at least 2.

    Returns
    -------
    list of (frame indices, shape (n,); pairs as positions among them, shape (k, 2))
    """
    batches: list[tuple[NDArray[np.int32], NDArray[np.int32]]] = []
    even_pairs = math.ceil(len(pairs) / max(1, math.ceil(len(pairs) / max_pairs)))
    positions: dict[int, int] = {}
    local: list[tuple[int, int]] = []

    def cut() -> None:
        batches.append((np.fromiter(positions, np.int32, len(positions)), np.asarray(local, np.int32)))
        positions.clear()
        local.clear()

    for first, second in pairs.tolist():
        if len(local) == even_pairs or len(positions) + len({first, second} - positions.keys()) > max_frames:
            cut()
        local.append((positions.setdefault(first, len(positions)), positions.setdefault(second, len(positions))))
    if local:
        cut()
    return batches
