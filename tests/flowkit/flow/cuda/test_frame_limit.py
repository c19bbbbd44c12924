"""Frames above 2^29 pixels are refused on every way to the GPU solver, before gigabytes are copied and without a GPU.

The ways through the solver itself, a GPU's process on this machine or another, and `doctor --plan` are in the tests of these.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from small_videos import SETTINGS as SMALL
from small_videos import write_video

import flowkit
from flowkit.errors import ParameterError
from flowkit.extraction import solving
from flowkit.extraction.plan import make_plan
from flowkit.extraction.schedule import run_task
from flowkit.extraction.solving import FlowQueue
from flowkit.flow import compute_pairs_flow
from flowkit.flow.cuda import plan

if TYPE_CHECKING:
    from pathlib import Path

HEIGHT, WIDTH = 1 << 15, (1 << 14) + 1
MESSAGE = rf"frames of {WIDTH}x{HEIGHT} px are too large for the GPU solver, which takes up to 536,870,912 pixels"
SETTINGS = replace(SMALL, solver="cuda")


def huge(*shape: int) -> Any:
    """Return an array of zeros that takes no memory."""
    return np.broadcast_to(np.uint8(0), shape)


@pytest.mark.parametrize("camera_motion", ["none", "sift", "flow"])
@pytest.mark.parametrize("shape", [(2, HEIGHT, WIDTH), (2, HEIGHT, WIDTH, 3)])
def test_by_the_functions_whether_frames_are_grey_or_not(
    shape: tuple[int, ...], camera_motion: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowkit.flow.to_grey", not_called)
    monkeypatch.setattr("flowkit.warped_flow.to_grey", not_called)
    with pytest.raises(ParameterError, match=MESSAGE):
        flowkit.compute_flow(huge(*shape), device="cuda:1", camera_motion=camera_motion)
    with pytest.raises(ParameterError, match=MESSAGE):
        compute_pairs_flow(huge(1, *shape), device="cuda")


def not_called(*_: object) -> None:
    raise AssertionError("gigabytes were copied")


@pytest.mark.parametrize("camera_motion", ["none", "sift"])
def test_by_the_queue_of_a_worker_of_extract(camera_motion: str, monkeypatch: pytest.MonkeyPatch) -> None:
    address: Any = object()
    monkeypatch.setattr(solving, "service_connections", lambda _: object())  # nobody may be asked
    with FlowQueue(replace(SETTINGS, camera_motion=camera_motion), address) as flows, pytest.raises(ParameterError, match=MESSAGE):
        flows.begin(huge(2, HEIGHT, WIDTH))


def test_a_video_of_extract_that_is_too_large_fails_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "MAX_PLANE_PIXELS", 1000)  # in place of 2^29: frames of 42x32 px are larger
    monkeypatch.setattr(solving, "service_connections", lambda _: object())
    write_video(tmp_path / "videos" / "c" / "v.avi", 4)
    address: Any = object()

    class Progress:
        stopping = False

        def note(self, done: int, expected: int = 0) -> None:
            pass

        def alive(self) -> None:
            pass

    (job,) = make_plan(tmp_path / "videos", tmp_path / "data", settings=SETTINGS).jobs
    result = run_task(replace(job, service=address), Progress()).video
    assert result is not None
    assert result.status == "failed"
    assert "frames of 42x32 px are too large for the GPU solver" in result.error
    assert "--short-side" in result.error
    assert not job.clip_path.exists()
