"""`pooled_features`: trajectory-pooled descriptors of all videos of a data root, as one Fisher vector each, in one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flowkit.dataset.root import Dataset
from flowkit.errors import CheckpointError
from flowkit.model.compute.execution import Execution
from flowkit.model.encoding.descriptors.two_passes import Passes, encoder_path_of, fisher_vectors
from flowkit.model.encoding.tdd.descriptors import PooledDescriptors
from flowkit.model.encoding.tdd.maps import map_channels
from flowkit.model.encoding.tdd.video_maps import MapNetwork
from flowkit.model.encoding.trajectory_settings import Pixels, TrajectorySettings
from flowkit.model.encoding.trajectory_videos import find_trajectory_videos
from flowkit.model.networks.vgg import VggSingleStream
from flowkit.model.runs.checkpoint import load_checkpoint
from flowkit.model.runs.run_folder import find_weights
from flowkit.model.runs.trained_network import trained_network
from flowkit.model.runs.training_data import differences_from_training_data, tested_extraction
from flowkit.model.scoring.video_features import FeatureReport
from flowkit.model.settings.svm_phase import PooledVectors
from flowkit.model.systems.tdd import PHASE
from flowkit.workers.processes import num_cores
from flowkit.workers.stopping import GRACE_SECONDS, StopRequest

MOST_ON_A_GPU = 4  # processes, each of which has the networks there


def pooled_name(settings: TrajectorySettings, *, run: str, split: int) -> str:
    """Return the name of the file of vectors, which says of which run the networks are, and what is not the default."""
    return f"{run}-{settings.file_name(split, of=PHASE.name)}"


def pooled_features(
    root: str | Path,
    *,
    split: int = 1,
    run: str = "default",
    runs: Path | None = None,
    settings: TrajectorySettings | None = None,
    pixels: Pixels | None = None,
    videos: Sequence[str] | None = None,
    output: str | Path | None = None,
    execution: Execution | None = None,
    replace: bool = False,
    jobs: int | None = None,
    progress: bool | None = None,
    stop: StopRequest | None = None,
    grace_seconds: float = GRACE_SECONDS,
) -> FeatureReport:
    """Encode the trajectory-pooled descriptors [1]_ of each video of a data root; continue where an earlier call stopped.

    Two trained VGG-M networks give maps of each frame and of each stack of flow. Their values are added up along improved trajectories
    and encoded as `trajectory_features` encodes the other descriptors of trajectories.

    Parameters
    ----------
    root : path
        The data root.
    split : int
        The split on which the networks were trained, and to whose training videos the encoder is fitted.
    run : str
        The run that trained the networks.
    runs : path, optional
        The folder of the runs. Default: ``runs`` in the data root.
    settings : TrajectorySettings, optional
        How trajectories are computed and the encoder is fitted.
    pixels : {"source", "stored"}, optional
        From which frames trajectories are computed; see `trajectory_features`. Maps are of the stored frames and flow.
    videos : sequence of str, optional
        The ids of the videos to encode. Default: all of the data root.
    output : path, optional
        The file or folder. Default: ``features/<run>-tdd-split<n>.h5`` in the data root.
    execution : Execution, optional
        Where the networks compute.
    replace : bool
        Replace features and encoders of other settings or networks.
    jobs : int, optional
        Number of worker processes. Default: one per core; on a GPU, at most 4.
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
        If a network is not trained, is damaged, or was trained on other data, or the encoder of an earlier call is another one.
    FeaturesError
        If there are features of other networks or settings (unless `replace`), or no video could be encoded.
    ManifestError
        If there is no such data root, split or video.
    ParameterError
        If scikit-learn is missing, a setting is out of its range, or the sample is too small.

    References
    ----------
    .. [1] Wang, Qiao, Tang, "Action recognition with trajectory-pooled deep-convolutional descriptors", CVPR 2015.

    Examples
    --------
    >>> from flowkit.dataset.example import example_root
    >>> from flowkit.model import train
    >>> from flowkit.model.encoding.tdd.features import pooled_features
    >>> from flowkit.model.encoding.trajectory_settings import TrajectorySettings
    >>> root = example_root()  # its videos are too small for trajectories at more than one scale
    >>> tiny = {"width": 0.03, "input_size": 64, "batch": 2, "bn_group": 2, "steps": 1}
    >>> _ = train(root, system="two-streams-vgg-m", recipe="small", overrides=tiny)
    >>> report = pooled_features(root, settings=TrajectorySettings("none", num_components=2))
    >>> report.path.name, report.num_videos, report.streams
    ('default-tdd-k2-camera-none-split1.h5', 18, {'tdd': 256})
    """
    root, settings, execution = Path(root), settings or TrajectorySettings(), execution or Execution()
    dataset = Dataset.open(root)
    manifest = dataset.split(split)
    device = execution.torch_device()
    networks, scales = map_networks(dataset, run, split, runs)
    source = PooledDescriptors(networks, scales, settings.camera_motion, str(device))
    trained = [record.video_id for record in manifest.train]
    found = find_trajectory_videos(dataset, None if videos is None else sorted({*videos, *trained}), pixels=pixels)
    asked = sorted({*found.videos, *found.unreadable} if videos is None else {*videos})
    path = root / "features" / pooled_name(settings, run=run, split=split) if output is None else Path(output)
    if jobs is None and device.type != "cpu":
        jobs = min(num_cores(), MOST_ON_A_GPU)
    return fisher_vectors(
        Passes(root, source, found, settings, jobs, stop or StopRequest(), grace_seconds),
        path,
        train=manifest,
        encoder=None,
        encoder_path=encoder_path_of(path),
        asked=asked,
        notes=found.notes,
        replace=replace,
        progress=progress,
    )


def map_networks(dataset: Dataset, run: str, number: int, runs: Path | None) -> tuple[tuple[MapNetwork, ...], tuple[float, ...]]:
    """Return the trained networks, checked against the split, and the scales of the recipe by which they were trained."""
    vectors = PHASE.vectors
    assert isinstance(vectors, PooledVectors)
    layers, scales = vectors.layers, vectors.scales
    split = dataset.split(number)
    extraction = tested_extraction(dataset, split)
    found, recipes = [], set[str]()
    for phase, names in layers.items():
        path = find_weights(dataset.root, run=run, split=number, phase=phase, runs=runs)
        checkpoint = load_checkpoint(path)
        provenance = checkpoint.provenance
        different = differences_from_training_data(split, provenance, path.parent, extraction=extraction)
        if different:
            raise CheckpointError(f"{path.parent} was trained on other data than split {number}: {'; '.join(different)}; train it again")
        network = trained_network(checkpoint, str(path))
        assert isinstance(network, VggSingleStream)
        channels = tuple(map_channels(network.stream, name) for name in names)
        size = provenance.config.network.input_size
        found.append(MapNetwork(phase, network.stream_name, path, checkpoint.digest(), names, channels, size))
        recipes.add(provenance.config.recipe)
    usual = scales["own"]
    return tuple(found), scales.get(recipes.pop(), usual) if len(recipes) == 1 else usual
