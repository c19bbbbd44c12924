"""C3D: sizes and numbers of parameters as Caffe's, an oracle, what time means to it, first weights, refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from flowkit.errors import CheckpointError, ParameterError
from flowkit.model.foreign.state_dicts import PretrainedWeights
from flowkit.model.networks.c3d import C3DNetwork
from flowkit.model.networks.resnet import set_groups
from flowkit.model.networks.weights import check_pretrained, initialise_single_stream
from flowkit.model.settings.c3d import C3DConfig

NARROW = C3DConfig(num_classes=5, width=1 / 32, input_size=32)
KINDS: Any = pytest.mark.parametrize("kind", ["c3d", "c3d-scratch"])

pytestmark = pytest.mark.usefixtures("seeded")


def narrow(kind: Any = "c3d", **settings: Any) -> C3DNetwork:
    network = C3DNetwork(replace(NARROW, kind=kind, **settings)).double().eval()
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.1)
    nn.init.normal_(network.appearance.fc8.weight)
    return network


def frames(*shape: int) -> torch.Tensor:
    *batch, height, width = shape
    return torch.randn(*batch, 3, height, width, dtype=torch.float64)


def difference(x: torch.Tensor, y: torch.Tensor) -> float:
    assert x.shape == y.shape
    return float(((x - y).norm() / y.norm()).detach())


@pytest.mark.parametrize(
    ("kind", "classes", "count"), [("c3d", 487, 79_991_015), ("c3d", 101, 78_409_573), ("c3d-scratch", 101, 17_444_965)]
)
def test_the_numbers_of_parameters_are_the_published_ones(kind: Any, classes: int, count: int) -> None:
    with torch.device("meta"):
        network = C3DNetwork(C3DConfig(classes, kind))
    assert sum(parameter.numel() for parameter in network.parameters()) == count


@KINDS
def test_the_maps_have_the_sizes_of_caffe(kind: Any) -> None:
    config = C3DConfig(5, kind)
    assert config.map_sizes(112) == ((16, 56), (8, 28), (4, 14), (2, 7), (1, 4))
    assert config.head_window == 4
    for size in (32, 47, 112):
        network = C3DNetwork(replace(NARROW, kind=kind))
        x, found = torch.zeros(1, 3, 16, size, size), []
        for stage in range(5):
            x = network.appearance._stage(stage, x)
            found.append((x.shape[2], x.shape[3]))
        assert tuple(found) == network.config.map_sizes(size)


@KINDS
@pytest.mark.parametrize("size", [(32, 32), (50, 71)])
def test_equals_convolutions_of_single_frames_added_up(kind: Any, size: Any) -> None:
    network = narrow(kind)
    clip = frames(1, 16, *size)
    state = {name.removeprefix("appearance."): value for name, value in network.state_dict().items()}
    with torch.no_grad():
        maps = list(clip[0])
        for number, stage in enumerate(network.config.stages, start=1):
            for letter in "ab"[: len(stage)]:
                weight, bias = state[f"conv{number}{letter}.weight"], state[f"conv{number}{letter}.bias"]
                made = []
                for t in range(len(maps)):
                    near = [(tap, t + tap - 1) for tap in range(3) if 0 <= t + tap - 1 < len(maps)]
                    total = sum(F.conv2d(maps[at][None], weight[:, :, tap], padding=1)[0] for tap, at in near)
                    made.append((total + bias[:, None, None]).relu())
                maps = made
            # Windows that begin inside the map, also where they end outside.
            pooled = [torch.stack([torch.stack([m[:, i : i + 2, j : j + 2].amax((1, 2)) for j in range(0, m.shape[2], 2)], 1)
                      for i in range(0, m.shape[1], 2)], 1) for m in maps]  # fmt: skip
            maps = pooled if number == 1 else [torch.stack(pooled[t : t + 2]).amax(0) for t in range(0, len(pooled), 2)]
        (last,) = maps
        window, scores, hidden = network.config.head_window, [], []
        for i in range(last.shape[1] - window + 1):
            for j in range(last.shape[2] - window + 1):
                x = F.linear(last[:, i : i + window, j : j + window].flatten(), state["fc6.weight"], state["fc6.bias"]).relu()
                hidden.append(x)
                scores.append(F.linear(F.linear(x, state["fc7.weight"], state["fc7.bias"]).relu(), state["fc8.weight"], state["fc8.bias"]))
        assert difference(network(clip)[0, 0], torch.stack(scores).mean(0)) < 1e-12
        assert difference(network.features(clip)[0, 0], torch.stack(hidden).mean(0)) < 1e-12


@KINDS
def test_the_features_of_a_clip_are_the_same_in_any_batch(kind: Any) -> None:
    network, videos = narrow(kind), frames(2, 48, 32, 32)
    with torch.no_grad():
        together = network.features(videos)
        assert together.shape == (2, 3, network.config.hidden)
        for video, clip in ((0, 0), (1, 2)):
            alone = network.features(videos[video : video + 1, 16 * clip : 16 * clip + 16])
            assert difference(together[video, clip], alone[0, 0]) < 1e-12


def test_a_reversed_clip_differs_and_a_static_clip_is_constant_in_the_interior() -> None:
    network, video = narrow(), frames(1, 16, 32, 32)
    with torch.no_grad():
        assert difference(network(video.flip(1)), network(video)) > 1e-3
        static = video[:, :1].expand(-1, 16, -1, -1, -1).transpose(1, 2)
        maps = network.appearance.conv1a(static)[0]  # type: ignore[operator]
        assert maps.shape[1] == 16
        assert difference(maps[:, 1:-1], maps[:, 1:2].expand(-1, 14, -1, -1)) < 1e-12
        assert difference(maps[:, 0], maps[:, 1]) > 1e-3


@KINDS
def test_checkpointing_changes_no_gradient(kind: Any) -> None:
    plain = narrow(kind)
    lean = C3DNetwork(plain.config, checkpoint_activations=True).double().eval()
    lean.load_state_dict(plain.state_dict())
    video = frames(1, 16, 32, 32)
    for network in (plain, lean):
        network(video).square().sum().backward()
    for (name, ours), theirs in zip(plain.named_parameters(), lean.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad), name  # type: ignore[arg-type]


def test_groups_of_a_batch_drop_what_they_would_drop_alone() -> None:
    network, video, seeds = narrow().train(), frames(4, 16, 32, 32), [3, 4]
    alone = []
    for seed, part in zip(seeds, video.chunk(2), strict=True):
        set_groups(network, [seed])
        torch.manual_seed(seed)
        alone.append(network(part))
    set_groups(network, seeds)
    assert difference(network(video), torch.cat(alone)) < 1e-12


def test_it_starts_at_random_or_from_a_file_with_other_classes() -> None:
    network = C3DNetwork(NARROW)
    done = initialise_single_stream(network, None, generator=torch.Generator().manual_seed(1))
    assert str(done) == "random weights: 0 tensors copied"
    source = C3DNetwork(replace(NARROW, num_classes=9)).appearance.state_dict()
    done = initialise_single_stream(network, PretrainedWeights({f"module.{n}": v for n, v in source.items()}, False, "file"))
    assert done.new_classifier
    assert not done.cross_modality
    own = network.appearance.state_dict()
    assert all(torch.equal(own[name], value) for name, value in source.items() if not name.startswith("fc8"))
    check_pretrained(network, source, "file")
    with pytest.raises(CheckpointError, match="holds no C3D"):
        check_pretrained(network, {"conv1.weight": torch.zeros(1)}, "file")
    assert network.streams == tuple(network.classifiers) == ("appearance",)


def test_wrong_shapes_and_settings_are_refused() -> None:
    network = C3DNetwork(NARROW)
    for shape in ((1, 15, 3, 32, 32), (1, 0, 3, 32, 32), (1, 16, 20, 32, 32), (1, 16, 3, 31, 32), (16, 3, 32, 32)):
        with pytest.raises(ParameterError, match="a multiple of 16"):
            network(torch.zeros(shape))
    for name, value in {"num_classes": 0, "kind": "c4d", "width": 2, "input_size": 8, "dropout": (0.5,)}.items():
        with pytest.raises(ParameterError, match=f"^{name} must be"):
            replace(NARROW, **{name: value})  # type: ignore[arg-type]
    assert C3DConfig.from_dict(NARROW.to_dict()) == NARROW


@KINDS
@pytest.mark.parametrize("change", [{"memory_format": torch.channels_last}, {"dtype": torch.float32}])
def test_it_moves_to_another_layout_and_type(kind: Any, change: Any) -> None:
    network, video = narrow(kind), frames(1, 16, 32, 32)
    with torch.no_grad():
        expected = network(video)
        network.to(**change)
        ours = network(video.to(change.get("dtype", torch.float64))).double()
    assert difference(ours, expected) < (1e-5 if "dtype" in change else 1e-12)
    weight = network.appearance.conv2a.weight  # type: ignore[union-attr]
    assert weight.is_contiguous(memory_format=torch.channels_last_3d) == ("memory_format" in change)  # type: ignore[operator]
