"""Scores as TSN, mmaction2 and 3D-ResNets save them: read in the order of a list, their labels compared, hostile files refused."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from command_lines import call_flowkit
from hostile_pickles import Payload

from flowkit.errors import ScoresError
from flowkit.model.evaluation.scores import ScoreTable
from flowkit.model.fusion.foreign_scores import read_order, read_system_scores
from flowkit.model.fusion.late_fusion import FusionSettings, NamedScores, fuse_systems
from flowkit.model.scoring.metrics import softmax

CLASSES = ("Archery", "Bowling", "Clap")
IDS = tuple(f"{name}/v_{name}_g{group:02d}_c01" for name in CLASSES for group in (1, 2, 3, 4))
LABELS = np.repeat(np.arange(3), 4)
OURS = ScoreTable("scores.h5", IDS, CLASSES, np.random.default_rng(0).normal(size=(12, 3)) + np.eye(3)[LABELS], LABELS)
THEIRS = np.random.default_rng(1).normal(size=(12, 3)) + np.eye(3)[LABELS]
ORDER = np.random.default_rng(2).permutation(12)  # of their rows

LISTS = {
    "UCF101": lambda name, label: f"{name}.avi {label + 1}",
    "TSN": lambda name, label: f"/data/frames/{name.rpartition('/')[2]} 97 {label}",
    "mmaction2": lambda name, label: f"{name} 97 {label}",
    "videos of mmaction2": lambda name, label: f"UCF-101/{name}.avi {label}",
    "names only": lambda name, label: name,
}


def write_list(path: Path, kind: str = "mmaction2", rows: Any = ORDER) -> Path:
    path.write_text("".join(LISTS[kind](IDS[k], LABELS[k]) + "\n" for k in rows))
    return path


def matched(table: ScoreTable) -> Any:
    """Their scores in our order."""
    result = fuse_systems(NamedScores("ours", OURS), [NamedScores("theirs", table)], settings=FusionSettings(normalise="none"))
    return 2 * result.fused.scores - OURS.scores


@pytest.mark.parametrize("kind", LISTS)
def test_rows_without_names_are_in_the_order_of_a_list(tmp_path: Path, kind: str) -> None:
    np.savez(tmp_path / "rgb.npz", scores=THEIRS[ORDER], labels=LABELS[ORDER])
    table, notes = read_system_scores(tmp_path / "rgb.npz", OURS, order=write_list(tmp_path / "list.txt", kind))
    assert np.allclose(matched(table), THEIRS)
    assert any("label number" in note for note in notes)


def test_a_csv_that_names_videos_is_a_list_too(tmp_path: Path) -> None:
    (tmp_path / "test.csv").write_text("video_id,label\n" + "".join(f'"{IDS[k]}",{LABELS[k]}\n' for k in ORDER))
    assert read_order(tmp_path / "test.csv") == [IDS[k] for k in ORDER]
    (tmp_path / "test.csv").write_text("video_id,label\n'-J__a,0\n'tis,1\n")
    assert read_order(tmp_path / "test.csv") == ["-J__a", "'tis"]


def test_scores_of_frames_and_crops_are_averaged(tmp_path: Path) -> None:
    parts = THEIRS[ORDER][:, None, None, :] + np.random.default_rng(3).normal(size=(12, 5, 2, 3))
    np.savez(tmp_path / "rgb.npz", scores=parts, labels=LABELS[ORDER])
    table, _ = read_system_scores(tmp_path / "rgb.npz", OURS, order=write_list(tmp_path / "list.txt"))
    assert np.allclose(table.scores, parts.mean((1, 2)))


def test_a_wrong_order_is_noticed_by_the_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "rgb.npz", scores=THEIRS[ORDER], labels=LABELS[ORDER])
    with pytest.raises(ScoresError, match="are not ours"):
        read_system_scores(tmp_path / "rgb.npz", OURS, order=write_list(tmp_path / "list.txt", rows=ORDER[::-1]))
    np.savez(tmp_path / "sorted.npz", scores=THEIRS, labels=LABELS)  # as tsn-pytorch, whatever the list
    with pytest.raises(ScoresError, match="they agree if the list is sorted, as tsn-pytorch sorts it"):
        read_system_scores(tmp_path / "sorted.npz", OURS, order=write_list(tmp_path / "list.txt"))
    within = np.array([1, 0, 2, 3, *range(4, 12)])  # the labels cannot tell these two orders apart
    _, notes = read_system_scores(tmp_path / "sorted.npz", OURS, order=write_list(tmp_path / "list.txt", rows=within))
    assert any("also in alphabetic order" in note for note in notes)
    np.savez(tmp_path / "bare.npz", scores=THEIRS)
    _, notes = read_system_scores(tmp_path / "bare.npz", OURS, order=write_list(tmp_path / "list.txt", rows=range(12)))
    assert any("no labels" in note for note in notes)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"scores": np.zeros((11, 3))}, "scores of 11 videos, but .*list.txt lists 12"),
        ({"scores": np.zeros((12, 4))}, "scores for 4 classes, but there are 3 of ours"),
        ({"scores": np.zeros(12)}, r"numbers of shape \(videos, ..., classes\)"),
        ({"scores": np.array([["1"] * 3] * 12)}, "scores must be numbers"),
        ({"scores": np.full((12, 3), np.nan)}, "scores must be finite"),
        ({"scores": np.zeros((12, 3)), "labels": np.zeros(3, int)}, "labels must be one whole number"),
        ({"scores": np.zeros((12, 3)), "labels": np.zeros(12)}, "labels must be one whole number"),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "rgb.npz", **arrays)
    with pytest.raises(ScoresError, match=message) as caught:
        read_system_scores(tmp_path / "rgb.npz", OURS, order=write_list(tmp_path / "list.txt"))
    assert "rgb.npz" in str(caught.value)


def test_without_a_list_the_error_asks_for_one(tmp_path: Path) -> None:
    np.savez(tmp_path / "rgb.npz", scores=THEIRS, labels=LABELS)
    (tmp_path / "a.json").write_text(json.dumps(THEIRS.tolist()))
    for name in ("rgb.npz", "a.json"):
        with pytest.raises(ScoresError, match="--order LIST"):
            read_system_scores(tmp_path / name, OURS)


def test_pickled_objects_run_nothing_and_the_error_says_how_to_convert_them(tmp_path: Path) -> None:
    trap = str(tmp_path / "trap")
    order = write_list(tmp_path / "list.txt")
    objects = np.empty((12, 2), object)
    objects[:] = Payload(trap)
    np.savez(tmp_path / "rgb.npz", scores=objects, labels=LABELS)
    (tmp_path / "result.pkl").write_bytes(pickle.dumps(Payload(trap)))
    with pytest.raises(ScoresError, match=r"np\.savez"):
        read_system_scores(tmp_path / "rgb.npz", OURS, order=order)
    with pytest.raises(ScoresError, match=r"is a pickle.*write the scores as JSON"):
        read_system_scores(tmp_path / "result.pkl", OURS, order=order)
    assert not os.path.exists(trap)


def test_the_conversion_that_the_error_names_works(tmp_path: Path) -> None:
    """TSN saves a list of (scores of frames and crops, label), which NumPy keeps as objects."""
    parts = THEIRS[ORDER][:, None, None, :].repeat(5, axis=1)
    objects = np.empty((12, 2), object)
    for k in range(12):
        objects[k, 0], objects[k, 1] = parts[k], LABELS[ORDER][k]
    np.savez(tmp_path / "IN.npz", scores=objects, labels=LABELS[ORDER])
    order = write_list(tmp_path / "list.txt")
    with pytest.raises(ScoresError) as caught:
        read_system_scores(tmp_path / "IN.npz", OURS, order=order)
    code = str(caught.value).partition('python -c "')[2].rpartition('"')[0]
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    table, _ = read_system_scores(tmp_path / "OUT.npz", OURS, order=order)
    assert np.allclose(matched(table), THEIRS)


def test_an_array_that_declares_more_than_the_archive_holds_is_refused_before_it_is_read(tmp_path: Path) -> None:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000, 3), }"
    header = header.ljust(117) + b"\n"
    member = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with zipfile.ZipFile(tmp_path / "rgb.npz", "w") as archive:
        archive.writestr("scores.npy", member + bytes(80))
    with pytest.raises(ScoresError, match=r"scores declares shape \(1000000000, 3\)"):
        read_system_scores(tmp_path / "rgb.npz", OURS, order=write_list(tmp_path / "list.txt"))


def test_an_array_that_unpacks_to_too_much_is_refused_before_it_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowkit.model.fusion.foreign_scores.MAX_BYTES", 4000)
    np.savez_compressed(tmp_path / "rgb.npz", scores=np.zeros((12, 300, 3)))
    with pytest.raises(ScoresError, match="scores unpacks to"):
        read_system_scores(tmp_path / "rgb.npz", OURS, order=write_list(tmp_path / "list.txt"))


SAMPLES = {
    "lists": lambda k: THEIRS[k].tolist(),
    "lists of clips": lambda k: [THEIRS[k].tolist()] * 3,
    "samples": lambda k: {"pred_score": THEIRS[k].tolist(), "gt_label": [int(LABELS[k])]},
    "older samples": lambda k: {"pred_scores": {"item": THEIRS[k].tolist()}, "gt_labels": {"item": [int(LABELS[k])]}},
}


@pytest.mark.parametrize("form", SAMPLES)
def test_json_of_mmaction2_is_read(tmp_path: Path, form: str) -> None:
    (tmp_path / "result.json").write_text(json.dumps([SAMPLES[form](k) for k in ORDER]))
    table, _ = read_system_scores(tmp_path / "result.json", OURS, order=write_list(tmp_path / "list.txt"))
    assert np.allclose(matched(table), THEIRS)


def val_json(top: int, **changes: Any) -> dict[str, Any]:
    """What 3D-ResNets' inference.py writes: the labels with the highest probabilities of each video."""
    results = {}
    for k in ORDER:
        shares = softmax(THEIRS[[k]])[0]
        best = np.argsort(-shares)[:top]
        results[IDS[k].rpartition("/")[2]] = [{"label": CLASSES[c], "score": float(shares[c])} for c in best]
    return {"results": {**results, **changes}}


def test_json_of_3d_resnets_is_read_by_its_names(tmp_path: Path) -> None:
    (tmp_path / "val.json").write_text(json.dumps(val_json(3)))
    table, notes = read_system_scores(tmp_path / "val.json", OURS)
    assert np.allclose(matched(table), softmax(THEIRS))
    assert notes == ()
    (tmp_path / "val.json").write_text(json.dumps(val_json(1)))
    table, notes = read_system_scores(tmp_path / "val.json", OURS)
    assert (matched(table).round(12) > 0).sum() == 12
    assert "only 1 of 3 classes for a video; those it lacks count as 0" in notes[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deeply|is damaged"),
        ("[" * 60 + "1" + "]" * 60, "result.json"),
        ("{}", "holds no scores in a form that is read"),
        ("[]", "holds no scores in a form that is read"),
        ("17", "holds no scores in a form that is read"),
        ("nonsense", "is damaged, or not JSON with a score"),
        (json.dumps([[1, 2, 3], [1, 2]]), "result.json"),
        (json.dumps([[1, 2, None]] * 12), "scores must be numbers"),
        (json.dumps([["1", "2", "3"]] * 12), "scores must be numbers"),
        ("[" + ",".join(["[1, 2, NaN]"] * 12) + "]", "scores must be finite"),
        ("[" + ",".join(["[1, 2, 1e999]"] * 12) + "]", "scores must be finite"),
        ("[" + ",".join([f"[1, 2, {'9' * 400}]"] * 12) + "]", "scores must be numbers"),
        (json.dumps([{"pred_score": [1, 2, 3], "gt_label": [0, 1]}] * 12), "one label"),
        (json.dumps([{"other": 1}] * 12), "result.json"),
        (json.dumps(val_json(3, x=[{"label": "Archery", "score": "high"}])), "video 'x' must have a list"),
        (json.dumps(val_json(3, x=[{"label": "Archery", "score": 1}] * 2)), "label 'Archery' twice"),
        (json.dumps(val_json(3, x=7)), "video 'x' must have a list"),
        (json.dumps(val_json(3, x=[{"segment": [0, 16], "result": []}])), "--inference_no_average"),
        (json.dumps(val_json(3, x=[{"label": "Archery", "score": -7.5}])), "no probabilities"),
        ('{"results": {"x": [{"label": "Archery", "score": ' + "9" * 400 + "}]}}", "too large"),
        ('{"results": {"x": [], "x": []}}', "'x' occurs twice"),
        ('{"results": {}}', "holds no scores"),
    ],
)
def test_json_that_is_not_scores_is_one_error_that_names_the_file(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(ScoresError, match=message) as caught:
        read_system_scores(tmp_path / "result.json", OURS, order=write_list(tmp_path / "list.txt"))
    assert "result.json" in str(caught.value)


@pytest.mark.parametrize("first", [0, 1])
def test_columns_may_be_label_numbers(tmp_path: Path, first: int) -> None:
    columns = [2, 0, 1]
    rows = [",".join([IDS[k], *(repr(float(THEIRS[k, c])) for c in columns)]) for k in ORDER]
    (tmp_path / "a.csv").write_text("\n".join([",".join(["video_id", *(str(c + first) for c in columns)]), *rows]))
    table, notes = read_system_scores(tmp_path / "a.csv", OURS)
    assert np.allclose(matched(table), THEIRS)
    assert f"from {first} (Archery) to {first + 2} (Clap)" in notes[0]


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xff\xfe\x00"])
def test_a_list_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(ScoresError, match=r"list\.txt"):
        read_order(tmp_path / "list.txt")
    with pytest.raises(ScoresError, match="nothing there"):
        read_order(tmp_path / "nothing there")


def test_softmax_of_logits_and_of_log_probabilities_is_the_same_and_l2_of_the_latter_is_noted() -> None:
    log_shares = ScoreTable("log", IDS, CLASSES, np.log(softmax(THEIRS)))
    logits, shares = ScoreTable("logits", IDS, CLASSES, THEIRS), ScoreTable("shares", IDS, CLASSES, softmax(THEIRS))

    def fused(table: ScoreTable, normalise: Any) -> Any:
        return fuse_systems(NamedScores("ours", OURS), [NamedScores("theirs", table)], settings=FusionSettings(normalise=normalise))

    assert np.allclose(fused(log_shares, "softmax").fused.scores, fused(logits, "softmax").fused.scores)
    assert np.allclose(fused(logits, "softmax").fused.scores, (softmax(OURS.scores) + softmax(THEIRS)) / 2)
    assert any("log-probabilities" in note and "softmax" in note for note in fused(log_shares, "l2").notes)
    assert any("probabilities already" in note for note in fused(shares, "softmax").notes)
    for table, normalise in ((logits, "l2"), (shares, "l2"), (log_shares, "softmax"), (logits, "softmax"), (shares, "none")):
        assert fused(table, normalise).notes == ()


def test_the_command_fuses_scores_of_other_projects(tmp_path: Path) -> None:
    path = tmp_path / "reports/default/split1/scores.h5"
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        file.attrs["format"], file.attrs["format_version"] = np.bytes_("flowkit-scores"), 1
        for name, texts in (("video_ids", IDS), ("classes", CLASSES)):
            file[name] = np.array([text.encode() for text in texts])
        file["labels"], file["rows/ST-ResNet*"] = LABELS, OURS.scores
    np.savez(tmp_path / "tsn1.npz", scores=THEIRS[ORDER], labels=LABELS[ORDER])
    write_list(tmp_path / "list1.txt")
    command = partial(call_flowkit, "fuse", code=0)
    _, out, err = command(
        tmp_path / "tsn{split}.npz", "--data", tmp_path, "--order", tmp_path / "list{split}.txt", "--normalise", "softmax"
    )
    assert "mean of softmax probabilities" in out
    assert "matched with our classes by label number" in err
    told = json.loads((path.parent / "fusion.json").read_text())
    right = int((((softmax(OURS.scores) + softmax(THEIRS)) / 2).argmax(1) == LABELS).sum())
    assert (told["normalise"], told["rows"]["ST-ResNet* + tsn1"]["num_correct"]) == ("softmax", right)
