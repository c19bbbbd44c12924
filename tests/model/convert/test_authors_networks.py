"""The authors' networks at work: a MATLAB file, `convert`, and then `evaluate` and `predict` with the file that it wrote."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from command_lines import run_flowkit
from dagnn_files import FLOW_MEAN, resnet, stored
from matlab_files import write_v5

from flowkit.dataset.example import CLASSES, example_root
from flowkit.dataset.manifest import write_split
from flowkit.dataset.root import Dataset
from flowkit.demo_videos import write_video
from flowkit.model.evaluation.scores import ScoreTable, read_own_scores
from flowkit.model.foreign.class_lists import CLASS_LISTS
from flowkit.model.scoring.tested_networks import _columns
from flowkit.quantise import Quantiser

FORWARD, BACKWARD = CLASSES, CLASSES[::-1]


@pytest.fixture(scope="module")
def mat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base stream for flow with six classes, as the authors' files are."""
    path = tmp_path_factory.mktemp("authors") / "motion.mat"
    return write_v5(path, {"net": stored(resnet(20, seed=2, num_classes=6), FLOW_MEAN.reshape(1, 1, 20))})


@pytest.fixture(scope="module")
def authors_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root whose flow is stored as the authors' is, with two test videos, since one takes seconds. Treat it as read-only."""
    root = example_root(tmp_path_factory.mktemp("root"), quantiser=Quantiser(20.0, "paper"))
    split = Dataset.open(root).split(1)
    kept = {"protocol": split.protocol, "classes": split.classes, "quantiser": split.quantiser, "shards": split.shards}
    write_split(root, 1, train=split.train, test=split.test[:2], num_listed_train=12, num_listed_test=2, **kept)
    return root


def converted(mat: Path, folder: Path, classes: Sequence[str], *options: object) -> Path:
    """Convert the file, whose outputs have these names."""
    (folder / "classes.txt").write_text("\n".join(classes), encoding="utf-8")
    out = folder / "out.safetensors"
    ended = run_flowkit("convert", mat, out, "--classes", folder / "classes.txt", *options)
    assert ended.code == 0, ended
    return out


def scores(root: Path, weights: Path, output: Path) -> ScoreTable:
    ended = run_flowkit("evaluate", "--data", root, "--checkpoint", weights, "--output", output, "--no-report", "--device", "cpu")
    assert ended.code == 0, ended
    assert "note: the authors' file does not say which videos it was trained on" in ended.err
    assert "does not say" in json.loads((output / "results.json").read_text())["notes"][0]
    return read_own_scores(output / "scores.h5")[0]


@pytest.mark.slow
def test_a_converted_network_is_evaluated_without_force_and_its_outputs_are_matched_by_name(
    mat: Path, authors_root: Path, tmp_path: Path
) -> None:
    found = []
    for name, classes in (("forward", FORWARD), ("backward", BACKWARD)):
        (tmp_path / name).mkdir()
        weights = converted(mat, tmp_path / name, classes)
        found.append(scores(authors_root, weights, tmp_path / name / "report"))
    forward, backward = found
    assert forward.classes == backward.classes == CLASSES
    assert forward.video_ids == backward.video_ids
    assert np.ptp(forward.scores) > 1
    np.testing.assert_array_equal(forward.scores, backward.scores[:, ::-1])


@pytest.mark.slow
def test_a_converted_network_predicts_the_classes_of_its_list(mat: Path, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    write_video(tmp_path / "video.avi", draw.integers(0, 256, (11, 48, 64, 3), dtype=np.uint8), frame_rate=25)
    best = []
    for classes in (FORWARD, BACKWARD):
        ended = run_flowkit("predict", tmp_path / "video.avi", "--checkpoint", converted(mat, tmp_path, classes), "--json")
        assert ended.code == 0, ended
        (video,) = json.loads(ended.out)["videos"]
        best.append(video["top"][0]["class_name"])
    assert FORWARD.index(best[0]) == BACKWARD.index(best[1])


@pytest.mark.parametrize(
    ("classes", "options", "text"),
    [
        (FORWARD, ["--split", 2], "they were trained on split 2 (by `flowkit convert --split`), and this is split 1"),
        ((*FORWARD[:5], "run"), [], "this split has 1 class that the network does not know (colour2-motion1)"),
        ((*FORWARD[:5], "run"), [], "the network has 1 class that this split lacks (run)"),
    ],
)
def test_other_data_are_refused_in_words(
    mat: Path, authors_root: Path, tmp_path: Path, classes: Sequence[str], options: list[object], text: str
) -> None:
    weights = converted(mat, tmp_path, classes, *options)
    ended = run_flowkit("evaluate", "--data", authors_root, "--checkpoint", weights)
    assert ended.code == 1
    assert text in ended.err


def test_flow_of_another_scale_is_refused(mat: Path, packed_root: Path, tmp_path: Path) -> None:
    ended = run_flowkit("evaluate", "--data", packed_root, "--checkpoint", converted(mat, tmp_path, FORWARD))
    assert ended.code == 1
    assert "the mapping of the quantiser was paper, and is symmetric" in ended.err


@pytest.mark.parametrize("command", ["evaluate", "predict {mat}"])
def test_a_matlab_file_in_place_of_weights_is_refused_with_the_line_that_makes_them(mat: Path, packed_root: Path, command: str) -> None:
    ended = run_flowkit(*command.format(mat=mat).split(), "--data", packed_root, "--checkpoint", mat)
    assert ended.code == 1
    assert f"`flowkit convert {mat} OUT.safetensors --data-set ucf101`" in ended.err


@pytest.mark.parametrize("data_set", ["ucf101", "hmdb51"])
def test_outputs_in_the_authors_order_are_put_in_the_order_of_the_split(data_set: str) -> None:
    names = CLASS_LISTS[data_set]
    listed = sorted(names)
    columns = _columns(listed, names, "the authors' file")
    assert [names[column] for column in columns] == listed
    assert columns != list(range(len(names)))
