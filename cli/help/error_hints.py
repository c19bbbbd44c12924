"""What the errors of the command line say beyond what was wrong: the flag instead of a name in the code, and what was probably meant."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

import click

_OUT_OF_RANGE = re.compile(r"(\S+) is not in the range (\S+?)\.\Z")
_RANGES = (
    (r"(\S+)<=x<=(\S+)", r"from \1 to \2"),
    (r"(\S+)<x<=(\S+)", r"above \1 and at most \2"),
    (r"(\S+)<x<(\S+)", r"above \1 and below \2"),
    (r"x>=(\S+)", r"at least \1"),
    (r"x>(\S+)", r"above \1"),
    (r"x<=(\S+)", r"at most \1"),
)
_MISSING = re.compile(r"(File|Directory|Path) '(.+)' does not exist\.\Z")
_IS_A_FILE = re.compile(r"Directory '(.+)' is a file\.\Z")
_MOST_CHARACTERS = 200  # of the arguments that a shell made of a pattern such as videos/*
_ONE_FOLDER = "VIDEOS is one folder with all that lies in it, one video, or a text file with the path of a video in each line."
_OF_ALL_COMMANDS = ("--debug", "--quiet", "--verbose", "-q", "-v")


def explained(error: click.ClickException) -> str:
    """Return what an error of click says, with what the user can do about it."""
    text = error.format_message()
    if isinstance(error, click.NoSuchOption) and error.option_name in _OF_ALL_COMMANDS and error.ctx is not None:
        return f"{text} It is an option of flowkit itself: `flowkit {error.option_name} {error.ctx.info_name} ...`"
    if text.startswith("Got unexpected extra argument"):
        of_extract = isinstance(error, click.UsageError) and error.ctx is not None and error.ctx.info_name == "extract"
        shown = text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]} ...)"
        return f"{shown}. {_ONE_FOLDER}" if of_extract else shown
    if match := _OUT_OF_RANGE.search(text):
        return f"{text[: match.start()]}It must be {_in_words(match[2])}, got {match[1]}."
    if match := _MISSING.search(text):
        near = near_path(Path(match[2]), folders_only=match[1] == "Directory")
        return f"{text} Did you mean {near!r}?" if near else text
    if match := _IS_A_FILE.search(text):
        return f"{text} Name the folder in which it lies: {os.path.dirname(match[1]) or '.'!r}."
    return text


def near_path(path: Path, *, folders_only: bool = False) -> str:
    """Return the path beside a missing one whose name is most like its name; empty if none is."""
    try:
        with os.scandir(path.parent) as entries:
            names = [entry.name for entry in entries if not folders_only or entry.is_dir()]
    except OSError:
        return ""
    close = get_close_matches(path.name, names, n=1)
    return str(path.parent / close[0]) if close else ""


def with_flags(message: str, options: Iterable[click.Parameter]) -> str:
    """Return the message of a setting that is out of its range with the flags of options instead of the settings' names.

    A name of several words, such as ``bn_group``, is replaced wherever it is; another only at the beginning.
    """
    for option in options:
        if not isinstance(option, click.Option) or option.hidden:
            continue
        flag, name = max(option.opts, key=len), str(option.name).removeprefix("tvl1_")
        for text in (f"TV-L1 {name}", f"quantiser {name}", name):
            word = re.escape(text)
            pattern = rf"(?<![\w'\".-]){word}(?![\w'\"=.-])" if "_" in text else rf"\A{word}\b"
            message = re.sub(pattern, flag, message)
    return message


def _in_words(text: str) -> str:
    for pattern, words in _RANGES:
        text = re.sub(pattern, words, text)
    return text
