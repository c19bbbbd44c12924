"""What ``flowkit extract`` prints about a folder before it computes anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from small_videos import write_video

from flowkit.cli.main import flowkit

pytestmark = pytest.mark.usefixtures("kept_workers")


def dry_run(videos: Path, *options: str) -> Result:
    result = CliRunner().invoke(flowkit, ["extract", str(videos), "--data", str(videos.parent / "data"), "--dry-run", *options])
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    write_video(tmp_path / "videos" / "run" / "a.avi", 3)
    return tmp_path / "videos"


def test_ignored_files_are_listed_by_suffix(videos: Path) -> None:
    for name in ("a.txt", "b.txt", "run/a.gif", ".Trash-1000"):
        (videos / name).touch()
    assert "extract: 4 other files ignored: 2 .txt, 1 .gif, 1 hidden\n" in dry_run(videos).stderr
    assert json.loads(dry_run(videos, "--json").stdout)["ignored_by_suffix"] == {".txt": 2, ".gif": 1, "hidden": 1}


@pytest.mark.slow
def test_nothing_is_said_about_ordinary_folders(videos: Path) -> None:
    write_video(videos / "walk" / "b.avi", 3)
    assert dry_run(videos).stderr.count("extract:") == 1


@pytest.mark.slow
def test_a_forecast_names_the_videos_that_cannot_be_tried(videos: Path) -> None:
    (videos / "run" / "con.avi").touch()
    said = dry_run(videos).stderr
    assert "would fail:" in said
    assert "'run/con' cannot be a video id" in said


def test_folders_that_give_a_split_are_named(tmp_path: Path) -> None:
    for top in ("train", "val"):
        write_video(tmp_path / "videos" / top / "archery" / f"{top}.avi", 3)
    said = dry_run(tmp_path / "videos").stderr
    assert "the folders at the top, 'train' and 'val', give the split, and those inside them the classes (1, such as 'archery')" in said


@pytest.mark.slow
def test_a_folder_that_stands_in_the_way_of_a_split_is_named(videos: Path) -> None:
    for top in ("train", "val"):
        write_video(videos / top / "archery" / f"{top}.avi", 3)
    said = dry_run(videos).stderr
    assert "'train' and 'val' are names of subsets, but 'run' is beside them" in said
    assert "--lists" in said


@pytest.mark.slow
def test_a_folder_without_classes_is_reported_before_any_flow_is_computed(tmp_path: Path) -> None:
    write_video(tmp_path / "videos" / "a.avi", 3)
    assert "no video lies in a class folder" in dry_run(tmp_path / "videos").stderr


def test_a_folder_without_videos_is_an_error_that_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.gif").touch()
    result = CliRunner().invoke(flowkit, ["extract", str(tmp_path / "videos"), "--data", str(tmp_path / "data")])
    assert "(1 other file ignored: 1 .gif)" in str(result.exception)
    assert not (tmp_path / "data").exists()
