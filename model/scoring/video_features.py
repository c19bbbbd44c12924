"""`features`: what a trained network computes of videos of a data root, or of any video files, in one file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowkit.dataset.progress import ProgressBar
from flowkit.errors import CheckpointError, FeaturesError, ParameterError
from flowkit.extraction.loose_videos import loose_videos
from flowkit.locks import exclusive_lock
from flowkit.model.compute.execution import Execution
from flowkit.model.data.whole_videos import Unreadable
from flowkit.model.runs.checkpoint import Checkpoint, load_checkpoint
from flowkit.model.runs.places import check_run_name, check_writable
from flowkit.model.runs.recorded_extraction import Solver, extraction_here
from flowkit.model.runs.run_folder import find_weights
from flowkit.model.runs.training_data import extraction_differences
from flowkit.model.scoring.extract_features import FeatureWork
from flowkit.model.scoring.feature_files import OTHER_OUTPUT, FeatureFile, holds_other_data, write_features
from flowkit.model.scoring.feature_folder import RECORD_NAME, FeatureFolder, write_feature_folder
from flowkit.model.scoring.feature_journal import FeatureJournal, journal_of
from flowkit.model.scoring.feature_network import FeatureNetwork
from flowkit.model.scoring.feature_settings import FeatureSettings, Frames, Layer
from flowkit.model.scoring.feature_videos import LooseVideos, RootVideos
from flowkit.model.settings.training import Phase
from flowkit.quantise import Quantiser

FILE_SUFFIX = ".h5"


@dataclass(frozen=True)
class FeatureReport:
    """What a call of `features` did.

    Parameters
    ----------
    path : Path
        The file, or the folder.
    num_videos : int
        The number of videos that have features there.
    num_kept : int
        How many of them it had before.
    streams : dict from stream to int
        D, the number of features of each stream.
    failed : tuple of Unreadable
        The videos that have none, and why.
    warnings : tuple of str
        What is damaged in videos that have features, and in what the data differ from those of the network's training.
    stopped : bool
        Whether it returned early, on request; then nothing is written but what the next call goes on with.

    Examples
    --------
    >>> from pathlib import Path
    >>> from flowkit.model import FeatureReport
    >>> FeatureReport(Path("motion.h5"), num_videos=9, num_kept=2, streams={"motion": 2048}, failed=(), warnings=()).stopped
    False
    """

    path: Path
    num_videos: int
    num_kept: int
    streams: dict[str, int]
    failed: tuple[Unreadable, ...]
    warnings: tuple[str, ...]
    stopped: bool = False


def features(
    root: str | Path = "flowkit-data",
    *,
    of: Phase | None = None,
    run: str = "default",
    split: int = 1,
    runs: str | Path | None = None,
    checkpoint: str | Path | None = None,
    layer: Layer = "pool5",
    frames: Frames = "protocol",
    stride: int = 1,
    average: bool = False,
    mirror: bool = False,
    window: int = 32,
    videos: Sequence[str] | None = None,
    files: Sequence[str | Path] | None = None,
    solver: Solver = "auto",
    jobs: int | None = None,
    output: str | Path | None = None,
    replace: bool = False,
    execution: Execution | None = None,
    progress: bool | None = None,
    on_progress: Callable[[int, int], None] = lambda *_: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> FeatureReport:
    """Compute the features of the videos of a data root, or of any video files; continue where an earlier call stopped.

    Parameters
    ----------
    root : path
        The data root. Its videos may be packed or not, and listed in a split or not. With `files` it only holds the run.
    of : str, optional
        The phase whose network computes them. Default: the last that is trained.
    run, split, runs : str, int, path
        The run and split that it was trained in, and the folder of the runs if it is not the data root's.
    checkpoint : path, optional
        A phase's folder, weights or checkpoint, instead of a run's; a converted network too.
    layer : {"pool5", "fc6", "logits"}
        What is computed: the input of the classifier, D = 2,048 for each stream of a ResNet-50; the first fully connected layer, which
        C3D has; or the output of the classifier, one number for each class of the network's training.
    frames : {"protocol", "all"}
        The 25 frames of the test protocol, or every frame that can be the centre of a stack of flow.
    stride : int
        With ``all``: only every so many frames. A two-stream network was trained on frames that are 1 to 15 apart. The clips of a network
        that sees clips begin so many frames apart.
    average : bool
        One vector for each video and stream, the mean over time, instead of one for each time step.
    mirror : bool
        Average with the features of the mirror images, as the test protocol does.
    window : int
        With ``all``: how many time steps are computed at once. The features are the same.
    videos : sequence of str, optional
        The ids of the videos. Default: all of the data root.
    files : sequence of path, optional
        Video files, instead of the videos of the data root. Each is extracted as the videos of the network's training were; its id is
        its name without the suffix. Its clip file exists only until its features are computed.
    solver : {"auto", "strict", "fast", "cuda"}
        With `files`: what computes the flow. ``auto``: the solver of the training; the GPU's if the device is a GPU.
    jobs : int, optional
        With `files`: how many processes extract videos. Default: one per core.
    output : path, optional
        The HDF5 file (``.h5``) to write, or a folder for one NumPy file for each video and stream. Default: the file
        ``features/<run>-split<n>-<phase>.h5`` in the data root (with `files`, in the working folder), with what is not the default in
        its name.
    replace : bool
        Replace a file of other features.
    execution : Execution, optional
        Where and how to compute.
    progress : bool, optional
        Show progress on stderr. By default on a terminal and in a notebook.
    on_progress : callable
        Receives how many videos are done, and how many there are.
    should_stop : callable
        Called after each window. When it returns True, `features` returns.

    Returns
    -------
    FeatureReport
        How many videos have features, and which have none.

    Raises
    ------
    CheckpointError
        If there is no trained network, its weights are damaged, or its flow had another quantiser than that of the data.
    FeaturesError
        If `output` has features of other weights, data or settings (unless `replace`), or is no file of features.
    ManifestError
        If there is no such data root or video, a shard is missing or truncated, one of `files` is no file, or two have the same name.
    ParameterError
        If a setting is out of its range, or `files` go with `videos`.
    BusyError
        If another process writes the same file.

    Notes
    -----
    A two-stream network sees the samples of a video one after another: with ``protocol`` 25 that are spread over the video, with ``all``
    every one, or every `stride`-th. A network that sees clips of consecutive frames has a time step for each clip, which is about its
    middle frame: of those of the test, or of all clips. Dynamic images of the test are joined, so they are one time step; with ``all``,
    each is by itself. ST-ResNet* pools time, so it has fewer time steps than samples; each is about the middle one of
    those that are pooled.

    Examples
    --------
    >>> from flowkit.dataset.example import example_root
    >>> from flowkit.model import FeatureFile, features, train
    >>> root = example_root()
    >>> tiny = {"base_width": 4, "input_size": 32, "batch": 2, "bn_group": 2, "steps": 1}
    >>> _ = train(root, phases=["motion"], recipe="small", overrides=tiny)
    >>> report = features(root, average=True)
    >>> report.path.name, report.num_videos, report.streams
    ('default-split1-motion-average.h5', 18, {'motion': 128})
    >>> stored = FeatureFile(report.path)
    >>> stored.read(stored.video_ids[0]).arrays["motion"].shape
    (1, 128)
    """
    root, execution = Path(root), execution or Execution()
    settings = FeatureSettings(layer, frames, stride, average, mirror, window)
    check_run_name(run)
    loose = None if files is None else loose_videos(map(Path, files))
    if loose is not None and videos is not None:
        raise ParameterError("videos are those of the data root, and files are others; compute them one after the other")
    if loose is None and (solver != "auto" or jobs is not None):
        raise ParameterError("solver and jobs are for files; the videos of a data root have their flow")
    kept = None if runs is None else Path(runs)
    weights = find_weights(root, run=run, split=split, phase=of, runs=kept) if checkpoint is None else Path(checkpoint)
    trained = load_checkpoint(weights)
    phase = trained.provenance.config.phase
    if of not in (None, phase):
        raise CheckpointError(f"{weights} is {phase}, not {of}")
    name = _name(f"{run}-split{split}" if checkpoint is None else Path(checkpoint).stem, phase, settings)
    path = (Path() if loose is not None else root) / "features" / name if output is None else Path(output)
    source: RootVideos | LooseVideos
    if loose is None:
        source = RootVideos(root, videos)
    else:
        extraction, notes = extraction_here(trained.provenance, root, solver, execution.device)
        source = LooseVideos(loose, path.with_name(f".{path.name}.clips"), extraction, jobs=jobs, notes=notes)
    _check_quantiser(trained, weights, source.quantiser)
    different = extraction_differences(trained.provenance.extraction, source.extraction)
    network = FeatureNetwork(trained, str(weights), quantiser=source.quantiser, settings=settings, execution=execution)
    provenance = {
        "of": phase,
        "streams": network.sizes,
        "weights_sha256": trained.digest(),
        "classes": list(trained.provenance.classes),
        "network": trained.provenance.config.network.to_dict(),
        "trained_on": {"split": trained.provenance.split, "protocol": trained.provenance.protocol, "digest": trained.provenance.digest},
        **settings.to_dict(),
        "data": {"quantiser": source.quantiser.to_dict(), "extraction": source.extraction},
        "computed": execution.scoring_environment(network.device),
    }
    finished = finished_features(path, provenance, source.check_same, replace=replace)
    check_writable(path.parent, option="--output")
    path.parent.mkdir(parents=True, exist_ok=True)
    journal = FeatureJournal(journal_of(path), provenance | {"window": network.samples.most})
    with exclusive_lock(path.with_name(f".{path.name}.lock"), f"computes the features in {str(path)!r}"), journal:
        work = FeatureWork(settings, network, journal, finished)
        with ProgressBar("features", total=len(source), unit="videos", progress=progress) as bar:

            def show(num_done: int, note: str) -> None:
                bar.update(num_done, note=note)
                on_progress(num_done, len(source))

            done = source.compute(work, show, execution=execution, device=network.device, should_stop=should_stop)
        planned = work.planned() if done else []
        if done:
            source.close()
            if not planned:
                journal.remove()
                raise FeaturesError(f"no video has features: {'; '.join(f'{clip.video_id}: {clip.reason}' for clip in work.failed[:3])}")
            if not work.is_written(planned):
                (write_features if path.suffix == FILE_SUFFIX else write_feature_folder)(path, provenance, planned)
            journal.remove()
    told = [*source.notes, *(f"the data differ from those of the network's training: {text}" for text in different)]
    return FeatureReport(path, len(planned), work.num_finished, network.sizes, tuple(work.failed), tuple(told), stopped=not done)


def _name(start: str, phase: Phase, settings: FeatureSettings) -> str:
    """Return the name of a file, which says what is not the default."""
    parts = [start, phase]
    parts += [settings.layer] if settings.layer != "pool5" else []
    parts += [f"every{settings.stride}" if settings.stride > 1 else "all"] if settings.frames == "all" else []
    parts += [name for name in ("average", "mirror") if getattr(settings, name)]
    return "-".join(parts) + FILE_SUFFIX


def _check_quantiser(trained: Checkpoint, source: Path, quantiser: Quantiser) -> None:
    """Raise `CheckpointError` if the same byte is another flow to the network than in the data."""
    if trained.provenance.quantiser != quantiser.to_dict():
        raise CheckpointError(
            f"{source} was trained on flow with the quantiser {Quantiser.from_dict(trained.provenance.quantiser)}, and that of the data is "
            f"{quantiser}; extract the videos with its bound and mapping into another data root"
        )


def finished_features(
    path: Path, provenance: dict[str, Any], check_same: Callable[[FeatureFile | FeatureFolder], None], *, replace: bool
) -> FeatureFile | FeatureFolder | None:
    """Return the file or folder that is there already, if its features are those that would be computed; None if there is none.

    Parameters
    ----------
    path : Path
        The file, or the folder.
    provenance : dict
        What the features depend on.
    check_same : callable
        Raises `FeaturesError` unless the features are of videos of the same source.
    replace : bool
        Return None instead of raising an error about other or damaged features.

    Raises
    ------
    FeaturesError
        If there are other features, or no features.
    """
    is_file = path.suffix == FILE_SUFFIX
    if not (path if is_file else path / RECORD_NAME).exists():
        return None
    try:
        there = FeatureFile(path) if is_file else FeatureFolder(path)
        different = sorted(name for name in {*there.provenance, *provenance} if there.provenance.get(name) != provenance.get(name))
        if different:
            raise FeaturesError(f"{path} has features that differ in {', '.join(different)}; {OTHER_OUTPUT}")
        check_same(there)
    except FeaturesError:
        if replace and not (is_file and holds_other_data(path)):
            return None
        raise
    return there
