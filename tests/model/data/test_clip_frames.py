"""Frames, fields and crops of the other systems: where they lie, and what changes nothing."""

from __future__ import annotations

import numpy as np
import pytest

from flowkit.errors import ParameterError
from flowkit.model.data.clip_frames import chosen_clips, clip_frames, five_crops

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


# -- ten crops ---------------------------------------------------------------------------------------------------------------------


def test_five_crops_are_corners_and_centre() -> None:
    assert five_crops(256, 340, size=224) == ((0, 0), (0, 116), (32, 0), (32, 116), (16, 58))
    assert set(five_crops(32, 32, size=32)) == {(0, 0)}
    with pytest.raises(ParameterError, match="do not fit"):
        five_crops(100, 340, size=112)
