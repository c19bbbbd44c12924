"""Where the value of an option comes from: the environment, flowkit.toml or the default; and variables that set no option."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import click

from flowkit.cli.shared.old_options import OldOption
from flowkit.cli.shared.settings_file import COMMAND_LINE_ONLY, environment_names, setting_name, setting_names

_OTHER_VARIABLES = {"FLOWKIT_DEBUG", "FLOWKIT_QUIET", "FLOWKIT_VERBOSE", "FLOWKIT_REQUIRE_CUDA"}
_DEFAULT_IN_HELP = re.compile(r"\[default: ([^\]]*?)(?:; (?:at least|at most|x[<>]=)[^\]]*)?\]")


@dataclass(frozen=True)
class OptionValue:
    """The value that an option has if the command line does not give it.

    Parameters
    ----------
    command, option : str
        The command, and the option's longest flag.
    value : str
        The value as it would be typed; for a default that depends on other things, its description.
    source : str
        ``default``, the variable of the environment, or ``flowkit.toml``.
    """

    command: str
    option: str
    value: str
    source: str


def option_values(command: click.Command, name: str, from_file: Mapping[str, Any], environment: Mapping[str, str]) -> list[OptionValue]:
    """Return the values of all options of a command, in the order of its parameters.

    Parameters
    ----------
    command : click.Command
        The command.
    name : str
        Its name.
    from_file : mapping
        What flowkit.toml sets for it, by parameter name.
    environment : mapping
        The variables of the environment.
    """
    context = click.Context(command, info_name=name)
    values = []
    for parameter in command.params:
        if not isinstance(parameter, click.Option) or isinstance(parameter, OldOption):
            continue
        flag = max(parameter.opts, key=len)
        names = [] if setting_name(parameter) in COMMAND_LINE_ONLY else environment_names(name, setting_name(parameter))
        variable = next((candidate for candidate in names if environment.get(candidate)), None)
        if variable is not None:
            values.append(OptionValue(name, flag, environment[variable], variable))
        elif parameter.name in from_file:
            values.append(OptionValue(name, flag, _typed(from_file[str(parameter.name)]), "flowkit.toml"))
        else:
            values.append(OptionValue(name, flag, _default(parameter, context), "default"))
    return values


def own_variables(commands: Mapping[str, click.Command]) -> set[str]:
    """Return the variables of the environment that flowkit itself or one of these commands reads."""
    settings = [(name, setting) for name, command in commands.items() for setting in setting_names([command])]
    return _OTHER_VARIABLES.union(*(environment_names(name, setting) for name, setting in settings))


def unknown_variables(environment: Iterable[str], commands: Mapping[str, click.Command]) -> list[str]:
    """Return a sentence for each variable FLOWKIT_... of the environment that sets no option of any command."""
    known = own_variables(commands)
    sentences = []
    for variable in sorted(environment):
        if variable.startswith("FLOWKIT_") and variable not in known:
            close = get_close_matches(variable, sorted(known), n=1)
            meant = f"; did you mean {close[0]}?" if close else ""
            sentences.append(f"the environment variable {variable:.60} sets no option of flowkit{meant}")
    return sentences


def _default(option: click.Option, context: click.Context) -> str:
    """Return an option's default as its help page shows it."""
    if isinstance(option.default, bool) or option.is_flag:
        return "yes" if option.default is True else "no"
    default = option.get_default(context)
    if default is not None and not (option.multiple and not default) and not callable(default) and "Sentinel" not in type(default).__name__:
        return _typed(default)
    found = _DEFAULT_IN_HELP.search(option.help or "")
    return found[1] if found else ""


def _typed(value: Any) -> str:
    """Return a value as it would be typed."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
