"""A trained row at work on any video file: extracted as the training videos were, tested by the protocol, classes with probabilities."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from flowkit.dataset.manifest import Split
from flowkit.dataset.root import Dataset
from flowkit.dataset.settings import ExtractSettings, ForeignTool
from flowkit.errors import CheckpointError, ManifestError, ParameterError, VideoDecodeError
from flowkit.extraction.sample import count_frames, read_sample
from flowkit.flow.params import PRESETS, TVL1Params
from flowkit.model.data.sampling import MIN_FRAMES, protocol_centres, stack_fields
from flowkit.model.data.transforms import whole_flow, whole_rgb
from flowkit.model.data.whole_videos import WholeClip
from flowkit.model.evaluation.rows import ROW_OF_PHASE, ROWS, rows_of
from flowkit.model.runs.checkpoint import load_checkpoint
from flowkit.model.runs.events import ignore
from flowkit.model.runs.run_folder import PhaseFolder, find_weights, phase_folder
from flowkit.model.scoring.metrics import combine_scores, softmax
from flowkit.model.scoring.tested_networks import TestedNetworks
from flowkit.model.settings.training import PHASES
from flowkit.quantise import Quantiser

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from flowkit.extraction.results import Status
    from flowkit.model.compute.execution import Execution
    from flowkit.model.runs.checkpoint import Checkpoint
    from flowkit.model.runs.provenance import Provenance
    from flowkit.model.settings.training import Phase

FUSED = "fused"
# The preset whose parameters are nearest to a tool's own, for networks whose training flow was imported from it.
_PRESET_OF_TOOL: dict[ForeignTool, str] = {"gpu_flow": "paper", "dense_flow": "denseflow", "denseflow": "denseflow"}


@dataclass(frozen=True)
class Prediction:
    """What became of one video.

    Parameters
    ----------
    path : Path
    status : {"ok", "damaged", "short", "undecodable", "failed"}
        As extract's. ``damaged`` videos are classified, by what of them could be decoded; ``failed`` is the network's fault.
    num_frames, decode_errors : int
    error : str
        What was damaged, or why there are no scores.
    scores : dict from str to float64 array, shape (C,)
        Mean logits of each stream, and as ``fused`` their mean. Empty if the video could not be classified.
    """

    path: Path
    status: Status
    num_frames: int
    decode_errors: int
    error: str = ""
    scores: dict[str, NDArray[np.float64]] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainedRow:
    """One row of the results table, with its weights.

    Parameters
    ----------
    name : str
        A key of `ROWS`.
    checkpoints : dict from phase to (str, Checkpoint)
        With where each was found.

    Raises
    ------
    CheckpointError
        If the checkpoints were not trained on the same data.
    """

    name: str
    checkpoints: dict[Phase, tuple[str, Checkpoint]]

    def __post_init__(self) -> None:
        told = [checkpoint.provenance for _, checkpoint in self.checkpoints.values()]
        if len({(one.classes, one.digest, one.split) for one in told}) > 1:
            raise CheckpointError(f"{' and '.join(source for source, _ in self.checkpoints.values())} were trained on different data")

    @property
    def provenance(self) -> Provenance:
        """What the row was trained on."""
        return next(iter(self.checkpoints.values()))[1].provenance


def find_row(root: Path, *, run: str = "default", split: int = 1, row: str | None = None) -> TrainedRow:
    """Return a row of a run.

    Parameters
    ----------
    root : Path
        The data root.
    run : str
    split : int
    row : str, optional
        Default: the last row of the table whose phases are trained, ``ST-ResNet*`` if it is.

    Raises
    ------
    ParameterError
        If there is no such row.
    CheckpointError
        If a phase of it is not trained, or its weights cannot be read.
    """
    if row is not None and row not in ROWS:
        raise ParameterError(f"row must be one of {', '.join(ROWS)}, got {row!r}")
    find_weights(root, run=run, split=split)  # that anything is trained
    done = {phase for phase in PHASES if PhaseFolder(phase_folder(root, run, split, phase)).done}
    name = row or rows_of(done)[-1]
    paths: dict[Phase, Path] = {phase: find_weights(root, run=run, split=split, phase=phase) for phase, _ in ROWS[name]}
    return TrainedRow(name, {phase: (str(path), load_checkpoint(path)) for phase, path in paths.items()})


def row_of(path: Path) -> TrainedRow:
    """Return the row of one phase's weights, checkpoint or folder.

    Raises
    ------
    CheckpointError
        If they cannot be read.
    """
    checkpoint = load_checkpoint(path)
    phase = checkpoint.provenance.config.phase
    return TrainedRow(ROW_OF_PHASE[phase], {phase: (str(path), checkpoint)})


def extraction_of(provenance: Provenance, root: Path | None) -> tuple[ExtractSettings, str]:
    """Return how videos must be extracted for a network.

    Parameters
    ----------
    provenance : Provenance
    root : Path, optional
        The data root to ask where the weights do not say it.

    Returns
    -------
    settings : ExtractSettings
    note : str
        What had to be assumed; empty if nothing.

    Raises
    ------
    CheckpointError
        If what the weights say cannot be.
    """
    try:
        quantiser = Quantiser.from_dict(provenance.quantiser)
        stored: dict[str, Any] = provenance.extraction
        note = ""
        if not stored:
            settings, source = _settings_of(root, quantiser)
            return settings, f"the weights are from before flowkit recorded how their videos were extracted; taking {source}"
        solver, params = stored["solver"], TVL1Params.from_dict(stored["tvl1"])
        if solver in get_args(ForeignTool):
            preset = _PRESET_OF_TOOL[solver]
            note = f"the network was trained on flow of {solver}, for which flowkit's solver with preset {preset} stands in"
            params, solver = TVL1Params.preset(preset), "strict"
        preset = next((name for name in PRESETS if TVL1Params.preset(name) == params), PRESETS[0])
        return ExtractSettings(preset, params, solver, quantiser, stored["short_side"], stored["codec"]), note
    except (ParameterError, KeyError, TypeError) as cause:
        raise CheckpointError(f"what the weights say of their videos' extraction cannot be: {cause}") from cause


def _settings_of(root: Path | None, quantiser: Quantiser) -> tuple[ExtractSettings, str]:
    """Return a data root's settings if they have the weights' quantiser, else the defaults; and in words which."""
    if root is not None:
        try:
            dataset = Dataset.open_if_present(root)
        except ManifestError:
            dataset = None
        if dataset is not None and dataset.settings.quantiser == quantiser and not dataset.settings.is_imported:
            return dataset.settings, f"the settings of {root}"
    settings = ExtractSettings(quantiser=quantiser)
    return settings, f"the defaults (TV-L1 {settings.preset}, short side {settings.short_side} px)"


class Predictor:
    """The networks of a row on their device, classifying one video after another.

    Parameters
    ----------
    row : TrainedRow
    settings : ExtractSettings
        How videos are extracted; see `extraction_of`.
    execution : Execution
    flow_device_index : int
        Which GPU solves the flow, with the cuda solver.
    num_threads : int
        That solve flow on the CPU.

    Raises
    ------
    CheckpointError
        If weights do not fit their network, or the networks differ in the size of their input.
    DeviceError, ParameterError
        If there is no such device.
    """

    def __init__(
        self, row: TrainedRow, *, settings: ExtractSettings, execution: Execution, flow_device_index: int = 0, num_threads: int = 1
    ) -> None:
        self.row, self.settings = row, settings
        self.classes = row.provenance.classes
        self._flow_device_index, self._num_threads = flow_device_index, num_threads
        self._networks = TestedNetworks(_split_without_videos(row.provenance), row.checkpoints, force=False, execution=execution)

    def predict(self, path: Path, *, on_progress: Callable[[int, int, int], None] = ignore) -> Prediction:
        """Classify one video by the protocol of the test: 25 frames and their flow stacks, and the mirror images of both.

        Parameters
        ----------
        path : Path
            A video file of any length.
        on_progress : callable
            Told (frames, flow fields done, flow fields in all); the last is 0 while frames are counted.

        Returns
        -------
        Prediction
            The scores are those of `evaluate` for the same video in a data set with these settings.

        Raises
        ------
        DeviceError
            If the device of the flow is not to be had.
        """
        found = count_frames(path, short_side=self.settings.short_side, on_frames=lambda count: on_progress(count, 0, 0))
        prediction = Prediction(path, found.status, found.num_frames, found.decode_errors, found.error)
        if found.num_frames < MIN_FRAMES:
            if found.status not in ("short", "undecodable"):
                why = f"{found.num_frames} frames; a stack of flow needs {MIN_FRAMES}"
                prediction = replace(prediction, status="short", error=", ".join(filter(None, (why, found.error))))
            return prediction
        try:
            clip = self._whole_clip(path, found.num_frames, on_progress)
        except VideoDecodeError as error:
            return replace(prediction, status="undecodable", error=str(error))
        (values,) = self._networks.score([clip])
        if not all(np.isfinite(one).all() for one in values.values()):
            return replace(prediction, status="failed", error="its scores are not finite numbers: the network is broken")
        parts = ROWS[self.row.name]
        scores = {stream: values[phase, stream] for phase, stream in parts}
        scores[FUSED] = combine_scores([one[None] for one in scores.values()], weights=[1.0] * len(parts))[0]
        return replace(prediction, scores=scores)

    def top_classes(self, prediction: Prediction, count: int) -> list[tuple[str, dict[str, float]]]:
        """Return the classes with the highest fused scores, each with its probability (softmax) by stream and fused."""
        probabilities = {name: softmax(values) for name, values in prediction.scores.items()}
        order = np.argsort(-prediction.scores[FUSED], kind="stable")[:count]
        return [(self.classes[label], {name: float(values[label]) for name, values in probabilities.items()}) for label in order]

    def _whole_clip(self, path: Path, num_frames: int, on_progress: Callable[[int, int, int], None]) -> WholeClip:
        """Return the video as `WholeClipDataset` would."""
        centres = protocol_centres(num_frames)
        frames, place = np.unique(centres, return_inverse=True)
        fields, where = stack_fields(centres)
        images, q = read_sample(
            path,
            frames=frames.tolist(),
            fields=fields.tolist(),
            settings=self.settings,
            device_index=self._flow_device_index,
            num_threads=self._num_threads,
            on_field=lambda done: on_progress(num_frames, done, len(fields)),
        )
        size = self._networks.input_size
        return WholeClip(whole_rgb(images, input_size=size)[place], whole_flow(q, input_size=size), where, -1, str(path), num_frames)


def _split_without_videos(provenance: Provenance) -> Split:
    """Return the split of the training as far as the weights remember it."""
    return Split(
        number=provenance.split,
        protocol=provenance.protocol,
        classes=provenance.classes,
        train=(),
        test=(),
        num_listed_train=0,
        num_listed_test=0,
        quantiser=dict(provenance.quantiser),
        shards={},
        digest=provenance.digest,
    )
