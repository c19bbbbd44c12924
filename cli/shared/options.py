"""Options that several commands share, each declared once.

data_option   --data DIR           the data root
split_option  --split N            a split's number
json_option   --json               machine-readable output on stdout
grace_option  --grace SECONDS      how long what is in flight may go on after Ctrl-C
usage_errors                       while settings are made of options: one out of its range is a usage error
with_options  several at once, in the order in which help shows them
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

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
        help="The data root, where everything is written and read.",
    )(command)


def split_option(command: Command) -> Command:
    """Add ``--split N``."""
    return click.option(
        "--split", type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help="Which split of the data set."
    )(command)


def json_option(command: Command) -> Command:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout instead of text.")(command)


def with_options(command: Command, options: Sequence[Callable[[Command], Command]]) -> Command:
    """Add several options, the first of which help shows first."""
    for option in reversed(options):
        command = option(command)
    return command


def grace_option(what: str) -> Callable[[Command], Command]:
    """Return the option that says for how long what is in flight may go on after the first Ctrl-C or SIGTERM."""
    return click.option(
        "--grace",
        type=click.FloatRange(min=0),
        default=GRACE_SECONDS,
        show_default=True,
        metavar="SECONDS",
        help=f"After Ctrl-C, how long {what}.",
    )


@contextmanager
def usage_errors() -> Iterator[None]:
    """Turn a `ParameterError` of settings that are made of options into a usage error."""
    try:
        yield
    except ParameterError as error:
        raise click.UsageError(str(error)) from error
