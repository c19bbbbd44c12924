"""The arithmetic of batches of frame pairs: pyramid levels, tiles, device memory, and how pairs are divided into batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import ParameterError
from flowkit.flow.cuda.card import Card
from flowkit.flow.cuda.cost import CostModel, best_tiling, why_never_chosen
from flowkit.flow.cuda.tiles import DEFAULT_TILE, HALF_VARIANTS, NUM_FUSED_ITERATIONS, SPILLING_VARIANTS, VARIANTS, TileShape, Tiling
from flowkit.flow.params import TVL1Params

MAX_PLANE_PIXELS = 1 << 29  # of a frame with padded rows: the kernels count the four planes of `dual` in 32 bits with a sign
# In frames with fewer pixels than this, a stop that comes some iterations late changes too much of the flow: with more than one
# iteration per launch, real frames of up to 193x145 px were beyond the limits of docs/gpu.md, and those from 211x159 px on were not.
SMALL_FRAME_PIXELS = 1 << 15


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


def is_small(height: int, width: int) -> bool:
    """Return whether the error of frames of this size, px, is tested after each iteration."""
    return height * width < SMALL_FRAME_PIXELS


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
    tilings: tuple[Tiling, ...]  # one for each level
    params: TVL1Params
    quantisation: Quantisation | None  # None: float flow
    max_pairs: int
    max_frames: int

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

    def max_tiles(self) -> int:
        """Return the largest number of tiles of a level."""
        grids = [tiling.grid(level.pitch, level.height) for level, tiling in zip(self.levels, self.tilings, strict=True)]
        return max(tiles_x * tiles_y for tiles_x, tiles_y in grids)

    def arrays(self) -> dict[str, int]:
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
            "partial_errors": self.max_pairs * self.max_tiles() * 4,
        }
        for number, level in enumerate(self.levels):
            sizes[f"image{number}"] = self.max_frames * level.width * level.height * 4
        return sizes

    def device_bytes(self) -> int:
        """Return the device memory of one batch in flight, about 87 bytes per pixel and pair."""
        return sum(self.arrays().values())


def choose_tilings(
    card: Card,
    levels: Sequence[Level],
    inner_iterations: int,
    *,
    tile: TileShape | None = None,
    num_fused_iterations: int | None = None,
    model: CostModel | None = None,
) -> tuple[Tiling, ...]:
    """Return the tiling for each level: the one that the cost model prefers on this card, or what is given.

    Small frames (`SMALL_FRAME_PIXELS`) have one iteration per launch on all levels, unless something is given.

    Parameters
    ----------
    card : Card
        The GPU.
    levels : sequence of Level
        The levels of the pyramid.
    inner_iterations : int
        Iterations between two median filters.
    tile : TileShape, optional
        The tile for all levels.
    num_fused_iterations : int, optional
        The iterations per launch for all levels; with a given tile by default 5, which was measured.
    model : CostModel, optional
        Other constants of the cost model than the default ones.

    Raises
    ------
    ParameterError
        If a tile has no pixel left after so many iterations, or if the card has too little shared memory for it.
    """
    if tile is None and num_fused_iterations is None:
        most = 1 if is_small(levels[0].height, levels[0].width) else NUM_FUSED_ITERATIONS
        return tuple(best_tiling(card, level.pitch, level.height, inner_iterations, most_fused=most, model=model) for level in levels)
    tiling = Tiling(tile or DEFAULT_TILE, NUM_FUSED_ITERATIONS if num_fused_iterations is None else num_fused_iterations)
    if not tiling.is_possible:
        raise ParameterError(
            f"{tiling.num_fused_iterations} iterations do not fit into a launch with tiles of {tiling.tile.width}x{tiling.tile.height} px: "
            "each iteration spoils one pixel on every side; use 1 to 6"
        )
    if not card.blocks_per_sm(tiling.tile):
        raise ParameterError(
            f"a tile of {tiling.tile} takes {tiling.tile.shared_bytes:,} bytes of shared memory, of which {card.name} has "
            f"{card.shared_bytes_per_block:,} for a block; use another tile"
        )
    return (tiling,) * len(levels)


def describe_tilings(card: Card, height: int, width: int, params: TVL1Params) -> list[dict[str, int | float | str]]:
    """Return what a plan chooses for each level, finest first, in words and numbers.

    The keys are `width` and `height` (px), `tile` (words), `iterations_per_launch`, `warps_per_multiprocessor`, `shared_bytes` (of a
    multiprocessor), and `forecast_speed` (times that of the measured tiling, by the cost model).
    """
    model = CostModel()
    rows: list[dict[str, int | float | str]] = []
    levels = [Level(width, height) for height, width in params.level_sizes(height, width)]
    measured = Tiling(num_fused_iterations=min(NUM_FUSED_ITERATIONS, params.inner_iterations))
    for level, tiling in zip(levels, choose_tilings(card, levels, params.inner_iterations), strict=True):
        tile, blocks = tiling.tile, card.blocks_per_sm(tiling.tile)
        old, new = (
            model.seconds_per_pixel_iteration(each, card, level.pitch, level.height, params.inner_iterations) for each in (measured, tiling)
        )
        rows.append(
            {
                "width": level.width,
                "height": level.height,
                "tile": str(tile),
                "iterations_per_launch": tiling.num_fused_iterations,
                "warps_per_multiprocessor": blocks * tile.threads // 32,
                "shared_bytes": blocks * tile.shared_bytes,
                "forecast_speed": round(old / new, 3),
            }
        )
    return rows


def describe_refused(card: Card) -> list[dict[str, str]]:
    """Return the tiles that no plan chooses on a card, with the keys `tile` and `reason` (words)."""
    reasons = {tile: why_never_chosen(card, tile) for tile in (*VARIANTS, *SPILLING_VARIANTS)}
    reasons |= dict.fromkeys(HALF_VARIANTS, "its flow is that of another precision, so it is for those who ask for it")
    return [{"tile": str(tile), "reason": reason} for tile, reason in reasons.items() if reason]


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
