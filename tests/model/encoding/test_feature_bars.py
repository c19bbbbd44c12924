"""What features are worth: a linear SVM on them does as well as the network itself, and knows no more than its stream can."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import flowkit
from flowkit.dataset.root import Dataset
from flowkit.dataset.settings import ExtractSettings
from flowkit.demo_videos import APPEARANCES, MOTIONS, write_scenes
from flowkit.model.compute.execution import Execution
from flowkit.model.encoding.split_svm import svm_of_split, svm_scores
from flowkit.model.scoring.feature_files import FeatureFile
from flowkit.model.scoring.feature_settings import Layer
from flowkit.model.scoring.significance import wilson_interval
from flowkit.model.scoring.video_features import features
from flowkit.model.settings.training import Phase
from flowkit.model.training.chain import train

pytest.importorskip("sklearn", reason="needs scikit-learn")
NUM_TRAIN, NUM_TEST, HEIGHT = 12, 12, 64  # videos of each class; px
NUM_CLASSES = len(APPEARANCES) * len(MOTIONS)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data root of generated videos whose class is a hue and a motion, with a trained ST-ResNet."""
    folder = tmp_path_factory.mktemp("generated")
    write_scenes(folder, seed=3, train_per_class=NUM_TRAIN, test_per_class=NUM_TEST, progress=False)
    root = folder / "data"
    flowkit.extract(folder / "videos", root, settings=ExtractSettings(short_side=HEIGHT, solver="fast"), progress=False)
    flowkit.pack(root, lists=folder / "split.csv", progress=False)
    train(root, phases=["appearance", "motion", "st-resnet"], recipe="small", execution=Execution(device="cpu"), progress=False)
    return root


def stored_features(root: Path, of: Phase, *, layer: Layer = "pool5") -> FeatureFile:
    return FeatureFile(features(root, of=of, layer=layer, average=True, execution=Execution(device="cpu"), progress=False).path)


def svm_accuracy(root: Path, of: Phase) -> float:
    """Return the share of the test videos that a linear SVM on the pool5 features of a phase classifies correctly."""
    stored, split = stored_features(root, of), Dataset.open(root).split(1)
    made = svm_of_split(stored, split, path=root / f"{of}-svm.safetensors")
    best = svm_scores(made, stored, split.test, split.classes).argmax(1)
    return float(np.mean(best == [record.label for record in split.test]))


@pytest.mark.slow
def test_an_svm_on_the_features_of_st_resnet_does_as_well_as_st_resnet(root: Path) -> None:
    logits, test = stored_features(root, "st-resnet", layer="logits"), Dataset.open(root).split(1).test
    best = [sum(one.arrays.values()).argmax() for one in logits.read_all([record.video_id for record in test])]
    accuracy = float(np.mean(best == np.array([record.label for record in test])))
    assert accuracy > 0.8
    assert svm_accuracy(root, "st-resnet") >= accuracy - 0.02


@pytest.mark.slow
def test_an_svm_on_appearance_alone_stays_at_its_ceiling(root: Path) -> None:
    accuracy, num_videos = svm_accuracy(root, "appearance"), NUM_CLASSES * NUM_TEST
    low, _ = wilson_interval(round(accuracy * num_videos), num_videos)
    assert low <= 1 / len(MOTIONS)
    assert accuracy > 1.5 / NUM_CLASSES  # it knows the hues
