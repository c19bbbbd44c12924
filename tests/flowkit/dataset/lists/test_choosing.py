"""Where a split comes from when folders are called train, val and test, and when lists match too little."""

from __future__ import annotations

from pathlib import Path

import pytest
from shard_files import SETTINGS, write_clip

from flowkit import Dataset, ManifestError, Split, pack, verify
from flowkit.dataset.lists.automatic import automatic_split
from flowkit.dataset.lists.choosing import ChosenLists, choose_lists
from flowkit.dataset.packing import PackReport
from flowkit.dataset.paths import clip_path
from flowkit.dataset.root import open_root
from flowkit.video.folders import read_layout

pytestmark = pytest.mark.usefixtures("kept_workers")

KINETICS = [f"{top}/{name}/{k}" for top in ("train", "val") for name in ("archery", "bowling") for k in range(2)]


def choose(tmp_path: Path, class_of: dict[str, str], given: str | Path | None = None) -> ChosenLists:
    root = tmp_path / "data"
    open_root(root, tmp_path / "set" / "videos", SETTINGS)
    return choose_lists(Dataset.open(root), 1, given, class_of)


def inner(*video_ids: str) -> dict[str, str]:
    return dict(read_layout(video_ids).class_of)


def outer(*video_ids: str) -> dict[str, str]:
    return {video_id: video_id.rpartition("/")[0] for video_id in video_ids}


def packed(tmp_path: Path, class_of: dict[str, str], **options: object) -> PackReport:
    root = tmp_path / "data"
    open_root(root, tmp_path / "videos", SETTINGS)
    for seed, (video_id, class_name) in enumerate(sorted(class_of.items())):
        write_clip(clip_path(root, video_id), video_id, seed=seed, class_name=class_name)
    return pack(root, **options)  # type: ignore[arg-type]


def test_folders_called_train_and_val_are_the_split_from_pack_to_verify(tmp_path: Path) -> None:
    report = packed(tmp_path, inner(*KINETICS))
    split = Dataset.open(tmp_path / "data").split(1)
    assert split.classes == ("archery", "bowling")
    assert [record.video_id for record in split.train] == KINETICS[:4]
    assert [record.video_id for record in split.test] == KINETICS[4:]
    assert {record.class_name for record in split} == {"archery", "bowling"}
    assert split.protocol == "folders (train for training, val for test)"
    assert (report.lists, report.notes) == (None, ())
    assert pack(tmp_path / "data").did_nothing
    assert verify(tmp_path / "data") == []


def test_val_is_unused_beside_test(tmp_path: Path) -> None:
    chosen = choose(tmp_path, inner("Train/a/1", "valid/a/2", "TEST/a/3", "validation/b/4"))
    assert chosen.lists.protocol == "folders (Train for training, valid and validation unused, TEST for test)"
    assert [entry.video_id for entry in chosen.matched.test] == ["TEST/a/3"]
    assert chosen.matched.unlisted == ("valid/a/2", "validation/b/4")
    assert chosen.lists.classes == ("a",)


@pytest.mark.parametrize("top", ["train", "test"])
def test_one_folder_alone_is_no_split_which_is_said(tmp_path: Path, top: str) -> None:
    chosen = choose(tmp_path, inner(*[f"{top}/a/{k}" for k in range(4)]))
    assert chosen.lists.protocol == "automatic"
    assert chosen.lists.classes == ("a",)
    (note,) = chosen.notes
    assert note.startswith(f"the folders give no split, since beside '{top}' there is nothing to")
    with pytest.raises(ManifestError, match="the folders of the videos give no split"):
        choose(tmp_path, inner(f"{top}/a/1"), "folders")


def test_automatic_and_lists_that_are_named_win_over_folders(tmp_path: Path) -> None:
    assert choose(tmp_path, inner(*KINETICS), "automatic").lists.protocol == "automatic"
    lists = tmp_path / "l.csv"
    lists.write_text("video_id,class_name,subset\ntrain/archery/0.avi,X,test\nval/archery/1,X,train\n")
    chosen = choose(tmp_path, inner(*KINETICS), lists)
    assert [entry.video_id for entry in chosen.matched.train] == ["val/archery/1"]
    assert chosen.lists.classes == ("X",)


def test_folders_win_over_lists_that_lie_around(tmp_path: Path) -> None:
    around = tmp_path / "set" / "lists"
    around.mkdir(parents=True)
    (around / "classInd.txt").write_text("1 archery\n")
    (around / "trainlist01.txt").write_text("archery/1.avi 1\n")
    (around / "testlist01.txt").write_text("archery/0.avi\n")
    assert choose(tmp_path, inner(*KINETICS)).lists.protocol.startswith("folders")


def test_the_classes_that_an_older_flowkit_stored_are_kept_until_folders_are_asked_for(tmp_path: Path) -> None:
    chosen = choose(tmp_path, outer(*KINETICS))
    assert chosen.lists.classes == ("train/archery", "train/bowling", "val/archery", "val/bowling")
    assert ["--lists folders" in note for note in chosen.notes] == [True]
    asked = choose(tmp_path, outer(*KINETICS), "folders")
    assert asked.lists.classes == ("archery", "bowling")
    assert len(asked.matched.train) == len(asked.matched.test) == 4
    assert asked.notes == ()


def test_the_split_of_the_folders_is_written_for_clips_of_an_older_flowkit_too(tmp_path: Path) -> None:
    packed(tmp_path, outer(*KINETICS), lists="folders")
    split: Split = Dataset.open(tmp_path / "data").split(1)
    assert split.classes == ("archery", "bowling")
    assert verify(tmp_path / "data") == []


def test_classes_of_both_kinds_are_never_mixed(tmp_path: Path) -> None:
    mixed = inner(*KINETICS) | outer(KINETICS[0])
    with pytest.raises(ManifestError, match=r"'archery', but 'train/archery/0' the class 'train/archery'.*--lists folders"):
        choose(tmp_path, mixed)
    assert choose(tmp_path, mixed, "folders").lists.classes == ("archery", "bowling")


def test_a_folder_that_came_later_does_not_merge_train_and_val_silently(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="'other' is beside them") as error:
        choose(tmp_path, inner(*KINETICS) | {"other/x/1": "other/x"})
    assert "--lists folders" not in str(error.value)


def csv(tmp_path: Path, *rows: str) -> Path:
    path = tmp_path / "l.csv"
    path.write_text("\n".join(["video_id,class_name,subset", *rows, ""]))
    return path


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (("x/1,x,train", "x/2,x,test"), "match no clip of"),
        (("archery/1,x,train", "x/2,x,test"), "match no clip for test.*'x/2'"),
        (("x/2,x,train", "archery/1,x,test"), "match no clip for training"),
        (("1,x,train", "archery/2,x,test"), "could be 'archery/1' or 'bowling/1'"),
        ((), "match no clip of"),
    ],
)
def test_a_list_that_matches_nothing_of_a_half_is_an_error(tmp_path: Path, rows: tuple[str, ...], told: str) -> None:
    with pytest.raises(ManifestError, match=told):
        choose(tmp_path, outer("archery/1", "archery/2", "bowling/1"), csv(tmp_path, *rows))


def test_official_lists_are_found_for_videos_in_one_folder(tmp_path: Path) -> None:
    around = tmp_path / "set" / "lists"
    around.mkdir(parents=True)
    (around / "classInd.txt").write_text("1 Run\n2 Jump\n")
    (around / "trainlist01.txt").write_text("Run/v_Run_g01_c01.avi 1\nJump/v_Jump_g01_c01.avi 2\n")
    (around / "testlist01.txt").write_text("Run/v_Run_g02_c01.avi\n")
    chosen = choose(tmp_path, {"v_Run_g01_c01": "", "v_Run_g02_c01": ""})
    assert chosen.path == around
    assert [(entry.video_id, entry.class_name) for entry in chosen.matched.train] == [("v_Run_g01_c01", "Run")]
    assert len(chosen.matched.by_end) == 2


# -- the automatic split and byte-identical files ----------------------------------------------------------------------------------


def halves(class_of: dict[str, str], file_of: dict[str, str], seed: int) -> list[set[str]]:
    lists = automatic_split(class_of, seed=seed, file_of=file_of)
    return [{entry.video_id for entry in half} for half in (lists.train, lists.test)]


@pytest.mark.parametrize("seed", range(8))
def test_byte_identical_videos_stay_on_one_side(seed: int) -> None:
    class_of = {f"{name}/{kind}{k}": name for name in "abc" for kind in ("v", "copy") for k in range(3)}
    file_of = {video_id: f"{video_id[0]}{video_id[-1]}" for video_id in class_of}
    train, test = halves(class_of, file_of, seed)
    assert not {file_of[video_id] for video_id in train} & {file_of[video_id] for video_id in test}
    assert {video_id[0] for video_id in test} == set("abc")


@pytest.mark.parametrize("seed", range(8))
def test_groups_that_share_a_file_stay_together_with_all_they_share_files_with(seed: int) -> None:
    class_of = {f"a/v_g{group:02d}_c{k}": "a" for group in range(1, 9) for k in range(3)}
    file_of = {video_id: video_id for video_id in class_of}
    file_of["a/v_g02_c0"] = file_of["a/v_g07_c1"]
    file_of["a/v_g07_c2"] = file_of["a/v_g05_c0"]
    train, test = halves(class_of, file_of, seed)
    chain = {video_id for video_id in class_of if video_id[4:7] in ("g02", "g05", "g07")}
    assert len(chain) == 9
    assert chain <= train or chain <= test
    for half in (train, test):
        assert all(len([other for other in half if other[4:7] == video_id[4:7]]) == 3 for video_id in half)


@pytest.mark.parametrize("seed", range(8))
def test_a_file_of_several_classes_is_on_one_side_and_every_class_keeps_both_sides(seed: int) -> None:
    class_of = {f"{name}/v{k}": name for name in "abcd" for k in range(6)} | {"e/only": "e"}
    file_of = {video_id: video_id for video_id in class_of}
    file_of |= {f"{name}/v{k}": f"file {k}" for name in "abc" for k in range(6)}  # three classes of the same six files
    file_of |= {"d/v2": "file 3", "d/v3": "file 1", "e/only": "file 0"}
    train, test = halves(class_of, file_of, seed)
    assert not {file_of[video_id] for video_id in train} & {file_of[video_id] for video_id in test}
    assert {video_id[0] for video_id in test} == set("abcd")
    assert {video_id[0] for video_id in train} == set("abcde")


@pytest.mark.parametrize("file_of", [{}, {"a/v1": "", "a/v2": ""}, None])
def test_without_identical_files_the_automatic_split_is_as_before(file_of: dict[str, str] | None) -> None:
    class_of = {f"{name}/v{k}": name for name in "ab" for k in range(7)} | {f"c/x_g{k // 2:02d}_{k}": "c" for k in range(8)}
    distinct = {video_id: f"file of {video_id}" for video_id in class_of}
    before = {"a/v2", "a/v4", "b/v1", "b/v5", "c/x_g03_6", "c/x_g03_7"}  # what commit 72d1ebb chose for test
    assert {entry.video_id for entry in automatic_split(class_of, file_of=file_of).test} == before
    assert {entry.video_id for entry in automatic_split(class_of, file_of=distinct).test} == before
