"""What the commands print: results on stdout, everything else on stderr, with names escaped."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click

from flowkit.cli.help.suggestions import complete
from flowkit.dataset.progress import print_line, print_note
from flowkit.words import counted, duration, size
from flowkit.words import printable as show
from flowkit.words import printable_name as show_name

__all__ = [
    "complete",
    "counted",
    "duration",
    "inform",
    "json_text",
    "long_table",
    "open_closed_streams",
    "say",
    "say_json",
    "show",
    "show_name",
    "size",
    "table",
    "warn",
]


def open_closed_streams() -> None:
    """Connect standard streams that are closed, as a service or ``2>&-`` closes them, to the null device.

    Otherwise the next file to be opened would get the number of such a stream, and what a library prints would be written into it.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - for as long as the process lives


def say(text: str = "") -> None:
    """Print a result to stdout."""
    click.echo(text)


def say_json(kind: str, values: dict[str, Any], *, indent: int | None = 1) -> None:
    """Print a result to stdout as JSON that names its format."""
    say(json_text(kind, values, indent=indent))


def json_text(kind: str, values: dict[str, Any], *, indent: int | None = 1) -> str:
    """Return a result as JSON that names its format."""
    return json.dumps({"format": f"flowkit-{kind}", "format_version": 1, **values}, indent=indent)


def warn(text: str) -> None:
    """Print a message to stderr. The commands that it suggests keep the options that the user gave."""
    print_line(complete(text))


def warn_of_failures(what: str, failed: Sequence[tuple[str, str]], *, most: int = 10) -> None:
    """Print to stderr which videos failed, and why: the first few, and how many more there are."""
    for video_id, reason in failed[:most]:
        warn(f"{what}: {show_name(video_id)}: {show_name(reason)}")
    if len(failed) > most:
        warn(f"and {len(failed) - most} more")


def inform(text: str) -> None:
    """Print a message that is no warning to stderr; ``flowkit --quiet`` leaves it out."""
    print_note(complete(text))


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a plain, aligned text table (numbers to the right) that pastes well into Markdown."""
    cells = [[show_name(cell) for cell in row] for row in rows]
    widths = [max(len(line[k]) for line in [list(header), *cells]) for k in range(len(header))]
    right = [
        all(
            line[k].replace(".", "", 1).replace("-", "", 1).replace("%", "").replace(",", "").isdigit() or line[k] in ("", "-")
            for line in cells
        )
        for k in range(len(header))
    ]

    def line(parts: Sequence[str]) -> str:
        return "| " + " | ".join(p.rjust(w) if r else p.ljust(w) for p, w, r in zip(parts, widths, right, strict=True)) + " |"

    rule = "|" + "|".join("-" * (w + 1) + (":" if r else "-") for w, r in zip(widths, right, strict=True)) + "|"
    return "\n".join([line(header), rule, *map(line, cells)])


def long_table(header: Sequence[str], rows: Sequence[Sequence[object]], *, most: int = 20, rest: str = "") -> str:
    """Return a table of the first rows, and a line that says how many more there are (and `rest`, where to find them)."""
    more = f"\n... and {len(rows) - most} more{rest}" if len(rows) > most else ""
    return table(header, rows[:most]) + more
