"""Where the vectors of an SVM come from: each kind of vectors is computed, and stored in the data root, in a way of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowkit.errors import CheckpointError
from flowkit.model.compute.execution import Execution
from flowkit.model.encoding.descriptors.two_passes import encoder_path_of
from flowkit.model.encoding.encoder_files import load_encoder
from flowkit.model.encoding.tdd.features import pooled_features, pooled_name
from flowkit.model.encoding.tdd.video_file import pooled_features_of_file
from flowkit.model.encoding.trajectory_features import trajectory_features
from flowkit.model.encoding.trajectory_settings import CameraMotion, TrajectorySettings
from flowkit.model.runs.checkpoint import load_checkpoint
from flowkit.model.runs.run_folder import find_weights
from flowkit.model.scoring.feature_files import FeatureFile
from flowkit.model.scoring.feature_folder import FeatureFolder
from flowkit.model.scoring.video_features import FILE_SUFFIX, FeatureReport, features
from flowkit.model.settings.recipes import RecipeName
from flowkit.model.settings.svm_phase import NetworkVectors, PooledVectors, SvmDescription, TrajectoryVectors
from flowkit.model.training.svm_phase import FEATURES, record_format
from flowkit.workers.stopping import GRACE_SECONDS, StopRequest


@dataclass(frozen=True)
class VectorChoices:
    """What a user chooses of how vectors are computed; a kind of vectors takes what concerns it.

    Parameters
    ----------
    num_components : int, optional
        K, the number of Gaussians for each type of descriptors of Fisher vectors. Default: that of the recipe.
    camera_motion : {"sift", "flow", "none"}
        How trajectories find the motion of the camera; see `flowkit.improved_trajectories`.
    execution : Execution
        Where and how networks compute.
    recipe : {"official", "own", "small"}
        The recipe, which says what was not chosen.
    """

    num_components: int | None = None
    camera_motion: CameraMotion = "sift"
    execution: Execution = field(default_factory=Execution)
    recipe: RecipeName = "official"

    def components_for(self, phase: SvmDescription) -> int:
        """Return the number of Gaussians of a phase's Fisher vectors: what the user chose, or what the phase has in the recipe."""
        return phase.vectors.components[self.recipe] if self.num_components is None else self.num_components


@dataclass(frozen=True)
class VectorRequest:
    """The vectors of all videos of a data root that the SVM of a split needs.

    Parameters
    ----------
    phase : SvmDescription
        The SVM.
    root : Path
        The data root.
    split : int
        The split whose training videos may be learnt from.
    run : str
        The run whose networks compute them, if they need some.
    runs : Path, optional
        The folder of the runs. Default: that of the data root.
    choices : VectorChoices
        What the user chose.
    """

    phase: SvmDescription
    root: Path
    split: int
    run: str
    runs: Path | None
    choices: VectorChoices


Stored = FeatureFile | FeatureFolder


@dataclass(frozen=True)
class _Kind:
    """How one kind of vectors is made: the name of their file, the function that computes and writes it, and that for one video file."""

    file_name: Callable[[VectorRequest], str]
    make: Callable[..., FeatureReport]
    of_file: Callable[[VectorRequest, Stored, Path, Path], FeatureReport]


def _settings(request: VectorRequest) -> TrajectorySettings:
    return TrajectorySettings(request.choices.camera_motion, request.choices.components_for(request.phase))


def _trajectory_name(request: VectorRequest) -> str:
    return _settings(request).file_name(request.split)


def _trajectory_vectors(request: VectorRequest, *, how: dict[str, Any]) -> FeatureReport:
    return trajectory_features(
        request.root,
        split=request.split,
        num_components=request.choices.components_for(request.phase),
        camera_motion=request.choices.camera_motion,
        **how,
    )


def _encoder_of(request: VectorRequest, stored: Stored) -> Path:
    """Return the file of the encoder of vectors, which lies beside them."""
    encoder = encoder_path_of(stored.path)
    if load_encoder(encoder).digest() != stored.provenance.get("encoder_sha256"):
        raise CheckpointError(f"{encoder} is not the encoder of the vectors in {stored.path}; {record_format(request.phase).remedy}")
    return encoder


def _trajectory_file(request: VectorRequest, stored: Stored, file: Path, output: Path) -> FeatureReport:
    encoder = _encoder_of(request, stored)
    return trajectory_features(request.root, files=[file], encoder=encoder, output=output, jobs=1, progress=False)


def _pooled_name(request: VectorRequest) -> str:
    return pooled_name(_settings(request), run=request.run, split=request.split)


def _pooled_vectors(request: VectorRequest, *, how: dict[str, Any]) -> FeatureReport:
    where: dict[str, Any] = {"split": request.split, "run": request.run, "runs": request.runs, "execution": request.choices.execution}
    return pooled_features(request.root, settings=_settings(request), **where, **how)


def _pooled_file(request: VectorRequest, stored: Stored, file: Path, output: Path) -> FeatureReport:
    where: dict[str, Any] = {"root": request.root, "split": request.split, "run": request.run, "runs": request.runs}
    how: dict[str, Any] = {"provenance": stored.provenance, "encoder_path": _encoder_of(request, stored)}
    return pooled_features_of_file(file, output, execution=request.choices.execution, **how, **where)


def _network_name(request: VectorRequest) -> str:
    return f"{request.run}-split{request.split}-{request.phase.name}{FILE_SUFFIX}"


def _network_vectors(request: VectorRequest, *, how: dict[str, Any]) -> FeatureReport:
    vectors, stop = request.phase.vectors, how["stop"] or StopRequest()
    assert isinstance(vectors, NetworkVectors)
    return features(
        request.root,
        of=vectors.network,
        run=request.run,
        split=request.split,
        runs=request.runs,
        layer=vectors.layer,  # type: ignore[arg-type]  # that it is one is checked there
        average=True,
        output=request.root / FEATURES / _network_name(request),
        replace=how["replace"],
        execution=request.choices.execution,
        progress=how["progress"],
        should_stop=stop.requested,
    )


def _network_file(request: VectorRequest, stored: Stored, file: Path, output: Path) -> FeatureReport:
    vectors = request.phase.vectors
    assert isinstance(vectors, NetworkVectors)
    where: dict[str, Any] = {"run": request.run, "split": request.split, "runs": request.runs}
    weights = find_weights(request.root, phase=vectors.network, **where)
    if load_checkpoint(weights).digest() != stored.provenance.get("weights_sha256"):
        raise CheckpointError(f"{weights} is not the network of the vectors in {stored.path}; {record_format(request.phase).remedy}")
    layer: Any = vectors.layer
    how: dict[str, Any] = {"of": vectors.network, "layer": layer, "average": True, "execution": request.choices.execution}
    return features(request.root, files=[file], output=output, progress=False, **how, **where)


_KINDS: dict[type, _Kind] = {
    TrajectoryVectors: _Kind(_trajectory_name, _trajectory_vectors, _trajectory_file),
    PooledVectors: _Kind(_pooled_name, _pooled_vectors, _pooled_file),
    NetworkVectors: _Kind(_network_name, _network_vectors, _network_file),
}


def vectors_name(request: VectorRequest) -> str:
    """Return the name of the file of vectors in the folder of features, which says what is not the default."""
    return _KINDS[type(request.phase.vectors)].file_name(request)


def file_vector(request: VectorRequest, stored: Stored, file: Path, *, output: Path) -> FeatureReport:
    """Compute the vector of one video file, which is in no data root, by what computed those of a trained phase.

    Parameters
    ----------
    request : VectorRequest
        Which vectors.
    stored : FeatureFile or FeatureFolder
        The vectors of the phase's SVM.
    file : Path
        The video.
    output : Path
        The file of features to write (``.h5``).

    Raises
    ------
    CheckpointError
        If the network or the encoder is gone, or is another one by now.
    FeaturesError
        If the video cannot be read.
    """
    return _KINDS[type(request.phase.vectors)].of_file(request, stored, file, output)


def make_vectors(
    request: VectorRequest,
    *,
    replace: bool = False,
    progress: bool | None = None,
    stop: StopRequest | None = None,
    grace_seconds: float = GRACE_SECONDS,
) -> FeatureReport:
    """Compute the vectors that are not there yet; continue where an earlier call stopped.

    Parameters
    ----------
    request : VectorRequest
        Which vectors.
    replace : bool
        Replace vectors of other settings or other networks.
    progress : bool, optional
        Show progress on stderr. By default on a terminal and in a notebook.
    stop : StopRequest, optional
        Lets the call return early.
    grace_seconds : float
        How long videos in progress may take once a stop is requested.

    Raises
    ------
    CheckpointError, FeaturesError
        If there are vectors of other settings or other networks (unless `replace`), or no video has one.
    ManifestError
        If there is no such data root or split.
    ParameterError
        If a setting is out of its range.
    """
    how = {"replace": replace, "progress": progress, "stop": stop, "grace_seconds": grace_seconds}
    return _KINDS[type(request.phase.vectors)].make(request, how=how)
