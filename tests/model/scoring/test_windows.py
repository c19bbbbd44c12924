"""Windows of a long video: whatever their number, the kept time steps are those of one clip of all samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flowkit.model.networks.features import stream_features
from flowkit.model.networks.stresnet import SingleStream, STResNet
from flowkit.model.scoring.windows import TimeShape, windows
from flowkit.model.settings.network import STResNetConfig

TINY = {"num_classes": 3, "base_width": 2, "stage_units": (2, 2, 2, 2), "input_size": 32}
NETWORKS = [
    {},
    {"temporal_pool": True},
    {"temporal_pool": True, "temporal_pool_stride": 1, "temporal_pool_position": "before_pool5"},
    {"temporal_padding": "replicate", "temporal_stages": (3, 5), "injection_direction": "both"},
    {"temporal_convolution": False, "temporal_pool": True},
]


@pytest.mark.parametrize("settings", NETWORKS)
def test_the_time_steps_of_windows_are_those_of_the_whole_video(settings: dict[str, object]) -> None:
    torch.manual_seed(0)
    config = STResNetConfig(**TINY, **settings)  # type: ignore[arg-type]
    network = STResNet(config).eval().double()
    shape = TimeShape.of("st-resnet", config)
    for num_samples in (1, 3, 5, 6, 12, 30, 31):
        rgb, flow = torch.randn(1, num_samples, 3, 32, 32).double(), torch.randn(1, num_samples, 20, 32, 32).double()
        with torch.inference_mode():
            whole = stream_features(network, rgb, flow)
            for most in (1, 4, 7):
                parts = [
                    (window, stream_features(network, rgb[:, window.first : window.stop], flow[:, window.first : window.stop]))
                    for window in windows(num_samples, shape, most=most)
                ]
                for stream in ("appearance", "motion"):
                    for layer in (0, 1):
                        joined = torch.cat([part[stream][layer][:, w.skipped : w.skipped + w.kept] for w, part in parts], 1)
                        assert joined.shape == whole[stream][layer].shape
                        assert torch.allclose(joined, whole[stream][layer], rtol=1e-9, atol=1e-9)


def test_the_reach_is_no_larger_than_it_must_be() -> None:
    config = STResNetConfig(**TINY)  # type: ignore[arg-type]
    network, reach = STResNet(config).eval().double(), TimeShape.of("st-resnet", config).reach
    torch.manual_seed(0)
    rgb, flow = torch.randn(1, 24, 3, 32, 32).double(), torch.randn(1, 24, 20, 32, 32).double()
    other = flow.clone()
    other[:, 0] += 1
    with torch.inference_mode():
        one, two = (stream_features(network, rgb, given)["appearance"][0] for given in (flow, other))
    changed = np.flatnonzero((one != two).any(-1)[0].numpy())
    assert changed.max() == reach


def test_base_streams_look_at_each_sample_by_itself() -> None:
    config = STResNetConfig(**TINY)  # type: ignore[arg-type]
    assert TimeShape.of("motion", config) == TimeShape()
    assert [(w.first, w.stop, w.skipped, w.kept) for w in windows(5, TimeShape(), most=2)] == [(0, 2, 0, 2), (2, 4, 0, 2), (4, 5, 0, 1)]
    assert [(w.first, w.stop) for w in windows(25, TimeShape(8, 2), most=None)] == [(0, 25)]


def test_a_pooled_time_step_is_about_the_middle_of_its_samples() -> None:
    shape = TimeShape(8, 2)
    assert [shape.middle(output, 25) for output in range(shape.num_outputs(25))] == [2 + 2 * output for output in range(11)]
    assert [shape.middle(output, 3) for output in range(shape.num_outputs(3))] == [1]
    assert [TimeShape(8).middle(output, 3) for output in range(3)] == [0, 1, 2]


def test_logits_are_the_classifier_of_the_features() -> None:
    torch.manual_seed(0)
    network = SingleStream(STResNetConfig(**TINY), "motion").eval()  # type: ignore[arg-type]
    with torch.inference_mode():
        features, logits = stream_features(network, None, torch.randn(2, 3, 20, 40, 48))["motion"]
        assert features.shape == (2, 3, 64)
        assert torch.allclose(network.classifiers["motion"](features), logits, atol=1e-6)
