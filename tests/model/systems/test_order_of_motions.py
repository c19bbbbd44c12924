"""Two classes that differ only in the order of two motions: pooling over time is at chance, an LSTM is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from generated_sets import packed_motions, write_orders
from numpy.typing import NDArray

import flowkit
from flowkit.dataset.manifest import ClipRecord, Split
from flowkit.dataset.root import Dataset
from flowkit.dataset.settings import ExtractSettings
from flowkit.model.compute.execution import Execution
from flowkit.model.data.sampling import REACH
from flowkit.model.networks.sequence import SequenceNetwork, joined_steps
from flowkit.model.runs.run_folder import phase_folder
from flowkit.model.runs.trained_network import load_network
from flowkit.model.scoring.feature_files import FeatureFile
from flowkit.model.scoring.significance import wilson_interval
from flowkit.model.scoring.video_features import features
from flowkit.model.settings.training import TrainConfig
from flowkit.model.training import chain
from flowkit.model.training.feature_clips import FeatureClips

SCENE_FRAMES, HEIGHT = 20, 48
SINGLE, ORDERED = (24, 4), (40, 30)  # training and test videos of each class
CPU = Execution(device="cpu")
KEPT = {"steps": 1, "lr": 0.0, "bn_momentum": 0.0, "bn_average_first": False}  # the network stays as it is


def features_within_scenes(path: Path, records: tuple[ClipRecord, ...]) -> list[NDArray[np.float32]]:
    """Return the features of the stacks of each video that lie within one scene."""
    found = []
    for video in FeatureFile(path).read_all([record.video_id for record in records]):
        within = (video.frames + REACH <= SCENE_FRAMES - 1) | (video.frames - REACH >= SCENE_FRAMES)
        assert within.sum() == 2 * (SCENE_FRAMES - 2 * REACH)
        found.append(video.arrays["motion"][within])
    return found


@pytest.mark.slow  # about two minutes: it makes 196 videos, computes their flow and trains three networks
def test_pooling_is_at_chance_and_an_lstm_tells_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    single = packed_motions(tmp_path / "single", dict.fromkeys(("Sliding", "Bobbing"), SINGLE), height=HEIGHT)
    chain.train(single, phases=["motion"], recipe="small", overrides={"steps": 120}, execution=CPU)
    write_orders(tmp_path / "ordered", ORDERED, scene_frames=SCENE_FRAMES, height=HEIGHT)
    root = tmp_path / "ordered" / "data"
    flowkit.extract(tmp_path / "ordered" / "videos", root, settings=ExtractSettings(short_side=HEIGHT), jobs=1, progress=False)
    flowkit.pack(root, lists=tmp_path / "ordered" / "split.csv", progress=False)
    chain.train(root, phases=["motion"], recipe="small", init_from=single / "runs" / "default", overrides=KEPT, execution=CPU)
    path = features(root, of="motion", frames="all", execution=CPU).path

    def without_the_cut(_: Any, trained_on: Split, config: TrainConfig, *__: Any, **___: Any) -> FeatureClips:
        return FeatureClips(config, [record.label for record in trained_on.train], features_within_scenes(path, trained_on.train))

    monkeypatch.setattr(chain, "feature_clips", without_the_cut)
    chain.train(root, phases=["lstm-motion", "pooling-motion"], recipe="small", execution=CPU)
    test = Dataset.open(root).split(1).test
    given, labels = torch.from_numpy(np.stack(features_within_scenes(path, test))), np.array([record.label for record in test])
    correct = {}
    for phase in ("lstm-motion", "pooling-motion"):
        network = load_network(phase_folder(root, "default", 1, phase))
        assert isinstance(network, SequenceNetwork)
        with torch.inference_mode():
            scores = joined_steps(network.logits_of_features(given)["motion"])[:, 0]
        correct[phase] = scores.argmax(1).numpy() == labels
    print({phase: float(values.mean()) for phase, values in correct.items()})
    assert correct["lstm-motion"].mean() > 0.95
    low, high = wilson_interval(int(correct["pooling-motion"].sum()), len(labels))
    assert low <= 0.5 <= high
