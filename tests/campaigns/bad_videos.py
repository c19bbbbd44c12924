"""Extract 40 videos of which one crashes its decoder and one blocks it: 38 must be done, the two be named, in bounded time.

Usage: ``python tests/campaigns/bad_videos.py [--videos 40]``. Prints one line, and ends with status 1 after a failure.

This is done with 1 and with 4 processes, and by the workers of a Dask cluster if Dask is installed. The two are the largest videos,
so that they are also divided into pieces. The clips of all others must have the bytes that a run without the two gives.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from dask_cluster import running_cluster
from harmful_videos import environment, write_videos
from small_videos import files_of

TIME_LIMIT = 5
MOST_SECONDS = 600  # for one run; it takes less than a minute on two cores that have nothing else to do


def faults_of(folder: Path, root: Path, num_good: int, expected: dict[str, bytes], options: list[str]) -> list[str]:
    """Extract into a data root; return what is wrong with the outcome."""
    line = [sys.executable, "-m", "flowkit.cli", "extract", str(folder / "videos"), "--data", str(root), "--short-side", "32"]
    what, limit = " ".join(options), ["--time-limit", str(TIME_LIMIT)]
    try:
        done = subprocess.run(
            [*line, *limit, *options], env=environment(folder / "custom"), capture_output=True, text=True, timeout=MOST_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return [f"{what}: it has not ended after {MOST_SECONDS} s"]
    report = json.loads((root / "extract-report.json").read_text())
    failed = {result["video_id"]: result["error"] for result in report["failed"]}
    faults = []
    if done.returncode != 3 or "Traceback" in done.stderr:
        faults.append(f"{what}: status {done.returncode}: {done.stderr}")
    if f"{num_good} done, 0 skipped, 2 failed" not in done.stdout:
        faults.append(f"{what}: {done.stdout.strip()}")
    if "killed twice" not in failed.get("c/crash", "") or "no progress" not in failed.get("c/hang", "") or len(failed) != 2:
        faults.append(f"{what}: the failed videos and their reasons are {failed}")
    if files_of(root) != expected:
        faults.append(f"{what}: the clips are not those of a run without the two videos")
    return faults


def main() -> int:
    """Run the campaign and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=40)
    num_good = parser.parse_args().videos - 2
    started, faults = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="flowkit-campaign-") as name, ExitStack() as stack:
        folder = Path(name)
        write_videos(folder / "videos", num_good)
        line = [sys.executable, "-m", "flowkit.cli", "extract", str(folder / "videos"), "--data", str(folder / "good")]
        subprocess.run([*line, "--short-side", "32", "--device", "cpu"], capture_output=True, check=True)
        expected = files_of(folder / "good")
        write_videos(folder / "videos", 0, "crash", "hang")
        ways = [["--jobs", "1", "--device", "cpu"], ["--jobs", "4", "--device", "cpu"]]
        if find_spec("distributed"):
            (folder / "dask").mkdir()
            _, address = stack.enter_context(running_cluster(folder / "dask", environment(folder / "custom")))
            ways.append(["--cluster", address])
        for k, options in enumerate(ways):
            faults += faults_of(folder, folder / f"data{k}", num_good, expected, options)
    seconds = time.monotonic() - started
    print(f"bad videos: {len(ways)} runs over {num_good} good videos and 2 bad ones in {seconds:.0f} s, {len(faults)} faults")
    print("".join(f"  {fault}\n" for fault in faults), end="")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
