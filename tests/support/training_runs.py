"""Tiny training runs for several test files."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from flowkit.dataset.manifest import write_split
from flowkit.dataset.root import Dataset
from flowkit.model.compute.execution import Execution
from flowkit.model.runs import events
from flowkit.model.runs.checkpoint import load_checkpoint
from flowkit.model.runs.run_folder import phase_folder
from flowkit.model.training.chain import train

TINY = {"base_width": 4, "input_size": 32, "batch": 4, "bn_group": 2, "steps": 4, "warmup_steps": 0, "motion.motion_dropout": 0.5}


def share_root(packed_root: Path, path: Path, *copied: str) -> Path:
    """Make a data root at `path` that shares its shards with another, and has copies of these folders of it."""
    for name in ("shards", "splits"):
        shutil.copytree(packed_root / name, path / name, copy_function=os.link)
    for name in copied:
        shutil.copytree(packed_root / name, path / name)
    shutil.copy(packed_root / "dataset.json", path)
    return path


def copy_phases(source: Path, root: Path, *phases: Any, run: str = "default") -> None:
    """Copy these phases of the run `default` of another data root with the same split, instead of training them again."""
    for phase in phases:
        shutil.copytree(phase_folder(source, "default", 1, phase), phase_folder(root, run, 1, phase))


def run(root: Path, **settings: Any) -> tuple[Any, list[Any]]:
    """Train; return the report and all events. `stop_after` requests a stop after this many steps."""
    received: list[Any] = []
    overrides = {**TINY, **settings.pop("overrides", {})}
    execution = settings.pop("execution", Execution(device="cpu", checkpoint_steps=2))
    stop_after = settings.pop("stop_after", None)
    report = train(
        root,
        overrides=overrides,
        execution=execution,
        on_event=received.append,
        should_stop=lambda: stop_after is not None and sum(isinstance(event, events.StepDone) for event in received) >= stop_after,
        **settings,
    )
    return report, received


def write_uneven_split(root: Path, number: int) -> list[int]:
    """Write another split of an `example_root` with 2, 2, 1, 1, 1 and 0 training videos of the classes; return their labels."""
    split = Dataset.open(root).split(1)
    kept = {0: 2, 1: 2, 2: 1, 3: 1, 4: 1, 5: 0}
    train = [record for k, record in enumerate(split.train) if [r.label for r in split.train[:k]].count(record.label) < kept[record.label]]
    write_split(
        root,
        number,
        protocol=split.protocol,
        classes=split.classes,
        train=train,
        test=split.test,
        num_listed_train=len(train),
        num_listed_test=len(split.test),
        quantiser=split.quantiser,
        shards=split.shards,
    )
    return [record.label for record in train]


def weights(root: Path, phase: Any, name: str = "default", *, split: int = 1) -> Any:
    return load_checkpoint(phase_folder(root, name, split, phase) / "weights.safetensors").network


def metrics(root: Path, phase: Any, name: str = "default", *, split: int = 1) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl without times."""
    lines = [json.loads(line) for line in (phase_folder(root, name, split, phase) / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if "seconds" not in key} for line in lines]


def same(one: Any, other: Any) -> bool:
    """Return whether two states are equal bit for bit."""
    return bool(one.keys() == other.keys()) and all(torch.equal(one[name], other[name]) for name in one)
