"""Late fusion: scores of any system, read as foreign data, matched by name, averaged or weighed by an SVM that never saw them."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import pickle
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from command_lines import call_flowkit
from hostile_pickles import Payload

from flowkit.cli.main import flowkit
from flowkit.dataset.manifest import ClipRecord, write_split
from flowkit.dataset.root import open_root
from flowkit.dataset.settings import ExtractSettings
from flowkit.errors import ParameterError, ScoresError
from flowkit.model.data.official_lists import CLASSES_SHA256
from flowkit.model.encoding.linear_svm import LinearSvm
from flowkit.model.evaluation.published import PUBLISHED, Comparison
from flowkit.model.evaluation.scores import ScoreTable, read_own_scores, read_scores, write_scores
from flowkit.model.fusion import late_fusion
from flowkit.model.fusion.late_fusion import (
    FusionSettings,
    NamedScores,
    folds_of,
    fuse_systems,
    published_with_idt,
    svm_scores,
)
from flowkit.model.fusion.matching import match_classes, match_videos
from flowkit.model.scoring.metrics import l2_normalised
from flowkit.quantise import Quantiser

CLASSES = ("Archery", "Bowling", "HandstandPushups")
IDS = tuple(f"{name}/v_{name}_g{group:02d}_c{clip:02d}" for name in CLASSES for group in (1, 2, 3, 4) for clip in (1, 2))
LABELS = np.repeat(np.arange(3), 8)


def some_scores(seed: int, strength: float = 1.0, labels: Any = LABELS, num_classes: int = 3) -> Any:
    return np.random.default_rng(seed).normal(size=(len(labels), num_classes)) + strength * np.eye(num_classes)[labels]


OURS = ScoreTable("scores.h5", IDS, CLASSES, some_scores(1), LABELS)
IDT = ScoreTable("idt.csv", IDS, CLASSES, some_scores(2))


def shuffled(
    table: Any, seed: int = 3, ids: Callable[..., Any] = lambda name: name, classes: Callable[..., Any] = lambda name: name
) -> Any:
    """The same scores with rows and columns in another order, under other spellings."""
    draw = np.random.default_rng(seed)
    rows, columns = draw.permutation(len(table.video_ids)), draw.permutation(len(table.classes))
    return ScoreTable(
        table.source,
        tuple(ids(table.video_ids[row]) for row in rows),
        tuple(classes(table.classes[column]) for column in columns),
        table.scores[np.ix_(rows, columns)],
    )


def fused(*others: Any, **settings: Any) -> Any:
    common = settings.pop("common", False)
    systems = [NamedScores(f"other{k}", other) for k, other in enumerate(others)]
    return fuse_systems(NamedScores("ST-ResNet*", OURS), systems, settings=FusionSettings(**settings), common=common)


# Reading


def write_csv(path: Path, table: Any) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["video_id", *table.classes])
        writer.writerows([name, *map(repr, row)] for name, row in zip(table.video_ids, table.scores.tolist(), strict=True))


def write_npz(path: Path, table: Any) -> None:
    np.savez_compressed(path, video_ids=np.array(table.video_ids), classes=np.array(table.classes), scores=table.scores)


def write_foreign_hdf5(path: Path, table: Any) -> None:
    with h5py.File(path, "w") as file:  # as people do: texts of variable length, single precision, compressed
        file["video_ids"], file["classes"] = list(table.video_ids), list(table.classes)
        file.create_dataset("scores", data=table.scores, compression="gzip")


@pytest.mark.parametrize(
    ("name", "write"),
    [("a.csv", write_csv), ("a.npz", write_npz), ("a.h5", write_foreign_hdf5), ("A.HDF5", write_foreign_hdf5), ("b.h5", write_scores)],
)
def test_every_format_gives_the_same_table(tmp_path: Path, name: str, write: Any) -> None:
    table = ScoreTable("x", ("β/v, 1", "c"), ('say "a"', "ü", "z"), np.array([[1.5, -2e-7, 0.1], [3, 4, 1e300]]))
    write(tmp_path / name, table)
    back = read_scores(tmp_path / name)
    assert (back.video_ids, back.classes) == (table.video_ids, table.classes)
    assert np.array_equal(back.scores, table.scores)
    assert back.source == str(tmp_path / name)


def write_own(path: Path, rows: int, table: Any = OURS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs["format"], file.attrs["format_version"] = np.bytes_("flowkit-scores"), 1
        for name, texts in (("video_ids", table.video_ids), ("classes", table.classes)):
            file[name] = np.array([text.encode() for text in texts])
        file["labels"] = table.labels
        for name, scores in rows.items():
            file[f"rows/{name}"] = scores


def test_our_own_scores_give_the_last_row_that_is_there_or_the_one_named(tmp_path: Path) -> None:
    path = tmp_path / "scores.h5"
    write_own(path, {"motion": OURS.scores, "ST-ResNet": OURS.scores + 1, "two-streams": OURS.scores + 2})
    table, row = read_own_scores(path)
    assert row == "ST-ResNet"
    assert np.array_equal(table.scores, OURS.scores + 1)
    assert np.array_equal(table.labels, LABELS)
    assert np.array_equal(read_own_scores(path, row="motion")[0].scores, OURS.scores)
    assert np.array_equal(read_scores(path).scores, OURS.scores + 1)
    with pytest.raises(ScoresError, match=r"no scores of ST-ResNet\*; it has motion, two-streams, ST-ResNet"):
        read_own_scores(path, row="ST-ResNet*")
    write_scores(tmp_path / "other.h5", OURS)
    with pytest.raises(ScoresError, match="is not a scores file of flowkit"):
        read_own_scores(tmp_path / "other.h5")


def test_scores_written_by_evaluate_are_read(tmp_path: Path) -> None:
    from flowkit.model.evaluation.results import Evaluation, SplitEvaluation, write_results
    from flowkit.model.evaluation.row_results import RowResult

    rows = {"motion": RowResult(OURS.scores, LABELS * 0, np.zeros((3, 3), np.int64))}
    split = SplitEvaluation(1, CLASSES, IDS, LABELS, rows, {}, len(IDS))
    write_results(tmp_path, split, Evaluation((split,), ()), table="")
    table, row = read_own_scores(tmp_path / "scores.h5")
    assert (row, table.video_ids, table.classes) == ("motion", IDS, CLASSES)
    assert np.array_equal(table.scores, OURS.scores)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "first line must be video_id"),
        ("id,a,b\nx,1,2\n", "first line must be video_id"),
        ("video_id\nx\n", "first line must be video_id"),
        ("video_id,a,b\n", r"holds no scores \(0 videos"),
        ("video_id,a,b\nx,1,2\ny,1\n", "line 3: 2 fields, but the header has 3"),
        ("video_id,a,b\nx,1,2\ny,1,high\n", "line 3: the score for class 'b' must be a finite number, got 'high'"),
        ("video_id,a,b\nx,1,nan\n", "line 2: the score for class 'b' must be a finite number, got 'nan'"),
        ("video_id,a,b\nx,inf,0\n", "line 2: the score for class 'a'"),
        ("video_id,a,b\nx,1_5,0\n", "line 2: the score for class 'a'"),
        ("video_id,a,b\nx,1,2\ny,1,2\nx,3,4\n", "line 4: video id 'x' is already in line 2"),
        ("video_id,a,a\nx,1,2\n", "class 'a' occurs twice, as number 1 and 2"),
        ("video_id,a,\nx,1,2\n", "class 2 is empty"),
        ("video_id,a,b\n,1,2\n", "video id 1 is empty"),
        ('video_id,a,b\n"x,1,2\n', "not valid CSV"),
        (b"video_id,a,b\n\xff,1,2\n", "not valid CSV in UTF-8"),
    ],
)
def test_a_csv_that_is_not_scores_is_an_error_that_names_file_and_line(tmp_path: Path, text: bytes | str, message: str) -> None:
    path = tmp_path / "idt.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ScoresError, match=message) as caught:
        read_scores(path)
    assert str(path) in str(caught.value)


def test_an_error_about_a_score_is_of_bounded_length(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"video_id,a\nx,{'9' * 100_000}\n")
    with pytest.raises(ScoresError, match="finite number") as caught:
        read_scores(tmp_path / "a.csv")
    assert len(str(caught.value)) < 1000


def test_a_csv_of_a_spreadsheet_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfvideo_id, a, b\r\nx,1, 2\r\n\r\n")
    table = read_scores(tmp_path / "a.csv")
    assert (table.video_ids, table.classes, table.scores.tolist()) == (("x",), ("a", "b"), [[1, 2]])


def test_a_pickle_in_an_npz_runs_nothing(tmp_path: Path) -> None:
    trap = str(tmp_path / "trap")
    np.savez(tmp_path / "a.npz", video_ids=np.array([Payload(trap)], dtype=object), classes=np.array(["a"]), scores=np.ones((1, 1)))
    (tmp_path / "b.npz").write_bytes(pickle.dumps(Payload(trap)))
    for name in ("a.npz", "b.npz"):
        with pytest.raises(ScoresError, match="is damaged, or not an NPZ file of plain arrays"):
            read_scores(tmp_path / name)
    assert not os.path.exists(trap)


GOOD = {"video_ids": np.array(["x", "y"]), "classes": np.array(["a", "b", "c"]), "scores": np.ones((2, 3))}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": None}, "lacks scores; it holds 'video_ids', 'classes'"),
        ({"scores": np.ones((3, 2))}, r"scores have shape \(3, 2\), but there are 2 video ids and 3 classes"),
        ({"scores": np.ones(6)}, r"numbers of shape \(videos, classes\)"),
        ({"scores": np.array([["1"] * 3] * 2)}, "scores must be numbers"),
        ({"scores": np.array([[1, 2, 3], [4, np.nan, 6]])}, r"video 'y' \(number 2\) for class 'b' is nan"),
        ({"scores": np.array([[1, 2, 3], [4, 5, -np.inf]])}, r"video 'y' \(number 2\) for class 'c' is -inf"),
        ({"video_ids": np.array(["x", "x"])}, "video id 'x' occurs twice, as number 1 and 2"),
        ({"video_ids": np.array([1, 2])}, "video_ids must be a list of texts"),
        ({"classes": np.array([["a", "b", "c"]])}, "classes must be a list of texts"),
    ],
)
@pytest.mark.parametrize("suffix", ["npz", "h5"])
def test_arrays_that_do_not_fit_are_an_error_that_names_the_video(
    tmp_path: Path, change: dict[str, Any], message: str, suffix: str
) -> None:
    arrays = {name: array for name, array in {**GOOD, **change}.items() if array is not None}
    path = tmp_path / f"a.{suffix}"
    if suffix == "npz":
        np.savez(path, **arrays)
    else:
        message = message.replace("'video_ids', 'classes'", "'classes', 'video_ids'")
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array.tolist() if array.dtype.kind == "U" else array
    with pytest.raises(ScoresError, match=message) as caught:
        read_scores(path)
    assert str(path) in str(caught.value)


def test_hdf5_that_points_elsewhere_or_needs_a_plugin_is_refused(tmp_path: Path) -> None:
    hdf5plugin = pytest.importorskip("hdf5plugin")
    write_scores(tmp_path / "right.h5", OURS)
    (tmp_path / "raw").write_bytes(bytes(24 * 3 * 8))
    layout = h5py.VirtualLayout((24, 3), float)
    layout[:] = h5py.VirtualSource(tmp_path / "right.h5", "scores", (24, 3))

    def spoil(kind: Any) -> Any:
        path = tmp_path / f"{kind}.h5"
        write_scores(path, OURS)
        with h5py.File(path, "r+") as file:
            del file["scores"]
            if kind == "link":
                file["scores"] = h5py.ExternalLink("right.h5", "scores")
            elif kind == "soft":
                file["other"], file["scores"] = OURS.scores, h5py.SoftLink("other")
            elif kind == "raw":
                file.create_dataset("scores", (24, 3), float, external=[(str(tmp_path / "raw"), 0, 24 * 3 * 8)])
            elif kind == "virtual":
                file.create_virtual_dataset("scores", layout)
            elif kind == "plugin":
                file.create_dataset("scores", data=OURS.scores, **hdf5plugin.Zstd())
            elif kind == "huge":
                file.create_dataset("scores", (1 << 40, 3), float, chunks=(1, 3))
            elif kind == "group":
                file.create_group("scores")
        return path

    assert np.array_equal(read_scores(tmp_path / "right.h5").scores, OURS.scores)
    for kind in ("link", "soft", "raw", "virtual", "plugin", "huge", "group"):
        with pytest.raises(ScoresError, match="scores") as caught:
            read_scores(spoil(kind))
        assert f"{kind}.h5" in str(caught.value)


@pytest.mark.parametrize("write", [write_npz, write_foreign_hdf5], ids=["npz", "hdf5"])
def test_truncated_files_are_errors(tmp_path: Path, write: Any) -> None:
    path = tmp_path / ("a.npz" if write is write_npz else "a.h5")
    write(path, OURS)
    whole = path.read_bytes()
    for length in (0, 3, len(whole) // 2, len(whole) - 9):
        path.write_bytes(whole[:length])
        with pytest.raises(ScoresError):
            read_scores(path)


def test_an_npz_that_unpacks_to_too_much_is_refused_before_it_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowkit.model.evaluation.scores.MAX_BYTES", 4000)
    np.savez_compressed(tmp_path / "a.npz", **GOOD | {"more": np.zeros(10_000)})
    with pytest.raises(ScoresError, match="unpacks to more than 4000 bytes"):
        read_scores(tmp_path / "a.npz")


def test_other_files_and_missing_ones_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ScoresError, match=r"a\.txt: scores are read from \.csv, \.npz, \.h5, \.hdf5"):
        read_scores(tmp_path / "a.txt")
    with pytest.raises(ScoresError, match="no scores file at"):
        read_scores(tmp_path / "b.csv")


# Matching


@pytest.mark.parametrize(
    "spelling",
    [
        lambda name: name,
        lambda name: name.rpartition("/")[2],
        lambda name: name.rpartition("/")[2] + ".avi",
        lambda name: "UCF-101/" + name + ".avi",
        lambda name: name.replace("Handstand", "HandStand"),
        lambda name: name.upper(),
    ],
    ids=["same", "no folder", "file name", "more folders", "case of the official lists", "upper case"],
)
def test_videos_are_matched_by_name_in_any_order(spelling: Callable[..., Any]) -> None:
    theirs = shuffled(IDT, ids=spelling)
    places = match_videos(OURS, theirs)
    assert [theirs.video_ids[place] for place in places] == [spelling(name) for name in IDS]


def table_of(*ids: Any, classes: tuple[Any, ...] = ("a",)) -> Any:
    return ScoreTable("t.csv", ids, classes, np.zeros((len(ids), len(classes))))


def test_videos_of_different_folders_are_never_taken_for_each_other() -> None:
    assert match_videos(table_of("walk/1", "run/1"), table_of("run/1", "jump/1")) == [None, 0]
    assert match_videos(table_of("walk/1"), table_of("1.5/1", "walk/1.5")) == [None]


def test_a_match_that_is_not_unique_is_an_error_that_names_both() -> None:
    with pytest.raises(ScoresError, match=r"our video '1' could be 'walk/1' and 'run/1'"):
        match_videos(table_of("1"), table_of("walk/1", "run/1"))
    with pytest.raises(ScoresError, match=r"'1' could be our videos 'walk/1' and 'run/1'"):
        match_videos(table_of("walk/1", "run/1"), table_of("1"))
    with pytest.raises(ScoresError, match=r"our video 'walk/1' could be '1.avi' and '1.mp4'"):
        match_videos(table_of("walk/1"), table_of("1.avi", "1.mp4"))
    assert match_videos(table_of("a/1", "A/1"), table_of("A/1", "a/1")) == [1, 0]  # exact names are unique


def test_classes_are_matched_by_name_in_any_order_and_case() -> None:
    theirs = shuffled(IDT, classes=lambda name: name.replace("Handstand", "HandStand"))
    assert [theirs.classes[column].lower() for column in match_classes(OURS, theirs)] == [name.lower() for name in CLASSES]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("Archery", "Bowling"), r"lacks 1 of our classes \('HandstandPushups'\)"),
        ((*CLASSES, "Diving"), r"has 1 that are not ours \('Diving'\)"),
        (("Archery", "Bowling", "Diving"), r"lacks 1 of our classes .* and has 1 that are not ours"),
        (("archery", "ARCHERY", "Bowling", "HandstandPushups"), r"our class 'Archery' could be 'archery' and 'ARCHERY'"),
    ],
)
def test_classes_that_do_not_match_are_named(classes: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ScoresError, match=message):
        match_classes(OURS, table_of("x", classes=classes))


# Joining


def test_the_fused_scores_are_the_mean_of_normalised_scores_looked_up_by_name() -> None:
    others = shuffled(IDT, 5, ids=lambda name: name.rpartition("/")[2]), shuffled(replace(IDT, scores=some_scores(9)), 6)
    result = fused(*others, weights=(1.0, 2.0, 0.5))
    for place, name in enumerate(IDS):
        expected = np.zeros(3)
        for weight, table in zip((1.0, 2.0, 0.5), (OURS, *others), strict=True):
            row = next(k for k, other in enumerate(table.video_ids) if other.rpartition("/")[2] == name.rpartition("/")[2])
            values = {class_name: table.scores[row, column] for column, class_name in enumerate(table.classes)}
            length = sum(value**2 for value in values.values()) ** 0.5
            expected += np.array([weight * values[class_name] / length for class_name in CLASSES])
        assert np.allclose(result.fused.scores[place], expected / 3.5)
    assert result.fused.video_ids == IDS
    assert list(result.rows) == ["ST-ResNet*", "other0", "other1", "ST-ResNet* + other0 + other1"]
    assert result.rows["other0"].num_correct == (IDT.scores.argmax(1) == LABELS).sum()
    assert result.rows["ST-ResNet*"].num_correct == (OURS.scores.argmax(1) == LABELS).sum()


def test_normalised_scores_do_not_depend_on_the_scale_of_a_system_and_plain_ones_do() -> None:
    louder = replace(IDT, scores=IDT.scores * np.linspace(5, 500, len(IDS))[:, None])
    assert np.allclose(fused(louder).fused.scores, fused(IDT).fused.scores)
    assert not np.allclose(fused(louder, normalise="none").fused.scores, fused(IDT, normalise="none").fused.scores)
    assert np.allclose(fused(IDT, normalise="none").fused.scores, (OURS.scores + IDT.scores) / 2)
    assert np.array_equal(l2_normalised(np.array([[3.0, 4], [0, 0]])), [[0.6, 0.8], [0, 0]])


def test_a_weight_of_zero_leaves_the_other_alone() -> None:
    for weights, name in (((1.0, 0.0), "ST-ResNet*"), ((0.0, 1.0), "other0")):
        result = fused(IDT, weights=weights)
        assert np.array_equal(result.rows["ST-ResNet* + other0"].ranks, result.rows[name].ranks)


def test_a_missing_video_is_an_error_unless_only_common_ones_are_asked_for() -> None:
    part = ScoreTable("idt.csv", IDS[:-3], CLASSES, IDT.scores[:-3])
    with pytest.raises(ScoresError, match=r"idt\.csv lacks 3 of our 24 videos \('HandstandPushups/v_HandstandPushups_g03_c02', .*--common"):
        fused(part)
    result = fused(part, ScoreTable("c3d.csv", IDS[2:], CLASSES, IDT.scores[2:]), common=True)
    assert result.fused.video_ids == IDS[2:-3]
    assert (len(result.rows["ST-ResNet*"].ranks), result.num_ours) == (19, 24)
    assert any("other0 lacks 3 of our 24 videos" in note for note in result.notes)
    assert any("other1 lacks 2 of our 24 videos" in note for note in result.notes)
    with pytest.raises(ScoresError, match="no video is common"):
        fused(table_of("x", classes=CLASSES), common=True)


def test_rows_of_other_videos_are_counted_and_not_used() -> None:
    more = ScoreTable("idt.csv", ("x/train", *IDS), CLASSES, np.concatenate([np.full((1, 3), 9.0), IDT.scores]))
    result = fused(more)
    assert np.array_equal(result.fused.scores, fused(IDT).fused.scores)
    assert result.notes == ("1 row of other0 for other videos, not used ('x/train')",)


@pytest.mark.parametrize(
    "settings", [{"weights": (1.0,)}, {"weights": (0.0, 0.0)}, {"weights": (1.0, -1.0)}, {"method": "max"}, {"num_folds": 1}]
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ParameterError):
        fused(IDT, **settings)


# The SVM


def test_folds_keep_groups_of_a_class_together_and_are_even() -> None:
    folds = folds_of(IDS, LABELS, num_folds=4, seed=0)
    groups = {}
    for name, fold in zip(IDS, folds, strict=True):
        groups.setdefault(name.rpartition("_c")[0], set()).add(int(fold))
    assert all(len(found) == 1 for found in groups.values())
    for label in range(3):
        assert sorted(folds[label == LABELS]) == [0, 0, 1, 1, 2, 2, 3, 3]  # a group of each class in each fold
    assert np.array_equal(folds, folds_of(IDS, LABELS, num_folds=4, seed=0))
    assert any(not np.array_equal(folds, folds_of(IDS, LABELS, num_folds=4, seed=seed)) for seed in (1, 2, 3))
    without = folds_of([f"a/{k}" for k in range(10)], np.zeros(10, int), num_folds=5, seed=0)
    assert sorted(without) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_no_video_is_scored_by_an_svm_that_saw_its_group(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    fitted, train, decide = [], late_fusion.train_svm, LinearSvm.scores
    inputs = np.concatenate([some_scores(1), np.arange(len(IDS))[:, None] * 1e-9], axis=1)  # the last column tells who is who

    def who(x: Any) -> Any:
        return {round(value * 1e9) for value in x[:, -1]}

    def spied_train(x: Any, *given: Any, **more: Any) -> Any:
        fitted.append(who(x))
        return train(x, *given, **more)

    scored = []

    def spied_decide(self: Any, x: Any) -> Any:
        assert not who(x) & fitted[-1]
        scored.append(who(x))
        return decide(self, x)

    monkeypatch.setattr(late_fusion, "train_svm", spied_train)
    monkeypatch.setattr(LinearSvm, "scores", spied_decide)
    told = []
    folds = folds_of(IDS, LABELS, num_folds=4, seed=0)
    svm_scores(inputs, LABELS, folds, num_classes=3, on_fold=told.append)
    assert told == [1, 2, 3, 4]
    assert sorted(set.union(*scored)) == list(range(len(IDS)))
    assert sum(map(len, scored)) == len(IDS)


def test_an_svm_learns_what_a_mean_cannot() -> None:
    pytest.importorskip("sklearn")
    mistaken = ScoreTable("idt.csv", IDS, CLASSES, some_scores(4, strength=6)[:, [1, 2, 0]])  # always the same wrong class
    assert fused(mistaken).rows["ST-ResNet* + other0"].top1 < 0.5
    result = fused(mistaken, method="svm")
    assert result.rows["other0"].top1 < 0.1
    assert result.rows["ST-ResNet* + other0"].top1 > 0.9
    assert np.array_equal(result.fused.scores, fused(mistaken, method="svm").fused.scores)


def test_classes_that_the_other_folds_lack_come_last_and_are_said() -> None:
    pytest.importorskip("sklearn")
    labels = np.array([0, 0, 0, 1, 1, 1, 2])
    folds = np.array([0, 1, 2, 0, 1, 2, 0])
    scores, notes = svm_scores(some_scores(0, 5, labels, 4), labels, folds, num_classes=4)
    assert np.isfinite(scores).all()
    assert notes == ["1 video of classes that the other folds lack, which cannot be correct"]
    assert (scores[-1, 2:] < scores[-1, :2].min()).all()
    assert (scores[:, 3] < scores[:, :2].min(1)).all()
    assert np.array_equal(scores[:6].argmax(1), labels[:6])


def test_two_classes_are_enough_and_one_is_not() -> None:
    pytest.importorskip("sklearn")
    labels = np.array([0, 1] * 6)
    scores, _ = svm_scores(some_scores(0, 6, labels, 2), labels, np.arange(12) // 2 % 3, num_classes=2)
    assert np.array_equal(scores.argmax(1), labels)
    with pytest.raises(ParameterError, match="needs two classes"):
        svm_scores(np.ones((4, 2)), np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1]), num_classes=2)


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.svm", None)
    with pytest.raises(ParameterError, match=r'pip install "flowkit-video\[svm\]"'):
        fused(IDT, method="svm")


# The command


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_own(tmp_path / "reports/default/split1/scores.h5", {"motion": some_scores(8), "ST-ResNet*": OURS.scores})
    write_csv(tmp_path / "idt.csv", shuffled(IDT))
    return tmp_path


command_line = partial(call_flowkit, "fuse", code=0)


def test_the_command_prints_each_alone_and_together_and_writes_the_report(root: Any) -> None:
    _, out, err = command_line(root / "idt.csv", "--data", root)
    result = fused(IDT)
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines() if line.startswith("| ")]
    assert [line[0] for line in lines] == ["split 1", "ST-ResNet*", "idt", "ST-ResNet* + idt"]
    assert [line[3] for line in lines[1:]] == [f"{row.num_correct}/24" for row in result.rows.values()]
    assert "mean of L2-normalised scores, equal weights" in out
    assert "paper" not in out
    folder = root / "reports/default/split1"
    told = json.loads((folder / "fusion.json").read_text())
    assert told["rows"]["ST-ResNet* + idt"]["top1"] == result.rows["ST-ResNet* + other0"].top1
    assert told["systems"]["idt"] == str(root / "idt.csv")
    assert told["weights"] == [1, 1]
    assert "fusion.h5, fusion.json" in err
    again = read_scores(folder / "fusion.h5")
    assert np.array_equal(again.scores, result.fused.scores)
    assert again.video_ids == IDS
    _, out, _ = command_line(folder / "fusion.h5", "--data", root, "--row", "motion")
    assert "motion + fusion" in out


def test_the_command_says_that_the_svm_is_cross_validated(root: Any) -> None:
    pytest.importorskip("sklearn")
    _, out, err = command_line(root / "idt.csv", "--data", root, "--method", "svm", "--folds", 4)
    assert "cross-validated in 4 folds" in out
    assert "SVM split 1: 4/4 folds" in err
    _, out, _ = command_line(root / "idt.csv", "--data", root, "--method", "svm", "--json")
    told = json.loads(out)
    assert (told["format"], told["format_version"]) == ("flowkit-fusion-report", 1)
    (split,) = told["splits"]
    assert split["svm"] == {"C": 100.0, "cross_validated": True, "num_folds": 5, "seed": 0}


def test_nothing_is_written_when_something_is_wrong(root: Any) -> None:
    write_csv(root / "part.csv", ScoreTable("x", IDS[:-1], CLASSES, IDT.scores[:-1]))
    before = sorted(root.rglob("*"))
    for arguments in ((root / "part.csv",), (root / "idt.csv", root / "none.csv"), (root / "idt.csv", "--run", "other")):
        with pytest.raises(ScoresError):
            command_line(*arguments, "--data", root)
    with pytest.raises(ParameterError):
        command_line(root / "idt.csv", "--data", root, "--weights", "1,1,1")
    assert sorted(root.rglob("*")) == before
    _, out, err = command_line(root / "part.csv", "--data", root, "--common")
    assert "split 1: 23 of 24 videos" in out
    assert "part lacks 1 of our 24 videos" in err


def test_several_splits_give_each_and_the_unweighted_mean(root: Any) -> None:
    write_own(root / "reports/default/split2/scores.h5", {"ST-ResNet*": some_scores(11)})
    for split, seed in ((1, 2), (2, 12)):
        write_csv(root / f"idt{split}.csv", ScoreTable("x", IDS, CLASSES, some_scores(seed)))
    _, out, _ = command_line(root / "idt{split}.csv", "--data", root, "--split", "all", "--output", root / "out")
    told = [json.loads((root / f"out/split{split}/fusion.json").read_text()) for split in (1, 2)]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines() if line.startswith("| ")]
    assert lines[0] == ["top-1 %", "split 1", "split 2", "mean"]
    assert [line[0] for line in lines[1:]] == ["ST-ResNet*", "idt1 / idt2", "ST-ResNet* + idt1 / ST-ResNet* + idt2"]
    for line, *rows in zip(lines[1:], *(one["rows"].values() for one in told), strict=True):
        shares = [row["top1"] for row in rows]
        assert line[1:] == [f"{100 * share:.2f}" for share in (*shares, sum(shares) / 2)]
    result = CliRunner().invoke(flowkit, ["fuse", str(root / "idt1.csv"), "--data", str(root), "--split", "1,2"])
    assert result.exit_code == 2
    assert "scores belong to one split: write {split} instead of its number in" in result.stderr


def test_an_order_for_files_that_all_name_their_videos_is_refused(root: Any) -> None:
    write_csv(root / "idt.csv", IDT)
    (root / "order.txt").write_text("\n".join(IDS))
    result = CliRunner().invoke(flowkit, ["fuse", str(root / "idt.csv"), "--data", str(root), "--order", str(root / "order.txt")])
    assert result.exit_code == 2
    assert "--order would do nothing here: CSV and HDF5 files name their videos" in result.stderr


def test_files_of_one_name_are_told_apart_by_their_paths(root: Any) -> None:
    for folder in ("a", "b"):
        (root / folder).mkdir()
        write_csv(root / folder / "x.csv", IDT)
    _, out, _ = command_line(root / "a/x.csv", root / "b/x.csv", "--data", root)
    assert f"| {root}/a/x.csv" in out
    assert f"| {root}/b/x.csv" in out


def test_the_paper_s_numbers_stand_beside_the_whole_official_list_only(root: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def split(protocol: Any, num_listed: int, classes: Any = CLASSES) -> None:
        records = [ClipRecord(name, int(label), classes[label], 20, "shard-00000.h5") for name, label in zip(IDS, LABELS, strict=True)]
        write_split(
            root,
            1,
            protocol=protocol,
            classes=classes,
            train=[],
            test=records,
            num_listed_train=0,
            num_listed_test=num_listed,
            quantiser=Quantiser(),
            shards={"shard-00000.h5": "0" * 64},
        )

    def alike(manifest: Any) -> Comparison:
        return Comparison(PUBLISHED[manifest.protocol], differences=("small batch",))

    def figures(result: Any) -> Any:
        published = published_with_idt(root, 1, result, report=root)
        return published and published[0]

    result = fuse_systems(NamedScores("ST-ResNet*", OURS), [NamedScores("idt", IDT)])
    assert figures(result) is None  # no data root
    compared: list[Any] = []
    monkeypatch.setattr(late_fusion, "read_results", lambda folder: SimpleNamespace(splits=(None,)))
    monkeypatch.setattr(late_fusion, "compare_with_paper", lambda manifest, *_: compared[-1] if compared else alike(manifest))
    open_root(root, root / "videos", ExtractSettings())
    assert figures(result) is None  # no such split
    split("ucf101", 24)
    assert figures(result) is None  # other classes
    names = hashlib.sha256("\n".join(sorted(CLASSES)).encode()).hexdigest()
    for name in PUBLISHED:
        monkeypatch.setitem(CLASSES_SHA256, name, names)
    assert figures(result) == {"IDT": 86.4, "ST-ResNet*": 93.46, "ST-ResNet* + IDT": 94.6}
    _, out, _ = command_line(root / "idt.csv", "--data", root)
    assert "the paper's figures, means over three splits: IDT 86.4 %, ST-ResNet* 93.46 %, ST-ResNet* + IDT 94.6 %" in out
    assert figures(fuse_systems(NamedScores("motion", OURS), [NamedScores("idt", IDT)])) is None
    split("hmdb51", 24)
    assert figures(result)["ST-ResNet* + IDT"] == 70.3
    for settings, told in (
        (FusionSettings(weights=(1, 5)), ("fusion: weights 1 : 5 (paper, from memory: equal)",)),
        (FusionSettings(normalise="softmax"), ("fusion: normalised by softmax (paper, from memory: l2)",)),
    ):
        other = fuse_systems(NamedScores("ST-ResNet*", OURS), [NamedScores("idt", IDT)], settings=settings)
        assert published_with_idt(root, 1, other, report=root)[1] == ("small batch", *told)
    assert figures(replace(result, settings=replace(result.settings, method="svm"))) is None
    assert figures(fuse_systems(NamedScores("ST-ResNet*", OURS), [NamedScores("my_i3d_scores", IDT)])) is None
    compared.append(Comparison(None, ("The weights were trained on other data",)))  # --force, or another training list
    assert figures(result) is None
    compared.clear()
    for protocol, num_listed in (("hmdb51", 25), ("csv", 24), ("automatic", 24)):
        split(protocol, num_listed)
        assert figures(result) is None
