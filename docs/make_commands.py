"""Write docs/commands.md from the commands' own help: ``python docs/make_commands.py``. A test keeps the two equal."""

from __future__ import annotations

from pathlib import Path

import click

from flowkit.cli.main import COMMANDS, flowkit

PAGE = Path(__file__).with_name("commands.md")

INTRODUCTION = """# Commands

This page is made from the commands' help by `python docs/make_commands.py`.

* **Results** go to stdout (as JSON with `--json`, where it is offered). Progress, warnings and errors go to stderr.
* **Exit codes**: 0 success, 1 error, 2 wrong usage, 3 finished but some videos failed (the report says which and why),
  4 `verify` found damage, 130 stopped by Ctrl-C, 143 stopped by SIGTERM.
* **Settings**: an option on the command line takes precedence over `FLOWKIT_<COMMAND>_<OPTION>`, then
  `FLOWKIT_<OPTION>`, then `./flowkit.toml` (keys at the top for every command, a table such as `[extract]` for one), then
  the default. `flowkit.toml` may come with somebody else's folder, so it cannot set `cluster`, which connects, nor
  `restart`, `overwrite`, `replace`, `move`, `force`, `allow-missing` and `output`, which delete, replace or overlook
  something; those that delete cannot be set in the environment either. The data root is `--data`, `FLOWKIT_DATA`, or `./flowkit-data`.
* **How much is printed**: `flowkit --quiet COMMAND` prints results, warnings and errors only, `flowkit --verbose COMMAND` a
  line of progress every second, `flowkit --debug COMMAND` the traceback of an error. `FLOWKIT_QUIET`, `FLOWKIT_VERBOSE` and
  `FLOWKIT_DEBUG`, set to 1, do the same.
* **Ctrl-C**, pressed once, lets the work in progress finish and prints the command that resumes. Pressed twice, it stops
  at once. Nothing that is finished is lost.
"""


def page() -> str:
    """Return the page's text."""
    with click.Context(flowkit) as parent:
        commands = {f"flowkit {name}": flowkit.get_command(parent, name) for name in COMMANDS}
    parts = [INTRODUCTION]
    for name, command in {"flowkit": flowkit, **commands}.items():
        assert command is not None
        settings = flowkit.context_settings | {"max_content_width": 100}
        context = click.Context(command, info_name=name, terminal_width=100, **settings)
        parts.append(f"## {name}\n\n```\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
