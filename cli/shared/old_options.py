"""Options that were renamed or moved: refused by their old name, with the new one, wherever they can be set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click
from click.core import ParameterSource


@dataclass(frozen=True)
class Old:
    """An option that a command once had."""

    flag: str
    advice: str  # what to write instead
    is_flag: bool = False
    only_here: bool = False  # other commands still have an option of this name, so what is set for all commands may be meant for them


_CONVERT = "networks are written by `flowkit convert RUN|FILE OUT.safetensors|OUT.onnx`"
OLD_OPTIONS = {
    "extract": [Old("--strict", "write --fail-on-damaged", is_flag=True)],
    "evaluate": [Old("--export-scores", "leave it out: scores.h5 is always written", is_flag=True)],
    "export": [
        Old("--model", _CONVERT),
        *(Old(flag, _CONVERT, only_here=True) for flag in ("--run", "--phase", "--checkpoint")),
    ],
    "convert": [
        Old("--output", "write `flowkit convert RUN|FILE OUT`", only_here=True),
        *(
            Old(flag, "write the run's name, or the file, before OUT: `flowkit convert RUN|FILE OUT`", only_here=True)
            for flag in ("--run", "--checkpoint")
        ),
    ],
}


class RenamedChoice(click.Choice[str]):
    """A choice of names, some of which replace older ones: an older name is a usage error that gives the new one."""

    def __init__(self, choices: Sequence[str], renamed: Mapping[str, str]) -> None:
        super().__init__(choices)
        self.renamed = renamed

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value in self.renamed:
            self.fail(f"{value!r} is now called {self.renamed[value]!r}.", param, ctx)
        return super().convert(value, param, ctx)


class OldOption(click.Option):
    """A hidden option that is a usage error when it is set."""

    def __init__(self, old: Old) -> None:
        super().__init__([old.flag], is_flag=old.is_flag, hidden=True, expose_value=False, is_eager=True, callback=self._refuse)
        self.old = old

    def _refuse(self, ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if ctx.get_parameter_source(str(self.name)) is not ParameterSource.DEFAULT:
            raise click.UsageError(f"{self.old.flag} is no longer an option of {ctx.command_path}: {self.old.advice}")


def add_old_options(name: str, command: click.Command) -> None:
    """Let a command refuse the options that it once had."""
    if not any(isinstance(parameter, OldOption) for parameter in command.params):
        command.params += [OldOption(old) for old in OLD_OPTIONS.get(name, ())]
