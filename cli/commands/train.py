"""``flowkit train``: the phases of a split, with progress; stops at Ctrl-C with a checkpoint."""

from __future__ import annotations

import json
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from flowkit.cli.shared.compute_options import read_execution, training_options
from flowkit.cli.shared.console import duration, say, show_name, warn
from flowkit.cli.shared.options import Command, data_option, grace_option, split_option, with_options
from flowkit.cli.shared.stopping import resume_command, stop_signals
from flowkit.dataset.progress import ProgressBar
from flowkit.model.settings.network import INPUT_SIZES, STAGES
from flowkit.model.settings.recipes import OVERRIDES, TrainSettings
from flowkit.model.settings.training import PHASES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from flowkit.model.runs.events import TrainEvent


def stages(value: Any) -> tuple[int, ...]:
    """Read stages of the network: numbers from 2 to 5, joined by commas (or a list, in flowkit.toml)."""
    parts = [str(part).strip() for part in (value.split(",") if isinstance(value, str) else value)]
    if not parts or set(parts) - set(map(str, STAGES)):
        raise click.BadParameter(f"{value!r} is not some of {','.join(map(str, STAGES))}, joined by commas.")
    return tuple(map(int, parts))


# Options that set one value of the recipe, in all phases: (option, setting, type, help).
Settings = list[tuple[str, str, Any, str]]
RECIPE_SETTINGS: Settings = [
    ("--batch", "batch", click.IntRange(min=1), "Videos of one step."),
    ("--bn-group", "bn_group", click.IntRange(min=1), "Videos that share batch statistics; divides --batch."),
    ("--steps-per-phase", "steps", click.IntRange(min=1), "Steps of each phase; the recipe's schedule is scaled to it."),
    ("--lr", "lr", click.FloatRange(min=0), "First learning rate of each phase; later ones keep their ratio to it."),
    ("--seed", "seed", click.IntRange(min=0), "Of every random draw."),
    ("--depth", "depth", click.Choice(["50", "101", "152"]), "Depth of the networks."),
    ("--base-width", "base_width", click.IntRange(min=1), "Channels of the first convolution; 64 is ResNet's."),
    ("--input-size", "input_size", click.IntRange(*INPUT_SIZES), "Side of a training crop, px."),
    ("--corners", "corners", click.Choice(["four", "diagonal"]), "Where crops lie; diagonal as the official code."),
    ("--head-pool", "head_pool", click.Choice(["7x7", "global"]), "Average pooling before the classifier."),
]
# Those that make ST-ResNet another network: what `flowkit ablate` varies.
NETWORK_SETTINGS: Settings = [
    ("--injection", "injection", click.Choice(["residual", "direct", "none"]), "How motion enters the appearance stream."),
    (
        "--injection-direction",
        "injection_direction",
        click.Choice(["motion_to_appearance", "appearance_to_motion", "both"]),
        "Which stream enters which.",
    ),
    (
        "--injection-kind",
        "injection_kind",
        click.Choice(["additive", "multiplicative"]),
        "How they are joined; multiplicative gating is the authors' follow-up (CVPR 2017).",
    ),
    ("--injection-stages", "injection_stages", stages, "Of 2,3,4,5: where they are joined."),
    (
        "--temporal-convolution/--no-temporal-convolution",
        "temporal_convolution",
        None,
        "Whether the 1x1 convolutions of each stage's second unit extend over three frames.",
    ),
    ("--temporal-stages", "temporal_stages", stages, "Of 2,3,4,5: where these convolutions are."),
    (
        "--temporal-init",
        "temporal_init",
        click.Choice(["average", "center"]),
        "First taps of the temporal convolutions; center is the authors' follow-up (CVPR 2017).",
    ),
    ("--temporal-padding", "temporal_padding", click.Choice(["zeros", "replicate"]), "What lies before and after a clip."),
    ("--temporal-pool-position", "temporal_pool_position", click.Choice(["after_pool5", "before_pool5"]), "Of ST-ResNet*."),
]


def settings_options(settings: Settings) -> Callable[[Command], Command]:
    """Return what adds an option for each of these settings."""
    options: list[Callable[[Command], Command]] = [
        click.option(option, name, type=kind, default=None, help=f"{text}  [default: the recipe's]")
        for option, name, kind, text in settings
    ]
    return lambda command: with_options(command, options)


def recipe_options(command: Command) -> Command:
    """Add what says how to train, less what makes the network another one."""
    options: tuple[Callable[[Command], Command], ...] = (
        click.option(
            "--recipe",
            type=click.Choice(["auto", "paper", "small"]),
            default="auto",
            show_default=True,
            help="paper: full width and the official code's schedule; small: for a CPU. auto: paper where there is a CUDA device.",
        ),
        click.option(
            "--schedule",
            type=click.Choice(["code", "paper"]),
            default="code",
            show_default=True,
            help="Step counts of --recipe paper: the official code's epochs, or the paper's iterations.",
        ),
        click.option(
            "--weights",
            metavar="imagenet|none|FILE",
            help="What the base streams start from.  [default: imagenet for paper, none for small]",
        ),
        settings_options(RECIPE_SETTINGS),
    )
    return with_options(command, options)


def execution_options(command: Command) -> Command:
    """Add any other setting, and where and at what pace to compute; `flowkit train` and `flowkit ablate` have these alike."""
    options: tuple[Callable[[Command], Command], ...] = (
        click.option(
            "--set",
            "others",
            multiple=True,
            metavar="[PHASE.]NAME=VALUE",
            help="Any other value of the recipe, for all phases or one, as --set motion.motion_dropout=0.5. `--set list` names them all.",
        ),
        training_options,
        grace_option("the step in hand may take; what is done since the last checkpoint is lost if it takes longer"),
    )
    return with_options(command, options)


@click.command()
@data_option
@split_option
@click.option(
    "--phase", type=click.Choice(["all", *PHASES]), default="all", show_default=True, help="Which phase; each needs the ones before."
)
@click.option("--run", default="default", show_default=True, metavar="NAME", help="The run's name: runs/NAME in the data root.")
@click.option("--base-run", metavar="NAME", help="Another run, from which to take the phases to start from that this run does not have.")
@recipe_options
@settings_options(NETWORK_SETTINGS)
@execution_options
@click.option(
    "--tensorboard",
    is_flag=True,
    help="Write live curves for TensorBoard into each phase's folder (needs the extra `tensorboard`).",
)
@click.option("--resume/--restart", default=True, help="Go on where the run stopped (the default), or discard these phases and begin anew.")
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
    """Train appearance, motion, ST-ResNet and ST-ResNet*, each from the one before.

    What is done already, with the same settings, is left alone; what was stopped goes on from its checkpoint.
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
        if rank == 0:
            warn(f"Stopped with a checkpoint. The same line goes on from there:\n  {resume_command(sys.argv[1:])}")
        return 128 + (stop.signal_number or signal.SIGTERM)
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
            warn(f"{event.phase}: already done ({show_name(event.folder)}); nothing to do.")
        elif isinstance(event, events.PhaseStarted):
            if event.first_step:
                warn(f"{event.phase}: continues at step {event.first_step} of {event.num_steps}.")
            if event.changes:
                warn(f"{event.phase}: not bit-equal to an undisturbed run, because {show_name('; '.join(event.changes))}.")
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
    """Yield what training's events are told to for TensorBoard's sake; nothing listens unless that is wanted."""
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


def train_settings(recipe: str, schedule: str, weights: str | None, settings: Mapping[str, Any], others: Sequence[str]) -> TrainSettings:
    """Return what `recipe_options`, `settings_options` and ``--set`` were given."""
    overrides = {name: int(value) if name == "depth" else value for name, value in settings.items() if value is not None}
    overrides |= dict(read_setting(text, option="--set") for text in others)
    return TrainSettings(recipe, weights, schedule == "paper", overrides)  # type: ignore[arg-type]


def read_setting(text: str, *, option: str) -> tuple[str, Any]:
    """Read [PHASE.]NAME=VALUE; the value is JSON where it can be, else text."""
    name, equals, value = text.partition("=")
    if not equals or name.rpartition(".")[2] not in OVERRIDES or name.rpartition(".")[0] not in ("", *PHASES):
        raise click.UsageError(f"{option} takes [PHASE.]NAME=VALUE with one of the names that `--set list` gives, got {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
