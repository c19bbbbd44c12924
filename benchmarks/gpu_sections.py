"""The sections of gpu_suite.py, which starts them: each is a function that returns the rows of a table and the failed gates."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from flow_gates import GPU_GATES, FlowDistance
from gpu_machine import describe
from gpu_sweep import fit, frame_levels, modelled_seconds

from flowkit.flow import compute_flow
from flowkit.flow.cuda.compile import compile_kernels
from flowkit.flow.cuda.cost import CostModel, tilings_of
from flowkit.flow.cuda.device import CudaDevice, list_devices
from flowkit.flow.cuda.plan import choose_tilings, describe_tilings
from flowkit.flow.cuda.solver import MAX_PAIRS, NUM_LANES, CudaSolver, SubmittedFlow
from flowkit.flow.cuda.tiles import DEFAULT_TILE, HALF_VARIANTS, VARIANTS, Tiling
from flowkit.flow.params import TVL1Params
from flowkit.quantise import Quantiser

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

Row = dict[str, Any]
BOUND = 20.0
MOST_DATA_WAIT = 0.05  # as a share of the time of a training step
MOST_STEP_RATIO = 1.20  # of the time of a training step to that of two plain ResNet-50s
GOAL_PAIRS_PER_SECOND = {"the budget": 1500, "the goal": 4500}  # at 340x256, preset opencv, on an H200
REAL_PIXEL_ITERATIONS = 23.0e6  # for a real pair at 340x256 px with default parameters


@dataclass
class Report:
    """The result of a section."""

    rows: list[Row] = field(default_factory=list)
    failed_gates: list[str] = field(default_factory=list)
    status: str = ""

    def check(self, holds: bool, gate: str) -> None:
        if not holds:
            self.failed_gates.append(gate)


@dataclass(frozen=True)
class Settings:
    """The input of the sections."""

    frames: Mapping[str, NDArray[np.uint8]]
    frames_path: Path
    device: int
    dry_run: bool
    result: Path | None = None  # the file for the report

    @property
    def clips(self) -> NDArray[np.uint8]:
        """Clips of one size, (clips, frames, H, W)."""
        return self.frames["clips_340x256"]

    @property
    def all_frames(self) -> NDArray[np.uint8]:
        """The frames of all clips."""
        return self.clips.reshape(-1, *self.clips.shape[2:])

    def batches(self, size: int, count: int = 1) -> list[NDArray[np.int64]]:
        """Return `count` batches of `size` pairs of `all_frames`.

        The time of a pair depends on its content, so the batches take turns among the clips, in runs of up to 16 pairs, as `extract`
        sends them.
        """
        num_clips, length = self.clips.shape[:2]
        run = min(size, length - 1)
        runs = itertools.cycle(clip * length + start for start in range(0, length - run, run) for clip in range(num_clips))
        batches = []
        for _ in range(count):
            first = np.concatenate([next(runs) + np.arange(run) for _ in range(-(-size // run))])[:size]
            batches.append(np.stack([first, first + 1], axis=1))
        return batches

    def solver(self, height: int, width: int, params: TVL1Params | None = None, **others: Any) -> CudaSolver:
        if self.dry_run:
            others.setdefault("max_pairs", 4)  # the CPU is slow
        return CudaSolver(height, width, params or TVL1Params(), device=partial(CudaDevice, self.device), **others)


def machine(settings: Settings) -> Report:
    """Report the card, its driver and the versions of the software."""
    return Report(describe(settings.device))


def device(settings: Settings) -> Report:
    """Report which share of a multiprocessor's resources the kernels need, the plan, and the time to start."""
    report = Report()
    info = list_devices()[settings.device]
    arch = 10 * info.compute_capability[0] + info.compute_capability[1]
    began = time.perf_counter()
    compiled = dict(compile_kernels(arch).resources)
    for tile in [*dict.fromkeys(tiling.tile for tiling in tilings_of(info.card))][: 1 if settings.dry_run else None]:
        compiled[f"iterate, {tile}"] = compile_kernels(arch, tile).resources["iterate"]
    report.rows.append({"what": "compilation of all variants", "value": f"{time.perf_counter() - began:.2f} s"})
    for name, kernel in compiled.items():
        report.rows.append({"what": name, "value": f"{kernel.registers} registers, {kernel.spill_bytes} B spilled"})
        report.check(kernel.spill_bytes == 0, f"{name} spills {kernel.spill_bytes} bytes")
    for level in describe_tilings(info.card, *settings.clips.shape[2:], TVL1Params()):
        report.rows.append({"what": f"plan for {level.pop('width')}x{level.pop('height')}", "value": ", ".join(map(str, level.values()))})
    began = time.perf_counter()
    with settings.solver(64, 64):
        pass
    report.rows.append({"what": "start of a solver", "value": f"{time.perf_counter() - began:.2f} s"})
    return report


def _crop(frames: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    return np.ascontiguousarray(frames[..., :height, :width])


@dataclass(frozen=True)
class _Case:
    """Frames whose flow is compared: in each group, each frame with the next. The gates are multiplied by `room`."""

    name: str
    groups: list[NDArray[np.uint8]]
    preset: str = "opencv"
    room: float = 1


def _strict_flow(frames: NDArray[np.uint8], preset: str) -> NDArray[np.float32]:
    return compute_flow(frames, params=TVL1Params.preset(preset))


def _strict_flows(work: list[tuple[NDArray[np.uint8], str]]) -> Iterator[NDArray[np.float32]]:
    """Yield the strict solver's flow of each group of frames, computed on all cores."""
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        yield from pool.map(_strict_flow, *zip(*work, strict=True))


def parity(settings: Settings) -> Report:
    """Check the GPU against the strict CPU solver within the gates, at several sizes and presets; and check what must hold exactly."""
    report = Report()
    clips = settings.clips
    height, width = clips.shape[2:]
    # The gates are for default parameters and frames of about this size. There are two exceptions. Without the median filter, a stop
    # that comes some iterations late is not smoothed away. And the KITTI pair moves by up to 50 px: even OpenCV 4.14 and 5.0 differ
    # there by 0.0525 px, p99 0.78 px, 1.66 %.
    size = f"{width}x{height}"
    cases = [
        _Case(size, [clip[:3] for clip in clips]),
        _Case(size, [clip[:3] for clip in clips], preset="paper", room=1.5),
        _Case(size, [clip[:3] for clip in clips], preset="denseflow", room=1.5),
        _Case("odd", [_crop(clip[:2], 233, 311) for clip in clips]),
        _Case("tall", [np.ascontiguousarray(clip[:2].transpose(0, 2, 1)) for clip in clips]),
        _Case("below a tile", [_crop(clip[:3], 31, 47) for clip in clips]),
        *(_Case(name, [pair], room=5 if "kitti" in name else 1) for name, pair in settings.frames.items() if name.startswith("pair")),
    ]
    if settings.dry_run:
        cases = [replace(cases[2], groups=cases[2].groups[:1], room=10)]
    references = _strict_flows([(group, case.preset) for case in cases for group in case.groups])
    for case in cases:
        frames, length = np.concatenate(case.groups), len(case.groups[0])
        pairs = np.array([[g * length + k, g * length + k + 1] for g in range(len(case.groups)) for k in range(length - 1)])
        with settings.solver(*frames.shape[1:], TVL1Params.preset(case.preset)) as solver:
            flow = solver.solve(frames, pairs)
        strict = np.concatenate([next(references) for _ in case.groups])
        distance, gates = FlowDistance.between(flow, strict), FlowDistance(*(case.room * gate for gate in vars(GPU_GATES).values()))
        row = {"frames": case.name, "size": f"{frames.shape[2]}x{frames.shape[1]}", "preset": case.preset, "pairs": len(pairs)}
        report.rows.append({**row, **vars(distance), "gates x": case.room})
        report.check(distance.within(gates), f"{case.name}, {case.preset}: {distance}, beyond {gates}")

    frames, (pairs,) = settings.all_frames, settings.batches(8 if settings.dry_run else 200)
    with settings.solver(height, width) as solver:
        flow, again = solver.solve(frames, pairs), solver.solve(frames, pairs)
        backward = solver.solve(frames, pairs[::-1])[::-1]
        still = solver.solve(frames, np.stack([pairs[:, 0]] * 2, axis=1))
    report.check(np.array_equal(flow, again), "the same batch gives different flow the second time: a race")
    report.check(np.array_equal(flow, backward), "a pair's flow depends on its place in the batch")
    report.check(not still.any(), "equal frames give flow")
    for mapping in ("symmetric", "paper"):
        with settings.solver(height, width, bound=BOUND, mapping=mapping) as solver:
            same = np.array_equal(solver.solve(frames, pairs), Quantiser(BOUND, mapping).encode(flow))
        report.check(same, f"bytes are not those of the {mapping} quantiser")
    return report


def _pairs_per_second(settings: Settings, solver: CudaSolver, num_batches: int) -> float:
    """Return the speed of solving and quantising frames in host memory; batches are submitted in advance, as by `extract`."""
    frames, batches = settings.all_frames, settings.batches(solver.max_pairs, num_batches)
    solver.submit(frames, batches[0]).result()  # warms up
    ahead: deque[SubmittedFlow] = deque()
    began = time.perf_counter()
    for pairs in batches:
        ahead.append(solver.submit(frames, pairs))
        if len(ahead) > 2:
            ahead.popleft().result()
    while ahead:
        ahead.popleft().result()
    return sum(map(len, batches)) / (time.perf_counter() - began)


def throughput(settings: Settings) -> Report:
    """Measure pairs per second (340x256, preset `opencv`) by batch size and batches in flight, and of other presets at the best."""
    report = Report()
    height, width = settings.clips.shape[2:]
    best: dict[int, float] = {}
    for num_lanes in (2,) if settings.dry_run else (1, 2, 3):
        for size in (2,) if settings.dry_run else (1, 16, 64, 128, 192):
            with settings.solver(height, width, bound=BOUND, max_pairs=size, num_lanes=num_lanes) as solver:
                speed = _pairs_per_second(settings, solver, 4 if settings.dry_run else max(12, min(72, 3456 // size)))
            report.rows.append({"preset": "opencv", "batch": size, "in flight": num_lanes, "pairs/s": speed})
            best[size] = max(best.get(size, 0), speed)
    for preset in () if settings.dry_run else ("paper", "denseflow"):
        with settings.solver(height, width, TVL1Params.preset(preset), bound=BOUND) as solver:
            speed = _pairs_per_second(settings, solver, 27)
        report.rows.append({"preset": preset, "batch": MAX_PAIRS, "in flight": NUM_LANES, "pairs/s": speed})
    top = max(best.values())
    for name, speed in GOAL_PAIRS_PER_SECOND.items():
        report.rows.append({"preset": f"best relative to {name} ({speed})", "pairs/s": top / speed})
    report.rows.append({"preset": "best over the inner loops' issue ceiling", "pairs/s": top / _issue_ceiling(settings)})
    report.check(
        settings.dry_run or top >= GOAL_PAIRS_PER_SECOND["the budget"] or "H200" not in list_devices()[settings.device].name,
        f"{top:.0f} pairs/s is below 1,500 on an H200",
    )
    return report


def _issue_ceiling(settings: Settings) -> float:
    """Return the pairs/s that the instructions of `iterate` alone would allow with the default plan, including the overlap of tiles."""
    card, levels = list_devices()[settings.device].card, frame_levels(*settings.clips.shape[2:])
    never_waiting = CostModel(cycles_per_instruction=1.0, barrier_cycles=0.0, launch_cycles=0.0)
    tilings = choose_tilings(card, levels, TVL1Params().inner_iterations)
    return 1 / (REAL_PIXEL_ITERATIONS * modelled_seconds(never_waiting, tilings, card, levels))


def kernels(settings: Settings) -> Report:
    """Time each kernel in one batch, with the largest memory traffic that it may cause (pairs that had stopped are counted)."""
    from gpu_kernel_times import time_kernels

    report = Report()
    (pairs,) = settings.batches(2 if settings.dry_run else 288)
    times = time_kernels(settings.all_frames, pairs, settings.device, BOUND)
    total = sum(time.milliseconds for time in times.values())
    for name, time_ in sorted(times.items(), key=lambda item: -item[1].milliseconds):
        row = {"kernel": name, "launches": time_.launches, "ms": time_.milliseconds, "share": time_.milliseconds / total}
        if time_.gigabytes:
            row["GB/s at most"] = 1e3 * time_.gigabytes / time_.milliseconds
        if name == "iterate" and not settings.dry_run:
            row["Gpixel-iterations/s"] = REAL_PIXEL_ITERATIONS * len(pairs) / time_.milliseconds / 1e6
        report.rows.append(row)
    report.rows.append({"kernel": "all", "launches": sum(time.launches for time in times.values()), "ms": total, "share": 1.0})
    return report


def sweep(settings: Settings) -> Report:
    """Compare tilings, the old plan beside the new one in alternating rounds; fit the constants of the cost model, and try its plan."""
    report = Report()
    height, width = settings.clips.shape[2:]
    frames, (sample,) = settings.all_frames, settings.batches(2 if settings.dry_run else 24)
    strict = np.concatenate([compute_flow(frames[pair]) for pair in sample])

    def speed(num_batches: int, **plan: Any) -> float:
        with settings.solver(height, width, bound=BOUND, **plan) as solver:
            return _pairs_per_second(settings, solver, 2 if settings.dry_run else num_batches)

    def compare(rounds: int, plans: dict[str, dict[str, Any]]) -> None:
        for number in range(1 if settings.dry_run else rounds):
            for name, plan in plans.items():
                report.rows.append({"plan": f"{name}, round {number + 1}", "pairs/s": speed(45, **plan)})

    compare(3, {"old": {"tile": DEFAULT_TILE}, "new": {}})
    card, levels = list_devices()[settings.device].card, frame_levels(height, width)
    measured: dict[Tiling, float] = {}
    tilings = [tiling for tiling in tilings_of(card, variants=(*HALF_VARIANTS, *VARIANTS)) if tiling.num_fused_iterations > 1]
    for tiling in (tilings[0], tilings[-1]) if settings.dry_run else tilings:
        plan = {"tile": tiling.tile, "num_fused_iterations": tiling.num_fused_iterations}
        with settings.solver(height, width, max_pairs=len(sample), num_lanes=1, **plan) as solver:
            distance = FlowDistance.between(solver.solve(frames, sample), strict)
        row = {"plan": str(tiling.tile), "fused": tiling.num_fused_iterations, "pairs/s": speed(14, **plan), "distance": str(distance)}
        report.rows.append(row)
        report.check(settings.dry_run or distance.within(GPU_GATES), f"{tiling}: {distance}, beyond {GPU_GATES}")
        measured[tiling] = 1 / row["pairs/s"]
        _write(settings.result, report)  # so that results are kept if time runs out
    fitted = fit(measured, card, levels)
    report.rows.append({"plan": f"fitted constants: {fitted.model}; errors of up to {fitted.worst_ratio:.2f} times"})
    chosen = choose_tilings(card, levels, TVL1Params().inner_iterations, model=fitted.model)
    for level, tiling in zip(levels, chosen, strict=True):
        report.rows.append({"plan": f"  {level.width}x{level.height}: {tiling.tile}", "fused": tiling.num_fused_iterations})
    report.rows.append({"plan": "forecast for it", "pairs/s": fitted.pairs_per_second(chosen, card, levels)})
    compare(2, {"new": {}, "by the fitted constants": {"model": fitted.model}})
    return report


def end_to_end(settings: Settings) -> Report:
    """Measure processes that encode and write beside the GPU's process, as `extract` runs them, relative to the solver alone."""
    from gpu_pipeline import run_pipeline

    report = Report()
    height, width = settings.clips.shape[2:]
    with settings.solver(height, width, bound=BOUND) as solver:
        alone = _pairs_per_second(settings, solver, 3 if settings.dry_run else 90)
    report.rows.append({"what": "solver alone", "pairs/s": alone})
    plan = [(2, 1), (2, 3)] if settings.dry_run else [(8, 3), (16, 1), (16, 3), (32, 1), (32, 3)]
    for num_workers, batches_ahead in plan:
        repeats = 4 if settings.dry_run else 600 // num_workers
        speed = run_pipeline(settings.frames_path, settings.device, num_workers=num_workers, repeats=repeats, batches_ahead=batches_ahead)
        what = f"{num_workers} encoding processes, each with {batches_ahead} batches in flight, clips written"
        report.rows.append({"what": what, "pairs/s": speed, "of alone": speed / alone})
        _write(settings.result, report)  # so that results are kept if time runs out
    return report


def training(settings: Settings) -> Report:
    """Measure with bench_train.py: the step of ST-ResNet relative to that of two ResNet-50s, T = 5, 224 px, and its wait for data.

    The budgets are a ratio of 1.20, and 5 % of the time of a step.
    """
    import torch
    from bench_train import PLAIN, Variant, measure
    from data_wait import FULL, TINY, measure_data_wait

    report = Report()
    target = "cpu" if settings.dry_run else "cuda"
    size = {"clips": 1, "frames": 2, "size": 32, "rounds": 1} if settings.dry_run else {"clips": 8, "frames": 5, "size": 224, "rounds": 5}
    options = argparse.Namespace(device=target, warm_up=0 if settings.dry_run else 2, **size)

    def time_step(variant: Variant) -> None:
        if not settings.dry_run:
            torch.cuda.reset_peak_memory_stats()
        result = measure(variant, options)
        medians = result["median_seconds"]
        row = {"variant": str(variant), **{f"{name}, ms": 1e3 * seconds for name, seconds in medians.items()}, "ratio": result["ratio"]}
        report.rows.append({**row, "clips/s": options.clips / medians["ST-ResNet"]})
        report.check(
            settings.dry_run or result["ratio"] <= MOST_STEP_RATIO,
            f"{variant}: a step takes {result['ratio']:.2f} times that of two ResNet-50s",
        )
        if not settings.dry_run:
            report.rows[-1]["peak GiB"] = torch.cuda.max_memory_allocated() / 2**30

    def time_data_wait(amp: str) -> None:
        for row in measure_data_wait(target, TINY if settings.dry_run else FULL, amp=amp):
            report.rows.append({"variant": f"train, {row.pop('precision')}, crops on the {row.pop('crops on')}", **row})
        wait = report.rows[-1]["data wait"]
        report.check(settings.dry_run or wait < MOST_DATA_WAIT, f"{wait:.1%} of step time is waiting for data, crops on the device")

    last = Variant("float32", channels_last=True)
    half, compiled = (Variant("bf16", channels_last=True, compiled=compiled) for compiled in (False, True))
    waiting = ("train", partial(time_data_wait, "float32" if settings.dry_run else "bf16"))
    plan: list[tuple[str, Callable[[], None]]] = [(str(last), partial(time_step, last)), waiting]
    if not settings.dry_run:  # the most important first
        plan = [(str(half), partial(time_step, half)), waiting]
        plan += [(str(variant), partial(time_step, variant)) for variant in (PLAIN, compiled, last)]
    for name, measurement in plan:
        try:
            measurement()
        except ModuleNotFoundError as error:
            report.rows.append({"variant": name, "trouble": f"left out: the package {error.name} is not installed"})
        except Exception as error:
            report.rows.append({"variant": name, "trouble": f"{type(error).__name__}: {str(error)[:200]}"})
            report.check(False, f"the training step of {name} broke")
        _write(settings.result, report)  # so that results are kept if the next measurement is too slow
    return report


def small_case(settings: Settings) -> Report:
    """Run a small case for the checkers: several levels, tiles and pairs, medians, both outputs, and every variant of `iterate`."""
    clip = _crop(settings.clips[0][:3], 72, 90)
    params = TVL1Params(num_scales=2, num_warps=1, outer_iterations=2, inner_iterations=10)
    card = list_devices()[settings.device].card
    tiles = [tile for tile in (*VARIANTS, *HALF_VARIANTS) if card.holds(tile)]
    for plan in ({"bound": BOUND}, {}, *({"bound": BOUND, "tile": tile} for tile in tiles)):
        with settings.solver(*clip.shape[1:], params, **plan) as solver:
            assert np.isfinite(solver.solve(clip)).all()
    return Report()


def _checker(tool: str, settings: Settings) -> Report:
    report = Report()
    program = shutil.which("compute-sanitizer")
    if program is None:
        return Report(status="skipped: compute-sanitizer is not on PATH")
    command = [program, "--tool", tool, "--error-exitcode", "9", sys.executable, __file__, "small_case"]
    if tool == "memcheck":
        command[3:3] = ["--leak-check", "no"]
    command += ["--frames", str(settings.frames_path), "--device", str(settings.device)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    summary = [line for line in done.stdout.splitlines() if "SUMMARY" in line or "hazard" in line.lower() or "Invalid" in line]
    report.rows.append({"tool": tool, "exit code": done.returncode, "summary": " | ".join(summary[:6])})
    report.check(done.returncode == 0, f"{tool}: exit code {done.returncode}\n{done.stdout[-1500:]}\n{done.stderr[-500:]}")
    return report


def memcheck(settings: Settings) -> Report:
    """Search for accesses outside of allocated memory with compute-sanitizer."""
    return _checker("memcheck", settings)


def racecheck(settings: Settings) -> Report:
    """Search for hazards in shared memory with compute-sanitizer."""
    return _checker("racecheck", settings)


ALL: dict[str, Callable[[Settings], Report]] = {
    function.__name__: function
    for function in (machine, device, parity, throughput, kernels, sweep, end_to_end, training, small_case, memcheck, racecheck)
}


def _write(path: Path | None, report: Report) -> None:
    if path is not None:
        path.write_text(json.dumps(vars(report), default=float))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("section", choices=ALL)
    parser.add_argument("--frames", type=Path, required=True)
    parser.add_argument("--device", type=int, default=0)
    parser.add_argument("--result", type=Path)
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args()
    with np.load(options.frames) as file:
        frames = {name: file[name] for name in file.files}
    report = ALL[options.section](Settings(frames, options.frames, options.device, options.dry_run, options.result))
    _write(options.result, report)


if __name__ == "__main__":
    main()
