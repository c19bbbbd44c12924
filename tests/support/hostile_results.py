"""A data root whose names are hostile, with made-up results of a test on it: what the tests of reports share."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from phases import PHASES, ROWS, STREAMS_OF

from flowkit.dataset.manifest import ClipRecord, write_split
from flowkit.dataset.root import Dataset, open_root
from flowkit.dataset.settings import ExtractSettings
from flowkit.describe.gallery_files import PAGE_NAME, GalleryFolder, PictureFacts, pictures_name
from flowkit.model.data.whole_videos import Unreadable
from flowkit.model.evaluation.results import Evaluation, SplitEvaluation
from flowkit.model.evaluation.row_results import RowResult
from flowkit.model.runs.provenance import Provenance
from flowkit.model.scoring.metrics import combine_scores
from flowkit.model.systems.configs import make_configs
from flowkit.quantise import Quantiser
from flowkit.shards.schema import ClipAttributes
from flowkit.shards.writer import ClipWriter, write_shard

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CLASSES = (
    "<script>alert(1)</script>",
    "\"quotes\" & 'more' $x_1$",
    "\U0001f600 跳ぶ",
    "two\nlines\u202ereversed",
    "long" * 50,
    "<img src=https://example.org/x onerror=alert(2)>",
    "{{ 7 * 7 }}{% raw %}",
)
NUM_VIDEOS = 14
FAILED = 'bad<b>/"video"'


def make_hostile_root(root: Path) -> Dataset:
    """Write a data root with two test videos of each class in one shard, and metrics of all four phases."""
    records, paths, quantiser = [], [], Quantiser()
    for number in range(NUM_VIDEOS):
        label = number % len(CLASSES)
        video_id = f"folder{label}/<i>{number}</i> '\"&\n\U0001f600"
        draw = np.random.default_rng(number)
        path = root / "clips" / f"{number}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        attributes = ClipAttributes(
            video_id=video_id,
            class_name=CLASSES[label],
            source_name="<b>.mp4",
            source_sha256="",
            frame_rate="25/1",
            num_frames=12,
            header_frames=12,
            decode_errors=0,
            codec="zstd",
            quantiser=quantiser.to_dict(),
            tvl1={"<u>tau": 0.25},
            solver="strict",
        )
        with ClipWriter(path, height=24, width=32) as writer:
            writer.append_frames(draw.integers(0, 255, (12, 24, 32, 3), dtype=np.uint8))
            writer.append_flow(quantiser.encode(draw.normal(0, 2, (11, 2, 24, 32))))
            writer.finish(attributes)
        paths.append(path)
        records.append(ClipRecord(video_id, label, CLASSES[label], 12, "shard-00000.h5"))
    (root / "shards").mkdir()
    write_shard(root / "shards" / "shard-00000.h5", paths)
    digest = hashlib.sha256((root / "shards" / "shard-00000.h5").read_bytes()).hexdigest()
    for number in (1, 2):
        write_split(
            root,
            number,
            protocol="<b>lists</b>",
            classes=CLASSES,
            train=[],
            test=records,
            num_listed_train=0,
            num_listed_test=NUM_VIDEOS + 3,
            quantiser=quantiser,
            shards={"shard-00000.h5": digest},
        )
    open_root(root, root / "videos", ExtractSettings(quantiser=quantiser))
    record = json.loads((root / "dataset.json").read_text(encoding="utf-8"))
    (root / "dataset.json").write_text(json.dumps(record | {"versions": {"<s>numpy": "<1>"}}), encoding="utf-8")
    for phase in PHASES:
        write_metrics(root / "runs" / "default" / "split1" / phase / "metrics.jsonl", STREAMS_OF[phase], num_steps=30)
    return Dataset.open(root)


def make_gallery(folder: Path, video_ids: Sequence[str]) -> None:
    """Write what says that a folder is a gallery of these videos: an empty page and the record, without pictures."""
    gallery = GalleryFolder(folder)
    numbers = {field.name: 1 for field in fields(PictureFacts) if field.name != "video_id"}
    with gallery.writing():
        gallery.facts = {pictures_name(video_id, "00"): PictureFacts(video_id=video_id, **numbers) for video_id in video_ids}
        gallery.shown = frozenset(gallery.facts)
        gallery.save()
        (folder / PAGE_NAME).touch()


def write_metrics(path: Path, streams: tuple[str, ...], *, num_steps: int) -> None:
    """Write a metrics.jsonl as training does."""
    draw = np.random.default_rng(num_steps)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for step in range(num_steps):
            measured = {f"loss_{stream}": 2 / (1 + step) + float(draw.random()) for stream in streams}
            measured |= {f"accuracy_{stream}": step / num_steps for stream in streams}
            loss = sum(measured[f"loss_{stream}"] for stream in streams) / len(streams)
            line = {"step": step, "loss": loss, "outputs": 1, "lr": 0.1 if step < 20 else 0.01}
            file.write(json.dumps({**line, **measured, "seconds": 0.5, "data_seconds": 0.1}) + "\n")


def make_result(dataset: Dataset, number: int = 1, *, seed: int = 0) -> SplitEvaluation:
    """Return results of random scores, of which about half are correct; the last video could not be read."""
    split = dataset.split(number)
    records = split.test[:-1]
    labels = np.array([record.label for record in records])
    draw = np.random.default_rng(seed)
    scores = {}
    for phase in PHASES:
        for stream in STREAMS_OF[phase]:
            scores[phase, stream] = draw.normal(size=(len(records), len(split.classes)))
            scores[phase, stream][np.arange(len(records)), labels] += 1
    rows = {}
    for name, parts in ROWS.items():
        joined = combine_scores([scores[part] for part in parts], weights=[1.0] * len(parts))
        rows[name] = RowResult.of(joined, labels)
    configs = make_configs("small", num_classes=len(split.classes), num_videos=12, short_side=64)
    runs = dataset.root / "runs" / "default" / "split1"
    return SplitEvaluation(
        split=number,
        classes=split.classes,
        video_ids=tuple(record.video_id for record in records),
        labels=labels,
        rows=rows,
        stream_scores=scores,
        num_listed=split.num_listed_test,
        failed=(Unreadable(FAILED, "it is <b>damaged</b>"),),
        untrained_classes=split.classes[:2],
        checkpoints={phase: str(runs / phase) for phase in PHASES},
        warnings=("weights <i>elsewhere</i>: digest was 00, is 11",),
        provenances={
            phase: Provenance(config, split.classes, number, split.protocol, split.digest, split.quantiser.to_dict())
            for phase, config in configs.items()
        },
    )


def make_evaluation(*results: SplitEvaluation) -> Evaluation:
    """Return an evaluation of these splits."""
    return Evaluation(
        tuple(results), ("25 frames a video, <of course>", "streams joined"), environment={"flowkit": "<0>", "num_threads": 2}
    )


def make_row(result: SplitEvaluation, name: str, scores: np.ndarray) -> SplitEvaluation:
    """Return results with other scores for one row."""
    return replace(result, rows={**result.rows, name: RowResult.of(scores, result.labels)})


def of_seed(result: SplitEvaluation, seed: int, **changes: Any) -> SplitEvaluation:
    """Return the results of a run that was trained with another seed."""
    drawn = np.random.default_rng(seed)
    provenances = {
        phase: replace(made, config=replace(made.config, seed=seed, **changes), started_from={"motion": f"{seed}" * 64})
        for phase, made in result.provenances.items()
    }
    rows = {name: RowResult.of(drawn.normal(size=row.scores.shape), result.labels) for name, row in result.rows.items()}
    streams = {part: drawn.normal(size=scores.shape) for part, scores in result.stream_scores.items()}
    return replace(result, provenances=provenances, rows=rows, stream_scores=streams)
