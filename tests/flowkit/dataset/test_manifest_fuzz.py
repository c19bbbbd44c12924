"""JSON and CSV files of a data set changed at random: each is read as something that it may say, or refused by a FlowkitError."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from shard_files import make_root

from flowkit.dataset.lists.reading import read_lists
from flowkit.dataset.packing import pack
from flowkit.dataset.root import Dataset
from flowkit.dataset.shard_update import read_state
from flowkit.describe.contents import describe_root
from flowkit.errors import FlowkitError, ManifestError
from flowkit.exchange.export_trees import export
from flowkit.exchange.record import read_record

if TYPE_CHECKING:
    from pathlib import Path

NUM_MUTATIONS = int(os.environ.get("FLOWKIT_FUZZ", "150"))
WRONG = (None, True, -1, 1.5, 1e308, 10**30, float("nan"), "", "x", "../..", "\0", "\ud800", [], [1], {}, {"a": 1}, [[]], [None])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = make_root(tmp_path, {f"{name}/v_{name}_g0{group}_c01": 12 for name in ("Jump", "Run") for group in (1, 2)})
    pack(made, split=1)
    export(made, tmp_path / "tree", layout="rawframes", split=1)
    (tmp_path / "lists.csv").write_text("video_id,class_name,subset\nRun/a,Run,train\nJump/b,Jump,test\n")
    (tmp_path / "kinetics.csv").write_text("label,youtube_id,time_start,time_end,split\nrun,-J1,0,10,train\njump,b,10,20,val\n")
    database = {
        "v_a": {"subset": "training", "annotations": {"label": "Run"}},
        "v_b": {"subset": "validation", "annotations": {"label": "Jump"}},
    }
    (tmp_path / "resnets.json").write_text(json.dumps({"labels": ["Run", "Jump"], "database": database}))
    (tmp_path / "ucf101").mkdir()
    (tmp_path / "ucf101" / "classInd.txt").write_text("1 Jump\n2 Run\n")
    (tmp_path / "ucf101" / "trainlist01.txt").write_text("Jump/a.avi 1\nRun/b.avi 2\n")
    (tmp_path / "ucf101" / "testlist01.txt").write_text("Jump/c.avi\n")
    return made


def places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value, as the keys that lead to it."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place, *(found for key, entry in inside for found in places(entry, (*place, key)))]


def with_wrong_value(text: bytes, rng: np.random.Generator) -> bytes:
    """Put a value of another type or range at some place of a JSON text, take the place out, or give it another key."""
    whole = json.loads(text)
    all_places = places(whole)
    place, wrong = all_places[rng.integers(len(all_places))], WRONG[rng.integers(len(WRONG))]
    if not place:
        return json.dumps(wrong).encode()
    parent = whole
    for key in place[:-1]:
        parent = parent[key]
    what = rng.integers(4)
    if what == 0:
        del parent[place[-1]]
    elif what == 1 and isinstance(parent, dict):
        parent[str(wrong)] = parent.pop(place[-1])
    else:
        parent[place[-1]] = wrong
    return json.dumps(whole).encode()


def with_wrong_bytes(text: bytes, rng: np.random.Generator) -> bytes:
    """Flip a bit, cut the end, overwrite, or repeat some of a text."""
    data, at = bytearray(text), int(rng.integers(len(text)))
    what = rng.integers(4)
    if what == 0:
        data[at] ^= 1 << int(rng.integers(8))
    elif what == 1:
        del data[at:]
    elif what == 2:
        data[at : at + 8] = rng.bytes(int(rng.integers(16)))
    else:
        data[at:at] = data[int(rng.integers(len(text))) :][:40]
    return bytes(data)


@pytest.mark.parametrize(
    "name",
    [
        "flowkit-data/dataset.json",
        "flowkit-data/splits/split1/split.json",
        "flowkit-data/splits/split1/train.csv",
        "flowkit-data/shards/pack.json",
        "tree/flowkit-export.json",
        "lists.csv",
        "ucf101/classInd.txt",
        "ucf101/trainlist01.txt",
        "kinetics.csv",
        "resnets.json",
        "tree/classes.txt",
        "tree/train_split_1_rgb.txt",
    ],
)
def test_no_mutation_of_a_manifest_is_anything_but_read_or_refused(root: Path, tmp_path: Path, name: str) -> None:
    path, rng = tmp_path / name, np.random.default_rng(0)
    reads = {
        "dataset.json": lambda: describe_root(root),
        "pack.json": lambda: read_state(root),
        "flowkit-export.json": lambda: read_record(tmp_path / "tree"),
        **dict.fromkeys(("lists.csv", "kinetics.csv", "resnets.json"), lambda: read_lists(path, 1)),
        "classes.txt": lambda: read_lists(path.parent, 1),
        "train_split_1_rgb.txt": lambda: read_lists(path, 1),
        "classInd.txt": lambda: read_lists(path.parent, 1),
        "trainlist01.txt": lambda: read_lists(path.parent, 1),
    }
    read = reads.get(path.name, lambda: Dataset.open(root).split(1))
    whole = path.read_bytes()
    read()
    refused = []
    for _ in range(NUM_MUTATIONS):
        changes = with_wrong_value if path.suffix == ".json" and rng.integers(3) else with_wrong_bytes
        path.write_bytes(changes(whole, rng))
        try:
            read()
        except FlowkitError as error:
            refused.append(str(error))
    assert len(refused) > NUM_MUTATIONS / 4
    assert max(map(len, refused)) < 1000


@pytest.mark.parametrize("what", ["a pipe", "an endless device", "a folder"])
def test_a_manifest_that_is_no_file_is_refused_and_not_waited_for(root: Path, tmp_path: Path, what: str) -> None:
    """A root may come out of an archive, which can hold pipes and links to devices."""
    split = root / "splits" / "split1"
    reads = {
        root / "dataset.json": lambda: Dataset.open(root),
        split / "train.csv": lambda: Dataset.open(root).split(1),
        root / "shards" / "pack.json": lambda: read_state(root),
        tmp_path / "tree" / "flowkit-export.json": lambda: read_record(tmp_path / "tree"),
        tmp_path / "ucf101" / "trainlist01.txt": lambda: read_lists(tmp_path / "ucf101", 1),
    }
    for path, read in reads.items():
        whole = path.read_bytes()
        path.unlink()
        if what == "a pipe":
            os.mkfifo(path)
        elif what == "a folder":
            path.mkdir()
        else:
            path.symlink_to("/dev/zero")
        with pytest.raises(ManifestError, match=r"cannot read.*(not a regular file|Is a directory)"):
            read()
        if what == "a folder":
            path.rmdir()
        else:
            path.unlink()
        path.write_bytes(whole)
