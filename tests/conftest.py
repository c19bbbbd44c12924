"""What tests share: real data where it is at hand, skipping with a reason where it is not; hardware marks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real clips, split lists, flow ground truth and weights, read in place; skips where they are absent."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared/data beside the project (real clips, lists, ground truth, weights)")
    return SHARED


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("needs_cuda")]
    if not marked or _has_cuda():
        return
    if os.environ.get("FLOWKIT_REQUIRE_CUDA"):
        raise pytest.UsageError("FLOWKIT_REQUIRE_CUDA is set, but there is no CUDA device")
    for item in marked:
        item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))
