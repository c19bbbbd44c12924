"""`trajectory_features`: improved dense trajectories of all videos of a data root, as one Fisher vector each, in one file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from flowkit.dataset.manifest import Split
from flowkit.dataset.progress import StageProgress
from flowkit.dataset.root import Dataset
from flowkit.errors import CheckpointError, FeaturesError, ParameterError
from flowkit.locks import exclusive_lock
from flowkit.model.data.whole_videos import Unreadable
from flowkit.model.encoding.descriptor_sample import gathered, share_of
from flowkit.model.encoding.encoder import Encoder
from flowkit.model.encoding.encoder_files import load_encoder, save_encoder
from flowkit.model.encoding.fitting import check_scikit_learn, encoder_of
from flowkit.model.encoding.trajectory_settings import NUM_COMPONENTS, SAMPLE_SIZE, TRAJECTORIES, CameraMotion, Pixels, TrajectorySettings
from flowkit.model.encoding.trajectory_tasks import DESCRIPTORS, Encoding, FitTask, Sampling, TrajectoryTask
from flowkit.model.encoding.trajectory_videos import TrajectoryVideos, find_trajectory_videos, loose_trajectory_videos
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
_SOFTWARE = ("flowkit", "av", "opencv-contrib-python-headless", "opencv-contrib-python")  # what decodes, and what finds keypoints


def trajectory_features(
    root: str | Path,
    *,
    split: int = 1,
    encoder: str | Path | None = None,
    num_components: int = NUM_COMPONENTS,
    camera_motion: CameraMotion | None = None,
    pixels: Pixels | None = None,
    videos: Sequence[str] | None = None,
    files: Sequence[str | Path] | None = None,
    output: str | Path | None = None,
    replace: bool = False,
    sample_size: int = SAMPLE_SIZE,
    seed: int = 0,
    jobs: int | None = None,
    progress: bool | None = None,
    stop: StopRequest | None = None,
    grace_seconds: float = GRACE_SECONDS,
) -> FeatureReport:
    """Encode the improved dense trajectories of each video of a data root as a Fisher vector; continue where an earlier call stopped.

    The first pass draws a random sample of descriptors from the training videos of a split, to which PCA and a mixture of Gaussians are
    fitted for each of the five types of descriptors: these are the encoder. The second pass encodes each video. The descriptors
    themselves, hundreds of GB for UCF101, are never stored.

    Parameters
    ----------
    root : path
        The data root. Its videos may be packed or not.
    split : int
        The split whose training videos the encoder is fitted to.
    encoder : path, optional
        A fitted encoder to use instead.
    num_components : int
        K, the number of Gaussians of each type. A vector has 2 K (15 + 48 + 54 + 48 + 48) numbers.
    camera_motion : {"sift", "flow", "none"}, optional
        How the motion of the camera is found; see `flowkit.improved_trajectories`. Default: as for the encoder, or ``sift``.
    pixels : {"source", "stored"}, optional
        Whether trajectories are computed from the video files at their own size, as the authors did, or from the frames that the data
        root stores. One file never mixes both. Default: the video files, unless one of them is gone.
    videos : sequence of str, optional
        The ids of the videos to encode. Default: all of the data root.
    files : sequence of path, optional
        Any video files instead of those of the data root, which is not read then. They need a fitted `encoder`, and their ids are their
        names without the suffix.
    output : path, optional
        The HDF5 file (``.h5``) to write, or a folder for one NumPy file for each video. Default: the file ``features/idt-split<n>.h5``
        in the data root, or with `files` in the working folder, with what is not the default in its name. A fitted encoder lies beside
        it, as ``idt-split<n>-encoder.safetensors``.
    replace : bool
        Replace features and encoders of other settings.
    sample_size : int
        How many descriptors of each type the encoder is fitted to; each training video contributes its share.
    seed : int
        Seed of the sample and of the mixtures.
    jobs : int, optional
        Number of worker processes. Default: one per core.
    progress : bool, optional
        Show progress on stderr. By default on a terminal and in a notebook.
    stop : StopRequest, optional
        Lets the call return early; what is finished is kept for the next call.
    grace_seconds : float
        How long videos in progress may take once a stop is requested.

    Returns
    -------
    FeatureReport
        How many videos have a vector, and which have none. A video without trajectories has a vector of zeros.

    Raises
    ------
    CheckpointError
        If `encoder` is damaged or of another kind, or the one of an earlier call was fitted with other settings (unless `replace`).
    FeaturesError
        If `output` has features of another encoder or other settings (unless `replace`), or no video could be encoded.
    ManifestError
        If there is no such data root, split or video, or a shard is missing or truncated.
    ParameterError
        If scikit-learn is missing, a setting is out of its range, or the sample is too small for so many components.
    BusyError
        If another process writes the same file.

    Notes
    -----
    The sample depends neither on the order of the videos nor on the number of processes: each video draws its own, by a seed made from its
    id. Memory does not grow with the number or length of videos.

    References
    ----------
    .. [1] Wang, Schmid, "Action recognition with improved trajectories", ICCV 2013.

    Examples
    --------
    >>> from flowkit.dataset.example import example_root
    >>> from flowkit.model import FeatureFile, trajectory_features
    >>> report = trajectory_features(example_root(), num_components=2, camera_motion="none")
    >>> report.path.name, report.num_videos, report.streams
    ('idt-k2-camera-none-split1.h5', 18, {'idt': 852})
    >>> FeatureFile(report.path).provenance["pixels"]
    'stored'
    """
    root, stop = Path(root), stop or StopRequest()
    fitted = None if encoder is None else load_encoder(Path(encoder))
    if fitted is not None:
        camera_motion = _camera_motion_of(fitted, Path(str(encoder)), camera_motion)
    settings = TrajectorySettings(camera_motion or "sift", num_components, sample_size, seed)
    default = (root if files is None else Path()) / "features" / _default_name(settings, split, encoder)
    path = default if output is None else Path(output)
    train: Split | None = None
    if files is None:
        dataset = Dataset.open(root)
        train = dataset.split(split) if fitted is None else None
        trained = [] if train is None else [record.video_id for record in train.train]
        found = find_trajectory_videos(dataset, None if videos is None else sorted({*videos, *trained}), pixels=pixels)
    else:
        if fitted is None or videos is not None or pixels == "stored":
            raise ParameterError("files need an encoder that is fitted already, and they are read themselves; videos are of a data root")
        found = loose_trajectory_videos([Path(file) for file in files], _reading_of(fitted))
    asked = sorted({*found.videos, *found.unreadable} if videos is None else {*videos})
    notes = (*found.notes, *_encoder_notes(fitted, found))
    check_writable(path.parent, option="--output")
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        exclusive_lock(path.with_name(f".{path.name}.lock"), f"computes the features in {str(path)!r}"),
        StageProgress(progress) as bars,
    ):
        for note in notes:
            bars.message(f"note: {note}")
        work = _Work(root, found, settings, bars, stop, jobs, grace_seconds)
        encoder_path = encoder_path_of(path) if encoder is None else Path(encoder)
        if train is not None:
            fitted = work.fitted(encoder_path, train, replace=replace)
        if fitted is None:
            return FeatureReport(path, 0, 0, {}, work.failures(asked), notes, stopped=True)
        return work.encoded(path, fitted, encoder_path, asked, notes, replace=replace)


def _reading_of(encoder: Encoder) -> Reading:
    """Return which frames of the videos were read from which an encoder was fitted."""
    try:
        return Reading.from_dict(encoder.provenance.get("reading", {}))
    except ParameterError as cause:
        raise CheckpointError(f"the record of the encoder is damaged: {cause}") from cause


def _recorded(reading: Reading) -> dict[str, Any]:
    return {"reading": reading.to_dict()} if reading.to_dict() else {}


class _Work:
    """The two passes over the videos, and what failed in them."""

    def __init__(
        self,
        root: Path,
        found: TrajectoryVideos,
        settings: TrajectorySettings,
        bars: StageProgress,
        stop: StopRequest,
        jobs: int | None,
        grace_seconds: float,
    ) -> None:
        self._root, self._found, self._settings, self._bars = root, found, settings, bars
        self._stop, self._jobs, self._grace_seconds = stop, jobs, grace_seconds
        self._failed = dict(found.unreadable)

    def failures(self, video_ids: Iterable[str]) -> tuple[Unreadable, ...]:
        """Return which of these videos failed, and why."""
        return tuple(Unreadable(video_id, self._failed[video_id]) for video_id in video_ids if video_id in self._failed)

    def fitted(self, path: Path, train: Split, *, replace: bool) -> Encoder | None:
        """Return the encoder of the training videos, fitted now or by an earlier call; None if a stop was requested before that."""
        check_scikit_learn()
        settings, train_ids = self._settings, [record.video_id for record in train.train]
        plan = {
            "of": TRAJECTORIES,
            "descriptors": dict(DESCRIPTORS),
            "camera_motion": settings.camera_motion,
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
            if not self._run("trajectories (sample)", tasks, journal):
                return None
            names = {task.video.about.video_id: name_of(task.video.about) for task in tasks}
            samples = {video_id: journal.read(name) for video_id, name in names.items() if name in journal}
            sample = gathered(samples)
            if not sample:
                raise FeaturesError(_no_descriptors(train_ids, self.failures(train_ids)))
            without = sorted(video_id for video_id in train_ids if video_id not in samples)
            fits = [FitTask(name, sample[name], settings.num_components, settings.seed) for name in DESCRIPTORS]
            show = partial(self._bars.update, "encoder (fit)", unit="types of descriptors")
            types = fit_types(fits, journal, jobs=self._jobs, stop=self._stop, grace_seconds=self._grace_seconds, on_progress=show)
            if types is None:
                return None
            about = {**plan, "without": without, "computed": _software()}
            encoder = encoder_of(types, num_components=settings.num_components, seed=settings.seed, provenance=about)
            save_encoder(path, encoder)
            journal.remove()
        return encoder

    def encoded(
        self, path: Path, encoder: Encoder, encoder_path: Path, asked: Sequence[str], notes: tuple[str, ...], *, replace: bool
    ) -> FeatureReport:
        """Encode the videos and write their file."""
        streams = {TRAJECTORIES: encoder.size}
        trained_on = encoder.provenance.get("trained_on")
        provenance = {
            "of": TRAJECTORIES,
            "streams": streams,
            "encoder_sha256": encoder.digest(),
            "encoder": encoder.provenance,
            "trained_on": trained_on if isinstance(trained_on, dict) else None,
            "camera_motion": self._settings.camera_motion,
            "pixels": self._found.pixels,
            **_recorded(self._found.reading),
            "computed": _software(),
        }
        stored = self._found.stored
        check = check_features_of_files if stored is None else partial(check_features_of_root, root=self._root, stored=stored)
        finished = finished_features(path, provenance, check, replace=replace)
        clips, sources = ({}, {}) if finished is None else (finished.digests(), finished.source_digests())
        wanted = {name: self._found.videos[name].about for name in asked if name in self._found.videos}
        kept = [name for name, about in wanted.items() if (clips.get(name), sources.get(name)) == (about.sha256, about.source_sha256)]
        tasks = self._tasks([name for name in asked if name not in {*kept}], Encoding(encoder_path, encoder.digest()))
        for task in tasks:  # a video that could not be sampled may be readable now
            self._failed.pop(task.video.about.video_id, None)
        with FeatureJournal(journal_of(path), provenance) as journal:
            if not self._run("trajectories (encode)", tasks, journal, num_before=len(kept)):
                return FeatureReport(path, 0, len(kept), streams, self.failures(asked), notes, stopped=True)
            made = [task.video.about for task in tasks if name_of(task.video.about) in journal]
            planned = {about.video_id: planned_vector(about, journal, encoder.size) for about in made}
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
        return [TrajectoryTask(videos[name], self._settings.camera_motion, purpose) for name in video_ids if name in videos]

    def _run(self, stage: str, tasks: Sequence[TrajectoryTask], journal: FeatureJournal, *, num_before: int = 0) -> bool:
        def show(done: int, num_videos: int) -> None:
            note = f"{len(self._failed)} failed" if self._failed else ""
            self._bars.update(stage, num_before + done, num_before + num_videos, note=note)

        return run_pass(tasks, journal, self._failed, jobs=self._jobs, stop=self._stop, grace_seconds=self._grace_seconds, on_progress=show)


def encoder_path_of(output: Path) -> Path:
    """Return where the encoder lies that was fitted for a file of features: beside it."""
    return output.with_name(output.name.removesuffix(FILE_SUFFIX) + ENCODER_ENDING)


def _default_name(settings: TrajectorySettings, split: int, encoder: str | Path | None) -> str:
    if encoder is None:
        return settings.file_name(split)
    return Path(encoder).name.removesuffix(ENCODER_ENDING).removesuffix(".safetensors") + FILE_SUFFIX


def _camera_motion_of(encoder: Encoder, path: Path, camera_motion: CameraMotion | None) -> CameraMotion:
    """Return how the camera's motion was found for an encoder, after checking that it encodes trajectories."""
    inputs = {one.name: one.projection.num_inputs for one in encoder.types}
    if inputs != DESCRIPTORS:
        expected = ", ".join(f"{name} {size}" for name, size in DESCRIPTORS.items())
        raise CheckpointError(f"{path} encodes other descriptors than those of trajectories ({expected})")
    fitted = encoder.provenance.get("camera_motion")
    if fitted not in ("sift", "flow", "none"):
        raise CheckpointError(f"{path} does not say how the motion of the camera was found")
    if camera_motion not in (None, fitted):
        raise ParameterError(f"{path} was fitted to trajectories with --camera-motion {fitted}, not {camera_motion}; leave the option out")
    return fitted  # type: ignore[no-any-return]


def _encoder_notes(encoder: Encoder | None, found: TrajectoryVideos) -> list[str]:
    if encoder is None:
        return []
    notes, what = [], {"source": "video files", "stored": "stored frames"}
    if encoder.provenance.get("pixels") != found.pixels:
        fitted = what.get(str(encoder.provenance.get("pixels")), "unknown pixels")
        notes.append(f"the encoder was fitted to trajectories of {fitted}, and these are of {what[found.pixels]}")
    if (reading := _reading_of(encoder)) != found.reading:
        frames, these = (each.in_words() or "all frames" for each in (reading, found.reading))
        notes.append(f"the encoder was fitted to trajectories of {frames}, and these are of {these}")
    return notes


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


def _no_descriptors(train_ids: Sequence[str], failed: Sequence[Unreadable]) -> str:
    reasons = "".join(f"; {one.video_id}: {one.reason}" for one in failed[:3])
    return (
        f"the {counted(len(train_ids), 'training video')} have no trajectories, so no encoder can be fitted: a trajectory needs 16 frames "
        f"and motion{reasons}"
    )
