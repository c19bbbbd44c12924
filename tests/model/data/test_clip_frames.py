"""Frames, fields and crops of the other systems: where they lie, and what changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flowkit.errors import ParameterError
from flowkit.model.data.clip_frames import (
    c3d_size,
    chosen_clips,
    clip_frames,
    forward_fields,
    forward_starts,
    ten_crop_boxes,
    two_stream_samples,
)
from flowkit.model.data.clips import stacks
from flowkit.model.data.sampling import REACH, stack_fields
from flowkit.model.data.transforms import crop_flow, crop_rgb, mirror_flow, resized_rgb, without_mean_flow
from flowkit.quantise import Quantiser

# -- stacks ------------------------------------------------------------------------------------------------------------------------


def test_a_forward_stack_is_the_ten_fields_from_its_start() -> None:
    starts = np.array([7, 0, 3, 3])
    fields, where = forward_fields(starts)
    assert (np.diff(fields) > 0).all()
    for start, stack in zip(starts, where, strict=True):
        assert fields[stack].tolist() == list(range(start, start + 10))


def test_a_forward_stack_is_a_centred_one_five_fields_later() -> None:
    starts = np.array([2, 9, 4])
    for forward, centred in zip(forward_fields(starts), stack_fields(starts + REACH), strict=True):
        assert np.array_equal(forward, centred)


def test_the_stacks_of_a_video_fit_into_it() -> None:
    assert list(forward_starts(11)) == [0]
    for num_frames in (11, 12, 40):
        assert forward_fields([forward_starts(num_frames)[-1]])[0][-1] == num_frames - 2
    with pytest.raises(ParameterError, match="at least 11 frames, got 10"):
        forward_starts(10)


@pytest.mark.parametrize("num_frames", [11, 24, 25, 26, 60, 180, 1776])
def test_the_25_frames_and_stacks_are_those_of_the_published_code(num_frames: int) -> None:
    frames, starts = two_stream_samples(num_frames)
    num_fields = num_frames - 1
    assert frames.tolist() == [i * ((num_frames - 1) // 24) for i in range(25)]
    assert starts.tolist() == [i * ((num_fields - 10 + 1) // 25) for i in range(25)]
    assert frames[-1] <= num_frames - 1
    assert starts[-1] + 9 <= num_fields - 1


def test_without_its_mean_a_field_does_not_depend_on_a_constant_displacement() -> None:
    flow = torch.randn(3, 4, 20, 9, 7, dtype=torch.float64)
    shifted = flow + torch.randn(3, 4, 20, 1, 1, dtype=torch.float64)
    clean = without_mean_flow(flow)
    assert torch.allclose(without_mean_flow(shifted), clean, rtol=0, atol=1e-12)
    assert float(clean.mean((-2, -1)).abs().max()) < 1e-12
    assert torch.allclose(without_mean_flow(clean), clean, rtol=0, atol=1e-12)
    assert torch.allclose(without_mean_flow(flow.flip(-1)), clean.flip(-1), rtol=0, atol=1e-12)
    assert float(without_mean_flow(torch.ones(2, 20, 5, 5)).abs().max()) == 0


# -- clips -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "stride", "first"), [(16, 8, 0), (16, 16, 0), (10, 6, 0), (10, 6, 2), (1, 1, 0)])
@pytest.mark.parametrize("num_frames", [1, 5, 10, 11, 16, 17, 31, 32, 100])
def test_clips_are_consecutive_frames_of_the_video(length: int, stride: int, first: int, num_frames: int) -> None:
    for to_the_end in (False, True):
        clips = clip_frames(num_frames, length=length, stride=stride, first=first, to_the_end=to_the_end)
        assert clips.shape[0] >= 1
        assert clips.shape[1] == length
        assert clips.min() >= 0
        assert clips.max() <= num_frames - 1
        steps = np.diff(clips, axis=1)
        assert (steps == 1).all() if num_frames >= length else np.isin(steps, (0, 1)).all()
        whole = [start for start in range(first, num_frames, stride) if start + length <= num_frames]
        if whole:
            assert clips[: len(whole), 0].tolist() == whole
        if to_the_end:
            assert clips[-1, -1] == num_frames - 1
            assert len(clips) <= max(len(whole), 1) + 1
        else:
            assert len(clips) == max(len(whole), 1)


def test_a_short_video_repeats_its_last_frame() -> None:
    assert clip_frames(3, length=6, stride=2, first=2).tolist() == [[0, 1, 2, 2, 2, 2]]
    for name, value in {"num_frames": 0, "length": 0, "stride": 0, "first": -1}.items():
        with pytest.raises(ParameterError, match=f"^{name} must be at least"):
            clip_frames(**{"num_frames": 20, "length": 10, "stride": 6, "first": 0, name: value})


@pytest.mark.parametrize("num", [1, 3, 10, 11, 40])
@pytest.mark.parametrize("count", [1, 10, 20])
def test_any_number_of_clips_becomes_the_wanted_one(num: int, count: int) -> None:
    clips = np.arange(num)[:, None] * 6 + np.arange(10)
    for generator in (None, np.random.default_rng(1)):
        chosen = chosen_clips(clips, count, generator=generator)
        assert chosen.shape == (count, 10)
        assert {*chosen[:, 0]} <= {*clips[:, 0]}
        if num >= count:
            assert (np.diff(chosen[:, 0]) > 0).all()
        else:
            assert {*chosen[:, 0]} == {*clips[:, 0]}
    if num > count > 1:
        assert chosen_clips(clips, count)[[0, -1], 0].tolist() == clips[[0, -1], 0].tolist()
        draws = {tuple(chosen_clips(clips, count, generator=np.random.default_rng(seed))[:, 0]) for seed in range(9)}
        assert len(draws) > 1


def test_c3d_sees_frames_of_128_by_171() -> None:
    assert c3d_size(112) == (128, 171)
    assert c3d_size(56) == (64, 86)
    frames = np.random.default_rng(0).integers(0, 256, (3, 256, 340, 3), dtype=np.uint8)
    small = resized_rgb(frames, c3d_size(112))
    assert small.shape == (3, 128, 171, 3)
    constant = np.full((1, 256, 340, 3), 77, np.uint8)
    assert np.array_equal(resized_rgb(constant, c3d_size(112)), np.full((1, 128, 171, 3), 77))
    assert np.array_equal(resized_rgb(frames[:1], c3d_size(112)), small[:1])


# -- ten crops ---------------------------------------------------------------------------------------------------------------------


def crops_of(frames: np.ndarray, boxes: tuple) -> list[np.ndarray]:  # type: ignore[type-arg]
    return [crop_rgb(frames, box, size=box.height) for box in boxes]


def test_the_boxes_are_corners_and_centre_and_their_mirror_images() -> None:
    boxes = ten_crop_boxes(256, 340, size=224)
    assert [(box.top, box.left) for box in boxes[:5]] == [(0, 0), (0, 116), (32, 0), (32, 116), (16, 58)]
    assert [(box.top, box.left) for box in boxes[5:]] == [(box.top, box.left) for box in boxes[:5]]
    assert [box.flip for box in boxes] == [False] * 5 + [True] * 5
    assert {(box.height, box.width) for box in boxes} == {(224, 224)}
    published = ten_crop_boxes(256, 340, size=224, published_centre=True)
    assert (published[4].top, published[4].left) == (16, 60)
    assert published[:4] == boxes[:4]
    with pytest.raises(ParameterError, match="do not fit"):
        ten_crop_boxes(100, 340, size=112)


def test_a_constant_image_has_ten_equal_crops() -> None:
    frames = np.full((2, 64, 86, 3), 90, np.uint8)
    first, *others = crops_of(frames, ten_crop_boxes(64, 86, size=56))
    assert all(np.array_equal(first, other) for other in others)


def test_the_crops_of_a_mirrored_frame_are_the_same_crops_in_another_order() -> None:
    draw, quantiser = np.random.default_rng(2), Quantiser()
    frames, fields = draw.integers(0, 256, (1, 256, 340, 3), dtype=np.uint8), draw.integers(1, 256, (1, 2, 256, 340), dtype=np.uint8)
    order = [6, 5, 8, 7, 9, 1, 0, 3, 2, 4]  # left and right change places, and so do plain and mirrored
    for published_centre, is_same in ((False, True), (True, False)):
        boxes = ten_crop_boxes(256, 340, size=224, published_centre=published_centre)
        plain, mirrored = crops_of(frames, boxes), crops_of(np.ascontiguousarray(frames[:, :, ::-1]), boxes)
        assert all(np.array_equal(mirrored[place], plain[order[place]]) for place in range(10)) == is_same
        of_flow = [crop_flow(fields, box, size=224, quantiser=quantiser) for box in boxes]
        of_mirror = [crop_flow(mirror_flow(fields, quantiser), box, size=224, quantiser=quantiser) for box in boxes]
        assert all(np.array_equal(of_mirror[place], of_flow[order[place]]) for place in range(10)) == is_same


def test_stacks_of_forward_fields_interleave_u_and_v() -> None:
    fields, where = forward_fields([1, 4])
    values = np.arange(14 * 2, dtype=np.uint8).reshape(14, 2, 1, 1)[fields]
    joined = stacks(values, where)
    assert joined.shape == (2, 20, 1, 1)
    assert joined[1, :, 0, 0].tolist() == list(range(8, 28))
