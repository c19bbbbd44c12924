"""Pack says what is wrong with a split, and exits with 1 if nothing can be learnt from it or tested with it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from command_lines import call_flowkit
from shard_files import SETTINGS, make_root, write_clip

from flowkit import Dataset, pack
from flowkit.dataset.paths import clip_path
from flowkit.dataset.root import open_root

run = partial(call_flowkit, "pack")


def names(counts: dict[str, int]) -> dict[str, int]:
    return {f"{name}/v{k}": 12 for name, count in counts.items() for k in range(count)}


def csv(folder: Path, *, train: str = "", test: str = "") -> Path:
    """Write lists of videos such as ``a0 b1``: the class and the number."""
    rows = [f"{v[0]}/v{v[1:]},{v[0]},{half}\n" for half, videos in (("train", train), ("test", test)) for v in videos.split()]
    path = folder / "lists.csv"
    path.write_text("video_id,class_name,subset\n" + "".join(rows))
    return path


def test_a_good_split_has_no_faults(tmp_path: Path) -> None:
    root = make_root(tmp_path, names({"a": 4, "b": 4}))
    err = run("--data", root, code=0).err
    assert "warning" not in err
    assert "of no use" not in err


def test_one_class_only_is_an_error_that_says_where_classes_come_from(tmp_path: Path) -> None:
    root = make_root(tmp_path, names({"videos": 6}))
    err = run("--data", root, code=1).err
    assert "split 1 is of no use: 'videos' is the only class" in err
    assert "folder below the folder that you extract" in err
    assert len(Dataset.open(root).split(1)) == 6  # written nevertheless
    assert "of no use" in run("--data", root, code=1).err  # not only the first time


def test_classes_of_one_video_leave_nothing_to_test(tmp_path: Path) -> None:
    root = make_root(tmp_path, names(dict.fromkeys("abcdefgh", 1)))
    err = run("--data", root, code=1).err
    assert "no test video, so nothing can be tested: no class has two videos" in err
    assert "classes without a test video" not in err  # one line says it for all


def test_classes_of_copies_of_one_video_leave_nothing_to_test(tmp_path: Path) -> None:
    root = tmp_path / "data"
    open_root(root, tmp_path / "videos", SETTINGS)
    for seed, video_id in enumerate(names({"a": 3, "b": 3})):
        write_clip(clip_path(root, video_id), video_id, seed=seed, source_sha256=("a1" if video_id[0] == "a" else "b2") * 32)
    assert "byte-identical files count as one video" in run("--data", root, code=1).err


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ("a0 b0", "", "no test video, so nothing can be tested: the lists name none"),
        ("", "a0 b0", "no training video, so nothing can be learnt: the lists name none"),
        ("a0 a1", "a2", "'a' is the only class, so"),
        ("a0 a1", "a2 b0", "'a' is the only class with a training video, so"),
        ("a0 b0", "c0 c1", "no class has both a training and a test video"),
    ],
)
def test_lists_from_which_nothing_can_be_learnt_or_tested_are_an_error(tmp_path: Path, train: str, test: str, message: str) -> None:
    root = make_root(tmp_path, names({"a": 3, "b": 3, "c": 3}))
    err = run("--data", root, "--lists", csv(tmp_path, train=train, test=test), code=1).err
    assert message in err
    assert len(Dataset.open(root).split(1)) == len(f"{train} {test}".split())


def test_official_lists_whose_test_videos_are_all_too_short_are_an_error(tmp_path: Path) -> None:
    root = make_root(tmp_path, {"a/v0": 12, "b/v0": 12, "a/v1": 6, "b/v1": 6})
    folder = tmp_path / "ucfTrainTestlist"
    folder.mkdir()
    (folder / "classInd.txt").write_text("1 a\n2 b\n")
    (folder / "trainlist01.txt").write_text("a/v0.avi 1\nb/v0.avi 2\n")
    (folder / "testlist01.txt").write_text("a/v1.avi\nb/v1.avi\n")
    assert "no test video, so nothing can be tested: all that are listed are missing or too short" in run("--data", root, code=1).err


def test_classes_without_a_test_video_are_named(tmp_path: Path) -> None:
    root = make_root(tmp_path, names({"a": 4, "b": 1, "c": 4, "d": 1}))
    err = run("--data", root, code=0).err
    assert "warning: classes without a test video: 2 (b, d)" in err


def test_a_test_of_one_class_is_a_warning(tmp_path: Path) -> None:
    root = make_root(tmp_path, names({"a": 3, "b": 3}))
    err = run("--data", root, "--lists", csv(tmp_path, train="a0 b0", test="a1 a2"), code=0).err
    assert "warning: all test videos have the class 'a'" in err
    assert "warning: classes without a test video: 1 (b)" in err


def test_classes_that_lists_name_and_no_video_has_are_no_fault(tmp_path: Path) -> None:
    root = make_root(tmp_path, {"a/v0": 12, "a/v1": 12, "b/v0": 12, "b/v1": 12, "c/v0": 6})
    report = pack(root, lists=csv(tmp_path, train="a0 b0 c0", test="a1 b1"))
    assert report.faults.untested_classes == ()
    assert report.split.classes == ("a", "b", "c")


def test_lists_with_the_same_file_in_both_halves_are_named(tmp_path: Path) -> None:
    root = tmp_path / "data"
    open_root(root, tmp_path / "videos", SETTINGS)
    for seed, video_id in enumerate(names({"a": 3, "b": 3})):
        own = {"source_sha256": "ab" * 32} if video_id in ("a/v0", "a/v2", "b/v2") else {}
        write_clip(clip_path(root, video_id), video_id, seed=seed, **own)
    err = run("--data", root, "--lists", csv(tmp_path, train="a0 a1 b0", test="a2 b1 b2"), code=0).err
    assert "warning: byte-identical videos for training and for test: 1 (a/v0 is a/v2, b/v2)" in err
    assert "warning: byte-identical videos of several classes: 1 (a/v0 is a/v2 is b/v2)" in err
    assert pack(root, lists="automatic").faults.shared_files == ()
