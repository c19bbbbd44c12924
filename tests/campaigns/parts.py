"""Start the four parts of a sharded extraction at the same moment in a new data root, again and again.

    python tests/campaigns/parts.py [--runs 100] [--seed 0]

Every part must succeed, and the files must be those of an extraction by one process, byte for byte: clip files, dataset.json, and
what extract-report.json and the index say of each video. Nothing else may be left.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

NUM_PARTS = 4
LONGEST = 600.0  # s, for one start
OF_THE_RUN = ("seconds", "source_ctime_ns")  # what differs from run to run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=100, help="number of starts (default: 100)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    began = time.monotonic()
    faults: list[str] = []
    with tempfile.TemporaryDirectory(prefix="flowkit-parts-") as name:
        folder = Path(name)
        write_videos(folder / "videos")
        expected = undisturbed(folder)
        for number in range(options.runs):
            found = start_parts(folder, expected, [draw.choice((0.0, draw.uniform(0, 0.3))) for _ in range(NUM_PARTS)])
            for fault in found:
                print(f"parts: start {number}: {fault}", flush=True)
            faults += found
    minutes = (time.monotonic() - began) / 60
    print(f"parts: {options.runs} starts of {NUM_PARTS} parts in {minutes:.1f} min, {len(faults)} faults")
    sys.exit(1 if faults else 0)


def write_videos(folder: Path) -> None:
    """Write two videos for each part, and one that is no video."""
    from small_videos import write_video

    for k in range(2 * NUM_PARTS):
        write_video(folder / f"class{k % 3}" / f"v{k}.avi", 3 + k % 3, seed=k)
    (folder / "class0" / "text.avi").write_text("This is no video.")


def undisturbed(folder: Path) -> dict[str, Any]:
    """Return what an extraction by one process leaves."""
    root = folder / "undisturbed"
    done = subprocess.run(command(folder, root), capture_output=True, text=True, timeout=LONGEST, check=False)
    if done.returncode != 3:  # 3: finished, but one of them is no video
        sys.exit(f"parts: the undisturbed extraction ended with {done.returncode}: {done.stderr}")
    return contents(root)


def start_parts(folder: Path, expected: dict[str, Any], delays: list[float]) -> list[str]:
    """Start all parts, each after its delay in seconds; return what is wrong in the end."""
    root = folder / "parts"
    shutil.rmtree(root, ignore_errors=True)
    parts = []
    for number, delay in sorted(enumerate(delays, start=1), key=lambda pair: pair[1]):
        line = command(folder, root, "--shard", f"{number}/{NUM_PARTS}")
        sleeper = f"import os, sys, time; time.sleep({delay}); os.execv(sys.executable, {line!r})"
        parts.append(subprocess.Popen([sys.executable, "-c", sleeper], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    faults = []
    codes = []
    for part in parts:
        said, _ = part.communicate(timeout=LONGEST)
        codes.append(part.returncode)
        if part.returncode not in (0, 3):
            faults.append(f"exit code {part.returncode}: {said[-600:]}")
    if sorted(codes) != [0] * (NUM_PARTS - 1) + [3] and not faults:
        faults.append(f"exit codes {codes}: one part has the file that is no video")
    found = contents(root)
    faults += [f"{name} differs or is missing" for name in sorted(expected) if found.get(name) != expected[name]]
    faults += [f"{name} is left" for name in sorted(found.keys() - expected.keys())]
    return faults


def command(folder: Path, root: Path, *more: str) -> list[str]:
    line = ["extract", str(folder / "videos"), "--data", str(root), "--short-side", "32", "--jobs", "1", "--device", "cpu", *more]
    return [sys.executable, "-m", "flowkit.cli", *line]


def contents(root: Path) -> dict[str, Any]:
    """Return the bytes of every file of a data root, and for the report and the index what they say of each video."""
    from flowkit.extraction.results import read_index

    found: dict[str, Any] = {}
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        name = str(path.relative_to(root))
        if path.name == "extract-report.json":
            report = json.loads(path.read_text(encoding="utf-8"))
            videos = [video for group in ("done", "skipped", "failed") for video in report[group]]
            found[name] = (report["counts"]["pending"], sorted(_lasting(video) for video in videos))
        elif not name.startswith(f"clips{os.sep}.index"):
            found[name] = path.read_bytes()
    found["the index"] = sorted(_lasting(vars(result)) for result in read_index(root).values())
    return found


def _lasting(video: dict[str, Any]) -> str:
    return json.dumps({name: value for name, value in video.items() if name not in OF_THE_RUN}, sort_keys=True)


if __name__ == "__main__":
    main()
