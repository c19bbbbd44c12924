"""Compare the distance of mode `fast` from `strict` with the distance between two versions of OpenCV, on easy and hard real pairs.

    python -m venv other && other/bin/pip install "opencv-contrib-python-headless<5"
    python benchmarks/opencv_versions.py --data ../shared/data --other other/bin/python

`strict` equals this environment's OpenCV bit for bit, so the other environment's OpenCV shows how far two correct solvers are apart.
The pairs are 340x256 px, two of each UCF101 clip: consecutive frames, and frames 11 apart, as the first and the last of a stack of ten
fields. The tables show means over pairs, and the worst pairs. One pair takes a second or two on one core.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from flow_gates import FlowDistance

from flowkit.flow import compute_flow, to_grey
from flowkit.video.decode import read_frames

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

STARTS = (10, 60)  # of the pairs, in frames
_OTHER = """
import sys
import cv2
import numpy as np
cv2.setNumThreads(1)
pairs = np.load(sys.argv[1])
flow = [cv2.optflow.DualTVL1OpticalFlow_create().calc(first, second, None).transpose(2, 0, 1) for first, second in pairs]
np.save(sys.argv[2], np.stack(flow))
print(cv2.__version__)
"""


def real_pairs(clips: Sequence[Path], apart: int) -> tuple[list[str], NDArray[np.uint8]]:
    """Return names, and grey pairs (n, 2, 256, 340) of frames that are this far apart."""
    names, pairs = [], []
    for clip in clips:
        grey = np.concatenate([to_grey(batch.frames) for batch in read_frames(clip)])
        for start in STARTS:
            if start + apart < len(grey):
                names.append(f"{clip.stem}[{start}]")
                pairs.append(grey[[start, start + apart]])
    return names, np.stack(pairs)


def other_flow(python: Path, pairs: NDArray[np.uint8]) -> tuple[str, NDArray[np.float32]]:
    """Return the version of another environment's OpenCV, and its flow of the pairs."""
    with tempfile.TemporaryDirectory() as folder:
        files = [str(Path(folder) / name) for name in ("pairs.npy", "flow.npy")]
        np.save(files[0], pairs)
        done = subprocess.run([python, "-c", _OTHER, *files], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{python} cannot compute flow:\n{done.stderr}")
        return done.stdout.strip(), np.load(files[1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data", help="folder of real videos")
    parser.add_argument("--other", type=Path, required=True, help="the Python of an environment with another OpenCV")
    parser.add_argument("--apart", type=int, nargs="+", default=[1, 11], help="frames between the two of a pair")
    options = parser.parse_args()
    clips = sorted((options.data / "videos" / "ucf101").rglob("*.avi"))
    if not clips:
        print(f"there are no clips in {options.data}/videos/ucf101; name another folder with --data", file=sys.stderr)
        return 2
    cv2.setNumThreads(1)
    for apart in options.apart:
        names, pairs = real_pairs(clips, apart)
        strict, fast = (np.concatenate([compute_flow(pair, mode=mode) for pair in pairs]) for mode in ("strict", "fast"))
        version, other = other_flow(options.other, pairs)
        print(f"\n{len(pairs)} pairs, {apart} apart, mean flow {np.abs(strict).mean():.2f} px; from strict (OpenCV {cv2.__version__}):")
        for name, flow in (("fast", fast), (f"OpenCV {version}", other)):
            print(f"  {name:14} {FlowDistance.between(flow, strict)}")
        distances = [[FlowDistance.between(flow[k], strict[k]) for flow in (fast, other)] for k in range(len(pairs))]
        farther = sum(fast.mean_epe_px > other.mean_epe_px for fast, other in distances)
        print(f"  fast is farther than OpenCV {version} on {farther} pairs; the five on which it is farthest:")
        for k in sorted(range(len(pairs)), key=lambda k: -distances[k][0].mean_epe_px)[:5]:
            print(f"    {names[k]:32} fast {distances[k][0]};  OpenCV {version} {distances[k][1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
