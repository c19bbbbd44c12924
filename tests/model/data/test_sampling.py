"""Which frames and videos are used: exact indices, ranges, and draws that depend only on their key."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from phases import PHASES

from flowkit.errors import ParameterError
from flowkit.model.data.sampling import (
    balanced_videos,
    batch_videos,
    evenly_spaced_centres,
    initial_seed,
    network_seed,
    protocol_centres,
    sample_generator,
    stack_fields,
    training_centres,
    valid_centres,
)


def test_the_only_valid_centre_of_eleven_frames_is_the_sixth() -> None:
    assert list(valid_centres(11)) == [5]
    assert list(valid_centres(14)) == [5, 6, 7, 8]


@pytest.mark.parametrize("num_frames", [0, 1, 10])
def test_fewer_than_eleven_frames_are_refused(num_frames: int) -> None:
    with pytest.raises(ParameterError, match=f"at least 11 frames.*got {num_frames}"):
        valid_centres(num_frames)
    with pytest.raises(ParameterError):
        protocol_centres(num_frames)


# By hand from the official code's rule; frames counted from 1, as there.
LISTS = {
    35: list(range(6, 31)),
    100: [6, 10, 13, 17, 21, 25, 28, 32, 36, 39, 43, 47, 51, 54, 58, 62, 65, 69, 73, 76, 80, 84, 88, 91, 95],
}


@pytest.mark.parametrize("num_frames", LISTS)
def test_the_25_test_frames_are_those_of_the_official_code(num_frames: Any) -> None:
    assert (protocol_centres(num_frames) + 1).tolist() == LISTS[num_frames]


def test_halves_are_rounded_away_from_zero_as_matlab_does() -> None:
    assert protocol_centres(98)[12] + 1 == 50  # numpy.rint and Python's round give 49


@pytest.mark.parametrize("num_frames", [11, 12, 13, 30, 34, 35, 36, 98, 250, 1776])
def test_test_frames_are_in_range_and_in_order_and_reach_both_ends(num_frames: int) -> None:
    centres = protocol_centres(num_frames)
    assert len(centres) == 25
    assert centres[0] == 5
    assert centres[-1] == num_frames - 6
    assert (np.diff(centres) >= 0).all()


@pytest.mark.parametrize(("num_samples", "tau_min", "tau_max"), [(1, 1, 1), (5, 5, 15), (11, 1, 15)])
@pytest.mark.parametrize("num_frames", [11, 12, 25, 31, 60, 170, 400])
def test_training_samples_are_in_range_and_evenly_spaced_where_they_fit(
    num_frames: int, num_samples: int, tau_min: int, tau_max: int
) -> None:
    spacings, starts = set(), set()
    for position in range(200):
        generator = sample_generator(3, "st-resnet", 0, position)
        centres = training_centres(generator, num_frames, num_samples=num_samples, tau_min=tau_min, tau_max=tau_max)
        assert centres.shape == (num_samples,)
        assert centres.min() >= 5
        assert centres.max() <= num_frames - 6
        steps = set(np.diff(centres).tolist())
        assert all(step >= 0 for step in steps)
        fitted = len(steps) == 1 and tau_min <= min(steps) <= tau_max
        spread = centres.tolist() == evenly_spaced_centres(num_frames, num_samples).tolist()
        assert fitted or spread or num_samples == 1
        spacings |= steps if fitted else set()
        starts.add(int(centres[0]))
    if num_frames == 400 and num_samples > 1:  # all distances fit, so all occur
        assert spacings == set(range(tau_min, tau_max + 1))
        assert len(starts) > 50


def test_training_takes_the_first_and_the_last_start() -> None:
    drawn = {
        tuple(training_centres(sample_generator(0, "motion", 0, k), 14, num_samples=2, tau_min=2, tau_max=2).tolist()) for k in range(60)
    }
    assert drawn == {(5, 7), (6, 8)}


def test_short_videos_fall_back_to_the_whole_length() -> None:
    centres = training_centres(sample_generator(0, "st-resnet", 0, 0), 20, num_samples=5, tau_min=5, tau_max=15)
    assert centres.tolist() == [5, 7, 10, 12, 14]  # 5 + round(0, 2.25, 4.5, 6.75, 9), halves up


def test_a_stack_is_the_five_fields_before_and_the_five_from_its_centre() -> None:
    fields, where = stack_fields([5, 8, 8])
    assert fields.tolist() == list(range(13))
    assert fields[where].tolist() == [list(range(10)), list(range(3, 13)), list(range(3, 13))]


def test_stacks_far_apart_skip_the_fields_between() -> None:
    fields, where = stack_fields(np.array([5, 40]))
    assert fields.tolist() == [*range(10), *range(35, 45)]
    assert where.tolist() == [list(range(10)), list(range(10, 20))]


def test_draws_depend_on_every_part_of_their_key() -> None:
    keys = [(0, "motion", 3, 4), (1, "motion", 3, 4), (0, "st-resnet", 3, 4), (0, "motion", 4, 4), (0, "motion", 3, 5), (0, "motion", 4, 3)]
    draws = [tuple(sample_generator(*key).integers(2**32, size=4)) for key in keys]
    assert len(set(draws)) == len(keys)
    assert draws == [tuple(sample_generator(*key).integers(2**32, size=4)) for key in keys]


def test_seeds_above_32_bits_are_different_seeds() -> None:
    draws = {int(sample_generator(seed, "motion", 0, 0).integers(2**62)) for seed in (1, 2**32, 2**32 + 1, 2**40)}
    assert len(draws) == 4


def test_network_and_starting_seeds_differ_by_place() -> None:
    seeds = {network_seed(0, phase, step, sub) for phase in PHASES for step in range(5) for sub in range(3)}
    seeds |= {initial_seed(0, phase) for phase in PHASES}
    assert len(seeds) == 4 * 5 * 3 + 4
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_every_video_is_taken_once_before_any_is_taken_again() -> None:
    taken = [video for step in range(7) for video in batch_videos(step, num_videos=10, batch=4, seed=0, phase="motion")]
    assert sorted(taken[:10]) == sorted(taken[10:20]) == list(range(10))
    assert taken[:10] != taken[10:20]
    assert taken[:10] != list(range(10))


def test_a_step_s_videos_depend_only_on_the_step() -> None:
    later = batch_videos(5, num_videos=10, batch=4, seed=0, phase="motion")
    for step in (0, 9, 3):
        batch_videos(step, num_videos=10, batch=4, seed=0, phase="motion")
    assert batch_videos(5, num_videos=10, batch=4, seed=0, phase="motion") == later
    assert batch_videos(5, num_videos=10, batch=4, seed=1, phase="motion") != later


def test_a_batch_may_be_larger_than_the_list() -> None:
    assert sorted(batch_videos(0, num_videos=3, batch=6, seed=0, phase="motion")) == [0, 0, 1, 1, 2, 2]


UNEVEN = [0] * 9 + [3] * 2 + [5]  # labels 1, 2 and 4 have no video


def balanced(step: int, seed: int = 0) -> list[int]:
    return balanced_videos(step, labels=UNEVEN, batch=4, seed=seed, phase="motion")


def test_balanced_batches_draw_all_classes_equally_often_and_each_video_of_a_class_once_a_pass() -> None:
    taken = [video for step in range(27) for video in balanced(step)]  # 36 rounds of the three classes
    assert Counter(UNEVEN[video] for video in taken) == {0: 36, 3: 36, 5: 36}
    for first in range(0, len(taken), 3):
        assert {UNEVEN[video] for video in taken[first : first + 3]} == {0, 3, 5}
    large = [video for video in taken if UNEVEN[video] == 0]
    passes = [large[first : first + 9] for first in range(0, 36, 9)]
    assert all(sorted(one) == list(range(9)) for one in passes)
    assert len({tuple(one) for one in passes}) == 4
    assert len({tuple(UNEVEN[video] for video in taken[first : first + 3]) for first in range(0, len(taken), 3)}) > 1


def test_balanced_batches_depend_only_on_step_and_seed() -> None:
    later = balanced(5)
    for step in (0, 9, 3):
        balanced(step)
    assert balanced(5) == later
    assert balanced(5, seed=1) != later


def test_of_balanced_classes_every_video_is_drawn_as_often_as_without_balance() -> None:
    labels = [0, 1, 2] * 4
    taken = [video for step in range(6) for video in balanced_videos(step, labels=labels, batch=4, seed=0, phase="motion")]
    assert Counter(taken) == dict.fromkeys(range(12), 2)
