"""Samples of descriptors: bounded, random, and the same however the videos are divided and ordered."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from flowkit.model.encoding.descriptor_sample import SAMPLE_SIZE, VideoSample, gathered, share_of


def rows_of(video_id: str, number: int, *, most: int, blocks: list[int] | None = None, seed: int = 0) -> NDArray[np.float32]:
    """Return the sample of a video whose descriptors are 0, 1, 2, ..., offered in blocks that end at the given places."""
    sample = VideoSample(video_id, most, seed=seed)
    for block in np.split(np.arange(number, dtype=np.float32)[:, None], blocks or []):
        sample.add({"hog": block, "hof": np.concatenate([block, -block], axis=1)})
    rows = sample.rows()
    np.testing.assert_array_equal(rows["hof"][:, 1], -rows["hog"][:, 0])  # the types of one trajectory stay together
    assert sample.num_seen == number
    return rows["hog"][:, 0]


@pytest.mark.parametrize("blocks", [[], [1, 2, 3], [0, 50, 50, 99], list(range(1, 100))])
def test_blocks_do_not_change_a_sample(blocks: list[int]) -> None:
    np.testing.assert_array_equal(rows_of("a", 100, most=7, blocks=blocks), rows_of("a", 100, most=7))


def test_a_sample_is_bounded_in_the_order_of_the_video_and_without_repetition() -> None:
    rows = rows_of("a", 1000, most=50, blocks=list(range(20, 1000, 20)))
    assert len(rows) == 50
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(rows_of("a", 10, most=50), np.arange(10))
    assert rows_of("a", 0, most=50).size == 0
    assert VideoSample("a", 5, seed=0).rows() == {}


def test_videos_and_seeds_draw_differently() -> None:
    samples = [tuple(rows_of(name, 100, most=10, seed=seed)) for name, seed in (("a", 0), ("b", 0), ("a", 1))]
    assert len(set(samples)) == 3


def test_every_descriptor_is_as_likely_as_any_other() -> None:
    counts = np.zeros(20)
    for number in range(2000):
        counts[rows_of(f"v{number}", 20, most=5, blocks=[3, 11]).astype(int)] += 1
    assert np.abs(counts - 500).max() < 5 * np.sqrt(500 * 0.75)


def test_samples_are_gathered_by_id_whatever_their_order() -> None:
    samples = {name: {"hog": np.full((2, 1), number, np.float32)} for number, name in enumerate(("a", "b", "c"))} | {"0": {}}
    expected = [[0], [0], [1], [1], [2], [2]]
    for order in (["a", "b", "c", "0"], ["c", "0", "b", "a"]):
        assert gathered({name: samples[name] for name in order})["hog"].tolist() == expected
    assert gathered({"0": {}}) == {}


@pytest.mark.parametrize("num_videos", [1, 7, 9537])
def test_the_shares_of_all_videos_are_the_whole_sample(num_videos: int) -> None:
    assert SAMPLE_SIZE <= share_of(num_videos) * num_videos < SAMPLE_SIZE + num_videos
