"""The videos that official lists name, compared with a folder: what is missing, and what to do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from command_lines import run_flowkit

from flowkit.dataset.lists.entries import ListEntry, SplitLists
from flowkit.dataset.lists.list_check import CheckedLists
from flowkit.dataset.lists.video_check import check_videos

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("Archery/v_Archery_g01_c01", "Archery/v_Archery_g02_c01", "Biking/v_Biking_g01_c01", "Biking/v_Biking_g02_c01")


@pytest.fixture
def checked(tmp_path: Path) -> CheckedLists:
    """Lists of two splits that name four videos of two classes."""
    train, test = (tuple(ListEntry(name, name.partition("/")[0]) for name in NAMES[k::2]) for k in (0, 1))
    lists = tuple(SplitLists("ucf101", ("Archery", "Biking"), *halves) for halves in ((train, test), (test, train)))
    return CheckedLists("ucf101", tmp_path / "lists", 2, (), (), lists)


def put(folder: Path, *names: str, content: str = "video") -> Path:
    for name in names:
        path = folder / f"{name}.avi"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def test_all_videos_are_there_whatever_the_case_and_the_suffix(checked: CheckedLists, tmp_path: Path) -> None:
    folder = put(tmp_path / "videos", *NAMES[:3], "Biking/V_Biking_g02_c01")
    (folder / f"{NAMES[0]}.avi").rename(folder / f"{NAMES[0]}.MP4")
    found = check_videos(checked, folder)
    assert (found.num_listed, found.num_found, found.problems, found.notes) == (4, 4, (), ())


def test_missing_videos_and_classes_are_named(checked: CheckedLists, tmp_path: Path) -> None:
    found = check_videos(checked, put(tmp_path / "videos", NAMES[0], "Archery/holiday"))
    assert found.missing == tuple(sorted(NAMES[1:]))
    assert found.missing_classes == ("Biking",)
    assert any("no video of 1 class: Biking" in text for text in found.problems)
    assert any("1 video of 1 class is missing (Archery/v_Archery_g02_c01)" in text for text in found.problems)
    assert any("1 video that no list names: Archery/holiday" in text for text in found.notes)


def test_the_folder_above_is_recognised(checked: CheckedLists, tmp_path: Path) -> None:
    put(tmp_path / "videos" / "UCF-101", *NAMES)
    found = check_videos(checked, tmp_path / "videos")
    assert (found.num_found, found.problems) == (4, ())
    assert f"{str(tmp_path / 'videos' / 'UCF-101')!r} is probably the folder to extract" in found.notes[0]


def test_archives_of_classes_are_to_be_unpacked(checked: CheckedLists, tmp_path: Path) -> None:
    """HMDB51's archive holds one archive per class."""
    folder = put(tmp_path / "videos", *NAMES[:2])
    (folder / "Biking.rar").touch()
    (text, *_) = check_videos(checked, folder).problems
    assert "1 archive of a class has not been unpacked (Biking.rar): `for part in " in text
    assert text.endswith(f'`for part in {folder}/*.rar; do unrar x "$part" {folder}/; done`')


def test_archives_of_classes_of_another_kind_or_place_come_with_a_command_that_fits(checked: CheckedLists, tmp_path: Path) -> None:
    folder = put(tmp_path / "my videos", *NAMES[:2])
    (tmp_path / "Biking.zip").touch()
    (text, *_) = check_videos(checked, folder).problems
    assert text.endswith(f"`for part in {tmp_path}/*.zip; do unzip \"$part\" -d '{folder}/'; done`")


def test_the_archive_of_all_videos_is_to_be_unpacked(checked: CheckedLists, tmp_path: Path) -> None:
    (tmp_path / "UCF101.rar").touch()
    (tmp_path / "videos").mkdir()
    assert "UCF101.rar' has not been unpacked: `unrar x" in check_videos(checked, tmp_path / "videos").problems[0]


def test_a_folder_of_other_videos_holds_none(checked: CheckedLists, tmp_path: Path) -> None:
    assert "holds no video of UCF101" in check_videos(checked, put(tmp_path / "videos", "Run/a")).problems[0]


def test_empty_files_are_named(checked: CheckedLists, tmp_path: Path) -> None:
    folder = put(tmp_path / "videos", *NAMES[1:])
    put(folder, NAMES[0], content="")
    assert check_videos(checked, folder).empty == (NAMES[0],)


def test_the_command_ends_with_3_if_only_videos_are_missing(shared_data: Path) -> None:
    lists, videos = shared_data / "splits" / "ucf101", shared_data / "videos" / "ucf101"
    ended = run_flowkit("lists", "ucf101", lists, "--videos", videos)
    assert ended.code == 3
    assert "18 of 13,320 videos that the lists name" in ended.out
    record = json.loads(run_flowkit("lists", "ucf101", lists, "--videos", videos, "--json").out)
    assert len(record["videos"]["missing"]) == 13_302
