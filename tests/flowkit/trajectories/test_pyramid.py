"""The pyramid: which levels there are, and a frame at each of them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from flowkit.errors import ParameterError
from flowkit.trajectories.pyramid import Pyramid


@pytest.mark.parametrize(
    ("height", "width", "num_levels"),
    [(120, 160, 4), (240, 320, 6), (256, 340, 7), (1080, 1920, 8), (4000, 4000, 8), (32, 500, 1), (46, 46, 2), (31, 500, 1), (1, 1, 1)],
)
def test_levels_end_before_a_side_of_32_px_and_after_eight(height: int, width: int, num_levels: int) -> None:
    pyramid = Pyramid(height, width)
    assert len(pyramid.scales) == len(pyramid.sizes) == num_levels
    assert pyramid.sizes[0] == (height, width)
    assert np.allclose(pyramid.scales, np.sqrt(2) ** np.arange(num_levels), rtol=1e-6)
    assert all(scale.dtype == np.float32 for scale in pyramid.scales)


def test_sides_are_rounded_to_the_nearest_pixel() -> None:
    assert Pyramid(120, 160).sizes == ((120, 160), (85, 113), (60, 80), (42, 57))


def test_a_frame_without_pixels_is_refused() -> None:
    with pytest.raises(ParameterError, match="at least 1 px per side, got 0x4"):
        Pyramid(4, 0)


def test_levels_of_a_frame_have_the_sizes_and_keep_its_mean() -> None:
    frame = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (121, 163), np.uint8), (0, 0), 3)
    pyramid = Pyramid(*frame.shape)
    grey, smooth = pyramid.grey_levels(frame), pyramid.smooth_levels(frame)
    assert [level.shape for level in grey] == [level.shape for level in smooth] == list(pyramid.sizes)
    assert {level.dtype for level in grey} == {np.dtype(np.uint8)}
    assert {level.dtype for level in smooth} == {np.dtype(np.float32)}
    assert np.array_equal(grey[0], frame)
    assert all(abs(float(level.mean()) - frame.mean()) < 1 for level in (*grey, *smooth))


def test_smooth_levels_are_blurred_more_the_coarser_they_are() -> None:
    frame = np.random.default_rng(1).integers(0, 256, (256, 256), np.uint8)
    finest, *deviations = [float(level.std()) for level in Pyramid(256, 256).smooth_levels(frame)]
    assert deviations == sorted(deviations, reverse=True)
    assert finest < frame.std() / 1.5  # by 0.8 px; the next one by 0.2 px only
