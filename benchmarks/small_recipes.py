"""Measure whether the recipes `small` reach their bars on generated videos, and how long each phase takes.

    python benchmarks/small_recipes.py --work FOLDER                                   # every system
    python benchmarks/small_recipes.py --work FOLDER --system two-streams-vgg-m --system two-stream-fusion
    python benchmarks/small_recipes.py --work FOLDER --run more --system two-streams-vgg-16 --set vgg-16-motion.steps=400

The class of a generated video is one of three hues and one of three motions, so a stream that sees one of them must guess the other: its
95 % interval has to reach down to the ceiling of 33.3 %, and a row that joins both streams has to reach 95 %. The videos have 160x120 px
and 32 frames, 40 for training and 15 for testing in each class. What is in the folder already is used: videos, flow, and trained phases
of the run. --threads limits the threads of PyTorch; times are those of the wall clock, and of all processors.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

import torch
from recipe_bars import bars_of

import flowkit
from flowkit.dataset.settings import ExtractSettings
from flowkit.demo_videos import SceneSettings, write_scenes
from flowkit.model.comparison.run import compare
from flowkit.model.compute.execution import Execution
from flowkit.model.evaluation.results import read_results
from flowkit.model.runs.places import report_folder
from flowkit.model.scoring.metrics import percent, percent_interval
from flowkit.model.systems.configs import overrides_of
from flowkit.model.systems.registry import SYSTEMS
from flowkit.model.systems.system import System
from flowkit.model.training.chain import train
from flowkit.model.training.svm_training import train_svm_phase
from flowkit.model.training.svm_vectors import VectorChoices


class Times:
    """The time of each part of the work, in the order of its first mention."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[float, float]] = {}

    @contextmanager
    def of(self, what: str) -> Iterator[None]:
        """Add the time of a block, in seconds: of the wall clock, and of all processors.

        The time of child processes counts where they end: that of trajectories, often in the next part.
        """
        wall, processors = time.monotonic(), _processor_seconds()
        yield
        new = time.monotonic() - wall, _processor_seconds() - processors
        before = self.rows.get(what, (0.0, 0.0))
        self.rows[what] = (before[0] + new[0], before[1] + new[1])
        print(f"{what}: {new[0]:.0f} s, processors {new[1]:.0f} s", file=sys.stderr, flush=True)


def _processor_seconds() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def data_root(options: argparse.Namespace, times: Times) -> Path:
    """Return the data root, which is made if it is missing."""
    work: Path = options.work
    root: Path = work / f"data{options.short_side}"
    if not (work / "split.csv").is_file():
        with times.of("generate"):
            counts = {"train_per_class": options.train, "test_per_class": options.test}
            write_scenes(work, seed=options.seed, **counts, settings=SceneSettings(num_frames=options.frames), progress=False)
    if not (root / "splits").is_dir():
        with times.of("extract"):
            settings = ExtractSettings(short_side=options.short_side, solver="fast")
            flowkit.extract(work / "videos", root, settings=settings, jobs=options.threads, progress=False)
        with times.of("pack"):
            flowkit.pack(root, lists=work / "split.csv", progress=False)
    return root


def train_system(root: Path, system: System, options: argparse.Namespace, execution: Execution, times: Times) -> None:
    """Train the phases of a system that the run does not have yet."""
    overrides = overrides_of(dict(options.set) | {"seed": options.seed}, system.networks)
    for number, phase in enumerate(system.networks):
        with times.of(f"train {phase}"):
            known = system.networks[: number + 1]
            train(root, run=options.run, phases=known, recipe="small", overrides=overrides, execution=execution, progress=True)
    for svm in system.svms:
        with times.of(f"train {svm.name}"):
            choices = VectorChoices(recipe="small", camera_motion=options.camera_motion, execution=execution)
            train_svm_phase(svm, root, run=options.run, choices=choices, progress=True)


def print_rows(root: Path, systems: Sequence[System], run: str) -> None:
    """Print what each row reached, beside what it must reach."""
    print("| row | correct | 95 % interval | bar | |\n|---|--:|--:|---|---|")
    seen: set[str] = set()
    for system in systems:
        (result,) = read_results(report_folder(root, run, 1, reports=None) / "compare" / system.name).splits
        bars = bars_of(system)
        for name, row in result.rows.items():
            if name not in seen:
                seen.add(name)
                bar = bars.get(name)
                verdict = "" if bar is None else "holds" if bar.holds(row) else "FAILS"
                print(f"| {name} | {percent(row.top1)} % | {percent_interval(row.interval)} % | {bar or ''} | {verdict} |")


def print_times(times: Mapping[str, tuple[float, float]]) -> None:
    """Print how long each part took."""
    print("\n| part | s | processor s |\n|---|--:|--:|")
    total = tuple(sum(pair[place] for pair in times.values()) for place in range(2))
    for what, (wall, processors) in [*times.items(), ("all", total)]:
        print(f"| {what} | {wall:.0f} | {processors:.0f} |")


def _setting(text: str) -> tuple[str, Any]:
    """Return the name and the value of ``NAME=VALUE``."""
    import ast

    name, _, value = text.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return name, value


def main() -> None:
    """Make the set, train, test, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="where to make the videos and the data root")
    parser.add_argument("--system", action="append", choices=list(SYSTEMS), help="may be repeated; default: all")
    parser.add_argument("--run", default="default")
    parser.add_argument("--set", action="append", type=_setting, default=[], metavar="NAME=VALUE", help="as in flowkit train")
    parser.add_argument("--train", type=int, default=40, help="training videos of each class")
    parser.add_argument("--test", type=int, default=15, help="test videos of each class")
    parser.add_argument("--frames", type=int, default=32, help="of each video")
    parser.add_argument("--short-side", type=int, default=64)
    parser.add_argument("--camera-motion", choices=["sift", "flow", "none"], default="sift", help="of improved trajectories")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    execution, times = Execution(device="cpu", num_workers=0), Times()
    root = data_root(options, times)
    systems = [SYSTEMS[name] for name in options.system or SYSTEMS]
    for system in systems:
        train_system(root, system, options, execution, times)
        with times.of(f"test {system.name}"):
            compare(root, run=options.run, systems=[system.name], execution=execution)
    print_rows(root, systems, options.run)
    print_times(times.rows)


if __name__ == "__main__":
    main()
