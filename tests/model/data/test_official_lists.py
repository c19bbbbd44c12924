"""Which splits the official schedule is for: all classes of UCF101 or HMDB51, from the official lists."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flowkit.dataset.root import Dataset
from flowkit.errors import ParameterError
from flowkit.model.compute.execution import Execution
from flowkit.model.data import official_lists
from flowkit.model.data.official_lists import classes_sha256, is_official_list
from flowkit.model.settings.recipes import TrainSettings
from flowkit.model.training.chain import train


def test_a_list_is_official_by_its_kind_and_all_of_its_classes(packed_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = Dataset.open(packed_root).split(1)
    assert split.protocol == "automatic"
    monkeypatch.setitem(official_lists.CLASSES_SHA256, "hmdb51", classes_sha256(split.classes[::-1]))
    assert not is_official_list(split)
    assert not is_official_list(replace(split, protocol="csv"))
    assert not is_official_list(replace(split, protocol="ucf101"))  # of other classes
    official = replace(split, protocol="hmdb51")
    assert is_official_list(official)
    assert not is_official_list(replace(official, classes=official.classes[1:]))


def test_training_asks_for_the_recipe_of_its_list(packed_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def recipe_on(settings: TrainSettings, device_type: str, *, is_official_list: bool) -> str:
        asked.append(is_official_list)
        raise ParameterError("asked")

    monkeypatch.setattr(TrainSettings, "recipe_on", recipe_on)
    for official in (False, True):
        classes = Dataset.open(packed_root).split(1).classes if official else ("another",)
        monkeypatch.setitem(official_lists.CLASSES_SHA256, "automatic", classes_sha256(classes))
        with pytest.raises(ParameterError, match="asked"):
            train(packed_root, execution=Execution(device="cpu"))
    assert asked == [False, True]
