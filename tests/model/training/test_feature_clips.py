"""Phases that learn from features: which videos and frames they see, when features are computed again, stops and damaged videos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_runs import share_root

from flowkit.dataset.root import Dataset
from flowkit.errors import CheckpointError, ManifestError
from flowkit.model.compute.execution import Execution
from flowkit.model.data.training_clips import ClipDataset, training_loader
from flowkit.model.data.whole_videos import read_whole
from flowkit.model.runs import events
from flowkit.model.runs.checkpoint import load_checkpoint
from flowkit.model.runs.run_folder import phase_folder
from flowkit.model.scoring import extract_features
from flowkit.model.scoring.feature_files import FeatureFile
from flowkit.model.settings.sequence import SequenceConfig
from flowkit.model.settings.training import TrainConfig
from flowkit.model.training.chain import train
from flowkit.model.training.feature_clips import FeatureClips

TINY = {"base_width": 4, "input_size": 32, "hidden": 8, "batch": 4, "bn_group": 2, "steps": 2, "warmup_steps": 0}
BASE = {name: value for name, value in TINY.items() if name != "hidden"}
CPU = Execution(device="cpu")


def run(root: Path, phases: list[str], *, overrides: Any = None, should_stop: Any = None, restart: bool = False) -> tuple[Any, list[Any]]:
    seen: list[Any] = []
    names = TINY if any(phase.startswith("lstm") for phase in phases) else BASE
    report = train(
        root,
        phases=phases,
        recipe="small",
        overrides={**names, **(overrides or {})},
        execution=CPU,
        restart=restart,
        on_event=seen.append,
        should_stop=None if should_stop is None else lambda: should_stop(seen),
    )
    return report, seen


def computed(seen: list[Any]) -> list[int]:
    """Return how many videos had features, at each report."""
    return [event.done for event in seen if isinstance(event, events.FeaturesComputed)]


@pytest.fixture(scope="module")
def with_base(packed_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = share_root(packed_root, tmp_path_factory.mktemp("base"))
    run(root, ["appearance"])
    return root


@pytest.fixture
def root(with_base: Path, tmp_path: Path) -> Path:
    return share_root(with_base, tmp_path / "root", "runs")


def features_file(root: Path) -> Path:
    return root / "runs" / "default" / "split1" / "features" / "appearance.h5"


def test_batches_have_the_videos_of_any_training_and_frames_at_equal_distances(packed_root: Path) -> None:
    dataset = Dataset.open(packed_root)
    split = dataset.split(1)
    network = SequenceConfig(num_classes=len(split.classes), base_width=1, input_size=32)
    config = TrainConfig("lstm-appearance", network, "own", batch=4, bn_group=2, schedule=((5, 0.1),), num_samples=4)
    arrays = [np.full((25, 32), 100 * video, np.float32) + np.arange(25, dtype=np.float32)[:, None] for video in range(len(split.train))]
    clips = FeatureClips(config, [record.label for record in split.train], arrays)
    for rank in range(2):
        theirs = training_loader(ClipDataset(dataset, split, config), first_step=2, rank=rank, world=2)
        for batch, expected in zip(clips.batches(first_step=2, rank=rank, world=2), theirs, strict=True):
            assert torch.equal(batch.labels, expected.labels)
            assert (batch.features[:, :, 0] % 100).tolist() == [[0, 8, 16, 24]] * 2
            assert [clips.labels[int(video)] for video in batch.features[:, 0, 0] // 100] == batch.labels.tolist()


def test_features_are_computed_once_and_again_for_other_weights(root: Path) -> None:
    report, seen = run(root, ["lstm-appearance"])
    assert report.trained == ("lstm-appearance",)
    num_videos = len(Dataset.open(root).split(1).train)
    assert (computed(seen)[0], computed(seen)[-1]) == (0, num_videos)
    weights = load_checkpoint(phase_folder(root, "default", 1, "appearance"))
    first = FeatureFile(features_file(root))
    assert first.provenance["weights_sha256"] == weights.digest()
    assert len(first) == num_videos
    made = features_file(root).read_bytes()
    _, seen = run(root, ["lstm-appearance"], restart=True)
    assert computed(seen) == [num_videos]  # all were there
    assert features_file(root).read_bytes() == made
    run(root, ["appearance"], overrides={"seed": 1}, restart=True)
    _, seen = run(root, ["lstm-appearance"], overrides={"seed": 1}, restart=True)
    assert computed(seen)[0] == 0
    assert FeatureFile(features_file(root)).provenance["weights_sha256"] != weights.digest()


def test_a_stop_while_features_are_computed_loses_none(root: Path) -> None:
    report, seen = run(root, ["lstm-appearance"], should_stop=lambda seen: len(computed(seen)) >= 3)
    assert report.stopped
    assert isinstance(seen[-1], events.RunStopped)
    assert not any(isinstance(event, events.StepDone) for event in seen)
    done = computed(seen)[-1]
    _, seen = run(root, ["lstm-appearance"])
    assert computed(seen)[0] >= done > 0


def test_what_it_learns_from_must_be_what_it_will_see(root: Path) -> None:
    with pytest.raises(CheckpointError, match="appearance, which was trained with head_pool=7x7, not global"):
        run(root, ["lstm-appearance"], overrides={"head_pool": "global"})
    with pytest.raises(CheckpointError, match="do not fit this network"):
        run(root, ["lstm-appearance"], overrides={"base_width": 8})


def test_a_training_video_that_cannot_be_read_ends_the_training(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = Dataset.open(root).split(1).train[3].video_id

    def reading(clip: Any, *given: Any, **settings: Any) -> Any:
        if clip.video_id == bad:
            raise ManifestError("it is damaged")
        return read_whole(clip, *given, **settings)

    monkeypatch.setattr(extract_features, "read_whole", reading)
    with pytest.raises(ManifestError, match=f"lstm-appearance needs the features of all training videos, .* {bad}: it is damaged"):
        run(root, ["lstm-appearance"])
    monkeypatch.undo()
    report, seen = run(root, ["lstm-appearance"])
    assert report.trained == ("lstm-appearance",)
    assert computed(seen)[0] == len(Dataset.open(root).split(1).train) - 1  # those that could be read are kept
