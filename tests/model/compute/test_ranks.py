"""Several processes of one run: the losses and scores of one process, no video twice, a failure of one ends all, torchrun restarts."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import indent
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from first_lines import DIES_BEFORE_ITS_FOURTH_STEP, environment_with
from forked_commands import answer_to
from phases import PHASES
from training_runs import metrics, same, share_root, weights, write_uneven_split

from flowkit.cli.shared.ranks import meet, ranks_from_environment
from flowkit.dataset.manifest import write_split
from flowkit.dataset.root import Dataset
from flowkit.errors import DeviceError, ParameterError, RankError
from flowkit.model.runs.checkpoint import load_checkpoint
from flowkit.model.runs.run_folder import phase_folder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork")

# At 64 px the last maps have four pixels. With one pixel, batch normalisation would magnify rounding to the size of the losses.
RUN = ["--base-width", "4", "--input-size", "64", "--batch", "12", "--bn-group", "6", "--lr", "1e-3", "--workers", "0", "--device", "cpu"]
QUICK = [
    *("--base-width", "4", "--input-size", "32", "--batch", "4", "--bn-group", "2", "--phase", "motion"),
    *("--workers", "0", "--device", "cpu"),
]


def run_jobs(folder: Path, jobs: Any) -> Any:
    return answer_to({"do": "jobs", "jobs": jobs}, folder)


def command(name: str, root: Path, *options: object, run: str = "default") -> list[Any]:
    return [name, "--data", str(root), "--run", run, *options]


@pytest.fixture(scope="module")
def root(packed_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A data root with five test videos, an odd number for two ranks."""
    root = share_root(packed_root, tmp_path_factory.mktemp("ranks"))
    split = Dataset.open(root).split(1)
    (root / "splits").rename(root / "shared splits")
    write_split(
        root,
        1,
        protocol=split.protocol,
        classes=split.classes,
        train=split.train,
        test=split.test[:5],
        num_listed_train=12,
        num_listed_test=5,
        quantiser=split.quantiser,
        shards=split.shards,
    )
    return root


@pytest.fixture(scope="module")
def ended(root: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Training and evaluation by one and by two processes, and runs in which one of two processes fails or stops on request."""
    train = command("train", root, *RUN, "--steps-per-phase", "3", "--validation", "0.5")
    short = command("train", root, *QUICK, "--steps-per-phase", "4")
    jobs = {
        "train by one": {"arguments": [*train, "--run", "one"]},
        "train by two": {"arguments": [*train, "--run", "two"], "world": 2},
        "evaluate by one": {"arguments": command("evaluate", root, "--no-report", "--output", f"{root}/by one", run="one")},
        "evaluate by two": {"arguments": command("evaluate", root, "--no-report", "--output", f"{root}/by two", run="one"), "world": 2},
        "one fails": {"arguments": [*short, "--run", "fails"], "world": 2, "faults": [{"kind": "fail", "rank": 1, "step": 2}]},
        "the first fails": {"arguments": [*short, "--run", "fails"], "world": 2, "faults": [{"kind": "fail", "rank": 0, "step": 2}]},
        "one is killed": {"arguments": [*short, "--run", "dies"], "world": 2, "faults": [{"kind": "die", "rank": 1, "step": 2}]},
        "one is asked to stop": {"arguments": [*short, "--run", "stops"], "world": 2, "faults": [{"kind": "stop", "rank": 1, "step": 1}]},
        "other settings": {"arguments": [*short, "--run", "two"], "world": 2},
        "uneven": {"arguments": [*short, "--run", "uneven"], "world": 3},
    }
    results = run_jobs(tmp_path_factory.mktemp("jobs"), list(jobs.values()))
    return dict(zip(jobs, results, strict=True))


def test_one_and_two_ranks_have_the_same_losses_over_all_steps_and_phases(root: Any, ended: Any) -> None:
    assert ended["train by one"]["codes"] == [0], ended["train by one"]["said"]
    assert ended["train by two"]["codes"] == [0, 0], ended["train by two"]["said"]
    for phase in PHASES:
        alone, shared = metrics(root, phase, "one"), metrics(root, phase, "two")
        assert len(alone) == len(shared) == 4  # three steps, and the validation videos after the last
        for one, two in zip(alone, shared, strict=True):
            assert one.keys() == two.keys()
            for name, value in one.items():
                assert two[name] == pytest.approx(value, rel=1e-4 if "validation_loss" in name else 1e-5), (phase, name)
        assert load_checkpoint(phase_folder(root, "two", 1, phase) / "checkpoint.pt").environment["num_ranks"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("balance", ["sampling", "weights"])
def test_classes_of_uneven_size_are_balanced_in_the_same_way_by_one_and_two_ranks(packed_root: Path, tmp_path: Path, balance: str) -> None:
    root = share_root(packed_root, tmp_path / "root")
    labels = write_uneven_split(root, 2)
    assert len(set(map(labels.count, set(labels)))) > 1
    train = command("train", root, *RUN, "--split", "2", "--phase", "motion", "--steps-per-phase", "4", "--balance", balance)
    names = {"one": 1, "two": 2}
    for result in run_jobs(tmp_path, [{"arguments": [*train, "--run", name], "world": world} for name, world in names.items()]):
        assert set(result["codes"]) == {0}, result["said"]
    alone, shared = (metrics(root, "motion", name, split=2) for name in names)
    for one, two in zip(alone, shared, strict=True):
        assert two == pytest.approx(one, rel=1e-5)
    states = [weights(root, "motion", name, split=2) for name in names]
    for name, tensor in states[0].items():
        assert torch.allclose(states[1][name], tensor, rtol=1e-4, atol=1e-6), name


def near(got: Any, expected: Any) -> Any:
    """Return the largest difference, relative to the spread of what is expected."""
    return float(np.abs(got - expected).max() / expected.std())


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
def test_any_number_of_ranks_ends_with_the_same_moments_scores_and_predictions(root: Any, tmp_path: Path, world: int) -> None:
    """With several sub-batches a step, averaging first, and moments renewed in the end."""
    small = ["--recipe", "small", "--steps-per-phase", "6", "--workers", "0", "--device", "cpu"]
    small += ["--batch", f"{2 * world}", "--bn-group", "2", *(["--base-width", "4"] if world == 2 else [])]
    names = [f"{world}-alone", f"{world}-shared"]
    jobs = [{"arguments": command("train", root, *small, run=name), "world": count} for name, count in zip(names, (1, world), strict=True)]
    jobs += [{"arguments": command("evaluate", root, "--no-report", "--output", f"{tmp_path}/{name}", run=name)} for name in names]
    for result in run_jobs(tmp_path, jobs):
        assert set(result["codes"]) == {0}, result["said"]
    for phase in PHASES:
        alone, shared = (weights(root, phase, name) for name in names)
        for name, tensor in alone.items():
            if "num_batches" in name:
                assert torch.equal(tensor, shared[name])
            elif "running" in name:
                difference = (shared[name].double() - tensor.double()).norm() / tensor.double().norm()
                assert difference <= 1e-5, (phase, name, float(difference))
    one, other = (stored_scores(tmp_path / name) for name in names)
    scored = [name for name in one if name.startswith(("rows/", "streams/")) and one[name].ndim == 2]
    assert len(scored) >= 11
    for name in scored:
        assert near(other[name], one[name]) <= 1e-5, name
        assert np.array_equal(other[name].argmax(1), one[name].argmax(1)), name


def test_only_the_first_rank_speaks(ended: Any) -> None:
    first, second = ended["train by two"]["said"]
    assert "appearance: 3 steps" in first
    assert second == ""


def stored_scores(folder: Path) -> Any:
    with h5py.File(folder / "scores.h5") as file:
        parts = {}
        file.visititems(lambda name, item: parts.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return parts


def test_two_ranks_score_every_video_of_an_odd_number_once_as_one_does(root: Any, ended: Any) -> None:
    assert ended["evaluate by one"]["codes"] == [0], ended["evaluate by one"]["said"]
    assert ended["evaluate by two"]["codes"] == [0, 0], ended["evaluate by two"]["said"]
    one, two = stored_scores(root / "by one"), stored_scores(root / "by two")
    assert one.keys() == two.keys()
    names = [name.decode() for name in two["video_ids"]]
    assert names == [name.decode() for name in one["video_ids"]] == [record.video_id for record in Dataset.open(root).split(1).test]
    assert np.array_equal(one["labels"], two["labels"])
    scored = [name for name in one if name.startswith(("rows/", "streams/")) and one[name].ndim == 2]
    assert len(scored) >= 11  # five rows and six heads
    for name in scored:
        assert one[name].shape == (5, 6)
        assert np.abs(two[name] - one[name]).max() <= 1e-5
        assert np.array_equal(two[name].argmax(1), one[name].argmax(1))
    results = [json.loads((root / folder / "results.json").read_text()) for folder in ("by one", "by two")]
    for row in results[0]["rows"]:
        for value in ("top1", "num_correct", "confusion"):
            assert results[0]["rows"][row].get(value) == results[1]["rows"][row].get(value), (row, value)
    assert results[0]["num_scored"] == results[1]["num_scored"] == 5
    assert ended["evaluate by two"]["said"][1] == ""


@pytest.mark.parametrize(("job", "failing"), [("one fails", 1), ("the first fails", 0)])
def test_one_rank_s_failure_ends_all_with_its_message(ended: Any, job: str, failing: int) -> None:
    result = ended[job]
    assert result["codes"] == [1, 1]
    assert "flowkit: error: this clip is bad" in result["said"][failing]
    assert "flowkit: error: another process of this run has ended, and its own message says why" in result["said"][1 - failing]
    assert not any("internal error" in said or "Traceback" in said for said in result["said"])


def test_one_rank_s_death_ends_the_others(ended: Any) -> None:
    assert ended["one is killed"]["codes"] == [1, -signal.SIGKILL]
    assert "another process of this run has ended" in ended["one is killed"]["said"][0]


def test_when_one_rank_is_asked_to_stop_all_stop_after_the_same_step_with_a_checkpoint(root: Any, ended: Any) -> None:
    assert ended["one is asked to stop"]["codes"] == [143, 143]
    assert load_checkpoint(phase_folder(root, "stops", 1, "motion") / "checkpoint.pt").step == 2
    assert len(metrics(root, "motion", "stops")) == 2
    assert "stopped with a checkpoint; to resume: torchrun ... -m -- flowkit.cli train " in ended["one is asked to stop"]["said"][0]
    assert "torchrun ... -m -- flowkit.cli " in ended["one is asked to stop"]["said"][0]


def test_a_refusal_by_the_first_rank_ends_all(ended: Any) -> None:
    assert ended["other settings"]["codes"] == [1, 1]
    assert "was begun with other settings" in ended["other settings"]["said"][0]


def test_sub_batches_that_cannot_be_shared_evenly_are_refused_by_all(ended: Any) -> None:
    assert ended["uneven"]["codes"] == [1, 1, 1]
    assert all("cannot be shared evenly by 3 processes" in said for said in ended["uneven"]["said"])


def test_processes_meet_although_the_store_holds_what_dead_ones_wrote() -> None:
    store = torch.distributed.HashStore()
    names = []
    for start in range(3):
        if start:  # from a process that was killed before it had an answer
            store.set("flowkit/question/1", f"dead {start}")
        with ThreadPoolExecutor(3) as ranks:
            results = [ranks.submit(meet, store, rank, 3) for rank in (0, 2, 1)]
        (name,) = {one.result() for one in results}
        names.append(name)
    assert len(set(names)) == 3


def test_a_process_that_never_starts_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowkit.cli.shared.ranks._PATIENCE_SECONDS", 0.0)
    with pytest.raises(RankError, match=r"1 of 2 processes have not started in 0 s: \[1\]"):
        meet(torch.distributed.HashStore(), 0, 2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
@pytest.mark.parametrize(
    ("device", "error", "message"),
    [("cuda", DeviceError, "--device cpu"), ("tpu", ParameterError, "device must be"), ("cpu", RankError, "MASTER")],
)
def test_a_missing_device_or_meeting_place_is_named(monkeypatch: pytest.MonkeyPatch, device: str, error: Any, message: str) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    with pytest.raises(error, match=message), ranks_from_environment(device):
        pass


# The second process kills itself before its fourth step, unless torchrun has started it again.
DIES_ONCE = f"""
import os
if os.environ.get("RANK") == "1" and os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0":
{indent(DIES_BEFORE_ITS_FOURTH_STEP, "    ")}
"""


@pytest.mark.slow
def test_torchrun_starts_all_again_when_one_dies_and_ends_with_an_undisturbed_run_s_weights(packed_root: Path, tmp_path: Path) -> None:
    """`--restart` discards the files of an earlier run, but not those of this run when torchrun restarts it."""
    root = share_root(packed_root, tmp_path / "root")
    line = ["train", "--data", str(root), *QUICK, "--steps-per-phase", "6", "--checkpoint-steps", "1"]
    (result,) = run_jobs(tmp_path, [{"arguments": [*line, "--run", "undisturbed"], "world": 2}])
    assert result["codes"] == [0, 0], result["said"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1"]
    environment = {**environment_with(tmp_path / "dies", DIES_ONCE), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*torchrun, "-m", "--", "flowkit.cli", *line, "--run", "killed", "--restart"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, timeout=3000, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "motion: continues at step" in done.stdout
    assert metrics(root, "motion", "killed") == metrics(root, "motion", "undisturbed")
    assert same(weights(root, "motion", "killed"), weights(root, "motion", "undisturbed"))
