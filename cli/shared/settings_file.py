"""Options from the environment and from flowkit.toml, under their names on the command line.

flowkit.toml lies in the working folder, so it may come with somebody else's data. It sets how flowkit works, and never that flowkit
connects to a machine, deletes, replaces or overlooks something.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click

from flowkit.cli.shared.old_options import OldOption
from flowkit.files import read_file

MAX_FILE_BYTES = 1 << 16

# Options that flowkit.toml may not set, by their setting's name, and what they do.
NOT_FROM_FILE = {
    "cluster": "connects to a scheduler, which can make flowkit run any code",
    "resume": "can discard finished training",
    "restart": "discards finished training",
    "overwrite": "deletes files",
    "replace": "replaces results of an earlier call",
    "move": "deletes clip files",
    "allow_missing": "gives up videos that earlier manifests know",
    "force": "overlooks that the weights and the data do not belong together",
    "output": "names where files are written, which may replace others",
    "write_config": "names a file to write",
    "config": "names another file of settings",
}
# Of these, those that the environment may not set either, because they delete.
COMMAND_LINE_ONLY = ("resume", "restart", "overwrite", "replace", "move")


def setting_name(parameter: click.Parameter) -> str:
    """Return an option's name in the environment and in flowkit.toml: its longest flag, with underscores for dashes."""
    return max(parameter.opts, key=len).lstrip("-").replace("-", "_")


def setting_names(commands: Iterable[click.Command]) -> set[str]:
    """Return the names of all settings that some commands have."""
    return {setting_name(parameter) for command in commands for parameter in command.params if isinstance(parameter, click.Option)}


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
        If the file is not TOML, has a key that no command knows or that a file may not set, or a value that no option can have.
    """
    values = read_toml(path)
    tables = {key: value for key, value in values.items() if isinstance(value, dict)}
    unknown = sorted(tables.keys() - set(commands))
    if unknown:
        raise click.UsageError(f"{path}: no such command: {', '.join(map(short, unknown[:5]))}")
    for key in set(commands) & (values.keys() - tables.keys()):
        refuse_if_not_from_file(key, str(path))
        raise click.UsageError(f"{path}: [{key}] must be a table of that command's options")

    # Arguments are left out: they say what a command reads, and may name a file that it writes.
    parameters = {setting_name(parameter): parameter for parameter in command.params if isinstance(parameter, click.Option)}
    settings: dict[str, Any] = {}
    for key, value in values.items():
        if key in tables:
            continue
        refuse_if_not_from_file(key, str(path))
        parameter = parameters.get(key.replace("-", "_"))
        if isinstance(parameter, OldOption) and parameter.old.only_here:
            continue
        if parameter is not None:
            settings[str(parameter.name)] = checked(value, parameter, f"{path}: {key}")
        elif key.replace("-", "_") not in (names := all_names()):
            raise click.UsageError(f"{path}: no command has an option {short(key)}{meant(key, names)}")
    for table, contents in tables.items():
        for key in contents:
            refuse_if_not_from_file(key, f"{path}, [{table}]")
    for key, value in tables.get(name, {}).items():
        parameter = parameters.get(key.replace("-", "_"))
        if parameter is None:
            raise click.UsageError(f"{path}, [{name}]: `flowkit {name}` has no option {short(key)}{meant(key, parameters)}")
        settings[str(parameter.name)] = checked(value, parameter, f"{path}, [{name}]: {key}")
    return settings


def read_toml(path: Path) -> dict[str, Any]:
    """Return what a TOML file of bounded size holds; `click.UsageError` if it cannot be read or is not TOML."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        values = tomllib.loads(read_file(path, most_bytes=MAX_FILE_BYTES).decode("utf-8-sig"))  # Windows editors begin with a mark
    except OSError as cause:
        raise click.UsageError(f"{path} cannot be read: {cause.strerror}") from cause
    except RecursionError as cause:
        raise click.UsageError(f"{path} is nested too deeply") from cause
    except ValueError as cause:  # of TOML, of UTF-8, or of a number with thousands of digits
        raise click.UsageError(f"{path} is not valid TOML: {cause!s:.200}") from cause
    return values


def environment_names(command: str, name: str) -> list[str]:
    """Return the environment variables of an option of a command: for this command only, and for all."""
    return [f"FLOWKIT_{command}_{name}".upper(), f"FLOWKIT_{name}".upper()]


def refuse_environment(command: str, names: Iterable[str], environment: Mapping[str, str]) -> None:
    """Raise `click.UsageError` if the environment sets an option of a command that only the command line may set."""
    for name in sorted(set(names) & set(COMMAND_LINE_ONLY)):
        for variable in environment_names(command, name):
            if variable in environment:
                raise click.UsageError(f"{variable}: this option {NOT_FROM_FILE[name]}, so it is given on the command line only")


def refuse_if_not_from_file(key: str, where: str) -> None:
    """Raise `click.UsageError` if a file may not set the option of this name."""
    reason = NOT_FROM_FILE.get(key.replace("-", "_"))
    if reason is not None:
        others = "" if key.replace("-", "_") in COMMAND_LINE_ONLY else " or in the environment"
        raise click.UsageError(f"{where}: {key}: a file may not set this option, because it {reason}; give it on the command line{others}")


def short(key: str) -> str:
    """Return a key as messages show it: bounded, whatever a file holds."""
    return f"{key!r:.60}"


def checked(value: Any, parameter: click.Parameter, where: str) -> Any:
    """Return a value as it would be typed (switches and lists as they are), so that the option checks it as usual."""
    takes_list = parameter.multiple or parameter.nargs != 1 or isinstance(parameter.type, click.types.FuncParamType)
    if isinstance(value, dict) or (isinstance(value, list) and not takes_list):
        raise click.UsageError(f"{where} must be one value, got {'a table' if isinstance(value, dict) else 'a list'}")
    if isinstance(value, list):
        if any(isinstance(part, dict | list) for part in value):
            raise click.UsageError(f"{where} must be a list of values")
        return [_as_typed(part, where) for part in value]
    if parameter.multiple or parameter.nargs != 1:
        raise click.UsageError(f"{where} must be a list, got {_as_typed(value, where)!r:.60}")
    return value if isinstance(value, bool) and getattr(parameter, "is_flag", False) else _as_typed(value, where)


def _as_typed(value: Any, where: str) -> str:
    """Return a value as the text that would be typed, which has no NUL and no number of thousands of digits."""
    try:
        text = str(value)
    except ValueError as cause:
        raise click.UsageError(f"{where} is too large a number") from cause
    if "\0" in text:
        raise click.UsageError(f"{where} holds a NUL character")
    return text


def meant(key: str, names: Iterable[str]) -> str:
    """Return a question about the option that was probably meant."""
    close = get_close_matches(key.replace("-", "_"), list(names), n=1)
    return f"; did you mean {close[0].replace('_', '-')}?" if close else ""
