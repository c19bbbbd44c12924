"""What a GPU has for the blocks of a kernel: multiprocessors, shared memory, threads, clock and memory bandwidth."""

from __future__ import annotations

from dataclasses import dataclass

from flowkit.flow.cuda.tiles import TileShape


@dataclass(frozen=True)
class Card:
    """The limits of a GPU.

    Parameters
    ----------
    name : str
        What it is called.
    arch : int
        Its compute capability times ten.
    num_multiprocessors : int
    clock_hz : float
        The highest clock of the multiprocessors.
    bytes_per_second : float
        The bandwidth of its memory.
    shared_bytes_per_sm, shared_bytes_per_block : int
        The shared memory of a multiprocessor, and the most that a block may ask for.
    reserved_bytes_per_block : int
        The shared memory that the system takes for each block.
    threads_per_sm : int
        The most threads that a multiprocessor runs at once.
    """

    name: str
    arch: int
    num_multiprocessors: int
    clock_hz: float
    bytes_per_second: float
    shared_bytes_per_sm: int
    shared_bytes_per_block: int
    reserved_bytes_per_block: int
    threads_per_sm: int

    def blocks_per_sm(self, tile: TileShape) -> int:
        """Return how many blocks a multiprocessor runs at once, at most those for which the kernel is compiled; 0: it cannot run one."""
        if tile.shared_bytes > self.shared_bytes_per_block or tile.threads > 1024:
            return 0
        by_memory = self.shared_bytes_per_sm // (tile.shared_bytes + self.reserved_bytes_per_block)
        return min(tile.blocks_per_sm, by_memory, self.threads_per_sm // tile.threads)

    def holds(self, tile: TileShape) -> bool:
        """Return whether a multiprocessor has room for all blocks for which the kernel is compiled."""
        return self.blocks_per_sm(tile) == tile.blocks_per_sm


# One card of each architecture, to look at plans for machines other than this one. Sources: NVIDIA's CUDA C++ Programming Guide, table
# "Technical Specifications per Compute Capability", and the cards' data sheets.
KNOWN_CARDS = {
    card.arch: card
    for card in (
        Card("T4", 75, 40, 1.59e9, 320e9, 64 << 10, 64 << 10, 0, 1024),
        Card("A100", 80, 108, 1.41e9, 1555e9, 164 << 10, 163 << 10, 1024, 2048),
        Card("A10", 86, 72, 1.695e9, 600e9, 100 << 10, 99 << 10, 1024, 1536),
        Card("RTX 4090", 89, 128, 2.52e9, 1008e9, 100 << 10, 99 << 10, 1024, 1536),
        Card("H200", 90, 132, 1.98e9, 4800e9, 228 << 10, 227 << 10, 1024, 2048),
        Card("B200", 100, 148, 1.965e9, 8000e9, 228 << 10, 227 << 10, 1024, 2048),
        Card("RTX 5090", 120, 170, 2.407e9, 1792e9, 100 << 10, 99 << 10, 1024, 1536),
    )
}
