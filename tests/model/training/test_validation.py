"""Validation: held-out videos are trained on by no phase, and every phase of a run holds out the same ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from command_lines import call_flowkit
from training_runs import run

from flowkit.dataset.root import Dataset
from flowkit.errors import CheckpointError
from flowkit.model.data.training_clips import ClipDataset
from flowkit.model.runs import events
from flowkit.model.runs.checkpoint import load_checkpoint
from flowkit.model.runs.run_folder import phase_folder
from flowkit.model.settings.training import PHASES


def test_no_phase_trains_on_held_out_videos_and_all_record_them(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained_on: dict[str, set[str]] = {phase: set() for phase in PHASES}
    read = ClipDataset.uncropped

    def recorded(self: Any, key: Any) -> Any:
        sample = read(self, key)
        trained_on[self.config.phase].add(sample.video_id)
        return sample

    monkeypatch.setattr(ClipDataset, "uncropped", recorded)
    _, received = run(root, validation=0.5)
    listed = {record.video_id for record in Dataset.open(root).split(1).train}
    for phase in PHASES:
        stored = json.loads((phase_folder(root, "default", 1, phase) / "config.json").read_text())["validation"]
        assert (stored["fraction"], stored["seed"], len(stored["video_ids"])) == (0.5, 0, 6)
        assert trained_on[phase] == listed - set(stored["video_ids"])
        assert load_checkpoint(phase_folder(root, "default", 1, phase)).provenance.validation == stored
    (started,) = [event for event in received if isinstance(event, events.RunStarted)]
    assert (started.num_videos, started.num_held_out) == (6, 6)


def test_a_phase_resumes_only_with_the_same_videos_held_out(root: Path) -> None:
    run(root, phases=["motion"], stop_after=2, validation=0.5)
    with pytest.raises(CheckpointError, match=r"held out for validation were 6 videos \(fraction 0.5, seed 0: .*\), now nothing"):
        run(root, phases=["motion"])
    with pytest.raises(CheckpointError, match=r"held out for validation .*seed 0.*, now 6 videos \(fraction 0.5, seed 3"):
        run(root, phases=["motion"], validation=0.5, overrides={"seed": 3})
    report, _ = run(root, phases=["motion"], validation=0.5)
    assert report.trained == ("motion",)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_phase_does_not_start_from_phases_that_held_out_other_videos(root: Path, elsewhere: bool) -> None:
    run(root, phases=["appearance", "motion"], run="base" if elsewhere else "default")
    with pytest.raises(CheckpointError, match=r"must hold out the same videos for validation: .* was nothing, now 6 videos.*--validation"):
        run(root, phases=["st-resnet"], validation=0.5, base_run="base" if elsewhere else None)
    assert not phase_folder(root, "default", 1, "st-resnet").exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--validation", "0.2", "--validation-groups", "1"], "exclude each other"),
        (["--validation", "1"], "not in the range"),
        (["--validation-groups", "1,x"], "'1,x' is not a list of groups"),
    ],
)
def test_options_that_mean_nothing_are_usage_errors(root: Path, options: list[str], reason: str) -> None:
    with pytest.raises(click.UsageError, match=reason):
        call_flowkit("train", "--data", root, *options)
