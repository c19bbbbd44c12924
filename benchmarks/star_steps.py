"""Measure whether ST-ResNet* gains from more steps than flowkit takes: 150 on UCF101, where the official code takes 22,425.

    python benchmarks/star_steps.py ROOT --seeds 0 1 --steps 150 300 600

For each seed a narrow network is trained from scratch up to ST-ResNet by the recipe `small` (shortened), and from it ST-ResNet* with the
schedule of the official code: 75 steps at the first rate and all others at a tenth of it, without end. A longer training then begins as
a shorter one, so one training is tested at each number of steps. The table has the accuracy and the mean loss of the test videos, and
the loss of the training. ROOT is a packed data root; runs are kept in it, and what is there is not trained again.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from flowkit.model.compute.execution import Execution
from flowkit.model.evaluation.protocol import evaluate
from flowkit.model.runs.checkpoint import CHECKPOINT_NAME, WEIGHTS_NAME, load_checkpoint
from flowkit.model.runs.events import StepDone
from flowkit.model.runs.metrics import read_metrics
from flowkit.model.runs.run_folder import METRICS_NAME, phase_folder
from flowkit.model.settings.training import TrainConfig
from flowkit.model.training.chain import train

NARROW = {"base_width": 8, "input_size": 48}
BEFORE = {"appearance.steps": 80, "motion.steps": 120, "st-resnet.steps": 60, "st-resnet.batch": 8, "st-resnet.bn_group": 4}
FIRST_STEPS = 75
CPU = Execution(device="cpu", num_workers=0)


def train_star(root: Path, seed: int, *, steps: list[int], rate: float) -> dict[int, Path]:
    """Train up to ST-ResNet*; return its checkpoint at each number of steps."""
    base = f"seed{seed}"
    before = {**NARROW, **BEFORE, "seed": seed}
    train(root, run=base, phases=["appearance", "motion", "st-resnet"], recipe="small", overrides=before, execution=CPU, progress=True)
    run = f"{base}-star-{rate:g}"
    folder = phase_folder(root, run, 1, "st-resnet-star")
    kept = {number: folder.parent / f"at-{number}" for number in steps}
    unit = int(np.gcd.reduce(steps))

    def keep(event: object) -> None:
        """Copy the checkpoint of the step before, which is there when the next step is done."""
        if isinstance(event, StepDone) and event.step in kept:
            kept[event.step].mkdir(exist_ok=True)
            shutil.copy(folder / CHECKPOINT_NAME, kept[event.step] / CHECKPOINT_NAME)

    star: dict[str, Any] = {**NARROW, "seed": seed, "batch": 8, "bn_group": 4, "warmup_steps": 0, "decay": "steps", "bn_renewal_steps": 0}
    star["schedule"] = [[FIRST_STEPS, rate], [max(steps) + 1 - FIRST_STEPS, rate / 10]]
    train(
        root,
        run=run,
        base_run=base,
        phases=["st-resnet-star"],
        recipe="small",
        overrides=star,
        execution=replace(CPU, checkpoint_steps=unit, checkpoint_seconds=1e9),
        on_event=keep,
        progress=True,
    )
    return kept


def tested(root: Path, checkpoint: Path | None, run: str) -> str:
    """Return the accuracy and the mean loss of the two-stream row on the test videos."""
    (split,) = evaluate(root, run=run, checkpoint=checkpoint, execution=CPU, progress=False).splits
    row = list(split.rows.values())[-1]
    losses = np.logaddexp.reduce(row.scores, axis=1) - row.scores[np.arange(len(split.labels)), split.labels]
    return f"{100 * row.top1:5.1f} % | {losses.mean():.3f}"


def training_loss(root: Path, run: str, config: TrainConfig, end: int) -> float:
    """Return the mean loss of the 30 steps before a step."""
    lines = read_metrics(phase_folder(root, run, 1, "st-resnet-star") / METRICS_NAME, config)
    return statistics.fmean(lines[step]["loss"] for step in range(end - 30, end))


def main() -> None:
    """Train, test and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, nargs="+", default=[150, 300, 600])
    parser.add_argument("--rate", type=float, default=1e-4, help="The rate of the first 75 steps; the official code's is 1e-4.")
    options = parser.parse_args()
    print("seed | steps | top-1 | test loss | training loss", flush=True)
    for seed in options.seeds:
        kept = train_star(options.root, seed, steps=options.steps, rate=options.rate)
        run = f"seed{seed}-star-{options.rate:g}"
        print(f"{seed} | ST-ResNet | {tested(options.root, None, f'seed{seed}')} |", flush=True)
        config = load_checkpoint(phase_folder(options.root, run, 1, "st-resnet-star") / WEIGHTS_NAME).provenance.config
        for number, folder in kept.items():
            print(
                f"{seed} | {number} | {tested(options.root, folder, run)} | {training_loss(options.root, run, config, number):.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
