"""Options from the environment and from flowkit.toml, under their names on the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click

from flowkit.cli.shared.old_options import OldOption


def setting_name(parameter: click.Parameter) -> str:
    """Return an option's name in the environment and in flowkit.toml: its longest flag, with underscores for dashes."""
    return max(parameter.opts, key=len).lstrip("-").replace("-", "_")


def read_settings_file(
    path: Path, commands: Iterable[str], command: click.Command, name: str, all_names: Callable[[], set[str]]
) -> dict[str, Any]:
    """Read the settings of one command from flowkit.toml.

    Keys at the top are for every command that has such an option; a table such as ``[extract]`` is for that command.

    Parameters
    ----------
    path : Path
        The file.
    commands : iterable of str
        The names of all commands.
    command, name : click.Command, str
        The command that will run.
    all_names : callable
        Returns the names of all commands' settings. Collecting them takes a moment, so it is called only when needed.

    Returns
    -------
    dict
        The values by parameter name, for click's ``default_map``.

    Raises
    ------
    click.UsageError
        If the file is not TOML, has a key that no command knows, or a value that no option can have.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as cause:
        raise click.UsageError(f"{path} is not valid TOML: {cause}") from cause
    tables = {key: value for key, value in values.items() if isinstance(value, dict)}
    unknown = sorted(tables.keys() - set(commands))
    if unknown:
        raise click.UsageError(f"{path}: no such command: {', '.join(unknown)}")
    for key in set(commands) & (values.keys() - tables.keys()):
        raise click.UsageError(f"{path}: [{key}] must be a table of that command's options")

    parameters = {setting_name(parameter): parameter for parameter in command.params}
    settings: dict[str, Any] = {}
    for key, value in values.items():
        if key in tables:
            continue
        parameter = parameters.get(key.replace("-", "_"))
        if isinstance(parameter, OldOption) and parameter.old.only_here:
            continue
        if parameter is not None:
            settings[str(parameter.name)] = _checked(value, parameter, f"{path}: {key}")
        elif key.replace("-", "_") not in (names := all_names()):
            raise click.UsageError(f"{path}: no command has an option {key!r}{_meant(key, names)}")
    for key, value in tables.get(name, {}).items():
        parameter = parameters.get(key.replace("-", "_"))
        if parameter is None:
            raise click.UsageError(f"{path}, [{name}]: `flowkit {name}` has no option {key!r}{_meant(key, parameters)}")
        settings[str(parameter.name)] = _checked(value, parameter, f"{path}, [{name}]: {key}")
    return settings


def _checked(value: Any, parameter: click.Parameter, where: str) -> Any:
    """Return a value as it would be typed (switches and lists as they are), so that the option checks it as usual."""
    takes_list = parameter.multiple or parameter.nargs != 1 or isinstance(parameter.type, click.types.FuncParamType)
    if isinstance(value, dict) or (isinstance(value, list) and not takes_list):
        raise click.UsageError(f"{where} must be one value, got {value!r}")
    if isinstance(value, list):
        return [str(part) for part in value]
    if parameter.multiple or parameter.nargs != 1:
        raise click.UsageError(f"{where} must be a list, got {value!r}")
    return value if getattr(parameter, "is_flag", False) else str(value)


def _meant(key: str, names: Iterable[str]) -> str:
    """Return a question about the option that was probably meant."""
    close = get_close_matches(key.replace("-", "_"), list(names), n=1)
    return f"; did you mean {close[0].replace('_', '-')}?" if close else ""
