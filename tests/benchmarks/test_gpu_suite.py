"""The GPU suite runs, section by section, on a driver without a GPU; and says so where there is neither."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowkit.errors import DeviceError
from flowkit.flow.cuda.compile import supported_archs

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
sys.path.append(str(Path(__file__).parents[1] / "support" / "emulation"))
from emulated_device import has_compiler
from flow_gates import GPU_GATES, FlowDistance

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run_suite(*arguments: object, **environment: Any) -> Any:
    command = [sys.executable, str(BENCHMARKS / "gpu_suite.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, timeout=2000, check=False)


def has_nvrtc() -> Any:
    try:
        return bool(supported_archs())
    except DeviceError:
        return False


@pytest.mark.skipif(not (has_compiler() and has_nvrtc() and sys.platform == "linux"), reason="needs Linux, g++, cuda-core and NVRTC")
@pytest.mark.slow
def test_every_section_runs_on_a_driver_without_a_gpu(tmp_path: Path) -> None:
    sections = ["device", "parity", "throughput", "kernels", "end_to_end", "sweep", "memcheck", "racecheck"]
    done = run_suite("--dry-run", "--json", str(tmp_path / "report.json"), "--sections", *sections)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["dry_run"]
    assert list(report["sections"]) == sections
    shown = {row["what"]: row["value"] for row in report["machine"]["rows"]}
    assert shown["card"].startswith("fake GPU, sm_90, 132 SMs, ")
    assert shown["driver"].endswith(", CUDA 13.0")
    assert "NVRTC" in shown["software"]
    assert "cuda-core" in shown["software"]
    assert done.stdout.lstrip().startswith("== machine: good")
    for section in sections[:6]:
        assert report["sections"][section]["status"] == "good"
        assert report["sections"][section]["rows"]
    assert {row["kernel"] for row in report["sections"]["kernels"]["rows"]} >= {"iterate", "median_5", "warp", "quantise_flow"}


def test_the_training_section_measures_what_bench_train_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    bench_train = pytest.importorskip("bench_train")
    import gpu_sections
    from torch import nn

    class Small(nn.Module):
        """In place of both networks, which take half a minute to build and step here."""

        def __init__(self, *_config: Any) -> None:
            super().__init__()
            self.appearance, self.motion = nn.Conv2d(3, bench_train.NUM_CLASSES, 1), nn.Conv2d(20, bench_train.NUM_CLASSES, 1)

        def forward(self, rgb: Any, flow: Any) -> Any:
            both = ((self.appearance, rgb), (self.motion, flow))
            return tuple(net(x.flatten(0, 1)).mean((2, 3)).view(*x.shape[:2], -1) for net, x in both)

    monkeypatch.setattr(bench_train, "STResNet", Small)
    monkeypatch.setattr(bench_train, "TwoResNets", Small)
    frames = {"clips_340x256": np.zeros((1, 2, 32, 32), np.uint8)}
    report = gpu_sections.training(gpu_sections.Settings(frames, Path("unused"), 0, dry_run=True))
    assert not report.failed_gates
    step, *waits = report.rows
    assert step["ratio"] > 0
    assert {"variant", "ST-ResNet, ms", "two ResNet-50s, ms", "clips/s"} <= set(step)
    assert [row["variant"] for row in waits] == ["train, float32, crops on the host", "train, float32, crops on the device"]
    assert all(0 < row["data wait"] < 1 and row["clips/s"] > 0 for row in waits)


def test_without_a_gpu_nothing_is_measured_and_the_exit_code_says_so(tmp_path: Path) -> None:
    np.savez(tmp_path / "frames.npz", clips_340x256=np.zeros((1, 2, 32, 32), np.uint8))
    done = run_suite("--frames", str(tmp_path / "frames.npz"), CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 3
    assert "no GPU, so nothing was measured" in done.stderr
    assert not done.stdout


def test_a_section_that_breaks_is_told_and_does_not_stop_the_others(tmp_path: Path) -> None:
    import gpu_suite

    options = argparse.Namespace(device=0, dry_run=True)
    report = gpu_suite.run_section("kernels", options, tmp_path / "missing.npz", dict(os.environ), 60)
    assert report["status"] == "broke"
    assert "missing.npz" in report["trouble"]
    report = gpu_suite.run_section("kernels", options, tmp_path / "missing.npz", dict(os.environ), 0.01)
    assert report["status"] == "broke"
    assert "stopped after" in report["trouble"]


def test_training_comes_first_and_all_sections_have_a_limit_within_eight_minutes() -> None:
    import gpu_sections
    import gpu_suite

    assert next(iter(gpu_suite.SECTIONS)) == "training"
    assert set(gpu_suite.SECTIONS) == set(gpu_sections.ALL) - {"machine", "small_case"}
    assert max(gpu_suite.SECTIONS.values()) < gpu_suite.TOTAL_SECONDS < 480


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_a_section_that_is_stopped_takes_its_processes_along(tmp_path: Path) -> None:
    import gpu_suite

    pid = tmp_path / "pid"
    code = (
        "import subprocess, sys, time; from pathlib import Path\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "Path(sys.argv[1]).write_text(str(child.pid)); time.sleep(600)"
    )
    began = time.monotonic()
    trouble = gpu_suite._run([sys.executable, "-c", code, str(pid)], dict(os.environ), 5, tmp_path / "stderr")
    assert trouble.startswith("stopped after 5 s")
    assert time.monotonic() - began < 60
    end = time.monotonic() + 30
    while _is_running(int(pid.read_text())) and time.monotonic() < end:
        time.sleep(0.05)
    assert not _is_running(int(pid.read_text()))


def _is_running(pid: int) -> bool:
    """Return whether a process exists that has not ended; one that has may wait for its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_gates_take_equal_flows_and_refuse_bad_ones() -> None:
    flow = np.random.default_rng(0).normal(0, 3, (2, 2, 32, 40)).astype(np.float32)
    assert FlowDistance.between(flow, flow).within(GPU_GATES)
    assert FlowDistance.between(flow, flow) == FlowDistance(0, 0, 0)
    assert not FlowDistance.between(flow + 0.05, flow).within(GPU_GATES)
    few = flow.copy()
    few[..., :2, :] += 3  # a sixteenth of the pixels: beyond the 99th percentile
    assert not FlowDistance.between(few, flow).within(GPU_GATES)
    assert not FlowDistance(float("nan"), 0, 0).within(GPU_GATES)
