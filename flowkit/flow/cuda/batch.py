"""One batch of frame pairs on a device: its memory, and its schedule of copies and launches.

The schedule is a generator. It launches work ahead, yields where it would have to wait, and never blocks. So device_thread.py can
let several batches take turns, each on its own stream, and the last few pairs of one batch do not leave the GPU idle.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from flowkit.flow.cuda.device import ComputeDevice, Grid
from flowkit.flow.cuda.plan import BatchPlan, Level
from flowkit.flow.cuda.tiles import TileShape, Tiling, halo_px

MAX_LAUNCHES_AHEAD = 8  # beyond the launch that the device is known to have begun
BLOCKS_PER_PLACE = 4  # blocks of `iterate` for each one that the GPU runs at once, so that a block that begins late has less to do
PIXEL_BLOCK = (32, 8)  # threads per block of the kernels with one thread per pixel


class BatchLane:
    """A stream with memory for one batch in flight.

    Parameters
    ----------
    device : ComputeDevice
        Where the kernels run.
    plan : BatchPlan
        The limits of a batch.
    """

    def __init__(self, device: ComputeDevice, plan: BatchPlan) -> None:
        self._plan = plan
        self._card = device.card
        self._same_in_launches: dict[tuple[int, int], tuple[TileShape, int, int, dict[str, float]]] = {}
        for tiling in plan.tilings:
            device.load_tile(tiling.tile)
        self._frame_shape = plan.levels[0].height, plan.levels[0].width
        self._stream = device.open_stream()
        self._addresses = {name: device.allocate(size) for name, size in plan.arrays().items()}
        self._frames = device.allocate_pinned(plan.max_frames * plan.frame_bytes)
        self._pairs = device.allocate_pinned(plan.max_pairs * 8)
        self._zeros = device.allocate_pinned(plan.max_pairs * 4)
        self._zeros.bytes[:] = 0
        self._output = device.allocate_pinned(plan.max_pairs * plan.output_bytes_per_pair)
        # The device writes here while it works: [0] launch number << 32 | number of its pairs, [1] whether some flow is not finite.
        self._host = device.allocate_pinned(16)
        self._host_words = self._host.bytes.view(np.uint64)

    def load(self, frames: Sequence[NDArray[np.uint8]], pairs: NDArray[np.int32]) -> None:
        """Copy the frames (H, W) of a batch, and its pairs (m, 2) of indices of frames, to memory that the device reads.

        Any thread may call this while no batch of the lane is on the device.
        """
        for staged, frame in zip(self._frames.bytes.reshape(-1, *self._frame_shape), frames, strict=False):
            staged[...] = frame
        self._pairs.bytes[: pairs.nbytes] = pairs.view(np.uint8).reshape(-1)

    def unload(self, target: NDArray[np.generic] | Sequence[NDArray[np.generic]]) -> None:
        """Copy the flow of a batch that has left the device to an array (2, H, W), uint8 or float32, per pair. Any thread may call this."""
        for field, computed in zip(target, self._output.bytes.reshape(self._plan.max_pairs, -1), strict=False):
            field[...] = computed.view(field.dtype).reshape(field.shape)

    def run(self, num_frames: int, num_pairs: int) -> Iterator[None]:
        """Solve the batch that was loaded, and yield whenever the device has enough to do; when the generator ends, it can be unloaded.

        Raises
        ------
        DeviceError
            If a copy or kernel fails.
        FloatingPointError
            If the flow is not finite.
        """
        plan, stream = self._plan, self._stream
        self._host_words[:] = 0
        stream.upload(self._addresses["frames"], self._frames, num_frames * plan.frame_bytes)
        stream.upload(self._addresses["pairs"], self._pairs, num_pairs * 8)
        stream.upload(self._addresses["state"], self._zeros, 4 * num_pairs)
        stream.upload(self._addresses["arrivals"], self._zeros, 4 * num_pairs)

        self._make_pyramid(num_frames)
        sequence = 1  # number of the next launch of `iterate`
        for number in reversed(range(len(plan.levels))):
            self._begin_level(number, num_frames, num_pairs)
            for warp in range(plan.params.num_warps):
                sequence = yield from self._warp(number, num_pairs, sequence, level_begins=warp == 0)
        self._finish(num_pairs)
        while not stream.is_finished():
            yield
        if self._host_words[1]:
            raise FloatingPointError("the TV-L1 flow is not finite")

    def _launch(self, kernel: str, grid: Grid, block: tuple[int, int], **arguments: float) -> None:
        self._stream.launch(kernel, grid, block, arguments)

    def _level_arguments(self, level: Level) -> Mapping[str, int]:
        """Return the arguments that every kernel on padded planes takes."""
        return {"width": level.width, "height": level.height, "capacity": self._plan.max_pairs, "stride": self._plan.stride}

    def _make_pyramid(self, num_frames: int) -> None:
        levels, at = self._plan.levels, self._addresses
        finest = levels[0]
        self._launch(
            "load_frames",
            _pixel_grid(finest, num_frames),
            PIXEL_BLOCK,
            width=finest.width,
            height=finest.height,
            frames=at["frames"],
            image=at["image0"],
        )
        for number, (finer, coarser) in enumerate(itertools.pairwise(levels)):
            self._launch(
                "shrink",
                _pixel_grid(coarser, num_frames),
                PIXEL_BLOCK,
                width=coarser.width,
                height=coarser.height,
                source_width=finer.width,
                source_height=finer.height,
                step=1 / self._plan.params.scale_step,
                source=at[f"image{number}"],
                image=at[f"image{number + 1}"],
            )

    def _begin_level(self, number: int, num_frames: int, num_pairs: int) -> None:
        level, at = self._plan.levels[number], self._addresses
        self._launch(
            "differentiate",
            _pixel_grid(level, num_frames),
            PIXEL_BLOCK,
            width=level.width,
            height=level.height,
            image=at[f"image{number}"],
            gradients=at["gradients"],
        )
        coarser = self._plan.levels[number + 1] if number + 1 < len(self._plan.levels) else Level(0, 0)
        self._launch(
            "expand_flow",
            _pixel_grid(level, num_pairs),
            PIXEL_BLOCK,
            **self._level_arguments(level),
            source_width=coarser.width,
            source_height=coarser.height,
            step_x=coarser.width / level.width,
            step_y=coarser.height / level.height,
            gain=1 / self._plan.params.scale_step,
            flow=at["flow"],
            state=at["state"],
        )

    def _warp(self, number: int, num_pairs: int, first: int, *, level_begins: bool) -> Generator[None, None, int]:
        """Warp, then iterate until all pairs have converged; return the number of the launch after the last one."""
        plan, at, level = self._plan, self._addresses, self._plan.levels[number]
        params, tiling = plan.params, plan.tilings[number]
        settings = self._level_arguments(level)
        self._launch(
            "start_warp",
            (math.ceil(num_pairs / 128), 1, 1),
            (128, 1),
            num_pairs=num_pairs,
            capacity=plan.max_pairs,
            sequence=first,
            level_begins=int(level_begins),
            state=at["state"],
            lists=at["lists"],
            counts=at["counts"],
        )
        self._launch(
            "warp",
            _pixel_grid(level, num_pairs),
            PIXEL_BLOCK,
            **settings,
            image=at[f"image{number}"],
            gradients=at["gradients"],
            pairs=at["pairs"],
            flow=at["flow"],
            state=at["state"],
            data=at["data"],
        )
        sequence, listed = first, num_pairs  # `listed`: upper bound of the number of pairs that still iterate
        for _ in range(params.outer_iterations):
            has_median = params.median_size > 1
            for done in range(0, params.inner_iterations, tiling.num_fused_iterations):
                while True:
                    begun, count = divmod(int(self._host_words[0]), 1 << 32)
                    if begun >= first:
                        listed = count
                    if listed == 0:
                        return sequence
                    if sequence - max(begun, first - 1) <= MAX_LAUNCHES_AHEAD:
                        break
                    self._stream.is_finished()  # raises if the device has failed and will never begin another launch
                    yield
                if has_median and done == 0:
                    self._launch_median(level, listed, sequence)
                self._launch_iterations(
                    number,
                    min(tiling.num_fused_iterations, params.inner_iterations - done),
                    listed,
                    sequence,
                    after_median=has_median and done == 0,
                )
                sequence += 1
        return sequence

    def _launch_median(self, level: Level, listed: int, sequence: int) -> None:
        at, size = self._addresses, self._plan.params.median_size
        pixels = 2 if size == 5 else 1  # px per side that one thread computes
        self._launch(
            f"median_{size}",
            _pixel_grid(Level(-(-level.width // pixels), -(-level.height // pixels)), 2 * listed),
            PIXEL_BLOCK,
            **self._level_arguments(level),
            sequence=sequence,
            flow=at["flow"],
            state=at["state"],
            lists=at["lists"],
            counts=at["counts"],
        )

    def _launch_iterations(self, number: int, num_iterations: int, listed: int, sequence: int, *, after_median: bool) -> None:
        tile, num_tiles, max_blocks, arguments = self._iterations(number, num_iterations)
        grid = min(listed * num_tiles, max_blocks), 1, 1
        variable = {"sequence": sequence, "after_median": int(after_median)}
        self._stream.launch("iterate", grid, (tile.threads_x, tile.threads_y), arguments | variable, tile)

    def _iterations(self, number: int, num_iterations: int) -> tuple[TileShape, int, int, dict[str, float]]:
        """Return the tile of a level, its number, the most blocks, and what is the same in all its launches, of which there are many."""
        key = number, num_iterations
        if key not in self._same_in_launches:
            at, params, level = self._addresses, self._plan.params, self._plan.levels[number]
            tile = self._plan.tilings[number].tile
            halo_x, halo_y = halo_px(num_iterations)
            tiles_x, tiles_y = Tiling(tile, num_iterations).grid(level.pitch, level.height)
            names = ("data", "dual", "flow", "state", "lists", "counts", "arrivals", "partial_errors")
            arguments = {
                **self._level_arguments(level),
                "tiles_x": tiles_x,
                "tiles_y": tiles_y,
                "num_iterations": num_iterations,
                "halo_x": halo_x,
                "halo_y": halo_y,
                "lambda_theta": params.lambda_ * params.theta,
                "tau": params.tau,
                "tau_over_theta": params.tau / params.theta,
                "threshold": params.epsilon**2 * level.width * level.height,
                **{name: at[name] for name in names},
                "progress": self._host.address,
            }
            max_blocks = BLOCKS_PER_PLACE * self._card.num_multiprocessors * self._card.blocks_per_sm(tile)
            self._same_in_launches[key] = tile, tiles_x * tiles_y, max_blocks, arguments
        return self._same_in_launches[key]

    def _finish(self, num_pairs: int) -> None:
        plan, at, level = self._plan, self._addresses, self._plan.levels[0]
        grid = _pixel_grid(level, num_pairs)
        settings = {**self._level_arguments(level), "flow": at["flow"], "state": at["state"], "not_finite": self._host.address + 8}
        if plan.quantisation is None:
            self._launch("export_flow", grid, PIXEL_BLOCK, **settings, planes=at["output"])
        else:
            self._launch("quantise_flow", grid, PIXEL_BLOCK, **settings, **vars(plan.quantisation), bytes=at["output"])
        self._stream.download(self._output, at["output"], num_pairs * plan.output_bytes_per_pair)


def _pixel_grid(level: Level, depth: int) -> Grid:
    return math.ceil(level.width / PIXEL_BLOCK[0]), math.ceil(level.height / PIXEL_BLOCK[1]), depth
