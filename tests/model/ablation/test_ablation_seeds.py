"""Ablations of several seeds: means over the seeds, and differences from the reference of the same seed."""

from __future__ import annotations

import json
import statistics
from typing import TYPE_CHECKING

import pytest
from command_lines import Ended, run_flowkit

from flowkit.errors import ManifestError
from flowkit.model.ablation.seeds import SeedAblation, refuse_to_lose_seeds, seeds_table, write_seeds
from flowkit.model.ablation.table import NetworkScore, VariantResult
from flowkit.model.ablation.variants import Variant
from flowkit.model.runs.run_folder import PhaseFolder, phase_folder

if TYPE_CHECKING:
    from pathlib import Path

VIDEOS = [f"v{k}" for k in range(10)]


def score(num_correct: int, loss: float) -> NetworkScore:
    return NetworkScore(frozenset(VIDEOS[:num_correct]), frozenset(VIDEOS), loss)


def results(reference: int, direct: int | None) -> list[VariantResult]:
    scored = {} if direct is None else {"st-resnet": score(direct, 1.0)}
    return [
        VariantResult(Variant("reference"), "r", ("st-resnet",), {"st-resnet": score(reference, 0.5)}),
        VariantResult(Variant("direct", {"injection": "direct"}), "r+direct", ("st-resnet",), scored, None if scored else "no number"),  # type: ignore[arg-type]
    ]


def test_differences_are_those_of_the_same_seed(tmp_path: Path) -> None:
    made = SeedAblation("r", {0: results(5, 7), 4: results(6, 9), 9: results(8, 8)})
    header, (reference, direct) = seeds_table(made)
    assert header[2:6] == ["top-1 %, mean", "sd", "difference, mean", "sd"]
    assert reference[:6] == ["ST-ResNet", "reference", "63.33", f"{statistics.stdev([50, 60, 80]):.2f}", "-", "-"]
    differences = [20, 30, 0]
    assert direct[4:] == [f"{statistics.fmean(differences):+.2f}", f"{statistics.stdev(differences):.2f}", "1.000", "0.000"]
    paths = write_seeds(tmp_path, made, split=1)
    stored = json.loads(paths[-1].read_text(encoding="utf-8"))
    assert stored["variants"][1]["networks"]["st-resnet"]["difference"]["values"] == pytest.approx([0.2, 0.3, 0])
    assert stored["base_runs"] == {"0": "r-seed0", "4": "r-seed4", "9": "r-seed9"}
    assert "n - 1 in the denominator" in paths[0].read_text(encoding="utf-8")


def test_a_variant_that_failed_for_one_seed_has_no_mean() -> None:
    made = SeedAblation("r", {0: results(5, 7), 1: results(6, None)})
    assert seeds_table(made)[1][1][2:] == ["-"] * 6
    assert made.failures() == ["seed 1: direct failed: no number"]


def test_seeds_of_an_earlier_table_are_not_lost(tmp_path: Path) -> None:
    refuse_to_lose_seeds(tmp_path, [0])
    write_seeds(tmp_path, SeedAblation("r", {0: results(5, 7), 1: results(6, 6)}), split=1)
    refuse_to_lose_seeds(tmp_path, [1, 0, 2])
    with pytest.raises(ManifestError, match=r"has seed 1 too"):
        refuse_to_lose_seeds(tmp_path, [0])
    (tmp_path / "ablation-seeds.json").write_text("{}", encoding="utf-8")
    refuse_to_lose_seeds(tmp_path, [0])


def ablate(root: Path, *options: str) -> Ended:
    tiny = ["--base-width", "4", "--batch", "4", "--bn-group", "2", "--input-size", "32", "--steps-per-phase", "1"]
    line = ["ablate", "--data", root, "--device", "cpu", *tiny, "--variants", "direct=injection=direct", "--phase", "st-resnet", *options]
    return run_flowkit(*line)


def test_a_later_seed_of_other_settings_is_found_before_the_first_is_trained(root: Path) -> None:
    tiny = ["--base-width", "8", "--batch", "4", "--bn-group", "2", "--input-size", "32", "--steps-per-phase", "1"]
    other = run_flowkit("train", "--data", root, "--device", "cpu", *tiny, "--phase", "motion", "--run", "default-seed1", "--seed", "1")
    assert other.code == 0, other
    ended = ablate(root, "--seeds", "0,1")
    assert ended.code == 1
    assert "base_width" in ended.err
    assert not (root / "runs" / "default-seed0").exists()


@pytest.mark.slow
def test_each_seed_is_an_ablation_by_itself_and_is_not_repeated(root: Path) -> None:
    plan = json.loads(ablate(root, "--seeds", "0,1", "--dry-run", "--json").out)
    assert [variant["run"] for variant in plan["variants"]] == [f"default-seed{k}{more}" for k in (0, 1) for more in ("", "+direct")]
    ended = ablate(root, "--seeds", "0,1", "--json")
    assert ended.code == 0, ended
    made = json.loads(ended.out)
    single = [json.loads((root / f"reports/default-seed{k}/split1/ablation.json").read_text(encoding="utf-8")) for k in (0, 1)]
    values = [one["variants"][1]["networks"]["st-resnet"]["difference"] for one in single]
    assert made["variants"][1]["networks"]["st-resnet"]["difference"]["values"] == values
    assert json.loads((root / "reports/default/split1/ablation-seeds.json").read_text(encoding="utf-8")) == made
    again = ablate(root, "--seeds", "0,1")
    assert again.code == 0
    trainings = 8  # for each seed two base streams, the reference and its variant
    assert [said.count(": 1 step;") for said in (ended.err, again.err)] == [trainings, 0]
    assert again.err.count("already done") == trainings
    assert ablate(root, "--seeds", "1").code == 1
    ended = ablate(root, "--seeds", "0,1", "--seed", "3")
    assert ended.code == 2


@pytest.mark.slow
def test_a_restart_discards_the_variants_of_all_seeds_and_keeps_their_base_runs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flowkit.model.ablation import run

    assert ablate(root, "--seeds", "0,1").code == 0
    monkeypatch.setattr(run, "train_phases", lambda *given, **rest: pytest.fail("the first training begins here"))
    with pytest.raises(pytest.fail.Exception):
        ablate(root, "--seeds", "0,1", "--restart")
    for seed in (0, 1):
        assert not PhaseFolder(phase_folder(root, f"default-seed{seed}+direct", 1, "st-resnet")).begun
        assert PhaseFolder(phase_folder(root, f"default-seed{seed}", 1, "st-resnet")).done
