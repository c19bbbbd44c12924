"""Every system of networks in processes: killed and run again, by two ranks, in half precision, and by the commands for its networks."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_lines import run_flowkit
from forked_commands import answer_to
from tiny_systems import STEPS, network_systems, options_of, tiny
from training_runs import metrics, same, share_root, weights

from flowkit.model.evaluation.scores import read_own_scores
from flowkit.model.runs.checkpoint import load_checkpoint
from flowkit.model.runs.run_folder import phase_folder
from flowkit.model.systems.registry import PHASES, SVM_PHASES, SYSTEMS

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="needs fork and kill")]

NUM_KILLS = 3
EVERY_SYSTEM = pytest.mark.parametrize("system", network_systems())


def command(name: str, root: Path, system: str, *options: object) -> list[Any]:
    return [name, "--data", str(root), "--system", system, *map(str, options), "--workers", "0", "--device", "cpu"]


def training(root: Path, system: str, *options: object) -> list[Any]:
    """Return the line that trains a system; the rate is so small that rounding is not magnified."""
    values = {**tiny(system), **STEPS, "lr": 1e-3}
    return command("train", root, system, "--recipe", "small", *options_of(values), *options)


@EVERY_SYSTEM
def test_killed_at_random_moments_and_run_again_all_weights_and_metrics_are_the_same(
    system: str, packed_root: Path, tmp_path: Path
) -> None:
    root = share_root(packed_root, tmp_path / "root")
    plan = {"do": "kills", "arguments": training(root, system, "--checkpoint-steps", "1"), "num_kills": NUM_KILLS, "seed": 7}
    killed = answer_to(plan, tmp_path)
    assert len(killed["kills"]) == NUM_KILLS
    for name in killed["runs"]:
        for phase in SYSTEMS[system].networks:
            assert same(weights(root, phase, name), weights(root, phase, "undisturbed")), (name, phase)
            assert metrics(root, phase, name) == metrics(root, phase, "undisturbed"), (name, phase)
            assert not list(phase_folder(root, name, 1, phase).glob("*.part"))


@pytest.fixture(scope="module", params=network_systems())
def ended(request: pytest.FixtureRequest, packed_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, dict[str, Any]]:
    """A system, its data root, and how its commands ended, each run by one or by two processes."""
    system, folder = request.param, tmp_path_factory.mktemp(request.param)
    root = share_root(packed_root, folder / "root")
    jobs: dict[str, Any] = {
        "train by one": {"arguments": training(root, system, "--run", "one")},
        "train by two": {"arguments": training(root, system, "--run", "two"), "world": 2},
        "train in bf16": {"arguments": training(root, system, "--run", "half", "--amp", "bf16")},
    }
    for world, name in ((1, "one"), (2, "two")):
        line = command("evaluate", root, system, "--run", "one", "--no-report", "--output", folder / name)
        jobs[f"evaluate by {name}"] = {"arguments": line, "world": world}
    line = command("evaluate", root, system, "--run", "one", "--no-report", "--output", folder / "half", "--amp", "bf16")
    jobs["evaluate in bf16"] = {"arguments": line}
    results = answer_to({"do": "jobs", "jobs": list(jobs.values())}, folder)
    return system, root, dict(zip(jobs, results, strict=True))


def test_every_command_ends_well(ended: tuple[str, Path, dict[str, Any]]) -> None:
    for name, result in ended[2].items():
        assert set(result["codes"]) == {0}, (name, result["said"])
        assert result["parts"] == [], name


def test_two_ranks_have_the_losses_of_one(ended: tuple[str, Path, dict[str, Any]]) -> None:
    system, root, _ = ended
    for phase in SYSTEMS[system].networks:
        alone, shared = metrics(root, phase, "one"), metrics(root, phase, "two")
        assert len(alone) == len(shared) == STEPS["steps"]
        network = load_checkpoint(phase_folder(root, "one", 1, phase)).provenance.config.network
        for step, (one, two) in enumerate(zip(alone, shared, strict=True)):
            # Batch normalisation over maps of one pixel magnifies rounding from step to step; the first step has none, but features have.
            is_rounded = network.learns_from_features or (network.has_batch_norm and step > 0)
            tolerance = 0.2 if is_rounded else 1e-4
            assert two["loss"] == pytest.approx(one["loss"], rel=tolerance), (phase, step)
        assert load_checkpoint(phase_folder(root, "two", 1, phase) / "checkpoint.pt").environment["num_ranks"] == 2


def test_two_ranks_score_as_one(ended: tuple[str, Path, dict[str, Any]]) -> None:
    system, root, _ = ended
    row = SYSTEMS[system].row
    one, two, half = (read_own_scores(root.parent / name / "scores.h5", row=row)[0] for name in ("one", "two", "half"))
    assert one.video_ids == two.video_ids == half.video_ids
    np.testing.assert_allclose(two.scores, one.scores, atol=1e-5 * max(1.0, float(np.abs(one.scores).max())))
    spread = float(np.abs(one.scores).max())
    assert 0 <= np.abs(half.scores - one.scores).max() <= 0.1 * max(spread, 1e-3)


def test_half_precision_trains_float32_weights_and_is_recorded(ended: tuple[str, Path, dict[str, Any]]) -> None:
    system, root, _ = ended
    for phase in SYSTEMS[system].networks:
        checkpoint = load_checkpoint(phase_folder(root, "half", 1, phase))
        assert checkpoint.provenance.precision == "bf16"
        assert all(tensor.dtype in (torch.float32, torch.int64) for tensor in checkpoint.network.values())
        first = [metrics(root, phase, name)[0]["loss"] for name in ("one", "half")]
        if not PHASES[phase].starts_from:  # else it begins with weights that differ already
            assert first[1] == pytest.approx(first[0], rel=0.05), phase


def test_what_is_for_networks_is_refused_for_trajectories_in_one_sentence(packed_root: Path, tmp_path: Path) -> None:
    """No ranks and no precision for systems that train no network, and no file of a network for their phase."""
    others = [system.name for system in SYSTEMS.values() if not system.networks]
    assert others
    root = share_root(packed_root, tmp_path / "root")
    jobs: list[Any] = []
    for name in others:
        line = ["train", "--data", str(root), "--system", name, "--run", "default"]
        jobs += [{"arguments": [*line, "--amp", "bf16"]}, {"arguments": line, "world": 2}]
    results = answer_to({"do": "jobs", "jobs": jobs}, tmp_path)
    for place, result in enumerate(results):
        assert set(result["codes"]) == {2}, json.dumps(result)
        said = result["said"][0]
        assert "trains no network" in said
        assert "Traceback" not in said
        assert ("--amp" in said) == (place % 2 == 0)
        assert ("processes" in said) == (place % 2 == 1)
    for phase in SVM_PHASES:
        code, _, err = run_flowkit("convert", "default", tmp_path / "out.onnx", "--data", root, "--phase", phase)
        assert code == 2
        assert phase in err
