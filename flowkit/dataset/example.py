"""A tiny data root, made in a second, for the examples of the documentation and for tests."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from flowkit.dataset.manifest import ClipRecord, write_split
from flowkit.dataset.paths import clip_path
from flowkit.dataset.root import open_root
from flowkit.dataset.settings import ExtractSettings
from flowkit.files import file_sha256
from flowkit.quantise import Quantiser
from flowkit.shards.schema import ClipAttributes
from flowkit.shards.writer import ClipWriter, write_shard

CLASSES = tuple(f"colour{colour}-motion{motion}" for colour in range(3) for motion in range(2))
HEIGHT, WIDTH = 40, 56
NUM_TRAIN, NUM_TEST = 12, 6


def example_root(folder: str | os.PathLike[str] | None = None, *, quantiser: Quantiser | None = None) -> Path:
    """Make a data root of 18 generated clips in two shards, with one split: 12 to train, 6 to test.

    The classes are 3 colours x 2 motions. Clips are 56 x 40 px and 11 to 22 frames long; channel ``label // 2`` of the frames is
    bright, and ``label % 2`` says whether the flow has the same length everywhere or grows with the column. The manifest says
    that a seventh test video was listed, which is missing.

    Parameters
    ----------
    folder : path, optional
        Where to make it. By default a temporary folder, which is deleted when Python ends.
    quantiser : Quantiser, optional
        How the flow is stored. By default as `flowkit extract` stores it.

    Returns
    -------
    Path
        The data root.

    Examples
    --------
    >>> from flowkit.dataset.example import example_root
    >>> sorted(path.name for path in example_root().iterdir())
    ['clips', 'dataset.json', 'shards', 'splits']
    """
    if folder is None:
        folder = tempfile.mkdtemp(prefix="flowkit-example-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    root = Path(folder)
    settings = ExtractSettings(short_side=HEIGHT, quantiser=quantiser or Quantiser())
    open_root(root, root / "videos", settings)
    records = [_write_clip(root, number, settings) for number in range(NUM_TRAIN + NUM_TEST)]
    (root / "shards").mkdir()
    for name in sorted({record.shard for record in records}):
        members = [clip_path(root, record.video_id) for record in records if record.shard == name]
        write_shard(root / "shards" / name, members)
    write_split(
        root,
        1,
        protocol="automatic",
        classes=CLASSES,
        train=records[:NUM_TRAIN],
        test=records[NUM_TRAIN:],
        num_listed_train=NUM_TRAIN,
        num_listed_test=NUM_TEST + 1,
        quantiser=settings.quantiser,
        shards={path.name: file_sha256(path) for path in sorted((root / "shards").iterdir())},
    )
    return root


def _write_clip(root: Path, number: int, settings: ExtractSettings) -> ClipRecord:
    """Write the clip of one video; return its row of the manifest."""
    draw = np.random.default_rng(number)
    label, name = number % len(CLASSES), f"v{number:02d}"
    record = ClipRecord(f"{CLASSES[label]}/{name}", label, CLASSES[label], int(draw.integers(11, 23)), f"shard-0000{number % 2}.h5")
    frames = draw.integers(0, 100, (record.num_frames, HEIGHT, WIDTH, 3), dtype=np.uint8)
    frames[..., label // 2] += 120
    flow = draw.normal(0, 0.5, (record.num_frames - 1, 2, HEIGHT, WIDTH))
    flow[:, 1] += 6 * np.linspace(-1, 1, WIDTH) if label % 2 else 3
    attributes = ClipAttributes(
        video_id=record.video_id,
        class_name=record.class_name,
        source_name=f"{name}.mp4",
        source_sha256="",
        frame_rate="25/1",
        num_frames=record.num_frames,
        header_frames=record.num_frames,
        decode_errors=0,
        codec=settings.codec,
        quantiser=settings.quantiser.to_dict(),
        tvl1=settings.stored_tvl1(),
        solver=settings.solver,
        method=settings.stored_method(),
        camera_motion=settings.stored_camera_motion(),
    )
    with ClipWriter(clip_path(root, record.video_id), height=HEIGHT, width=WIDTH) as writer:
        writer.append_frames(frames)
        writer.append_flow(settings.quantiser.encode(flow))
        writer.finish(attributes)
    return record
