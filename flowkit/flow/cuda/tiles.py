"""The shapes that a block of the kernel `iterate` may have: its tile of pixels, the patch of each thread, and where its constants lie.

The registers of a multiprocessor are divided among the threads of all its blocks. With too few of them for its patch, a thread keeps
values in memory ("spills"), which costs more than the additional threads gain. `VARIANTS` lists what a plan may choose from; NVRTC
compiles each of them without spills for every architecture, and spills in each of `SPILLING_VARIANTS` (the tests check both).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

NUM_FUSED_ITERATIONS = 5  # per launch, of the tiling that was measured on a GPU
MAX_FUSED_ITERATIONS = 6  # of a tile of 16 rows
REGISTERS_PER_SM = 65536  # of every architecture that NVRTC 13 compiles for
_SCHEDULERS, _LANES, _MOST_REGISTERS, _REGISTER_UNIT = 4, 32, 255, 8  # of a multiprocessor, a warp, and a thread

# The registers for a thread with which NVRTC has been seen to spill nothing, by the rows of its patch, whether its constants are in
# shared memory, and whether its dual variables are in half precision (the last one on sm_90 only).
_ENOUGH_REGISTERS = {
    (4, False, False): 255,
    (4, True, False): 255,
    (2, False, False): 128,
    (2, True, False): 128,
    (1, False, False): 80,
    (1, True, False): 72,
    (2, True, True): 80,
}


@dataclass(frozen=True)
class TileShape:
    """The block of `iterate`: threads, each with 4 columns and 4, 2 or 1 rows of pixels in registers, and blocks per multiprocessor.

    Parameters
    ----------
    threads_x, threads_y : int
        Threads of a block, at most 1,024 in all.
    blocks_per_sm : int
        Blocks that a multiprocessor runs at once, which bounds the registers of a thread.
    rows : {4, 2, 1}
        Rows of the patch of a thread.
    shared_constants : bool
        Whether I1wx, I1wy, rho_c and 1 / |I1w gradient|^2 lie in shared memory rather than in registers.
    half_dual : bool
        Whether the dual variables are in half precision during a launch, which takes half the registers for them.
    """

    threads_x: int = 16
    threads_y: int = 8
    blocks_per_sm: int = 2
    rows: Literal[1, 2, 4] = 4
    shared_constants: bool = False
    half_dual: bool = False

    @property
    def threads(self) -> int:
        """The number of threads of a block."""
        return self.threads_x * self.threads_y

    @property
    def width(self) -> int:
        """The width of a tile, px."""
        return 4 * self.threads_x

    @property
    def height(self) -> int:
        """The height of a tile, px."""
        return self.rows * self.threads_y

    @property
    def dynamic_bytes(self) -> int:
        """The shared memory of a block whose size a launch gives: the struct `Edges` of tvl1.cu and, perhaps, `Constants`."""
        columns = 4 * 4 * self.rows * self.threads_y * (self.threads_x + 1)
        rows = 4 * 16 * (self.threads_y + 1) * self.threads_x
        return columns + rows + (4 * 4 * self.width * self.height if self.shared_constants else 0)

    @property
    def registers(self) -> int:
        """The most registers that a thread can have beside those of all other threads of a multiprocessor."""
        warps = -(-self.threads * self.blocks_per_sm // _LANES)
        of_warp = REGISTERS_PER_SM // _SCHEDULERS // -(-warps // _SCHEDULERS)  # each scheduler has a quarter of warps and registers
        return min(of_warp // _LANES // _REGISTER_UNIT * _REGISTER_UNIT, _MOST_REGISTERS)

    @property
    def has_enough_registers(self) -> bool:
        """Whether these are as many as its patch is known to need."""
        return self.registers >= _ENOUGH_REGISTERS.get((self.rows, self.shared_constants, self.half_dual), _MOST_REGISTERS + 1)

    @property
    def shared_bytes(self) -> int:
        """All shared memory of a block: with one flag, which is padded to 16 bytes."""
        return self.dynamic_bytes + 16

    def macros(self) -> list[tuple[str, str]]:
        """Return the macros that define the shape in the source."""
        values = {
            "THREADS_X": self.threads_x,
            "THREADS_Y": self.threads_y,
            "ROWS": self.rows,
            "BLOCKS_PER_SM": self.blocks_per_sm,
            "SHARED_CONSTANTS": int(self.shared_constants),
            "HALF_DUAL": int(self.half_dual),
        }
        return [(name, str(value)) for name, value in values.items()]

    def __str__(self) -> str:
        memory = "constants in shared memory" if self.shared_constants else "constants in registers"
        half = ", dual variables in half precision" if self.half_dual else ""
        return f"{self.width}x{self.height}, patches of 4x{self.rows}, {self.blocks_per_sm} per multiprocessor, {memory}{half}"


DEFAULT_TILE = TileShape()

VARIANTS = (
    DEFAULT_TILE,  # 64x32: 8 warps per multiprocessor, 255 registers per thread; the only one that was measured on a GPU
    TileShape(16, 16, 2, rows=2),  # 64x32: 16 warps, 128 registers
    TileShape(16, 24, 1, rows=2),  # 64x48: 12 warps, 167 registers
    TileShape(16, 32, 1, rows=2),  # 64x64: 16 warps, 128 registers
    TileShape(8, 16, 4, rows=2),  # 32x32: 16 warps, 128 registers
    TileShape(12, 32, 2, rows=1),  # 48x32: 24 warps, 80 registers
    TileShape(16, 48, 1, rows=1),  # 64x48: 24 warps, 80 registers
    TileShape(16, 28, 2, rows=1, shared_constants=True),  # 64x28: 28 warps, 72 registers
)
# What was tried and no plan may choose: constants in shared memory were to make room for more warps, and do not make enough.
SPILLING_VARIANTS = (
    TileShape(16, 8, 3, rows=4, shared_constants=True),  # 64x32: 12 warps, 168 registers
    TileShape(16, 8, 4, rows=4, shared_constants=True),  # 64x32: 16 warps, 128 registers
    TileShape(16, 20, 2, rows=2, shared_constants=True),  # 64x40: 20 warps, 96 registers
    TileShape(16, 16, 3, rows=2, shared_constants=True),  # 64x32: 24 warps, 80 registers
)
# No plan chooses these; they can be given to a solver, and the sweep of gpu_suite.py measures them. They spill nothing on sm_90.
HALF_VARIANTS = (TileShape(16, 16, 3, rows=2, shared_constants=True, half_dual=True),)  # 64x32: 24 warps, 80 registers


@dataclass(frozen=True)
class Tiling:
    """How `iterate` works on a level of the pyramid: in which tiles, and with how many iterations per launch."""

    tile: TileShape = DEFAULT_TILE
    num_fused_iterations: int = NUM_FUSED_ITERATIONS

    @property
    def is_possible(self) -> bool:
        """Whether a tile keeps some pixels after its rim, which each iteration spoils by one more pixel."""
        halo_x, halo_y = halo_px(self.num_fused_iterations)
        return self.num_fused_iterations >= 1 and self.tile.width > 2 * halo_x and self.tile.height > 2 * halo_y

    def grid(self, width: int, height: int) -> tuple[int, int]:
        """Return how many tiles cover a level of this padded width and height, px, across and down."""
        halo_x, halo_y = halo_px(self.num_fused_iterations)
        return num_tiles(width, self.tile.width, halo_x), num_tiles(height, self.tile.height, halo_y)


def halo_px(num_iterations: int) -> tuple[int, int]:
    """Return by how many pixels tiles overlap their neighbours on each side, in x and y, for this number of iterations per launch.

    Each iteration spoils one pixel at the rim of a tile. In x the overlap is even, so that tiles begin at multiples of four
    padded columns, where 16-byte loads may begin.
    """
    return (num_iterations + 1) & ~1, num_iterations


def num_tiles(size: int, tile_size: int, halo: int) -> int:
    """Return how many overlapping tiles cover `size` pixels."""
    return max(1, math.ceil((size - 2 * halo) / (tile_size - 2 * halo)))
