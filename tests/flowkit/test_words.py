"""How counts, times, sizes and names are written for people."""

from __future__ import annotations

import pytest

from flowkit.words import counted, duration, printable, printable_name, size


def test_names_cannot_control_the_terminal() -> None:
    assert printable("a\x1b[2Jb\nc\udc80é") == "a\\x1b[2Jb\nc\\udc80é"
    assert printable_name("a\nb") == "a\\nb"


def test_durations_are_written_as_people_write_them() -> None:
    assert [duration(seconds) for seconds in (0.25, 8, 59.6, 200, 7500)] == ["0.2 s", "8.0 s", "1 min 00 s", "3 min 20 s", "2 h 05 min"]


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (0, "video", "0 videos"),
        (1, "class", "1 class"),
        (2, "class", "2 classes"),
        (1, "flow field", "1 flow field"),
        (9537, "step", "9,537 steps"),
    ],
)
def test_a_noun_agrees_with_its_number(number: int, noun: str, text: str) -> None:
    assert counted(number, noun) == text


def test_sizes_have_a_unit_that_people_read() -> None:
    assert [size(number) for number in (0, 999, 17_500, 1_230_000_000, 3e12)] == ["0 B", "999 B", "17.5 kB", "1.2 GB", "3.0 TB"]
