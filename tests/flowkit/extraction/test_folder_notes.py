"""What is said of folders before any flow is computed: what is probably not the folder that was meant."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from small_videos import SETTINGS, write_video

from flowkit.dataset.packing import pack
from flowkit.dataset.root import open_root
from flowkit.dataset.settings import ExtractSettings
from flowkit.errors import ManifestError, ParameterError
from flowkit.extraction.plan import make_plan
from flowkit.extraction.results import VideoResult
from flowkit.extraction.run import extract


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder of two classes; nothing opens its videos."""
    for name in ("Run/a.avi", "Run/b.avi", "Jump/c.avi"):
        (tmp_path / "tiny" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tiny" / name).write_bytes(name.encode())
    return tmp_path / "tiny"


def warnings(videos: Path, root: Path) -> str:
    return "\n".join(make_plan(videos, root).warnings)


def test_a_folder_of_classes_needs_no_warning(tree: Path, tmp_path: Path) -> None:
    assert warnings(tree, tmp_path / "data") == ""


def test_the_folder_of_one_class_is_recognised_by_its_neighbours(tree: Path, tmp_path: Path) -> None:
    said = warnings(tree / "Run", tmp_path / "data")
    assert "no class is known" in said
    assert "holds more folders of videos ('Jump'): give the parent, `flowkit extract" in said


def test_a_flat_folder_may_be_meant_as_a_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "a.avi").touch()
    monkeypatch.chdir(tmp_path / "flat")
    said = warnings(Path(), tmp_path / "data")
    assert f"if 'flat' is the name of their class, give its parent, `flowkit extract {tmp_path}`" in said


def test_a_tree_of_a_single_class_is_named(tree: Path, tmp_path: Path) -> None:
    (tree / "Jump" / "c.avi").unlink()
    assert "all videos have the class 'Run'" in warnings(tree, tmp_path / "data")


def test_videos_beside_the_class_folders_are_named(tree: Path, tmp_path: Path) -> None:
    (tree / "stray.avi").touch()
    assert "1 video lies in no class folder, beside 2 classes ('stray')" in warnings(tree, tmp_path / "data")


def test_a_second_folder_into_one_root_is_a_warning_unless_the_first_was_moved(tree: Path, tmp_path: Path) -> None:
    root, other = tmp_path / "data", tmp_path / "other"
    open_root(root, tree, ExtractSettings())
    (other / "Swim").mkdir(parents=True)
    (other / "Swim" / "d.avi").touch()
    (other / "Walk").mkdir(parents=True)
    (other / "Walk" / "e.avi").touch()
    assert "2 videos of" in warnings(other, root)
    assert "--data DIR" in warnings(other, root)
    assert warnings(tree, root) == ""


def test_a_class_that_is_extracted_after_others_is_not_alone(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree / "Jump" / "c.avi").unlink()
    before = {"Swim/x": VideoResult("Swim/x", "ok", 1, 1)}
    monkeypatch.setattr("flowkit.extraction.plan.read_index", lambda root: before)
    assert warnings(tree, tmp_path / "data") == ""


def test_clips_of_videos_that_were_renamed_or_deleted_are_named(tmp_path: Path) -> None:
    videos, root = tmp_path / "videos", tmp_path / "data"
    for name in ("Run/a", "Run/b", "Jump/c"):
        write_video(videos / f"{name}.avi", 3)
    extract(videos, root, settings=SETTINGS, jobs=1)
    assert make_plan(videos, root).notes == ()
    (videos / "Run").rename(videos / "Running")
    (note,) = make_plan(videos, root).notes
    assert note.startswith("2 clips of videos that are no longer in ")
    assert "('Run/a', 'Run/b')" in note
    assert make_plan(videos / "Jump" / "c.avi", root).notes == (), "one video of the folder says nothing about the others"
    (root / "clips/Run/a.h5").unlink()
    assert make_plan(videos, root).notes[0].startswith("1 clip of videos that are no longer in ")


@pytest.mark.parametrize("packed", [False, True])
def test_a_root_that_has_lost_its_record_does_not_get_other_settings(tmp_path: Path, packed: bool) -> None:
    videos, root = tmp_path / "videos", tmp_path / "data"
    write_video(videos / "Run/a.avi", 12)
    write_video(videos / "Jump/b.avi", 12, seed=1)
    extract(videos, root, settings=SETTINGS, jobs=1)
    if packed:
        pack(root, move=True)
    (root / "dataset.json").unlink()
    with pytest.raises(ParameterError, match=r"lost its dataset\.json.*short_side 32 instead of 40"):
        make_plan(videos, root, settings=replace(SETTINGS, short_side=40))
    assert not (root / "dataset.json").exists()
    assert [result.video_id for result in make_plan(videos, root, settings=SETTINGS).skipped] == ["Jump/b", "Run/a"]


def test_a_folder_inside_the_one_that_the_root_was_made_from_is_not_extracted_unawares(tree: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    open_root(root, tree, ExtractSettings())
    said = warnings(tree / "Run", root)
    assert f"they get other ids than there: give the whole folder, `flowkit extract {tree}`, which skips what is done" in said
    assert "keep the two apart" not in said


def test_a_data_root_is_no_folder_of_videos(tmp_path: Path) -> None:
    root = tmp_path / "data"
    open_root(root, tmp_path, ExtractSettings())
    with pytest.raises(ManifestError, match=r"no video found under .* \(it is a data root\)"):
        make_plan(root, root)
