"""``flowkit config``: the value of every option, and where it comes from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flowkit.cli.help.format import Command
from flowkit.cli.shared.console import say, say_json, table
from flowkit.cli.shared.option_sources import option_values
from flowkit.cli.shared.options import json_option
from flowkit.cli.shared.settings_file import read_settings_file, setting_names

if TYPE_CHECKING:
    from flowkit.cli.shared.option_sources import OptionValue


@click.command(cls=Command)
@click.argument("commands", metavar="[COMMAND]...", nargs=-1)
@click.option("--changed", is_flag=True, help="Show only options that the environment or flowkit.toml sets.")
@json_option
def config(commands: tuple[str, ...], changed: bool, as_json: bool) -> None:
    """Show the value that every option of each COMMAND has, or of all commands, and where it comes from.

    A value on the command line takes precedence over FLOWKIT_<COMMAND>_<OPTION>, then FLOWKIT_<OPTION>, then ./flowkit.toml, then the
    default. Options that delete, replace or connect are given on the command line.
    """
    context = click.get_current_context()
    group = context.find_root().command
    assert isinstance(group, click.Group)
    names = group.list_commands(context)
    unknown = [name for name in commands if name not in names]
    if unknown:
        raise click.UsageError(f"there is no command {unknown[0]!r}; `flowkit --help` lists them")
    found = {name: group.get_command(context, name) for name in names}
    all_commands = {name: command for name, command in found.items() if command is not None}

    path = Path("flowkit.toml")
    values: list[OptionValue] = []
    for name in commands or names:
        command = all_commands[name]
        from_file = read_settings_file(path, names, command, name, lambda: setting_names(all_commands.values())) if path.is_file() else {}
        values += option_values(command, name, from_file, os.environ)
    shown = [value for value in values if not changed or value.source != "default"]
    if as_json:
        say_json("config", {"options": [vars(value) for value in shown]})
    elif shown:
        say(table(("command", "option", "value", "from"), [(value.command, value.option, value.value, value.source) for value in shown]))
    else:
        say("Every option has its default.")
