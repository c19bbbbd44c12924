"""What stats says: counts of all, speeds against a direct computation, seeded samples, leaks."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from command_lines import run_flowkit

from flowkit.dataset.clips import ClipSource, find_clips
from flowkit.dataset.manifest import write_split
from flowkit.dataset.root import Dataset, open_root
from flowkit.dataset.settings import ExtractSettings
from flowkit.describe.statistics import FlowSample, stats
from flowkit.errors import ManifestError
from flowkit.quantise import Quantiser
from flowkit.shards.reader import ShardReader
from flowkit.shards.schema import ClipAttributes
from flowkit.shards.writer import ClipWriter
from flowkit.video.ids import group_of

ALL = {"videos_per_class": 0, "fields_per_video": 0}

run = partial(run_flowkit, "stats")


def write_clip(
    root: Path, video_id: str, q: np.ndarray, quantiser: Quantiser, *, source_sha256: str = "", frame_rate: str = "10/1"
) -> None:
    with ClipWriter(root / "clips" / f"{video_id}.h5", height=q.shape[2], width=q.shape[3]) as writer:
        writer.append_frames(np.zeros((len(q) + 1, *q.shape[2:], 3), np.uint8))
        writer.append_flow(q)
        writer.finish(
            ClipAttributes(
                video_id=video_id,
                class_name=video_id.rpartition("/")[0],
                source_name="x.avi",
                source_sha256=source_sha256,
                frame_rate=frame_rate,
                num_frames=len(q) + 1,
                header_frames=0,
                decode_errors=0,
                codec="zstd",
                quantiser=quantiser.to_dict(),
                tvl1={},
                solver="strict",
            )
        )


@pytest.fixture
def loose_root(tmp_path: Path) -> Path:
    open_root(tmp_path, tmp_path / "videos", ExtractSettings())
    return tmp_path


def test_counts_of_every_class_and_subset_are_those_of_the_manifest(packed_root: Path) -> None:
    split = Dataset.open(packed_root).split(1)
    measured = stats(packed_root)
    assert measured.split == 1
    for row in measured.classes:
        records = [r for r in (split.train if row.subset == "train" else split.test) if r.class_name == row.class_name]
        assert row.num_videos == len(records) > 0
        assert row.num_frames == sum(r.num_frames for r in records)
        assert row.seconds == pytest.approx(row.num_frames / 25, abs=1e-3)
    assert [(row.subset, row.num_videos) for row in measured.subsets] == [("train", 12), ("test", 6)]
    assert [row.class_name for row in measured.classes][::2] == list(split.classes)


def test_speeds_of_all_fields_are_those_computed_directly(packed_root: Path) -> None:
    measured = stats(packed_root, **ALL)
    train = {r.video_id for r in Dataset.open(packed_root).split(1).train}
    speeds, at_bound, num_fields = [], [], 0
    with ClipSource(stored := find_clips(packed_root)) as source:
        for video_id in stored.paths:
            if video_id in train:
                clip = source.clip(video_id)
                q = clip.flow(0, clip.num_frames - 1)
                flow = clip.quantiser.decode(q).astype(np.float64)
                speeds.append(np.hypot(flow[:, 0], flow[:, 1]).ravel())
                at_bound.append(((q == 1) | (q == 255)).any(axis=1).ravel())
                num_fields += len(q)
    speed = np.concatenate(speeds)
    flow_stats = measured.subsets[0].flow
    assert flow_stats is not None
    assert flow_stats.num_fields == num_fields
    assert flow_stats.mean_px == pytest.approx(speed.mean(), abs=1e-4)
    for share, value in ((50, flow_stats.median_px), (90, flow_stats.p90_px), (99, flow_stats.p99_px), (100, flow_stats.max_px)):
        assert value == pytest.approx(np.percentile(speed, share, method="inverted_cdf"), abs=1e-4)
    assert flow_stats.clipped_share == np.concatenate(at_bound).mean()


@pytest.mark.parametrize(
    ("mapping", "clipped", "not_clipped"), [("symmetric", (0, 1, 255), (2, 254)), ("paper", (0, 255), (1, 254))], ids=["symmetric", "paper"]
)
def test_clipped_means_at_the_bound_of_the_mapping(
    loose_root: Path, mapping: str, clipped: tuple[int, ...], not_clipped: tuple[int, ...]
) -> None:
    q = np.full((1, 2, 4, 10), 128, np.uint8)
    q[0, 0, 0, : len(clipped)] = clipped
    q[0, 1, 1, : len(not_clipped)] = not_clipped
    write_clip(loose_root, "a/b", q, Quantiser(10.0, mapping))  # type: ignore[arg-type]
    (row,) = stats(loose_root, **ALL).subsets
    assert row.flow is not None
    assert row.flow.clipped_share == len(clipped) / 40
    assert row.flow.median_px == 0, "byte 128 is no motion in both mappings"


def test_a_sample_is_the_same_for_the_same_seed_and_another_for_another(packed_root: Path) -> None:
    first, again, other = (stats(packed_root, videos_per_class=1, fields_per_video=2, seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert first.classes != other.classes
    assert all(row.flow is not None and row.flow.num_fields == 2 for row in first.classes)
    assert [row.num_frames for row in first.classes] == [row.num_frames for row in other.classes], "counts are of all videos"


def test_samples_are_drawn_from_all_over_a_video_without_repeats() -> None:
    drawn = [k for number in range(200) for k in FlowSample(20, 4, 0).fields(f"v{number}", 10)]
    assert set(drawn) == set(range(10))
    assert all(len(set(FlowSample(20, 4, 0).fields(f"v{number}", 10))) == 4 for number in range(20))
    assert FlowSample(20, 4, 0).fields("short", 3) == [0, 1, 2]


def test_without_a_split_classes_are_folders(loose_root: Path) -> None:
    q = np.full((4, 2, 6, 8), 140, np.uint8)
    for video_id in ("run/a", "run/b", "walk/c", "flat"):
        write_clip(loose_root, video_id, q, Quantiser())
    measured = stats(loose_root)
    assert [(row.class_name, row.subset, row.num_videos) for row in measured.classes] == [("", "", 1), ("run", "", 2), ("walk", "", 1)]
    assert [(row.class_name, row.num_videos) for row in measured.subsets] == [(None, 4)]
    code, out, _ = run("--data", loose_root)
    assert code == 0
    assert "no split" in out
    assert out.count("(all)") == out.count("(no class)") == 1


def test_speeds_per_second_are_those_of_videos_whose_frame_rate_is_known(loose_root: Path) -> None:
    slow, fast = np.full((4, 2, 6, 8), 128, np.uint8), np.full((4, 2, 6, 8), 128, np.uint8)
    slow[:, 0], fast[:, 0] = 128 + 32, 128 + 64
    write_clip(loose_root, "run/a", slow, Quantiser(20), frame_rate="50/1")
    write_clip(loose_root, "run/b", fast, Quantiser(20), frame_rate="10/1")
    write_clip(loose_root, "walk/c", fast, Quantiser(20), frame_rate="0/1")
    per_frame = [float(Quantiser(20).decode(np.array([level], np.uint8))[0]) for level in (128 + 32, 128 + 64)]
    measured = stats(loose_root, **ALL)
    run_row, walk_row = (row.flow for row in measured.classes)
    assert run_row is not None
    assert walk_row is not None
    assert run_row.mean_px_per_second == pytest.approx((50 * per_frame[0] + 10 * per_frame[1]) / 2, abs=1e-3)
    assert run_row.mean_px == pytest.approx(sum(per_frame) / 2, abs=1e-4)
    assert walk_row.mean_px_per_second is None
    (both,) = (row.flow for row in measured.subsets)
    assert both is not None
    assert both.mean_px_per_second == run_row.mean_px_per_second
    assert "mean px/s is - where no measured video has a known frame rate" in run("--data", loose_root).out


def split_of(root: Path, places: dict[str, str]) -> None:
    """Write a split over clip files, as if each were in a shard."""
    from flowkit.dataset.manifest import ClipRecord

    records = {
        name: [ClipRecord(v, 0, "A", 5, "shard-00000.h5") for v, subset in places.items() if subset == name] for name in ("train", "test")
    }
    write_split(
        root,
        1,
        protocol="csv",
        classes=["A", "B"],
        train=records["train"],
        test=records["test"],
        num_listed_train=9,
        num_listed_test=9,
        quantiser=Quantiser(),
        shards={"shard-00000.h5": "0" * 64},
    )


def test_groups_and_files_in_both_halves_are_leaks_and_others_are_not(loose_root: Path) -> None:
    q = np.full((4, 2, 6, 8), 140, np.uint8)
    places = {
        "A/v_A_g01_c01": "train",
        "A/v_A_g1_c02": "test",
        "A/v_A_g02_c01": "train",
        "A/v_A_g03_c01": "test",
        "A/w": "train",
        "A/x": "test",
    }
    for video_id in (*places, "A/v_A_g02_c09"):
        write_clip(loose_root, video_id, q, Quantiser(), source_sha256="ab" * 32 if video_id in ("A/w", "A/x") else "")
    split_of(loose_root, places)
    measured = stats(loose_root)
    assert [(leak.what, leak.name, leak.train, leak.test) for leak in measured.leaks] == [
        ("group", "A, group 1", ("A/v_A_g01_c01",), ("A/v_A_g1_c02",)),
        ("same file", "ab" * 32, ("A/w",), ("A/x",)),
    ]
    assert measured.empty_classes == ("B",)
    assert [(row.subset, row.num_videos) for row in measured.subsets] == [("train", 3), ("test", 3), ("unlisted", 1)]
    code, out, _ = run("--data", loose_root)
    assert code == 0
    assert "share 2 groups or files" in out
    assert "A/v_A_g01_c01" in out


def test_group_marks_are_read_from_the_last_part_of_the_id_alone() -> None:
    assert group_of("x_g09_y/v_Archery_g07_c01") == 7
    assert group_of("x_g09_y/clip") is None


def test_a_damaged_clip_is_named_and_the_others_are_measured(packed_root: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(packed_root, tmp_path / "root"))
    shutil.rmtree(root / "shards")
    path = root / "clips" / "colour0-motion0" / "v00.h5"
    with ShardReader(path) as reader:
        start = int(reader.clip("colour0-motion0/v00")._layout.flow.starts[0])  # type: ignore[union-attr]
    data = bytearray(path.read_bytes())
    data[start + 20] ^= 255
    path.write_bytes(data)
    code, out, err = run("--data", root, "--all")
    assert code == 3
    assert "v00.h5" in err
    assert "(all)" in out


def test_json_is_the_declared_model_and_an_unknown_split_is_an_error(packed_root: Path) -> None:
    code, out, _ = run("--data", packed_root, "--json")
    assert code == 0
    assert json.loads(out) == json.loads(json.dumps(stats(packed_root).to_dict()))
    with pytest.raises(ManifestError, match="no split 7"):
        stats(packed_root, split=7)
    assert run("--data", packed_root, "--split", "7")[0] == 1
