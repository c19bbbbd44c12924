"""flowkit's command lines, run in this process: as a user's shell runs them, or with their exceptions let through."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple

import pytest
from click.testing import CliRunner

from flowkit.cli.main import flowkit, main


class Ended(NamedTuple):
    """What a command left: its exit code and what it wrote."""

    code: int
    out: str
    err: str


def run_flowkit(*arguments: object, in_one: bool = False) -> Ended:
    """Run a command as a user would: errors become messages and exit codes. With `in_one`, `out` is all that a terminal would show."""
    out = io.StringIO()
    err = out if in_one else io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main([*map(str, arguments)])
    return Ended(int(ended.value.code or 0), out.getvalue(), err.getvalue())


def call_flowkit(*arguments: object, code: int | None = None) -> Ended:
    """Run a command whose errors are for the test: they are raised as they are. With `code`, it must end with that exit code."""
    result = CliRunner().invoke(flowkit, [*map(str, arguments)], standalone_mode=False)
    if result.exception:
        raise result.exception
    ended = Ended(result.return_value or 0, result.stdout, result.stderr)
    assert code in (None, ended.code), ended
    return ended
