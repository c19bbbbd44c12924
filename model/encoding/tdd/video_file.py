"""The vector of a video file that is in no data root, by the networks and the encoder of a data root."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flowkit.dataset.paths import clip_path
from flowkit.dataset.root import Dataset
from flowkit.errors import CheckpointError, FeaturesError
from flowkit.extraction.loose_videos import loose_clips
from flowkit.extraction.results import WRITTEN
from flowkit.model.compute.execution import Execution
from flowkit.model.encoding.descriptors.two_passes import Passes, fisher_vectors
from flowkit.model.encoding.encoder_files import load_encoder
from flowkit.model.encoding.tdd.descriptors import PooledDescriptors
from flowkit.model.encoding.tdd.features import map_networks
from flowkit.model.encoding.trajectory_settings import TrajectorySettings
from flowkit.model.encoding.trajectory_videos import TrajectoryVideo, TrajectoryVideos
from flowkit.model.runs.checkpoint import load_checkpoint
from flowkit.model.runs.recorded_extraction import extraction_here
from flowkit.model.scoring.feature_journal import VideoToDo
from flowkit.model.scoring.video_features import FeatureReport
from flowkit.shards.reader import ShardReader
from flowkit.temporary import temporary_folder
from flowkit.video.tree import VideoFile
from flowkit.workers.stopping import StopRequest

_LOOSE_ID = "video"  # of the clip, which is in no data root


def pooled_features_of_file(
    file: Path,
    output: Path,
    *,
    root: Path,
    split: int,
    run: str,
    runs: Path | None,
    provenance: dict[str, Any],
    encoder_path: Path,
    execution: Execution,
) -> FeatureReport:
    """Extract a video file as the videos of the training were, and encode its trajectory-pooled descriptors.

    Parameters
    ----------
    file : Path
        The video.
    output : Path
        The file of features to write (``.h5``).
    root, split, run, runs
        Where the networks are; see `pooled_features`.
    provenance : dict
        That of the vectors of the data root, which says how they were computed.
    encoder_path : Path
        Their encoder.
    execution : Execution
        Where the networks compute.

    Raises
    ------
    CheckpointError
        If the networks are others than those of `provenance`.
    FeaturesError
        If the video cannot be read.
    """
    networks, scales = map_networks(Dataset.open(root), run, split, runs)
    camera_motion = provenance["camera_motion"]
    source = PooledDescriptors(networks, scales, camera_motion, str(execution.torch_device()))
    if any(provenance.get(name) != value for name, value in source.recorded().items()):
        raise CheckpointError(f"the networks of run {run!r} are not those by which {encoder_path} was fitted; train {source.name} again")
    first = load_checkpoint(networks[0].path).provenance
    settings, _ = extraction_here(first, root, "auto", execution.device)
    with temporary_folder("clip") as folder:
        (made,) = loose_clips([VideoFile(_LOOSE_ID, file, "")], folder, settings=settings)
        if made.status not in WRITTEN:
            raise FeaturesError(made.error or f"{file} is {made.status}")
        stored = clip_path(folder, _LOOSE_ID)
        with ShardReader(stored) as reader:
            about = VideoToDo.of(reader.clip(_LOOSE_ID))
        pixels = provenance["pixels"]
        video = TrajectoryVideo(about, stored, file if pixels == "source" else None, settings.reading)
        found = TrajectoryVideos(pixels, {_LOOSE_ID: video}, {}, reading=settings.reading)
        return fisher_vectors(
            Passes(root, source, found, TrajectorySettings(camera_motion), 1, StopRequest()),
            output,
            train=None,
            encoder=load_encoder(encoder_path),
            encoder_path=encoder_path,
            asked=[_LOOSE_ID],
            progress=False,
        )
