"""The videos that a path stands for: a folder, one file, or a list of files; and their ids."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from small_videos import SETTINGS, files_of, write_video

from flowkit import Dataset, ManifestError, extract
from flowkit.cli.main import flowkit as command
from flowkit.video.containers import VIDEO_SUFFIXES
from flowkit.video.named import find_videos

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    for name in ("run/a.avi", "run/b.mp4", "walk/a.b.mkv", "walk/note.txt"):
        path = tmp_path / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "videos"


def found(path: Path, source: Path | None = None) -> tuple[Path, list[tuple[str, str]]]:
    folder, scan = find_videos(path, VIDEO_SUFFIXES, source=source)
    return folder, [(video.video_id, video.class_name) for video in scan.videos]


def test_a_file_has_the_id_that_it_has_among_the_other_videos_of_the_data_root(videos: Path) -> None:
    assert found(videos / "run" / "a.avi") == (videos / "run", [("a", "")])
    assert found(videos / "run" / "a.avi", videos) == (videos, [("run/a", "run")])
    assert found(videos / "run" / "a.avi", videos / "walk") == (videos / "run", [("a", "")])
    assert found(videos, videos / "walk")[1] == [("run/a", "run"), ("run/b", "run"), ("walk/a.b", "walk")]


def test_a_list_names_files_relative_to_itself_or_to_the_working_folder(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = f"\ufeff# the first two\nvideos/run/a.avi\r\n\n  {videos / 'walk' / 'a.b.mkv'}  \nvideos/run/a.avi\n"
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "mine.txt").write_text(text, encoding="utf-8")
    assert found(tmp_path / "lists" / "mine.txt") == (videos, [("run/a", "run"), ("walk/a.b", "walk")])
    (videos / "near.txt").write_text("run/b.mp4")
    assert found(videos / "near.txt") == (videos / "run", [("b", "")])


def test_a_folder_of_pictures_is_named_as_a_file_is(videos: Path) -> None:
    for k in range(3):
        (videos / "walk" / "c.1").mkdir(exist_ok=True)
        (videos / "walk" / "c.1" / f"{k}.png").write_bytes(b"")
    assert found(videos / "walk" / "c.1") == (videos / "walk", [("c.1", "")])
    assert found(videos / "walk" / "c.1", videos) == (videos, [("walk/c.1", "walk")])
    (videos / "list").write_text("run/a.avi\nwalk/c.1\n")
    assert found(videos / "list") == (videos, [("run/a", "run"), ("walk/c.1", "walk")])
    assert found(videos)[1] == [("run/a", "run"), ("run/b", "run"), ("walk/a.b", "walk"), ("walk/c.1", "walk")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"run/a.avi\nrun/c.avi\nwalk/note.txt\n", "names no video in line 2: 'run/c.avi', line 3: 'walk/note.txt'"),
        (b"# nothing\n\n", "names no video; a list is a UTF-8 text file"),
        (b"run\n", "line 1: 'run'"),
        (b"a\0b\n", "line 1"),
        (b"\xff\xfe\x00", "neither a folder, nor a video by its suffix, nor a list"),
    ],
)
def test_a_list_that_names_no_videos_is_one_error(videos: Path, text: bytes, words: str) -> None:
    (videos / "list").write_bytes(text)
    with pytest.raises(ManifestError) as told:
        found(videos / "list")
    assert words in str(told.value)


def test_files_that_would_share_an_id_are_refused_and_absent_paths_too(videos: Path, tmp_path: Path) -> None:
    shutil.copy(videos / "run" / "a.avi", videos / "run" / "a.mp4")
    (tmp_path / "list.txt").write_text("videos/run/a.avi\nvideos/run/a.mp4\n")
    with pytest.raises(ManifestError, match="would share a video id"):
        found(tmp_path / "list.txt")
    with pytest.raises(ManifestError, match="there is no folder"):
        found(tmp_path / "absent")


@pytest.mark.usefixtures("kept_workers")
def test_extract_takes_one_video_or_a_list_and_adds_to_the_same_root(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    for k, name in enumerate(("run/a.avi", "run/b.avi", "walk/c.avi")):
        write_video(videos / name, 3, seed=k)
    extract(videos, tmp_path / "whole", settings=SETTINGS, jobs=1, progress=False)
    (tmp_path / "two.txt").write_text("videos/run/a.avi\nvideos/walk/c.avi\n")
    data, line = tmp_path / "data", ["--data", str(tmp_path / "data"), "--short-side", "32", "--jobs", "1"]
    assert CliRunner().invoke(command, ["extract", str(tmp_path / "two.txt"), *line]).exit_code == 0
    assert Dataset.open(data).source == str(videos)
    assert CliRunner().invoke(command, ["extract", str(videos / "run" / "b.avi"), *line]).exit_code == 0
    assert files_of(data) == files_of(tmp_path / "whole")
    assert len(extract(videos, data, jobs=1, progress=False).skipped) == 3
