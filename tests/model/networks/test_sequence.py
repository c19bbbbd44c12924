"""Networks over features: numbers of parameters, what the order of frames means to each, gains of steps, an oracle of the LSTM."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from flowkit.errors import CheckpointError, ParameterError
from flowkit.model.networks.features import stream_features
from flowkit.model.networks.resnet import set_groups
from flowkit.model.networks.sequence import SequenceFamily, SequenceHead, SequenceNetwork, joined_steps, step_gains
from flowkit.model.networks.stresnet import SingleStream
from flowkit.model.settings.network import NUM_CHANNELS, STResNetConfig
from flowkit.model.settings.sequence import SequenceConfig
from flowkit.model.training.moments import RunningMoments

SMALL = SequenceConfig(num_classes=4, base_width=1, stage_units=(2, 2, 2, 2), input_size=32, hidden=8, layers=2)
D = SMALL.num_features
SETTINGS: dict[str, dict[str, Any]] = {
    "lstm": {"kind": "resnet-lstm"},
    "conv_pool": {"kind": "resnet-pooling"},
    "late_pool": {"kind": "resnet-pooling", "late_pooling": True},
}
KINDS: Any = pytest.mark.parametrize("kind", list(SETTINGS))
POOLS: Any = pytest.mark.parametrize("kind", ["conv_pool", "late_pool"])

pytestmark = pytest.mark.usefixtures("seeded")


def network(kind: Any, **settings: Any) -> SequenceHead:
    made = SequenceHead(replace(SMALL, **SETTINGS[kind], **settings)).double().eval()
    nn.init.normal_(made.fc.weight)
    return made


def features(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, D, dtype=torch.float64)


@pytest.mark.parametrize(
    ("num_features", "hidden", "layers", "count"), [(4096, 256, 1, 4_458_496), (4096, 512, 5, 17_846_272), (2048, 512, 5, 13_651_968)]
)
def test_the_numbers_of_parameters_are_those_of_the_papers(num_features: int, hidden: int, layers: int, count: int) -> None:
    with torch.device("meta"):
        made = SequenceHead(SequenceConfig(101, base_width=num_features // 32, hidden=hidden, layers=layers))
    assert sum(parameter.numel() for parameter in made.lstm.parameters()) == count


def assert_same(x: torch.Tensor, y: torch.Tensor, *, exactly: bool) -> None:
    """A matrix product over all frames may round differently where there are others; a maximum cannot."""
    assert torch.equal(x, y) if exactly else torch.allclose(x, y, rtol=0, atol=1e-12)


@POOLS
def test_pooling_ignores_the_order_of_frames(kind: Any) -> None:
    made, x = network(kind), features(3, 20)
    with torch.no_grad():
        logits = made(x)
        assert logits.shape == (3, 1, 4)
        for order in (torch.arange(19, -1, -1), torch.randperm(20)):
            assert_same(made(x[:, order]), logits, exactly=kind == "conv_pool")


def test_an_lstm_does_not_ignore_it() -> None:
    made, x = network("lstm"), features(3, 20)
    with torch.no_grad():
        scores, reverse = joined_steps(made(x)), joined_steps(made(x.flip(1)))
        assert float((scores - reverse).abs().max()) > 1e-3


@POOLS
def test_equal_frames_have_the_score_of_one(kind: Any) -> None:
    made, x = network(kind), features(3, 1)
    with torch.no_grad():
        assert_same(made(x.expand(-1, 30, -1)), made(x), exactly=kind == "conv_pool")


@KINDS
def test_videos_of_a_batch_do_not_meet_and_a_step_does_not_see_the_future(kind: Any) -> None:
    made, x = network(kind), features(3, 9)
    with torch.no_grad():
        together = made(x)
        assert torch.allclose(together[1:2], made(x[1:2]), rtol=0, atol=1e-12)
        if kind == "lstm":
            assert torch.allclose(together[:, :5], made(x[:, :5]), rtol=0, atol=1e-12)


def test_the_lstm_is_its_equations() -> None:
    made, x = network("lstm", layers=2), features(1, 6)
    state = {name: value.numpy() for name, value in made.state_dict().items()}

    def sigmoid(z: Any) -> Any:
        return 1 / (1 + np.exp(-z))

    inputs = list(x[0].numpy())
    for layer in range(2):
        w, u, b, c = (state[f"lstm.{layer}.{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        hidden, cell, outputs = np.zeros(8), np.zeros(8), []
        for step in inputs:
            i, f, g, o = np.split(w @ step + b + u @ hidden + c, 4)
            cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
            hidden = sigmoid(o) * np.tanh(cell)
            outputs.append(hidden)
        inputs = outputs
    expected = np.array(inputs) @ state["fc.weight"].T + state["fc.bias"]
    with torch.no_grad():
        np.testing.assert_allclose(made(x)[0].numpy(), expected, rtol=1e-10, atol=1e-12)


def test_pooling_before_and_after_the_hidden_layer_are_written_out() -> None:
    x = features(2, 5)
    for kind in ("conv_pool", "late_pool"):
        made = network(kind)
        w, b = made.fc_hidden.weight, made.fc_hidden.bias
        for video in range(2):
            if kind == "conv_pool":
                hidden = F.linear(torch.stack([x[video, :, d].max() for d in range(D)]), w, b).relu()
            else:
                hidden = torch.stack([F.linear(frame, w, b).relu() for frame in x[video]]).max(0).values
            expected = F.linear(hidden, made.fc.weight, made.fc.bias)
            assert torch.allclose(made(x)[video, 0], expected, rtol=0, atol=1e-12)


def test_steps_count_more_and_more() -> None:
    np.testing.assert_allclose(step_gains(5).numpy(), [0, 0.25, 0.5, 0.75, 1])
    assert step_gains(1).tolist() == [1]
    logits = torch.randn(3, 7, 4, dtype=torch.float64)
    expected = sum(t / 6 * logits[:, t].softmax(-1) for t in range(7)) / sum(t / 6 for t in range(7))
    assert torch.allclose(joined_steps(logits)[:, 0].exp(), expected, rtol=0, atol=1e-7)  # type: ignore[arg-type]
    same = logits[:, :1].expand(-1, 7, -1)
    assert torch.allclose(joined_steps(same).softmax(-1), joined_steps(logits[:, :1]).softmax(-1), rtol=0, atol=1e-7)
    assert torch.equal(joined_steps(logits[:, :1]), logits[:, :1])


def test_an_lstm_learns_the_order_of_two_halves_and_pooling_cannot() -> None:
    generator = torch.Generator().manual_seed(1)
    halves = torch.randn(2, D, generator=generator)

    def videos(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.arange(count) % 2
        noise = 0.3 * torch.randn(count // 2, 10, D, generator=generator)
        forward = torch.cat([halves[0].expand(count // 2, 5, D), halves[1].expand(count // 2, 5, D)], 1) + noise
        return torch.stack([forward, forward.flip(1)], 1).flatten(0, 1), labels

    (x, y), (test_x, test_y) = videos(64), videos(40)
    accuracy = {}
    for kind in ("lstm", "conv_pool"):
        made = SequenceHead(replace(SMALL, **SETTINGS[kind], num_classes=2, layers=1, dropout=0.0))
        optimiser = torch.optim.Adam(made.parameters(), lr=0.01)
        for _ in range(60):
            logits = made(x)
            gains = step_gains(logits.shape[1])
            steps = F.cross_entropy(logits.flatten(0, 1), y.repeat_interleave(logits.shape[1]), reduction="none").view(len(x), -1)
            optimiser.zero_grad()
            (steps * gains).mean().backward()
            optimiser.step()
        with torch.no_grad():
            accuracy[kind] = float((joined_steps(made.eval()(test_x))[:, 0].argmax(-1) == test_y).float().mean())
    assert accuracy["lstm"] > 0.95
    assert accuracy["conv_pool"] == 0.5  # a video and its reverse have the same maximum


@KINDS
def test_groups_of_a_batch_drop_what_they_would_drop_alone(kind: Any) -> None:
    made, x, seeds = network(kind).train(), features(4, 6), [3, 4]
    alone = []
    for seed, part in zip(seeds, x.chunk(2), strict=True):
        set_groups(made, [seed])
        torch.manual_seed(seed)
        alone.append(made(part))
    set_groups(made, seeds)
    assert torch.allclose(made(x), torch.cat(alone), rtol=0, atol=1e-12)
    assert not torch.allclose(made(x), made.eval()(x))


@KINDS
def test_first_weights_depend_on_the_generator_only(kind: Any) -> None:
    made = network(kind)
    states = []
    for seed in (5, 5, 6):
        made.reset_parameters(torch.Generator().manual_seed(seed))
        states.append({name: value.clone() for name, value in made.state_dict().items()})
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not all(torch.equal(states[0][name], states[2][name]) for name in states[0])


@pytest.mark.parametrize("stream", ["appearance", "motion"])
@KINDS
def test_a_video_has_the_score_of_its_features(kind: Any, stream: Any) -> None:
    made = SequenceNetwork(replace(SMALL, **SETTINGS[kind]), stream).double().eval()
    clips = torch.randn(2, 5, NUM_CHANNELS[stream], 40, 48, dtype=torch.float64)
    with torch.no_grad():
        found = made.features(clips)
        assert found.shape == (2, 5, D)
        scores = made(clips)
        assert torch.allclose(scores, joined_steps(made.logits_of_features(found)[stream]), rtol=0, atol=1e-12)
        rgb, flow = (clips, None) if stream == "appearance" else (None, clips)
        assert torch.equal(made.stream_logits(rgb, flow)[stream], scores)
        backwards = made(clips.flip(1))
    assert scores.shape == (2, 1, 4)
    assert torch.allclose(scores, backwards, rtol=0, atol=1e-12) == (kind != "lstm")


def test_the_features_are_what_the_classifier_of_the_stream_received() -> None:
    base = SingleStream(STResNetConfig(4, base_width=1, stage_units=(2, 2, 2, 2), input_size=32), "motion").double().eval()
    made = SequenceNetwork(SMALL, "motion").double().eval()
    family, generator = SequenceFamily(), torch.Generator().manual_seed(1)
    family.start(made, {"motion": base.state_dict()}, generator=generator)
    clips = torch.randn(2, 3, 20, 32, 40, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(made.features(clips), stream_features(base, None, clips)["motion"][0])
    other = SequenceNetwork(replace(SMALL, base_width=2), "motion")
    with pytest.raises(CheckpointError, match="the weights of motion do not fit this network"):
        family.start(other, {"motion": base.state_dict()}, generator=generator)


def test_the_resnet_does_not_learn_and_keeps_its_moments() -> None:
    made = SequenceNetwork(SMALL, "appearance").train()
    assert made.training
    assert made.sequence.training
    assert not made.trunk.bn1.training
    learning = {name for name, parameter in made.named_parameters() if parameter.requires_grad}
    assert learning == {name for name, _ in made.named_parameters() if ".sequence." in name}
    moments = RunningMoments(made, kind="variance")
    set_groups(made, [1, 2])
    running = made.trunk.bn1.running_mean
    assert running is not None
    before = running.clone()
    made(torch.randn(2, 3, 3, 32, 32))
    moments.add_pass()
    moments.update(num_groups=2, share=0.5)
    assert torch.equal(running, before)


def test_wrong_shapes_and_settings_are_refused() -> None:
    made = SequenceNetwork(SMALL, "motion")
    assert made.streams == tuple(made.classifiers) == ("motion",)
    for shape in ((2, D), (2, 0, D), (2, 3, D - 1), (1, 2, 3, D)):
        with pytest.raises(ParameterError, match="takes features of shape"):
            made.logits_of_features(torch.zeros(shape))
    for shape in ((2, 3, 3, 32, 32), (2, 0, 20, 32, 32), (3, 20, 32, 32)):
        with pytest.raises(ParameterError, match="takes clips of shape"):
            made(torch.zeros(shape))
    bad = {"num_classes": 0, "base_width": 1.0, "hidden": 0, "layers": 17, "dropout": 1, "kind": "gru", "late_pooling": 1}
    for name, value in bad.items():
        with pytest.raises(ParameterError, match=f"^{name} must be"):
            replace(SMALL, **{name: value})  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="stream must be"):
        SequenceNetwork(SMALL, "rgb")  # type: ignore[arg-type]
    assert SequenceConfig.from_dict(SMALL.to_dict()) == SMALL
