"""Events of training, evaluation and ablation: plain records, which a callback receives while the work proceeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowkit.model.settings.recipes import RecipeName
from flowkit.model.settings.training import Phase


@dataclass(frozen=True)
class RunStarted:
    """Training begins: which recipe was chosen, on which device, and in `weights` what the first networks start from.

    `weights` is the source of `init_from` if a phase starts from it, else the weights of the base streams, and empty if none of these is
    trained. `num_empty_classes` of the `num_classes` have no training video. `why_recipe` is empty if the user chose the recipe.
    `num_held_out` further videos are held out for validation; `notes` has what is worth saying about that. `num_steps` has the phases that
    are not done yet, with the number of their steps.
    """

    recipe: RecipeName
    device: str
    weights: str
    num_videos: int
    num_classes: int
    num_empty_classes: int = 0
    num_held_out: int = 0
    notes: tuple[str, ...] = ()
    why_recipe: str = ""
    num_steps: tuple[tuple[Phase, int], ...] = ()


@dataclass(frozen=True)
class NetworksTaken:
    """Phases will start from trained networks (`init_from`): which from which, in `lines`; and how those networks' data differ."""

    lines: tuple[str, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class PhaseSkipped:
    """A phase was done already, with the same settings."""

    phase: Phase
    folder: Path


@dataclass(frozen=True)
class FeaturesComputed:
    """Before a phase that learns from features: `done` of this process's share of `num_videos` have those of the phase `of`."""

    phase: Phase
    of: Phase
    done: int
    num_videos: int


@dataclass(frozen=True)
class PhaseStarted:
    """A phase begins, or continues at `first_step`; `changes` says how the environment differs from that of the checkpoint."""

    phase: Phase
    first_step: int
    num_steps: int
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class StepDone:
    """A step was done. `step` counts from 0; `seconds` includes `data_seconds`, the wait for data.

    `loss` is the mean cross-entropy per frame and stream. `measured` holds each stream's loss per frame and training accuracy on the
    batch under their names in metrics.jsonl, such as ``loss_motion``.
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
class Validating:
    """The validation videos are being measured: `done` of this process's share of `num_videos`."""

    phase: Phase
    done: int
    num_videos: int


@dataclass(frozen=True)
class Validated:
    """The validation videos were measured after `step` steps.

    `loss` is None if a score was not a finite number. `is_best` says that these weights are the best so far, for a phase that will end
    with the best. `measured` holds the values under their names in metrics.jsonl.
    """

    phase: Phase
    step: int
    num_steps: int
    num_videos: int
    accuracy: float
    loss: float | None
    is_best: bool = False
    measured: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class WeightsSelected:
    """The phase ends with the weights that it had after `step` steps, which had the best accuracy on the validation videos."""

    phase: Phase
    step: int
    num_steps: int
    accuracy: float


@dataclass(frozen=True)
class MomentsRenewed:
    """After the last step of a phase, `done` of `num_steps` batches have gone into the new running moments of batch normalisation."""

    phase: Phase
    done: int
    num_steps: int


@dataclass(frozen=True)
class PhaseDone:
    """A phase is done and its weights are written."""

    phase: Phase
    folder: Path
    seconds: float


@dataclass(frozen=True)
class RunStopped:
    """The run stopped on request and wrote a checkpoint."""

    phase: Phase
    step: int
    num_steps: int


TrainEvent = (
    RunStarted
    | NetworksTaken
    | PhaseSkipped
    | FeaturesComputed
    | PhaseStarted
    | StepDone
    | Validating
    | Validated
    | WeightsSelected
    | MomentsRenewed
    | PhaseDone
    | RunStopped
)


@dataclass(frozen=True)
class SplitStarted:
    """The evaluation of a split begins; `num_videos` is this process's share, without `num_kept` that an interrupted call had scored."""

    split: int
    num_videos: int
    num_kept: int = 0


@dataclass(frozen=True)
class VideosScored:
    """More videos were scored: `done` so far, including `num_failed` that failed; `of_validation`: on which fusion weights are chosen."""

    split: int
    done: int
    num_videos: int
    num_failed: int
    of_validation: bool = False


EvaluateEvent = SplitStarted | VideosScored


@dataclass(frozen=True)
class VariantStarted:
    """Training and evaluation of a variant begin: number `number` of `num_variants`, from 0; `settings` in words."""

    name: str
    settings: str
    number: int
    num_variants: int
    run: str
    phases: tuple[Phase, ...]


@dataclass(frozen=True)
class VariantFailed:
    """A phase of a variant could not be trained, or the variant could not be evaluated; the others continue."""

    name: str
    reason: str


@dataclass(frozen=True)
class VariantTested:
    """A variant's scores are available, from this call or an earlier one."""

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
    """Do nothing; the default of callbacks that receive events."""


def never() -> bool:
    """Return False; the default of callbacks that request a stop."""
    return False
