"""Two passes over videos: one draws the sample that an encoder is fitted to, the other encodes each video as one vector."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowkit.dataset.manifest import Split
from flowkit.dataset.progress import StageProgress
from flowkit.errors import CheckpointError, FeaturesError
from flowkit.locks import exclusive_lock
from flowkit.model.data.whole_videos import Unreadable
from flowkit.model.encoding.descriptor_sample import gathered, share_of
from flowkit.model.encoding.descriptors.source import DescriptorSource
from flowkit.model.encoding.encoder import Encoder
from flowkit.model.encoding.encoder_files import load_encoder, save_encoder
from flowkit.model.encoding.fitting import FittedType, check_scikit_learn, encoder_of
from flowkit.model.encoding.trajectory_settings import TrajectorySettings
from flowkit.model.encoding.trajectory_tasks import Encoding, FitTask, Sampling, TrajectoryTask
from flowkit.model.encoding.trajectory_videos import TrajectoryVideos
from flowkit.model.encoding.trajectory_work import fit_types, name_of, planned_vector, run_pass
from flowkit.model.runs.places import check_writable
from flowkit.model.scoring.feature_files import OTHER_OUTPUT, write_features
from flowkit.model.scoring.feature_folder import write_feature_folder
from flowkit.model.scoring.feature_journal import FeatureJournal, journal_of
from flowkit.model.scoring.feature_videos import check_features_of_files, check_features_of_root
from flowkit.model.scoring.video_features import FILE_SUFFIX, FeatureReport, finished_features
from flowkit.versions import software_versions
from flowkit.video.reading import Reading
from flowkit.words import counted
from flowkit.workers.stopping import GRACE_SECONDS, StopRequest

ENCODER_ENDING = "-encoder.safetensors"
MOST_SAMPLE_BYTES = 1 << 30  # of the types that are fitted together, before they are copied to processes
_SOFTWARE = ("flowkit", "av", "opencv-contrib-python-headless", "opencv-contrib-python")  # what decodes, and what finds keypoints


@dataclass(frozen=True)
class Passes:
    """How the two passes are made.

    Parameters
    ----------
    root : Path
        The data root; not read if the videos are files.
    source : DescriptorSource
        What is computed along trajectories.
    found : TrajectoryVideos
        The videos.
    settings : TrajectorySettings
        The size of the sample, and what is fitted to it.
    jobs : int, optional
        Number of worker processes. Default: one per core.
    stop : StopRequest
        Lets the passes end early; what is finished is kept for the next call.
    grace_seconds : float
        How long videos in progress may take once a stop is requested.
    """

    root: Path
    source: DescriptorSource
    found: TrajectoryVideos
    settings: TrajectorySettings
    jobs: int | None
    stop: StopRequest
    grace_seconds: float = GRACE_SECONDS


def fisher_vectors(
    passes: Passes,
    path: Path,
    *,
    train: Split | None,
    encoder: Encoder | None,
    encoder_path: Path,
    asked: Sequence[str],
    notes: Sequence[str] = (),
    replace: bool = False,
    progress: bool | None = None,
) -> FeatureReport:
    """Make the two passes, or the second alone, and write the file of features; continue where an earlier call stopped.

    Parameters
    ----------
    passes : Passes
        What is computed of which videos.
    path : Path
        The file, or the folder.
    train : Split, optional
        The split to whose training videos the encoder is fitted; None if it is given.
    encoder : Encoder, optional
        A fitted encoder.
    encoder_path : Path
        Where the encoder lies, or will be written.
    asked : sequence of str
        The ids of the videos that are encoded.
    notes : sequence of str
        What the user should know, in sentences without a full stop.
    replace : bool
        Replace features and encoders of other settings.
    progress : bool, optional
        Show progress on stderr.

    Raises
    ------
    CheckpointError
        If the encoder of an earlier call was fitted with other settings, unless `replace`.
    FeaturesError
        If there are features of another encoder or other settings (unless `replace`), or no video could be encoded.
    ParameterError
        If scikit-learn is missing, or the sample is too small.
    BusyError
        If another process writes the same file.
    """
    check_writable(path.parent, option="--output")
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        exclusive_lock(path.with_name(f".{path.name}.lock"), f"computes the features in {str(path)!r}"),
        StageProgress(progress) as bars,
    ):
        for note in notes:
            bars.message(f"note: {note}")
        work = _Work(passes, bars)
        fitted = work.fitted(encoder_path, train, replace=replace) if train is not None else encoder
        if fitted is None:
            return FeatureReport(path, 0, 0, {}, work.failures(asked), tuple(notes), stopped=True)
        constant = _constant_note(fitted)
        for note in constant:
            bars.message(f"note: {note}")
        return work.encoded(path, fitted, encoder_path, asked, (*notes, *constant), replace=replace)


def encoder_path_of(output: Path) -> Path:
    """Return where the encoder lies that was fitted for a file of features: beside it."""
    return output.with_name(output.name.removesuffix(FILE_SUFFIX) + ENCODER_ENDING)


class _Work:
    """The two passes over the videos, and what failed in them."""

    def __init__(self, passes: Passes, bars: StageProgress) -> None:
        self._passes, self._bars = passes, bars
        self._source, self._found, self._settings = passes.source, passes.found, passes.settings
        self._failed = dict(passes.found.unreadable)

    def failures(self, video_ids: Iterable[str]) -> tuple[Unreadable, ...]:
        """Return which of these videos failed, and why."""
        return tuple(Unreadable(video_id, self._failed[video_id]) for video_id in video_ids if video_id in self._failed)

    def fitted(self, path: Path, train: Split, *, replace: bool) -> Encoder | None:
        """Return the encoder of the training videos, fitted now or by an earlier call; None if a stop was requested before that."""
        check_scikit_learn()
        settings, train_ids = self._settings, [record.video_id for record in train.train]
        plan = {
            "of": self._source.name,
            "descriptors": dict(self._source.sizes),
            **self._source.recorded(),
            "pixels": self._found.pixels,
            "trained_on": {"split": train.number, "protocol": train.protocol, "digest": train.digest},
            "sample_size": settings.sample_size,
            "num_components": settings.num_components,
            "seed": settings.seed,
            **_recorded(self._found.reading),
        }
        if path.exists():
            there = _existing(path, plan, replace=replace)
            if there is not None:
                return there
        sampling = Sampling(share_of(len(train_ids), settings.sample_size), settings.seed)
        tasks = self._tasks(train_ids, sampling)
        with FeatureJournal(journal_of(path), {**plan, "most": sampling.most, "computed": _software()}) as journal:
            if not self._run("sample", tasks, journal):
                return None
            names = {task.video.about.video_id: name_of(task.video.about) for task in tasks}
            sampled = {video_id: name for video_id, name in names.items() if name in journal}
            types: list[FittedType] = []
            for sample in self._samples(sampled, journal):
                if not sample:
                    raise FeaturesError(_no_descriptors(train_ids, self.failures(train_ids)))
                found = self._fit(sample, journal, num_before=len(types))
                if found is None:
                    return None
                types += found
            about = {**plan, "without": sorted({*train_ids} - {*sampled}), "computed": _software()}
            encoder = encoder_of(types, num_components=settings.num_components, seed=settings.seed, provenance=about)
            save_encoder(path, encoder)
            journal.remove()
        return encoder

    def _samples(self, sampled: Mapping[str, Any], journal: FeatureJournal) -> Iterator[dict[str, NDArray[np.float32]]]:
        """Yield the samples of all videos of as many types at once as fit into memory; nothing in them if no video has descriptors."""
        sizes = self._source.sizes
        most = max(MOST_SAMPLE_BYTES // (4 * max(sizes.values()) * max(self._settings.sample_size, 1)), 1)
        names = list(sizes)
        for together in (names[first : first + most] for first in range(0, len(names), most)):
            yield gathered({video_id: _some(journal.read(name), together) for video_id, name in sampled.items()})

    def _fit(self, sample: Mapping[str, NDArray[np.float32]], journal: FeatureJournal, *, num_before: int) -> list[FittedType] | None:
        """Fit some types; None if a stop was requested before all were fitted."""
        source, settings, sizes = self._source, self._settings, self._source.sizes
        fits = [
            FitTask(name, rows, settings.num_components, settings.seed, source.num_outputs(sizes[name]), source.whiten)
            for name, rows in sample.items()
        ]

        def show(done: int, _: int) -> None:
            self._bars.update("encoder (fit)", num_before + done, len(sizes), unit="types of descriptors")

        passes = self._passes
        return fit_types(fits, journal, jobs=passes.jobs, stop=passes.stop, grace_seconds=passes.grace_seconds, on_progress=show)

    def encoded(
        self, path: Path, encoder: Encoder, encoder_path: Path, asked: Sequence[str], notes: tuple[str, ...], *, replace: bool
    ) -> FeatureReport:
        """Encode the videos and write their file."""
        streams = {self._source.name: encoder.size}
        trained_on = encoder.provenance.get("trained_on")
        provenance = {
            "of": self._source.name,
            "streams": streams,
            "encoder_sha256": encoder.digest(),
            "encoder": encoder.provenance,
            "trained_on": trained_on if isinstance(trained_on, dict) else None,
            **self._source.recorded(),
            "pixels": self._found.pixels,
            **_recorded(self._found.reading),
            "computed": _software(),
        }
        stored = self._found.stored
        check = check_features_of_files if stored is None else partial(check_features_of_root, root=self._passes.root, stored=stored)
        finished = finished_features(path, provenance, check, replace=replace)
        clips, sources = ({}, {}) if finished is None else (finished.digests(), finished.source_digests())
        wanted = {name: self._found.videos[name].about for name in asked if name in self._found.videos}
        kept = [name for name, about in wanted.items() if (clips.get(name), sources.get(name)) == (about.sha256, about.source_sha256)]
        tasks = self._tasks([name for name in asked if name not in {*kept}], Encoding(encoder_path, encoder.digest()))
        for task in tasks:  # a video that could not be sampled may be readable now
            self._failed.pop(task.video.about.video_id, None)
        with FeatureJournal(journal_of(path), provenance) as journal:
            if not self._run("encode", tasks, journal, num_before=len(kept)):
                return FeatureReport(path, 0, len(kept), streams, self.failures(asked), notes, stopped=True)
            made = [task.video.about for task in tasks if name_of(task.video.about) in journal]
            planned = {about.video_id: planned_vector(about, journal, streams) for about in made}
            if finished is not None:
                others = [name for name in finished.video_ids if name in kept or name not in {*asked}]
                planned |= {name: finished.planned(name) for name in others}
            failed = self.failures(asked)
            if not planned:
                raise FeaturesError(f"no video could be encoded: {'; '.join(f'{one.video_id}: {one.reason}' for one in failed[:3])}")
            if finished is None or made or finished.video_ids != tuple(sorted(planned)):
                write = write_features if path.suffix == FILE_SUFFIX else write_feature_folder
                write(path, provenance, [planned[name] for name in sorted(planned)])
            journal.remove()
        return FeatureReport(path, len(planned), len(kept), streams, failed, notes)

    def _tasks(self, video_ids: Iterable[str], purpose: Sampling | Encoding) -> list[TrajectoryTask]:
        videos = self._found.videos
        return [TrajectoryTask(videos[name], self._source, purpose) for name in video_ids if name in videos]

    def _run(self, purpose: str, tasks: Sequence[TrajectoryTask], journal: FeatureJournal, *, num_before: int = 0) -> bool:
        def show(done: int, num_videos: int) -> None:
            note = f"{len(self._failed)} failed" if self._failed else ""
            self._bars.update(f"{self._source.words} ({purpose})", num_before + done, num_before + num_videos, note=note)

        passes = self._passes
        return run_pass(
            tasks, journal, self._failed, jobs=passes.jobs, stop=passes.stop, grace_seconds=passes.grace_seconds, on_progress=show
        )


def _some(arrays: Mapping[str, NDArray[np.float32]], names: Iterable[str]) -> dict[str, NDArray[np.float32]]:
    """Return those of the arrays that have these names; a video without descriptors has none."""
    return {name: arrays[name] for name in names if name in arrays}


def _recorded(reading: Reading) -> dict[str, Any]:
    return {"reading": reading.to_dict()} if reading.to_dict() else {}


def _existing(path: Path, plan: dict[str, Any], *, replace: bool) -> Encoder | None:
    """Return the encoder of an earlier call if it was fitted as planned; None if it may be replaced."""
    try:
        there = load_encoder(path)
    except CheckpointError:
        if replace:
            return None
        raise
    different = sorted(name for name in {*plan, "reading"} if there.provenance.get(name) != plan.get(name))
    if not different:
        return there
    if replace:
        return None
    raise CheckpointError(f"{path} was fitted with other settings, which differ in {', '.join(different)}; {OTHER_OUTPUT}")


def _software() -> dict[str, str]:
    return {name: version for name, version in software_versions().items() if name in _SOFTWARE}


def _constant_note(encoder: Encoder) -> list[str]:
    """Return that types of descriptors contribute nothing, if that is so."""
    names = [one.name for one in encoder.types if one.is_constant]
    if not names:
        return []
    return [f"the descriptors {', '.join(names)} of the training videos are all equal, so their part of each vector is 0"]


def _no_descriptors(train_ids: Sequence[str], failed: Sequence[Unreadable]) -> str:
    reasons = "".join(f"; {one.video_id}: {one.reason}" for one in failed[:3])
    return (
        f"the {counted(len(train_ids), 'training video')} have no trajectories, so no encoder can be fitted: a trajectory needs 16 frames "
        f"and motion{reasons}"
    )
