"""docs/invariants.md names a test for each invariant; those that concern several modules are here."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import torch
from phases import PHASES
from shard_files import HEIGHT, WIDTH, attributes, clip_arrays, write_clip
from training_runs import share_root

from flowkit.dataset.root import Dataset
from flowkit.errors import ParameterError, ShardFormatError
from flowkit.flow import compute_flow
from flowkit.model.compute.execution import Execution
from flowkit.model.data.clips import stacks
from flowkit.model.data.sampling import stack_fields
from flowkit.model.data.transforms import Crop, crop_flow, mirror_flow, normalise_flow
from flowkit.model.data.whole_videos import WholeClipDataset
from flowkit.model.networks.phase_networks import build_network
from flowkit.model.runs.checkpoint import Checkpoint, load_checkpoint
from flowkit.model.runs.run_folder import phase_folder
from flowkit.model.scoring import tested_networks as scoring
from flowkit.model.training.chain import train
from flowkit.model.training.phases import start_network
from flowkit.quantise import Quantiser
from flowkit.shards.reader import ShardReader
from flowkit.shards.writer import ClipWriter

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "invariants.md"
INVARIANTS = [
    f"{kind}{number}" for kind, last in {"M": 23, "L": 7, "F": 8, "S": 2, "E": 3, "T": 15, "V": 19}.items() for number in range(1, last + 1)
]
MAPPINGS = pytest.mark.parametrize("mapping", ["symmetric", "paper"])


# -- the page ----------------------------------------------------------------------------------------------------------------------


def named_tests(text: str) -> dict[str, list[tuple[str, str]]]:
    """Return each row's (file, test) pairs, by the name of the invariant."""
    rows = re.findall(r"^\| ([A-Z]\d+) \| (.+) \| (.+) \|$", text, re.MULTILINE)
    return {name: re.findall(r"`([\w./]+)::(\w+)`", tests) for name, _, tests in rows}


def test_every_invariant_has_its_row_and_its_tests() -> None:
    found = named_tests(PAGE.read_text(encoding="utf-8"))
    assert list(found) == INVARIANTS
    assert all(found.values())


def test_every_test_that_the_page_names_exists() -> None:
    text = PAGE.read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w./]+)::(\w+)`", text))
    assert len(named) == text.count("::")
    for name in {name for name, _ in named}:
        tree = ast.parse((TESTS / name).read_text(encoding="utf-8"))
        there = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        missing = {test for file, test in named if file == name} - there
        assert not missing, f"{name} has no {', '.join(sorted(missing))}"


def test_every_test_with_an_invariant_in_its_name_is_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for path in TESTS.rglob("test_*.py"):
        for test in re.findall(r"^def (test_[mlfse]\d+_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE):
            assert f"`{path.relative_to(TESTS).as_posix()}::{test}`" in text


# -- flow and data -----------------------------------------------------------------------------------------------------------------


@MAPPINGS
def test_f2_a_flip_changes_the_values_of_u_channels_only_and_twice_changes_nothing(mapping: str) -> None:
    quantiser = Quantiser(mapping=mapping)  # type: ignore[arg-type]
    fields = np.random.default_rng(0).integers(1, 256, (12, 2, 20, 30), dtype=np.uint8)
    _, where = stack_fields([5, 6])
    plain, flipped = (stacks(crop_flow(fields, Crop(2, 4, 16, 16, flip), size=16, quantiser=quantiser), where) for flip in (False, True))
    assert plain.shape == (2, 20, 16, 16)
    mirrored = plain[..., ::-1]
    assert np.array_equal(flipped[:, 1::2], mirrored[:, 1::2])
    assert np.array_equal(flipped[:, 0::2], quantiser.flip_u(mirrored[:, 0::2]))
    assert not np.array_equal(flipped[:, 0::2], mirrored[:, 0::2])
    assert np.array_equal(mirror_flow(mirror_flow(fields, quantiser), quantiser), fields)


def test_f3_flow_k_leads_from_frame_k_to_the_next_right_and_down() -> None:
    texture = cv2.GaussianBlur(np.random.default_rng(0).random((100, 120)).astype(np.float32), (0, 0), 2)
    texture = (255 * (texture - texture.min()) / (texture.max() - texture.min())).astype(np.uint8)
    positions = [(0, 0), (2, 0), (2, 3), (1, 3)]  # of the texture: 2 px right, then 3 px down, then 1 px left
    frames = np.stack([texture[20 - y : 84 - y, 20 - x : 100 - x] for x, y in positions])
    flow = compute_flow(frames)
    medians = np.median(flow[:, :, 8:-8, 8:-8], axis=(2, 3))
    assert medians == pytest.approx(np.array([[2, 0], [0, 3], [-1, 0]]), abs=0.1)
    assert (np.sign(flow[0, 0].mean()), np.sign(flow[1, 1].mean())) == (1, 1)


def test_f4_where_nothing_moves_the_network_sees_zero() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (32, 44), dtype=np.uint8)
    quantiser = Quantiser()
    stored = quantiser.encode(compute_flow(np.stack([frame] * 3)))
    assert (stored == 128).all()
    for seen in (stored, mirror_flow(stored, quantiser)):
        assert not normalise_flow(torch.from_numpy(seen)).any()


def test_f7_other_numbers_of_frames_and_fields_are_refused_with_the_files_name(tmp_path: Path) -> None:
    frames, flow = clip_arrays(6)
    for num_fields in (4, 6):
        with ClipWriter(tmp_path / "unfit.h5", height=HEIGHT, width=WIDTH) as writer:
            writer.append_frames(frames)
            writer.append_flow(np.concatenate([flow, flow])[:num_fields])
            with pytest.raises(ParameterError, match=rf"unfit\.h5: 6 frames and {num_fields} flow fields were added instead of 6 and 5"):
                writer.finish(attributes("a", 6))
    path = tmp_path / "claims.h5"
    write_clip(path, "a", num_frames=6)
    with h5py.File(path, "r+") as file:
        file["videos/000000"].attrs.modify("num_frames", np.int64(7))
    with pytest.raises(ShardFormatError, match=r"claims\.h5"), ShardReader(path) as shard:
        shard.clip("a")


# -- evaluation --------------------------------------------------------------------------------------------------------------------


def test_e1_the_order_of_the_frames_is_nothing_to_base_streams_and_something_to_a_trained_st_resnet(
    packed_root: Path, tmp_path: Path
) -> None:
    share_root(packed_root, tmp_path)
    settings = {"base_width": 4, "input_size": 35, "batch": 6, "bn_group": 6, "steps": 4, "warmup_steps": 0}
    execution = Execution(device="cpu")
    train(tmp_path, overrides=settings, execution=execution)
    checkpoints = {phase: ("here", load_checkpoint(phase_folder(tmp_path, "default", 1, phase))) for phase in PHASES}
    split = Dataset.open(tmp_path).split(1)
    clip = WholeClipDataset(Dataset.open(tmp_path), split.test, split.quantiser, input_size=35)[0]
    orders = {"reversed": np.arange(25)[::-1], "swapped": np.array([24, *range(1, 24), 0])}
    clips = [clip, *(replace(clip, rgb=clip.rgb[order].copy(), where=clip.where[order].copy()) for order in orders.values())]

    def changes(networks: dict) -> dict[str, dict[str, float]]:
        """By phase and order: how far the scores move, relative to the largest."""
        scores = scoring.TestedNetworks(split, networks, force=False, execution=execution).score(clips)
        return {
            phase: {
                order: max(
                    np.abs(other[phase, stream] - value).max() / np.abs(value).max()
                    for (p, stream), value in scores[0].items()
                    if p == phase
                )
                for order, other in zip(orders, scores[1:], strict=True)
            }
            for phase in networks
        }

    trained = changes(checkpoints)
    for phase in ("appearance", "motion"):
        assert max(trained[phase].values()) < 1e-5
    for phase in ("st-resnet", "st-resnet-star"):
        assert min(trained[phase].values()) > 2e-4
    # Before training, all taps are equal: then time may run backwards, though frames may not change places.
    first = checkpoints["st-resnet"][1].provenance
    network = build_network(first.config)
    start_network(network, first.config, None, {phase: checkpoints[phase][1].network for phase in ("appearance", "motion")})
    untrained = changes({"st-resnet": ("here", Checkpoint(first, 0, network.state_dict()))})["st-resnet"]
    assert untrained["reversed"] < 1e-5
    assert untrained["swapped"] > 2e-4
