"""What an ablation found: each variant's scores, the table, and its files."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowkit.files import write_atomically
from flowkit.model.ablation.variants import ST_PHASES
from flowkit.model.evaluation.results import markdown, results_table, write_results
from flowkit.model.evaluation.rows import ROW_OF_PHASE
from flowkit.model.evaluation.scores import read_own_ranks
from flowkit.model.networks.resnet import pooled_length
from flowkit.model.runs.run_folder import METRICS_NAME
from flowkit.model.scoring.metrics import percent, percent_interval, wilson_interval
from flowkit.versions import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from flowkit.model.ablation.variants import Variant
    from flowkit.model.evaluation.results import Evaluation
    from flowkit.model.settings.training import Phase, TrainConfig

NOTES = (
    "difference: percentage points of top-1 from the paper's variant. gained, lost: test videos that are right here and wrong there, and "
    "the reverse.",
    "One training each. A difference says little unless gained and lost differ by well over the square root of their sum; what another "
    "--seed gives says more.",
    "loss: cross-entropy of a training output, mean over the last tenth of the steps.",
)
_TESTED_NAME = "tested.json"
_NONE = "-"


@dataclass(frozen=True)
class NetworkScore:
    """One network of one variant on the test videos.

    Parameters
    ----------
    right : frozenset of str
        Videos whose highest score is the right class's.
    scored : frozenset of str
        All videos that could be scored.
    loss : float
        Cross-entropy of a training output in nats, mean over the last tenth of the steps.
    """

    right: frozenset[str]
    scored: frozenset[str]
    loss: float

    @property
    def top1(self) -> float:
        """Share of videos that are right; NaN of none."""
        return len(self.right) / len(self.scored) if self.scored else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of `top1`."""
        return wilson_interval(len(self.right), len(self.scored))

    def against(self, other: NetworkScore) -> tuple[float, int, int]:
        """Return the difference of top-1 to another's, and how many of their common videos only this one has right, and only the other."""
        common = self.scored & other.scored
        return self.top1 - other.top1, len((self.right - other.right) & common), len((other.right - self.right) & common)


@dataclass(frozen=True)
class Outcome:
    """What became of a variant.

    Parameters
    ----------
    variant : Variant
    run : str
    phases : tuple of str
        What it trains for itself.
    scores : dict from phase to NetworkScore
        Of the phases that could be trained and tested.
    failure : str, optional
        Why not all of them are there.
    num_failed_videos : int
        Test videos that could not be scored.
    """

    variant: Variant
    run: str
    phases: tuple[Phase, ...]
    scores: dict[Phase, NetworkScore]
    failure: str | None = None
    num_failed_videos: int = 0


def is_tested(folder: Path, what: Mapping[str, Any]) -> bool:
    """Return whether a variant's folder holds the test of just these weights and data."""
    try:
        stored = json.loads((folder / _TESTED_NAME).read_text(encoding="utf-8"))
        return bool({key: stored.get(key) for key in what} == dict(what))
    except (OSError, ValueError, AttributeError):
        return False


def write_tested(folder: Path, evaluation: Evaluation, what: Mapping[str, Any]) -> None:
    """Write a variant's test as `evaluate` does, and last what was tested."""
    (split,) = evaluation.splits
    (folder / _TESTED_NAME).unlink(missing_ok=True)
    write_results(folder, split, evaluation, table=markdown(*results_table(evaluation)))
    write_atomically(folder / _TESTED_NAME, json.dumps({**what, "num_failed": len(split.failed)}, indent=1) + "\n")


def num_failed_videos(folder: Path) -> int:
    """Return how many videos of a variant's test could not be scored."""
    return int(json.loads((folder / _TESTED_NAME).read_text(encoding="utf-8"))["num_failed"])


def read_score(folder: Path, phase: Phase, config: TrainConfig, phase_folder: Path) -> NetworkScore:
    """Read what `write_tested` wrote of a phase's network, and the loss of its training."""
    ranks = read_own_ranks(folder / "scores.h5", ROW_OF_PHASE[phase])
    correct = frozenset(video_id for video_id, rank in ranks.items() if rank == 0)
    return NetworkScore(correct, frozenset(ranks), final_loss(phase_folder / METRICS_NAME, config))


def final_loss(metrics: Path, config: TrainConfig) -> float:
    """Return the mean cross-entropy of one output (of two streams, at T' times) over the last tenth of a phase's steps; NaN if unknown."""
    lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.is_file() else []
    last = [json.loads(line)["loss"] for line in lines][-math.ceil(len(lines) / 10) :]
    num_outputs = 2 * (pooled_length(config.num_samples) if config.network.temporal_pool else config.num_samples)
    return sum(last) / len(last) / num_outputs if last else math.nan


def ablation_table(outcomes: Sequence[Outcome]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows: every variant's ST-ResNet, then every variant's ST-ResNet*; the first outcome is the paper's."""
    header = ["network", "variant", "top-1 %", "95 % interval", "right", "difference", "gained", "lost", "loss"]
    rows = []
    for phase in ST_PHASES:
        for outcome in outcomes:
            if phase in outcome.phases:
                cells = _cells(outcome.scores.get(phase), None if outcome is outcomes[0] else outcomes[0].scores.get(phase))
                rows.append([ROW_OF_PHASE[phase], outcome.variant.name, *cells])
    return header, rows


def ablation_dict(outcomes: Sequence[Outcome], *, split: int, base_run: str, complete: bool) -> dict[str, Any]:
    """Return an ablation as built-in types, for JSON."""
    return {
        "format": "flowkit-ablation",
        "format_version": 1,
        "created_by": f"flowkit {__version__}",
        "split": split,
        "base_run": base_run,
        "complete": complete,
        "variants": [
            {
                "name": outcome.variant.name,
                "settings": dict(outcome.variant.settings),
                "run": outcome.run,
                "phases": list(outcome.phases),
                "failure": outcome.failure,
                "num_failed_videos": outcome.num_failed_videos,
                "networks": {
                    phase: _score_dict(score, None if outcome is outcomes[0] else outcomes[0].scores.get(phase))
                    for phase, score in outcome.scores.items()
                },
            }
            for outcome in outcomes
        ],
    }


def write_ablation(folder: Path, outcomes: Sequence[Outcome], *, split: int, base_run: str, complete: bool) -> list[Path]:
    """Write ablation.md and ablation.json; return their paths."""
    paths = [folder / "ablation.md", folder / "ablation.json"]
    lines = [
        f"# Ablation of {base_run}, split {split}{'' if complete else ' (not all variants yet)'}",
        "",
        markdown(*ablation_table(outcomes)),
    ]
    lines += ["", *(f"* {outcome.variant.name}: {outcome.variant} (run {outcome.run})" for outcome in outcomes)]
    lines += ["", *failure_lines(outcomes)] if failure_lines(outcomes) else []
    write_atomically(paths[0], "\n".join([*lines, "", *(f"* {note}" for note in NOTES)]) + "\n")
    values = ablation_dict(outcomes, split=split, base_run=base_run, complete=complete)
    write_atomically(paths[1], json.dumps(values, indent=1, ensure_ascii=False) + "\n")
    return paths


def failure_lines(outcomes: Sequence[Outcome]) -> list[str]:
    """Return a line for each variant that failed, with the reason."""
    return [f"{outcome.variant.name} failed: {outcome.failure}" for outcome in outcomes if outcome.failure is not None]


def _cells(score: NetworkScore | None, reference: NetworkScore | None) -> list[str]:
    if score is None:
        return ["failed", *[_NONE] * 6]
    against = [_NONE] * 3
    if reference is not None:
        difference, gained, lost = score.against(reference)
        against = [_number(100 * difference, "+.2f"), str(gained), str(lost)]
    return [
        percent(score.top1),
        percent_interval(score.interval),
        f"{len(score.right)}/{len(score.scored)}",
        *against,
        _number(score.loss, ".3f"),
    ]


def _number(value: float, form: str) -> str:
    return _NONE if math.isnan(value) else format(value, form)


def _score_dict(score: NetworkScore, reference: NetworkScore | None) -> dict[str, Any]:
    values: dict[str, Any] = {
        "top1": score.top1,
        "top1_interval_95": list(score.interval),
        "num_correct": len(score.right),
        "num_videos": len(score.scored),
        "loss": score.loss,
    }
    if reference is not None:
        values |= dict(zip(("difference", "gained", "lost"), score.against(reference), strict=True))
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}
