"""Help pages: every option stands under a heading, defaults are values, examples are lines that the command takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
from phases import PHASES

from flowkit.cli.help.described_settings import default_text, described_settings, did_you_mean
from flowkit.cli.help.pages import COMMAND_GROUPS, EXAMPLES, HEADINGS, OTHER, PAGES, heading_of
from flowkit.cli.main import COMMANDS, flowkit
from flowkit.model.settings.recipes import RECIPE_NAMES, RecipeName
from flowkit.model.systems.configs import OVERRIDES, make_configs, phases_with


def command_of(name: str) -> click.Command:
    command = flowkit.get_command(click.Context(flowkit), name)
    assert command is not None
    return command


def shown_options(command: click.Command) -> list[click.Option]:
    return [option for option in command.params if isinstance(option, click.Option) and not option.hidden]


def help_of(name: str) -> str:
    command = command_of(name)
    return command.get_help(click.Context(command, info_name=name, terminal_width=200, max_content_width=200))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_stands_once_under_one_heading(name: str) -> None:
    """A new option needs an entry in `HEADINGS`."""
    text = help_of(name)
    for option in shown_options(command_of(name)):
        flag = max(option.opts, key=len)
        assert heading_of(name, option) != OTHER, flag
        rows = [line.split("  ")[1] for line in text.splitlines() if line.startswith("  -")]
        assert len([row for row in rows if flag in row.replace("/", " ").replace(",", " ").split()]) == 1, flag


def test_every_flag_of_a_heading_is_an_option() -> None:
    flags = {max(option.opts, key=len) for name in COMMANDS for option in shown_options(command_of(name))}
    assert {flag for heading in HEADINGS.values() for flag in heading} - flags == {"--help"}


@pytest.mark.parametrize("name", COMMANDS)
def test_no_placeholder_is_a_type_of_python_and_no_range_a_formula(name: str) -> None:
    text = help_of(name)
    assert not [word for word in ("INTEGER", "FLOAT", "RANGE", "TEXT", "x>=", "<=x", "the recipe's]", "the preset's]") if word in text]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_are_lines_that_the_command_takes(name: str) -> None:
    flags = {flag for option in shown_options(command_of(name)) for flag in (*option.opts, *option.secondary_opts)}
    for line in EXAMPLES[name]:
        words = shlex.split(line.partition("   ")[0], comments=True)
        if words[0] == "flowkit":
            assert words[1] == name
            assert {word for word in words[2:] if word.startswith("-")} <= flags
        else:
            assert f"flowkit {name}" in line
        assert line in help_of(name)


def test_every_command_is_in_one_group_and_names_a_page() -> None:
    grouped = [name for names in COMMAND_GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(COMMANDS)
    assert set(PAGES) == set(COMMANDS) == set(EXAMPLES)


DEPENDENT = {"steps", "lr", "schedule", "bn_renewal_steps", "temporal_pool"}  # on the data or the phase; help says it in words


@pytest.mark.parametrize("name", sorted({*OVERRIDES} - DEPENDENT))
@pytest.mark.parametrize("recipe", RECIPE_NAMES)
def test_the_default_that_help_shows_is_the_one_that_training_has(name: str, recipe: RecipeName) -> None:
    official, *others = default_text(name).split("; ")
    texts = {recipe: text for text, recipes in (re.split(" in recipes? ", other) for other in others) for recipe in recipes.split(" and ")}
    shown = texts.get(recipe, official).removesuffix(" by phase").split(", ")
    phases = PHASES if set(PHASES) & set(phases_with(name)) else phases_with(name)
    configs = make_configs(recipe, phases=phases, num_classes=5, num_videos=1000, short_side=256)
    values = [
        _typed(getattr(configs[phase].network if hasattr(configs[phase].network, name) else configs[phase], name)) for phase in phases
    ]
    if (recipe, name) == ("small", "input_size"):
        assert "at most 112" in texts[recipe]
        assert set(values) == {"112"}
    else:
        assert values == (shown * len(phases) if len(shown) == 1 else shown)


def _typed(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else str(value)


def test_every_setting_is_described() -> None:
    settings = described_settings()
    assert [setting.name for setting in settings] == OVERRIDES
    for setting in settings:
        assert setting.kind
        assert setting.meaning.endswith(".")
        assert setting.default


@pytest.mark.parametrize(
    ("name", "meant"), [("motion_dropuot", "motion_dropout"), ("bach", "batch"), ("temporal_strid", "temporal_pool_stride"), ("zzz", "")]
)
def test_a_misspelled_setting_is_asked_about(name: str, meant: str) -> None:
    question = did_you_mean(name)
    assert meant in question
    assert bool(question) == bool(meant)


@pytest.mark.parametrize(("typed", "meant"), [("extrct", "extract"), ("trian", "train"), ("qqqq", "")])
def test_a_misspelled_command_is_asked_about(typed: str, meant: str) -> None:
    with pytest.raises(click.UsageError) as error:
        flowkit.main(args=[typed], prog_name="flowkit", standalone_mode=False)
    said = error.value.format_message()
    assert said == f"No such command '{typed}'." + (f" Did you mean '{meant}'?" if meant else "")


def examples() -> list[tuple[str, str]]:
    """Return each command with each of its examples, without the remark after it."""
    return [(name, re.split(r"  +", line)[0]) for name, lines in EXAMPLES.items() for line in lines if line.startswith("flowkit ")]


@pytest.mark.parametrize(("name", "line"), examples())
def test_an_example_has_options_and_values_that_exist(name: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that an example names are there; nothing runs."""
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line)[2:]
    for word in words:
        path = tmp_path / word
        if word.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        elif "." in word and "=" not in word:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    command = flowkit.get_command(click.Context(flowkit), name)
    assert command is not None
    assert shlex.split(line)[1] == name
    command.make_context(name, words)
