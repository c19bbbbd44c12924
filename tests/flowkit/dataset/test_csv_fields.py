"""Fields of CSV files: no spreadsheet evaluates them, and the text comes back."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from flowkit.dataset.csv_fields import csv_line, harmless_field, is_harmful, original_field
from flowkit.dataset.manifest import ClipRecord, read_split, write_split
from flowkit.model.evaluation.results import Evaluation, SplitEvaluation, write_results
from flowkit.model.evaluation.row_results import RowResult
from flowkit.quantise import Quantiser

HARMFUL = [
    "=cmd|' /C calc'!A0", "+1", "-J__xyz", "@SUM(A1)", "\t=1", "\r=1", "  =1", "\uff1d1", "a\x1b[31mred", "a\nb", "nul\0", "back\u202eward",
    "=a\\b\\x41", "\x9b31m", "'=1\n", "\\x1b\x1b", "a;=1+1", 'a; "-1',
]  # fmt: skip
ORDINARY = [
    "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01",
    "a b",
    "é 🎬",
    'q"uote',
    "com,ma",
    "a=b",
    "a-b",
    "a@b",
    "",
    "a;b",
    "back\\slash",
    "\\x1b",
]


@pytest.mark.parametrize("text", [*HARMFUL, *ORDINARY, "'tis", "''"])
def test_the_text_of_a_field_comes_back(text: str) -> None:
    field = harmless_field(text)
    assert original_field(field) == text
    assert not is_harmful(field)
    assert field == text or field.startswith("'")
    assert next(csv.reader(io.StringIO(csv_line([field, "x"]), newline=""))) == [field, "x"]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_is_written_as_it_is(text: str) -> None:
    assert harmless_field(text) == text


def write(root: Path, ids: list[str]) -> Path:
    records = [ClipRecord(video_id, 0, "=class", 20, "shard-00000.h5") for video_id in ids]
    write_split(
        root,
        1,
        protocol="csv",
        classes=["=class" if ids else "class"],
        train=records,
        test=[],
        num_listed_train=len(records),
        num_listed_test=0,
        quantiser=Quantiser(),
        shards={"shard-00000.h5": "0" * 64},
    )
    return root / "splits" / "split1"


def is_dangerous(path: Path) -> bool:
    text = path.read_bytes().decode()
    fields = [field for row in csv.reader(io.StringIO(text, newline="")) for field in row]
    return any(field.lstrip()[:1] in tuple("=+-@") for field in fields) or any(ord(c) < 32 and c != "\n" for c in text)


def test_a_manifest_holds_no_formula_and_gives_its_ids_back(tmp_path: Path) -> None:
    ids = [text for text in HARMFUL if "\0" not in text and "\\" not in text]
    folder = write(tmp_path, [*ids, "plain", "'tis"])
    assert not is_dangerous(folder / "train.csv")
    split = read_split(tmp_path, 1)
    assert sorted(record.video_id for record in split.train) == sorted([*ids, "plain", "'tis"])
    assert {record.class_name for record in split.train} == {"=class"}


def test_an_older_manifest_with_such_ids_is_read_as_it_is(tmp_path: Path) -> None:
    import hashlib

    folder = write(tmp_path, ["'=a", "-b"])
    table = "video_id,label,class_name,num_frames,shard\n'=a,0,=class,20,shard-00000.h5\n-b,0,=class,20,shard-00000.h5\n"
    (folder / "train.csv").write_bytes(table.encode())
    record = json.loads((folder / "split.json").read_text())
    del record["escaped"]
    record["tables"]["train.csv"] = hashlib.sha256(table.encode()).hexdigest()
    (folder / "split.json").write_text(json.dumps(record))
    assert [clip.video_id for clip in read_split(tmp_path, 1).train] == ["'=a", "-b"]


def test_the_tables_of_classes_and_videos_hold_no_formula_and_no_control_character(tmp_path: Path) -> None:
    classes = ("=cmd|' /C calc'!A0", "red\x1b[31m", "ordinary")
    scores, labels = np.eye(3), np.arange(3)
    video_ids = ("@sum", "a\nb", "c")
    split = SplitEvaluation(1, classes, video_ids, labels, {"motion": RowResult.of(scores, labels)}, {}, 3)
    write_results(tmp_path, split, Evaluation((split,), ()), table="")
    assert not is_dangerous(tmp_path / "per_class.csv")
    with (tmp_path / "per_class.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert [original_field(row[1]) for row in rows[1:]] == list(classes)
    assert rows[3] == ["2", "ordinary", "1", "1.0000"]
    assert not is_dangerous(tmp_path / "per_video.csv")
    with (tmp_path / "per_video.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert [original_field(row[0]) for row in rows[1:]] == list(video_ids)
    assert [original_field(row[2]) for row in rows[1:]] == list(classes)
