"""Measure how many videos `flowkit features` does per second with networks of full width, and where the time goes.

    python benchmarks/features.py VIDEO ...                                 # ResNet-50s with random weights, 224 px
    python benchmarks/features.py VIDEO ... --checkpoint FILE --checkpoint FILE

The videos are extracted (fast solver, short side 256), once, and the time of each is noted. Then `flowkit.model.features` computes 25 time
steps of each, with each network in turn, without and with mirror images, for `--rounds` rounds. A video's time is that from the end of the
video before it: reading, network and keeping. Random weights take as long as trained ones. The table shows medians over videos and rounds
of the elapsed and of the processor time, because other programs on the machine lengthen the first far more than the second.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import torch

import flowkit
from flowkit.dataset.clips import ClipSource, find_clips
from flowkit.dataset.settings import ExtractSettings
from flowkit.model.compute.execution import Execution, machine
from flowkit.model.data.sampling import protocol_centres
from flowkit.model.data.whole_videos import read_whole
from flowkit.model.networks.phase_networks import build_network
from flowkit.model.runs.checkpoint import Checkpoint, load_checkpoint, save_weights
from flowkit.model.runs.provenance import Provenance
from flowkit.model.scoring.video_features import features
from flowkit.model.systems.configs import make_configs
from flowkit.quantise import Quantiser

UCF101_VIDEOS, NUM_CLASSES = 13_320, 101
PHASES = ("appearance", "motion", "st-resnet")


def clock() -> tuple[float, float]:
    """Return the elapsed and the processor time, in s."""
    return time.perf_counter(), time.process_time()


def random_networks(folder: Path, classes: int) -> list[Path]:
    """Write the weights of networks of full width that were not trained."""
    paths = []
    for phase, config in make_configs("official", num_classes=classes, num_videos=9537, short_side=256).items():
        if phase in PHASES:
            torch.manual_seed(0)
            names = tuple(f"class{number}" for number in range(classes))
            provenance = Provenance(config, names, 1, "automatic", "0" * 64, Quantiser().to_dict())
            paths.append(folder / f"{phase}.safetensors")
            save_weights(paths[-1], Checkpoint(provenance, 0, build_network(config).state_dict()))
    return paths


def seconds_per_video(root: Path, weights: Path, output: Path, *, mirror: bool, execution: Execution) -> list[tuple[float, float]]:
    """Compute the features of a data root once; return the elapsed and the processor time of each video but the first."""
    stamps: list[tuple[float, float]] = []

    def note() -> bool:
        stamps.append(clock())
        return False

    output.unlink(missing_ok=True)  # or nothing would be computed in a second round
    features(root, checkpoint=weights, mirror=mirror, output=output, execution=execution, progress=False, should_stop=note)
    return [(wall - wall_before, cpu - cpu_before) for (wall_before, cpu_before), (wall, cpu) in pairwise(stamps)]


def seconds_to_read(root: Path) -> list[tuple[float, float]]:
    """Return the elapsed and the processor time of reading 25 frames and their stacks of each video."""
    found, stored = [], find_clips(root)
    with ClipSource(stored) as clips:
        for video_id in stored.paths:
            began = clock()
            clip = clips.clip(video_id)
            read_whole(clip, protocol_centres(clip.num_frames), input_size=224)
            ended = clock()
            found.append((ended[0] - began[0], ended[1] - began[1]))
    return found


def print_table(found: dict[str, list[tuple[float, float]]], sizes: dict[str, int]) -> None:
    """Print the medians so far, and what they mean for UCF101 on one core."""
    print("\n| | elapsed, s/video | processor, s/video | videos/s | UCF101, h | kB/video |\n|---|--:|--:|--:|--:|--:|")
    for name, times in found.items():
        wall, cpu = (statistics.median(values) for values in zip(*times, strict=True))
        hours = UCF101_VIDEOS * cpu / 3600
        print(f"| {name} | {wall:.3g} | {cpu:.3g} | {1 / cpu:.3g} | {hours:.3g} | {sizes.get(name, 0) / 1000:.4g} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs="+", type=Path, metavar="VIDEO")
    parser.add_argument("--checkpoint", type=Path, action="append", help="weights to measure with, instead of random ones; may be repeated")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="threads of the network")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="write every time to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    execution = Execution(device=options.device)
    print(f"{machine()['cpu']}, {options.threads} thread(s), device {options.device}, torch {torch.__version__}", flush=True)
    with tempfile.TemporaryDirectory(prefix="flowkit-features-") as folder:
        home, root = Path(folder), Path(folder, "data")
        (home / "videos" / "any").mkdir(parents=True)
        for path in options.videos:
            (home / "videos" / "any" / path.name).symlink_to(path.absolute())
        report = flowkit.extract(home / "videos", root, settings=ExtractSettings(solver="fast"), jobs=1, progress=False)
        frames = sum(result.num_frames for result in report.done)
        seconds = sum(result.seconds for result in report.done)
        print(f"extraction: {len(report.done)} videos, {frames} frames, {1000 * seconds / frames:.1f} ms per frame on one core", flush=True)
        weights = options.checkpoint or random_networks(home, NUM_CLASSES)
        sizes: dict[str, int] = {}
        found: dict[str, list[tuple[float, float]]] = {"reading": []}
        for _ in range(options.rounds):
            found["reading"] += seconds_to_read(root)
            for path in weights:
                phase = load_checkpoint(path).provenance.config.phase
                for mirror in (False, True):
                    name = f"{phase}, mirror images" if mirror else phase
                    output = home / f"{name}.h5"
                    found.setdefault(name, []).extend(seconds_per_video(root, path, output, mirror=mirror, execution=execution))
                    sizes[name] = output.stat().st_size // len(report.done)
                    print(f"{name}: {found[name][-1][1]:.2f} s", flush=True)
            print_table(found, sizes)  # after each round, since one takes some minutes
    if options.json is not None:
        options.json.write_text(json.dumps({"times": found, "bytes": sizes, "machine": machine()}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
