"""Nothing public is undocumented, and the pages name no option that does not exist."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import click
import pytest

import flowkit
from flowkit import model
from flowkit.cli.main import COMMANDS
from flowkit.cli.main import flowkit as group
from flowkit.cli.shared.option_sources import _OTHER_VARIABLES
from flowkit.cli.shared.settings_file import COMMAND_LINE_ONLY

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "systems").glob("*.md")]
# Options of other programs that the pages name.
FOREIGN = {
    *("--nproc-per-node", "--nnodes", "--rdzv-backend", "--rdzv-endpoint", "--max-restarts"),  # torchrun
    *("--nthreads", "--nworkers", "--resources", "--host", "--index-url", "--build-arg", "--logdir"),  # dask worker, pip, tensorboard
    "--lf",  # pytest
    *("--array", "--cpus-per-task", "--time", "--gres"),  # SLURM
}
MADE_BY_OTHERS = {"Clip"}  # classes that users get from a function and never construct


def commands() -> dict[str, click.Command]:
    with click.Context(group) as context:
        found = {name: group.get_command(context, name) for name in COMMANDS}
    return {name: command for name, command in found.items() if command is not None}


def options_of(command: click.Command) -> list[click.Option]:
    return [parameter for parameter in command.params if isinstance(parameter, click.Option)]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_help_text(name: str) -> None:
    for option in options_of(commands()[name]):
        assert option.hidden or len(option.help or "") > 15, option.opts


def pages_without_benchmark_scripts() -> list[Path]:
    """Pages whose options are those of flowkit; benchmarks and changes of the past have others."""
    return [page for page in PAGES if page.name not in ("CHANGELOG.md", "gpu.md")]


@pytest.mark.parametrize("page", pages_without_benchmark_scripts(), ids=lambda page: page.name)
def test_every_option_that_a_page_names_exists(page: Path) -> None:
    known = {
        flag
        for command in [group, *commands().values()]
        for option in options_of(command)
        for flag in (*option.opts, *option.secondary_opts)
    }
    named = re.findall(r"(?<![\w-])--[a-z][\w-]*[a-z0-9]", page.read_text(encoding="utf-8"))
    assert sorted({*named} - known - FOREIGN - {"--help"}) == []


def test_every_variable_of_the_environment_is_on_a_page() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES if page.name != "CHANGELOG.md")
    own = {f"FLOWKIT_{name}" for name in ("DATA", "RUNS", "REPORTS")} | _OTHER_VARIABLES
    assert sorted(name for name in own if name not in text) == []


def test_what_only_the_command_line_sets_is_on_the_page_of_the_commands() -> None:
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    names = {*COMMAND_LINE_ONLY} - {"resume"}  # the same option as restart
    assert sorted(name for name in names if f"`{name.replace('_', '-')}`" not in text) == []


def public() -> dict[str, Any]:
    """Return every public function, class, method and property by its name."""
    found: dict[str, Any] = {}
    for module in (flowkit, model):
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.ismodule(value) or name.startswith("__"):
                continue
            found[name] = value
            if inspect.isclass(value):
                found |= {f"{name}.{key}": item for key, item in vars(value).items() if not key.startswith("_") and is_method(item)}
    return found


def is_method(item: object) -> bool:
    return inspect.isfunction(item) or isinstance(item, (property, classmethod, staticmethod))


@pytest.mark.parametrize("name", public())
def test_every_public_name_and_each_of_its_parameters_is_described(name: str) -> None:
    item = public()[name]
    function = getattr(item, "__func__", item)
    text = inspect.getdoc(item.fget if isinstance(item, property) else function)
    assert text
    assert text[-1] == "." or "\n" in text
    is_error = inspect.isclass(item) and issubclass(item, BaseException)
    if "." in name or is_error or name in MADE_BY_OTHERS:  # the values of methods are clear from their names, or described there
        return
    parameters = [key for key in inspect.signature(function).parameters if key not in ("args", "kwargs")]
    described = re.findall(r"^((?:\w+(?:, )?)+) : ", text, re.MULTILINE)
    assert {*parameters} - {key for line in described for key in line.split(", ")} == set()
