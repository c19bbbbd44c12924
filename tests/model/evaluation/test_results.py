"""Results are read back as they were written; damaged and foreign files are refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hostile_results import make_evaluation, make_hostile_root, make_result

from flowkit.errors import ManifestError
from flowkit.model.evaluation.results import join_results, read_results, results_dict, write_results


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return make_result(make_hostile_root(tmp_path_factory.mktemp("stored")))


@pytest.fixture
def folder(result: Any, tmp_path: Path) -> Path:
    write_results(tmp_path, result, make_evaluation(result), table="")
    return tmp_path


def test_everything_comes_back(result: Any, folder: Any) -> None:
    evaluation = make_evaluation(result)
    read = read_results(folder)
    (split,) = read.splits
    assert results_dict(split, read) == results_dict(result, evaluation)
    assert split.video_ids == result.video_ids
    assert split.failed == result.failed
    assert split.provenances == result.provenances
    assert np.array_equal(split.labels, result.labels)
    for name, row in result.rows.items():
        assert np.array_equal(split.rows[name].scores, row.scores)
        assert np.array_equal(split.rows[name].ranks, row.ranks)
    assert {part: scores.tolist() for part, scores in split.stream_scores.items()} == {
        part: scores.tolist() for part, scores in result.stream_scores.items()
    }


def test_the_circumstances_of_a_test_come_back_and_older_results_do_without(result: Any, tmp_path: Path) -> None:
    timed = replace(result, majority_label=3, started="2026-01-02T03:04:05+00:00", seconds=1.5)
    evaluation = replace(make_evaluation(timed), command="flowkit evaluate")
    write_results(tmp_path, timed, evaluation, table="")
    stored = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert (stored["time_started"], stored["seconds"], stored["command"]) == (timed.started, 1.5, "flowkit evaluate")
    assert stored["majority_class"]["top1"] == np.mean(result.labels == 3)
    (split,) = (read := read_results(tmp_path)).splits
    assert results_dict(split, read) == results_dict(timed, evaluation)
    newer = ("command", "time_started", "seconds", "interval", "majority_class", "comparisons")
    change_json(tmp_path, lambda told: [told.pop(name) for name in newer])
    read = read_results(tmp_path)
    assert (read.command, read.splits[0].majority_label, read.splits[0].started, read.splits[0].seconds) == ("", None, "", None)
    assert read.splits[0].majority_top1 is None


def test_results_of_splits_are_joined_only_if_made_in_the_same_way(result: Any) -> None:
    one, two = make_evaluation(result), make_evaluation(replace(result, split=2))
    assert [split.split for split in join_results([one, two]).splits] == [1, 2]
    with pytest.raises(ManifestError, match="different protocols"):
        join_results([one, replace(two, weights=(1.0, 2.0))])


def change_json(folder: Path, change: Any) -> None:
    told = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    change(told)
    (folder / "results.json").write_text(json.dumps(told), encoding="utf-8")


@pytest.mark.parametrize(
    "change",
    [
        lambda told: told.update(format="other"),
        lambda told: told.update(format_version=2),
        lambda told: told.pop("classes"),
        lambda told: told.update(classes=["only one"]),
        lambda told: told.update(classes=[1] * 7),
        lambda told: told["rows"]["motion"].update(num_correct=99),
        lambda told: told.update(rows={}),
        lambda told: told["fusion"].update(kind="max"),
        lambda told: told["fusion"].update(weights=[1]),
        lambda told: told["fusion"].update(weights="other"),
        lambda told: told["fusion"].update(chosen=[1]),
        lambda told: told["fusion"].update(chosen={"two-streams": {"weights": [1]}}),
        lambda told: told["networks"]["motion"].update(config={"depth": 50}),
        lambda told: told["networks"].update(motion=[]),
        lambda told: told.update(checkpoints={}),
        lambda told: told.update(failed=[{"video_id": 5, "reason": "x"}]),
        lambda told: told.update(protocol="a text"),
        lambda told: told.update(split="one"),
        lambda told: told.update(majority_class={"label": 7}),
        lambda told: told.update(majority_class={"label": -1}),
        lambda told: told.update(majority_class=[]),
        lambda told: told.update(seconds="long"),
    ],
)
def test_a_results_json_that_was_changed_is_refused(folder: Any, change: Callable[..., Any]) -> None:
    change_json(folder, change)
    with pytest.raises(ManifestError, match="test again with `flowkit evaluate`"):
        read_results(folder)


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_what_is_no_results_json_is_refused(folder: Any, text: Any) -> None:
    (folder / "results.json").write_bytes(text)
    with pytest.raises(ManifestError):
        read_results(folder)


def other(name: str, data: Any) -> Any:
    def change(file: Any) -> None:
        del file[name]
        file[name] = data

    return change


def linked(file: Any) -> None:
    del file["rows/motion"]
    file["rows/motion"] = h5py.ExternalLink("elsewhere.h5", "/x")


def soft(file: Any) -> None:
    del file["labels"]
    file["labels"] = h5py.SoftLink("/video_ids")


def external(file: Any) -> None:
    shape = file["rows/motion"].shape
    del file["rows/motion"]
    file.create_dataset("rows/motion", shape, "f8", external=[("elsewhere.h5", 0, 8 * shape[0] * shape[1])])


@pytest.mark.parametrize(
    "change",
    [
        other("labels", np.full(13, 99)),
        other("labels", np.zeros(12, np.int64)),
        other("labels", np.zeros(13)),
        other("rows/motion", np.zeros((13, 3))),
        other("rows/motion", np.full((13, 7), np.nan)),
        other("video_ids", np.zeros(13)),
        other("streams/motion/motion", np.zeros((13, 3))),
        other("streams/st-resnet/motion", np.full((13, 7), np.nan)),
        other("streams", np.zeros(13)),
        linked,
        soft,
        external,
        lambda file: file.attrs.modify("format", np.bytes_("other")),
    ],
)
def test_a_score_file_that_was_changed_is_refused_and_nothing_else_is_opened(folder: Any, change: Any) -> None:
    with h5py.File(folder / "scores.h5", "r+") as file:
        change(file)
    change_json(folder, lambda told: told.pop("scores_sha256"))  # which alone would tell
    with pytest.raises(ManifestError, match="test again with `flowkit evaluate`"):
        read_results(folder)


def test_missing_and_cut_off_files_are_refused(folder: Any) -> None:
    path = folder / "scores.h5"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ManifestError):
        read_results(folder)
    os.unlink(path)
    with pytest.raises(ManifestError, match="flowkit evaluate"):
        read_results(folder)
