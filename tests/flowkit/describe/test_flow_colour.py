"""Flow as colour: the Middlebury code's known colours, its zero, its scale."""

from __future__ import annotations

import colorsys
import math

import numpy as np
import pytest

from flowkit.describe.flow_colour import colour_wheel, flow_to_colour, round_scale, wheel_picture
from flowkit.errors import ParameterError


def colour_of(u: float, v: float, scale_px: float = 1.0) -> tuple[int, ...]:
    return tuple(int(c) for c in flow_to_colour(np.array([u, v], np.float32).reshape(2, 1, 1), scale_px=scale_px)[0, 0])


def hue_of(u: float, v: float) -> float:
    return colorsys.rgb_to_hsv(*(c / 255 for c in colour_of(u, v)))[0]


def reference_colour(u: float, v: float) -> tuple[int, ...]:
    """One pixel as the authors' C++ computes it, written out step by step."""
    wheel = []
    for start, count, up, down in ((0, 15, 1, None), (1, 6, None, 0), (1, 4, 2, None), (2, 11, None, 1), (2, 13, 0, None), (0, 6, None, 2)):
        for i in range(count):
            colour = [0, 0, 0]
            colour[start] = 255
            if up is not None:
                colour[up] = 255 * i // count
            if down is not None:
                colour[down] = 255 - 255 * i // count
            wheel.append(colour)
    radius = math.hypot(u, v)
    position = (math.atan2(-v, -u) / math.pi + 1) / 2 * 54
    low = int(position)
    pixel = []
    for channel in range(3):
        value = ((1 - position + low) * wheel[low][channel] + (position - low) * wheel[(low + 1) % 55][channel]) / 255
        pixel.append(int(255 * (1 - radius * (1 - value) if radius <= 1 else value * 0.75)))
    return tuple(pixel)


def test_zero_flow_is_white() -> None:
    assert colour_of(0, 0) == (255, 255, 255)
    assert colour_of(-0.0, -0.0) == (255, 255, 255)


@pytest.mark.parametrize(
    ("u", "v", "expected"),
    [(1, 0, (255, 0, 0)), (1, -0.0, (255, 0, 0)), (0, 1, (255, 229, 0)), (-1, 0, (0, 209, 255)), (0, -1, (88, 0, 255))],
    ids=["right is red", "right is red with a negative zero", "down is yellow", "left is cyan", "up is violet"],
)
def test_axes_have_the_colours_of_the_middlebury_code(u: float, v: float, expected: tuple[int, ...]) -> None:
    assert colour_of(u, v) == pytest.approx(expected, abs=1)


def test_every_direction_and_speed_agrees_with_the_formula_written_out() -> None:
    draw = np.random.default_rng(1)
    for u, v in draw.uniform(-0.9, 0.9, (300, 2)):
        assert colour_of(u, v) == pytest.approx(reference_colour(u, v), abs=1)


@pytest.mark.parametrize("angle", np.linspace(0.1, np.pi, 7))
def test_opposite_directions_have_hues_far_apart(angle: float) -> None:
    apart = abs(hue_of(np.cos(angle), np.sin(angle)) - hue_of(-np.cos(angle), -np.sin(angle)))
    assert min(apart, 1 - apart) > 0.3


def test_speed_is_saturation_up_to_the_scale_and_dark_beyond() -> None:
    assert colour_of(1, 0, scale_px=2) == pytest.approx((255, 127, 127), abs=1)
    assert colour_of(4, 0, scale_px=2) == (191, 0, 0)


def test_unknown_flow_is_black() -> None:
    assert colour_of(np.nan, 0) == colour_of(0, 2e9) == colour_of(np.inf, 0) == (0, 0, 0)


def test_a_stack_of_fields_is_drawn_as_each_alone() -> None:
    flow = np.random.default_rng(0).normal(0, 3, (4, 2, 5, 7)).astype(np.float32)
    together = flow_to_colour(flow, scale_px=5)
    assert together.shape == (4, 5, 7, 3)
    assert all((flow_to_colour(field, scale_px=5) == picture).all() for field, picture in zip(flow, together, strict=True))


def test_the_wheel_has_55_different_colours() -> None:
    assert len({tuple(colour) for colour in colour_wheel().tolist()}) == 55


def test_the_legend_shows_right_at_the_right_and_down_at_the_bottom() -> None:
    legend = wheel_picture(20)
    assert legend.shape == (41, 41, 3)
    assert tuple(legend[20, 20]) == (255, 255, 255)
    assert tuple(legend[20, 40]) == (255, 0, 0)
    assert tuple(legend[40, 20]) == pytest.approx((255, 229, 0), abs=1)
    assert tuple(legend[0, 0]) == (255, 255, 255), "outside the disc"


def test_scales_are_round_numbers_that_cover_the_speed() -> None:
    assert [round_scale(s) for s in (0.0, 1.0, 1.1, 4.9, 5.1, 17.0, 28.3)] == [1, 1, 2, 5, 10, 20, 50]


def test_wrong_shapes_and_scales_are_refused() -> None:
    with pytest.raises(ParameterError, match=r"\(3, 4, 4\)"):
        flow_to_colour(np.zeros((3, 4, 4), np.float32), scale_px=1)
    with pytest.raises(ParameterError, match="scale_px"):
        flow_to_colour(np.zeros((2, 4, 4), np.float32), scale_px=0)
