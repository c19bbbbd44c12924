"""``flowkit train``: trains the phases of a split; Ctrl-C stops it with a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowkit.cli.shared.compute_options import read_execution
from flowkit.cli.shared.console import duration, say, show_name, warn
from flowkit.cli.shared.options import data_option, split_option
from flowkit.cli.shared.recipe_options import (
    NETWORK_SETTINGS,
    execution_options,
    recipe_options,
    settings_options,
    train_settings,
)
from flowkit.cli.shared.stopping import report_stopped, stop_signals
from flowkit.dataset.progress import ProgressBar
from flowkit.model.settings.recipes import OVERRIDES
from flowkit.model.settings.training import PHASES

if TYPE_CHECKING:
    from flowkit.model.runs.events import TrainEvent


@click.command()
@data_option
@split_option
@click.option(
    "--phase",
    type=click.Choice(["all", *PHASES]),
    default="all",
    show_default=True,
    help="Which phase to train; each needs the phases before it.",
)
@click.option(
    "--run", default="default", show_default=True, metavar="NAME", help="The name of the run, whose folder is runs/NAME in the data root."
)
@click.option("--base-run", metavar="NAME", help="Take earlier phases that this run lacks from another run.")
@recipe_options
@settings_options(NETWORK_SETTINGS)
@execution_options
@click.option(
    "--tensorboard",
    is_flag=True,
    help="Write live curves for TensorBoard into each phase's folder (needs the extra `tensorboard`).",
)
@click.option(
    "--resume/--restart", default=True, help="Resume where the run stopped (the default), or discard these phases and start again."
)
def train(
    data: Path,
    split: int,
    phase: str,
    run: str,
    base_run: str | None,
    recipe: str,
    schedule: str,
    weights: str | None,
    others: tuple[str, ...],
    device: str,
    grace: float,
    tensorboard: bool,
    resume: bool,
    **settings: Any,
) -> int:
    """Train appearance, motion, ST-ResNet and ST-ResNet*, each starting from the phases before it.

    Phases that are trained already, with the same settings, are skipped; a phase that was stopped resumes from its checkpoint.
    """
    if "list" in others:
        say("\n".join(OVERRIDES))
        return 0
    from flowkit.cli.shared.ranks import is_elastic_restart, ranks_from_environment
    from flowkit.model.training.chain import train_phases

    with ranks_from_environment(device) as (rank, world, own_device), stop_signals(grace) as stop:
        execution = read_execution(settings, device=own_device, rank=rank, world=world)
        with TrainingDisplay(quiet=rank > 0) as display, _live_curves(tensorboard and rank == 0, data, run, split) as tell_curves:
            report = train_phases(
                data,
                train_settings(recipe, schedule, weights, settings, others),
                split=split,
                run=run,
                base_run=base_run,
                phases=PHASES if phase == "all" else [phase],  # type: ignore[list-item]
                execution=execution,
                restart=not resume and not is_elastic_restart(),
                on_event=_told_to(display.tell, tell_curves),
                should_stop=stop.asked,
            )
    if report.stopped:
        return report_stopped(stop, "stopped with a checkpoint")
    return 0


class TrainingDisplay:
    """Turns training's events into progress on stderr."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._progress: ProgressBar | None = None

    def __enter__(self) -> TrainingDisplay:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._close(kind, error, trace)

    def tell(self, event: TrainEvent) -> None:
        """Show one event."""
        from flowkit.model.runs import events

        if self._quiet:
            return
        if isinstance(event, events.RunStarted):
            start = "random weights" if event.weights == "none" else f"weights {event.weights}"
            warn(
                f"Recipe {event.recipe} on {event.device}, from {show_name(start)}: {event.num_videos} training videos, "
                f"{event.num_classes} classes."
            )
        elif isinstance(event, events.PhaseSkipped):
            warn(f"{event.phase}: already trained ({show_name(event.folder)}); nothing to do.")
        elif isinstance(event, events.PhaseStarted):
            if event.first_step:
                warn(f"{event.phase}: continues at step {event.first_step} of {event.num_steps}.")
            if event.changes:
                warn(f"{event.phase}: not bit-equal to an uninterrupted run, because {show_name('; '.join(event.changes))}.")
        elif isinstance(event, events.StepDone):
            if self._progress is None:
                left = event.num_steps - event.step - 1
                warn(
                    f"{event.phase}: {left + 1} steps; the first took {event.seconds:.2g} s, so the rest takes "
                    f"{duration(left * event.seconds)} or less."
                )
                self._progress = ProgressBar(event.phase, total=left + 1, unit="steps")
                self._progress.__enter__()
            self._progress.advance(note=f"loss {event.loss:.3f}")
        else:
            self._close()

    def _close(self, *failure: Any) -> None:
        if self._progress is not None:
            self._progress.__exit__(*(failure or (None, None, None)))
            self._progress = None


@contextmanager
def _live_curves(wanted: bool, data: Path, run: str, split: int) -> Iterator[Callable[[TrainEvent], None]]:
    """Yield a function that writes training's events for TensorBoard, or that does nothing."""
    if not wanted:
        yield lambda event: None
        return
    from flowkit.model.report.live_curves import LiveCurves

    with LiveCurves(data, run=run, split=split) as curves:
        yield curves.tell


def _told_to(*listeners: Callable[[TrainEvent], None]) -> Callable[[TrainEvent], None]:
    def tell(event: TrainEvent) -> None:
        for listener in listeners:
            listener(event)

    return tell
