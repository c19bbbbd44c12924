"""A trained network at work on any video file, which is extracted as the training videos were and scored by the test protocol."""

from __future__ import annotations

import time
from collections.abc import Container, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from shutil import rmtree

import numpy as np

from flowkit.dataset.manifest import MIN_FRAMES, Split
from flowkit.dataset.paths import clip_path
from flowkit.dataset.progress import ProgressBar, StageProgress
from flowkit.dataset.root import RECORD_NAME
from flowkit.dataset.settings import ExtractSettings
from flowkit.errors import ParameterError, ShardFormatError, VideoDecodeError
from flowkit.extraction.loose_videos import loose_clips
from flowkit.extraction.results import WRITTEN, VideoResult
from flowkit.extraction.run import ExtractProgress
from flowkit.extraction.sample_apart import count_frames, read_sample
from flowkit.file_versions import FileVersion
from flowkit.model.compute.execution import Execution
from flowkit.model.data.places import Places, tested_places
from flowkit.model.data.sampling import NUM_TEST_CENTRES
from flowkit.model.data.transforms import seen_flow, seen_rgb
from flowkit.model.data.whole_videos import WholeClip, read_whole, view_of
from flowkit.model.data.windows_in_time import check_windows, time_windows
from flowkit.model.evaluation.fusion_weights import EQUAL_WEIGHTS, check_joined, joined_streams
from flowkit.model.evaluation.prediction.result import FUSED, Prediction
from flowkit.model.evaluation.rows import ROWS
from flowkit.model.evaluation.trained_row import TrainedRow, find_row, row_of
from flowkit.model.runs.provenance import Provenance
from flowkit.model.runs.recorded_extraction import Solver, extraction_here, extraction_of
from flowkit.model.scoring.tested_networks import Crops, TestedNetworks
from flowkit.quantise import Quantiser
from flowkit.shards.reader import ShardReader
from flowkit.temporary import temporary_folder
from flowkit.video.tree import VideoFile
from flowkit.words import counted
from flowkit.workers.processes import num_cores
from flowkit.workers.stopping import StopRequest

_LOOSE_ID = "video"  # of the clip whose windows are classified
_PATIENCE_SECONDS = 2.0  # for counting frames without showing it


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
        return self._scored(prediction, clip)

    def predict_windows(
        self,
        path: str | Path,
        *,
        seconds: float,
        stride: float | None = None,
        folder: Path | None = None,
        done: Container[int] = (),
        jobs: int | None = None,
        stop: StopRequest | None = None,
        progress: bool | None = None,
    ) -> Iterator[Prediction]:
        """Classify one video window by window; the scores of a window are those of `predict` for a video that consists of its frames.

        Parameters
        ----------
        path : path
            A video file of any length.
        seconds, stride : float, s
            The length of a window, and the distance between the starts of two; by default the same.
        folder : Path, optional
            Where the flow of the whole video is kept until all windows are classified: after a stop it is found there again. By default
            in a temporary folder.
        done : container of int
            The numbers of windows that are not wanted.
        jobs : int, optional
            How many processes compute flow. Default: one per core.
        stop : StopRequest, optional
            Ends the work once a stop is requested.
        progress : bool, optional
            Whether to show progress. Default: on a terminal and in a notebook.

        Yields
        ------
        Prediction
            One for each window, in order. A video that cannot be decoded has one, without `window`. A window of fewer than 11
            frames is ``short``.

        Raises
        ------
        ParameterError
            If `seconds` or `stride` is not a positive number.
        DeviceError
            If the device that solves the flow is unavailable.
        """
        path, stride, stop = Path(path), stride or seconds, stop or StopRequest()
        check_windows(seconds, stride)
        with ExitStack() as stack:
            kept = folder or stack.enter_context(temporary_folder("windows"))
            bar = stack.enter_context(ProgressBar("predict", unit="flow fields", progress=progress))

            def look(made: ExtractProgress) -> None:
                bar.update(made.pairs_done, fraction=made.fraction, note=path.name)

            video = VideoFile(_LOOSE_ID, path, "")
            made = loose_clips(
                [video], kept, settings=self.settings, jobs=jobs, device_index=self.device.index or 0, stop=stop, on_progress=look
            )
            for result in list(made):
                try:
                    yield from self._predict_clip(path, result, clip_path(kept, _LOOSE_ID), seconds, stride, done, stop)
                except ShardFormatError as error:  # somebody has damaged the clip file
                    yield Prediction(path, "failed", result.num_frames, result.decode_errors, str(error), self.classes)
        if folder is not None and not stop.requested():
            rmtree(folder, ignore_errors=True)

    def _predict_clip(
        self, path: Path, result: VideoResult, stored: Path, seconds: float, stride: float, done: Container[int], stop: StopRequest
    ) -> Iterator[Prediction]:
        """Classify the windows of a video whose clip file is there."""
        about = Prediction(path, result.status, result.num_frames, result.decode_errors, result.error, self.classes)
        if result.status not in WRITTEN:
            yield about
            return
        with ShardReader(stored) as reader:
            clip = reader.clip(_LOOSE_ID)
            times = clip.times
            if times is None and clip.frame_rate:
                times = np.arange(clip.num_frames) / float(clip.frame_rate)
            if times is None:
                yield replace(about, status="failed", error="it has neither time stamps nor a frame rate, so it has no windows in seconds")
                return
            try:
                windows = time_windows(times, seconds=seconds, stride=stride)
            except ParameterError as error:
                yield replace(about, status="failed", error=str(error))
                return
            for window in windows:
                if stop.requested():
                    return
                if window.number in done:
                    continue
                count = window.stop - window.start
                part = replace(about, num_frames=count, window=window)
                if count < MIN_FRAMES:
                    why = f"{counted(count, 'frame')}; a stack of flow needs {MIN_FRAMES}"
                    yield replace(part, status="short", error=why)
                    continue
                places = tested_places(count, plan=self._networks.plan, num_samples=NUM_TEST_CENTRES)
                inside = Places(places.frames + window.start, places.fields + window.start, places.where)
                whole = read_whole(clip, inside, input_size=self._networks.input_size, view=view_of(self._networks.plan))
                yield self._scored(part, replace(whole, num_frames=count, times=times[inside.frames]))

    def _scored(self, prediction: Prediction, clip: WholeClip) -> Prediction:
        """Return a prediction with the scores of the networks."""
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
        size, view = self._networks.input_size, view_of(self._networks.plan)
        seen = seen_rgb(images, input_size=size, view=view)[frame_of], seen_flow(q, input_size=size, view=view), where
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
