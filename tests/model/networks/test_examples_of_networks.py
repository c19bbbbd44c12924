"""The examples in the docstrings of networks, their settings and their inputs run; they are not among the public names."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = [
    *(f"networks.{name}" for name in ("vgg", "fusion3d", "dynamic_image", "sequence", "c3d")),
    *(f"settings.{name}" for name in ("vgg", "fusion3d", "dynamic_image", "sequence", "c3d")),
    *("networks.layers.conv3d", "data.clip_frames", "encoding.tdd.pooling"),
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"flowkit.model.{name}"))
    assert result.failed == 0
    assert result.attempted > 0
