"""Options of how to compute, which commands that train share: none of them changes what is learnt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from flowkit.cli.shared.options import Command, with_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowkit.model.compute.execution import Execution

PRECISIONS = ["float32", "tf32", "bf16", "fp16"]
# Parameter of the command -> field of Execution.
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
        type=click.Choice(PRECISIONS),
        default="float32",
        show_default=True,
        help="Precision. float32 is float32 on a GPU too; tf32 is a GPU's shortened one; bf16 and fp16 are autocast.",
    )(command)


def training_options(command: Command) -> Command:
    """Add all that says where and at what pace to train."""
    options: tuple[Callable[[Command], Command], ...] = (
        device_option,
        precision_option,
        click.option(
            "--compile/--no-compile",
            default=False,
            help="Compile the training step (torch.compile), which takes minutes; on a CPU it does not pay.",
        ),
        click.option(
            "--checkpoint-activations/--no-checkpoint-activations",
            default=False,
            help="Compute activations again for the backward pass instead of keeping them: less memory, more time.",
        ),
        click.option(
            "--crop-on",
            type=click.Choice(["auto", "host", "device"]),
            default="auto",
            show_default=True,
            help="Where clips are cropped and resized: by the workers, or on the device. auto: on the device where it is CUDA.",
        ),
        click.option("--workers", type=click.IntRange(min=0), help="Processes that read clips.  [default: 0 on a CPU, cores - 1 on CUDA]"),
        click.option(
            "--videos-per-pass",
            type=click.IntRange(min=1),
            help="Clips that go through the network together, in whole BN groups, whose statistics stay their own.  "
            "[default: one group on a CPU; on CUDA what memory holds, up to 160 frames]",
        ),
        click.option("--checkpoint-steps", type=click.IntRange(min=1), help="A checkpoint every so many steps, besides every 2 minutes."),
    )
    return with_options(command, options)


def read_execution(settings: dict[str, Any], *, device: str, rank: int, world: int) -> Execution:
    """Take the values of `training_options` out of a command's settings."""
    from flowkit.model.compute.execution import Execution

    chosen = {field: settings.pop(name) for name, field in _FIELDS.items()}
    return Execution(device=device, rank=rank, world=world, **chosen)
