"""Options by environment and flowkit.toml: the command line takes precedence over both, and no key is ignored silently."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from flowkit.cli.main import COMMANDS, flowkit
from flowkit.cli.shared.old_options import OldOption
from flowkit.cli.shared.settings_file import setting_name


def chosen(command: str, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Return the parameters that a command line would run with, by the names of the settings."""
    loaded = flowkit.get_command(click.Context(flowkit), command)
    assert loaded is not None
    seen: dict[str, object] = {}
    monkeypatch.setattr(loaded, "callback", lambda **values: seen.update(values))
    assert flowkit.main(args=[command, *arguments], prog_name="flowkit", standalone_mode=False) is None
    return {setting_name(parameter): seen[str(parameter.name)] for parameter in loaded.params if parameter.name in seen}


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_option_has_the_two_names_of_its_flag_in_the_environment() -> None:
    for name in COMMANDS:
        command = flowkit.get_command(click.Context(flowkit), name)
        assert command is not None
        for option in command.params:
            if isinstance(option, click.Option):
                flag = max(option.opts, key=len).removeprefix("--").replace("-", "_").upper()
                shared = [] if isinstance(option, OldOption) and option.old.only_here else [f"FLOWKIT_{flag}"]
                assert option.envvar == [f"FLOWKIT_{name.upper()}_{flag}", *shared]


@pytest.mark.parametrize(
    ("command", "variable", "text", "setting", "value"),
    [
        ("info", "FLOWKIT_JSON", "1", "json", True),
        ("stats", "FLOWKIT_ALL", "1", "all", True),
        ("extract", "FLOWKIT_TVL1_LAMBDA", "0.3", "tvl1_lambda", 0.3),
        ("train", "FLOWKIT_STEPS_PER_PHASE", "7", "steps_per_phase", 7),
        ("extract", "FLOWKIT_EXTRACT_DATA", "elsewhere", "data", Path("elsewhere")),
    ],
)
def test_options_that_have_another_name_in_the_code_are_set_too(
    command: str, variable: str, text: str, setting: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, text)
    assert chosen(command, *(["."] if command == "extract" else []), monkeypatch=monkeypatch)[setting] == value
    monkeypatch.delenv(variable)
    key = variable.removeprefix("FLOWKIT_").removeprefix("EXTRACT_").lower().replace("_", "-")
    Path("flowkit.toml").write_text(f"[{command}]\n{key} = {text if setting not in ('json', 'all', 'data') else repr(text)}\n")
    assert chosen(command, *(["."] if command == "extract" else []), monkeypatch=monkeypatch)[setting] == value


def test_flag_then_environment_then_file_then_default(monkeypatch: pytest.MonkeyPatch) -> None:
    def jobs(*arguments: str) -> object:
        return chosen("extract", ".", *arguments, monkeypatch=monkeypatch)["jobs"]

    assert jobs() is None
    Path("flowkit.toml").write_text("jobs = 1\nsteps-per-phase = 3\n")  # that of another command is left to that command
    assert jobs() == 1
    Path("flowkit.toml").write_text("jobs = 1\n[extract]\njobs = 2\n[train]\ndepth = 50\n")
    assert jobs() == 2
    monkeypatch.setenv("FLOWKIT_JOBS", "3")
    assert jobs() == 3
    monkeypatch.setenv("FLOWKIT_EXTRACT_JOBS", "4")
    assert jobs() == 4
    assert jobs("--jobs", "5") == 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[extract]\nshortside = 32\n", "did you mean short-side"),
        ("shortside = 32\n", "no command has an option 'shortside'"),
        ("[extrakt]\njobs = 2\n", "no such command: extrakt"),
        ("extract = 2\n", "must be a table"),
        ("jobs = [1, 2]\n", "must be one value"),
        ("jobs = true\n", "not a valid integer"),
        ("[extract.jobs]\nn = 2\n", "must be one value"),
        ("jobs = \n", "not valid TOML"),
    ],
)
def test_an_invalid_settings_file_is_a_usage_error_that_names_the_key(text: str, said: str) -> None:
    Path("flowkit.toml").write_text(text)
    with pytest.raises(click.UsageError) as error:
        flowkit.main(args=["extract", ".", "--dry-run"], prog_name="flowkit", standalone_mode=False)
    assert said in error.value.format_message()


def test_lists_are_for_options_that_take_several(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("flowkit.toml").write_text('[train]\nset = ["lr=0.1", "batch=8"]\ntemporal-stages = [4, 5]\n')
    values = chosen("train", monkeypatch=monkeypatch)
    assert values["set"] == ("lr=0.1", "batch=8")
    assert values["temporal_stages"] == (4, 5)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["extract", "--bound", "0"], "quantiser bound must be a number"),
        (["extract", "--short-side", "8"], "short_side must be a whole number of at least 32 px, got 8"),
        (["extract", "--tvl1-tau", "nan"], "TV-L1 tau must be positive and finite, got nan"),
        (["import", "--tool", "denseflow", "--bound", "-1"], "quantiser bound must be a number"),
    ],
)
def test_a_setting_out_of_its_range_is_a_usage_error(tmp_path: Path, line: list[str], said: str) -> None:
    device = ["--device", "cpu"] if line[0] == "extract" else []
    result = CliRunner().invoke(flowkit, [line[0], str(tmp_path), *line[1:], "--data", str(tmp_path / "data"), *device])
    assert result.exit_code == 2
    assert said in result.stderr
    assert not (tmp_path / "data").exists()
