"""Features of networks that see clips of consecutive frames: which clips, the same whatever the window, and the scores of the test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_runs import share_root

from flowkit.dataset.root import Dataset
from flowkit.model.compute.execution import Execution
from flowkit.model.evaluation.protocol import evaluate
from flowkit.model.scoring.feature_files import FeatureFile
from flowkit.model.scoring.feature_settings import FeatureSamples, FeatureSettings
from flowkit.model.scoring.video_features import features
from flowkit.model.settings.network_config import ClipPlan
from flowkit.model.systems.configs import overrides_of
from flowkit.model.systems.registry import PHASES
from flowkit.model.training.chain import train

CPU = Execution(device="cpu")
TINY = {"width": 0.03, "base_width": 4, "input_size": 32, "batch": 4, "bn_group": 2, "steps": 1}
CLIP_PHASES = [name for name, phase in PHASES.items() if phase.network(num_classes=2, **phase.fixed).clip_plan is not None]


@pytest.fixture(scope="module", params=CLIP_PHASES)
def trained(request: pytest.FixtureRequest, packed_root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A data root with one trained network that sees clips, and its phase."""
    root, phase = share_root(packed_root, tmp_path_factory.mktemp("clips")), request.param
    train(root, phases=[phase], recipe="small", overrides=overrides_of(TINY, [phase]), execution=CPU)
    return root, phase


def test_the_mean_of_the_protocols_logits_is_the_score_of_the_test(trained: tuple[Path, str], tmp_path: Path) -> None:
    root, _ = trained
    tested = evaluate(root, execution=CPU).splits[0]
    report = features(root, layer="logits", mirror=True, output=tmp_path / "logits.h5", execution=CPU)
    stored = FeatureFile(report.path)
    for (_, stream), scores in tested.stream_scores.items():
        for video_id, expected in zip(tested.video_ids, scores, strict=True):
            np.testing.assert_allclose(stored.read(video_id).arrays[stream].mean(0), expected, rtol=1e-4, atol=1e-5)


def test_every_clip_has_its_middle_frame_and_features_that_no_window_changes(trained: tuple[Path, str], tmp_path: Path) -> None:
    root, phase = trained
    found = []
    ids = sorted(record.video_id for record in Dataset.open(root).split(1).test)[:3]
    for window in (1, 3, 100):
        report = features(root, frames="all", stride=2, window=window, videos=ids, output=tmp_path / f"{window}.h5", execution=CPU)
        found.append(FeatureFile(report.path))
    plan = PHASES[phase].network(num_classes=2, **PHASES[phase].fixed).clip_plan
    assert plan is not None
    for video_id in found[0].video_ids:
        first = found[0].read(video_id)
        starts = range(0, max(first.num_frames - plan.length, 0) + 1, 2)
        np.testing.assert_array_equal(first.frames, [min(start + plan.length // 2, first.num_frames - 1) for start in starts])
        for other in (stored.read(video_id) for stored in found[1:]):
            np.testing.assert_array_equal(other.frames, first.frames)
            for stream, values in first.arrays.items():
                assert values.shape[0] == len(starts)
                np.testing.assert_array_equal(other.arrays[stream], values)


def test_a_stop_loses_no_window(trained: tuple[Path, str], tmp_path: Path) -> None:
    root, _ = trained
    ids = sorted(record.video_id for record in Dataset.open(root).split(1).test)[:2]
    how: dict[str, Any] = {"frames": "all", "window": 3, "videos": ids, "execution": CPU}
    whole = FeatureFile(features(root, output=tmp_path / "whole.h5", **how).path)
    stops = 0
    while features(root, output=tmp_path / "parts.h5", should_stop=lambda: True, **how).stopped:
        stops += 1
    assert stops >= len(ids)
    parts = FeatureFile(tmp_path / "parts.h5")
    assert parts.video_ids == whole.video_ids == tuple(ids)
    for video_id in ids:
        for stream, values in whole.read(video_id).arrays.items():
            np.testing.assert_array_equal(parts.read(video_id).arrays[stream], values)


def test_clips_of_a_network_that_joins_them_are_one_time_step_in_the_protocol_only() -> None:
    plan = ClipPlan(length=10, stride=6, training_stride=6, most=20)
    joined = FeatureSamples(FeatureSettings(), plan, has_one_output=True)
    assert joined.is_joined
    assert joined.most is None
    alone = FeatureSamples(FeatureSettings(frames="all", window=5), plan, has_one_output=True)
    assert not alone.is_joined
    assert alone.most == 5
    assert alone.places(30, 2, 4).frames.tolist() == [*range(2, 12), *range(3, 13)]
