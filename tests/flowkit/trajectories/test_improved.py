"""What must hold of the trajectories of a video, whatever is in it."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest
from textures import moving_texture

from flowkit import Trajectories, improved_trajectories
from flowkit.errors import ParameterError
from flowkit.trajectories.improved import iterate_trajectories

if TYPE_CHECKING:
    from collections.abc import Iterator


def scene(num_frames: int = 18, height: int = 120, width: int = 240, seed: int = 0) -> np.ndarray:
    """Return grey frames of a textured disc that crosses a textured background, which is still."""
    background, texture = moving_texture(2, height, width, seed=seed, noise=0, step=(0, 0))[0], moving_texture(1, 60, 60, seed=seed + 1)[0]
    y, x = np.mgrid[:60, :60]
    disc = (x - 29.5) ** 2 + (y - 29.5) ** 2 < 28**2
    frames = np.repeat(background[None], num_frames, axis=0)
    for k, frame in enumerate(frames):
        left = 60 + 3 * k
        frame[height // 2 - 30 : height // 2 + 30, left : left + 60][disc] = texture[disc]
    return frames


@pytest.fixture(scope="module")
def found() -> Trajectories:
    return improved_trajectories(scene(), camera_motion="none")


# -- invariants of the method ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("camera_motion", ["sift", "flow", "none"])
def test_a_static_video_has_no_trajectory(camera_motion: str) -> None:
    frames = np.repeat(moving_texture(1, 96, 128), 18, axis=0)
    assert len(improved_trajectories(frames, camera_motion=camera_motion)) == 0


@pytest.mark.parametrize("step", [(2, 0), (-3, 2), (0, 6)])
def test_a_pan_has_hundreds_of_trajectories_and_none_without_camera_motion(step: tuple[int, int]) -> None:
    texture = moving_texture(1, 300, 340)[0]
    starts = [(60 + step[1] * k, 60 + step[0] * k) for k in range(20)]
    frames = np.stack([texture[y : y + 120, x : x + 160] for y, x in starts])
    assert len(improved_trajectories(frames, camera_motion="none")) > 300
    assert len(improved_trajectories(frames, camera_motion="sift")) == 0
    assert len(improved_trajectories(frames, camera_motion="flow")) == 0


def nearest(first: Trajectories, expected_xy: np.ndarray, second: Trajectories) -> tuple[np.ndarray, np.ndarray]:
    """Return which trajectories of `second` have the places (n, 2) that those of `first` should have there, within .05 px."""
    distance = np.abs(second.mean_xy[None] - expected_xy[:, None]).max(axis=2)
    distance[(first.end_frame[:, None] != second.end_frame) | (np.abs(first.scale[:, None] - second.scale) > 1e-3)] = np.inf
    partners = np.where(distance.min(axis=1) < 0.05, distance.argmin(axis=1), -1)
    return np.flatnonzero(partners >= 0), partners[partners >= 0]


def test_moving_the_picture_moves_the_trajectories_and_leaves_their_descriptors() -> None:
    """By 40 px, because starting points lie 5 px apart; at full size and half of it, where this is a whole number of cells."""
    frames = scene()
    left, right = (
        improved_trajectories(np.ascontiguousarray(part), camera_motion="none") for part in (frames[..., :200], frames[..., 40:])
    )
    whole = np.isin(np.round(left.scale, 3), [1, 2])
    inside = whole & (left.points[..., 0].min(axis=1) > 40 + 36 * left.scale) & (left.points[..., 0].max(axis=1) < 200 - 36 * left.scale)
    first, second = nearest(left, left.mean_xy - [40, 0], right)
    here = inside[first]
    assert inside.sum() > 50
    assert here.sum() > 0.95 * inside.sum()
    first, second = first[here], second[here]
    for name in ("hog", "hof", "mbh_x", "mbh_y", "shape"):
        assert np.abs(getattr(left, name)[first] - getattr(right, name)[second]).mean() < 2e-3, name


def test_a_mirror_image_has_the_mirrored_trajectories(found: Trajectories) -> None:
    mirrored = improved_trajectories(np.ascontiguousarray(scene()[..., ::-1]), camera_motion="none")
    full = found.scale == 1
    first, second = nearest(found, [239, 0] + found.mean_xy * [-1, 1], mirrored)
    here = full[first]
    assert full.sum() > 50
    assert here.sum() > 0.9 * full.sum()
    first, second = first[here], second[here]
    steps = mirrored.shape[second].reshape(-1, 15, 2) * [-1, 1]
    assert np.abs(found.shape[first].reshape(-1, 15, 2) - steps).mean() < 2e-3
    cells = mirrored.hog[second].reshape(-1, 3, 2, 2, 8)[:, :, ::-1][..., (4 - np.arange(8)) % 8]
    assert np.abs(found.hog[first] - cells.reshape(len(first), -1)).mean() < 0.02  # a patch lies half a pixel beside its mirror image


def test_every_vector_is_a_mean_of_five_with_sum_of_squares_one(found: Trajectories) -> None:
    for name, size in (("hog", 32), ("hof", 36), ("mbh_x", 32), ("mbh_y", 32)):
        squares = (getattr(found, name).reshape(-1, 3, size).astype(float) ** 2).sum(axis=2)
        assert (squares < 1 + 1e-5).all(), name
        assert (squares > 0.5).all(), name
    np.testing.assert_allclose(np.linalg.norm(found.shape.reshape(-1, 15, 2), axis=2).sum(axis=1), 1, rtol=1e-5)


def test_trajectories_follow_the_disc(found: Trajectories) -> None:
    assert len(found) > 100
    assert set(found.end_frame) == {15, 16, 17}
    steps = np.diff(found.points[found.scale == 1], axis=1)
    assert np.median(steps, axis=(0, 1)) == pytest.approx([3, 0], abs=0.1)
    assert (np.abs(found.mean_xy - found.points.mean(axis=1)) < 1e-3).all()
    assert (np.diff(found.end_frame) >= 0).all()
    assert found.position[:, :2] * [240, 120] == pytest.approx(found.mean_xy, abs=1e-2)
    assert found.position[:, 2] == pytest.approx((found.end_frame - 7.5) / 18)


# -- forms of the frames -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 61), (47, 35), (75, 101)])
def test_odd_sizes(height: int, width: int) -> None:
    frames = moving_texture(17, height, width, step=(0.9, 0.4))
    found = improved_trajectories(frames, camera_motion="none")
    assert len(found) > 0
    assert (found.points >= 0).all()
    assert (found.points <= (width + 2, height + 2)).all()  # a level's size is rounded
    assert np.isfinite(found.hog).all()


@pytest.mark.parametrize("num_frames", [0, 1, 2, 15])
def test_a_video_of_fewer_than_16_frames_has_none(num_frames: int) -> None:
    assert len(improved_trajectories(moving_texture(16, 40, 40, step=(0.9, 0.4))[:num_frames], camera_motion="none")) == 0


def test_a_video_of_16_frames_has_some() -> None:
    assert len(improved_trajectories(moving_texture(16, 40, 40, step=(0.9, 0.4)), camera_motion="none")) > 0


@pytest.mark.parametrize(("height", "width"), [(31, 100), (100, 31), (2, 3), (1, 1)])
def test_frames_smaller_than_a_patch_have_none(height: int, width: int) -> None:
    frames = moving_texture(20, height, width, step=(0.9, 0.4))
    assert len(improved_trajectories(frames)) == 0


def test_frames_may_come_one_by_one_and_in_colour() -> None:
    frames = scene(16, 60, 170)
    whole = improved_trajectories(frames, camera_motion="flow")
    assert len(whole) > 0
    colour = np.repeat(frames[..., None], 3, axis=3)
    assert_equal(improved_trajectories(iter(colour), camera_motion="flow"), whole)
    blocks = list(iterate_trajectories(iter(colour), 16, camera_motion="flow"))
    assert len(blocks) == 15
    assert_equal(Trajectories.concatenate(blocks), whole)
    unknown = Trajectories.concatenate(iterate_trajectories(iter(colour), None, camera_motion="flow"))
    assert np.isnan(unknown.position[:, 2]).all()
    np.testing.assert_array_equal(unknown.position[:, :2], whole.position[:, :2])


def assert_equal(first: Trajectories, second: Trajectories) -> None:
    for name in first.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)


def test_what_was_found_earlier_does_not_depend_on_later_frames() -> None:
    frames = scene(20, 60, 180)
    longer, shorter = (list(iterate_trajectories(frames[:num], 20, camera_motion="flow")) for num in (20, 17))
    assert_equal(Trajectories.concatenate(longer[:16]), Trajectories.concatenate(shorter))


def test_memory_does_not_grow_with_the_length_of_a_video() -> None:
    texture = moving_texture(1, 48, 100)[0]

    def frames() -> Iterator[np.ndarray]:  # back and forth, 30 frames each time
        for k in range(92):
            start = 25 + round(20 * np.sin(2 * np.pi * k / 30))
            yield texture[:, start : start + 50].copy()

    held: list[int] = []
    found = 0
    improved_trajectories(list(frames())[:3], camera_motion="none")  # loads the kernels
    tracemalloc.start()
    for number, block in enumerate(iterate_trajectories(frames(), None, camera_motion="none"), start=1):
        found += len(block)
        if number % 30 == 1:
            held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert found > 500
    assert held[3] - held[2] < 50_000  # bytes; 30 frames alone have 72,000, and their trajectories 450,000


# -- errors ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((20, 40, 40)), "must be uint8"),
        (np.zeros((20, 40, 40, 4), np.uint8), "must be uint8"),
        (np.zeros((40, 40), np.uint8), "must be uint8"),
        (np.zeros((40, 50, 3), np.uint8), "look like one colour frame"),
        (iter([np.zeros((40, 40), np.uint8), np.zeros((40, 42), np.uint8)]), "frame 1"),
        (iter([np.zeros((40, 40), np.float32)]), "a frame must be uint8"),
    ],
)
def test_frames_of_another_form_are_refused(frames: object, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        improved_trajectories(frames)  # type: ignore[arg-type]


def test_settings_out_of_range_are_refused() -> None:
    frames = np.zeros((2, 40, 40), np.uint8)
    with pytest.raises(ParameterError, match="unknown camera motion 'surf'"):
        improved_trajectories(frames, camera_motion="surf")
    with pytest.raises(ParameterError, match="num_frames must be at least 1, got 0"):
        list(iterate_trajectories(frames, 0))
