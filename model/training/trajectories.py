"""Training the phase `idt`: Fisher vectors of improved trajectories of all videos, and a linear SVM on those of the training list."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flowkit.dataset.progress import ProgressBar
from flowkit.dataset.root import Dataset
from flowkit.errors import CheckpointError
from flowkit.model.data.whole_videos import Unreadable
from flowkit.model.encoding.trajectory_features import trajectory_features
from flowkit.model.encoding.trajectory_settings import NUM_COMPONENTS, TRAJECTORIES, CameraMotion, TrajectorySettings
from flowkit.model.runs.places import check_run_name, check_writable
from flowkit.model.runs.run_folder import PhaseFolder, phase_folder
from flowkit.model.training.trajectory_phase import features_of_phase, train_phase
from flowkit.workers.stopping import GRACE_SECONDS, StopRequest


@dataclass(frozen=True)
class TrajectoryReport:
    """What `train_trajectories` did.

    Parameters
    ----------
    folder : Path
        The folder of the phase.
    features : Path
        The file of Fisher vectors.
    num_features : int
        The length of a vector.
    num_videos : int
        The number of training videos of the SVM.
    failed : tuple of Unreadable
        The videos that have no vector, and why.
    stopped : bool
        Whether it returned early, on request; the next call goes on there.
    """

    folder: Path
    features: Path
    num_features: int
    num_videos: int
    failed: tuple[Unreadable, ...] = ()
    stopped: bool = False


def train_trajectories(
    root: str | Path,
    *,
    split: int = 1,
    run: str = "default",
    runs: str | Path | None = None,
    num_components: int = NUM_COMPONENTS,
    camera_motion: CameraMotion = "sift",
    restart: bool = False,
    progress: bool | None = None,
    stop: StopRequest | None = None,
    grace_seconds: float = GRACE_SECONDS,
) -> TrajectoryReport:
    """Train the phase `idt` of a run; continue where an earlier call stopped.

    Parameters
    ----------
    root : path
        The data root.
    split : int
        The split: PCA, the mixtures and the SVM see the videos of its training list only.
    run, runs : str, path
        The run, and the folder of the runs if it is not the data root's.
    num_components : int
        K, the number of Gaussians for each type of descriptors.
    camera_motion : {"sift", "flow", "none"}
        How the motion of the camera is found; see `flowkit.improved_trajectories`.
    restart : bool
        Train the SVM again. Features and an encoder of other settings or other videos are replaced.
    progress : bool, optional
        Show progress on stderr. By default on a terminal and in a notebook.
    stop : StopRequest, optional
        Lets the call return early.
    grace_seconds : float
        How long videos in progress may take once a stop is requested.

    Raises
    ------
    CheckpointError
        If the run has an SVM of other features (unless `restart`).
    FeaturesError
        If there are features of other settings or other videos, or no video could be encoded.
    ManifestError
        If there is no such data root or split.
    ParameterError
        If scikit-learn is missing, or a setting is out of its range.
    BusyError
        If another process trains the phase.
    """
    root, dataset = Path(root), Dataset.open(root)
    check_run_name(run)
    manifest = dataset.split(split)
    phase = PhaseFolder(phase_folder(root, run, split, TRAJECTORIES, runs=None if runs is None else Path(runs)))
    folder = phase.path
    check_writable(folder, option="--runs DIR")
    name = TrajectorySettings(camera_motion, num_components).file_name(split)
    if phase.done and not restart and features_of_phase(folder) != name:
        raise CheckpointError(
            f"{folder} was trained on features of other settings ({features_of_phase(folder)}, not {name}); train another run with --run "
            "NAME, or discard this phase with --restart"
        )
    made = trajectory_features(
        root,
        split=split,
        num_components=num_components,
        camera_motion=camera_motion,
        replace=restart,
        progress=progress,
        stop=stop,
        grace_seconds=grace_seconds,
    )
    width = sum(made.streams.values())
    if made.stopped:
        return TrajectoryReport(folder, made.path, width, 0, made.failed, stopped=True)
    with phase.alone(), ProgressBar("SVM", total=len(manifest.classes), unit="classes", progress=progress) as bar:
        trained = train_phase(dataset, manifest, made.path, folder, restart=restart, on_class=bar.update)
    return TrajectoryReport(folder, made.path, width, trained.svm.provenance["num_videos"], made.failed)
