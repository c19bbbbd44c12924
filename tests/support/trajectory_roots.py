"""A data root of a few generated videos that have trajectories, beside the videos; its flow is zero, so that it is made in a moment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from generated_sets import write_motions

from flowkit.dataset.manifest import ClipRecord, write_split
from flowkit.dataset.paths import clip_path
from flowkit.dataset.root import open_root
from flowkit.dataset.settings import ExtractSettings
from flowkit.files import file_sha256
from flowkit.shards.schema import ClipAttributes
from flowkit.shards.writer import ClipWriter, write_shard
from flowkit.video.decode import read_frames

CLASSES = ("Pulsing", "Sliding")
NUM_FRAMES = 18
VIDEOS = tuple(f"{name}/{video}" for name in CLASSES for video in ("test000", "train000", "train001"))


def make_trajectory_root(folder: Path) -> Path:
    """Write ``videos`` and the data root ``data``: two classes, each with two training videos and a test video of 18 frames."""
    write_motions(folder, dict.fromkeys(CLASSES, (2, 1)), num_frames=NUM_FRAMES, height=64)
    root, settings = folder / "data", ExtractSettings(short_side=48)
    root.mkdir()
    open_root(root, folder / "videos", settings)
    shard = root / "shards" / "shard-00000.h5"
    for video_id in VIDEOS:
        _write_clip(root, folder / "videos" / f"{video_id}.avi", video_id, settings)
    shard.parent.mkdir()
    write_shard(shard, [clip_path(root, video_id) for video_id in VIDEOS])
    records = [
        ClipRecord(video_id, CLASSES.index(video_id.split("/")[0]), video_id.split("/")[0], NUM_FRAMES, shard.name) for video_id in VIDEOS
    ]
    train, test = ([record for record in records if subset in record.video_id] for subset in ("train", "test"))
    write_split(
        root,
        1,
        protocol="automatic",
        classes=CLASSES,
        train=train,
        test=test,
        num_listed_train=len(train),
        num_listed_test=len(test),
        quantiser=settings.quantiser,
        shards={shard.name: file_sha256(shard)},
    )
    return root


def _write_clip(root: Path, path: Path, video_id: str, settings: ExtractSettings) -> None:
    frames = np.concatenate([batch.frames for batch in read_frames(path, short_side=settings.short_side)])
    with ClipWriter(clip_path(root, video_id), height=frames.shape[1], width=frames.shape[2]) as writer:
        writer.append_frames(frames)
        writer.append_flow(np.full((len(frames) - 1, 2, *frames.shape[1:3]), 128, np.uint8))
        writer.finish(
            ClipAttributes(
                video_id=video_id,
                class_name=video_id.split("/", maxsplit=1)[0],
                source_name=path.name,
                source_sha256=file_sha256(path),
                frame_rate="12/1",
                num_frames=len(frames),
                header_frames=len(frames),
                decode_errors=0,
                codec=settings.codec,
                quantiser=settings.quantiser.to_dict(),
                tvl1=settings.stored_tvl1(),
                solver=settings.solver,
            )
        )
