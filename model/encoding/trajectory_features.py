"""`trajectory_features`: improved dense trajectories of all videos of a data root, as one Fisher vector each, in one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flowkit.dataset.manifest import Split
from flowkit.dataset.root import Dataset
from flowkit.errors import CheckpointError, ParameterError
from flowkit.model.encoding.descriptors.improved import DESCRIPTORS, ImprovedDescriptors
from flowkit.model.encoding.descriptors.two_passes import ENCODER_ENDING, Passes, encoder_path_of, fisher_vectors
from flowkit.model.encoding.encoder import Encoder
from flowkit.model.encoding.encoder_files import load_encoder
from flowkit.model.encoding.trajectory_settings import NUM_COMPONENTS, SAMPLE_SIZE, CameraMotion, Pixels, TrajectorySettings
from flowkit.model.encoding.trajectory_videos import TrajectoryVideos, find_trajectory_videos, loose_trajectory_videos
from flowkit.model.scoring.video_features import FILE_SUFFIX, FeatureReport
from flowkit.video.reading import Reading
from flowkit.workers.stopping import GRACE_SECONDS, StopRequest


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
    source = ImprovedDescriptors(settings.camera_motion)
    return fisher_vectors(
        Passes(root, source, found, settings, jobs, stop, grace_seconds),
        path,
        train=train,
        encoder=fitted,
        encoder_path=encoder_path_of(path) if encoder is None else Path(encoder),
        asked=asked,
        notes=notes,
        replace=replace,
        progress=progress,
    )


def _reading_of(encoder: Encoder) -> Reading:
    """Return which frames of the videos were read from which an encoder was fitted."""
    try:
        return Reading.from_dict(encoder.provenance.get("reading", {}))
    except ParameterError as cause:
        raise CheckpointError(f"the record of the encoder is damaged: {cause}") from cause


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
