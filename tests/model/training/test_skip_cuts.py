"""Training without samples across cuts: which samples are drawn, which videos are left out, and what is recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_runs import TINY, run

from flowkit.dataset.root import Dataset
from flowkit.errors import CheckpointError, ParameterError
from flowkit.extraction.results import VideoResult
from flowkit.model.data import scene_cuts
from flowkit.model.data.places import has_places, training_places
from flowkit.model.data.sampling import centres_within_scenes, training_centres
from flowkit.model.data.training_clips import ClipDataset, SampleKey
from flowkit.model.runs.run_folder import phase_folder
from flowkit.model.settings.network_config import ClipPlan
from flowkit.model.systems.configs import make_configs

MOTION: dict[str, Any] = {"phases": ["motion"]}


def find(monkeypatch: pytest.MonkeyPatch, cuts: dict[str, tuple[int, ...]]) -> None:
    """Let these cuts be found in the clips."""

    def surveys(dataset: Dataset, paths: dict[str, Path], digests: dict[str, str]) -> Any:
        return {name: VideoResult(name, "ok", 0, 0, cuts=cuts.get(name, ()), clip_sha256=digests[name]) for name in paths}, {}

    monkeypatch.setattr(scene_cuts, "surveys", surveys)


@pytest.mark.parametrize(("num_frames", "cuts"), [(40, (11,)), (40, (0, 38)), (60, (14, 20, 41)), (23, (11,))])
@pytest.mark.parametrize("num_samples", [1, 3])
def test_no_stack_has_a_field_across_a_cut(num_frames: int, cuts: tuple[int, ...], num_samples: int) -> None:
    allowed = centres_within_scenes(num_frames, cuts)
    by_hand = [c for c in range(5, num_frames - 5) if not any(c - 5 <= cut <= c + 4 for cut in cuts)]
    assert allowed.tolist() == by_hand
    drawn = [
        training_centres(np.random.default_rng(seed), num_frames, num_samples=num_samples, tau_min=1, tau_max=9, cuts=cuts)
        for seed in range(300)
    ]
    assert all(len(centres) == num_samples and (np.diff(centres) >= 0).all() for centres in drawn)
    assert set(np.concatenate(drawn).tolist()) <= set(by_hand)
    if num_samples == 1:
        assert set(np.concatenate(drawn).tolist()) == set(by_hand), "every sample within a scene is drawn"


def test_without_cuts_the_draws_are_the_usual_ones() -> None:
    usual, none = (
        training_centres(np.random.default_rng(4), 50, num_samples=4, tau_min=1, tau_max=9, **more) for more in ({}, {"cuts": ()})
    )
    assert usual.tolist() == none.tolist()


def test_clips_of_consecutive_frames_lie_within_one_scene() -> None:
    plan = ClipPlan(length=8, stride=8, training_stride=1)
    for seed in range(50):
        settings: dict[str, Any] = {"plan": plan, "num_samples": 1, "tau_min": 1, "tau_max": 1}
        places = training_places(np.random.default_rng(seed), 30, cuts=(12,), **settings)
        assert 12 not in places.fields
        assert not places.frames[0] <= 12 < places.frames[-1]
    assert has_places(30, plan=plan, cuts=(12,))
    assert not has_places(20, plan=plan, cuts=(5, 11, 14))
    assert not has_places(20, plan=None, cuts=(9,))


def test_videos_with_nothing_but_cuts_are_left_out_and_everything_is_recorded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Dataset.open(root)
    first, second = (record.video_id for record in dataset.split(1).train[:2])
    find(monkeypatch, {first: tuple(range(0, dataset.split(1).train[0].num_frames - 1, 4)), second: (0,)})
    run(root, run="skips", overrides={"skip_cuts": True}, **MOTION)
    stored = json.loads((phase_folder(root, "skips", 1, "motion") / "config.json").read_text())
    assert stored["config"]["skip_cuts"] is True
    assert (stored["cuts"]["num_videos"], stored["cuts"]["num_left_out"], stored["cuts"]["rule"]) == (2, 1, 1)
    with pytest.raises(CheckpointError, match="skip_cuts is true, now false"):
        run(root, run="skips", **MOTION)
    find(monkeypatch, {second: (0,)})
    with pytest.raises(CheckpointError, match=r"cuts\.num_left_out is 1, now 0"):
        run(root, run="skips", overrides={"skip_cuts": True}, **MOTION)


def test_the_training_data_draw_no_stack_across_a_cut(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Dataset.open(root)
    split = dataset.split(1)
    row = max(range(len(split.train)), key=lambda k: split.train[k].num_frames)
    record = split.train[row]
    find(monkeypatch, {record.video_id: (record.num_frames - 12,)})
    overrides = {**TINY, "skip_cuts": True}
    config = make_configs("small", num_classes=6, num_videos=12, short_side=40, overrides=overrides)["motion"]
    clips = ClipDataset(dataset, split, config)
    seen = []

    def read(clip: object, fields: np.ndarray) -> np.ndarray:
        seen.append(fields)
        return np.zeros((len(fields), 2, 40, 56), np.uint8)

    monkeypatch.setattr("flowkit.model.data.training_clips.read_fields", read)
    for step in range(20):
        clips.uncropped(SampleKey(row, step, 0))
    assert all(record.num_frames - 12 not in fields for fields in seen)


def test_a_training_without_any_sample_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find(monkeypatch, {record.video_id: tuple(range(record.num_frames - 1)) for record in Dataset.open(root).split(1).train})
    with pytest.raises(ParameterError, match="train without --skip-cuts"):
        run(root, run="none", overrides={"skip_cuts": True}, **MOTION)
