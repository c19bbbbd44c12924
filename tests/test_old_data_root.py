"""Every command reads a data root that an earlier commit made, as it did then.

``fixtures/data_root_72d1ebb.tar.xz`` holds six generated videos of two classes, their list, and what commit 72d1ebb made of them: clip
files, a shard, one split, a run of all four phases at width 1, its report, a fusion and an ablation, and a run that was killed in its
third step. Pictures and report pages were left out to keep it small. To make it again, check that commit out and run, in a folder that
holds ``videos/`` and ``split.csv``::

    flowkit extract videos --short-side 32 --jobs 1
    flowkit pack --split 1 --lists split.csv
    flowkit train --recipe small --base-width 1 --batch 2 --bn-group 2 --steps-per-phase 1 --input-size 32 --seed 0 --workers 0
    flowkit evaluate
    flowkit fuse flowkit-data/reports/default/split1/scores.h5
    flowkit ablate --variants direct=injection=direct --recipe small ...    # as for train
    flowkit train --recipe paper --weights none ... --steps-per-phase 6 --phase motion --checkpoint-steps 1 --run killed

``undisturbed.jsonl`` is the metrics.jsonl of the last of these commands when it is not killed.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from command_lines import call_flowkit, run_flowkit

if TYPE_CHECKING:
    pass

ARCHIVE = Path(__file__).parent / "fixtures" / "data_root_72d1ebb.tar.xz"
RECIPE = [
    *("--recipe", "small", "--base-width", "1", "--batch", "2", "--bn-group", "2"),
    *("--steps-per-phase", "1", "--input-size", "32", "--seed", "0", "--workers", "0"),
]
UNFINISHED = [
    *("--recipe", "official", "--weights", "none", "--base-width", "1", "--batch", "2", "--bn-group", "2", "--steps-per-phase", "6"),
    *("--input-size", "32", "--seed", "0", "--workers", "0", "--device", "cpu", "--phase", "motion", "--run", "killed"),
]
REPORT = Path("flowkit-data/reports/default/split1")
RUNS = Path("flowkit-data/runs")


@pytest.fixture(autouse=True)
def old_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unpack the archive and work there."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)


run = partial(call_flowkit, code=0)


def contents(folder: Path, pattern: str) -> dict[Path, bytes]:
    found = {path: path.read_bytes() for path in sorted(folder.rglob(pattern)) if path.is_file()}
    assert found
    return found


def test_the_data_are_described_and_intact() -> None:
    root = json.loads(run("info", "--json").out)
    assert "AzureBobbing" in json.dumps(root)
    assert json.loads(run("verify", "--deep", "--json").out)["problems"] == []
    assert "CoralSliding" in run("stats").out
    run("inspect", "AzureBobbing/v_AzureBobbing_g01_c01")


def test_extract_and_pack_find_nothing_to_do() -> None:
    before = contents(Path("flowkit-data"), "*.h5")
    again = json.loads(run("extract", "videos", "--short-side", "32", "--jobs", "1", "--device", "cpu", "--json").out)
    assert (len(again["done"]), len(again["skipped"]), len(again["failed"])) == (0, 6, 0)
    split = contents(Path("flowkit-data/splits"), "*.*")
    run("pack", "--split", "1", "--lists", "split.csv")
    assert contents(Path("flowkit-data/splits"), "*.*") == split
    assert contents(Path("flowkit-data"), "*.h5") == before


@pytest.mark.slow
def test_clips_made_now_equal_the_old_ones_and_a_second_split_uses_the_old_shards() -> None:
    from flowkit import ShardReader

    video_id = "AzureBobbing/v_AzureBobbing_g02_c01"
    run("extract", "videos", "--short-side", "32", "--jobs", "1", "--device", "cpu", "--data", "new")
    with ShardReader(Path("new/clips", video_id + ".h5")) as made, ShardReader(Path("flowkit-data/clips", video_id + ".h5")) as stored:
        new, old = made.clip(video_id), stored.clip(video_id)
        assert (new.flow(0, 11) == old.flow(0, 11)).all()
        assert new.attributes == old.attributes
    shards = contents(Path("flowkit-data/shards"), "*.h5")
    run("pack", "--split", "2", "--lists", "split.csv")
    assert contents(Path("flowkit-data/shards"), "*.h5") == shards
    assert json.loads(run("verify", "--json").out)["problems"] == []


def test_training_skips_what_is_trained_and_evaluation_gives_the_same_rows() -> None:
    weights = contents(RUNS / "default", "weights.safetensors")
    run("train", *RECIPE, "--device", "cpu")
    assert contents(RUNS / "default", "weights.safetensors") == weights
    rows = json.loads((REPORT / "results.json").read_text())["rows"]
    run("evaluate", "--device", "cpu")
    for name, row in json.loads((REPORT / "results.json").read_text())["rows"].items():
        assert row["confusion"] == rows[name]["confusion"]
        assert (row["top1"], row["num_correct"]) == (rows[name]["top1"], rows[name]["num_correct"])
        assert row["top5"] is None  # there are two classes
    assert (REPORT / "report.html").is_file()


def losses(path: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_with_the_steps_that_it_would_have_had() -> None:
    folder = RUNS / "killed/split1/motion"
    assert (folder / "checkpoint.pt.part").exists()
    assert len(losses(folder / "metrics.jsonl")) == 3
    assert "continues at step 2 of 6" in run("train", *UNFINISHED).err
    assert losses(folder / "metrics.jsonl") == pytest.approx(losses(Path("undisturbed.jsonl")), rel=1e-5)
    assert not (folder / "checkpoint.pt.part").exists()
    assert "intact" in {phase["state"] for phase in json.loads(run("verify", "--json").out)["runs"] if "killed" in phase["path"]}


def test_a_run_that_was_killed_is_not_resumed_with_other_settings() -> None:
    before = contents(RUNS / "killed", "*")
    refused = run_flowkit("train", *UNFINISHED, "--lr", "0.5")
    assert refused.code == 1
    (line,) = [line for line in refused.err.splitlines() if line.startswith("flowkit: error")]
    assert "was begun with other settings or data: config.schedule is" in line
    assert contents(RUNS / "killed", "*") == before


@pytest.mark.parametrize("change", [pytest.param(("--shard-size", "10KB"), marks=pytest.mark.slow), ("--shard-size", "50KB", "--move")])
def test_packing_into_other_shards_leaves_the_run_and_its_evaluation_valid(change: tuple[str, ...]) -> None:
    before, weights = contents(Path("flowkit-data/shards"), "*.h5"), contents(RUNS / "default", "weights.safetensors")
    Path(RUNS, "default/split1/st-resnet-star/weights.safetensors").unlink()  # as if training had been stopped before its end
    run("pack", "--split", "1", "--lists", "split.csv", *change)
    assert contents(Path("flowkit-data/shards"), "*.h5") != before
    run("train", *RECIPE, "--device", "cpu")
    others = {path: data for path, data in weights.items() if "star" not in str(path)}
    assert others.items() <= contents(RUNS / "default", "weights.safetensors").items()
    run("pack", "--split", "1", "--lists", "split.csv", "--shard-size", "90KB")
    rows = json.loads((REPORT / "results.json").read_text())["rows"]
    run("evaluate", "--device", "cpu")
    for name, row in json.loads((REPORT / "results.json").read_text())["rows"].items():
        assert row["confusion"] == rows[name]["confusion"]
        assert (row["top1"], row["num_correct"]) == (rows[name]["top1"], rows[name]["num_correct"])
        assert row["top5"] is None  # there are two classes
    page = (REPORT / "report.html").read_text()
    assert "other data" not in page
    assert "changed since" not in page
    states = json.loads(run("verify", "--json").out)["runs"]
    assert {Path(phase["path"]).name: phase["state"] for phase in states if "/default/" in phase["path"]} == {
        **dict.fromkeys(("appearance", "motion", "st-resnet"), "no digests"),
        "st-resnet-star": "intact",
    }


@pytest.mark.slow
def test_a_video_that_the_split_does_not_list_leaves_the_run_valid() -> None:
    run("pack", "--split", "1", "--lists", "split.csv", "--shard-size", "10KB")
    shutil.copy("videos/AzureBobbing/v_AzureBobbing_g01_c01.avi", "videos/AzureBobbing/v_AzureBobbing_g09_c01.avi")
    run("extract", "videos", "--short-side", "32", "--jobs", "1", "--device", "cpu")
    run("pack", "--split", "1", "--lists", "split.csv")
    run("train", *RECIPE, "--device", "cpu")
    run("evaluate", "--device", "cpu")


@pytest.mark.slow
def test_what_cannot_be_known_of_an_old_run_is_said_once_and_force_remains() -> None:
    for path in Path("flowkit-data/splits/split1").iterdir():
        path.unlink()  # the manifest that the run was trained with
    run("pack", "--split", "1", "--lists", "split.csv", "--shard-size", "10KB")
    refused = run_flowkit("evaluate", "--device", "cpu")
    assert refused.code == 1
    assert refused.err.count("cannot be known") == 1
    assert "--force" in refused.err
    assert "Traceback" not in refused.err
    refused = run_flowkit("train", *RECIPE, "--device", "cpu")
    assert (refused.code, refused.err.count("cannot be known")) == (1, 1)
    assert "--restart" not in refused.err
    run("evaluate", "--device", "cpu", "--force")


def test_the_old_results_are_drawn_again_without_what_they_do_not_hold() -> None:
    before = contents(REPORT, "results.json")
    assert "p: exact McNemar" in run("evaluate", "--redraw").out
    page = (REPORT / "report.html").read_text(encoding="utf-8")
    assert "Each row against each other row" in page
    assert "most frequent class" not in page
    assert "began (UTC)" not in page
    assert contents(REPORT, "results.json") == before


@pytest.mark.slow
def test_scores_fusion_and_ablation_are_read() -> None:
    fusion = json.loads((REPORT / "fusion.json").read_text())
    run("fuse", REPORT / "scores.h5")
    for name, row in json.loads((REPORT / "fusion.json").read_text())["rows"].items():
        assert fusion["rows"][name].items() <= row.items()
    weights = contents(RUNS, "weights.safetensors")
    run("ablate", "--variants", "direct=injection=direct", *RECIPE, "--device", "cpu")
    assert contents(RUNS, "weights.safetensors") == weights


@pytest.mark.slow
def test_networks_predict_and_are_converted() -> None:
    video = "videos/AzureBobbing/v_AzureBobbing_g03_c01.avi"
    assert "AzureBobbing" in run("predict", video, "--device", "cpu").out
    for source in ("weights.safetensors", "checkpoint.pt"):
        path = RUNS / "default/split1/appearance" / source
        assert "AzureBobbing" in run("predict", video, "--device", "cpu", "--checkpoint", path).out
    assert "ONNX Runtime and PyTorch differ" in run("convert", "default", "network.onnx").out
    run("convert", RUNS / "default/split1/appearance/checkpoint.pt", "appearance.safetensors")
    run("convert", "default", "network.safetensors")
    assert "AzureBobbing" in run("predict", video, "--device", "cpu", "--checkpoint", "network.safetensors").out
    run("export", "--layout", "rawframes", "--output", "images")
    assert list(Path("images").rglob("*.jpg"))
    run("export", "--layout", "webdataset", "--output", "tars")
    assert list(Path("tars").rglob("*.tar"))
