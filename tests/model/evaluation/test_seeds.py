"""Tables over seeds: the mean and the deviation are those of the runs, and nothing is averaged that differs in more than its seed."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_results import make_evaluation, make_hostile_root, make_result, of_seed

from flowkit.errors import CheckpointError, ManifestError
from flowkit.model.data.whole_videos import Unreadable
from flowkit.model.evaluation.published import Comparison
from flowkit.model.evaluation.seeds import (
    SeedEvaluation,
    lost_means,
    seeds_before,
    seeds_dict,
    seeds_notes,
    seeds_table,
    write_seeds,
)
from flowkit.model.scoring.spread import Spread


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return replace(make_result(make_hostile_root(tmp_path_factory.mktemp("seeds"))), failed=(), warnings=())


def made_of(*results: Any, seeds: tuple[int, ...] = (0, 1, 2)) -> SeedEvaluation:
    return SeedEvaluation("run", {seed: make_evaluation(own) for seed, own in zip(seeds, results, strict=False)})


@pytest.fixture
def made(result: Any) -> SeedEvaluation:
    return made_of(*(of_seed(result, seed) for seed in range(3)))


def test_means_and_deviations_are_those_of_the_seeds(made: SeedEvaluation) -> None:
    header, rows = seeds_table(made)
    assert header[:6] == ["split 1, top-1 %", "seed 0", "seed 1", "seed 2", "mean", "sd"]
    for name, *cells in rows:
        values = [100 * evaluation.splits[0].row(name).top1 for evaluation in made.by_seed.values()]  # type: ignore[union-attr]
        assert cells[:5] == [*(f"{value:.2f}" for value in values), f"{np.mean(values):.2f}", f"{np.std(values, ddof=1):.2f}"]
    assert len({row[5] for row in rows}) > 1
    assert "n = 3 seeds: run-seed0, run-seed1, run-seed2" in seeds_notes(made)
    assert any("n - 1 in the denominator" in note for note in seeds_notes(made))


def test_one_seed_has_a_mean_and_no_deviation(result: Any) -> None:
    _, rows = seeds_table(made_of(of_seed(result, 0)))
    assert {row[3] for row in rows} == {"-"}
    assert "-" not in {row[2] for row in rows}


def test_a_row_that_a_seed_lacks_has_no_mean(result: Any) -> None:
    last = of_seed(result, 2)
    del last.rows["ST-ResNet"]
    made = made_of(of_seed(result, 0), of_seed(result, 1), last)
    row = next(row for row in seeds_table(made)[1] if row[0] == "ST-ResNet")
    assert row[3:6] == ["-", "-", "-"]
    assert row[1] != "-"
    assert any("no mean for ST-ResNet:" in note for note in seeds_notes(made))
    assert seeds_dict(made, 1)["rows"]["ST-ResNet"]["top1"]["mean"] is None


def test_videos_that_differ_between_seeds_are_remarked_on(result: Any) -> None:
    other = replace(of_seed(result, 1), video_ids=result.video_ids[:-1], failed=(Unreadable(result.video_ids[-1], "gone"),))
    made = made_of(of_seed(result, 0), other)
    count = len(result.video_ids)
    assert any("not tested on the same videos" in note and f"seed 1: {count - 1}" in note for note in seeds_notes(made))


def test_several_splits_give_the_deviation_of_the_means_over_splits(result: Any) -> None:
    by_seed = {}
    for seed in range(3):
        splits = (of_seed(result, seed), replace(of_seed(result, seed), split=2, rows=of_seed(result, seed + 10).rows))
        by_seed[seed] = replace(make_evaluation(splits[0]), splits=splits)
    made = SeedEvaluation("run", by_seed)
    header, rows = seeds_table(made)
    assert header == ["top-1 %, mean ± sd", "split 1", "split 2", "mean of splits"]
    means = [100 * np.mean([split.rows["motion"].top1 for split in evaluation.splits]) for evaluation in by_seed.values()]
    assert next(row for row in rows if row[0] == "motion")[3] == f"{np.mean(means):.2f} ± {statistics.stdev(means):.2f}"
    assert made.only(2).splits == (2,)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda own: of_seed(own, 1, batch=own.provenances["motion"].config.batch * 2), "config.batch is"),
        (lambda own: of_seed(own, 1, flip=False), "config.flip is true in one and false in the other"),
        (lambda own: of_seed(own, 7), "was trained with seed 7, so its name is wrong"),
        (lambda own: _with(of_seed(own, 1), precision="bf16"), "precision is float32 in one and bf16 in the other"),
        (lambda own: _with(of_seed(own, 1), digest="f" * 64), "the videos differ"),
        (lambda own: _with(of_seed(own, 1), started_from={"file": "a"}), "started_from.file"),
        (lambda own: _with(of_seed(own, 1), quantiser={"bound": 3}), "quantiser.bound"),
    ],
)
def test_runs_that_differ_in_more_than_their_seed_are_not_averaged(result: Any, change: Any, words: str) -> None:
    with pytest.raises(CheckpointError, match=words.replace(".", r"\.")):
        made_of(of_seed(result, 0), change(result))


def _with(own: Any, **changes: Any) -> Any:
    return replace(own, provenances={phase: replace(made, **changes) for phase, made in own.provenances.items()})


def test_tests_that_were_made_in_different_ways_are_not_averaged(result: Any) -> None:
    evaluations = [make_evaluation(of_seed(result, seed)) for seed in range(2)]
    for change in ({"weights": (1.0, 2.0)}, {"fusion": "softmax_mean"}, {"protocol": ("other",)}, {"environment": {"amp": "bf16"}}):
        with pytest.raises(ManifestError, match="different ways or precisions"):
            SeedEvaluation("run", {0: evaluations[0], 1: replace(evaluations[1], **change)})  # type: ignore[arg-type]


def test_the_seeds_and_means_of_an_earlier_table_are_known(made: SeedEvaluation, result: Any, tmp_path: Path) -> None:
    assert seeds_before(tmp_path) == {}
    write_seeds(tmp_path, made, 1, comparison=Comparison(None))
    assert seeds_before(tmp_path) == {0: "run-seed0", 1: "run-seed1", 2: "run-seed2"}
    assert lost_means(tmp_path, made, 1) == []
    lacking = of_seed(result, 2)
    del lacking.rows["motion"]
    assert lost_means(tmp_path, made_of(of_seed(result, 0), of_seed(result, 1), lacking), 1) == ["motion"]
    stored = json.loads((tmp_path / "seeds.json").read_text(encoding="utf-8"))
    for foreign in ("[]", "{", json.dumps(stored | {"runs": 3, "rows": []}), json.dumps(stored | {"runs": {"9" * 5000: "a"}, "rows": {}})):
        (tmp_path / "seeds.json").write_text(foreign, encoding="utf-8")
        assert seeds_before(tmp_path) == {}
        assert lost_means(tmp_path, made, 1) == []


def test_a_spread_of_unknown_values_is_unknown() -> None:
    assert Spread.of([0.5, float("nan")]).to_dict() == {"values": [0.5, None], "n": 2, "mean": None, "sd": None}
    assert Spread.of([]).mean is None
