"""What the tests of results beside published figures share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hostile_results import make_hostile_root
from official_runs import OfficialCase, official_case

if TYPE_CHECKING:
    from flowkit.dataset.root import Dataset


@pytest.fixture(scope="module")
def hostile_root(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_hostile_root(tmp_path_factory.mktemp("published"))


@pytest.fixture
def case(hostile_root: Dataset, monkeypatch: pytest.MonkeyPatch) -> OfficialCase:
    """A split that is all of a published data set's, and a test of it by the official recipe."""
    return official_case(hostile_root, monkeypatch)
