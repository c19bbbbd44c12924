"""Run everything that needs a GPU, in less than eight minutes: parity, checkers, speed, share of the ceiling, training step.

    python benchmarks/gpu_suite.py --make-frames frames.npz          # once, where PyAV and the videos are (17 MB)
    python benchmarks/gpu_suite.py --frames frames.npz --json gpu.json   # on the GPU machine

The second command needs flowkit's sources (the root of the repository as working folder is enough), cuda-core, numba, OpenCV (the
contrib modules are not needed), h5py, torch and torchvision, but neither PyAV nor hdf5plugin nor videos. The wait for data is
measured if safetensors and joblib are installed too. The output begins with the card, its driver and the versions. Each section runs
in a process of its own, one after another, so that a crash, a hang or a missing package in one does not stop the others; training
comes first, and --sections takes them in the order given. Exit codes: 0 good; 1 a gate failed or a section broke; 2 usage error;
3 no GPU.

    python benchmarks/gpu_suite.py --dry-run      # the same code on a driver without a GPU, with tiny frames: needs g++ and NVRTC
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
TOTAL_SECONDS = 470.0
# Each section with its time limit in s, the most important first; a section for which no time is left is reported as such.
SECTIONS = {
    "training": 190,
    "device": 60,
    "parity": 120,
    "throughput": 60,
    "sweep": 200,
    "kernels": 30,
    "memcheck": 90,
    "racecheck": 90,
    "end_to_end": 100,
}
MACHINE_SECONDS = 40  # for what is said before all sections
DRY_PATIENCE = 4  # times as long in a dry run, whose machine may be busy


def make_frames(path: Path, data: Path) -> None:
    """Write real grey frames: clips of 340x256 px, and ground-truth pairs of other sizes."""
    import cv2
    import numpy as np

    from flowkit.flow import to_grey
    from flowkit.video.decode import read_frames

    arrays = {}
    clips = []
    for clip in sorted((data / "videos" / "ucf101").rglob("*.avi")):
        frames: list[Any] = []
        for batch in read_frames(clip):
            frames += [*batch.frames]
            if len(frames) >= 40:
                break
        clips.append(to_grey(np.stack(frames[20:37])))
    arrays["clips_340x256"] = np.stack([clip for clip in clips if clip.shape[1:] == (256, 340) and len(clip) == 17])
    for name in ("RubberWhale", "Dimetrodon"):
        folder = data / "flow_gt" / "middlebury" / name
        arrays[f"pair_{name}"] = np.stack([cv2.imread(str(folder / f"frame1{k}.png"), cv2.IMREAD_GRAYSCALE) for k in (0, 1)])
    kitti = [data / "flow_gt" / "kitti" / f"kitti_000010_1{k}.png" for k in (0, 1)]
    arrays["pair_kitti"] = np.stack([cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) for file in kitti])
    np.savez_compressed(path, **arrays)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB; " + ", ".join(f"{name} {array.shape}" for name, array in arrays.items()))


def tiny_frames(path: Path) -> None:
    """Write tiny frames under the same names, for a dry run."""
    import numpy as np

    x, y = np.meshgrid(np.arange(48), np.arange(33))
    frames = [127 + 60 * np.sin((x + 0.7 * k) / 4) + 60 * np.cos((y - 0.4 * k) / 5) for k in range(6)]
    clip = np.stack(frames).astype(np.uint8)
    np.savez(path, clips_340x256=np.stack([clip, clip[::-1]]), pair_RubberWhale=clip[:2], pair_Dimetrodon=clip[1:3], pair_kitti=clip[2:4])


def run_section(name: str, options: argparse.Namespace, frames: Path, environment: dict[str, str], seconds: float) -> dict[str, Any]:
    """Run a section in a separate process; return its report: {"status": ..., "rows": [...], "failed_gates": [...]}."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, str(HERE / "gpu_sections.py"), name, "--frames", str(frames), "--result", str(result)]
        command += ["--device", str(options.device)] + (["--dry-run"] if options.dry_run else [])
        began = time.monotonic()
        trouble = _run(command, environment, seconds, Path(folder) / "stderr")
        report: dict[str, Any] = json.loads(result.read_text()) if result.is_file() else {"rows": [], "failed_gates": []}
        report["seconds"] = round(time.monotonic() - began, 1)
        report["status"] = "broke" if trouble else report.get("status") or ("FAILED" if report["failed_gates"] else "good")
        if trouble:
            report["trouble"] = trouble
    return report


def _run(command: list[str], environment: dict[str, str], seconds: float, errors: Path) -> str:
    """Run a command; return what went wrong. After its time it ends with all processes that it has started, which would use the GPU."""
    with errors.open("wb") as file:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=file, cwd=ROOT, start_new_session=True)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return f"stopped after {seconds:.0f} s\n{errors.read_text(errors='replace').strip()[-1000:]}"
    return f"exit code {process.returncode}\n{errors.read_text(errors='replace').strip()[-2000:]}" if process.returncode else ""


def show(name: str, report: dict[str, Any]) -> None:
    """Print the table of a section."""
    print(f"\n== {name}: {report['status']} ({report['seconds']} s)")
    rows = report["rows"]
    if rows:
        columns = list(dict.fromkeys(key for row in rows for key in row))
        cells = [columns, *([_cell(row.get(column, "")) for column in columns] for row in rows)]
        widths = [max(len(row[k]) for row in cells) for k in range(len(columns))]
        for row in cells:
            print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    for gate in report["failed_gates"]:
        print(f"GATE FAILED: {gate}")
    if "trouble" in report:
        print(report["trouble"])


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def missing_gpu(device: int) -> str:
    """Return the reason why there is no usable GPU; an empty text if there is one."""
    from flowkit.errors import DeviceError
    from flowkit.flow.cuda.device import list_devices

    try:
        count = len(list_devices())
    except DeviceError as error:
        return str(error)
    return "" if device < count else f"there is no CUDA device {device}: this machine has {count}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--make-frames", type=Path, metavar="NPZ", help="write the frames file and exit")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder of real videos, for --make-frames")
    parser.add_argument("--frames", type=Path, help="the frames file")
    parser.add_argument("--device", type=int, default=0, help="index of the GPU")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--json", type=Path, help="file for all results")
    parser.add_argument("--dry-run", action="store_true", help="run the code on a driver without a GPU, with tiny frames")
    options = parser.parse_args()
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support" / "emulation")]
    if options.make_frames:
        make_frames(options.make_frames, options.data)
        return 0
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with tempfile.TemporaryDirectory() as folder:
        frames = options.frames
        if options.dry_run:
            from emulated_device import build_driver

            frames = Path(folder) / "tiny.npz"
            tiny_frames(frames)
            environment["LD_LIBRARY_PATH"] = str(build_driver())
        elif reason := missing_gpu(options.device):
            print(f"no GPU, so nothing was measured: {reason}", file=sys.stderr)
            return 3
        if frames is None or not frames.is_file():
            parser.error("give the frames file with --frames; --make-frames writes one")
        reports = {}
        began = time.monotonic()
        patience = DRY_PATIENCE if options.dry_run else 1
        end = began + patience * TOTAL_SECONDS
        machine = run_section("machine", options, frames, environment, patience * MACHINE_SECONDS)
        show("machine", machine)
        sys.stdout.flush()
        for name in options.sections:
            left = end - time.monotonic()
            if left < 5:
                reports[name] = {"status": "no time left", "seconds": 0, "rows": [], "failed_gates": []}
            else:
                reports[name] = run_section(name, options, frames, environment, min(patience * SECTIONS[name], left))
            show(name, reports[name])
            sys.stdout.flush()
    if options.json:
        options.json.write_text(json.dumps({"dry_run": options.dry_run, "machine": machine, "sections": reports}, indent=1))
    bad = [name for name, report in reports.items() if report["status"] in ("FAILED", "broke", "no time left")]
    took = f"in {time.monotonic() - began:.0f} s"
    print("\n" + (f"bad {took}: {', '.join(bad)}" if bad else f"all sections good {took}"))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
