"""Write docs/commands.md from the commands' own help: ``python docs/make_commands.py``. A test keeps the two equal."""

from __future__ import annotations

from pathlib import Path

import click

from flowkit.cli.main import COMMANDS, flowkit

PAGE = Path(__file__).with_name("commands.md")

INTRODUCTION = """# Commands

Made from the commands' help by `python docs/make_commands.py`.

* **Results** go to stdout (`--json` where offered), progress, warnings and errors to stderr.
* **Exit codes**: 0 good, 1 error, 2 usage, 3 finished but some videos failed (the report says which and why), 4 `verify` found
  damage, 130 stopped by Ctrl-C, 143 by SIGTERM.
* **Settings**: an option beats `FLOWKIT_<COMMAND>_<OPTION>`, which beats `FLOWKIT_<OPTION>`, which beats `./flowkit.toml` (keys at the
  top for every command, a table such as `[extract]` for one), which beats the default. The data root is `--data`, `FLOWKIT_DATA`, or
  `./flowkit-data`.
* **Ctrl-C** once finishes what is in flight and prints the command that resumes; twice stops at once. Nothing finished is lost.
"""


def page() -> str:
    """Return the page's text."""
    parts = [INTRODUCTION]
    for name in COMMANDS:
        command = flowkit.get_command(click.Context(flowkit), name)
        assert command is not None
        settings = flowkit.context_settings | {"max_content_width": 100}
        context = click.Context(command, info_name=f"flowkit {name}", terminal_width=100, **settings)
        parts.append(f"## flowkit {name}\n\n```\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
