"""What each phase starts from: recorded truly, and refused before anything is trained if it does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from command_lines import run_flowkit
from phases import PHASES
from safetensors.torch import save_file
from training_runs import copy_phases, run, same, weights

from flowkit.errors import CheckpointError, ParameterError
from flowkit.model.networks.stresnet import SingleStream
from flowkit.model.runs import events
from flowkit.model.runs.checkpoint import load_checkpoint
from flowkit.model.runs.run_folder import phase_folder
from flowkit.model.settings.network import STResNetConfig

SMALL = STResNetConfig(num_classes=9, stage_units=(2, 2, 2, 2), base_width=4, input_size=32)
STREAMS_ONLY: dict[str, Any] = {"phases": ["appearance", "motion"]}


def resnet_file(path: Path, stream: Any = "appearance", **metadata: str) -> Path:
    state = SingleStream(SMALL, stream).stream.state_dict()
    save_file(state, path, metadata=metadata or None)
    return path


def recorded(root: Path, phase: Any, name: str = "default") -> Any:
    return json.loads((phase_folder(root, name, 1, phase) / "config.json").read_text())["config"]["weights"]


@pytest.mark.parametrize("phase", ["st-resnet", "st-resnet-star"])
def test_weights_are_refused_where_no_base_stream_is_trained(root: Path, phase: Any) -> None:
    path = resnet_file(root / "resnet.safetensors")
    ended = run_flowkit("train", "--data", root, "--phase", phase, "--weights", path)
    assert ended.code == 2
    assert "--weights would do nothing here" in ended.err
    assert "--base-run" in ended.err
    with pytest.raises(ParameterError, match="weights are for the base streams"):
        run(root, phases=[phase], weights=path)
    assert not (root / "runs").exists()


def test_a_default_for_many_commands_is_not_refused(
    undisturbed: tuple[Path, list[Any]], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_phases(undisturbed[0], root, *PHASES)
    monkeypatch.setenv("FLOWKIT_WEIGHTS", str(root / "absent.pt"))
    options = ["--run", "new", "--base-run", "default", "--base-width", 4, "--batch", 4, "--bn-group", 2, "--steps-per-phase", 1]
    ended = run_flowkit("train", "--data", root, "--phase", "st-resnet", *options)
    assert ended.code == 0, ended.err
    assert "from the phases before it" in ended.err


def test_st_resnet_records_what_its_streams_started_from(root: Path) -> None:
    path = resnet_file(root / "resnet.safetensors")
    run(root, weights=path, phases=["appearance", "motion", "st-resnet"], overrides={"steps": 1})
    assert recorded(root, "appearance").startswith("sha256:")
    assert recorded(root, "st-resnet") == recorded(root, "appearance")
    report, _ = run(root, phases=["st-resnet"], overrides={"steps": 1})
    assert report.skipped == ("st-resnet",)
    run(root, phases=["st-resnet"], run="other", base_run="default", overrides={"steps": 1})
    assert recorded(root, "st-resnet", "other") == recorded(root, "appearance")


def test_a_run_that_recorded_weights_it_did_not_use_is_still_skipped(undisturbed: tuple[Path, list[Any]], root: Path) -> None:
    from dataclasses import replace

    from flowkit.model.runs.checkpoint import save_weights

    copy_phases(undisturbed[0], root, *PHASES)
    path = phase_folder(root, "default", 1, "st-resnet-star") / "weights.safetensors"
    old = load_checkpoint(path)
    config = replace(old.provenance.config, weights="imagenet")
    (path.parent / "digests.json").unlink()  # older runs have none
    save_weights(path, replace(old, provenance=replace(old.provenance, config=config)))
    assert run(root, phases=["st-resnet-star"])[0].skipped == ("st-resnet-star",)


def test_weights_that_fit_one_stream_only_are_refused_before_the_first_phase(root: Path) -> None:
    path = resnet_file(root / "flow.safetensors", "motion")
    received: list[Any] = []
    with pytest.raises(CheckpointError, match=r"do not fit the appearance stream.*20 channels \(10 flow fields\).*3 channels \(RGB\)"):
        _, received = run(root, weights=path)
    assert not [event for event in received if isinstance(event, events.PhaseStarted)]
    assert not (root / "runs").exists()
    assert run(root, weights=path, phases=["motion"], overrides={"steps": 1})[0].trained == ("motion",)


def test_weights_of_one_phase_start_both_streams_if_they_fit_or_none(undisturbed: tuple[Path, list[Any]], root: Path) -> None:
    copy_phases(undisturbed[0], root, "appearance", run="first")
    mine = phase_folder(root, "first", 1, "appearance") / "weights.safetensors"
    assert run(root, weights=mine, **STREAMS_ONLY, overrides={"steps": 1, "lr": 0.0})[0].trained == ("appearance", "motion")
    conv1 = weights(root, "appearance", "first")["appearance.conv1.weight"]
    torch.testing.assert_close(weights(root, "motion")["motion.conv1.weight"], conv1.mean(1, keepdim=True).expand(-1, 20, -1, -1))


def test_imagenet_weights_of_another_width_are_refused_without_a_download(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowkit.model.foreign.state_dicts._download", lambda depth: pytest.fail("downloaded"))
    with pytest.raises(CheckpointError, match=r"--recipe own or official"):
        run(root, weights="imagenet")
    assert not (root / "runs").exists()


def test_streams_of_another_width_are_refused_before_anything_is_trained(undisturbed: tuple[Path, list[Any]], root: Path) -> None:
    copy_phases(undisturbed[0], root, "appearance", run="narrow")
    with pytest.raises(CheckpointError, match=r"st-resnet cannot start from appearance: .*--base-width 4"):
        run(root, base_run="narrow", phases=["motion", "st-resnet"], overrides={"steps": 1, "base_width": 8})
    assert not phase_folder(root, "default", 1, "motion").exists()


def test_st_resnet_of_another_architecture_is_refused_in_one_line(undisturbed: tuple[Path, list[Any]], root: Path) -> None:
    copy_phases(undisturbed[0], root, *PHASES)
    with pytest.raises(CheckpointError, match=r"st-resnet-star cannot start from st-resnet: .*layer1\.1"):
        run(root, run="new", base_run="default", phases=["st-resnet-star"], overrides={"temporal_stages": [5]})


def test_the_place_of_the_stride_is_that_of_the_base_streams(root: Path) -> None:
    path = resnet_file(root / "caffe.safetensors", stride_in_1x1="true")
    run(root, weights=path, **STREAMS_ONLY, overrides={"steps": 1})
    run(root, phases=["st-resnet"], overrides={"steps": 1})
    assert load_checkpoint(phase_folder(root, "default", 1, "st-resnet")).provenance.config.network.stride_in_1x1
    run(root, run="at-once", weights=path, phases=["appearance", "motion", "st-resnet"], overrides={"steps": 1})
    assert same(weights(root, "st-resnet"), weights(root, "st-resnet", "at-once"))
    with pytest.raises(CheckpointError, match="stride_in_1x1=True, not False"):
        run(root, run="x", base_run="default", phases=["st-resnet"], overrides={"stride_in_1x1": False})
