"""How a split differs from the data of a training, in words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from random_networks import random_checkpoints

from flowkit.dataset.manifest import ClipRecord, Split, split_identity
from flowkit.errors import CheckpointError
from flowkit.model.runs.provenance import Provenance
from flowkit.model.runs.training_data import (
    VIDEOS_NAME,
    differences_from_training_data,
    extraction_differences,
    refuse_other_phase,
    reservations,
    videos_text,
)
from flowkit.quantise import Quantiser

CLASSES = ("jump", "run")
TRAIN = tuple(
    ClipRecord(f"{name}/v{k}", CLASSES.index(name), name, 20, "shard-00000.h5", f"{k}{k}" * 32) for name in CLASSES for k in range(4)
)
TEST = tuple(
    ClipRecord(f"{name}/t{k}", CLASSES.index(name), name, 20, "shard-00000.h5", f"{k}{k}" * 32) for name in CLASSES for k in range(2)
)


def made(train: tuple[ClipRecord, ...] = TRAIN, test: tuple[ClipRecord, ...] = TEST, **changes: Any) -> Split:
    split = Split(1, "csv", CLASSES, train, test, 8, 4, Quantiser(), {}, split_identity(train, test))
    return replace(split, **changes)


@pytest.fixture
def trained(tmp_path: Path) -> Provenance:
    """What a phase that was trained on `made()` records, with its list of videos in `tmp_path`."""
    split = made()
    (tmp_path / VIDEOS_NAME).write_text(videos_text(split), encoding="utf-8")
    provenance: Provenance = random_checkpoints(CLASSES, protocol="csv", digest=split.digest)["motion"].provenance
    return replace(provenance, num_videos={"train": 8, "test": 4})


EXTRA = tuple(ClipRecord(f"run/x{k}", 1, "run", 20, "shard-00000.h5", "ab" * 32) for k in range(5))
CHANGES = [
    ({"train": TRAIN + EXTRA}, "5 training videos were added (run/x0, run/x1, run/x2 and 2 more)"),
    ({"test": TEST + EXTRA[:1]}, "1 test video was added (run/x0)"),
    ({"train": TRAIN[1:]}, "1 training video was removed (jump/v0)"),
    ({"train": TRAIN[1:], "test": TEST + TRAIN[:1]}, "1 video was moved to the other half (jump/v0)"),
    ({"train": (replace(TRAIN[0], label=1, class_name="run"), *TRAIN[1:])}, "1 video was given another class (jump/v0)"),
    ({"train": (replace(TRAIN[0], sha256="cd" * 32), *TRAIN[1:])}, "1 video was extracted again with other contents (jump/v0)"),
]


@pytest.mark.parametrize(("change", "text"), CHANGES)
def test_each_change_of_the_videos_is_named_once_with_counts_and_names(
    trained: Provenance, tmp_path: Path, change: dict[str, Any], text: str
) -> None:
    assert differences_from_training_data(made(**change), trained, tmp_path) == [text]


def test_other_shards_are_no_difference(trained: Provenance, tmp_path: Path) -> None:
    moved = made(tuple(replace(record, shard="shard-00007.h5") for record in TRAIN))
    assert differences_from_training_data(moved, trained, tmp_path) == []


def test_an_earlier_digest_is_no_difference(trained: Provenance, tmp_path: Path) -> None:
    split = made()
    old = replace(trained, digest="12" * 32, num_videos={})
    assert differences_from_training_data(replace(split, earlier_digests=("12" * 32,)), old, tmp_path) == []
    assert "cannot be known" in differences_from_training_data(split, old, tmp_path)[0]


def test_without_the_list_of_videos_their_numbers_are_compared(trained: Provenance, tmp_path: Path) -> None:
    (tmp_path / VIDEOS_NAME).unlink()
    found = differences_from_training_data(made(TRAIN + EXTRA), trained, tmp_path)
    assert found == ["the split had 8 training videos and 4 test videos, and has 13 training videos and 4 test videos"]
    (same_number,) = differences_from_training_data(made((*TRAIN[1:], EXTRA[0])), trained, tmp_path)
    assert "not recorded beside these weights" in same_number


def test_settings_and_classes_are_named_and_explain_other_clips(trained: Provenance, tmp_path: Path) -> None:
    again = tuple(replace(record, sha256="cd" * 32) for record in TRAIN)
    other = made(again, quantiser=Quantiser(bound=15.0))
    assert differences_from_training_data(other, trained, tmp_path) == ["the bound of the quantiser was 20.0, and is 15.0"]
    fewer = made(TRAIN[4:], TEST[2:], classes=("run", "walk"))
    found = differences_from_training_data(fewer, trained, tmp_path)
    assert found[:2] == ["1 class was added (walk)", "1 class was removed (jump)"]
    assert "4 training videos were removed" in found[2]


@pytest.mark.parametrize("text", ["", "[" * 100_000, "{}", "null"])
def test_a_damaged_list_of_videos_is_treated_as_missing(trained: Provenance, tmp_path: Path, text: str) -> None:
    (tmp_path / VIDEOS_NAME).write_text(text)
    assert "the split had 8" in differences_from_training_data(made(TRAIN + EXTRA), trained, tmp_path)[0]


def test_a_phase_that_was_begun_is_refused_with_advice_that_fits(trained: Provenance, tmp_path: Path) -> None:
    split = made()
    refuse_other_phase(trained, trained, split, tmp_path)
    settings = replace(trained, config=replace(trained.config, seed=5))
    with pytest.raises(CheckpointError, match=r"config\.seed is 0, now 5\. Use those"):
        refuse_other_phase(trained, settings, split, tmp_path)
    other = made(TRAIN[1:])
    now = replace(trained, digest=other.digest)
    with pytest.raises(CheckpointError, match=r"1 training video was removed \(jump/v0\)\. Use another run"):
        refuse_other_phase(trained, now, other, tmp_path)
    old = replace(trained, digest="12" * 32, num_videos={})
    with pytest.raises(CheckpointError, match=r"cannot be known.*`flowkit evaluate --force`") as refused:
        refuse_other_phase(old, trained, split, tmp_path)
    assert "--restart" not in str(refused.value)


AUTHORS = {"short_side": 256, "solver": "strict", "tvl1": {"tau": 0.25}, "codec": "jpeg"}


def converted(trained: Provenance, *classes: str) -> Provenance:
    """What the file of a network that the authors trained on these classes records."""
    config = replace(trained.config, network=replace(trained.config.network, num_classes=len(classes)))
    return replace(
        trained, config=config, classes=classes, digest="", started_from={"matconvnet": "ab" * 32}, num_videos={}, extraction=AUTHORS
    )


def test_the_unknown_videos_of_a_converted_network_are_a_reservation_and_no_difference(trained: Provenance) -> None:
    network = converted(trained, *reversed(CLASSES))
    assert differences_from_training_data(made(), network) == []
    assert reservations(trained, trained.extraction) == []
    (note,) = reservations(network, network.extraction)
    assert "does not say which videos it was trained on; split 1 comes from `flowkit convert --split`" in note
    _, note = reservations(network, {**network.extraction, "short_side": 300, "codec": "zstd"})
    assert note.startswith("the authors' frames and flow were made in another way: ")
    assert note.endswith("the codec was jpeg, and is without loss; the short side was 256, and is 300")


@pytest.mark.parametrize(
    ("classes", "texts"),
    [
        (("jump", "run", "walk"), ["the network has 1 class that this split lacks (walk)"]),
        (("jump",), ["this split has 1 class that the network does not know (run)"]),
        (
            ("Jump", "run"),
            ["this split has 1 class that the network does not know (jump)", "the network has 1 class that this split lacks (Jump)"],
        ),
    ],
)
def test_other_classes_of_a_converted_network_are_named(trained: Provenance, classes: tuple[str, ...], texts: list[str]) -> None:
    assert differences_from_training_data(made(), converted(trained, *classes)) == texts


def test_a_converted_network_of_another_split_is_a_difference_with_its_reason(trained: Provenance) -> None:
    (text,) = differences_from_training_data(made(number=2), converted(trained, *CLASSES))
    assert text == "they were trained on split 1 (by `flowkit convert --split`), and this is split 2"


def test_settings_of_the_extraction_that_make_no_difference_are_not_named() -> None:
    before = {"short_side": 256, "solver": "strict", "tvl1": {"tau": 0.25, "lambda_": 0.15}, "codec": "zstd"}
    assert extraction_differences(before, {**before, "solver": "cuda", "codec": "gzip"}) == []
    assert extraction_differences({}, before) == []
    other = {"short_side": 128, "solver": "gpu_flow", "tvl1": {"tau": 0.25, "lambda_": 0.3}, "codec": "jpeg"}
    assert extraction_differences(before, other) == [
        "the codec was without loss, and is jpeg",
        "the short side was 256, and is 128",
        "the solver was flowkit's, and is gpu_flow",
        "the TV-L1 lambda was 0.15, and is 0.3",
    ]
