"""Curves for TensorBoard, written from the events of a training while it runs."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

from flowkit.errors import ParameterError
from flowkit.model.runs.events import (
    FeaturesComputed,
    MomentsRenewed,
    PhaseStarted,
    StepDone,
    TrainEvent,
    Validated,
    Validating,
    WeightsSelected,
)
from flowkit.model.runs.run_folder import phase_folder

FOLDER_NAME = "tensorboard"


class LiveCurves:
    """Writes the measurements of each step to ``runs/<run>/split<n>/<phase>/tensorboard``.

    Parameters
    ----------
    root : Path
        The data root.
    run : str
        The run's name.
    split : int
        The number of the split.
    runs : Path, optional
        The folder of the runs. Default: ``runs`` in the data root.

    Raises
    ------
    ParameterError
        If TensorBoard is not installed.

    Notes
    -----
    A phase that continues from a checkpoint repeats steps that a killed process had already written. The file therefore says at which
    step each process began, and TensorBoard drops what an earlier process wrote from that step on.
    """

    def __init__(self, root: Path, *, run: str, split: int, runs: Path | None = None) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as cause:
            raise ParameterError(
                'live curves need TensorBoard, which is not installed: pip install "flowkit-video[tensorboard]", or train without '
                "--tensorboard (metrics.jsonl and the report have the same numbers)"
            ) from cause
        self._make_writer: type[SummaryWriter] = SummaryWriter
        self._root, self._run, self._split, self._runs = root, run, split, runs
        self._writer: SummaryWriter | None = None

    def __enter__(self) -> LiveCurves:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()

    def record(self, event: TrainEvent) -> None:
        """Write the values of an event; a phase's file is complete after the event of the phase's end, or the run's."""
        if isinstance(event, PhaseStarted):
            self._close()
            folder = phase_folder(self._root, self._run, self._split, event.phase, runs=self._runs) / FOLDER_NAME
            self._writer = self._make_writer(str(folder), purge_step=event.first_step)
        elif isinstance(event, StepDone):
            assert self._writer is not None
            self._write(event)
        elif isinstance(event, Validated):
            assert self._writer is not None
            for name, value in event.measured.items():
                if value is not None:
                    self._writer.add_scalar(name.replace("_", "/", 1), value, event.step - 1)  # validation/accuracy_motion
        elif not isinstance(event, Validating | MomentsRenewed | WeightsSelected | FeaturesComputed):
            self._close()

    def _write(self, event: StepDone) -> None:
        values: dict[str, Any] = {"loss_per_frame/all": event.loss, "learning_rate": event.learning_rate, "seconds/step": event.seconds}
        values["seconds/data_wait"] = event.data_seconds
        # loss_motion becomes loss_per_frame/motion, in one group with the other losses. Earlier versions wrote sums over time as
        # loss/motion, which must not continue in the same curve.
        values |= {name.replace("_", "/", 1).replace("loss/", "loss_per_frame/"): value for name, value in event.measured.items()}
        assert self._writer is not None
        for name, value in values.items():
            self._writer.add_scalar(name, value, event.step)

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
