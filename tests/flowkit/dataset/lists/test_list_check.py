"""Copies of the official lists: complete ones, and whatever may be wrong with one, said in a way that helps."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
from command_lines import run_flowkit

from flowkit.dataset.lists.list_check import CheckedLists, check_lists

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def copy_of(shared_data: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that copies the official lists into a folder of the test."""

    def copied(data_set: str) -> Path:
        return shutil.copytree(shared_data / "splits" / data_set, tmp_path / "lists")

    return copied


def kinds(checked: CheckedLists) -> list[str]:
    return [problem.kind for problem in checked.problems]


@pytest.mark.parametrize(
    ("data_set", "folder", "num_classes"), [("ucf101", "ucf101", 101), ("ucf101", "ucf101_crlf_original", 101), ("hmdb51", "hmdb51", 51)]
)
def test_official_lists_are_complete(shared_data: Path, data_set: str, folder: str, num_classes: int) -> None:
    checked = check_lists(data_set, shared_data / "splits" / folder)  # type: ignore[arg-type]
    assert checked.problems == ()
    assert checked.num_classes == num_classes
    assert all((split.num_train, split.num_test) == (split.official_train, split.official_test) for split in checked.splits)


def edit(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")


UCF101_FAULTS = {
    "a list that is gone": (lambda f: (f / "testlist02.txt").unlink(), ["missing"], "lacks 'testlist02.txt'"),
    "no classInd.txt": (lambda f: (f / "classInd.txt").unlink(), ["missing"], "lacks 'classInd.txt'"),
    "another case": (lambda f: (f / "trainlist01.txt").rename(f / "TrainList01.txt"), ["missing"], "rename it"),
    "a list that ends early": (
        lambda f: edit(f / "trainlist01.txt", lambda lines: lines[:9000]),
        ["number"],
        "9,000 videos, and the official list 9,537",
    ),
    "a line that ends early": (
        lambda f: edit(f / "trainlist03.txt", lambda lines: [*lines[:16], lines[16][:12], *lines[17:]]),
        ["damaged", "number"],
        "trainlist03.txt, line 17: expected",
    ),
    "a line of an unknown class": (
        lambda f: edit(f / "testlist01.txt", lambda lines: ["Juggling/v_J_g01_c01.avi", *lines[1:]]),
        ["damaged", "number"],
        "is in no class of classInd.txt",
    ),
    "a wrong class number": (
        lambda f: edit(f / "trainlist01.txt", lambda lines: [lines[0][:-1] + "7", *lines[1:]]),
        ["damaged", "number"],
        "is numbered 7, but classInd.txt gives 1",
    ),
    "a class that is not there": (lambda f: edit(f / "classInd.txt", lambda lines: lines[:-1]), None, "lacks 1 class: YoYo"),
    "a class of another name": (
        lambda f: edit(f / "classInd.txt", lambda lines: [*lines[:-1], "101 Yodel"]),
        None,
        "has 1 class that the data set does not have: Yodel",
    ),
    "another order of classes": (
        lambda f: edit(f / "classInd.txt", lambda lines: ["1 ApplyLipstick", "2 ApplyEyeMakeup", *lines[2:]]),
        None,
        "another order",
    ),
    "a web page": (
        lambda f: (f / "testlist03.txt").write_text("<!DOCTYPE html><html>404</html>"),
        ["damaged"],
        "is a web page and no list",
    ),
    "a pointer of Git LFS": (
        lambda f: (f / "testlist03.txt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        ["damaged"],
        "Git LFS",
    ),
    "an empty file": (lambda f: (f / "testlist03.txt").write_text(""), ["damaged"], "is empty"),
    "bytes that are no text": (lambda f: (f / "testlist03.txt").write_bytes(b"\xff\xfe\x00"), ["damaged"], "not UTF-8"),
    "a video in both halves": (
        lambda f: edit(f / "testlist01.txt", lambda lines: ["ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi", *lines[1:]]),
        ["twice"],
        "names 1 video twice: applyeyemakeup/v_applyeyemakeup_g08_c01",
    ),
    "another video": (
        lambda f: edit(f / "testlist01.txt", lambda lines: ["ApplyEyeMakeup/v_ApplyEyeMakeup_g99_c01.avi", *lines[1:]]),
        ["names"],
        "split 1 names other videos than the official lists of UCF101",
    ),
}


HMDB51_FAULTS = {
    "a class of one split": (lambda f: (f / "wave_test_split2.txt").unlink(), ["missing"], "lacks 1 list: wave_test_split2.txt"),
    "a whole split": (
        lambda f: [path.unlink() for path in f.glob("*_split3.txt")],
        ["missing"],
        "no list of split 3 (<class>_test_split3.txt): unpack test_train_splits.rar again",
    ),
    "a code that is none": (
        lambda f: edit(f / "wave_test_split1.txt", lambda lines: [lines[0].rstrip()[:-1] + "7 ", *lines[1:]]),
        None,
        "wave_test_split1.txt, line 1: expected '<video> 0', 1 or 2",
    ),
    "a list that ends early": (
        lambda f: edit(f / "wave_test_split1.txt", lambda lines: lines[:5]),
        ["number"],
        "and the official list 70 training and 30 test",
    ),
    "a class that is none": (
        lambda f: (f / "yodel_test_split1.txt").write_text("a_yodel_b.avi 1\n"),
        ["classes"],
        "has 1 class that the data set does not have: yodel_test_split1.txt",
    ),
}
FAULTS = {"ucf101": UCF101_FAULTS, "hmdb51": HMDB51_FAULTS}


@pytest.mark.slow
@pytest.mark.parametrize(("data_set", "fault"), [(data_set, fault) for data_set, faults in FAULTS.items() for fault in faults])
def test_a_fault_of_the_lists_is_found(copy_of: Callable[[str], Path], data_set: str, fault: str) -> None:
    folder = copy_of(data_set)
    damage, expected, text = FAULTS[data_set][fault]
    damage(folder)  # type: ignore[no-untyped-call]
    checked = check_lists(data_set, folder)  # type: ignore[arg-type]
    assert any(text in problem.text for problem in checked.problems), checked.problems
    assert expected is None or kinds(checked) == expected


def test_damaged_lines_are_named_up_to_a_number(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("ucf101")
    edit(folder / "trainlist01.txt", lambda lines: [line.rpartition(" ")[0] for line in lines])
    texts = [problem.text for problem in check_lists("ucf101", folder).problems]
    assert sum("expected '<class>/<video> <class number>'" in text for text in texts) == 5
    assert any("9,532 more lines like these" in text for text in texts)


@pytest.mark.parametrize("place", ["above", "far above", "below", "beside"])
def test_the_folder_that_was_meant_is_found_and_checked(shared_data: Path, tmp_path: Path, place: str) -> None:
    lists = tmp_path / "data" / "ucfTrainTestlist"
    shutil.copytree(shared_data / "splits" / "ucf101", lists)
    (lists / "videos").mkdir()
    (tmp_path / "data" / "UCF-101").mkdir()
    given = {"above": lists.parent, "far above": tmp_path, "below": lists / "videos", "beside": tmp_path / "data" / "UCF-101"}[place]
    checked = check_lists("ucf101", given)
    assert kinds(checked) == ["folder"]
    assert f"use {str(lists)!r}" in checked.problems[0].text
    assert checked.folder == lists
    assert [split.num_train for split in checked.splits] == [9537, 9586, 9624]


def test_what_macos_puts_into_an_archive_holds_no_lists(tmp_path: Path) -> None:
    hidden = tmp_path / "downloads" / "__MACOSX"
    hidden.mkdir(parents=True)
    (hidden / "._wave_test_split1.txt").touch()
    assert kinds(check_lists("hmdb51", tmp_path / "downloads")) == ["missing"]
    assert "holds no list of HMDB51" in check_lists("hmdb51", tmp_path / "downloads").problems[0].text


def test_archives_that_were_not_unpacked_come_with_the_command(tmp_path: Path) -> None:
    folder = tmp_path / "downloads"  # beside which no other test has put lists
    folder.mkdir()
    (folder / "UCF101TrainTestSplits-RecognitionTask.zip").touch()
    (folder / "UCF101.rar").touch()
    (problem,) = check_lists("ucf101", folder).problems
    assert f"`unzip {folder}/UCF101TrainTestSplits-RecognitionTask.zip -d {folder}/`" in problem.text
    rar = folder / "test_train_splits.rar"
    rar.touch()
    assert f"`unrar x {rar} {folder}/`" in check_lists("hmdb51", rar).problems[0].text


def test_the_lists_of_the_other_data_set_are_recognised(shared_data: Path) -> None:
    for given, other in (("ucf101", "hmdb51"), ("hmdb51", "ucf101")):
        (problem,) = check_lists(given, shared_data / "splits" / other).problems  # type: ignore[arg-type]
        assert f"`flowkit lists {other} " in problem.text


def test_a_folder_without_lists_says_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "the lists are in test_train_splits.rar" in check_lists("hmdb51", tmp_path / "empty").problems[0].text
    (tmp_path / "notes.txt").touch()
    assert "is a file" in check_lists("ucf101", tmp_path / "notes.txt").problems[0].text


def test_the_command_says_the_same_with_exit_codes(copy_of: Callable[[str], Path], tmp_path: Path) -> None:
    folder = copy_of("ucf101")
    good = run_flowkit("lists", "ucf101", folder)
    assert (good.code, good.err) == (0, "")
    assert f"lists: UCF101 in {folder}: complete, 101 classes and 3 splits" in good.out
    (folder / "testlist02.txt").unlink()
    bad = run_flowkit("lists", "UCF101", folder)
    assert bad.code == 1
    assert "lacks 'testlist02.txt'" in bad.err
    record = json.loads(run_flowkit("lists", "ucf101", folder, "--json").out)
    assert (record["format"], record["complete"], record["problems"][0]["kind"]) == ("flowkit-lists", False, "missing")
    assert run_flowkit("lists", "ucf102", folder).code == 2
    assert run_flowkit("lists", "ucf101", tmp_path / "nothing").code == 2
