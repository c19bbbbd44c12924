"""predict on a file of an hour: its memory does not grow with the length, and a killed command finds the flow that it has computed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from odd_videos import encode_video
from training_runs import run as train_run

pytestmark = pytest.mark.slow  # computes thousands of flow fields, in processes of its own

# Classifies a file in windows, and prints their times and the peak memory of the process.
SCRIPT = """
import json, sys
from pathlib import Path
from flowkit.model import Predictor

predictor = Predictor.open(sys.argv[1], device="cpu", num_threads=1)
made = predictor.predict_windows(sys.argv[2], seconds=30, stride=30, jobs=1, progress=False)
windows = [(p.status, p.window.start_seconds, p.window.end_seconds, p.num_frames) for p in made]
(peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
print(json.dumps({"windows": windows, "peak_kib": int(peak.split()[1])}))
"""


@pytest.fixture
def trained(root: Path) -> Path:
    train_run(root, phases=["motion"])
    return root


def classified(root: Path, path: Path) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(root), str(path)], capture_output=True, text=True, check=False, timeout=3600)
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc, for the peak memory of a process")
def test_an_hour_is_classified_in_windows_in_the_memory_of_some_minutes(trained: Path, tmp_path: Path) -> None:
    long = classified(trained, encode_video(tmp_path / "long.mkv", "mpeg4", num_frames=7200, rate=2))
    assert long["windows"] == [["ok", 30 * k, min(30 * k + 30, 3599.5), 60] for k in range(120)]
    short = classified(trained, encode_video(tmp_path / "short.mkv", "mpeg4", num_frames=720, rate=2))
    assert len(short["windows"]) == 12
    assert (long["peak_kib"] - short["peak_kib"]) << 10 < 7200 * 40 * 53 * 3 // 2, "half the frames alone would take more"


def test_a_command_that_is_killed_finds_its_flow_again(trained: Path, tmp_path: Path) -> None:
    path = encode_video(tmp_path / "long.mkv", "mpeg4", num_frames=1200, rate=10)
    outputs = [tmp_path / name / "windows.csv" for name in ("whole", "killed")]
    line = [sys.executable, "-m", "flowkit", "predict", str(path), "--data", str(trained), "--window", "20", "--device", "cpu", "--output"]
    subprocess.run([*line, str(outputs[0])], check=True, capture_output=True, timeout=1800)
    folder = tmp_path / "killed" / ".windows.csv.clips"
    with subprocess.Popen([*line, str(outputs[1]), "--jobs", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not list(folder.rglob("*.flow")):
            time.sleep(0.02)
        process.kill()
    kept = {path: path.stat().st_mtime_ns for path in folder.rglob("*.flow")}
    assert kept, "it was killed while it computed flow"
    with subprocess.Popen([*line, str(outputs[1]), "--jobs", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and len(list(folder.rglob("*.flow"))) <= len(kept):
            time.sleep(0.02)
        there = {path: path.stat().st_mtime_ns for path in folder.rglob("*.flow")}
        assert process.wait() == 0
    assert kept.items() <= there.items(), "what was computed is not computed again"
    assert outputs[1].read_bytes() == outputs[0].read_bytes()
    assert outputs[1].read_text(encoding="utf-8").count("\n") == 7
    assert not list(outputs[1].parent.glob(".*"))
