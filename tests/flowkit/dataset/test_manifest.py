"""A folder's videos by id, a split's tables and manifest: everything that is read is checked."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import random
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from flowkit.dataset.csv_fields import original_field
from flowkit.dataset.manifest import ClipRecord, Split, write_split
from flowkit.dataset.root import Dataset, check_apart, open_root
from flowkit.dataset.settings import ExtractSettings
from flowkit.errors import ManifestError
from flowkit.quantise import Quantiser
from flowkit.video.ids import check_video_id, comparable_name
from flowkit.video.tree import scan_videos

SUFFIXES = frozenset({".avi", ".mp4"})
STRANGE = [
    "plain", "a b", 'q"uote', "com,ma", "two\nlines", "carriage\rreturn", "tab\t", "é", "e\u0301", "🎬", "[x](y)", "<script>",
    "\x1b[31m", "-i", "%03d", "a.b.c", " x ", "=1+1", "concat:x",
]  # fmt: skip


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


# -- video ids ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "video_id", ["a", "a/b", "a/b/c", "...", ".hidden/x", "a/.index/x", "a..b", "console", "con-1/x", "x" * 240, *STRANGE]
)
def test_relative_names_of_any_kind_are_video_ids(video_id: str) -> None:
    check_video_id(video_id)


@pytest.mark.parametrize(
    "video_id",
    [
        "", "/", "/etc/passwd", "../x", "a/../x", "a/..", "..", ".", "./a", "a/./b", "a//b", "a/", "//host/share", "a\0b", "\\\\host\\x",
        "..\\x", "a\\b", "C:/x", "c:x", "a:b", "con", "NUL", "a/aux", "Com1.old", "lpt9/x", "nul .txt", "caf\udce9", "x" * 241, "é" * 121,
        "a/" * 600 + "b", None, 3, b"a", ["a"], ".index/x", ".INDEX/x", ".segments", ".segments/a/b",
    ],
)  # fmt: skip
def test_what_could_leave_the_root_or_is_no_name_is_refused(video_id: object) -> None:
    with pytest.raises(ManifestError):
        check_video_id(video_id)


def test_no_accepted_id_leaves_its_root() -> None:
    rng = random.Random(3)
    alphabet = ["a", ".", "..", "/", "\\", "\0", "C:", "~", "con", " ", "\n", "é", "\udce9"]
    accepted = 0
    for _ in range(20000):
        video_id = "".join(rng.choice(alphabet) for _ in range(rng.randint(0, 6)))
        try:
            check_video_id(video_id)
        except ManifestError:
            continue
        accepted += 1
        assert os.path.normpath(f"/root/{video_id}.h5") == f"/root/{video_id}.h5"
        assert f"/root/{video_id}".startswith("/root/")
    assert accepted > 100


def test_names_fold_alike_whatever_their_case_and_composition() -> None:
    assert comparable_name("É/STRASSE") == comparable_name("e\u0301/straße") != comparable_name("e/strasse")


# -- scanning ----------------------------------------------------------------------------------------------------------------------


def test_a_tree_is_scanned_into_sorted_ids_and_classes(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.avi", "b/10.AVI", "a/x.y.mp4", "flat.avi", "deep/er/z.avi", "b/readme.txt", "Thumbs.db", ".DS_Store", "b/._2.avi")
    scan = scan_videos(tmp_path, SUFFIXES)
    assert [(video.video_id, video.class_name) for video in scan.videos] == [
        ("a/x.y", "a"),
        ("b/10", "b"),
        ("b/2", "b"),
        ("deep/er/z", "deep/er"),
        ("flat", ""),
    ]
    assert scan.videos[1].path == tmp_path / "b" / "10.AVI"
    assert scan.ignored == {"hidden": 2, ".db": 1, ".txt": 1}
    assert scan.unreadable == ()


@pytest.mark.parametrize("name", STRANGE)
def test_strange_names_are_scanned_whole(tmp_path: Path, name: str) -> None:
    touch(tmp_path, f"{name}/{name}.avi")
    (video,) = scan_videos(tmp_path, SUFFIXES).videos
    assert (video.video_id, video.class_name) == (f"{name}/{name}", name)
    assert video.path.is_file()


def test_two_files_that_differ_only_in_suffix_are_an_error_naming_both(tmp_path: Path) -> None:
    touch(tmp_path, "c/a.avi", "c/a.mp4")
    with pytest.raises(ManifestError, match=r"c/a\.avi.*c/a\.mp4"):
        scan_videos(tmp_path, SUFFIXES)


def test_names_that_the_file_system_takes_for_one_are_an_error_that_names_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system as macOS's and Windows's, the clip of one would overwrite the other's; a stand-in, since Linux's tell them apart."""
    ids = ["run/B", "Run/x", "run/b", "run/X"]
    check_apart(tmp_path / "not" / "there", ids)
    assert os.listdir(tmp_path) == []
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: any(other.name.lower() == path.name.lower() for other in path.parent.iterdir()))
    check_apart(tmp_path, ["run/b", "run/c", "Run/d"])
    with pytest.raises(ManifestError, match="as the same name: 'Run/x' and 'run/X', 'run/B' and 'run/b';"):
        check_apart(tmp_path, ids)
    monkeypatch.setattr(Path, "exists", exists)
    assert os.listdir(tmp_path) == []


def test_names_that_differ_only_in_case_or_composition_are_two_videos(tmp_path: Path) -> None:
    touch(tmp_path, "c/a.avi", "c/A.avi", "C/a.avi", "c/\u00e9.avi", "c/e\u0301.avi")
    if len(list(tmp_path.rglob("*.avi"))) < 5:
        pytest.skip("this file system treats them as one")
    assert len(scan_videos(tmp_path, SUFFIXES).videos) == 5


def test_a_name_that_is_not_utf8_is_reported_escaped(tmp_path: Path) -> None:
    touch(tmp_path, "c/good.avi")
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/c/caf\xe9.avi")).touch()
        os.mkdir(os.fsencode(tmp_path) + b"/\xff")
    except OSError:
        pytest.skip("this file system holds UTF-8 names only")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff/inside.avi")).touch()
    scan = scan_videos(tmp_path, SUFFIXES)
    assert [video.video_id for video in scan.videos] == ["c/good"]
    assert [name for name, _ in scan.unreadable] == ["\\xff/inside.avi", "c/caf\\xe9.avi"]
    assert all("UTF-8" in reason for _, reason in scan.unreadable)
    json.dumps(scan.unreadable).encode("utf-8")


def test_names_that_cannot_be_ids_are_reported_and_stop_nothing(tmp_path: Path) -> None:
    touch(tmp_path, "c/good.avi", "c/nul.avi", "c/a\\b.avi", f"c/{'x' * 245}.avi")
    scan = scan_videos(tmp_path, SUFFIXES)
    assert [video.video_id for video in scan.videos] == ["c/good"]
    assert len(scan.unreadable) == 3


def test_links_to_files_and_folders_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    touch(tmp_path, "store/a/1.avi", "store/2.avi")
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "linked").symlink_to(tmp_path / "store" / "a")
    (videos / "again").symlink_to(tmp_path / "store" / "a")
    (videos / "two.avi").symlink_to(tmp_path / "store" / "2.avi")
    (videos / "loop").symlink_to(videos)
    (tmp_path / "store" / "a" / "up").symlink_to(videos)
    (videos / "self").symlink_to(videos / "self")
    (videos / "broken.avi").symlink_to(tmp_path / "nothing.avi")
    (videos / "broken").symlink_to(tmp_path / "nothing")
    scan = scan_videos(videos, SUFFIXES)
    assert [video.video_id for video in scan.videos] == ["again/1", "linked/1", "two"]
    assert [name for name, _ in scan.unreadable] == ["broken.avi"]
    assert scan.ignored == {"without suffix": 2}  # "broken" and "self"


def test_a_folder_that_looks_like_a_video_is_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "film.avi/part.avi")
    assert [video.video_id for video in scan_videos(tmp_path, SUFFIXES).videos] == ["film.avi/part"]


@pytest.mark.skipif(os.name == "nt", reason="no pipes in folders there")
def test_a_pipe_is_no_video(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.avi")
    scan = scan_videos(tmp_path, SUFFIXES)
    assert (scan.videos, [name for name, _ in scan.unreadable]) == ((), ["p.avi"])


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_a_folder_without_permission_is_reported(tmp_path: Path) -> None:
    touch(tmp_path, "open/1.avi", "closed/2.avi")
    (tmp_path / "closed").chmod(0)
    try:
        scan = scan_videos(tmp_path, SUFFIXES)
    finally:
        (tmp_path / "closed").chmod(0o755)
    assert [video.video_id for video in scan.videos] == ["open/1"]
    assert [name for name, _ in scan.unreadable] == ["closed"]


def test_a_video_root_that_is_not_there_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "file.avi")
    for root in ("absent", "file.avi"):
        with pytest.raises(ManifestError, match=root):
            scan_videos(tmp_path / root, SUFFIXES)


def test_an_empty_tree_has_no_videos(tmp_path: Path) -> None:
    assert scan_videos(tmp_path, SUFFIXES).videos == ()


def test_a_data_set_of_ucf101s_size_is_scanned_without_a_wait(tmp_path: Path) -> None:
    for c in range(101):
        folder = tmp_path / f"class{c}"
        folder.mkdir()
        for k in range(132):
            (folder / f"v_g{k // 6:02d}_c{k % 6:02d}.avi").touch()
    started = time.process_time()
    assert len(scan_videos(tmp_path, SUFFIXES).videos) == 101 * 132
    assert time.process_time() - started < 10  # a fraction of a second; this catches what is quadratic


# -- splits ------------------------------------------------------------------------------------------------------------------------

CLASSES = ("ant", "b,e e", "ç\nx", "dog")
SHARDS = {"shard-00000.h5": "ab" * 32, "shard-00001.h5": "cd" * 32}


def records() -> tuple[list[ClipRecord], list[ClipRecord]]:
    train = [
        ClipRecord(f"{CLASSES[k % 3]}/{name}", k % 3, CLASSES[k % 3], 11 + k, f"shard-0000{k % 2}.h5") for k, name in enumerate(STRANGE)
    ]
    return train, [ClipRecord("t/1", 3, "dog", 500, "shard-00001.h5")]


def make(root: Path, **changes: Any) -> Split:
    train, test = records()
    arguments: dict[str, Any] = {
        "protocol": "csv",
        "classes": CLASSES,
        "train": train,
        "test": test,
        "num_listed_train": 30,
        "num_listed_test": 2,
        "quantiser": Quantiser(),
        "shards": SHARDS,
    }
    open_root(root, Path("/videos"), ExtractSettings())
    return write_split(root, 1, **(arguments | changes))


def test_a_split_reads_back_as_it_was_written(tmp_path: Path) -> None:
    written = make(tmp_path)
    dataset = Dataset.open(str(tmp_path))
    assert (dataset.source, dataset.settings) == (os.path.abspath("/videos"), ExtractSettings())
    assert dataset.splits == [1]
    split = dataset.split(1)
    assert split == written
    train, test = records()
    assert split.train == tuple(sorted(train, key=lambda clip: clip.video_id))
    assert split.test == tuple(test)
    assert (split.number, split.protocol, split.classes, split.shards) == (1, "csv", CLASSES, SHARDS)
    assert (split.num_listed_train, split.num_listed_test) == (30, 2)
    assert split.quantiser == Quantiser()
    assert dataset.shard_path(split.test[0]) == tmp_path / "shards" / "shard-00001.h5"
    assert split.digest == hashlib.sha256((tmp_path / "splits" / "split1" / "split.json").read_bytes()).hexdigest()


def test_the_same_split_is_the_same_bytes_whatever_the_order(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    train, _ = records()
    first = make(tmp_path / "a")
    second = make(tmp_path / "b", train=train[::-1], shards=dict(reversed(SHARDS.items())))
    assert first == second
    for name in ("train.csv", "test.csv", "split.json"):
        assert (tmp_path / "a/splits/split1" / name).read_bytes() == (tmp_path / "b/splits/split1" / name).read_bytes()
    assert sorted(os.listdir(tmp_path / "a/splits/split1")) == ["split.json", "test.csv", "train.csv"]


def test_tables_are_plain_csv_that_any_reader_understands(tmp_path: Path) -> None:
    make(tmp_path)
    with (tmp_path / "splits/split1/train.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, strict=True))
    assert list(rows[0]) == ["video_id", "label", "class_name", "num_frames", "shard", "sha256"]
    assert [original_field(row["video_id"]) for row in rows] == sorted(clip.video_id for clip in records()[0])
    assert (
        tmp_path / "splits/split1/test.csv"
    ).read_bytes() == b"video_id,label,class_name,num_frames,shard,sha256\nt/1,3,dog,500,shard-00001.h5,\n"


def test_split_json_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import flowkit.dataset.manifest

    order: list[str] = []
    plain = flowkit.dataset.manifest.write_atomically

    def watched(path: Path, data: bytes | str) -> None:
        order.append(path.name)
        plain(path, data)

    monkeypatch.setattr(flowkit.dataset.manifest, "write_atomically", watched)
    make(tmp_path)
    assert order == ["train.csv", "test.csv", "split.json"]


def test_a_root_lists_its_whole_splits_in_order(tmp_path: Path) -> None:
    split = make(tmp_path)
    arguments = {field.name: getattr(split, field.name) for field in fields(Split) if field.name not in ("number", "digest")}
    for number in (10, 2):
        write_split(tmp_path, number, **arguments)
    touch(tmp_path, "splits/split3/train.csv", "splits/split04/split.json", "splits/other/split.json", "splits/split5")
    assert Dataset.open(tmp_path).splits == [1, 2, 10]
    with pytest.raises(ManifestError, match=r"no split 3 \(it has 1, 2, 10\).*flowkit pack --split 3"):
        Dataset.open(tmp_path).split(3)


def test_what_is_no_data_root_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="flowkit extract"):
        Dataset.open(tmp_path)
    assert Dataset.open_if_present(tmp_path) is None
    open_root(tmp_path, tmp_path / "videos", ExtractSettings())
    assert Dataset.open(tmp_path).splits == []
    with pytest.raises(ManifestError, match="it has none"):
        Dataset.open(tmp_path).split(1)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", '{"format": "other", "format_version": 1}', '{"format": "flowkit-dataset", "format_version": 2}',
     '{"format": "flowkit-dataset", "format_version": true}', '{"format": "flowkit-dataset"}', "[" * 100000, "\udce9",
     '{"format": "flowkit-dataset", "format_version": 1}'],
)  # fmt: skip
def test_a_foreign_dataset_json_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "dataset.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ManifestError, match=r"dataset\.json"):
        Dataset.open(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"classes": ("ant", "ant", "c", "dog")},
        {"classes": ()},
        {"classes": ("ant", "", "ç\nx", "dog")},
        {"protocol": 3},
        {"shards": {"shard-00000.h5": "ab" * 32}},
        {"shards": {**SHARDS, "../x.h5": "ab" * 32}},
        {"shards": {**SHARDS, "shard-00002.h5": "abc"}},
        {"num_listed_test": -1},
        {"test": [records()[0][0]]},
    ],
)
def test_a_split_that_contradicts_itself_is_not_written(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(ManifestError):
        make(tmp_path, **change)
    assert not (tmp_path / "splits").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"video_id": "../../etc/passwd"},
        {"video_id": "/etc/passwd"},
        {"video_id": ""},
        {"label": 0},
        {"label": 4},
        {"label": -1},
        {"class_name": "ant"},
        {"num_frames": 0},
        {"num_frames": -5},
        {"shard": "../../shard-00000.h5"},
        {"shard": "shard-00002.h5"},
    ],
)
def test_a_row_that_cannot_be_is_refused_though_its_digest_is_right(tmp_path: Path, change: dict[str, Any]) -> None:
    """As a hostile manifest from elsewhere would have it: the tables are edited and the digests made to fit."""
    make(tmp_path)
    good = records()[1][0]
    bad = replace(good, **change)
    table = f"video_id,label,class_name,num_frames,shard\n{bad.video_id},{bad.label},{bad.class_name},{bad.num_frames},{bad.shard}\n"
    forge(tmp_path, "test.csv", table.encode())
    with pytest.raises(ManifestError, match=r"test\.csv, line 2"):
        Dataset.open(tmp_path).split(1)


def forge(root: Path, name: str, table: bytes) -> None:
    folder = root / "splits" / "split1"
    (folder / name).write_bytes(table)
    record = json.loads((folder / "split.json").read_text(encoding="utf-8"))
    record["tables"][name] = hashlib.sha256(table).hexdigest()
    (folder / "split.json").write_text(json.dumps(record), encoding="utf-8")


@pytest.mark.parametrize(
    "table",
    [
        b"",
        b"video_id,label\n",
        b"video_id,label,class_name,num_frames,shard\nt/1,3,dog,500\n",
        b"video_id,label,class_name,num_frames,shard\nt/1,3,dog,500,shard-00001.h5,more\n",
        b"video_id,label,class_name,num_frames,shard\nt/1,3.0,dog,500,shard-00001.h5\n",
        b"video_id,label,class_name,num_frames,shard\nt/1, 3,dog,500,shard-00001.h5\n",
        "video_id,label,class_name,num_frames,shard\nt/1,٣,dog,500,shard-00001.h5\n".encode(),
        b"video_id,label,class_name,num_frames,shard\nt/1,3,dog," + b"9" * 5000 + b",shard-00001.h5\n",
        b'video_id,label,class_name,num_frames,shard\n"t/1,3,dog,500,shard-00001.h5\n',
        b"video_id,label,class_name,num_frames,shard\nt/\xe9,3,dog,500,shard-00001.h5\n",
        b"video_id,label,class_name,num_frames,shard\nt/1\0,3,dog,500,shard-00001.h5\n",
        b"video_id,label,class_name,num_frames,shard\nt/1,3,dog,500,shard-00001.h5\nt/1,3,dog,500,shard-00001.h5\n",
        b"video_id,label,class_name,num_frames,shard\n" + b"x" * 200000 + b",3,dog,500,shard-00001.h5\n",
    ],
)
def test_a_forged_table_is_refused(tmp_path: Path, table: bytes) -> None:
    make(tmp_path)
    forge(tmp_path, "test.csv", table)
    with pytest.raises(ManifestError):
        Dataset.open(tmp_path).split(1)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", "flowkit-shard"), ("format_version", 2), ("format_version", "1"), ("number", 2), ("protocol", None),
        ("classes", "ant"), ("classes", ["ant", 3]), ("classes", {"0": "ant"}), ("quantiser", None), ("quantiser", []),
        ("num_listed", None), ("num_listed", {"train": 1}), ("num_listed", {"train": 1, "test": True}),
        ("tables", {}), ("tables", {"train.csv": "ab" * 32}), ("tables", {"train.csv": 3, "test.csv": 4}),
        ("tables", {"../x": "ab" * 32, "test.csv": "ab" * 32}), ("shards", []), ("shards", {"a": "b"}),
        ("shards", {"shard-00000.h5": None}),
    ],
)  # fmt: skip
def test_wrong_values_in_split_json_are_refused(tmp_path: Path, key: str, value: object) -> None:
    make(tmp_path)
    path = tmp_path / "splits/split1/split.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    for wrong in (record | {key: value}, {k: v for k, v in record.items() if k != key}):
        path.write_text(json.dumps(wrong), encoding="utf-8")
        with pytest.raises(ManifestError):
            Dataset.open(tmp_path).split(1)


def test_every_flipped_bit_of_the_tables_and_most_mutations_of_split_json_are_refused(tmp_path: Path) -> None:
    """Never a crash, and never another table than was written."""
    good = make(tmp_path)
    rng = random.Random(5)
    folder = tmp_path / "splits" / "split1"
    for name in ("train.csv", "test.csv", "split.json"):
        whole = (folder / name).read_bytes()
        for _ in range(300):
            data = bytearray(whole)
            if rng.random() < 0.2:
                del data[rng.randrange(len(data)) :]
            else:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            (folder / name).write_bytes(data)
            try:
                split = Dataset.open(tmp_path).split(1)
            except ManifestError:
                continue
            assert name == "split.json"
            assert (split.train, split.test) == (good.train, good.test)
            assert split.digest != good.digest
        (folder / name).write_bytes(whole)
    assert Dataset.open(tmp_path).split(1) == good


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "splits/split1/test.csv").unlink()
    with pytest.raises(ManifestError, match=r"test\.csv"):
        Dataset.open(tmp_path).split(1)


def test_a_dataset_json_says_what_is_wrong_and_which_flowkit_wrote_it(tmp_path: Path) -> None:
    open_root(tmp_path, tmp_path / "videos", ExtractSettings())
    record = json.loads((tmp_path / "dataset.json").read_text())
    for change, words in [
        ({"settings": {"codec": "zstd"}}, r"written by flowkit \d.*exactly the keys.*run `flowkit extract` again"),
        ({"source": 3}, "source must be a text"),
        ({"versions": {"numpy": 2}}, "versions must give a text"),
    ]:
        (tmp_path / "dataset.json").write_text(json.dumps(record | change))
        with pytest.raises(ManifestError, match=words):
            Dataset.open(tmp_path)
    (tmp_path / "dataset.json").write_text(json.dumps({key: record[key] for key in ("format", "format_version", "settings")}))
    dataset = Dataset.open(tmp_path)  # newer fields are missing: their defaults
    assert (dataset.source, dataset.versions, dataset.settings) == ("", {}, ExtractSettings())


def test_a_quantiser_that_none_can_be_is_refused(tmp_path: Path) -> None:
    make(tmp_path)
    path = tmp_path / "splits" / "split1" / "split.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    for quantiser in ({}, {"bound": -1.0, "mapping": "symmetric"}, [1], None, {"bound": 20.0, "mapping": "other"}):
        path.write_text(json.dumps(record | {"quantiser": quantiser}), encoding="utf-8")
        with pytest.raises(ManifestError, match=r"split\.json: .*; pack the split again"):
            Dataset.open(tmp_path).split(1)
