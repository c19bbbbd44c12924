"""Splits of some classes of their lists: numbered again, named in the manifest, kept up to date, and no longer official."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from command_lines import run_flowkit
from shard_files import make_root, write_clip

from flowkit.dataset.packing import pack
from flowkit.dataset.paths import clip_path
from flowkit.dataset.root import Dataset
from flowkit.errors import ManifestError
from flowkit.model.data.official_lists import is_official_list

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = ("Archery", "Bowling", "Diving", "Fencing", "Golf")
HERE = ("Bowling", "Diving", "Golf")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two videos each of three of the five classes that lists for two splits name; those of Golf are too short."""
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "classInd.txt").write_text("".join(f"{k} {name}\n" for k, name in enumerate(CLASSES, start=1)))
    for number in (1, 2):
        first, second = (1, 2) if number == 1 else (2, 1)
        for half, group in (("train", first), ("test", second)):
            rows = [f"{name}/v_{name}_g{group:02d}_c01.avi {k}\n" for k, name in enumerate(CLASSES, start=1)]
            (lists / f"{half}list{number:02d}.txt").write_text("".join(rows))
    return make_root(tmp_path, {f"{name}/v_{name}_g{group:02d}_c01": 5 if name == "Golf" else 12 for name in HERE for group in (1, 2)})


def test_present_classes_are_those_with_a_video_that_is_long_enough(root: Path) -> None:
    split = pack(root, lists=root.parent / "lists", classes="present").split
    assert split.classes == ("Bowling", "Diving")
    assert [(record.label, record.class_name) for record in split.train] == [(0, "Bowling"), (1, "Diving")]
    assert (split.num_listed_train, split.num_listed_test) == (2, 2)
    assert split.protocol == "ucf101 (2 of 5 classes)"
    assert split.left_out_classes == ("Archery", "Fencing", "Golf")
    record = json.loads((root / "splits" / "split1" / "split.json").read_text())
    assert (record["classes"], record["left_out_classes"]) == (["Bowling", "Diving"], ["Archery", "Fencing", "Golf"])
    assert Dataset.open(root).split(1) == split
    assert pack(root, lists=root.parent / "lists", classes="present").did_nothing


def test_named_classes_are_matched_by_name_and_keep_the_order_of_the_lists(root: Path) -> None:
    report = pack(root, lists=root.parent / "lists", classes=["diving", "Archery"])
    assert report.split.classes == ("Archery", "Diving")
    assert {record.label for record in report.split} == {1}
    assert [entry.video_id for entry in report.matched.missing_train] == ["Archery/v_Archery_g01_c01"]
    assert "Bowling/v_Bowling_g01_c01" in report.matched.unlisted
    with pytest.raises(ManifestError, match=r"no class 'Divin' \(did you mean 'Diving'\?\); there are 5 classes"):
        pack(root, lists=root.parent / "lists", classes=["Divin"])


def test_all_classes_with_videos_leave_the_lists_as_they_are(root: Path) -> None:
    lists = root.parent / "own.csv"
    lists.write_text("video_id,class_name,subset\nBowling/v_Bowling_g01_c01,a,train\nDiving/v_Diving_g01_c01,b,train\n")
    assert pack(root, lists=lists, classes="present").split.protocol == "csv"


def test_an_automatic_split_of_some_classes_leaves_the_others_out(root: Path) -> None:
    write_clip(clip_path(root, "stray"), "stray", class_name="")  # it has no class, and so an automatic split of all videos is not possible
    with pytest.raises(ManifestError, match=r"delete 'clips/stray\.h5'"):
        pack(root, lists="automatic")
    split = pack(root, lists="automatic", classes="present").split
    assert (split.protocol, split.classes, split.left_out_classes) == ("automatic", ("Bowling", "Diving"), ("Golf",))
    assert pack(root, lists="automatic", classes=["Bowling", "diving"]).split.classes == ("Bowling", "Diving")


def test_another_split_of_the_same_lists_keeps_its_classes_and_gets_new_videos(root: Path) -> None:
    lists = root.parent / "lists"
    pack(root, split=1, lists=lists, classes=["Bowling", "Archery"])
    write_clip(clip_path(root, "Archery/v_Archery_g01_c01"), "Archery/v_Archery_g01_c01")
    pack(root, split=2, lists=lists)
    split = Dataset.open(root).split(1)
    assert split.classes == ("Archery", "Bowling")
    assert [record.video_id for record in split.train] == ["Archery/v_Archery_g01_c01", "Bowling/v_Bowling_g01_c01"]


def test_such_a_split_is_intact_and_not_official(root: Path) -> None:
    split = pack(root, classes="present").split  # with the lists beside the videos
    assert split.protocol.startswith("ucf101")
    assert not is_official_list(split)
    assert run_flowkit("verify", "--data", root).code == 0


def test_the_command_names_what_is_left_out_and_what_could_be(root: Path) -> None:
    lists = root.parent / "lists"
    said = run_flowkit("pack", "--data", root, "--lists", lists)
    assert "classes of the lists without a video here, which --classes present leaves out: 3 (Archery, Fencing, Golf)" in said.err
    said = run_flowkit("pack", "--data", root, "--lists", lists, "--classes", "present")
    assert "classes of the lists that were left out (--classes): 3 (Archery, Fencing, Golf)" in said.err
    assert said.out.endswith("; 2 classes\n")
    assert run_flowkit("pack", "--data", root, "--lists", lists, "--classes", ",").code == 2
    (root / "shards" / "shard-00000.h5").unlink()
    assert "--classes Bowling,Diving" in run_flowkit("train", "--data", root).err
