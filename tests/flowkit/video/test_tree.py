"""What lies in a folder of videos: which files are videos, what is ignored and counted, and what the folders say about classes."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np
import pytest

from flowkit import ManifestError, probe, read_frames
from flowkit.video.containers import VIDEO_SUFFIXES
from flowkit.video.folders import read_layout
from flowkit.video.tree import Scan, ignored_text, scan_videos


def scan(root: Path, *names: str) -> Scan:
    """Make empty files of these names, and scan the folder."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return scan_videos(root, VIDEO_SUFFIXES)


def ids(found: Scan) -> list[str]:
    return [video.video_id for video in found.videos]


def encoded(path: Path, codec: str, container: str) -> Path:
    import av

    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for k in range(12):
            picture = np.full((48, 64, 3), 20 * k, np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("name", "codec", "container"),
    [
        *(("a.h264", "libx264", "h264"), ("a.264", "libx264", "h264"), ("a.dav", "libx264", "h264"), ("a.hevc", "libx265", "hevc")),
        *(("a.h265", "libx265", "hevc"), ("a.ivf", "libvpx", "ivf"), ("a.m2t", "mpeg2video", "mpegts"), ("a.m2p", "mpeg2video", "vob")),
        *(
            ("a.MOD", "mpeg2video", "vob"),
            ("a.vro", "mpeg2video", "vob"),
            ("a.trp", "mpeg2video", "mpegts"),
            ("a.m2v", "mpeg2video", "mpeg2video"),
        ),
        *(("a.obu", "libsvtav1", "obu"), ("a.y4m", "wrapped_avframe", "yuv4mpegpipe"), ("a.mk3d", "mpeg4", "matroska")),
    ],
)
def test_files_of_recorders_and_bare_streams_are_found_and_read(tmp_path: Path, name: str, codec: str, container: str) -> None:
    encoded(tmp_path / name, codec, container)
    (video,) = scan_videos(tmp_path, VIDEO_SUFFIXES).videos
    assert sum(len(batch.frames) for batch in read_frames(video.path, short_side=None)) == 12


def dahua(stream: bytes) -> bytes:
    """Wrap an H.264 stream as recorders of Dahua do: a header with picture size, codec and rate, the pictures, a trailer."""
    extension = bytes((0x80, 0, 64 // 8, 48 // 8)) + bytes((0x81, 0, 0x02, 25))
    length = 24 + len(extension) + len(stream) + 8
    header = struct.pack("<4sBBBBIIIHBB", b"DHAV", 0xFD, 0, 0, 0, 0, length, 0x5C21_0000, 0, len(extension), 0)
    return header + extension + stream + b"dhav" + struct.pack("<I", length)


def test_a_recording_in_the_container_of_dahua_is_read(tmp_path: Path) -> None:
    stream = encoded(tmp_path / "a.h264", "libx264", "h264").read_bytes()
    (tmp_path / "cam.dav").write_bytes(dahua(stream))
    assert probe(tmp_path / "cam.dav").container == "dhav"
    assert next(read_frames(tmp_path / "cam.dav", short_side=None)).frames.shape[1:] == (48, 64, 3)


def test_the_bare_stream_and_the_recording_of_the_cases_are_found(shared_cases: Path) -> None:
    found = scan_videos(shared_cases / "video", VIDEO_SUFFIXES)
    assert {"raw", "cam"} <= {*ids(found)}
    assert found.ignored[".gif"] == 1


def test_what_is_ignored_is_counted_by_suffix(tmp_path: Path) -> None:
    found = scan(tmp_path, "a/1.avi", "a/1.srt", "a/2.srt", "a/x.gif", "a/README", "b/Note.TXT", ".DS_Store")
    assert found.ignored == {".srt": 2, ".gif": 1, ".txt": 1, "hidden": 1, "without suffix": 1}
    assert ignored_text(found.ignored) == "6 other files ignored: 2 .srt, 1 .gif, 1 .txt, 1 hidden, 1 without suffix"
    assert ignored_text({}) == ""
    assert ignored_text({".gif": 1}) == "1 other file ignored: 1 .gif"


def test_the_text_about_ignored_files_is_of_bounded_length(tmp_path: Path) -> None:
    names = [f"x.s{k}" for k in range(300)] + ["a." + "y" * 200, "\udcff.\udcff"]
    try:
        found = scan(tmp_path, *names)
    except OSError:
        pytest.skip("this file system holds UTF-8 names only")
    assert sum(found.ignored.values()) == 302
    assert len(found.ignored) < 40
    assert found.ignored["others"] == 272
    text = ignored_text(found.ignored)
    assert len(text) < 200
    text.encode("utf-8")


@pytest.mark.parametrize(
    "folder",
    [
        *(".ipynb_checkpoints", ".Trash-1000/files", ".git/lfs", "__MACOSX", "$RECYCLE.BIN/S-1-5", "System Volume Information"),
        *("@eaDir", "lost+found", "#recycle"),
    ],
)
def test_hidden_folders_and_those_of_systems_are_ignored_and_counted(tmp_path: Path, folder: str) -> None:
    found = scan(tmp_path, "run/a.avi", f"{folder}/b.avi", f"run/{folder}/c.avi", "run/.d.avi")
    assert ids(found) == ["run/a"]
    assert found.ignored == {"hidden": 3}


def test_a_hidden_folder_that_the_user_names_is_searched(tmp_path: Path) -> None:
    assert ids(scan(tmp_path / ".videos", "run/a.avi")) == ["run/a"]


def test_the_hidden_folders_of_the_cases_are_ignored(shared_cases: Path) -> None:
    found = scan_videos(shared_cases / "video" / "hidden_folders", VIDEO_SUFFIXES)
    assert ids(found) == ["run/run", "walk/walk"]
    assert found.ignored == {"hidden": 2}


def test_all_files_that_would_share_an_id_are_named_at_once(tmp_path: Path) -> None:
    names = [f"c/{k}.{suffix}" for k in (1, 2, 3) for suffix in ("mp4", "webm")] + ["c/3.AVI", "c/4.mp4"]
    with pytest.raises(ManifestError, match="3 ids: 'c/1': ") as error:
        scan(tmp_path, *names)
    assert all(re.search(re.escape(name), str(error.value)) for name in names[:-1])
    assert "c/4" not in str(error.value)


def test_an_error_about_many_shared_ids_is_bounded_and_gives_their_number(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"25 ids: .* and 15 more") as error:
        scan(tmp_path, *[f"c/{k}.{suffix}" for k in range(25) for suffix in ("mp4", "webm")])
    assert len(str(error.value)) < 10 * 2 * (len(str(tmp_path)) + 20) + 400


def test_a_tree_that_is_nested_too_deeply_is_reported_and_stops_nothing(tmp_path: Path) -> None:
    deep = tmp_path
    for _ in range(6):
        deep = deep / ("d" * 200)
    deep.mkdir(parents=True)
    (deep / "a.avi").touch()
    found = scan(tmp_path, "run/a.avi")
    assert ids(found) == ["run/a"]
    assert [why.partition("(")[0] for _, why in found.unreadable] == ["the folder is nested too deeply "]


# -- folders that give a split -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("train", "val"), ("training", "validation"), ("Train", "TEST"), ("valid", "testing")])
def test_folders_of_subsets_give_the_split_and_those_inside_the_classes(tmp_path: Path, names: tuple[str, str]) -> None:
    found = scan(tmp_path, *[f"{top}/{name}/{k}.mp4" for top in names for name in ("archery", "bowling") for k in range(2)])
    assert found.layout.has_subsets
    assert {video.class_name for video in found.videos} == {"archery", "bowling"}
    assert ids(found)[0].startswith(names[0] if names[0] in sorted(names)[0] else names[1])
    assert len(found.layout.subset_folders) == 2


def test_the_layout_of_kinetics_has_three_classes(shared_cases: Path) -> None:
    found = scan_videos(shared_cases / "video" / "kinetics_layout", VIDEO_SUFFIXES)
    assert found.layout.classes == ("archery", "bowling", "passing American football (in game)")
    assert sorted(found.layout.subset_of.values()) == ["train"] * 9 + ["val"] * 9
    assert {video.class_name for video in found.videos} == {*found.layout.classes}


def test_deeper_folders_are_parts_of_the_class() -> None:
    layout = read_layout(["train/sports/archery/1", "test/sports/archery/2"])
    assert layout.classes == ("sports/archery",)


@pytest.mark.parametrize(
    ("video_ids", "classes", "doubt"),
    [
        (
            ["train/archery/1", "val/archery/2", "replacement/x/3"],
            ("replacement/x", "train/archery", "val/archery"),
            "'replacement' is beside",
        ),
        (["train/archery/1", "val/archery/2", "test/3"], ("test", "train/archery", "val/archery"), "videos lie directly in 'test'"),
        (["train/1", "val/2"], ("train", "val"), "videos lie directly in 'train' and 'val'"),
        (["train/steam/1", "bus/2"], ("bus", "train/steam"), "'bus' is beside"),
        (["train/1", "bus/2"], ("bus", "train"), ""),
        (["archery/train/1", "archery/test/2"], ("archery/test", "archery/train"), "but they lie in other folders, such as 'archery'"),
        (["k400/train/archery/1", "k400/val/archery/2"], ("k400/train/archery", "k400/val/archery"), "in other folders, such as 'k400'"),
        (["archery/test/1", "archery/2", "bus/test/3"], ("archery", "archery/test", "bus/test"), ""),
        (["1", "2"], (), ""),
    ],
)
def test_other_folders_are_classes_as_a_whole_and_doubt_is_put_in_words(video_ids: list[str], classes: tuple[str, ...], doubt: str) -> None:
    layout = read_layout(video_ids)
    assert not layout.has_subsets
    assert layout.classes == classes
    assert doubt in layout.doubt
    assert bool(doubt) == bool(layout.doubt)


def test_a_video_beside_the_folders_of_subsets_has_no_class() -> None:
    layout = read_layout(["train/archery/1", "test/archery/2", "trailer"])
    assert layout.has_subsets
    assert layout.class_of["trailer"] == ""
    assert "trailer" not in layout.subset_of
