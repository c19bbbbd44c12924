"""The motion of each pair of frames: static and panned pictures, black frames, tiny frames, boxes, bad input."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from textures import moving_texture

from flowkit.errors import ParameterError
from flowkit.trajectories.frame_motion import CAMERA_MOTIONS, FrameMotion, frame_motions
from flowkit.trajectories.pyramid import Pyramid


def arrays_of(motion: FrameMotion) -> tuple[np.ndarray, ...]:
    return (*motion.previous, *motion.current, *motion.flows, *motion.compensated, motion.homography)


@pytest.mark.parametrize("camera_motion", CAMERA_MOTIONS)
def test_each_pair_has_levels_flows_and_a_homography(camera_motion: str) -> None:
    frames = moving_texture(4, 90, 120, step=(2, 1))
    motions = list(frame_motions(frames, camera_motion=camera_motion))
    assert [motion.number for motion in motions] == [1, 2, 3]
    sizes = list(Pyramid(90, 120).sizes)
    for motion, (first, second) in zip(motions, itertools.pairwise(frames), strict=True):
        assert np.array_equal(motion.previous[0], first)
        assert np.array_equal(motion.current[0], second)
        for levels in (motion.previous, motion.current):
            assert [level.shape for level in levels] == sizes
        for levels in (motion.flows, motion.compensated):
            assert [level.shape for level in levels] == [(*size, 2) for size in sizes]
            assert {level.dtype for level in levels} == {np.dtype(np.float32)}
        assert np.abs(motion.flows[0][20:-20, 20:-20] - (2, 1)).mean() < 0.2


@pytest.mark.parametrize("camera_motion", ["sift", "flow"])
@pytest.mark.parametrize("step", [(2, 0), (3, -4), (-6, 1)])
def test_a_pan_leaves_no_motion_once_it_is_removed(camera_motion: str, step: tuple[int, int]) -> None:
    frames = moving_texture(3, 120, 160, step=step, noise=0)
    for motion in frame_motions(frames, camera_motion=camera_motion):
        assert np.allclose(motion.homography @ [80, 60, 1], [80 + step[0], 60 + step[1], 1], atol=0.2)
        for scale, flow, moved in zip(Pyramid(120, 160).scales, motion.compensated, motion.flows, strict=True):
            assert np.hypot(*np.moveaxis(flow[6:-6, 6:-6] * scale, 2, 0)).max() <= 1
            assert np.hypot(*np.moveaxis(moved[20:-20, 20:-20] * scale, 2, 0)).min() > 1


def test_without_compensation_both_flows_are_the_same() -> None:
    (motion,) = frame_motions(moving_texture(2, 60, 80), camera_motion="none")
    assert motion.compensated is motion.flows
    assert np.array_equal(motion.homography, np.eye(3))


def test_boxes_hide_what_moves_against_the_camera() -> None:
    background = moving_texture(2, 120, 160, step=(0, 0), noise=0)
    foreground = moving_texture(2, 120, 160, step=(4, 2), noise=0, seed=1)
    frames = background.copy()
    frames[:, 6:114, 6:120] = foreground[:, 6:114, 6:120]  # most of the frame
    boxes = {number: np.array([[0.0, 0, 126, 119]]) for number in (0, 1)}
    for camera_motion in ("sift", "flow"):
        (without,) = frame_motions(frames, camera_motion=camera_motion)
        (with_boxes,) = frame_motions(frames, camera_motion=camera_motion, boxes=boxes)
        assert np.abs(without.homography @ [60, 60, 1] - (64, 62, 1)).max() < 0.5
        assert np.abs(with_boxes.homography @ [140, 60, 1] - (140, 60, 1)).max() < 0.5


@pytest.mark.parametrize("camera_motion", CAMERA_MOTIONS)
@pytest.mark.parametrize("kind", ["black", "white then black", "noise", "stripes", "one bright pixel"])
def test_frames_in_which_nothing_can_be_matched_give_finite_flow(kind: str, camera_motion: str) -> None:
    frames = np.zeros((3, 64, 70), np.uint8)
    if kind == "white then black":
        frames[0] = 255
    elif kind == "noise":
        frames = np.random.default_rng(0).integers(0, 256, frames.shape, np.uint8)
    elif kind == "stripes":
        frames[0, :, ::2] = frames[1, ::2] = 255
    elif kind == "one bright pixel":
        frames[0, 30, 30] = frames[1, 40, 50] = 255
    for motion in frame_motions(frames, camera_motion=camera_motion):
        assert all(np.isfinite(array).all() for array in arrays_of(motion))
        if kind == "black":
            assert not any(flow.any() for flow in (*motion.flows, *motion.compensated))
            assert np.array_equal(motion.homography, np.eye(3))


@pytest.mark.parametrize("camera_motion", CAMERA_MOTIONS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (2, 3), (31, 7), (33, 200), (46, 45)])
def test_frames_of_any_size_have_a_motion(shape: tuple[int, int], camera_motion: str) -> None:
    frames = np.random.default_rng(1).integers(0, 256, (3, *shape), np.uint8)
    motions = list(frame_motions(iter(frames), camera_motion=camera_motion))
    assert [motion.number for motion in motions] == [1, 2]
    assert all(np.isfinite(array).all() for motion in motions for array in arrays_of(motion))


def test_the_result_does_not_depend_on_memory_layout_or_on_what_ran_before() -> None:
    frames = moving_texture(3, 64, 90, step=(3, 2))
    expected = [array.copy() for motion in frame_motions(frames) for array in arrays_of(motion)]
    list(frame_motions(moving_texture(2, 50, 70, seed=5)))
    for variant in (frames, np.asfortranarray(frames), np.repeat(frames, 2, axis=2)[:, :, ::2]):
        found = [array for motion in frame_motions(variant) for array in arrays_of(motion)]
        assert all(itertools.starmap(np.array_equal, zip(found, expected, strict=True)))


def test_frames_may_share_one_buffer_and_be_read_only() -> None:
    frames = moving_texture(3, 40, 50)
    buffer = np.empty((40, 50), np.uint8)

    def refilled() -> Iterator[np.ndarray]:
        for frame in frames:
            buffer[:] = frame
            yield buffer

    frames.flags.writeable = False
    for motion, expected in zip(frame_motions(refilled()), frame_motions(frames), strict=True):
        assert all(itertools.starmap(np.array_equal, zip(arrays_of(motion), arrays_of(expected), strict=True)))


def test_frames_are_taken_one_by_one() -> None:
    frames = moving_texture(3, 40, 50)
    taken = []

    def stream() -> Iterator[np.ndarray]:
        for number, frame in enumerate(frames):
            taken.append(number)
            yield frame

    motions = frame_motions(stream(), camera_motion="none")
    assert taken == []
    next(motions)
    assert taken == [0, 1]
    assert list(frame_motions(frames[:1])) == list(frame_motions([])) == []


def test_bad_frames_and_settings_are_errors() -> None:
    good = np.zeros((40, 50), np.uint8)
    with pytest.raises(ParameterError, match="unknown camera motion 'surf'; choose one of sift, flow, none"):
        frame_motions([good], camera_motion="surf")
    for bad in (good[:30], good.astype(np.float32), np.zeros((40, 50, 3), np.uint8), np.zeros(40, np.uint8)):
        with pytest.raises(ParameterError, match=r"frame 1 is .*, not uint8 \(40, 50\) as the first"):
            list(frame_motions([good, bad]))
    with pytest.raises(ParameterError, match=r"grey frames must be uint8 \(H, W\), got uint8 \(40, 50, 3\)"):
        list(frame_motions([np.zeros((40, 50, 3), np.uint8)]))
    with pytest.raises(ParameterError, match="grey frames must be"):
        list(frame_motions([good.astype(np.float32)]))
