"""Checkpoints: round trips, atomic writes, only tensors and built-in types, and clear refusals of everything else."""

from __future__ import annotations

import json
import os
import pickle
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile_pickles import Payload

from flowkit.errors import CheckpointError
from flowkit.model.runs.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, save_weights
from flowkit.model.runs.provenance import Provenance
from flowkit.model.systems.configs import make_configs


@pytest.fixture
def checkpoint() -> Any:
    config = make_configs("small", num_classes=2, num_videos=5, short_side=64)["motion"]
    provenance = Provenance(config, ("a", "β"), 1, "ucf101", "ab" * 32, {"bound": 20.0, "mapping": "paper"}, {"appearance": "cd"})
    network = {"motion.fc.weight": torch.randn(2, 3), "motion.bn1.num_batches_tracked": torch.tensor(7)}
    return Checkpoint(provenance, 12, network, {"motion.fc.weight": torch.randn(2, 3)}, {"torch": "2.9", "num_threads": 2}, {"scale": 2.0})


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path, checkpoint: Any) -> None:
    save_checkpoint(tmp_path / "checkpoint.pt", checkpoint)
    back = load_checkpoint(tmp_path / "checkpoint.pt")
    assert back.provenance == checkpoint.provenance
    assert (back.step, back.environment, back.scaler) == (12, checkpoint.environment, checkpoint.scaler)
    for mine, theirs in ((checkpoint.network, back.network), (checkpoint.momentum, back.momentum)):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit of a file's size")
def test_a_full_disk_is_reported_and_the_checkpoint_before_is_kept(tmp_path: Path, checkpoint: Any) -> None:
    import resource

    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, checkpoint)
    before, (soft, hard) = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    larger = replace(checkpoint, network={"w": torch.zeros(1 << 18)})
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with pytest.raises(OSError, match="could not be written"):
            save_checkpoint(path, larger)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_final_weights_come_back_with_what_they_were_trained_on(tmp_path: Path, checkpoint: Any) -> None:
    save_weights(tmp_path / "weights.safetensors", checkpoint)
    back = load_checkpoint(tmp_path / "weights.safetensors")
    assert back.provenance == checkpoint.provenance
    assert back.step == 12
    assert back.momentum == {}
    assert all(torch.equal(back.network[name], tensor) for name, tensor in checkpoint.network.items())


def test_weights_in_another_memory_format_are_stored_as_they_are_meant(tmp_path: Path, checkpoint: Any) -> None:
    weight = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    save_weights(tmp_path / "weights.safetensors", replace(checkpoint, network={"w": weight}))
    assert torch.equal(load_checkpoint(tmp_path / "weights.safetensors").network["w"], weight)


def test_the_same_weights_are_the_same_bytes(tmp_path: Path, checkpoint: Any) -> None:
    files = []
    for k in range(8):
        save_weights(tmp_path / f"{k}.safetensors", checkpoint, description={"classes": "β", "a": "b"})
        files.append((tmp_path / f"{k}.safetensors").read_bytes())
    assert len(set(files)) == 1


def test_the_bytes_of_a_checkpoint_do_not_depend_on_where_it_is_written(tmp_path: Path, checkpoint: Any) -> None:
    (tmp_path / "elsewhere").mkdir()
    paths = tmp_path / "checkpoint.pt", tmp_path / "elsewhere" / "other.pt"
    for path in paths:
        save_checkpoint(path, checkpoint)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_folder_stands_for_its_weights_and_else_for_its_checkpoint(tmp_path: Path, checkpoint: Any) -> None:
    save_checkpoint(tmp_path / "checkpoint.pt", checkpoint)
    assert load_checkpoint(tmp_path).momentum
    save_weights(tmp_path / "weights.safetensors", checkpoint)
    assert not load_checkpoint(tmp_path).momentum


def test_a_missing_checkpoint_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*; train it first"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("plain_pickle", [False, True])
def test_a_poisoned_checkpoint_runs_nothing_and_is_refused_in_one_line(tmp_path: Path, plain_pickle: bool) -> None:
    trap = str(tmp_path / "trap")
    values = {"format": "flowkit-checkpoint", "format_version": 1, "network": Payload(trap)}
    path = tmp_path / "checkpoint.pt"
    if plain_pickle:
        path.write_bytes(pickle.dumps(values))
    else:
        torch.save(values, path)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert not os.path.exists(trap)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_every_truncation_is_refused(tmp_path: Path, checkpoint: Any) -> None:
    for name, save in (("checkpoint.pt", save_checkpoint), ("weights.safetensors", save_weights)):
        path = tmp_path / name
        save(path, checkpoint)
        whole = path.read_bytes()
        for length in (0, 1, 8, 100, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:length])
            with pytest.raises(CheckpointError):
                load_checkpoint(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "not a flowkit checkpoint"),
        ({"format_version": 2}, "format version 2.*upgrade"),
        ({"provenance": None}, "damaged or foreign"),
        ({"provenance": {"config": {}}}, "damaged or foreign"),
        ({"network": [1]}, "wrong type"),
        ({"network": {"a": "b"}}, "wrong type"),
        ({"momentum": {"a": torch.zeros(2, device="meta")}}, "wrong type"),
        ({"step": "1"}, "wrong type"),
    ],
)
def test_foreign_contents_are_refused(tmp_path: Path, checkpoint: Any, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, checkpoint)
    torch.save({**torch.load(path, weights_only=True), **change}, path)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)


def test_other_people_s_weights_are_refused_with_the_option_that_takes_them(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "resnet.pt")
    with pytest.raises(CheckpointError, match="--weights FILE"):
        load_checkpoint(tmp_path / "resnet.pt")


def test_provenance_survives_json_and_names_what_differs(checkpoint: Any) -> None:
    mine = checkpoint.provenance
    assert Provenance.from_dict(json.loads(json.dumps(mine.to_dict()))) == mine
    assert mine.differences(mine) == []
    other = replace(mine, digest="ef" * 32, config=replace(mine.config, batch=64, network=replace(mine.config.network, base_width=32)))
    assert [text.split(" is ")[0] for text in mine.differences(other)] == ["config.batch", "config.network.base_width"]
    assert "config.batch is 32, now 64" in mine.differences(other)
