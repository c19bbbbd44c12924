"""What training and evaluation tell their caller while they work: plain records, handed to a callback."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowkit.model.settings.recipes import RecipeName
from flowkit.model.settings.training import Phase


@dataclass(frozen=True)
class RunStarted:
    """Training begins: the recipe that was chosen, and where."""

    recipe: RecipeName
    device: str
    weights: str
    num_videos: int
    num_classes: int


@dataclass(frozen=True)
class PhaseSkipped:
    """A phase was already done, with the same settings."""

    phase: Phase
    folder: Path


@dataclass(frozen=True)
class PhaseStarted:
    """A phase begins, or goes on at `first_step`; `changes` says in what this machine differs from the one before."""

    phase: Phase
    first_step: int
    num_steps: int
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class StepDone:
    """One step was taken. `step` counts from 0; `seconds` include `data_seconds`, the wait for data.

    `measured` holds each stream's loss and share of right videos in the batch, as metrics.jsonl names them: ``loss_motion``.
    """

    phase: Phase
    step: int
    num_steps: int
    loss: float
    learning_rate: float
    seconds: float
    data_seconds: float
    measured: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PhaseDone:
    """A phase ended and its weights are written."""

    phase: Phase
    folder: Path
    seconds: float


@dataclass(frozen=True)
class RunStopped:
    """The run was asked to stop and wrote a checkpoint."""

    phase: Phase
    step: int
    num_steps: int


TrainEvent = RunStarted | PhaseSkipped | PhaseStarted | StepDone | PhaseDone | RunStopped


@dataclass(frozen=True)
class SplitStarted:
    """The evaluation of a split begins; `num_videos` are this process's share."""

    split: int
    num_videos: int


@dataclass(frozen=True)
class VideosScored:
    """Some more videos were scored; `done` of them so far."""

    split: int
    done: int
    num_videos: int
    num_failed: int


EvaluateEvent = SplitStarted | VideosScored


@dataclass(frozen=True)
class VariantStarted:
    """Training and test of a variant begin, the `number`-th of `num_variants` from 0; `settings` in words."""

    name: str
    settings: str
    number: int
    num_variants: int
    run: str
    phases: tuple[Phase, ...]


@dataclass(frozen=True)
class VariantFailed:
    """A phase of a variant could not be trained, or the variant could not be tested; the others go on."""

    name: str
    reason: str


@dataclass(frozen=True)
class VariantTested:
    """A variant's scores are there, from this call or an earlier one."""

    name: str


AblationEvent = TrainEvent | EvaluateEvent | VariantStarted | VariantFailed | VariantTested


def to_all(*listeners: Callable[[Any], None] | None) -> Callable[[Any], None]:
    """Return a callback that passes events on to several; None stands for nobody."""

    def send(event: object) -> None:
        for listener in listeners:
            if listener is not None:
                listener(event)

    return send


def ignore(*_: object) -> None:
    """Do nothing: what receives events where nobody is interested."""


def never() -> bool:
    """Return False: what requests a stop where nobody does."""
    return False
