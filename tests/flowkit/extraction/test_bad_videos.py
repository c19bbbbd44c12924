"""One bad video never stops the rest: videos that crash the decoder, block it or need too much memory, at whatever moment."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from harmful_videos import environment, write_videos

from flowkit.errors import ParameterError
from flowkit.extraction.run import extract

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


def command(tmp_path: Path, *options: str) -> list[str]:
    line = [sys.executable, "-m", "flowkit.cli", "extract", str(tmp_path / "videos"), "--data", str(tmp_path / "data")]
    return [*line, "--short-side", "32", "--device", "cpu", *options]


def run(tmp_path: Path, *options: str) -> tuple[int, dict[str, str], str]:
    """Extract the videos; return the exit code, the failed videos with their reasons, and what was printed."""
    line = command(tmp_path, *options)
    done = subprocess.run(line, env=environment(tmp_path / "custom"), capture_output=True, text=True, timeout=1200, check=False)
    report = json.loads((tmp_path / "data" / "extract-report.json").read_text())
    assert "Traceback" not in done.stderr
    return done.returncode, {result["video_id"]: result["error"] for result in report["failed"]}, done.stdout + done.stderr


@pytest.mark.parametrize("jobs", [pytest.param("1", marks=pytest.mark.slow), "2"])
def test_a_video_that_crashes_the_decoder_and_one_that_blocks_it_are_listed_and_the_rest_is_done(tmp_path: Path, jobs: str) -> None:
    write_videos(tmp_path / "videos", 3, "crash", "hang")
    code, failed, printed = run(tmp_path, "--jobs", jobs, "--time-limit", "3")
    assert code == 3
    assert "3 done, 0 skipped, 2 failed" in printed
    assert "killed twice" in failed["c/crash"]
    assert "no progress for 3 s" in failed["c/hang"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how much memory a process uses")
def test_a_video_that_needs_more_memory_than_the_limit_is_listed_and_the_rest_is_done(tmp_path: Path) -> None:
    write_videos(tmp_path / "videos", 3, "large")
    code, failed, printed = run(tmp_path, "--jobs", "1", "--memory-limit", "600MB")
    assert (code, list(failed)) == (3, ["c/large"]), printed
    assert "needs more memory than the limit of 572 MiB" in failed["c/large"]


@pytest.mark.slow
def test_a_decoder_that_hangs_does_not_keep_flowkit_from_stopping(tmp_path: Path) -> None:
    write_videos(tmp_path / "videos", 1, "stuck")
    line = command(tmp_path, "--jobs", "1", "--grace", "0")
    with subprocess.Popen(line, env=environment(tmp_path / "custom"), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "2 videos to do" in process.stderr.readline()
        wait_until_stuck(tmp_path, process)
        process.send_signal(signal.SIGTERM)
        errors = process.stderr.read()
        assert process.wait() == 143, errors
    assert "to resume: flowkit extract" in errors


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc, to find the worker process")
def test_a_killed_run_takes_its_processes_along_even_if_a_decoder_hangs(tmp_path: Path) -> None:
    write_videos(tmp_path / "videos", 1, "stuck")
    with subprocess.Popen(command(tmp_path, "--jobs", "1"), env=environment(tmp_path / "custom"), stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        wait_until_stuck(tmp_path, process)
        children = children_of(process.pid)
        assert len(children) == 1
        process.kill()
        process.stderr.read()  # returns when no process holds the pipe any more
    while any(is_running(child) for child in children):
        time.sleep(0.02)


def wait_until_stuck(tmp_path: Path, process: subprocess.Popen[Any]) -> None:
    while not (tmp_path / "custom" / "STUCK").exists():
        assert process.poll() is None
        time.sleep(0.02)


def children_of(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task")
    return [int(child) for task in tasks.iterdir() for child in (task / "children").read_text().split()]


def is_running(pid: int) -> bool:
    """Return whether a process runs; an orphan that has ended may remain as a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_a_forecast_goes_on_too(tmp_path: Path) -> None:
    write_videos(tmp_path / "videos", 3, "crash", "hang")
    line = [*command(tmp_path, "--jobs", "2", "--time-limit", "2", "--dry-run")]
    done = subprocess.run(line, env=environment(tmp_path / "custom"), capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr
    assert "would extract 5 videos, about" in done.stdout


@pytest.mark.parametrize("limits", [{"time_limit": -1.0}, {"time_limit": float("nan")}, {"memory_limit": 10 << 20}])
def test_limits_that_make_no_sense_are_refused(tmp_path: Path, limits: dict[str, Any]) -> None:
    write_videos(tmp_path / "videos", 1)
    with pytest.raises(ParameterError, match="must be at least"):
        extract(tmp_path / "videos", tmp_path / "data", **limits)
    assert not (tmp_path / "data").exists()
