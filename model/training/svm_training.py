"""Training a phase that is a linear SVM: one vector for each video, and then the SVM on those of the training list."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flowkit.dataset.progress import ProgressBar
from flowkit.dataset.root import Dataset
from flowkit.errors import CheckpointError
from flowkit.model.data.whole_videos import Unreadable
from flowkit.model.runs.places import check_run_name, check_writable
from flowkit.model.runs.run_folder import PhaseFolder, phase_folder
from flowkit.model.settings.svm_phase import SvmDescription
from flowkit.model.training.svm_phase import features_of_phase, train_phase
from flowkit.model.training.svm_vectors import VectorChoices, VectorRequest, make_vectors, vectors_name
from flowkit.workers.stopping import GRACE_SECONDS, StopRequest


@dataclass(frozen=True)
class SvmReport:
    """What `train_svm_phase` did.

    Parameters
    ----------
    folder : Path
        The folder of the phase.
    features : Path
        The file of vectors.
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


def train_svm_phase(
    description: SvmDescription,
    root: str | Path,
    *,
    split: int = 1,
    run: str = "default",
    runs: str | Path | None = None,
    choices: VectorChoices | None = None,
    restart: bool = False,
    progress: bool | None = None,
    stop: StopRequest | None = None,
    grace_seconds: float = GRACE_SECONDS,
) -> SvmReport:
    """Train a phase of a run that is an SVM; continue where an earlier call stopped.

    Parameters
    ----------
    description : SvmDescription
        The phase, one of `flowkit.model.systems.registry.SVM_PHASES`.
    root : path
        The data root.
    split : int
        The split: whatever is learnt sees the videos of its training list only.
    run, runs : str, path
        The run, and the folder of the runs if it is not the data root's.
    choices : VectorChoices, optional
        How the vectors are computed.
    restart : bool
        Train the SVM again. Vectors and an encoder of other settings or other videos are replaced.
    progress : bool, optional
        Show progress on stderr. By default on a terminal and in a notebook.
    stop : StopRequest, optional
        Lets the call return early.
    grace_seconds : float
        How long videos in progress may take once a stop is requested.

    Raises
    ------
    CheckpointError
        If the run has an SVM of other features (unless `restart`), or lacks a network that the vectors need.
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
    kept = None if runs is None else Path(runs)
    phase = PhaseFolder(phase_folder(root, run, split, description.name, runs=kept))
    folder = phase.path
    check_writable(folder, option="--runs DIR")
    request = VectorRequest(description, root, split, run, kept, choices or VectorChoices())
    name = vectors_name(request)
    if phase.done and not restart and features_of_phase(description, folder) != name:
        raise CheckpointError(
            f"{folder} was trained on features of other settings ({features_of_phase(description, folder)}, not {name}); name those "
            "settings (--components, --camera-motion), train another run with --run NAME, or discard this phase with --restart"
        )
    made = make_vectors(request, replace=restart, progress=progress, stop=stop, grace_seconds=grace_seconds)
    width = sum(made.streams.values())
    if made.stopped:
        return SvmReport(folder, made.path, width, 0, made.failed, stopped=True)
    with phase.alone(), ProgressBar("SVM", total=len(manifest.classes), unit="classes", progress=progress) as bar:
        trained = train_phase(description, dataset, manifest, made.path, folder, restart=restart, on_class=bar.update)
    return SvmReport(folder, made.path, width, trained.svm.provenance["num_videos"], made.failed)
