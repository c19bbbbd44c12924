"""How flow uses the range of its quantiser: exact shares, and a bound that fits, for motion that is too fast or too slow for it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from small_videos import SETTINGS

from flowkit import Quantiser, extract
from flowkit.cli.main import flowkit as command
from flowkit.demo_videos import write_video
from flowkit.extraction.flow_range import FlowRange, VideoRange, flow_range
from flowkit.extraction.results import VideoResult

if TYPE_CHECKING:
    from numpy.typing import NDArray

CASES = Path(__file__).resolve().parents[4] / "shared" / "cases" / "video"
RESULT = VideoResult("a", "ok", 0, 0, num_frames=4)


def pan(num_frames: int, step: float) -> NDArray[np.uint8]:
    """Return a texture that moves `step` px/frame to the left, (T, 48, 64, 3)."""
    noise = np.random.default_rng(0).integers(0, 256, (48, 64 + 10 * num_frames, 3), dtype=np.uint8)
    texture = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), np.empty_like(noise), 0, 255, cv2.NORM_MINMAX)
    moved = [cv2.warpAffine(texture, np.array([[1, 0, -step * k], [0, 1, 0]], float), (64, 48)) for k in range(num_frames)]
    return np.stack(moved).astype(np.uint8)


@pytest.mark.parametrize("mapping", ["symmetric", "paper"])
def test_shares_and_the_fitting_bound_follow_from_the_bytes(mapping: str) -> None:
    quantiser = Quantiser(20.0, mapping)  # type: ignore[arg-type]
    used = VideoRange(replace(SETTINGS, quantiser=quantiser))
    flow = np.zeros((1, 2, 40, 40))
    flow[0, 0, :4] = 3.0  # 5 % of the values
    used.add(np.zeros((1, 40, 40, 3), np.uint8), quantiser.encode(flow))
    found = used.into(RESULT)
    assert (found.clipped_share, found.zero_share) == (0.0, 0.95)
    assert abs(found.fitting_px - 3) < 0.2
    assert VideoRange(SETTINGS).into(RESULT) == RESULT, "no flow, nothing known"


def test_values_at_the_bound_are_clipped_and_the_flow_is_measured_for_a_larger_one() -> None:
    settings = replace(SETTINGS, quantiser=Quantiser(2.0))
    frames = pan(2, 5)
    used = VideoRange(settings)
    used.add(frames, settings.quantiser.encode(np.full((1, 2, 48, 64), -7.0)))
    found = used.into(RESULT)
    assert found.clipped_share == 1.0
    assert 4 < found.fitting_px < 8, "the motion of the frames is 5 px"


def test_the_advice_names_a_usual_bound_or_nothing() -> None:
    def one(clipped: float, zero: float, fitting: float, *, frames: int = 11, name: str = "a") -> VideoResult:
        return replace(RESULT, video_id=name, num_frames=frames, clipped_share=clipped, zero_share=zero, fitting_px=fitting)

    assert flow_range([RESULT]) is None
    found = flow_range([one(0.5, 0.0, 7.2), one(0.1, 0.0, 3.0, frames=31, name="b")])
    assert found == FlowRange(0.2, 0.0, 8, ())
    told = "20 % of the flow is clipped at the bound of 4 px/frame; a bound of 8 would hold 99.9 % of it: extract into another data root"
    assert found.advice(4.0).startswith(told)
    still = flow_range([one(0.0, 0.99, 0.3, name="x"), one(0.0, 0.97, 0.8, name="w")])
    assert still is not None
    assert still.still == ("w", "x")
    assert still.advice(20.0).startswith("98 % of the flow is rounded to zero with the bound of 20 px/frame; a bound of 1 would")
    assert still.advice(1.0) == ""
    assert flow_range([one(0.001, 0.4, 18)]).advice(20.0) == ""  # type: ignore[union-attr]
    many = [one(0, 0, 2.0, name=str(k)) for k in range(199)] + [one(0, 0, 90.0, name="wild")]
    assert flow_range(many).fitting_bound == 2  # type: ignore[union-attr]


@pytest.mark.usefixtures("kept_workers")
def test_extract_says_what_a_bound_cuts_off_and_which_videos_stand_still(tmp_path: Path) -> None:
    (tmp_path / "videos" / "run").mkdir(parents=True)
    write_video(tmp_path / "videos" / "run" / "fast.avi", pan(4, 6), frame_rate=25)
    write_video(tmp_path / "videos" / "run" / "still.avi", pan(4, 0), frame_rate=25)
    line = ["extract", str(tmp_path / "videos"), "--short-side", "48", "--bound", "2", "--jobs", "1"]
    done = CliRunner().invoke(command, [*line, "--data", str(tmp_path / "data")])
    assert done.exit_code == 0
    assert "clipped at the bound of 2 px/frame" in done.stderr
    assert "would hold 99.9 % of it" in done.stderr
    assert "1 video with next to no motion (more than 95 % of the flow is zero): run/still" in done.stderr
    report = json.loads((tmp_path / "data" / "extract-report.json").read_text())
    fast, still = report["done"]
    assert fast["clipped_share"] > 0.3
    assert 5 < fast["fitting_px"] < 9
    assert still["zero_share"] > 0.99
    assert extract(tmp_path / "videos", tmp_path / "data", jobs=1, progress=False).skipped[0].fitting_px == fast["fitting_px"]


@pytest.mark.usefixtures("kept_workers")
def test_a_pan_of_8_px_with_a_bound_of_4_is_summed_up(tmp_path: Path) -> None:
    if not (CASES / "pan.mkv").is_file():
        pytest.skip("the case is not here")
    (tmp_path / "pan.mkv").write_bytes((CASES / "pan.mkv").read_bytes())
    line = ["extract", str(tmp_path / "pan.mkv"), "--short-side", "64", "--bound", "4", "--jobs", "1", "--data", str(tmp_path / "data")]
    done = CliRunner().invoke(command, line)
    assert done.exit_code == 0
    assert "of the flow is clipped at the bound of 4 px/frame; a bound of 10 would hold 99.9 % of it" in done.stderr
