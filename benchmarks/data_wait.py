"""Measure how long training waits for data: short runs on generated shards, with crops on the host and on the device.

bench_train.py (--data-wait) and gpu_suite.py start this. Shards are zstd if hdf5plugin is available, else gzip, which is slower to
read; the files are in the page cache.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from bench_read import generated_videos

from flowkit.dataset.manifest import ClipRecord, write_split
from flowkit.dataset.root import Dataset, open_root
from flowkit.dataset.settings import ExtractSettings
from flowkit.model.compute.execution import Execution
from flowkit.model.networks.phase_networks import build_network
from flowkit.model.runs.checkpoint import Checkpoint, save_weights
from flowkit.model.runs.events import StepDone
from flowkit.model.runs.provenance import Provenance
from flowkit.model.runs.run_folder import phase_folder
from flowkit.model.systems.configs import make_configs
from flowkit.model.training.chain import train
from flowkit.shards.schema import ClipAttributes
from flowkit.shards.writer import ClipWriter, write_shard

NUM_CLASSES = 2


@dataclass(frozen=True)
class Size:
    """The size of a run: its videos, its network and its steps."""

    num_videos: int = 16
    num_frames: int = 80
    height: int = 256
    width: int = 340
    base_width: int = 64
    input_size: int = 224
    batch: int = 32
    bn_group: int = 4
    steps: int = 8


FULL = Size()
CPU_SIZE = Size(num_videos=4, batch=4, steps=5)  # full width too
TINY = Size(num_videos=2, num_frames=20, height=40, width=56, base_width=4, input_size=32, batch=4, bn_group=2, steps=3)


def make_root(root: Path, size: Size) -> str:
    """Write a data root with one shard of moving textures, its split, and random weights of the base streams; return the codec."""
    codec = "zstd" if find_spec("hdf5plugin") else "gzip"
    records, files = [], []
    for video in generated_videos(size.num_videos, size.num_frames, size.height, size.width):
        label = len(files) % NUM_CLASSES
        path = root / "clips" / f"{video.video_id}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        attributes = ClipAttributes(
            video_id=video.video_id,
            class_name=str(label),
            source_name=f"{video.video_id}.mp4",
            source_sha256="",
            frame_rate="25/1",
            num_frames=size.num_frames,
            header_frames=size.num_frames,
            decode_errors=0,
            codec=codec,
            quantiser=video.quantiser.to_dict(),
            tvl1={},
            solver="fast",
        )
        with ClipWriter(path, codec=codec, height=size.height, width=size.width) as writer:
            writer.append_frames(video.frames)
            writer.append_flow(video.flow)
            writer.finish(attributes)
        files.append(path)
        records.append(ClipRecord(video.video_id, label, str(label), size.num_frames, "shard-00000.h5"))
    shard = root / "shards" / "shard-00000.h5"
    shard.parent.mkdir()
    write_shard(shard, files)
    write_split(
        root,
        1,
        protocol="generated",
        classes=[str(label) for label in range(NUM_CLASSES)],
        train=records,
        test=[],
        num_listed_train=len(records),
        num_listed_test=0,
        quantiser=video.quantiser,
        shards={shard.name: hashlib.sha256(shard.read_bytes()).hexdigest()},
    )
    open_root(root, root / "videos", ExtractSettings(short_side=size.height, quantiser=video.quantiser))
    split = Dataset.open(root).split(1)
    configs = make_configs(
        "official", num_classes=NUM_CLASSES, num_videos=len(records), short_side=size.height, overrides=overrides_of(size)
    )
    for phase in ("appearance", "motion"):
        provenance = Provenance(configs[phase], split.classes, 1, split.protocol, split.digest, split.quantiser.to_dict())
        checkpoint = Checkpoint(provenance, 1, build_network(configs[phase]).state_dict())
        save_weights(phase_folder(root, "base", 1, phase) / "weights.safetensors", checkpoint)
    return codec


def overrides_of(size: Size) -> dict:
    """Return the settings of the runs; the learning rate is zero, because only time is measured."""
    return {
        "base_width": size.base_width,
        "input_size": size.input_size,
        "batch": size.batch,
        "bn_group": size.bn_group,
        "steps": size.steps,
        "lr": 0.0,
    }


def measure_data_wait(device: str, size: Size, *, amp: str = "float32", num_workers: int | None = None, rounds: int = 1) -> list[dict]:
    """Train ST-ResNet for a few steps, with crops on the host and on the device in turn; return one row for each.

    The time of a step is that in the metrics of training. The first two steps, which start the workers and choose algorithms, are
    left out.
    """
    rows = {crop_on: [] for crop_on in ("host", "device")}
    with tempfile.TemporaryDirectory() as folder:
        codec = make_root(Path(folder), size)
        for number in range(rounds):
            for crop_on, steps in rows.items():
                events = []
                train(
                    Path(folder),
                    phases=["st-resnet"],
                    run=f"{crop_on}{number}",
                    base_run="base",
                    recipe="official",
                    overrides=overrides_of(size),
                    execution=Execution(device=device, amp=amp, crop_on=crop_on, num_workers=num_workers, checkpoint_seconds=1e9),
                    on_event=events.append,
                )
                steps += [event for event in events if isinstance(event, StepDone) and event.step >= 2]
    return [
        {
            "crops on": crop_on,
            "precision": amp,
            "codec": codec,
            "data wait": sum(step.data_seconds for step in steps) / sum(step.seconds for step in steps),
            "step, s": statistics.median(step.seconds for step in steps),
            "clips/s": size.batch / statistics.median(step.seconds for step in steps),
        }
        for crop_on, steps in rows.items()
    ]


if __name__ == "__main__":
    began = time.monotonic()
    for row in measure_data_wait("cpu", TINY):
        print(row)
    print(f"{time.monotonic() - began:.1f} s, load {os.getloadavg()[0]:.1f}")
