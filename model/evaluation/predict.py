"""A trained network at work on any video file, which is extracted as the training videos were and scored by the test protocol."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flowkit.dataset.manifest import MIN_FRAMES, Split
from flowkit.dataset.progress import StageProgress
from flowkit.dataset.root import RECORD_NAME
from flowkit.dataset.settings import ExtractSettings
from flowkit.errors import ParameterError, VideoDecodeError
from flowkit.extraction.results import Status
from flowkit.extraction.sample_apart import count_frames, read_sample
from flowkit.file_versions import FileVersion
from flowkit.model.compute.execution import Execution
from flowkit.model.data.places import tested_places
from flowkit.model.data.sampling import NUM_TEST_CENTRES
from flowkit.model.data.transforms import whole_flow, whole_rgb
from flowkit.model.data.whole_videos import WholeClip
from flowkit.model.evaluation.fusion_weights import EQUAL_WEIGHTS, check_joined, joined_streams
from flowkit.model.evaluation.rows import ROWS
from flowkit.model.evaluation.trained_row import TrainedRow, find_row, row_of
from flowkit.model.runs.provenance import Provenance
from flowkit.model.runs.recorded_extraction import Solver, extraction_here, extraction_of
from flowkit.model.scoring.metrics import softmax
from flowkit.model.scoring.tested_networks import Crops, TestedNetworks
from flowkit.quantise import Quantiser
from flowkit.words import counted
from flowkit.workers.processes import num_cores

FUSED = "fused"
_NAMES_SHOWN = 3
_PATIENCE_SECONDS = 2.0  # for counting frames without showing it


@dataclass(frozen=True, repr=False)
class Prediction:
    """The classes that a network gives one video; made by `Predictor.predict`.

    Parameters
    ----------
    path : Path
        The video file.
    status : {"ok", "damaged", "short", "undecodable", "failed"}
        As `flowkit.extract` gives it. A ``damaged`` video is classified by what could be decoded; ``failed`` means that the network
        gave scores that are not finite numbers.
    num_frames : int
        Number of frames that could be decoded.
    decode_errors : int
        Number of errors of the decoder.
    error : str
        What is damaged, or why there are no scores.
    classes : tuple of str
        Class names by label.
    scores : dict from str to float64 array, shape (C,)
        Mean logits of each stream, and their (weighted) mean as ``fused``. Empty if the video could not be classified.
    times : float64 array, shape (25,), s, optional
        The time stamps of the frames that were classified, if the file has them.

    Examples
    --------
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from flowkit.model import Prediction
    >>> scores = {"motion": np.array([0.0, 1.0]), "fused": np.array([0.0, 1.0])}
    >>> prediction = Prediction(Path("video.mp4"), "ok", num_frames=90, decode_errors=0, classes=("run", "walk"), scores=scores)
    >>> prediction
    <Prediction of 'video.mp4': 'walk' 73.1 %, 'run' 26.9 %>
    >>> list(prediction.probabilities)
    ['walk', 'run']
    """

    path: Path
    status: Status
    num_frames: int
    decode_errors: int
    error: str = ""
    classes: tuple[str, ...] = ()
    scores: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    times: NDArray[np.float64] | None = None

    @property
    def probabilities(self) -> dict[str, float]:
        """Probability (softmax of the fused scores) of each class, the most probable first; empty if there are no scores."""
        return {name: shares[FUSED] for name, shares in self.top_classes(len(self.classes))}

    def top_classes(self, count: int = 5) -> list[tuple[str, dict[str, float]]]:
        """Return the classes with the highest fused scores, each with its probability (softmax) by stream and ``fused``."""
        if not self.scores:
            return []
        probabilities = {name: softmax(values) for name, values in self.scores.items()}
        order = np.argsort(-self.scores[FUSED], kind="stable")[:count]
        return [(self.classes[label], {name: float(values[label]) for name, values in probabilities.items()}) for label in order]

    def __repr__(self) -> str:
        best = ", ".join(f"{name!r} {100 * shares[FUSED]:.1f} %" for name, shares in self.top_classes(_NAMES_SHOWN))
        return f"<{type(self).__name__} of {str(self.path)!r}: {best or f'{self.status}, {self.error}'}>"


class Predictor:
    """Trained networks that classify one video file after another; `Predictor.open` makes one from files.

    Parameters
    ----------
    row : TrainedRow
        A row of the results table, with its weights.
    settings : ExtractSettings, optional
        How videos are extracted. Default: as the training videos were.
    execution : Execution, optional
        Where and how the networks compute.
    num_threads : int, optional
        Number of threads that solve flow on the CPU. Default: one per core.
    notes : sequence of str
        What had to be assumed about `settings`.
    weights : (float, float), optional
        Weights of the appearance and the motion stream, for a row that joins two. Default: as `evaluate` joins them.
    crops : {"whole", "ten"}
        What the networks see of each frame; see `evaluate`.

    Attributes
    ----------
    classes : tuple of str
        Class names by label.

    Raises
    ------
    CheckpointError
        If weights do not fit their network, or the networks differ in the size of their input.
    DeviceError, ParameterError
        If there is no such device, or the weights are impossible or other than equal for a row of one stream.

    Examples
    --------
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from flowkit.dataset.example import example_root
    >>> from flowkit.demo_videos import write_video
    >>> from flowkit.model import Predictor, train
    >>> root = example_root()
    >>> tiny = {"base_width": 4, "input_size": 32, "batch": 2, "bn_group": 2, "steps": 1}
    >>> _ = train(root, phases=["motion"], recipe="small", overrides=tiny)
    >>> predictor = Predictor.open(root, device="cpu")
    >>> predictor
    <Predictor of motion, 6 classes, on cpu>
    >>> write_video(Path("video.avi"), np.random.default_rng(0).integers(0, 256, (12, 48, 64, 3), dtype=np.uint8), frame_rate=25)
    >>> prediction = predictor.predict("video.avi")
    >>> prediction.status, len(prediction.probabilities), round(sum(prediction.probabilities.values()), 6)
    ('ok', 6, 1.0)
    """

    def __init__(
        self,
        row: TrainedRow,
        *,
        settings: ExtractSettings | None = None,
        execution: Execution | None = None,
        num_threads: int | None = None,
        notes: Sequence[str] = (),
        weights: tuple[float, float] | None = None,
        crops: Crops = "whole",
    ) -> None:
        num_streams = len(ROWS[row.name])
        if num_streams == 1 and tuple(weights or EQUAL_WEIGHTS) != EQUAL_WEIGHTS:
            raise ParameterError(f"fusion weights are for rows that join two streams, and {row.name} is one stream")
        self._weights = None if weights is None or num_streams == 1 else weights
        check_joined(num_streams, weights=self._weights)  # before the work
        self.row, self.settings, self.notes = row, settings or extraction_of(row.provenance, None)[0], tuple(notes)
        self.classes = row.provenance.classes
        execution = execution or Execution()
        self.device = execution.torch_device()
        self._num_threads = num_threads or num_cores()
        self._networks = TestedNetworks(
            _split_without_videos(row.provenance), row.checkpoints, force=False, execution=execution, crops=crops
        )

    @classmethod
    def open(
        cls,
        source: str | Path,
        *,
        run: str = "default",
        split: int = 1,
        row: str | None = None,
        runs: str | Path | None = None,
        root: str | Path | None = None,
        device: str = "auto",
        solver: Solver = "auto",
        num_threads: int | None = None,
        weights: tuple[float, float] | None = None,
        crops: Crops = "whole",
    ) -> Predictor:
        """Read trained networks.

        Parameters
        ----------
        source : path
            A data root, or one phase's weights, checkpoint or folder.
        run, split, row : str, int, str
            If `source` is a data root: which run, split and row of the results table; by default the last row that is trained.
        runs : path, optional
            If `source` is a data root whose runs are kept elsewhere: their folder.
        root : path, optional
            The data root whose settings to take where the weights do not record how their videos were extracted. Default: `source`,
            if it is a data root.
        device : str
            Where the networks compute: ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:1``.
        solver : {"auto", "strict", "fast", "cuda"}
            What computes the flow. ``auto``: the solver of the training; the GPU's if `device` names a GPU.
        num_threads : int, optional
            Number of threads that solve flow on the CPU. Default: one per core.
        weights : (float, float), optional
            Weights of the appearance and the motion stream, for a row that joins two. Default: as `evaluate` joins them.
        crops : {"whole", "ten"}
            What the networks see of each frame; see `evaluate`.

        Raises
        ------
        CheckpointError
            If nothing is trained, or the weights are damaged, foreign or of different data.
        DeviceError, ParameterError
            If there is no such device, solver or row, or the weights are impossible.
        """
        source = Path(source)
        is_root = (source / RECORD_NAME).is_file()
        elsewhere = None if runs is None else Path(runs)
        trained = find_row(source, run=run, split=split, row=row, runs=elsewhere) if is_root else row_of(source)
        root = source if root is None and is_root else None if root is None else Path(root)
        settings, notes = extraction_here(trained.provenance, root, solver, device)
        execution = Execution(device=device)
        return cls(trained, settings=settings, execution=execution, num_threads=num_threads, notes=notes, weights=weights, crops=crops)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.row.name}, {len(self.classes)} classes, on {self.device}>"

    def predict(self, path: str | Path, *, progress: bool | None = None) -> Prediction:
        """Classify one video by the test protocol: 25 frames and their flow stacks, and the mirror images of both.

        Parameters
        ----------
        path : path
            A video file of any length.
        progress : bool, optional
            Whether to show progress. Default: on a terminal and in a notebook.

        Returns
        -------
        Prediction
            The scores are those of `evaluate` for the same video in a data set with these settings. A video that cannot be decoded
            has no scores.

        Raises
        ------
        DeviceError
            If the device that solves the flow is unavailable.
        """
        path = Path(path)
        version = _version(path)
        prediction = self._predict(path, progress)
        if _version(path) == version:
            return prediction
        return replace(
            prediction, status="failed", error="it was changed while it was read; once it is complete, run the same line again", scores={}
        )

    def _predict(self, path: Path, progress: bool | None) -> Prediction:
        with StageProgress(progress) as bars:
            began = time.monotonic()

            def show_count(num_frames: int) -> None:
                if time.monotonic() - began > _PATIENCE_SECONDS:
                    bars.update("count", num_frames, unit="frames", note=path.name)

            video = count_frames(path, settings=self.settings, on_frames=show_count)
            show_count(video.num_frames)  # what the decoding process reports now and then ends before the last frame
            prediction = Prediction(path, video.status, video.num_frames, video.decode_errors, video.error, self.classes)
            if video.num_frames < MIN_FRAMES:
                if video.status not in ("short", "undecodable"):
                    why = f"{counted(video.num_frames, 'frame')}; a stack of flow needs {MIN_FRAMES}"
                    prediction = replace(prediction, status="short", error=", ".join(filter(None, (why, video.error))))
                return prediction
            try:
                clip = self._whole_clip(path, video.num_frames, bars)
            except VideoDecodeError as error:
                return replace(prediction, status="undecodable", error=str(error))
        (values,) = self._networks.score([clip])
        if not all(np.isfinite(logits).all() for logits in values.values()):
            return replace(prediction, status="failed", error="its scores are not finite numbers: the network is broken")
        scores = {stream: values[phase, stream] for phase, stream in ROWS[self.row.name]}
        scores[FUSED] = joined_streams(self.row.name, [logits[None] for logits in scores.values()], weights=self._weights)[0]
        return replace(prediction, scores=scores, times=clip.times)

    def _whole_clip(self, path: Path, num_frames: int, bars: StageProgress) -> WholeClip:
        """Return the video as `WholeClipDataset` would."""
        places = tested_places(num_frames, plan=self._networks.plan, num_samples=NUM_TEST_CENTRES)
        frames, frame_of = np.unique(places.frames, return_inverse=True)
        fields, where = places.fields, places.where

        def show_solved(done: int) -> None:
            bars.update("predict", done, len(fields), unit="flow fields", note=path.name)

        images, q, times = read_sample(
            path,
            frames=frames.tolist(),
            fields=fields.tolist(),
            settings=self.settings,
            device_index=self.device.index or 0,
            num_threads=self._num_threads,
            on_field=show_solved,
        )
        show_solved(len(fields))
        size = self._networks.input_size
        seen = whole_rgb(images, input_size=size)[frame_of], whole_flow(q, input_size=size), where
        return WholeClip(*seen, -1, str(path), num_frames, None if times is None else times[frame_of])


def _version(path: Path) -> FileVersion | None:
    try:
        return FileVersion.of(path)
    except OSError:  # the decoder says what is wrong with it
        return None


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
        quantiser=Quantiser.from_dict(provenance.quantiser),
        shards={},
        digest=provenance.digest,
    )
