"""Options of how to train, which `flowkit train` and `flowkit ablate` share, and the settings they make."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, get_args

import click

from flowkit.cli.help.described_settings import default_text, did_you_mean, settings_text
from flowkit.cli.shared.compute_options import training_options
from flowkit.cli.shared.console import say
from flowkit.cli.shared.old_options import RenamedChoice
from flowkit.cli.shared.options import Command, grace_option, usage_errors, with_options
from flowkit.model.settings.network import (
    INPUT_SIZES,
    STAGES,
    HeadPool,
    Injection,
    InjectionDirection,
    InjectionKind,
    TemporalInit,
    TemporalPadding,
    TemporalPoolPosition,
)
from flowkit.model.settings.recipes import Recipe, TrainSettings
from flowkit.model.settings.training import RENAMED_RECIPES, Balance, BnMoments, Corners, Select
from flowkit.model.settings.validation import Validation
from flowkit.model.systems.configs import OVERRIDES
from flowkit.model.systems.registry import PHASES
from flowkit.records import parse_json


def stages(value: Any) -> tuple[int, ...]:
    """Read stages of the network: numbers from 2 to 5, joined by commas (or a list in flowkit.toml)."""
    parts = [str(part).strip() for part in (value.split(",") if isinstance(value, str) else value)]
    if not parts or set(parts) - set(map(str, STAGES)):
        raise click.BadParameter(f"{value!r} is not a list of stages; give some of {','.join(map(str, STAGES))}, joined by commas.")
    return tuple(map(int, parts))


def group_numbers(value: Any) -> tuple[int, ...]:
    """Read the numbers of groups of videos, joined by commas (or a list in flowkit.toml)."""
    parts = [str(part).strip() for part in (value.split(",") if isinstance(value, str) else value)]
    if not parts or not all(re.fullmatch(r"[0-9]{1,9}", part) for part in parts):
        raise click.BadParameter(f"{value!r} is not a list of groups; give their numbers joined by commas, such as 1,2.")
    return tuple(sorted(set(map(int, parts))))


# Options that set one value of the recipe, in all phases: (option, setting, type, help).
Settings = list[tuple[str, str, Any, str]]
RECIPE_SETTINGS: Settings = [
    ("--batch", "batch", click.IntRange(min=1), "How many videos a step takes."),
    ("--bn-group", "bn_group", click.IntRange(min=1), "How many videos share batch statistics; must divide --batch."),
    ("--bn-moments", "bn_moments", click.Choice(get_args(BnMoments)), "What the running moments of batch normalisation average."),
    ("--steps-per-phase", "steps", click.IntRange(min=1), "How many steps each phase takes; the recipe's schedule is scaled to it."),
    ("--lr", "lr", click.FloatRange(min=0), "The first learning rate of each phase; later ones keep their ratio to it."),
    (
        "--balance",
        "balance",
        click.Choice(get_args(Balance)),
        "For classes of uneven size: draw all classes equally often (sampling), or weigh the losses of a class by its inverse frequency "
        "(weights).",
    ),
    (
        "--select",
        "select",
        click.Choice(get_args(Select)),
        "Which weights a phase ends with: those of its last step, or those with the best accuracy on the videos of --validation.",
    ),
    (
        "--skip-cuts/--no-skip-cuts",
        "skip_cuts",
        None,
        "Whether to draw no sample whose flow stack lies across a cut, and to leave out videos that have no other.",
    ),
    ("--seed", "seed", click.IntRange(min=0), "The seed of every random draw."),
    ("--depth", "depth", click.Choice(["50", "101", "152"]), "The depth of the networks."),
    ("--base-width", "base_width", click.IntRange(min=1), "How many channels the first convolution has; 64 in ResNet."),
    ("--input-size", "input_size", click.IntRange(*INPUT_SIZES), "The side of a training crop, px."),
    ("--corners", "corners", click.Choice(get_args(Corners)), "Where crops are taken; the official code uses diagonal."),
    ("--head-pool", "head_pool", click.Choice(get_args(HeadPool)), "The average pooling before the classifier."),
]
# Settings that change the network; `flowkit ablate` varies them.
NETWORK_SETTINGS: Settings = [
    ("--injection", "injection", click.Choice(get_args(Injection)), "How motion enters the appearance stream."),
    (
        "--injection-direction",
        "injection_direction",
        click.Choice(get_args(InjectionDirection)),
        "The direction in which one stream enters the other.",
    ),
    (
        "--injection-kind",
        "injection_kind",
        click.Choice(get_args(InjectionKind)),
        "How the streams are combined; multiplicative gating is from the authors' follow-up paper (CVPR 2017).",
    ),
    ("--injection-stages", "injection_stages", stages, "The stages at which the streams are combined, some of 2,3,4,5."),
    (
        "--temporal-convolution/--no-temporal-convolution",
        "temporal_convolution",
        None,
        "Whether the 1x1 convolutions of each stage's second unit extend over three frames.",
    ),
    ("--temporal-stages", "temporal_stages", stages, "The stages that have temporal convolutions, some of 2,3,4,5."),
    (
        "--temporal-init",
        "temporal_init",
        click.Choice(get_args(TemporalInit)),
        "How the temporal convolutions are initialised; center is from the authors' follow-up paper (CVPR 2017).",
    ),
    (
        "--temporal-padding",
        "temporal_padding",
        click.Choice(get_args(TemporalPadding)),
        "What temporal convolutions see before and after a clip.",
    ),
    (
        "--temporal-pool-position",
        "temporal_pool_position",
        click.Choice(get_args(TemporalPoolPosition)),
        "Where ST-ResNet* pools over time.",
    ),
]


def settings_options(settings: Settings) -> Callable[[Command], Command]:
    """Return a decorator that adds an option for each of these settings."""
    options: list[Callable[[Command], Command]] = [
        click.option(option, name, type=kind, default=None, help=f"{text}  [default: {default_text(name)}]")
        for option, name, kind, text in settings
    ]
    return lambda command: with_options(command, options)


def recipe_options(command: Command) -> Command:
    """Add the options of how to train, without those that change the network."""
    options: tuple[Callable[[Command], Command], ...] = (
        click.option(
            "--recipe",
            type=RenamedChoice(get_args(Recipe), RENAMED_RECIPES),
            default="auto",
            show_default=True,
            help="official has full width and the official code's schedule, own has full width and a schedule for other and smaller data "
            "sets, small suits a CPU. auto is small on a CPU; on a CUDA device it is official for the lists of UCF101 and HMDB51, and own "
            "for others.",
        ),
        click.option(
            "--schedule",
            type=click.Choice(["code", "paper"]),
            default="code",
            show_default=True,
            help="The schedule of --recipe official: the official code's (code), or the paper's batches and iterations (paper), which are "
            "recollection: they could not be checked against its text.",
        ),
        click.option(
            "--weights",
            metavar="imagenet|none|FILE",
            help="What the base streams start from.  [default: none for small, else imagenet]",
        ),
        settings_options(RECIPE_SETTINGS),
        click.option(
            "--validation",
            type=click.FloatRange(0, 1, min_open=True, max_open=True),
            metavar="FRACTION",
            help="Hold out this share of each class's training videos for validation, drawn with --seed. No phase trains on them.",
        ),
        click.option(
            "--validation-groups",
            type=group_numbers,
            metavar="N[,N...]",
            help="Instead, hold out the videos of these groups (_gNN_ in their names, as in UCF101).",
        ),
    )
    return with_options(command, options)


def _validation(fraction: float | None, groups: tuple[int, ...] | None) -> Validation | None:
    """Return which videos ``--validation`` and ``--validation-groups`` hold out."""
    if fraction is not None and groups is not None:
        raise click.UsageError("--validation and --validation-groups exclude each other; give one of them")
    return None if fraction is None and groups is None else Validation(fraction, groups or ())


def _list_names(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """Describe all values of the recipe, and end the command, for ``--set list``."""
    if "list" in value:
        say(settings_text())
        ctx.exit()
    return value


def execution_options(command: Command) -> Command:
    """Add ``--set``, and the options of where and how fast to compute."""
    options: tuple[Callable[[Command], Command], ...] = (
        click.option(
            "--set",
            "others",
            multiple=True,
            is_eager=True,
            callback=_list_names,
            metavar="[PHASE.]NAME=VALUE",
            help="Any other value of the recipe, for all phases or one, such as motion.motion_dropout=0.5. `--set list` describes all.",
        ),
        training_options,
        grace_option("the current step may take; if it takes longer, the work since the last checkpoint is lost"),
    )
    return with_options(command, options)


def train_settings(settings: dict[str, Any], file: Mapping[str, Any] | None = None) -> TrainSettings:
    """Take the values of `recipe_options`, `settings_options` and ``--set`` out of a command's settings; `file` has those of a file."""
    recipe, schedule, weights, others = (settings.pop(name) for name in ("recipe", "schedule", "weights", "others"))
    validation = _validation(settings.pop("validation"), settings.pop("validation_groups"))
    overrides = {name: int(value) if name == "depth" else value for name, value in settings.items() if value is not None}
    overrides |= dict(read_setting(text, option="--set") for text in others)
    with usage_errors():
        return TrainSettings(recipe, weights, schedule == "paper", overrides, validation, file or {})


def read_setting(text: str, *, option: str) -> tuple[str, Any]:
    """Read [PHASE.]NAME=VALUE; a value that is not JSON is text."""
    name, equals, value = text.partition("=")
    phase, _, key = name.rpartition(".")
    if not equals or key not in OVERRIDES or phase not in ("", *PHASES):
        meant = did_you_mean(key) if key not in OVERRIDES else ""
        raise click.UsageError(f"{option} takes [PHASE.]NAME=VALUE with one of the names that `--set list` lists, got {text!r}{meant}")
    try:
        return name, parse_json(value)
    except ValueError:
        return name, value
