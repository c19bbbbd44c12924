"""A model of the time of `iterate` on a level of the pyramid, and the tiling that it recommends.

Most of the time of the solver passes in `iterate`, which waits for its own results more than for memory. Three things can be traded
for each other: small tiles and many fused iterations compute more pixels that are thrown away; few iterations load and store more
often; large patches exchange less, but take registers, so that fewer warps can hide each other's waiting. The model counts what a
multiprocessor has to issue, and how often one of its warps can issue:

* A thread with a patch of n pixels executes about 45 + 38 n instructions per iteration, and 220 + 23 n to load and store its patch.
  These were counted in the machine code for sm_90 (NVRTC 13.2), of which the branches for border pixels were left out. Constants in
  shared memory add n, and dual variables in half precision 10 n.
* A warp alone takes `cycles_per_instruction` for each of them, and waits `barrier_cycles` per iteration and `launch_cycles` per tile.
  From this follows the share r of the cycles in which it issues. A scheduler with w such warps issues in a share 1 - (1 - r)^w.
* A pair converges somewhere within a launch, and so iterates (depth - 1) / 2 times too often on average.
* A launch moves 31 bytes per pixel of the frame to or from the memory of the device. (It asks for 60, and twice for what tiles share,
  but caches give half of that.) The slower of computing and moving counts.

The constants are such that the model gives what a profiler saw on an H200 with 64x32 tiles, 4x4 patches and five iterations: an
instruction in 38.5 % of the cycles, and 9 to 12 % of the bandwidth at 83 billion pixel-iterations per second. ``gpu_suite.py
--sections sweep`` measures other tilings and fits the constants again. What the model says about tilings that were never measured is
a forecast, so a plan leaves the measured tiling only for one that is `LEAST_GAIN` times as fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flowkit.flow.cuda.card import Card
from flowkit.flow.cuda.tiles import NUM_FUSED_ITERATIONS, VARIANTS, TileShape, Tiling

LEAST_GAIN = 1.10  # how many times faster a tiling has to be, by the model, than the one that was measured
MEAN_ITERATIONS = 19.0  # of a real pair in each warp until it converges, with default parameters
SCHEDULERS_PER_SM, LANES = 4, 32
BYTES_PER_PIXEL = 31.0  # of a frame and launch
USABLE_BANDWIDTH = 0.8  # as a share of the nominal one


@dataclass(frozen=True)
class CostModel:
    """The constants that the sweep of gpu_suite.py fits.

    Parameters
    ----------
    cycles_per_instruction : float
        Cycles that a warp alone needs for one instruction.
    barrier_cycles : float
        Cycles that it waits in each iteration for its barriers and for shared memory; twice as many where a multiprocessor has one
        block, because all of its warps then wait together.
    launch_cycles : float
        Cycles that it waits for the memory of the device at the beginning and the end of each tile.
    """

    cycles_per_instruction: float = 3.9
    barrier_cycles: float = 250.0
    launch_cycles: float = 1500.0

    def issue_share(self, tile: TileShape, num_iterations: int, blocks_per_sm: int) -> float:
        """Return in which share of the cycles a scheduler of the multiprocessor issues an instruction."""
        instructions = num_iterations * iteration_instructions(tile) + launch_instructions(tile)
        barrier_cycles = self.barrier_cycles * (2 if blocks_per_sm == 1 else 1)
        cycles = self.cycles_per_instruction * instructions + num_iterations * barrier_cycles + self.launch_cycles
        warps = tile.threads * blocks_per_sm / LANES / SCHEDULERS_PER_SM
        return float(1 - (1 - instructions / cycles) ** warps)

    def seconds_per_pixel_iteration(self, tiling: Tiling, card: Card, width: int, height: int, inner_iterations: int = 30) -> float:
        """Return the forecast for a pixel of a frame and an iteration that it needs.

        Parameters
        ----------
        tiling : Tiling
        card : Card
            A card with room for at least one block of it.
        width, height : int
            Padded width and height of the level, px.
        inner_iterations : int
            Iterations between two median filters; the last launch before one may have fewer than the others.
        """
        tile = tiling.tile
        tiles_x, tiles_y = tiling.grid(width, height)
        redundancy = tiles_x * tiles_y * tile.width * tile.height / (width * height)
        num_launches = -(-inner_iterations // tiling.num_fused_iterations)
        depth = inner_iterations / num_launches
        pixels = 4 * tile.rows
        instructions = (iteration_instructions(tile) + launch_instructions(tile) / depth) / pixels
        share = self.issue_share(tile, tiling.num_fused_iterations, card.blocks_per_sm(tile))
        slots_per_second = card.num_multiprocessors * SCHEDULERS_PER_SM * LANES * card.clock_hz
        computing = redundancy * instructions / share / slots_per_second
        moving = BYTES_PER_PIXEL / depth / (USABLE_BANDWIDTH * card.bytes_per_second)
        return max(computing, moving) * (MEAN_ITERATIONS + (tiling.num_fused_iterations - 1) / 2) / MEAN_ITERATIONS


def iteration_instructions(tile: TileShape) -> float:
    """Return the instructions of a thread per iteration."""
    pixels = 4 * tile.rows
    return 45 + 38 * pixels + (pixels if tile.shared_constants else 0) + (10 * pixels if tile.half_dual else 0)


def launch_instructions(tile: TileShape) -> float:
    """Return the instructions of a thread to load and store its patch, once per launch."""
    return 220 + 23 * 4 * tile.rows


def why_never_chosen(card: Card, tile: TileShape) -> str:
    """Return why no plan chooses a tile on this card; an empty text if one may."""
    if not tile.has_enough_registers:
        return f"its patches need more than the {tile.registers} registers of a thread, so that the compiler spills some to memory"
    if not card.holds(tile):
        if tile.threads * tile.blocks_per_sm > card.threads_per_sm:
            return f"it takes {tile.threads * tile.blocks_per_sm:,} threads of a multiprocessor, which has {card.threads_per_sm:,}"
        needed = tile.blocks_per_sm * (tile.shared_bytes + card.reserved_bytes_per_block)
        return f"it takes {needed:,} bytes of shared memory of a multiprocessor, which has {card.shared_bytes_per_sm:,}"
    return ""


def tilings_of(
    card: Card, inner_iterations: int = 30, *, variants: Sequence[TileShape] = VARIANTS, most_fused: int = NUM_FUSED_ITERATIONS
) -> list[Tiling]:
    """Return the tilings that a plan may choose from on this card, or those of other variants.

    None fuses more iterations than `most_fused`, by default those of the measured one: the later a pair stops, the farther it is
    from the strict solver's flow.
    """
    depths = range(1, min(most_fused, inner_iterations) + 1)
    tilings = [Tiling(tile, depth) for tile in variants if not why_never_chosen(card, tile) for depth in depths]
    return [tiling for tiling in tilings if tiling.is_possible]


def best_tiling(
    card: Card,
    width: int,
    height: int,
    inner_iterations: int = 30,
    *,
    most_fused: int = NUM_FUSED_ITERATIONS,
    model: CostModel | None = None,
) -> Tiling:
    """Return the tiling for a level: the measured one, unless the model expects another to be `LEAST_GAIN` times as fast.

    Parameters
    ----------
    card : Card
        The GPU.
    width, height : int
        Padded width and height of the level, px.
    inner_iterations : int
        Iterations between two median filters.
    most_fused : int
        The most iterations per launch; the measured tiling has this number too if it is smaller.
    model : CostModel, optional
        Other constants than the default ones.
    """
    model = model or CostModel()

    def seconds(tiling: Tiling) -> float:
        return model.seconds_per_pixel_iteration(tiling, card, width, height, inner_iterations)

    measured = Tiling(num_fused_iterations=min(NUM_FUSED_ITERATIONS, most_fused, inner_iterations))
    best = min(tilings_of(card, inner_iterations, most_fused=most_fused), key=seconds, default=measured)
    return best if seconds(best) * LEAST_GAIN < seconds(measured) else measured
