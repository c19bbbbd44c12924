"""Scores out of features: an SVM trained on the training list only, stored beside them, and refused where it could not be honest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_lines import call_flowkit
from stored_features import SIZES, drawn, features_of, root_with_digests, write_split_again

from flowkit.dataset.root import Dataset
from flowkit.errors import CheckpointError, FeaturesError, ManifestError
from flowkit.model.encoding import split_svm
from flowkit.model.encoding.linear_svm import train_svm
from flowkit.model.encoding.split_svm import load_svm
from flowkit.model.encoding.video_vectors import VideoVectors, open_features
from flowkit.model.evaluation.scores import write_own_scores
from flowkit.model.fusion.feature_scores import scores_of_features, svm_path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return root_with_digests(tmp_path / "data")


@pytest.mark.parametrize("name", ["vectors.h5", "vectors"])
def test_the_svm_of_the_training_list_scores_the_test_list(root: Path, name: str) -> None:
    path, split = features_of(root, root / name), Dataset.open(root).split(1)
    done: list[int] = []
    table, notes = scores_of_features(path, root, 1, on_class=done.append)
    train, test = (
        np.array([np.concatenate([drawn(record, width).mean(0) for width in SIZES.values()]) for record in records])
        for records in (split.train, split.test)
    )
    expected = train_svm(train, [record.label for record in split.train], split.classes).scores(test)
    assert np.abs(table.scores - expected).max() < 1e-5
    assert table.video_ids == tuple(record.video_id for record in split.test)
    assert table.classes == split.classes
    assert done == [1, 2, 3, 4, 5, 6]
    assert notes == (f"{name}: a linear SVM on the features of 12 training videos",)


def test_test_videos_have_no_part_in_it(root: Path, tmp_path: Path) -> None:
    path = features_of(root, tmp_path / "vectors.h5")
    before, _ = scores_of_features(path, root, 1)
    split = Dataset.open(root).split(1)
    asked: list[str] = []
    stored = open_features(path)
    read_all = stored.read_all

    def watched(ids: Any = None) -> Any:
        asked.extend(ids)
        return read_all(ids)

    stored.read_all = watched  # type: ignore[method-assign]
    split_svm.svm_of_split(stored, split, path=tmp_path / "other.safetensors")
    assert set(asked) == {record.video_id for record in split.train}
    assert (tmp_path / "other.safetensors").read_bytes() == svm_path(path, 1).read_bytes()
    assert np.isfinite(before.scores).all()


def test_the_stored_svm_is_used_while_it_is_the_one_that_is_wanted(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = features_of(root, root / "vectors.h5")
    first, _ = scores_of_features(path, root, 1)
    trained = []
    monkeypatch.setattr(split_svm, "train_svm", lambda *given, **more: trained.append(more) or train_svm(*given, **more))
    again, _ = scores_of_features(path, root, 1)
    assert np.array_equal(first.scores, again.scores)
    assert not trained
    scores_of_features(path, root, 1, normalise=False)
    assert len(trained) == 1
    assert load_svm(svm_path(path, 1)).svm.normalise is False
    write_split_again(root, 1, range(0, 18, 2), range(1, 18, 2))
    scores_of_features(path, root, 1, normalise=False)
    assert len(trained) == 2


def test_videos_without_features_are_said(root: Path) -> None:
    path = features_of(root, root / "vectors.h5", leave_out=slice(3))
    _, notes = scores_of_features(path, root, 1)
    assert notes[0] == "vectors.h5: a linear SVM on the features of 9 training videos; 3 of the training list have none"


def test_a_class_without_training_videos_comes_last(root: Path) -> None:
    split = write_split_again(root, 1, range(3, 18), range(3))
    path = features_of(root, root / "vectors.h5")
    table, notes = scores_of_features(path, root, 1)
    column = split.classes.index(split.test[0].class_name)
    assert table.scores.argmin(1).tolist() == [column] * 3
    assert notes[1] == "vectors.h5: 1 class without training videos, which the SVM cannot name"


def test_features_of_other_clips_or_of_a_network_that_saw_the_test_are_refused(root: Path) -> None:
    with pytest.raises(FeaturesError, match=r"features of other clips than split 1 lists: .*flowkit features --replace"):
        scores_of_features(features_of(root, root / "other.h5", sha256="0" * 64), root, 1)
    other = write_split_again(root, 2, range(0, 18, 2), range(1, 18, 2))
    path = features_of(root, root / "seen.h5", trained_on=other.digest)
    with pytest.raises(FeaturesError, match=r"trained on split 2, whose training list has 3 of the 6 test videos of split 1"):
        scores_of_features(path, root, 1)
    assert scores_of_features(path, root, 2)[0].classes
    with pytest.raises(ManifestError):
        scores_of_features(path, root, 3)


def test_what_is_no_svm_is_refused(root: Path) -> None:
    path = features_of(root, root / "vectors.h5")
    scores_of_features(path, root, 1)
    stored = svm_path(path, 1)
    stored.write_bytes(stored.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match="delete it, and it is trained again"):
        scores_of_features(path, root, 1)
    write = split_svm.SVM_FORMAT.write
    good = {"classes": ["a", "b"], "normalise": True, "trained": {}}
    arrays = {"planes": np.zeros((2, 3)), "offsets": np.zeros(2)}
    for changed in ({"classes": ["a", "a"]}, {"classes": 2}, {"normalise": 1}, {"trained": 0}, {"classes": ["a", "b", "c"]}):
        write(stored, arrays, good | changed)
        with pytest.raises(CheckpointError, match="delete it"):
            load_svm(stored)
    write(stored, {"planes": np.zeros((2, 3))}, good)
    with pytest.raises(CheckpointError, match="lacks its planes"):
        load_svm(stored)


def test_vectors_are_the_means_of_the_streams_one_after_the_other(root: Path) -> None:
    path = features_of(root, root / "vectors.h5")
    record = Dataset.open(root).split(1).test[2]
    vectors = VideoVectors(open_features(path), [record.video_id])
    assert vectors.shape == (1, 12)
    assert np.allclose(vectors[0:1][0], np.concatenate([drawn(record, width).mean(0) for width in SIZES.values()]))


def test_fuse_takes_features(root: Path) -> None:
    split = Dataset.open(root).split(1)
    labels = np.array([record.label for record in split.test])
    ids = tuple(record.video_id for record in split.test)
    report = root / "reports/default/split1/scores.h5"
    report.parent.mkdir(parents=True)
    own = np.random.default_rng(0).normal(size=(6, 6))
    write_own_scores(report, video_ids=ids, labels=labels, classes=split.classes, rows={"ST-ResNet*": own}, streams={})
    path = features_of(root, root / "vectors.h5")
    _, out, err = call_flowkit("fuse", path, "--data", root, code=0)
    assert "ST-ResNet* + vectors" in out
    assert "a linear SVM on the features of 12 training videos" in err
