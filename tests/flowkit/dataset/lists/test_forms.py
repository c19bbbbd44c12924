"""Split lists in the forms in which other projects publish them: tables, annotation files, JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flowkit.dataset.lists import entries
from flowkit.dataset.lists.entries import ListEntry, SplitLists
from flowkit.dataset.lists.reading import read_lists
from flowkit.errors import ManifestError


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("utf-8"))
    return path


def names(lists: SplitLists) -> tuple[list[str], list[str]]:
    return [entry.video_id for entry in lists.train], [entry.video_id for entry in lists.test]


# -- UCF101's lists as people change them ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["./A/v.avi", "A\\v.avi", "UCF-101/A/v.avi", "data/UCF-101/a/v.mp4", "v.avi"])
def test_official_lists_may_begin_with_a_dot_lie_deeper_or_name_files_alone(tmp_path: Path, name: str) -> None:
    write(tmp_path / "classInd.txt", "1 A\n2 B\n")
    write(tmp_path / "trainlist01.txt", f"{name} 1\n")
    write(tmp_path / "testlist01.txt", "B/w.avi\n")
    (entry,) = read_lists(tmp_path, 1).train
    assert entry.class_name == "A"
    assert entry.video_id.rpartition("/")[2] == "v"
    assert "\\" not in entry.video_id
    assert not entry.video_id.startswith(".")


# -- tables ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_fields_are_separated_by_commas_semicolons_or_tabs(tmp_path: Path, separator: str, end: str) -> None:
    rows = [("video_id", "class_name", "subset"), ("A/1", "A", "train"), ("A/2.avi", "A", "test")]
    path = write(tmp_path / "x.csv", "\ufeff" + end.join(separator.join(row) for row in rows) + end)
    assert names(read_lists(path, 1)) == (["A/1"], ["A/2.avi"])


@pytest.mark.parametrize(
    ("train", "test", "protocol"),
    [
        *(("Train", "Test", "csv"), ("training", "testing", "csv"), (" TRAIN ", "validation", "csv (val for test)")),
        *(("train", "val", "csv (val for test)"), ("train", "valid", "csv (val for test)"), ("train", "validate", "csv (val for test)")),
    ],
)
def test_subsets_have_the_names_that_are_in_use(tmp_path: Path, train: str, test: str, protocol: str) -> None:
    split = read_lists(write(tmp_path / "x.csv", f"video_id,class_name,subset\na,c,{train}\nb,c,{test}\n"), 1)
    assert names(split) == (["a"], ["b"])
    assert split.protocol == protocol


def test_a_validation_subset_beside_a_test_subset_is_left_out(tmp_path: Path) -> None:
    split = read_lists(write(tmp_path / "x.csv", "video_id,class_name,subset\na,c,train\nb,d,val\nc,c,test\n"), 1)
    assert names(split) == (["a"], ["c"])
    assert split.unused == (ListEntry("b", "d"),)
    assert (split.classes, split.protocol) == (("c",), "csv (val unused)")


def test_the_table_of_kinetics_names_files_as_its_downloaders_do(tmp_path: Path) -> None:
    header = "label,youtube_id,time_start,time_end,split\n"
    split = read_lists(write(tmp_path / "k.csv", f'{header}"pass, catch",-J1,3,13,train\nbowling,__b,10,20.0,val\n'), 1)
    assert split.train == (ListEntry("-J1_000003_000013", "pass, catch", also=("-J1",)),)
    assert split.test == (ListEntry("__b_000010_000020", "bowling", also=("__b",)),)
    assert split.protocol == "kinetics (val for test)"


def test_the_tables_of_kinetics_may_be_one_file_for_each_subset(tmp_path: Path) -> None:
    header = "label,youtube_id,time_start,time_end,split\n"
    for name, subset in (("train", "train"), ("validate", "validate")):
        write(tmp_path / "k" / f"{name}.csv", f"{header}bowling,{name},0,10,{subset}\n")
    assert names(read_lists(tmp_path / "k", 1)) == (["train_000000_000010"], ["validate_000000_000010"])


@pytest.mark.parametrize("row", ["bowling,b,x,20,train", ",b,10,20,train", "bowling,b,10,20,", "bowling,../b,10,20,train", "bowling,b"])
def test_rows_of_kinetics_that_cannot_be_are_refused_with_their_place(tmp_path: Path, row: str) -> None:
    path = write(tmp_path / "k.csv", f"label,youtube_id,time_start,time_end,split\nrun,a,0,10,train\n{row}\n")
    with pytest.raises(ManifestError, match="line 3"):
        read_lists(path, 1)


def test_the_test_table_of_kinetics_which_has_no_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="missing: label"):
        read_lists(write(tmp_path / "test.csv", "youtube_id,time_start,time_end,split\na,0,10,test\n"), 1)


# -- annotation files with numbered labels -----------------------------------------------------------------------------------------


def test_annotation_files_of_videos_and_of_raw_frames_are_read(tmp_path: Path) -> None:
    write(tmp_path / "videos" / "ucf101_train_split_1_videos.txt", "Run/a b.avi 1\nJump/c 3.avi 0\n")
    write(tmp_path / "videos" / "ucf101_val_split_1_videos.txt", "Jump/d.avi 0\n")
    write(tmp_path / "frames" / "train_rawframes.txt", "Run/a 120 1\nJump/c 30 0\n")
    write(tmp_path / "frames" / "val_rawframes.txt", "Jump/d 25 0\n")
    videos, frames = (read_lists(tmp_path / kind, 1) for kind in ("videos", "frames"))
    assert names(videos) == (["Run/a b.avi", "Jump/c 3.avi"], ["Jump/d.avi"])
    assert names(frames) == (["Run/a", "Jump/c"], ["Jump/d"])
    for split in (videos, frames):
        assert split.classes == ("Jump", "Run")
        assert [entry.class_name for entry in split.train] == ["Run", "Jump"]
        assert split.protocol == "mmaction2 (val for test)"


def test_one_of_two_annotation_files_finds_its_counterpart(tmp_path: Path) -> None:
    train = write(tmp_path / "k_train_list_videos.txt", "r/a.mp4 0\n")
    write(tmp_path / "k_val_list_videos.txt", "r/b.mp4 0\n")
    write(tmp_path / "other_train_list.txt", "r/c.mp4 0\n")
    assert names(read_lists(train, 1)) == (["r/a.mp4"], ["r/b.mp4"])
    with pytest.raises(ManifestError, match="val or test instead"):
        read_lists(tmp_path / "other_train_list.txt", 1)


@pytest.mark.parametrize(
    ("file", "text"),
    [("label_map_k400.txt", "jump\nrun far\n"), ("classInd.txt", "1 jump\n2 run far\n"), ("annotations/classes.txt", "jump\nrun far")],
)
def test_the_names_of_classes_come_from_a_file_beside_the_lists(tmp_path: Path, file: str, text: str) -> None:
    write(tmp_path / file, text)
    write(tmp_path / "train.txt", "/data/set/a.mp4 1\n")
    write(tmp_path / "test.txt", "C:\\data\\set\\b.mp4 0\n")
    split = read_lists(tmp_path, 1)
    assert split.classes == ("jump", "run far")
    assert split.train == (ListEntry("data/set/a.mp4", "run far"),)
    assert split.test == (ListEntry("data/set/b.mp4", "jump"),)


def test_without_names_and_folders_the_classes_are_the_numbers(tmp_path: Path) -> None:
    write(tmp_path / "train.txt", "a 10 2\nb 10 0\n")
    write(tmp_path / "val.txt", "c 10 2\n")
    assert read_lists(tmp_path, 1).classes == ("0", "1", "2")


def test_several_lists_of_one_split_must_agree(tmp_path: Path) -> None:
    for modality, fewer in (("rgb", 0), ("flow", 1)):
        write(tmp_path / f"train_split_2_{modality}.txt", f"A/a {10 - fewer} 0\n")
        write(tmp_path / f"test_split_2_{modality}.txt", f"A/b {10 - fewer} 0\n")
    assert names(read_lists(tmp_path, 2)) == (["A/a"], ["A/b"])
    with pytest.raises(ManifestError, match="no lists of split 1; it has 2"):
        read_lists(tmp_path, 1)
    write(tmp_path / "train_split_2_videos.txt", "A/a.avi 0\n")
    write(tmp_path / "test_split_2_videos.txt", "A/b.avi 0\n")
    assert names(read_lists(tmp_path, 2)) == (["A/a"], ["A/b"])
    write(tmp_path / "train_split_2_flow.txt", "A/other 9 0\n")
    with pytest.raises(ManifestError, match="lists of different videos"):
        read_lists(tmp_path, 2)


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("train.txt", "A/a 0\nA/b\n", "line 2"),
        ("train.txt", "A/a 0\nA/b 7\n", "line 2: label 7, but only 2"),
        ("train.txt", "A/a 0\nA/../b 0\n", "line 2.*'..'"),
        ("train.txt", "A/a 0\nA/a 0\n", "twice"),
        ("train.txt", "A/a 0\nA/b 999999999\n", "line 2"),
        ("classes.txt", "A\nA\n", "names a class twice"),
        ("labels.txt", "A\nB\nC\n", "name different classes"),
    ],
)
def test_annotations_that_cannot_be_are_refused_with_their_place(tmp_path: Path, file: str, text: str, told: str) -> None:
    write(tmp_path / "train.txt", "A/a 0\n")
    write(tmp_path / "val.txt", "B/b 1\n")
    write(tmp_path / "classes.txt", "A\nB\n")
    write(tmp_path / file, text)
    with pytest.raises(ManifestError, match=told):
        read_lists(tmp_path, 1)


# -- JSON --------------------------------------------------------------------------------------------------------------------------


def resnets(**changes: Any) -> dict[str, Any]:
    database = {
        "v_a": {"subset": "training", "annotations": {"label": "Run"}},
        "v_b": {"subset": "validation", "annotations": {"label": "Jump", "segment": [1, 2]}},
        "v_c": {"subset": "testing", "annotations": {}},
    }
    return {"labels": ["Run", "Jump"], "database": database} | changes


def test_the_json_of_3d_resnets_is_read(tmp_path: Path) -> None:
    write(tmp_path / "ucf101_01.json", json.dumps(resnets()))
    split = read_lists(tmp_path / "ucf101_01.json", 3)
    assert split == read_lists(tmp_path, 1)
    assert split == SplitLists("3d-resnets (val for test)", ("Run", "Jump"), (ListEntry("v_a", "Run"),), (ListEntry("v_b", "Jump"),))
    write(tmp_path / "ucf101_02.json", json.dumps(resnets(labels=["Jump", "Run"])))
    assert read_lists(tmp_path, 2).classes == ("Jump", "Run")
    with pytest.raises(ManifestError, match="no split lists"):
        read_lists(tmp_path, 3)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ([], "no split list"),
        ({"version": "1.3"}, "no split list"),
        (resnets(labels=["Run"]), "entry 'v_b': its label 'Jump'"),
        (resnets(labels=["Run", "Run", "Jump"]), "twice"),
        (resnets(labels="Run"), "list of names"),
        (resnets(database={"v": {"subset": "training", "annotations": [{"label": "Run"}]}}), "entry 'v': expected"),
        (resnets(database={"v": {"subset": "x", "annotations": {"label": "Run"}}}), "entry 'v': the subset"),
        (resnets(database={"../v": {"subset": "training", "annotations": {"label": "Run"}}}), "'..'"),
        (resnets(database={"v": 1}), "entry 'v'"),
    ],
)
def test_json_that_is_no_list_is_refused_with_its_entry(tmp_path: Path, value: object, told: str) -> None:
    with pytest.raises(ManifestError, match=told):
        read_lists(write(tmp_path / "x.json", json.dumps(value)), 1)


def test_json_that_is_too_deep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="not valid JSON"):
        read_lists(write(tmp_path / "x.json", '{"database":' + "[" * 100_000), 1)


# -- bounds ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["train.txt", "x.csv"])
def test_lists_with_too_many_rows_are_refused(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "MAX_ENTRIES", 20)
    write(tmp_path / "test.txt", "A/b 0\n")
    header = "video_id,class_name,subset\n" if name == "x.csv" else ""
    row = "A/{},A,train\n" if header else "A/{} 0\n"
    path = write(tmp_path / name, header + "".join(row.format(k) for k in range(22)))
    with pytest.raises(ManifestError, match="more than 20 rows"):
        read_lists(path, 1)


def test_a_line_that_is_far_too_long_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "classInd.txt", "1 A\n")
    write(tmp_path / "testlist01.txt", "A/v.avi\n")
    write(tmp_path / "trainlist01.txt", "A/w.avi 1\nA/" + " " * 200_000 + "x")
    with pytest.raises(ManifestError, match="line 2: longer than"):
        read_lists(tmp_path, 1)
