"""How long a phase will train: the steps that remain times the time of a step, which earlier steps or a short measurement tell."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from flowkit.errors import ParameterError
from flowkit.model.data.training_clips import ClipDataset
from flowkit.model.runs.events import StepDone, TrainEvent, never
from flowkit.model.runs.metrics import read_metrics
from flowkit.model.runs.run_folder import METRICS_NAME, PhaseFolder
from flowkit.model.settings.training import Phase, TrainConfig
from flowkit.model.systems.registry import starts_from
from flowkit.model.training.loop import PhaseRun
from flowkit.model.training.prepare import PreparedTraining

_LEAST_RECORDED = 3  # steps
_MOST_RECORDED = 20
_MEASURED_STEPS = 2  # the first one also allocates memory, and does not count
_FRAMES_AT_ONCE = 2.0  # in units of `frame_cost`: what is measured on a CPU
_VIDEOS = (2, 4)  # the fewest and the most videos of a step that is measured on a CPU


class _MeasuredError(Exception):
    """Enough steps were taken."""


def phase_seconds(ready: PreparedTraining, phase: Phase, *, should_stop: Callable[[], bool] = never) -> tuple[float, bool]:
    """Return about how many seconds the training of a phase will take on this machine.

    Parameters
    ----------
    ready : PreparedTraining
        The training, of which nothing is changed.
    phase : str
        One of its phases.
    should_stop : callable
        Called after each measured step. When it returns True, what was measured until then counts.

    Returns
    -------
    seconds : float
        The remaining steps times the time of a step. Measurements on validation videos are not included.
    is_recorded : bool
        Whether the time of a step is that of earlier steps of the same phase; else it was measured now, on a few training videos.

    Raises
    ------
    FlowkitError, OSError
        If the phase cannot be trained now, for example because a video cannot be read.
    """
    config, folder = ready.configs[phase], ready.folders[phase].path
    recorded = [line.get("seconds") for line in read_metrics(folder / METRICS_NAME, config).values()]
    seconds = [value for value in recorded if isinstance(value, float) and value > 0]
    if len(seconds) >= _LEAST_RECORDED:
        return max(config.num_steps - len(seconds), 0) * statistics.median(seconds[-_MOST_RECORDED:]), True
    if config.network.learns_from_features:
        raise ParameterError(f"it learns from features of {' and '.join(starts_from(phase))}, which are computed first")
    few = _few_videos(config, on_cpu=ready.execution.torch_device().type == "cpu")
    return config.num_steps * config.batch / few * _measured(ready, phase, few, should_stop), False


def _few_videos(config: TrainConfig, *, on_cpu: bool) -> int:
    """Return how many videos a measured step has: a BN group on a GPU, fewer on a CPU, where time is proportional to their number."""
    if not on_cpu:
        return config.bn_group
    least, most = _VIDEOS
    fitting = round(_FRAMES_AT_ONCE / (config.network.frame_cost * config.num_samples))
    return min(max(fitting, least), most, max(config.batch, least))


def _measured(ready: PreparedTraining, phase: Phase, num_videos: int, should_stop: Callable[[], bool]) -> float:
    """Return the seconds of a training step on so many videos, with the network as it is when nothing has set its first weights."""
    changes: dict[str, Any] = {"batch": num_videos, "bn_group": num_videos, "schedule": ((_MEASURED_STEPS, 1e-6),)}
    config = replace(ready.configs[phase], **changes, warmup_steps=0, bn_renewal_steps=0, balance="none")
    provenance = replace(ready.provenance(phase, pending=tuple(ready.folders)), config=config)
    seconds = 0.0

    def on_event(event: TrainEvent) -> None:
        nonlocal seconds
        if isinstance(event, StepDone):
            seconds = event.seconds
            if event.step + 1 == _MEASURED_STEPS or should_stop():
                raise _MeasuredError  # before anything is written

    with tempfile.TemporaryDirectory(prefix="flowkit-step-time-") as folder:
        run = PhaseRun(
            PhaseFolder(Path(folder)),
            provenance,
            ClipDataset(ready.dataset, ready.trained_on, config, cuts=ready.skipped.cuts),
            execution=replace(ready.execution, num_workers=0, compile=False),
            start=lambda network: None,
        )
        with suppress(_MeasuredError):
            run.train(on_event=on_event, should_stop=never)
    return seconds
