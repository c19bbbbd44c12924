"""The authors' own output for one of their videos: the trajectories found here are theirs, although SIFT stands in for SURF.

The video and the output are test data of a GPL release. They are read where they lie, and are no part of this project.
"""

from __future__ import annotations

import gzip
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import pytest

from flowkit import Trajectories, read_frames
from flowkit.trajectories.improved import iterate_trajectories

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NUM_FRAMES = 360
TOLERANCE = 0.02  # px, for a row to be the same
PARTS = {"shape": 40, "hog": 136, "hof": 244, "mbh_x": 340, "mbh_y": 436}  # after 10 numbers; where each part ends


@pytest.fixture(scope="module")
def authors(shared_data: Path) -> tuple[Path, np.ndarray]:
    """Return the video and the authors' rows of 436 numbers."""
    folder = shared_data / "idt"
    if not folder.is_dir():
        pytest.skip("needs the authors' output, shared/data/idt")
    with gzip.open(folder / "person01_boxing_d1.gz", "rt") as file:
        return folder / "person01_boxing_d1_uncomp.avi", np.loadtxt(file)


def grey_frames(path: Path) -> Iterator[np.ndarray]:
    for batch in read_frames(path, short_side=None):
        yield from batch.frames


def compare(found: Trajectories, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which trajectory is which row: those with equal frame and scale, and equal geometry within the tolerance, each used once."""
    geometry = np.column_stack([found.mean_xy, found.std_xy, found.length])
    free = np.ones(len(found), bool)
    pairs = []
    for k, row in enumerate(rows):
        same = np.flatnonzero(free & (found.end_frame == row[0]) & (np.abs(found.scale - row[6]) < 1e-3))
        distance = np.abs(geometry[same] - row[1:6]).max(axis=1, initial=0)
        if len(same) and distance.min() <= TOLERANCE:
            pairs.append((same[distance.argmin()], k))
            free[pairs[-1][0]] = False
    which, row_numbers = np.array(pairs).T
    return which, row_numbers


def errors(found: Trajectories, rows: np.ndarray) -> dict[str, float]:
    """Return the mean absolute difference of every part over the trajectories and rows that are the same."""
    which, row_numbers = compare(found, rows)
    starts = dict(zip(PARTS, [10, *PARTS.values()], strict=False))
    return {name: float(np.abs(getattr(found, name)[which] - rows[row_numbers, starts[name] : end]).mean()) for name, end in PARTS.items()}


def test_the_authors_trajectories_are_found_in_the_first_frames(authors: tuple[Path, np.ndarray]) -> None:
    path, rows = authors
    frames = islice(grey_frames(path), 60)
    found = Trajectories.concatenate(iterate_trajectories(frames, NUM_FRAMES, camera_motion="flow"))
    expected = rows[rows[:, 0] < 60]
    which, row_numbers = compare(found, expected)
    assert len(expected) == 344
    assert len(which) >= 336  # in all 2,001 rows no more than these few are missing
    assert len(found) - len(which) <= 5
    np.testing.assert_allclose(found.position[which], expected[row_numbers, 7:10], atol=1e-3)
    for name, error in errors(found, expected).items():
        assert error < {"shape": 2e-3, "hog": 1e-5, "hof": 1.5e-3, "mbh_x": 2.5e-3, "mbh_y": 2.5e-3}[name], name


@pytest.mark.slow
@pytest.mark.parametrize(("camera_motion", "least", "most_extra"), [("sift", 1990, 10), ("flow", 1990, 10), ("none", 1995, 80)])
def test_the_authors_trajectories_are_found(authors: tuple[Path, np.ndarray], camera_motion: str, least: int, most_extra: int) -> None:
    path, rows = authors
    assert len(rows) == 2001
    found = Trajectories.concatenate(iterate_trajectories(grey_frames(path), NUM_FRAMES, camera_motion=camera_motion))
    which, row_numbers = compare(found, rows)
    assert len(which) >= least
    assert len(found) - len(which) <= most_extra
    np.testing.assert_allclose(found.position[which], rows[row_numbers, 7:10], atol=1e-3)
    measured = errors(found, rows)
    assert measured["hog"] < 1e-5
    if camera_motion == "sift":
        assert measured["hof"] < 1.5e-3
        assert max(measured["mbh_x"], measured["mbh_y"]) < 2.5e-3
