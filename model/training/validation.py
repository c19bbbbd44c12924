"""Measurements on the validation videos while a phase is trained: complete videos, scored as in the test, but with fewer frames."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import TextIO

import numpy as np
from torch import Tensor

from flowkit.dataset.manifest import Split
from flowkit.dataset.root import Dataset
from flowkit.errors import ManifestError
from flowkit.model.compute.execution import Execution
from flowkit.model.data.whole_videos import WholeClipDataset
from flowkit.model.runs.checkpoint import BestSoFar, Checkpoint
from flowkit.model.runs.events import TrainEvent, Validated, Validating, ignore, never
from flowkit.model.runs.metrics import VALIDATION_ACCURACY, VALIDATION_LOSS
from flowkit.model.runs.provenance import Provenance
from flowkit.model.scoring.metrics import combine_scores, cross_entropy, ranks_of_labels
from flowkit.model.scoring.scored_videos import NOT_FINITE, score_videos, stream_scores
from flowkit.model.scoring.tested_networks import TestedNetworks
from flowkit.model.settings.validation import validation_interval, validation_samples


class _StopError(Exception):
    """A stop was requested while the videos were scored."""


class Validator:
    """The validation videos of one phase, and when they are measured.

    Parameters
    ----------
    dataset : flowkit.Dataset
        The data root.
    split : flowkit.Split
        The split, whose training list contains the videos that are held out.
    provenance : Provenance
        What the phase records; it names these videos.
    execution : Execution
        Where and how to compute. With several ranks, each scores its share, and all have the same result as one.

    Attributes
    ----------
    validated : int
        The number of steps after which the videos were last measured; 0 if never.
    best : BestSoFar or None
        The best weights so far, if the phase ends with the best.

    Notes
    -----
    A network of its own is built from the weights for each measurement, so that the network in training is left alone.
    """

    def __init__(self, dataset: Dataset, split: Split, provenance: Provenance, *, execution: Execution) -> None:
        held, config = set(provenance.validation_ids), provenance.config
        self.config = config
        self._split, self._provenance, self._execution = split, provenance, execution
        self._records = [record for record in split.train if record.video_id in held]
        self._clips = WholeClipDataset(
            dataset,
            self._records,
            split.quantiser,
            input_size=config.network.input_size,
            num_samples=validation_samples(config),
            plan=config.network.clip_plan,
        )
        num_held_out = len(self._records)
        self.validated = 0
        self.best: BestSoFar | None = None
        self.interval = validation_interval(config, num_trained=len(split.train) - num_held_out, num_held_out=num_held_out)

    def __len__(self) -> int:
        return len(self._records)

    def is_due(self, step: int) -> bool:
        """Return whether the videos are to be measured after so many steps, before the last, and were not yet."""
        return self.validated < step < self.config.num_steps and step % self.interval == 0

    def resume(self, checkpoint: Checkpoint) -> bool:
        """Take over what a checkpoint says; return whether it fits its network and its number of steps."""
        self.validated, self.best = checkpoint.validated, checkpoint.best
        if self.best is not None:
            best, network = ({name: tensor.shape for name, tensor in state.items()} for state in (self.best.network, checkpoint.network))
            if best != network or not 0 <= self.best.step <= self.validated:
                return False
        return 0 <= self.validated <= checkpoint.step

    def measure(
        self,
        network: Mapping[str, Tensor],
        step: int,
        metrics: TextIO | None,
        *,
        on_event: Callable[[TrainEvent], None] = ignore,
        should_stop: Callable[[], bool] = never,
    ) -> bool:
        """Measure the videos with the weights that a phase has after some steps, and remember the best weights.

        Parameters
        ----------
        network : dict from parameter name to tensor
            The weights.
        step : int
            The number of steps done.
        metrics : file, optional
            The open metrics.jsonl, in the rank that writes it.
        on_event, should_stop : callable
            As in `train`.

        Returns
        -------
        bool
            False if a stop was requested before all videos were scored; then nothing is remembered.

        Raises
        ------
        ManifestError
            If a video cannot be read.
        """
        config, began = self.config, time.monotonic()
        values = self._measured(network, step, on_event=on_event, should_stop=should_stop)
        if values is None:
            return False
        accuracy, loss = values[VALIDATION_ACCURACY], values[VALIDATION_LOSS]
        assert accuracy is not None
        is_best = config.select == "best" and (self.best is None or accuracy > self.best.accuracy)
        if is_best:
            self.best = BestSoFar(step, accuracy, {name: tensor.to("cpu", copy=True) for name, tensor in network.items()})
        self.validated = step
        if metrics is not None:
            line = {"step": step - 1, **values, "validation_seconds": round(time.monotonic() - began, 4)}
            metrics.write(json.dumps(line) + "\n")
        on_event(Validated(config.phase, step, config.num_steps, len(self), accuracy, loss, is_best, values))
        return True

    def _measured(
        self, network: Mapping[str, Tensor], step: int, *, on_event: Callable[[TrainEvent], None], should_stop: Callable[[], bool]
    ) -> dict[str, float | None] | None:
        """Return accuracy and loss under their names in metrics.jsonl; None if a stop was requested meanwhile."""
        phase, execution = self.config.phase, self._execution
        checkpoint = Checkpoint(self._provenance, step, dict(network))
        networks = TestedNetworks(self._split, {phase: ("the network in training", checkpoint)}, force=False, execution=execution)

        def progress(done: int, num_videos: int, _: int) -> None:
            on_event(Validating(phase, done, num_videos))
            if execution.world == 1 and done < num_videos and should_stop():  # several ranks must all go on, or all stop
                raise _StopError

        try:
            scored, failed = score_videos(networks, self._clips, on_progress=progress)
        except _StopError:
            return None
        for video in failed:
            if video.reason != NOT_FINITE:
                raise ManifestError(f"a validation video cannot be read, {video.video_id}: {video.reason}")
        records = [record for record in self._records if record.video_id in scored]
        labels = np.array([record.label for record in records], dtype=np.int64)
        ids = [record.video_id for record in records]
        scores = stream_scores(scored, ids, parts=networks.parts, num_classes=len(self._split.classes))
        streams = {f"_{stream}": values for (_, stream), values in scores.items()}
        joined = {"": combine_scores(list(streams.values()), weights=[1.0] * len(streams))}
        measured: dict[str, float | None] = {}
        for name, values in (joined | streams).items():
            # A video without finite scores counts as wrong.
            measured[VALIDATION_ACCURACY + name] = float((ranks_of_labels(values, labels) == 0).sum()) / len(self)
            measured[VALIDATION_LOSS + name] = None if failed else cross_entropy(values, labels)
        return measured
