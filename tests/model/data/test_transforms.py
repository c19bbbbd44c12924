"""Crops and flips: their distribution, that both streams share them, that a mirror image negates u, and the test's whole frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from flowkit.errors import ParameterError
from flowkit.model.data.transforms import (
    Crop,
    c3d_size,
    crop_flow,
    crop_rgb,
    draw_crop,
    mirror_flow,
    normalise_flow,
    normalise_rgb,
    resized_flow,
    resized_rgb,
    seen_flow,
    seen_rgb,
    whole_size,
)
from flowkit.quantise import Quantiser


def crops(height: int, width: int, count: int = 600, **settings: Any) -> list[Any]:
    generator = np.random.default_rng(0)
    return [draw_crop(generator, height, width, **settings) for _ in range(count)]


def test_borders25_sides_are_independent_and_span_the_paper_s_range_clipped_to_the_frame() -> None:
    drawn = crops(256, 340)
    heights, widths = ([getattr(crop, name) for crop in drawn] for name in ("height", "width"))
    assert min(heights) == 168
    assert max(heights) == 256  # 280 is clipped
    assert (min(widths), max(widths)) == (168, 280)
    assert abs(np.corrcoef(heights, widths)[0, 1]) < 0.1


def test_borders25_boxes_lie_within_a_quarter_of_the_room_from_a_corner() -> None:
    corners = set()
    for crop in crops(256, 340):
        for offset, room in ((crop.top, 256 - crop.height), (crop.left, 340 - crop.width)):
            assert 0 <= offset <= room
            assert min(offset, room - offset) <= room / 4
        if crop.height < 250 and crop.width < 250:
            corners.add((crop.top > (256 - crop.height) / 2, crop.left > (340 - crop.width) / 2))
    assert len(corners) == 4


def test_diagonal_corners_are_top_left_and_bottom_right_only() -> None:
    seen = {
        (crop.top > (256 - crop.height) / 2, crop.left > (340 - crop.width) / 2)
        for crop in crops(256, 340, corners="diagonal")
        if crop.height < 250
    }
    assert seen == {(False, False), (True, True)}


def test_regular_crops_have_four_sides_and_five_places() -> None:
    drawn = crops(256, 340, kind="regular")
    assert {crop.height for crop in drawn} == {crop.width for crop in drawn} == {256, 224, 192, 168}
    small = {(crop.top, crop.left) for crop in drawn if crop.height == crop.width == 168}
    assert small == {(0, 0), (0, 172), (88, 0), (88, 172), (44, 86)}


def test_crops_keep_their_share_of_smaller_frames() -> None:
    drawn = crops(64, 86)
    assert (min(c.width for c in drawn), max(c.width for c in drawn)) == (42, 70)
    assert {crop.width for crop in crops(64, 86, kind="regular")} == {64, 56, 48, 42}


def test_crops_fit_portrait_frames() -> None:
    for crop in crops(340, 256):
        assert crop.top + crop.height <= 340
        assert crop.left + crop.width <= 256


def test_half_of_the_crops_are_flipped_and_none_where_flipping_is_off() -> None:
    assert 0.4 < np.mean([crop.flip for crop in crops(64, 86)]) < 0.6
    assert not any(crop.flip for crop in crops(64, 86, flip=False))
    assert crops(64, 86, count=1, kind="none", flip=False) == [Crop(0, 0, 64, 86)]


def test_an_unknown_crop_is_refused() -> None:
    with pytest.raises(ParameterError, match="crop must be"):
        draw_crop(np.random.default_rng(0), 64, 86, kind="centre")


@pytest.mark.parametrize("mapping", ["symmetric", "paper"])
@pytest.mark.parametrize("flip", [False, True])
def test_a_crop_without_resizing_takes_exactly_the_same_box_of_every_frame_and_field(mapping: str, flip: bool) -> None:
    draw = np.random.default_rng(1)
    frames = draw.integers(0, 256, (3, 20, 30, 3), dtype=np.uint8)
    fields = draw.integers(0, 256, (4, 2, 20, 30), dtype=np.uint8)
    quantiser, crop = Quantiser(mapping=mapping), Crop(2, 7, 16, 16, flip)
    rgb = crop_rgb(frames, crop, size=16)
    flow = crop_flow(fields, crop, size=16, quantiser=quantiser)
    columns = slice(22, 6, -1) if flip else slice(7, 23)
    assert np.array_equal(rgb, frames[:, 2:18, columns])
    v, u = fields[:, 1, 2:18, columns], fields[:, 0, 2:18, columns]
    assert np.array_equal(flow[:, 1], v)  # v is only mirrored
    assert np.array_equal(flow[:, 0], quantiser.flip_u(u) if flip else u)


@pytest.mark.parametrize(("mapping", "lowest"), [("symmetric", 1), ("paper", 0)])
def test_mirroring_flow_twice_gives_it_back(mapping: str, lowest: int) -> None:
    fields = np.random.default_rng(0).integers(lowest, 256, (5, 2, 6, 7), dtype=np.uint8)
    quantiser = Quantiser(mapping=mapping)
    assert np.array_equal(mirror_flow(mirror_flow(fields, quantiser), quantiser), fields)


def test_no_motion_stays_no_motion_when_mirrored() -> None:
    still = np.full((2, 2, 4, 4), 128, np.uint8)
    assert np.array_equal(mirror_flow(still, Quantiser(mapping="symmetric")), still)


def test_flow_of_the_mirrored_video_decodes_to_minus_u() -> None:
    quantiser = Quantiser()
    flow = np.random.default_rng(0).uniform(-19, 19, (3, 2, 5, 8))
    expected = flow[..., ::-1] * np.array([-1, 1]).reshape(2, 1, 1)
    mirrored = quantiser.decode(mirror_flow(quantiser.encode(flow), quantiser))
    assert np.abs(mirrored - expected).max() <= quantiser.max_error_px


def test_resizing_keeps_constant_frames_and_fields_and_gradients_in_place() -> None:
    frames = np.full((2, 40, 40, 3), (10, 100, 200), np.uint8)
    assert np.array_equal(crop_rgb(frames, Crop(0, 0, 36, 30), size=56), np.full((2, 56, 56, 3), (10, 100, 200), np.uint8))
    ramp = np.broadcast_to(np.arange(0, 240, 4, dtype=np.uint8), (1, 2, 60, 60))
    for size in (30, 120):
        out = crop_flow(np.ascontiguousarray(ramp), Crop(0, 0, 60, 60), size=size, quantiser=Quantiser())
        expected = (np.arange(size) + 0.5) * 60 / size * 4 - 2  # pixel centres stay where they are
        assert np.abs(out[0, 0, size // 2].astype(float) - expected)[2:-2].max() <= 1.5


@pytest.mark.parametrize(
    ("stored", "input_size", "tested"),
    [
        ((256, 340), 224, (256, 340)),  # the paper's size: unchanged
        ((256, 600), 224, (256, 448)),  # clamped to 2 S
        ((64, 86), 56, (64, 86)),
        ((256, 340), 112, (128, 170)),  # to the scale of the training crops
        ((340, 256), 224, (340, 256)),
        ((64, 64), 64, (73, 73)),
        ((36, 48), 32, (37, 49)),
    ],
)
def test_test_frames_are_whole_with_sides_between_s_and_2s(stored: tuple[Any, ...], input_size: int, tested: tuple[Any, ...]) -> None:
    assert whole_size(*stored, input_size=input_size) == tested
    assert seen_rgb(np.zeros((2, *stored, 3), np.uint8), input_size=input_size).shape == (2, *tested, 3)
    assert seen_flow(np.zeros((3, 2, *stored), np.uint8), input_size=input_size).shape == (3, 2, *tested)


def test_whole_frames_of_the_correct_size_are_unchanged() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 64, 86, 3), dtype=np.uint8)
    assert np.array_equal(seen_rgb(frames, input_size=56), frames)


def test_c3d_is_tested_on_the_centre_of_frames_of_128_by_171() -> None:
    assert c3d_size(112) == (128, 171)
    assert c3d_size(56) == (64, 86)
    draw = np.random.default_rng(0)
    frames, fields = draw.integers(0, 256, (2, 256, 340, 3), dtype=np.uint8), draw.integers(0, 256, (3, 2, 256, 340), dtype=np.uint8)
    seen = seen_rgb(frames, input_size=112, view="centre")
    assert np.array_equal(seen, resized_rgb(frames, (128, 171))[:, 8:120, 29:141])
    flow = seen_flow(fields, input_size=112, view="centre")
    assert flow.shape == (3, 2, 112, 112)
    assert np.array_equal(flow, resized_flow(fields, (128, 171))[:, :, 8:120, 29:141])
    frames = draw.integers(0, 256, (2, 128, 171, 3), dtype=np.uint8)  # of this size already
    assert np.array_equal(seen_rgb(frames, input_size=112, view="centre"), frames[:, 8:120, 29:141])


@pytest.mark.parametrize(("height", "width", "sides"), [(256, 340, (224, 223)), (128, 171, (112, 112)), (61, 40, (53, 26)), (2, 2, (2, 1))])
def test_uniform_crops_have_one_size_and_lie_anywhere(height: int, width: int, sides: tuple[int, int]) -> None:
    drawn = crops(height, width, kind="uniform")
    assert {(crop.height, crop.width) for crop in drawn} == {sides}
    assert (min(crop.top for crop in drawn), max(crop.top for crop in drawn)) == (0, height - sides[0])
    assert (min(crop.left for crop in drawn), max(crop.left for crop in drawn)) == (0, width - sides[1])


def test_normalisation_is_imagenet_s_for_rgb_and_128_over_57_63_for_flow() -> None:
    rgb = torch.randint(0, 256, (2, 3, 4, 5, 3), dtype=torch.uint8)
    expected = (rgb.double() / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    assert torch.allclose(normalise_rgb(rgb).double(), expected.permute(0, 1, 4, 2, 3), atol=1e-5)
    flow = torch.tensor([[0, 1, 128, 255]], dtype=torch.uint8)
    assert torch.allclose(normalise_flow(flow), torch.tensor([[-128, -127, 0, 127]]) / 57.63, atol=1e-6)
    assert normalise_flow(flow)[0, 2] == 0
