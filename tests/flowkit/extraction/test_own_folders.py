"""What flowkit wrote beside or among videos is never extracted as a video, and no video that lies there is lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from command_lines import call_flowkit
from small_videos import write_video

from flowkit import ManifestError
from flowkit.dataset.example import example_root
from flowkit.video.containers import VIDEO_SUFFIXES
from flowkit.video.tree import DATA_ROOT_FOLDERS, scan_videos


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    write_video(folder / "run" / "a.avi", 5)
    write_video(folder / "walk" / "a.avi", 5)
    return folder


def found(folder: Path, data_root: Path | None = None) -> list[str]:
    return [video.video_id for video in scan_videos(folder, VIDEO_SUFFIXES, data_root=data_root).videos]


@pytest.mark.parametrize("place", [".", "flowkit-data", "walk", "walk/deeper"])
def test_a_data_root_may_lie_anywhere_among_the_videos(videos: Path, place: str) -> None:
    """Whatever flowkit writes into it, such as animations, is no video; videos that lie beside that stay videos."""
    root = videos / place
    shutil.copytree(example_root(), root, dirs_exist_ok=True)
    call_flowkit("inspect", "--data", root, "--animation", "mp4", "colour0-motion0/v00", code=0)
    call_flowkit("inspect", "--data", root, "--gallery", code=0)
    assert list(root.rglob("*.mp4")), "there is something that could be read as a video"
    assert found(videos, root) == ["run/a", "walk/a"]


def test_galleries_exports_and_other_data_roots_among_the_videos_are_left_out_and_counted(videos: Path) -> None:
    root = videos / "first"
    shutil.copytree(example_root(), root)
    call_flowkit("inspect", "--data", root, "--gallery", "--output", videos / "pictures", code=0)
    call_flowkit("export", "--data", root, "--layout", "rawframes", "--output", videos / "images", code=0)
    scan = scan_videos(videos, VIDEO_SUFFIXES, data_root=videos / "second")
    assert [video.video_id for video in scan.videos] == ["run/a", "walk/a"]
    assert scan.ignored["of flowkit"] == 3
    assert scan_videos(videos, VIDEO_SUFFIXES, data_root=root).ignored["of flowkit"] == 2


def test_an_export_that_the_user_names_is_searched(tmp_path: Path) -> None:
    call_flowkit("export", "--data", example_root(), "--layout", "rawframes", "--output", tmp_path / "images", code=0)
    assert len(found(tmp_path / "images")) == 18
    assert found(tmp_path) == []


def test_a_folder_of_this_name_or_a_record_of_another_program_hides_nothing(videos: Path) -> None:
    """Other tools write dataset.json too, and a class may be called clips."""
    write_video(videos / "clips" / "a.avi", 5)
    (videos / "dataset.json").write_text('{"format": "of another program"}')
    (videos / "walk" / "gallery.json").write_bytes(b"\xff")
    (videos / "run" / "flowkit-export.json").mkdir()
    assert found(videos, videos / "flowkit-data") == ["clips/a", "run/a", "walk/a"]


@pytest.mark.parametrize("name", sorted(DATA_ROOT_FOLDERS))
def test_videos_where_a_new_data_root_would_write_are_named_before_anything_is_written(videos: Path, name: str) -> None:
    write_video(videos / name / "a.avi", 5)
    with pytest.raises(ManifestError, match=rf"1 video of .* flowkit would keep its own files: '{name}/a'; .*--data DIR"):
        call_flowkit("extract", videos, "--data", videos)
    assert not (videos / "dataset.json").exists()
