"""Names of lists and names of videos: flat lists, flat folders, suffixes, deeper folders; a match is never a guess."""

from __future__ import annotations

import pytest

from flowkit.dataset.lists.entries import ListEntry, SplitLists
from flowkit.dataset.lists.matching import Matched, match_lists
from flowkit.errors import ManifestError


def matched(names: list[str], video_ids: list[str], *, class_name: str = "c") -> Matched:
    entries = tuple(ListEntry(name, class_name) for name in names)
    return match_lists(SplitLists("csv", (class_name,), entries, ()), video_ids)


@pytest.mark.parametrize(
    ("name", "video_id"),
    [
        *(("A/v.avi", "A/v"), ("A/v.MP4", "a/V"), ("v", "A/v"), ("v.avi", "A/v"), ("A/v", "v"), ("data/A/v", "A/v"), ("A/v", "train/A/v")),
        *(("caf\u00e9/v.webm", "x/cafe\u0301/v"), ("A/v.1", "A/v.1"), ("v.1.mkv", "A/v.1"), ("a.mp4", "a.mp4")),
    ],
)
def test_a_name_matches_with_a_suffix_or_with_other_folders_before_it(name: str, video_id: str) -> None:
    found = matched([name], [video_id, "other/x"])
    assert found.train == (ListEntry(video_id, "c"),)
    assert found.unlisted == ("other/x",)
    assert found.missing_train == ()


@pytest.mark.parametrize(
    ("name", "video_id"), [("A/v", "B/v"), ("v", "A/xv"), ("A/v.x264", "A/v"), ("v/A", "A/v"), ("v.avi", "A/v.avi.bak")]
)
def test_other_names_do_not_match(name: str, video_id: str) -> None:
    assert matched([name], [video_id]).train == ()


def test_matches_by_the_end_of_a_name_are_reported_and_others_are_not() -> None:
    found = matched(["A/1", "2.avi", "B/3.avi"], ["A/1", "A/2", "B/3"])
    assert len(found.train) == 3
    assert found.by_end == (("2.avi", "A/2"),)


def test_an_end_that_fits_two_videos_matches_neither_and_names_both() -> None:
    found = matched(["1"], ["A/1", "B/1"])
    assert found.train == ()
    assert found.reasons == {"1": "could be 'A/1' or 'B/1'"}


def test_an_end_that_fits_two_videos_matches_the_one_in_the_folder_of_its_class() -> None:
    assert matched(["1"], ["A/1", "train/b/1"], class_name="B").train == (ListEntry("train/b/1", "B"),)


def test_two_names_whose_ends_fit_one_video_match_neither() -> None:
    found = matched(["A/1", "B/1"], ["1"])
    assert found.train == ()
    assert set(found.reasons) == {"A/1", "B/1"}
    assert "'A/1'" in found.reasons["B/1"]


def test_an_exact_name_comes_before_an_end() -> None:
    found = matched(["A/1", "1"], ["A/1", "B/1"])
    assert [entry.video_id for entry in found.train] == ["A/1", "B/1"]
    assert found.by_end == (("1", "B/1"),)


def test_rows_that_name_one_video_with_and_without_a_suffix_are_an_error() -> None:
    with pytest.raises(ManifestError, match=r"'A/1\.avi' and 'A/1\.mp4'"):
        matched(["A/1.avi", "A/1.mp4"], ["A/1"])
    with pytest.raises(ManifestError, match=r"'A/1' and 'A/1\.avi' .* remove one row"):
        matched(["A/1.avi", "A/1"], ["A/1", "A/2"])


def test_a_row_whose_end_fits_a_video_that_another_row_names_is_explained() -> None:
    """It is not called missing: the file is there, and a user would look for it."""
    found = matched(["A/1", "1.avi", "A/2", "B/3"], ["A/1", "A/2"])
    assert [entry.video_id for entry in found.train] == ["A/1", "A/2"]
    assert found.reasons == {"1.avi": "fits 'A/1', which the row 'A/1' names already; remove one of the rows"}


def test_other_names_of_a_file_are_tried_after_the_first() -> None:
    entries = (ListEntry("x_000001_000011", "run", also=("x",)), ListEntry("y_000001_000011", "run", also=("y",)))
    found = match_lists(SplitLists("kinetics", ("run",), entries, ()), ["run/x", "run/y_000001_000011", "run/y"])
    assert [entry.video_id for entry in found.train] == ["run/x", "run/y_000001_000011"]


def test_two_clips_of_one_video_do_not_both_match_a_file_that_could_be_either() -> None:
    entries = tuple(ListEntry(f"x_{k}", "run", also=("x",)) for k in range(2))
    found = match_lists(SplitLists("kinetics", ("run",), entries, ()), ["run/x"])
    assert found.train == ()
    assert len(found.reasons) == 2
