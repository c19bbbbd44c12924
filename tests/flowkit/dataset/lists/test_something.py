"""Lists of Something-Something and Jester, and Kinetics' tables without the columns that the names of its files replace."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from flowkit.dataset.lists.reading import read_lists
from flowkit.errors import ManifestError

if TYPE_CHECKING:
    from pathlib import Path

    from flowkit.dataset.lists.entries import SplitLists

TRAIN = [
    {
        "id": "78687",
        "label": "holding potato next to vicks",
        "template": "Holding [something] next to [something]",
        "placeholders": ["potato"],
    },
    {"id": "42326", "label": "rolling a bottle", "template": "Rolling [something] on a flat surface", "placeholders": ["a bottle"]},
]
VAL = [{"id": 74225, "label": "spinning cube", "template": "Rolling [something] on a flat surface"}]
HOLDING, ROLLING = "Holding something next to something", "Rolling something on a flat surface"


def rows(lists: SplitLists) -> list[list[tuple[str, str]]]:
    return [[(entry.video_id, entry.class_name) for entry in half] for half in (lists.train, lists.test, lists.unused)]


def write_json(folder: Path, **files: object) -> Path:
    folder.mkdir(exist_ok=True)
    for name, record in files.items():
        (folder / f"something-something-v2-{name}.json").write_text(json.dumps(record))
    return folder


def test_json_of_version_2_gives_templates_as_classes_in_the_order_of_the_labels(tmp_path: Path) -> None:
    labels = {ROLLING: "0", HOLDING: "1", "Pushing something": "2"}
    folder = write_json(tmp_path / "labels", train=TRAIN, validation=VAL, test=[{"id": "1420"}], labels=labels)
    for path in (folder, folder / "something-something-v2-train.json"):
        lists = read_lists(path, 1)
        assert lists.classes == (ROLLING, HOLDING, "Pushing something")
        assert rows(lists) == [[("78687", HOLDING), ("42326", ROLLING)], [("74225", ROLLING)], []]
        assert lists.protocol == "something-something (val for test)"


def test_without_labels_the_classes_are_sorted(tmp_path: Path) -> None:
    assert read_lists(write_json(tmp_path, train=TRAIN, validation=VAL), 1).classes == (HOLDING, ROLLING)


@pytest.mark.parametrize("separator", [";", "\t"])
@pytest.mark.parametrize("name", ["something-something-v1", "jester-v1"])
def test_tables_without_names_of_columns_are_a_video_and_its_class(tmp_path: Path, name: str, separator: str) -> None:
    (tmp_path / f"{name}-train.csv").write_text(f"100218{separator}Turning, or not\n24{separator}Drumming Fingers\n")
    (tmp_path / f"{name}-validation.csv").write_text(f"7{separator}Drumming Fingers\n")
    (tmp_path / f"{name}-test.csv").write_text("8\n9\n")
    (tmp_path / f"{name}-labels.csv").write_text("Turning, or not\nDrumming Fingers\n")
    lists = read_lists(tmp_path, 1)
    assert lists.classes == ("Turning, or not", "Drumming Fingers")
    assert rows(lists) == [[("100218", "Turning, or not"), ("24", "Drumming Fingers")], [("7", "Drumming Fingers")], []]
    (tmp_path / f"{name}-train.csv").write_text(f"1{separator}A\n2{separator}B{separator}C\n")
    with pytest.raises(ManifestError, match=r"line 2: expected <video>.<class>, got 3 fields"):
        read_lists(tmp_path, 1)


def test_a_class_that_the_labels_lack_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=f"the class {HOLDING!r} of '78687' is not in the list of labels"):
        read_lists(write_json(tmp_path, train=TRAIN, validation=VAL, labels={ROLLING: "0"}), 1)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"train": [TRAIN[0], 3], "validation": VAL}, "train.json, entry 2: expected an id, and a template or label"),
        ({"train": [{"id": True}], "validation": VAL}, "expected an id"),
        ({"train": [{"id": "1", "template": 3}], "validation": VAL}, "its template must be a text"),
        ({"train": [{"id": "../1", "template": "x"}], "validation": VAL}, "entry 1: "),
        ({"train": TRAIN, "validation": VAL, "labels": {ROLLING: "0", HOLDING: "2"}}, "the numbers of the classes are not 0 to 1"),
        ({"train": TRAIN, "validation": VAL, "labels": [ROLLING]}, "expected {"),
        ({"train": TRAIN, "validation": VAL, "labels": {ROLLING: "x"}}, "expected {"),
    ],
)
def test_entries_that_are_none_are_named(tmp_path: Path, files: dict[str, object], words: str) -> None:
    with pytest.raises(ManifestError) as told:
        read_lists(write_json(tmp_path, **files), 1)
    assert words in str(told.value)


def test_a_list_alone_says_what_is_missing(tmp_path: Path) -> None:
    folder = write_json(tmp_path, train=TRAIN)
    with pytest.raises(ManifestError, match="differs only in having val or test instead"):
        read_lists(folder / "something-something-v2-train.json", 1)


def test_tables_of_kinetics_need_no_column_that_the_name_of_the_file_replaces(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("label,youtube_id,time_start,time_end\nabseiling,abc,0,10\n")
    (tmp_path / "validate.csv").write_text("label;youtube_id;time_start;time_end;split;is_cc\nabseiling;def;0;10;validate;0\n")
    (tmp_path / "test.csv").write_text("youtube_id,time_start,time_end,split\nghi,0,10,test\n")
    lists = read_lists(tmp_path, 1)
    assert rows(lists) == [[("abc_000000_000010", "abseiling")], [("def_000000_000010", "abseiling")], []]
    (tmp_path / "train.csv").write_text("youtube_id,time_start,time_end\nabc,0,10\n")
    with pytest.raises(ManifestError, match="missing: label"):
        read_lists(tmp_path, 1)
    (tmp_path / "other.csv").write_text("label,youtube_id,time_start,time_end\nabseiling,abc,0,10\n")
    with pytest.raises(ManifestError, match="missing: split"):
        read_lists(tmp_path / "other.csv", 1)
