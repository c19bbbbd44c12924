"""What info says of files and data roots: the facts that went in, whether packed or not, and what cannot be read."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
from command_lines import run_flowkit

from flowkit.dataset.clips import ClipSource, find_clips, similar_ids
from flowkit.describe.contents import describe_file, describe_root
from flowkit.errors import ManifestError, ShardFormatError
from flowkit.shards.reader import ShardReader


@pytest.fixture
def root(packed_root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packed_root, tmp_path / "root"))


run = partial(run_flowkit, "info")


def test_a_clip_file_is_described_by_what_it_holds(packed_root: Path) -> None:
    path = next((packed_root / "clips").rglob("v00.h5"))
    described = describe_file(path)
    with ShardReader(path) as reader:
        clip = reader.clip(reader.video_ids[0])
        assert described.contents.num_frames == clip.num_frames
        assert described.contents.num_pairs == clip.num_frames - 1
        assert described.contents.stored_bytes == clip.stored_bytes
    assert described.num_bytes == path.stat().st_size
    assert described.contents.codecs == {"zstd": 1}
    assert described.contents.quantisers == {'{"bound":20.0,"mapping":"symmetric"}': 1}
    assert described.contents.sizes == {"56x40": 1}
    assert described.contents.seconds == pytest.approx(described.contents.num_frames / 25, abs=1e-3)
    assert [video.video_id for video in described.videos] == ["colour0-motion0/v00"]


def test_a_root_counts_every_video_once_whether_in_a_clip_a_shard_or_both(root: Path) -> None:
    both = describe_root(root)
    assert (both.contents.num_videos, both.num_clip_files, both.num_shards, both.num_packed) == (18, 18, 2, 18)
    shutil.rmtree(root / "clips")
    only_shards = describe_root(root)
    assert only_shards.contents == both.contents
    assert (only_shards.num_clip_files, only_shards.clip_bytes) == (0, 0)


def test_a_root_without_shards_is_described_from_its_clips(root: Path) -> None:
    before = describe_root(root).contents
    shutil.rmtree(root / "shards")
    shutil.rmtree(root / "splits")
    described = describe_root(root)
    assert described.contents == before
    assert (described.num_packed, described.splits) == (0, ())
    code, out, _ = run(root)
    assert code == 0
    assert "no split yet" in out


def test_splits_are_counted_and_a_damaged_one_says_why(root: Path) -> None:
    (split,) = describe_root(root).splits
    assert (split.number, split.num_classes, split.num_train, split.num_test, split.num_listed_test) == (1, 6, 12, 6, 7)
    (root / "splits" / "split1" / "train.csv").write_text("nonsense")
    (split,) = describe_root(root).splits
    assert "train.csv" in split.problem


def test_a_damaged_clip_is_named_and_the_rest_is_described(root: Path) -> None:
    shutil.rmtree(root / "shards")
    path = next((root / "clips").rglob("v03.h5"))
    path.write_bytes(path.read_bytes()[:-100])
    code, out, err = run(root)
    assert code == 3
    assert "v03.h5" in err
    assert "truncated" in err
    assert "videos      17" in out


def test_a_damaged_shard_is_named_and_its_clip_files_stand_in(root: Path) -> None:
    (root / "shards" / "shard-00001.h5").write_bytes(b"not HDF5")
    described = describe_root(root)
    assert described.contents.num_videos == 18
    assert [Path(path).name for path, _ in described.unreadable] == ["shard-00001.h5"]


def test_json_is_the_declared_model(packed_root: Path) -> None:
    code, out, _ = run(packed_root, "--json")
    assert code == 0
    assert json.loads(out) == json.loads(json.dumps(describe_root(packed_root).to_dict()))
    shard = packed_root / "shards" / "shard-00000.h5"
    code, out, _ = run(shard, "--json")
    assert json.loads(out) == json.loads(json.dumps(describe_file(shard).to_dict()))


def test_text_names_codec_solver_quantiser_and_splits(packed_root: Path) -> None:
    code, out, _ = run("--data", packed_root)
    assert code == 0
    for expected in ("zstd", "strict", "bound 20 px/frame, mapping symmetric", "preset opencv", "56x40", "18 of 18 videos", "automatic"):
        assert expected in out
    code, out, _ = run(packed_root / "shards" / "shard-00000.h5")
    assert "colour0-motion0/v00" in out


def test_what_is_no_root_and_no_shard_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"dataset\.json"):
        describe_root(tmp_path)
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(ShardFormatError, match=r"text\.h5"):
        describe_file(tmp_path / "text.h5")


def test_clips_are_read_the_same_from_shards_and_clip_files(root: Path) -> None:
    with ClipSource(find_clips(root)) as packed:
        first = {video_id: packed.clip(video_id).sha256 for video_id in find_clips(root).paths}
    shutil.rmtree(root / "shards")
    with ClipSource(find_clips(root)) as loose:
        assert {video_id: loose.clip(video_id).sha256 for video_id in find_clips(root).paths} == first


IDS = ["ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01", "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c02", "BenchPress/v_BenchPress_g01_c01"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("v_ApplyEyeMakeup_g01_c02", IDS[1]),
        ("applyeyemakeup/v_applyeyemakeup_g01_c01", IDS[0]),
        ("BenchPres/v_BenchPress_g01_c01", IDS[2]),
        ("v_BenchPres_g01_c01", IDS[2]),
        ("ApplyEyeMakeup/v_ApplyEyeMakup_g01_c02", IDS[1]),
    ],
)
def test_a_mistyped_id_suggests_the_one_that_was_meant_first(typed: str, meant: str) -> None:
    assert similar_ids(typed, IDS)[0] == meant


def test_an_unknown_id_is_an_error_with_suggestions_or_an_example(packed_root: Path) -> None:
    with ClipSource(find_clips(packed_root)) as source:
        with pytest.raises(ManifestError, match=r"did you mean .*'colour0-motion0/v00'"):
            source.clip("colour0-motion0/v0O")
        with pytest.raises(ManifestError, match="ids look like"):
            source.clip("qqqqqqqq")
