"""Options of how to compute, which commands that train share. None of them changes what is learnt."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, get_args

import click

from flowkit.cli.shared.options import Command, with_options
from flowkit.model.settings.execution import CropOn, Precision

if TYPE_CHECKING:
    from flowkit.model.compute.execution import Execution

# A parameter of the command -> the field of Execution.
_FIELDS = {
    "amp": "amp",
    "compile": "compile",
    "checkpoint_activations": "checkpoint_activations",
    "crop_on": "crop_on",
    "workers": "num_workers",
    "videos_per_pass": "videos_per_pass",
    "checkpoint_steps": "checkpoint_steps",
}


def device_option(command: Command) -> Command:
    """Add ``--device``."""
    return click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:N]", help="Where to compute.")(command)


def precision_option(command: Command) -> Command:
    """Add ``--amp``."""
    return click.option(
        "--amp",
        type=click.Choice(get_args(Precision)),
        default="float32",
        show_default=True,
        help="Precision. float32 is full precision on a GPU too; tf32 is the GPU's shorter form of it; bf16 and fp16 use autocast.",
    )(command)


def video_workers_option(command: Command) -> Command:
    """Add ``--workers`` of commands that read whole videos."""
    return click.option(
        "--workers", type=click.IntRange(min=0), help="How many processes read videos.  [default: 0 on a CPU, cores - 1 on CUDA]"
    )(command)


def training_options(command: Command) -> Command:
    """Add the options of where and how fast to train."""
    options: tuple[Callable[[Command], Command], ...] = (
        device_option,
        precision_option,
        click.option(
            "--compile/--no-compile",
            default=False,
            help="Compile the training step (torch.compile), which takes minutes; on a CPU it is not worthwhile.",
        ),
        click.option(
            "--checkpoint-activations/--no-checkpoint-activations",
            default=False,
            help="Compute activations again for the backward pass instead of keeping them: this saves memory and costs time.",
        ),
        click.option(
            "--crop-on",
            type=click.Choice(get_args(CropOn)),
            default="auto",
            show_default=True,
            help="Where clips are cropped and resized: by the workers (host) or on the device. auto: on the device if it is CUDA.",
        ),
        click.option(
            "--workers", type=click.IntRange(min=0), help="How many processes read clips.  [default: 0 on a CPU, cores - 1 on CUDA]"
        ),
        click.option(
            "--videos-per-pass",
            type=click.IntRange(min=1),
            help="How many clips go through the network together, in complete BN groups; each group keeps its own statistics.  "
            "[default: one group on a CPU; on CUDA what memory holds, up to 160 frames]",
        ),
        click.option(
            "--checkpoint-steps",
            type=click.IntRange(min=1),
            help="Write a checkpoint every so many steps, in addition to one every 2 minutes.",
        ),
    )
    return with_options(command, options)


def read_execution(settings: dict[str, Any], *, device: str, rank: int, world: int) -> Execution:
    """Take the values of `training_options` out of a command's settings and return them as an `Execution`."""
    from flowkit.model.compute.execution import Execution

    chosen = {field: settings.pop(name) for name, field in _FIELDS.items()}
    return Execution(device=device, rank=rank, world=world, **chosen)
