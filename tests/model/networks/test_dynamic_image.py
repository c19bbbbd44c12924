"""Dynamic images: coefficients, what changes nothing, static clips, the network's maximum over images."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from flowkit.errors import ParameterError
from flowkit.model.foreign.state_dicts import PretrainedWeights
from flowkit.model.networks.dynamic_image import DynamicImageNetwork, normalise_image, rank_coefficients, rank_pool
from flowkit.model.networks.resnet import set_groups
from flowkit.model.networks.stresnet import SingleStream
from flowkit.model.networks.weights import initialise_single_stream
from flowkit.model.settings.dynamic_image import DynamicImageConfig

TINY = DynamicImageConfig(num_classes=5, base_width=4, stage_units=(2, 2, 2, 2), input_size=32)
PUBLISHED = [-12.219, -3.219, 0.281, 1.948, 2.698, 2.898, 2.731, 2.303, 1.678, 0.9]
STREAMS: Any = pytest.mark.parametrize("stream", ["appearance", "motion"])

pytestmark = pytest.mark.usefixtures("seeded")


def network(stream: Any, **settings: Any) -> DynamicImageNetwork:
    made = DynamicImageNetwork(replace(TINY, **settings), stream).double().eval()
    nn.init.normal_(made.stream.fc.weight)
    return made


def difference(x: torch.Tensor, y: torch.Tensor) -> float:
    assert x.shape == y.shape
    return float(((x - y).norm() / y.norm()).detach())


# -- rank pooling ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 7, 10, 30])
def test_both_forms_of_the_coefficients_agree(count: int) -> None:
    harmonic = [sum(1 / k for k in range(1, i + 1)) for i in range(count + 1)]
    expected = [2 * (count - i + 1) - (count + 1) * (harmonic[count] - harmonic[i - 1]) for i in range(1, count + 1)] if count > 1 else [1]
    np.testing.assert_allclose(rank_coefficients(count).numpy(), expected, rtol=1e-10, atol=1e-12)
    if count > 1:
        assert abs(float(rank_coefficients(count).sum())) < 1e-12
    if count == 10:
        np.testing.assert_allclose(rank_coefficients(count).numpy(), PUBLISHED, atol=5e-4)


@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_the_differences_give_the_weighted_sum(count: int) -> None:
    frames = torch.rand(2, 3, count, 3, 5, 4, dtype=torch.float64)
    expected = sum(float(a) * frames[:, :, i] for i, a in enumerate(rank_coefficients(count)))
    assert difference(rank_pool(frames), expected) < 1e-12  # type: ignore[arg-type]


def test_a_static_clip_is_exactly_zero_before_and_after_normalisation() -> None:
    frame = torch.rand(1, 3, 224, 224) * 255
    static = frame.expand(10, -1, -1, -1)
    image = rank_pool(static)
    assert float(image.abs().max()) == 0
    assert float(normalise_image(image, rms=15.0, limit=128.0).abs().max()) == 0
    # The weighted sum of the frames is not zero in float32, and normalisation would make noise of it.
    weighted = (rank_coefficients(10).float()[:, None, None, None] * static).sum(0)
    assert 0 < float(weighted.abs().max()) < 1e-2
    assert float(normalise_image(weighted, rms=15.0, limit=128.0).abs().max()) > 1


def test_a_constant_picture_changes_nothing_and_the_map_is_linear() -> None:
    frames = torch.randint(0, 200, (10, 3, 6, 5)).float()
    more = torch.randint(0, 50, (1, 3, 6, 5)).float()
    assert torch.equal(rank_pool(frames + more), rank_pool(frames))  # whole numbers are exact
    x, y = torch.randn(2, 10, 3, 6, 5, dtype=torch.float64)
    assert difference(rank_pool(2 * x - 3 * y), 2 * rank_pool(x) - 3 * rank_pool(y)) < 1e-12


def test_the_gradient_of_each_frame_is_its_coefficient() -> None:
    frames = torch.randn(10, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(3, 4, 4, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(rank_pool(frames), frames, upstream)
    assert difference(gradient, rank_coefficients(10)[:, None, None, None] * upstream) < 1e-12


def test_a_reversed_clip_is_not_the_negative() -> None:
    frames = torch.randn(10, 3, 4, 4, dtype=torch.float64)
    assert difference(rank_pool(frames.flip(0)), -rank_pool(frames)) > 0.1


def test_the_published_norm_is_that_of_a_picture_of_224_px() -> None:
    image = normalise_image(torch.randn(3, 224, 224) * 7, rms=TINY.image_rms, limit=1e9)
    assert float(image.norm()) == pytest.approx(6000, rel=1e-5)
    clipped = normalise_image(torch.randn(2, 3, 8, 8).pow(5), rms=60.0, limit=128.0)
    assert float(clipped.abs().max()) == 128
    assert difference(normalise_image(image * 1e-3, rms=5.0, limit=9.0), normalise_image(image, rms=5.0, limit=9.0)) < 1e-5


# -- the network -------------------------------------------------------------------------------------------------------------------


@STREAMS
def test_a_clip_of_one_image_is_the_resnet_on_that_image(stream: Any) -> None:
    made, channels = network(stream), 3 if stream == "appearance" else 2
    clips = torch.randn(2, 10, channels, 40, 52, dtype=torch.float64)
    with torch.no_grad():
        images = made.images(clips)
        assert images.shape == (2, 1, channels, 40, 52)
        assert difference(made(clips), made.stream(images.flatten(0, 1), num_frames=1)) < 1e-12


@STREAMS
def test_the_maximum_over_images_ignores_their_order_and_repetition(stream: Any) -> None:
    made, channels = network(stream), 3 if stream == "appearance" else 2
    parts = torch.randn(2, 4, 10, channels, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        logits = made(parts.flatten(1, 2))
        assert logits.shape == (2, 1, 5)
        assert difference(made(parts[:, [2, 0, 3, 1]].flatten(1, 2)), logits) < 1e-12
        assert difference(made(parts[:, [0, 0, 1, 2, 3, 3]].flatten(1, 2)), logits) < 1e-12
        assert difference(made(parts.flip(2).flatten(1, 2)), logits) > 1e-4
        assert difference(made(parts[:1].flatten(1, 2)), logits[:1]) < 1e-12


def test_a_static_clip_is_the_network_s_answer_to_nothing() -> None:
    made = network("appearance")
    logits = [made(torch.rand(1, 1, 3, 1, 1, dtype=torch.float64).expand(1, 20, 3, 32, 32)) for _ in range(2)]
    assert torch.equal(logits[0], logits[1])


def test_brightness_and_contrast_of_a_whole_clip_change_nothing() -> None:
    made = network("appearance")
    clips = torch.randn(1, 20, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        assert difference(made(3 * clips + 0.7), made(clips)) < 1e-9


@STREAMS
def test_groups_of_a_batch_have_their_own_statistics_and_dropout(stream: Any) -> None:
    made, channels, seeds = network(stream, input_size=64).train(), 3 if stream == "appearance" else 2, [3, 4]
    clips = torch.randn(6, 20, channels, 64, 64, dtype=torch.float64)
    alone = []
    for seed, part in zip(seeds, clips.chunk(2), strict=True):
        set_groups(made, [seed])
        torch.manual_seed(seed)
        alone.append(made(part))
    set_groups(made, seeds)
    assert difference(made(clips), torch.cat(alone)) < 1e-9


@STREAMS
def test_it_starts_from_the_weights_of_a_resnet_for_rgb(stream: Any) -> None:
    source = SingleStream(TINY, "appearance").stream.state_dict()
    made = DynamicImageNetwork(TINY, stream)
    done = initialise_single_stream(made, PretrainedWeights(source, False, "file"))
    assert done.cross_modality == (stream == "motion")
    own = made.stream.state_dict()
    wanted = source["conv1.weight"].mean(1, keepdim=True).expand(-1, 2, -1, -1) if stream == "motion" else source["conv1.weight"]
    assert torch.allclose(own["conv1.weight"], wanted, rtol=0, atol=1e-7)
    assert made.streams == tuple(made.classifiers) == (stream,)


def test_wrong_shapes_and_settings_are_refused() -> None:
    made = DynamicImageNetwork(TINY, "appearance")
    for shape in ((1, 15, 3, 32, 32), (1, 0, 3, 32, 32), (1, 10, 2, 32, 32), (10, 3, 32, 32)):
        with pytest.raises(ParameterError, match="a multiple of 10"):
            made(torch.zeros(shape))
    for name, value in {"image_frames": 0, "image_rms": 0, "image_limit": float("inf"), "dropout": 1}.items():
        with pytest.raises(ParameterError, match=f"^{name} must be"):
            replace(TINY, **{name: value})  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="stream must be"):
        DynamicImageNetwork(TINY, "rgb")  # type: ignore[arg-type]
    assert DynamicImageConfig.from_dict(TINY.to_dict()) == TINY
