"""The benchmark with a stand-in for the GPU runs two versions in turn, and notices that one writes other bytes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from small_videos import write_video

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_two_versions_are_measured_in_turn_and_one_that_writes_other_bytes_is_noticed(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.avi", 20)
    for top in ("flowkit", "model", "cli"):
        shutil.copytree(ROOT / top, tmp_path / "other" / top, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "setup.py", tmp_path / "other")
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_stand_in.py"), str(video), "--other", str(tmp_path / "other")]
    command += ["--workers", "1", "--rounds", "1", "--copies", "1", "--batch-ms", "5"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for line in ("1 workers, other 1: ", "1 workers, this: ", "1 workers, this over other 1: ", "the stand-in alone does 9600 pairs/s"):
        assert line in done.stdout
    schema = tmp_path / "other" / "flowkit" / "shards" / "schema.py"
    schema.write_text(schema.read_text().replace("JPEG_QUALITY = 95", "JPEG_QUALITY = 94"))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "the versions wrote different bytes" in done.stderr
