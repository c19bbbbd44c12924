"""Options that several commands share, each declared once.

data_option     --data DIR           the data root
runs_option     --runs DIR           where runs are, if not in the data root
reports_option  --reports DIR        where reports are, if not in the data root
split_option    --split N            a split's number
splits_option   --split N[,N...]     several splits, read by `split_numbers`
output_option   --output DIR         where reports are written
json_option     --json               machine-readable output on stdout
grace_option    --grace SECONDS      how long the work in progress may take after Ctrl-C
name_paths                           refuses empty paths, and knows ~/
refuse_unused                        refuses options that would do nothing
usage_errors                         turns a setting that is out of its range into a usage error
with_options                         adds several options, in the order in which help shows them
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from flowkit.cli.help.error_hints import with_flags
from flowkit.errors import ParameterError
from flowkit.workers.stopping import GRACE_SECONDS

Command = TypeVar("Command", bound=Callable[..., Any])


def data_option(command: Command) -> Command:
    """Add ``--data DIR``."""
    return click.option(
        "--data",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("flowkit-data"),
        show_default=True,
        metavar="DIR",
        help="The data root, which holds everything that flowkit writes.",
    )(command)


def runs_option(command: Command) -> Command:
    """Add ``--runs DIR``."""
    return click.option(
        "--runs",
        type=click.Path(file_okay=True, path_type=Path),
        metavar="DIR",
        help="The folder of the runs, for a data root that is read-only or shared.  [default: runs in the data root]",
    )(command)


def reports_option(command: Command) -> Command:
    """Add ``--reports DIR``."""
    return click.option(
        "--reports",
        type=click.Path(file_okay=True, path_type=Path),
        metavar="DIR",
        help="The folder of the reports, for a data root that is read-only or shared.  [default: reports in the data root]",
    )(command)


def split_option(command: Command) -> Command:
    """Add ``--split N``."""
    return click.option(
        "--split", type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help="Which split of the data set to use."
    )(command)


def splits_option(command: Command) -> Command:
    """Add ``--split N[,N...]|all``, which `split_numbers` reads."""
    return click.option(
        "--split",
        "splits",
        default="1",
        show_default=True,
        metavar="N[,N...]|all",
        help="Which splits to use; several also give their mean.",
    )(command)


def split_numbers(text: str, existing: Sequence[int]) -> list[int]:
    """Return the splits that ``--split`` names; ``all`` names the existing ones."""
    if text == "all":
        if not existing:
            raise click.UsageError("no split is packed yet; run `flowkit pack --split 1`")
        return list(existing)
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", text):
        raise click.UsageError(f"--split takes numbers joined by commas, or all, got {text!r}")
    return list(dict.fromkeys(int(number) for number in text.split(",")))


def read_numbers(text: str, option: str) -> tuple[float, ...]:
    """Return the numbers that an option gives, joined by commas."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as cause:
        raise click.UsageError(f"{option} takes numbers joined by commas, got {text!r}") from cause


def two_weights(text: str) -> tuple[float, float]:
    """Return the weights of the appearance and the motion stream that ``--fusion-weights`` gives."""
    numbers = read_numbers(text, "--fusion-weights")
    if len(numbers) != 2:
        raise click.UsageError(f"--fusion-weights takes two numbers joined by a comma, got {text!r}")
    return numbers[0], numbers[1]


def crops_option(command: Command) -> Command:
    """Add ``--crops``."""
    return click.option(
        "--crops",
        type=click.Choice(["whole", "ten"]),
        default="whole",
        show_default=True,
        help="What networks see of a frame: all of it, or ten crops of the size of training crops, as the two-stream papers test. Ten are "
        "for networks that look at one frame or one stack of flow at a time.",
    )(command)


def output_option(command: Command) -> Command:
    """Add ``--output DIR`` of results."""
    return click.option(
        "--output",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        help="Where to write the results.  [default: RUN/splitN in the folder of the reports]",
    )(command)


def json_option(command: Command) -> Command:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout instead of text.")(command)


class _NamedPath(click.Path):
    """A path that is not empty, which pathlib would read as the working folder; ``~/`` at its beginning is the home folder.

    Shells leave the ``~`` of ``--data=~/x`` as it is, and there is none between a variable or ``flowkit.toml`` and flowkit.
    """

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and (value == "~" or value.startswith("~/")):
            value = os.path.expanduser(value)
        if value == "":
            self.fail(
                "it is empty, as a variable of the shell is that is not set; name a file or folder, or '.' for this folder", param, ctx
            )
        return super().convert(value, param, ctx)


def name_paths(command: click.Command) -> None:
    """Let the options and arguments of a command that are paths refuse the empty text, and begin with ``~/``."""
    for parameter in command.params:
        if type(parameter.type) is click.Path:
            path = _NamedPath.__new__(_NamedPath)
            vars(path).update(vars(parameter.type))
            parameter.type = path


def with_options(command: Command, options: Sequence[Callable[[Command], Command]]) -> Command:
    """Add several options, the first of which help shows first."""
    for option in reversed(options):
        command = option(command)
    return command


def grace_option(what: str) -> Callable[[Command], Command]:
    """Return the option ``--grace``: the time after the first Ctrl-C or SIGTERM before the command stops at once."""
    return click.option(
        "--grace",
        type=click.FloatRange(min=0),
        default=GRACE_SECONDS,
        show_default=True,
        metavar="SECONDS",
        help=f"How long, after Ctrl-C, {what}.",
    )


def refuse_unused(reason: str, *names: str) -> None:
    """Raise a usage error if one of these parameters was given on the command line, where it would do nothing.

    The environment and flowkit.toml may set an option for many commands, so what they say is not refused.
    """
    context = click.get_current_context()
    for name in names:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            (flag,) = (max(option.opts, key=len) for option in context.command.params if option.name == name)
            raise click.UsageError(f"{flag} would do nothing here: {reason}")


@contextmanager
def usage_errors() -> Iterator[None]:
    """Turn a `ParameterError` of settings that were made from options into a usage error."""
    try:
        yield
    except ParameterError as error:
        raise click.UsageError(with_flags(str(error), click.get_current_context().command.params)) from error
