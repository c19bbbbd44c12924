"""Frames chosen by time or number: against the rule written out, for regular, irregular and missing time stamps."""

from __future__ import annotations

import statistics
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest

from flowkit.errors import ParameterError
from flowkit.video.choosing import FrameChooser, FrameClock, NoTimesError
from flowkit.video.reading import Reading

if TYPE_CHECKING:
    from collections.abc import Sequence

MS = Fraction(1, 1000)


def choose(
    stamps: Sequence[int | None], reading: Reading, *, time_base: Fraction | None = MS, rate: object = 25
) -> tuple[list[int], list[Fraction | None], list[str]]:
    """Return the numbers and times of the chosen frames, and the notes."""
    chooser: FrameChooser[int] = FrameChooser(reading, FrameClock(time_base, lambda: Fraction(str(rate))))
    found = [pair for number, stamp in enumerate(stamps) for pair in chooser.add(number, stamp)]
    found += chooser.finish()
    return [number for number, _ in found], [time for _, time in found], chooser.notes()


def nearest_frames(times: Sequence[Fraction], fps: Fraction) -> list[int]:
    """The rule, time by time of the grid."""
    middle = statistics.median(after - before for before, after in pairwise(times)) if len(times) > 1 else Fraction(0)
    chosen: list[int] = []
    j = 0
    while times[0] + j / fps <= times[-1] + middle / 2:
        best = min(range(len(times)), key=lambda k: (abs(times[k] - times[0] - j / fps), k))
        if best not in chosen:
            chosen.append(best)
        j += 1
    return chosen


@pytest.mark.parametrize("seed", range(60))
def test_frames_are_those_nearest_to_the_grid_for_any_time_stamps(seed: int) -> None:
    draw = np.random.default_rng(seed)
    base = [MS, Fraction(1, 90000), Fraction(1, 25), Fraction(1001, 30000)][seed % 4]
    steps = draw.choice([1, 2, 3, 40, 41, 400] if seed % 3 else [33, 34], int(draw.integers(1, 40)))
    stamps = (int(draw.integers(-50, 5000)) + np.concatenate([[0], np.cumsum(steps)])).tolist()
    times = [stamp * base for stamp in stamps]
    num_times = Fraction(int(draw.integers(1, 400)), int(draw.choice([1, 2, 4, 7])))  # of the grid
    fps = min((num_times / (times[-1] - times[0] + 1)).limit_denominator(1000), Fraction(1000)) or Fraction(1, 1000)
    chosen, chosen_times, _ = choose(stamps, Reading(fps=fps), time_base=base)
    assert chosen == nearest_frames(times, fps)
    assert chosen_times == [times[k] for k in chosen]


@pytest.mark.parametrize("num_frames", [1, 2, 3, 12, 13, 25, 50, 51])
@pytest.mark.parametrize("base", [MS, Fraction(1, 25), Fraction(1, 12800), Fraction(1, 90000)])
def test_half_the_rate_is_every_second_frame(num_frames: int, base: Fraction) -> None:
    stamps = [round(Fraction(k, 25) / base) for k in range(num_frames)]
    assert choose(stamps, Reading(fps="12.5"), time_base=base)[0] == list(range(0, num_frames, 2)) == choose(stamps, Reading(every=2))[0]


def test_25_frames_per_second_become_10_by_the_earlier_of_two_that_are_equally_near() -> None:
    stamps = [40 * k for k in range(25)]
    assert choose(stamps, Reading(fps=10))[0] == [0, 2, 5, 7, 10, 12, 15, 17, 20, 22]
    assert choose(stamps[:13], Reading(fps=10))[0] == [0, 2, 5, 7, 10, 12], "the last frame owns the time half an interval after it"


def test_rounded_stamps_of_matroska_choose_as_exact_ones() -> None:
    for rate, fps in (
        (Fraction(30000, 1001), "30000/2002"),
        (Fraction(24), "24"),
        (Fraction(60), "20"),
        (Fraction(24000, 1001), "24000/1001"),
    ):
        exact = [Fraction(k) / rate for k in range(100)]
        rounded = [round(time / MS) for time in exact]
        assert choose(rounded, Reading(fps=fps))[0] == nearest_frames(exact, Fraction(fps)), (rate, fps)


def test_a_slower_video_keeps_all_its_frames_and_says_so() -> None:
    chosen, _, notes = choose([100 * k for k in range(8)], Reading(fps=25))
    assert (chosen, notes) == (list(range(8)), ["slower than 25 frames/s: all frames kept"])
    chosen, _, notes = choose([0, 40, 80, 120, 1000, 1040, 1080], Reading(fps="12.5"))
    assert (chosen, notes) == ([0, 2, 3, 4, 5], ["slower than 12.5 frames/s in places"])
    assert choose([40 * k for k in range(50)], Reading(fps=25))[2] == []
    assert choose([round(Fraction(k * 1000, 24)) for k in range(50)], Reading(fps=24))[2] == [], "rounded stamps are no slow video"


def test_frames_without_usable_time_stamps_are_counted_by_the_frame_rate() -> None:
    chosen, times, notes = choose([None] * 11, Reading(fps=10))
    assert (chosen, times) == ([0, 2, 5, 7, 10], [Fraction(k, 25) for k in (0, 2, 5, 7, 10)])
    assert notes == ["11 frames without a usable time stamp, counted by the frame rate"]
    joined = [0, 40, 80, 120, 0, 40, 80, 120]  # two files joined: the clock starts again
    assert choose(joined, Reading())[1] == [Fraction(k, 25) for k in range(8)]
    assert choose(joined, Reading(fps="12.5"))[0] == [0, 2, 4, 6]
    assert choose([0, None, 80, 80], Reading())[1] == [0, Fraction(1, 25), Fraction(2, 25), Fraction(3, 25)]
    assert choose([0, 1 << 62, 80, 120], Reading(fps=25))[0] == [0, 1, 2, 3], "an absurd stamp takes no time"


def test_without_time_stamps_and_frame_rate_frames_are_chosen_by_number_only() -> None:
    assert choose([None] * 5, Reading(every=2), rate=0)[:2] == ([0, 2, 4], [None] * 3)
    with pytest.raises(NoTimesError, match="neither usable time stamps nor a frame rate"):
        choose([None] * 5, Reading(fps=2), rate=0)


def test_how_frames_are_read_comes_back_from_what_is_stored() -> None:
    for reading in (
        Reading(),
        Reading(every=3),
        Reading(fps="29.97"),
        Reading(fps="30000/1001"),
        Reading(fps=12.5),
        Reading(fps=Fraction(1, 3)),
    ):
        assert Reading.from_dict(reading.to_dict()) == reading
    assert Reading(fps="12.5") == Reading(fps=12.5) == Reading(fps=Fraction(25, 2)) == Reading(fps="25/2")
    assert Reading(fps="0.1").rate == Fraction(1, 10), "a decimal is exact"
    assert Reading(fps="30000/1001").in_words() == "frames at 30000/1001 frames/s"
    assert [Reading(every=n).in_words() for n in (1, 2, 3, 4, 11, 22)] == [
        "",
        *(f"every {n} frame" for n in ("2nd", "3rd", "4th", "11th", "22nd")),
    ]


@pytest.mark.parametrize("fps", ["", "0", "-1", "1001", "1/0", "nan", "inf", "a", True, [], "1" * 60, "1/99999999", float("nan"), "12,5"])
def test_rates_that_are_none_are_refused(fps: object) -> None:
    with pytest.raises(ParameterError, match="fps must be"):
        Reading(fps=fps)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"every": 0}, {"every": True}, {"every": 1.5}, {"every": 2, "fps": 3}])
def test_other_impossible_choices_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ParameterError):
        Reading(**wrong)  # type: ignore[arg-type]
    for foreign in (None, [], {"fps": 12.5}, {"other": 1}):
        with pytest.raises(ParameterError):
            Reading.from_dict(foreign)


def test_the_number_of_chosen_frames_is_forecast() -> None:
    assert Reading(every=3).num_chosen(10, Fraction(0)) == 4
    assert Reading(fps=10).num_chosen(25, Fraction(25)) == 10
    assert Reading(fps=10).num_chosen(25, Fraction(0)) == Reading(fps=10).num_chosen(25, Fraction(5)) == 25
    assert Reading(fps=10).rate_of_chosen(Fraction(25)) == 10
    assert Reading(fps=10).rate_of_chosen(Fraction(5)) == 5
    assert Reading(every=2).rate_of_chosen(Fraction(25)) == Fraction(25, 2)
