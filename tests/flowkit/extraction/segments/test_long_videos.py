"""Many segments of a long video: it is decoded once, and the memory of the process that does it does not grow with its length."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_videos import write_video

# Extracts segments as a worker process does, and prints how often the file was opened, how many frames were decoded, and the peak memory.
SCRIPT = """
import json, sys
from pathlib import Path
from types import SimpleNamespace

import flowkit.video.segments.frames as segment_frames
import flowkit.video.segments.sources as segment_sources
from flowkit import ExtractSettings, FlowMethod
from flowkit.extraction import one_video
from flowkit.extraction.plan import make_plan
from flowkit.extraction.schedule import make_tasks, run_task

folder = Path(sys.argv[1])
seen = {"opened": 0, "decoded": 0}
opened, decoded = segment_frames.opened, segment_sources.decoded_frames

def counting_opened(*arguments):
    seen["opened"] += 1
    return opened(*arguments)

def counting_frames(*arguments):
    for frame in decoded(*arguments):
        seen["decoded"] += 1
        yield frame

segment_frames.opened, segment_sources.decoded_frames = counting_opened, counting_frames
one_video.read_frames = None  # nothing may decode the file in another way
settings = ExtractSettings(short_side=48, method=FlowMethod.named("dis"))
jobs = make_plan(folder / "videos", folder / "data", settings=settings, segments=folder / "s.csv", jobs=1).jobs
(task,) = make_tasks(jobs, 2)
alive = SimpleNamespace(note=lambda *_: None, alive=lambda: None, stopping=False)
results = run_task(task, alive).segments
frames = {each.video_id: each.num_frames for each in results if each.status == "ok"}
(peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
print(json.dumps({**seen, "frames": frames, "peak_kib": int(peak.split()[1])}))
"""


def extracted(folder: Path, num_frames: int, segments: list[tuple[int, int]]) -> dict[str, Any]:
    write_video(folder / "videos" / "game.mkv", num_frames, width=64, height=48)
    rows = "".join(f"game,{start},{end}\n" for start, end in segments)
    (folder / "s.csv").write_text("video_id,start_frame,end_frame\n" + rows)
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(folder)], capture_output=True, text=True, check=False, timeout=1800)
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    assert seen["frames"] == {f"game_{start}_{end}": end - start for start, end in segments}
    return seen


@pytest.mark.slow  # extracts 5,000 frames
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc, for the peak memory of a process")
def test_forty_segments_of_five_thousand_frames_are_decoded_once_in_bounded_memory(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    starts = sorted(rng.choice(4700, 39, replace=False).tolist())
    segments = [(start, start + int(rng.integers(2, 300))) for start in starts] + [(4990, 5000)]
    assert sum(later[0] < earlier[1] for earlier, later in pairwise(segments)) > 10, "some overlap"
    long = extracted(tmp_path / "long", 5000, segments)
    assert (long["opened"], long["decoded"]) == (1, 5000)
    short = extracted(tmp_path / "short", 500, [(0, 200), (100, 300), (290, 500), (350, 400)])
    assert (short["opened"], short["decoded"]) == (1, 500)
    assert (long["peak_kib"] - short["peak_kib"]) << 10 < 5000 * 64 * 48 * 3 // 3, "a third of the frames alone would take more"
