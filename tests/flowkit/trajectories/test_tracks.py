"""Where tracks start, how they move and end, and which of them become trajectories."""

from __future__ import annotations

import numpy as np
import pytest

from flowkit.errors import ParameterError
from flowkit.trajectories.histograms_reference import TOTAL_SIZE
from flowkit.trajectories.sampling import new_points
from flowkit.trajectories.tracks import TRACK_STEPS, FinishedTracks, LiveTracks
from flowkit.trajectories.trajectories import Trajectories, kept

GREY = np.zeros((40, 50), np.uint8)


def uniform_flow(u: float, v: float) -> np.ndarray:
    return np.broadcast_to(np.float32([u, v]), (*GREY.shape, 2))


def add_x(grey: np.ndarray, flow: np.ndarray, positions: np.ndarray, sums: np.ndarray, rows: np.ndarray) -> None:
    """Describe a point by its x."""
    sums[rows] += positions[:, :1].astype(np.float32)


def followed(tracks: LiveTracks, flow: np.ndarray, num_steps: int = TRACK_STEPS) -> FinishedTracks:
    for _ in range(num_steps - 1):
        assert len(tracks.advance(GREY, flow, flow).points) == 0
    return tracks.advance(GREY, flow, flow / 2)


# -- where they start ------------------------------------------------------------------------------------------------------------


def test_points_start_in_the_middle_of_cells_without_a_live_point() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (43, 38), dtype=np.uint8)
    points = new_points(grey, np.empty((0, 2), np.float32))
    assert len(points) == (43 // 5) * (38 // 5)
    assert (points % 5 == 2).all()
    live = np.float32([[7.9, 11.2], [36.5, 4], [3, 42]])  # the last two are in the rim that has no cells
    again = new_points(grey, live)
    assert {tuple(point) for point in points} - {tuple(point) for point in again} == {(7.0, 12.0)}


def test_no_point_starts_where_the_picture_is_flat() -> None:
    assert len(new_points(np.full((40, 40), 90, np.uint8), np.empty((0, 2), np.float32))) == 0
    grey = np.full((40, 40), 90, np.uint8)
    grey[:, 20:] = np.random.default_rng(0).integers(0, 256, (40, 20), dtype=np.uint8)
    points = new_points(grey, np.empty((0, 2), np.float32))
    assert len(points) == 8 * 4
    assert points[:, 0].min() == 22


# -- how they move ---------------------------------------------------------------------------------------------------------------


def test_a_point_moves_by_the_flow_at_its_rounded_position() -> None:
    flow = np.zeros((*GREY.shape, 2), np.float32)
    flow[20, 10] = [1.5, -0.25]  # 11.5 rounds to the even 12
    flow[20, 12] = [0.25, 0.125]
    tracks = LiveTracks(add_x)
    tracks.start(np.float32([[10, 20]]))
    tracks.advance(GREY, flow, flow)
    assert tracks.positions().tolist() == [[11.5, 19.75]]
    tracks.advance(GREY, flow, flow)
    assert tracks.positions().tolist() == [[11.75, 19.875]]


def test_a_track_ends_after_15_steps_with_what_was_gathered_along_it() -> None:
    tracks = LiveTracks(add_x)
    tracks.start(np.float32([[10, 20], [5, 5]]))
    finished = followed(tracks, uniform_flow(1, 0.5))
    assert finished.points[0, :, 0].tolist() == list(range(10, 26))
    assert finished.points[1, -1].tolist() == [20, 12.5]
    assert finished.displacements[0].tolist() == [[1, 0.5]] * 14 + [[0.5, 0.25]]
    assert finished.descriptors[0, :, 0].tolist() == [5 * 12, 5 * 17, 5 * 22]  # of five steps each
    assert len(tracks.positions()) == 0


@pytest.mark.parametrize(("start", "step"), [((3, 20), (-1, 0)), ((47, 20), (1, 0)), ((20, 3), (0, -1)), ((20, 37), (0, 1))])
def test_a_track_that_reaches_the_border_is_forgotten(start: tuple[int, int], step: tuple[int, int]) -> None:
    tracks = LiveTracks(add_x)
    tracks.start(np.float32([start, [25, 19]]))
    for remaining in (2, 2, 1):
        tracks.advance(GREY, uniform_flow(*step), uniform_flow(*step))
        assert len(tracks.positions()) == remaining


def test_tracks_end_in_the_order_in_which_they_began_although_slots_are_used_again() -> None:
    rng = np.random.default_rng(0)
    tracks, started, ended = LiveTracks(add_x), [], []
    for _ in range(60):
        points = rng.uniform(0, 50, (rng.integers(0, 9), 2)).astype(np.float32)
        tracks.start(points)
        started.extend(points.tolist())
        ended.extend(tracks.advance(GREY, uniform_flow(0.25, 0), uniform_flow(0.25, 0)).points[:, 0].tolist())
    places = [started.index(point) for point in ended]
    assert places == sorted(places)
    assert len(places) > 100
    assert len(tracks._steps) < 150  # slots, of 240 tracks


# -- which become trajectories ---------------------------------------------------------------------------------------------------


def one_track(points: np.ndarray, displacements: np.ndarray | None = None) -> FinishedTracks:
    """Return one track, by default with its own steps as displacements."""
    points = np.asarray(points, np.float32)[None]
    steps = np.diff(points, axis=1) if displacements is None else np.asarray(displacements, np.float32)[None]
    return FinishedTracks(points, steps, np.zeros((1, 3, TOTAL_SIZE), np.float32))


def straight(step: float) -> np.ndarray:
    return np.stack([10 + step * np.arange(16), np.full(16, 30.0)], axis=1)


def keep(tracks: FinishedTracks, scale: float = 1.0) -> Trajectories:
    return kept(tracks, scale=scale, end_frame=20, width=400, height=200, num_frames=50)


def test_a_moving_track_is_kept_with_its_numbers_in_pixels_of_the_full_frame() -> None:
    found = keep(one_track(straight(2)), scale=2.0)
    assert len(found) == 1
    assert found.mean_xy.tolist() == [[50, 60]]
    np.testing.assert_allclose(found.std_xy, [[4 * np.sqrt((16**2 - 1) / 12), 0]], rtol=1e-6)
    assert (found.length[0], found.scale[0], found.end_frame[0]) == (60, 2, 20)
    np.testing.assert_allclose(found.position, [[50 / 400, 60 / 200, 12.5 / 50]])
    assert found.points[0, -1].tolist() == [80, 60]
    np.testing.assert_allclose(found.shape, np.tile([1 / 15, 0], 15)[None], rtol=1e-6)


@pytest.mark.parametrize(
    ("points", "num"),
    [
        (straight(0.37), 0),  # a deviation of 1.71 px, below sqrt(3)
        (straight(0.38), 1),
        (straight(10.8), 1),  # a deviation of 49.8 px
        (straight(10.9), 0),
        (np.concatenate([straight(0.5)[:15], [[40, 30]]]), 0),  # its last step is 23 px, .77 of its length
        (np.concatenate([straight(0.5)[:15], [[36, 30]]]), 1),  # 19 px
        (np.concatenate([straight(1.0)[:15], [[46, 30]]]), 1),  # 22 px, but only .61 of its length
    ],
)
def test_tracks_that_stand_still_or_jump_are_dropped(points: np.ndarray, num: int) -> None:
    displacements = np.full((15, 2), 1.0)
    assert len(keep(one_track(points, displacements))) == num


@pytest.mark.parametrize(("longest", "num"), [(1.0, 0), (1.0001, 1)])
def test_tracks_that_move_with_the_camera_are_dropped(longest: float, num: int) -> None:
    displacements = np.zeros((15, 2))
    displacements[7, 1] = longest
    assert len(keep(one_track(straight(2), displacements))) == num
    assert len(keep(one_track(straight(2), displacements / 2), scale=2.0)) == num


def test_arrays_of_another_shape_are_refused() -> None:
    found = keep(one_track(straight(2)))
    values = {name: getattr(found, name) for name in found.__dataclass_fields__}
    with pytest.raises(ParameterError, match=r"hof of 1 trajectories must have the shape \(1, 108\), got \(1, 96\)"):
        Trajectories(**{**values, "hof": found.hog})
