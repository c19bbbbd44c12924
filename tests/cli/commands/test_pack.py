"""What ``flowkit pack`` prints about the split and the lists it comes from."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from shard_files import SETTINGS, make_root, write_clip

from flowkit import Dataset
from flowkit.cli.main import flowkit
from flowkit.dataset.paths import clip_path
from flowkit.dataset.root import open_root
from flowkit.exchange.export_trees import export


def pack(root: Path, *options: str) -> Result:
    return CliRunner().invoke(flowkit, ["pack", "--data", str(root), *options])


@pytest.fixture
def kinetics(tmp_path: Path) -> Path:
    """A data root of videos in train/<class>, val/<class>."""
    root = tmp_path / "flowkit-data"
    open_root(root, tmp_path / "videos", SETTINGS)
    for seed, video_id in enumerate(f"{top}/{name}/{k}" for top in ("train", "val") for name in ("archery", "bowling") for k in range(2)):
        write_clip(clip_path(root, video_id), video_id, seed=seed, class_name=video_id.split("/")[1])
    return root


def test_a_split_that_comes_from_folders_is_announced(kinetics: Path) -> None:
    result = pack(kinetics)
    assert result.exit_code == 0
    assert "pack: split 1 from the folders (train for training, val for test); to use other lists: --lists DIR|FILE\n" in result.stderr
    assert "2 classes" in result.stdout


def test_exports_and_lists_of_an_export_name_the_inner_classes(kinetics: Path, tmp_path: Path) -> None:
    pack(kinetics)
    export(kinetics, tmp_path / "all", layout="rawframes")
    assert (tmp_path / "all" / "classes.txt").read_text() == "archery\nbowling\n"
    export(kinetics, tmp_path / "split", layout="rawframes", split=1)
    first = Dataset.open(kinetics).split(1)
    assert pack(kinetics, "--lists", str(tmp_path / "split")).exit_code == 0
    second = Dataset.open(kinetics).split(1)
    assert (first.classes, first.train, first.test) == (second.classes, second.train, second.test)
    assert second.protocol == "mmaction2"


def test_rows_that_match_by_their_end_or_not_at_all_are_listed(tmp_path: Path) -> None:
    root = make_root(tmp_path, {"a/1": 12, "b/1": 12, "a/2": 12, "b/3": 12})
    lists = tmp_path / "l.csv"
    lists.write_text("video_id;class_name;subset\r\na/2.avi;a;train\r\n1;x;train\r\n3.avi;b;val\r\ngone;b;val\r\n")
    result = pack(root, "--lists", str(lists))
    assert result.exit_code == 0, result.output
    assert f"pack: split 1 from the lists in {lists}, csv (val for test)\n" in result.stderr
    assert "pack: matched by the end of the name: 1 (3.avi is b/3)\n" in result.stderr
    assert "pack: listed for training, but not clear which video is meant: 1 (1 could be 'a/1' or 'b/1')\n" in result.stderr
    assert "pack: listed for test, but missing: 1 (gone)\n" in result.stderr
    assert "pack: in neither half: 2 (a/1, b/1)\n" in result.stderr


def test_a_list_that_leaves_a_half_empty_is_an_error(tmp_path: Path) -> None:
    root = make_root(tmp_path, {"a/1": 12, "a/2": 12})
    lists = tmp_path / "l.csv"
    lists.write_text("video_id,class_name,subset\na/1,a,train\nb/2,a,test\n")
    result = pack(root, "--lists", str(lists))
    assert result.exit_code == 1
    assert "match no clip for test" in str(result.exception)
    assert not (root / "shards").exists()


def test_a_word_that_is_no_list_is_a_usage_error(tmp_path: Path) -> None:
    result = pack(make_root(tmp_path, {"a/1": 12}), "--lists", "absent.csv")
    assert result.exit_code == 2
    assert "nor the word folders or automatic" in result.stderr
