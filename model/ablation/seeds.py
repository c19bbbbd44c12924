"""Ablations of several seeds in one table: each variant's mean accuracy, and its mean difference from the reference of the same seed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowkit.errors import FlowkitError, ManifestError
from flowkit.files import replacing
from flowkit.model.ablation.table import VariantResult, failure_lines
from flowkit.model.ablation.variants import ST_PHASES
from flowkit.model.evaluation.rows import ROW_OF_PHASE
from flowkit.model.evaluation.tables import markdown
from flowkit.model.runs.seeds import seed_run
from flowkit.model.scoring.metrics import percent
from flowkit.model.scoring.spread import SPREAD_NOTE, Spread
from flowkit.model.settings.training import Phase
from flowkit.records import RecordFormat
from flowkit.versions import __version__
from flowkit.words import counted

SEEDS = RecordFormat("flowkit-ablation-seeds", 1, ManifestError, "make it again with `flowkit ablate --seeds`")
SEEDS_NAME, TABLE_NAME = "ablation-seeds.json", "ablation-seeds.md"
SEED_NOTES = (
    "difference: top-1 minus that of the reference of the same seed, in percentage points; both start from the same base streams",
    SPREAD_NOTE,
    "loss: cross-entropy of the training per frame and stream, mean over the last tenth of the steps; guessing among C classes gives ln C",
)


@dataclass(frozen=True)
class SeedAblation:
    """The ablations of runs that differ in their seed only, with the same variants.

    Parameters
    ----------
    run : str
        The name before ``-seed<k>`` of the base runs.
    by_seed : dict from int to sequence of VariantResult
        The results of each seed, the reference's first.
    """

    run: str
    by_seed: Mapping[int, Sequence[VariantResult]]

    @property
    def first(self) -> Sequence[VariantResult]:
        """The results of the first seed, for what is the same in all of them."""
        return next(iter(self.by_seed.values()))

    def spread(self, phase: Phase, number: int, figure: str) -> Spread:
        """Return a figure of the variant of this number for each seed: its ``top1``, ``difference`` from the reference, or ``loss``."""
        return Spread.of(_figure(results, phase, number, figure) for results in self.by_seed.values())

    def rows(self) -> list[tuple[Phase, int]]:
        """Return the network and the number of the variant of each row of the table."""
        return [(phase, number) for phase in ST_PHASES for number, result in enumerate(self.first) if phase in result.phases]

    def failures(self) -> list[str]:
        """Return a line for each variant of each seed that failed, with the reason."""
        return [f"seed {seed}: {line}" for seed, results in self.by_seed.items() for line in failure_lines(results)]


def _figure(results: Sequence[VariantResult], phase: Phase, number: int, figure: str) -> float | None:
    score, reference = results[number].scores.get(phase), results[0].scores.get(phase)
    if score is None:
        return None
    if figure == "difference":
        return None if reference is None or not number else score.against(reference)[0]
    return score.top1 if figure == "top1" else score.loss


def seeds_table(made: SeedAblation) -> tuple[list[str], list[list[str]]]:
    """Return header and rows: every variant's ST-ResNet, then every variant's ST-ResNet*; means need a result of every seed."""
    header = ["network", "variant", "top-1 %, mean", "sd", "difference, mean", "sd", "loss, mean", "sd"]
    rows = []
    for phase, number in made.rows():
        top1, difference, loss = (made.spread(phase, number, figure) for figure in ("top1", "difference", "loss"))
        cells = [percent(top1.mean), percent(top1.deviation)]
        cells += [_number(difference.mean, "+.2f", 100), _number(difference.deviation, ".2f", 100)]
        cells += [_number(loss.mean, ".3f"), _number(loss.deviation, ".3f")]
        rows.append([ROW_OF_PHASE[phase], made.first[number].variant.name, *cells])
    return header, rows


def _number(value: float | None, form: str, times: float = 1) -> str:
    return "-" if value is None or math.isnan(value) else format(times * value, form)


def seeds_notes(made: SeedAblation) -> list[str]:
    """Return what the table means, as sentences without a full stop."""
    runs = ", ".join(seed_run(made.run, seed) for seed in made.by_seed)
    return [f"n = {counted(len(made.by_seed), 'seed')}: {runs}", *SEED_NOTES]


def seeds_dict(made: SeedAblation, *, split: int) -> dict[str, Any]:
    """Return the ablations as built-in types, for JSON."""
    figures = ("top1", "difference", "loss")
    return {
        **SEEDS.header,
        "created_by": f"flowkit {__version__}",
        "split": split,
        "seeds": list(made.by_seed),
        "base_runs": {str(seed): seed_run(made.run, seed) for seed in made.by_seed},
        "standard_deviation": "n - 1 in the denominator",
        "variants": [
            {
                "name": result.variant.name,
                "settings": dict(result.variant.settings),
                "networks": {
                    phase: {figure: made.spread(phase, number, figure).to_dict() for figure in figures if number or figure != "difference"}
                    for phase in result.phases
                },
            }
            for number, result in enumerate(made.first)
        ],
        "failures": made.failures(),
    }


def write_seeds(folder: Path, made: SeedAblation, *, split: int) -> list[Path]:
    """Write ablation-seeds.md and ablation-seeds.json; return their paths, that of the JSON file last."""
    paths = [folder / TABLE_NAME, folder / SEEDS_NAME]
    lines = [f"# Ablation of {made.run}, split {split}, {counted(len(made.by_seed), 'seed')}", "", markdown(*seeds_table(made)), ""]
    lines += [f"* {result.variant.name}: {result.variant}" for result in made.first]
    lines += ["", *made.failures()] if made.failures() else []
    lines += ["", *(f"* {note}" for note in seeds_notes(made))]
    with replacing(paths[1]) as record, replacing(paths[0]) as text:
        text.write_bytes(("\n".join(lines) + "\n").encode("utf-8"))
        record.write_bytes((json.dumps(seeds_dict(made, split=split), indent=1, ensure_ascii=False) + "\n").encode("utf-8"))
    return paths


def refuse_to_lose_seeds(folder: Path, seeds: Sequence[int]) -> None:
    """Raise `ManifestError` if the table over seeds in a folder has further seeds; one that cannot be read has none."""
    try:
        record = SEEDS.read_if_present(folder / SEEDS_NAME) or {}
    except (FlowkitError, OSError):
        return
    before = record.get("seeds")
    lost = [seed for seed in before if isinstance(seed, int) and seed not in seeds] if isinstance(before, list) else []
    if lost:
        raise ManifestError(
            f"{folder / SEEDS_NAME} has {'seeds' if len(lost) > 1 else 'seed'} {', '.join(map(str, lost))} too, which the new table would "
            "not have; add them to --seeds, delete that file, or write to another folder with --reports DIR"
        )
