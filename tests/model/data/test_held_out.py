"""The videos that are held out for validation: complete classes and groups, copies together, and the same for the same seed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from shard_files import make_root, write_clip

from flowkit.dataset.manifest import ClipRecord, Split
from flowkit.dataset.packing import pack
from flowkit.dataset.paths import clip_path
from flowkit.dataset.root import Dataset
from flowkit.errors import ParameterError
from flowkit.model.data.held_out import chosen_from, held_out
from flowkit.model.settings.validation import Validation
from flowkit.quantise import Quantiser


def split_of(*video_ids: str) -> Split:
    """A split whose training videos have the class that is their folder."""
    classes = tuple(sorted({video_id.partition("/")[0] for video_id in video_ids}))
    folders = {name: name.partition("/")[0] for name in sorted(video_ids)}
    records = [ClipRecord(name, classes.index(folder), folder, 20, "shard-00000.h5") for name, folder in folders.items()]
    test = (ClipRecord("a/test", 0, "a", 20, "shard-00000.h5"),)
    return Split(1, "csv", classes, tuple(records), test, len(records), 1, Quantiser(), {}, "00" * 32)


def chosen(split: Split, files: dict[str, str] | None = None, *, seed: int = 0, **validation: Any) -> Any:
    known = {record.video_id: record.video_id for record in split.train} | (files or {})
    return chosen_from(split, known, Validation(**validation), seed=seed)


TEN_EACH = split_of(*(f"{name}/v{k}" for name in "abc" for k in range(10)))


@pytest.mark.parametrize(("fraction", "number"), [(0.2, 2), (0.5, 5), (0.01, 1), (0.99, 9)])
def test_a_fraction_takes_that_share_of_each_class_at_least_one_video_and_never_all(fraction: float, number: int) -> None:
    held = chosen(TEN_EACH, fraction=fraction)
    assert Counter(video_id[0] for video_id in held.video_ids) == dict.fromkeys("abc", number)
    rest = held.without(TEN_EACH)
    assert {record.video_id for record in rest.train} == {record.video_id for record in TEN_EACH.train} - set(held.video_ids)
    assert (rest.test, rest.digest, rest.classes) == (TEN_EACH.test, TEN_EACH.digest, TEN_EACH.classes)
    assert held.record == {"fraction": fraction, "seed": 0, "video_ids": sorted(held.video_ids)}
    assert held.notes == ()


def test_the_seed_decides_which_videos() -> None:
    first = chosen(TEN_EACH, fraction=0.3)
    assert chosen(TEN_EACH, fraction=0.3) == first
    assert chosen(TEN_EACH, fraction=0.3, seed=1).video_ids != first.video_ids


def test_a_class_with_one_video_or_one_group_holds_none_out_and_is_named() -> None:
    split = split_of(*(f"a/v{k}" for k in range(4)), "b/only", *(f"c/v_c_g03_c{k:02d}" for k in range(5)))
    held = chosen(split, fraction=0.25)
    assert [video_id[0] for video_id in held.video_ids] == ["a"]
    (note,) = held.notes
    assert note.startswith("2 classes without a validation video, because they have only one video or one group")
    assert note.endswith(": b, c")


def test_nothing_to_hold_out_is_refused() -> None:
    with pytest.raises(ParameterError, match="no class has two videos"):
        chosen(split_of("a/1", "b/1"), fraction=0.5)


@pytest.mark.parametrize("seed", range(6))
def test_byte_identical_videos_are_on_one_side_whatever_their_class(seed: int) -> None:
    files = {f"{name}/v{k}": f"file {k}" for name in "ab" for k in range(10)}
    held = set(chosen(TEN_EACH, files, fraction=0.3, seed=seed).video_ids)
    assert {video_id[2:] for video_id in held if video_id[0] == "a"} == {video_id[2:] for video_id in held if video_id[0] == "b"}


@pytest.mark.parametrize("seed", range(12))
def test_a_class_whose_videos_are_all_copies_of_held_out_ones_keeps_a_training_video(seed: int) -> None:
    split = split_of("a/1", "a/2", "c/1", "c/2", *(f"b/{k}" for k in range(2)))
    held = chosen(split, {"b/0": "a/1", "b/1": "c/1"}, fraction=0.5, seed=seed)
    rest = held.without(split).train
    assert {record.class_name for record in rest} == set("abc")
    assert ("a/1" in held.video_ids) == ("b/0" in held.video_ids)
    assert ("c/1" in held.video_ids) == ("b/1" in held.video_ids)


GROUPED = split_of(*(f"{name}/v_{name}_g{group:02d}_c{k:02d}" for name in "ab" for group in (1, 2, 3, 5) for k in range(2)))


def test_groups_are_held_out_in_all_classes() -> None:
    held = chosen(GROUPED, groups=(1, 5))
    assert len(held.video_ids) == 8
    assert all("_g01_" in video_id or "_g05_" in video_id for video_id in held.video_ids)
    assert held.record == {"groups": [1, 5], "video_ids": list(held.video_ids)}


def test_copies_of_videos_in_the_groups_are_held_out_as_well() -> None:
    held = chosen(GROUPED, {"b/v_b_g03_c00": "a/v_a_g01_c01"}, groups=(1,))
    assert "b/v_b_g03_c00" in held.video_ids
    assert held.notes == ("held out as well, as byte-identical copies of those videos: b/v_b_g03_c00",)


@pytest.mark.parametrize(
    ("split", "groups", "reason"),
    [
        (GROUPED, (1, 4), "no training video is in group 4; there are groups 1 to 3, 5"),
        (GROUPED, (1, 2, 3, 5), r"would leave no training video for 2 classes \(a, b\); name fewer groups"),
        (TEN_EACH, (1,), "no training video has one"),
    ],
)
def test_groups_that_cannot_be_held_out_are_refused(split: Split, groups: tuple[int, ...], reason: str) -> None:
    with pytest.raises(ParameterError, match=reason):
        chosen(split, groups=groups)


@pytest.mark.parametrize("settings", [{}, {"fraction": 0.0}, {"fraction": 1.0}, {"fraction": 0.1, "groups": (1,)}, {"groups": (1, 1)}])
def test_a_setting_that_means_nothing_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ParameterError):
        Validation(**settings)


def test_the_shards_say_which_videos_are_copies(tmp_path: Path) -> None:
    videos = {f"{name}/v{k}": 12 for name in "ab" for k in range(4)}
    root = make_root(tmp_path, videos)
    for k in range(4):  # class b is a copy of class a
        write_clip(clip_path(root, f"b/v{k}"), f"b/v{k}", source_sha256=f"{k:064x}")
        write_clip(clip_path(root, f"a/v{k}"), f"a/v{k}", source_sha256=f"{k:064x}")
    pack(root, progress=False)
    dataset = Dataset.open(root)
    held = held_out(dataset, dataset.split(1), Validation(fraction=0.4), seed=0).video_ids
    assert held
    assert {video_id[2:] for video_id in held if video_id[0] == "a"} == {video_id[2:] for video_id in held if video_id[0] == "b"}
