"""Commands that messages suggest, completed with what the user gave: their data root, their run, the folders of their runs and reports.

A message of the library names a command by itself, as in `flowkit pack --split 1`. Pasted, that would concern another data root than the
one that the user named.

Given             what a command line gave
remember_given    keeps it, for messages that are printed after the command has ended
complete          completes the commands of a message
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest

import click

from flowkit.words import printable_name

# What another command needs too, if it has such an option of the same form. The same command needs everything that was given.
_KEPT = ("--data", "--split", "--run", "--runs", "--reports", "--device")
_LEFT_OUT = ("--restart", "--redraw")  # --redraw reads the results that a message says to make again
_REFUSED_WITH_MATLAB = ("--data", "--runs")  # by `flowkit convert`, since a file of MATLAB's lies in no data root
_SUGGESTED = re.compile(r"`flowkit ([a-z]+)((?: [^`]*)?)`")
_THAT_ONLY_PRINT = ("--set list", "--help")


@dataclass(frozen=True)
class Given:
    """What the command line gave a command.

    Parameters
    ----------
    group : click.Group
        All commands.
    name : str
        The command.
    options : tuple of (str, tuple of str)
        Its options as they were typed, in their order: the longest flag of each, and the words that give it.
    """

    group: click.Group
    name: str
    options: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def parameters(self) -> list[click.Parameter]:
        """The options and arguments that the command has."""
        command = self.group.get_command(click.Context(self.group), self.name)
        return [] if command is None else command.params


def remember_given(context: click.Context, name: str, command: click.Command, arguments: Sequence[str]) -> None:
    """Keep what a command line gives a command: in the object of the group's context, which outlives the context."""
    assert isinstance(context.command, click.Group)
    context.ensure_object(dict)["given"] = Given(context.command, name, _options_of(command, arguments))


def complete(text: str, given: Given | None = None) -> str:
    """Return a message whose suggested commands, in backticks, have the options that the user gave.

    Parameters
    ----------
    text : str
        The message.
    given : Given, optional
        What the user gave; by default what the command that is running was given. Without one, the message is returned as it is.
    """
    context = click.get_current_context(silent=True)
    if given is None and context is not None and isinstance(context.obj, dict):
        given = context.obj.get("given")
    if given is None or "`flowkit " not in text:
        return text
    return _SUGGESTED.sub(partial(_completed, given=given), text)


def _completed(match: re.Match[str], given: Given) -> str:
    """Return a suggested command with what was given and it lacks; text that only mentions an option stays as it is."""
    suggested, name, rest = match[0], match[1], match[2]
    context = click.Context(given.group)
    command, own = (given.group.get_command(context, named) for named in (name, given.name))
    if command is None or own is None or any(words in rest for words in _THAT_ONLY_PRINT) or not _is_whole(command, rest.split()):
        return suggested
    is_same, theirs, ours = name == given.name, _forms(command), _forms(own)
    left_out = (*_LEFT_OUT, *(_REFUSED_WITH_MATLAB if name == "convert" and ".mat" in rest else ()))
    present = {word.partition("=")[0] for word in rest.split()}
    words: list[str] = []
    for flag, typed in given.options:
        fits = is_same or (flag in _KEPT and flag in theirs and theirs[flag] == ours[flag])
        if fits and flag not in left_out and flag not in present:
            words += typed
    return f"{suggested[:-1]} {printable_name(shlex.join(words))}`" if words else suggested


def _is_whole(command: click.Command, words: Sequence[str]) -> bool:
    """Return whether every option of a suggested command has its value: `flowkit pack --lists` only says where to look."""
    takes_value = {flag for option in _options(command) if not option.is_flag for flag in option.opts}
    return not any(word in takes_value and (after is None or after.startswith("--")) for word, after in zip_longest(words, words[1:]))


def _options_of(command: click.Command, arguments: Sequence[str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return the options of a command line, each with the words that give it."""
    option_of = {flag: option for option in _options(command) for flag in (*option.opts, *option.secondary_opts)}
    found, words = [], list(arguments)
    while words and words[0] != "--":
        word = words.pop(0)
        flag, equals, _ = word.partition("=")
        option = option_of.get(flag)
        if option is None:
            continue
        values = [] if option.is_flag or equals else words[: option.nargs]
        del words[: len(values)]
        longest = flag if flag in option.secondary_opts else max(option.opts, key=len)
        found.append((longest, (word, *values)))
    return tuple(found)


def _forms(command: click.Command) -> dict[str, tuple[object, ...]]:
    """Return the form of the value of each option by its longest flag: options of one name may take different values."""
    return {max(option.opts, key=len): (option.metavar, option.is_flag) for option in _options(command)}


def _options(command: click.Command) -> list[click.Option]:
    return [parameter for parameter in command.params if isinstance(parameter, click.Option) and not parameter.hidden]
