"""The results of an ablation: each variant's scores, the table, and its files."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from flowkit.files import read_file, write_atomically
from flowkit.model.ablation.variants import ST_PHASES, Variant
from flowkit.model.evaluation.results import Evaluation, write_results
from flowkit.model.evaluation.rows import ROW_OF_PHASE
from flowkit.model.evaluation.scores import read_own_ranks
from flowkit.model.evaluation.tables import details, markdown, results_table
from flowkit.model.runs.metrics import read_metrics
from flowkit.model.runs.run_folder import METRICS_NAME
from flowkit.model.scoring.metrics import p_value, percent, percent_interval
from flowkit.model.scoring.significance import group_interval, group_numbers, mcnemar_test
from flowkit.model.settings.training import Phase, TrainConfig
from flowkit.records import MAX_RECORD_BYTES, parse_json
from flowkit.versions import __version__

NOTES = (
    "difference: top-1 minus that of the reference, in percentage points. gained, lost: test videos that this variant classifies "
    "correctly and the reference does not, and the reverse.",
    "p: exact McNemar test of gained against lost, that is how likely so uneven counts are if both networks are equally good.",
    "Each variant was trained once, and p knows only of these two networks: another --seed would also give other gains and losses, so "
    "repeat the trainings before you believe a difference.",
    "loss: cross-entropy of the training per frame and stream, mean over the last tenth of the steps; guessing among C classes gives ln C.",
)
_TESTED_NAME = "tested.json"
_NONE = "-"


@dataclass(frozen=True)
class NetworkScore:
    """The results of one network of one variant on the test videos.

    Parameters
    ----------
    correct : frozenset of str
        Videos that are classified correctly.
    scored : frozenset of str
        All videos that could be scored.
    loss : float
        Cross-entropy of the training per frame and stream in nats, mean over the last tenth of the steps.
    """

    correct: frozenset[str]
    scored: frozenset[str]
    loss: float

    @property
    def top1(self) -> float:
        """Share of videos that are classified correctly; NaN if there are none."""
        return len(self.correct) / len(self.scored) if self.scored else math.nan

    @cached_property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of `top1`, over the groups of the videos if they have groups."""
        video_ids = sorted(self.scored)
        is_correct = np.array([video_id in self.correct for video_id in video_ids], bool)
        return group_interval(is_correct, group_numbers(video_ids))

    def against(self, other: NetworkScore) -> tuple[float, int, int]:
        """Return the difference of top-1, and how many common videos only this network classifies correctly, and only the other."""
        common = self.scored & other.scored
        return self.top1 - other.top1, len((self.correct - other.correct) & common), len((other.correct - self.correct) & common)


@dataclass(frozen=True)
class VariantResult:
    """The results of a variant.

    Parameters
    ----------
    variant : Variant
        What was trained.
    run : str
        The run it was trained in.
    phases : tuple of str
        The phases that it trains itself.
    scores : dict from phase to NetworkScore
        The results of the phases that could be trained and tested.
    failure : str, optional
        Why some are missing.
    num_failed_videos : int
        Number of test videos that could not be scored.
    """

    variant: Variant
    run: str
    phases: tuple[Phase, ...]
    scores: dict[Phase, NetworkScore]
    failure: str | None = None
    num_failed_videos: int = 0


def is_tested(folder: Path, what: Mapping[str, Any], data_digests: Collection[str]) -> bool:
    """Return whether a variant's folder holds the test of exactly these weights and data, which may have earlier digests."""
    try:
        stored = parse_json(read_file(folder / _TESTED_NAME, most_bytes=MAX_RECORD_BYTES))
        stored_what = {key: what["data"] if key == "data" and stored.get(key) in data_digests else stored.get(key) for key in what}
        return stored_what == dict(what) and type(stored.get("num_failed")) is int
    except (OSError, ValueError, AttributeError):
        return False


def write_tested(folder: Path, evaluation: Evaluation, what: Mapping[str, Any]) -> None:
    """Write the results of a variant's test as `flowkit evaluate` does, and then what was tested."""
    (split,) = evaluation.splits
    (folder / _TESTED_NAME).unlink(missing_ok=True)
    write_results(folder, split, evaluation, table=f"{markdown(*results_table(evaluation))}\n\n{details(split)}")
    write_atomically(folder / _TESTED_NAME, json.dumps({**what, "num_failed": len(split.failed)}, indent=1) + "\n")


def num_failed_videos(folder: Path) -> int:
    """Return how many videos of a variant's test could not be scored."""
    return int(json.loads((folder / _TESTED_NAME).read_text(encoding="utf-8"))["num_failed"])


def read_score(folder: Path, phase: Phase, config: TrainConfig, phase_folder: Path) -> NetworkScore:
    """Read the results of a phase's network that `write_tested` wrote, and the loss of its training."""
    ranks = read_own_ranks(folder / "scores.h5", ROW_OF_PHASE[phase])
    correct = frozenset(video_id for video_id, rank in ranks.items() if rank == 0)
    return NetworkScore(correct, frozenset(ranks), final_loss(phase_folder / METRICS_NAME, config))


def final_loss(metrics: Path, config: TrainConfig) -> float:
    """Return the mean loss per frame and stream over the last tenth of a phase's steps; NaN if unknown."""
    losses = [line["loss"] for line in read_metrics(metrics, config).values() if isinstance(line.get("loss"), float)]
    last = losses[-math.ceil(len(losses) / 10) :]
    return sum(last) / len(last) if last else math.nan


def ablation_table(results: Sequence[VariantResult]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows: every variant's ST-ResNet, then every variant's ST-ResNet*; the first result is the reference's."""
    header = ["network", "variant", "top-1 %", "95 % interval", "correct", "difference", "gained", "lost", "p", "loss"]
    rows = []
    for phase in ST_PHASES:
        for result in results:
            if phase in result.phases:
                cells = _cells(result.scores.get(phase), None if result is results[0] else results[0].scores.get(phase))
                rows.append([ROW_OF_PHASE[phase], result.variant.name, *cells])
    return header, rows


def ablation_dict(results: Sequence[VariantResult], *, split: int, base_run: str, complete: bool) -> dict[str, Any]:
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
                "name": result.variant.name,
                "settings": dict(result.variant.settings),
                "run": result.run,
                "phases": list(result.phases),
                "failure": result.failure,
                "num_failed_videos": result.num_failed_videos,
                "networks": {
                    phase: _score_dict(score, None if result is results[0] else results[0].scores.get(phase))
                    for phase, score in result.scores.items()
                },
            }
            for result in results
        ],
    }


def write_ablation(folder: Path, results: Sequence[VariantResult], *, split: int, base_run: str, complete: bool) -> list[Path]:
    """Write ablation.md and ablation.json; return their paths."""
    paths = [folder / "ablation.md", folder / "ablation.json"]
    lines = [
        f"# Ablation of {base_run}, split {split}{'' if complete else ' (not all variants yet)'}",
        "",
        markdown(*ablation_table(results)),
    ]
    lines += ["", *(f"* {result.variant.name}: {result.variant} (run {result.run})" for result in results)]
    lines += ["", *failure_lines(results)] if failure_lines(results) else []
    write_atomically(paths[0], "\n".join([*lines, "", *(f"* {note}" for note in NOTES)]) + "\n")
    values = ablation_dict(results, split=split, base_run=base_run, complete=complete)
    write_atomically(paths[1], json.dumps(values, indent=1, ensure_ascii=False) + "\n")
    return paths


def failure_lines(results: Sequence[VariantResult]) -> list[str]:
    """Return a line for each variant that failed, with the reason."""
    return [f"{result.variant.name} failed: {result.failure}" for result in results if result.failure is not None]


def _cells(score: NetworkScore | None, reference: NetworkScore | None) -> list[str]:
    if score is None:
        return ["failed", *[_NONE] * 7]
    against = [_NONE] * 4
    if reference is not None:
        difference, gained, lost = score.against(reference)
        against = [_number(100 * difference, "+.2f"), str(gained), str(lost), p_value(mcnemar_test(gained, lost))]
    return [
        percent(score.top1),
        percent_interval(score.interval),
        f"{len(score.correct)}/{len(score.scored)}",
        *against,
        _number(score.loss, ".3f"),
    ]


def _number(value: float, form: str) -> str:
    return _NONE if math.isnan(value) else format(value, form)


def _score_dict(score: NetworkScore, reference: NetworkScore | None) -> dict[str, Any]:
    values: dict[str, Any] = {
        "top1": score.top1,
        "top1_interval_95": list(score.interval),
        "num_correct": len(score.correct),
        "num_videos": len(score.scored),
        "loss": score.loss,
    }
    if reference is not None:
        difference, gained, lost = score.against(reference)
        values |= {"difference": difference, "gained": gained, "lost": lost, "mcnemar_p": mcnemar_test(gained, lost)}
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}
