"""Options by environment and flowkit.toml: the command line takes precedence over both, and no key is ignored silently."""

from __future__ import annotations

import datetime
import socket
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from command_lines import run_flowkit

from flowkit.cli.main import COMMANDS, flowkit
from flowkit.cli.shared.old_options import OldOption
from flowkit.cli.shared.settings_file import COMMAND_LINE_ONLY, MAX_FILE_BYTES, NOT_FROM_FILE, checked, setting_name


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
                if setting_name(option) in COMMAND_LINE_ONLY:
                    assert option.envvar is None
                    continue
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
        ("[extrakt]\njobs = 2\n", "no such command: 'extrakt'"),
        ("extract = 2\n", "must be a table"),
        ("jobs = [1, 2]\n", "must be one value"),
        ("jobs = true\n", "not a valid integer"),
        ("[extract.jobs]\nn = 2\n", "must be one value"),
        ("jobs = \n", "not valid TOML"),
        ("no_flow = 3\n", "'3' is not a valid boolean"),
        ('[extract]\nvideos = "elsewhere"\n', "has no option 'videos'"),
        ('[convert]\ntarget = "of-somebody.safetensors"\n', "has no option 'target'"),
        ('target = "of-somebody.safetensors"\n', "no command has an option 'target'"),
    ],
)
def test_an_invalid_settings_file_is_a_usage_error_that_names_the_key(text: str, said: str) -> None:
    Path("flowkit.toml").write_text(text)
    command = "convert" if text.startswith("[convert]") else "extract"
    with pytest.raises(click.UsageError) as error:
        flowkit.main(args=[command, ".", "--dry-run"], prog_name="flowkit", standalone_mode=False)
    assert said in error.value.format_message()


def test_a_settings_file_of_a_windows_editor_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("flowkit.toml").write_bytes(b"\xef\xbb\xbf[extract]\r\njobs = 3\r\n")
    assert chosen("extract", ".", monkeypatch=monkeypatch)["jobs"] == 3


DEEP = 10_000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("jobs = " + "[" * DEEP + "]" * DEEP, "nested too deeply"),
        ("jobs = " + "{a=" * DEEP + "1" + "}" * DEEP, "nested too deeply"),
        ("[extract]\njobs." + "a." * DEEP + "a = 1\n", "must be one value"),
        ("jobs = " + "9" * 10_000, "not valid TOML"),
        ("a" * 10_000 + " = 1\n", "no command has an option"),
        ("jobs = 0x" + "f" * 10_000, "too large a number"),
        ('data = "a\\u0000b"\n', "NUL"),
        ("# " + "x" * MAX_FILE_BYTES, "too large"),
        ('"\\u001b[2J" = 1\n', "no command has an option"),
    ],
)
def test_a_hostile_settings_file_is_one_short_line(text: str, said: str) -> None:
    Path("flowkit.toml").write_text(text)
    with pytest.raises(click.UsageError) as error:
        flowkit.main(args=["extract", ".", "--dry-run"], prog_name="flowkit", standalone_mode=False)
    message = error.value.format_message()
    assert said in message
    assert len(message) < 500
    assert message.isprintable()


# Options that are switches or paths, and that neither delete nor replace, connect or overlook anything: a file may set them.
HARMLESS = {
    *("all", "changed", "checkpoint_activations", "common", "compile", "deep", "dry_run", "fail_on_damaged", "gallery", "json", "redraw"),
    *("average", "mirror", "no_flow", "report", "resize", "skip_cuts", "temporal_convolution", "tensorboard", "trajectories"),
    *("checkpoint", "classes", "data", "encoder", "frames", "lists", "order", "reports", "runs"),
    *("segments", "train", "videos"),
}


def options_of_all_commands() -> list[tuple[str, click.Option]]:
    context = click.Context(flowkit)
    commands = [(name, flowkit.get_command(context, name)) for name in COMMANDS]
    return [(name, option) for name, command in commands if command for option in command.params if isinstance(option, click.Option)]


def test_each_switch_and_path_of_each_command_may_be_set_by_a_file_or_not() -> None:
    """A new option of this kind must be added either to `NOT_FROM_FILE` or to `HARMLESS`: may somebody else's folder set it?"""
    for command, option in options_of_all_commands():
        name = setting_name(option)
        assert not (name in HARMLESS and name in NOT_FROM_FILE)
        if not isinstance(option, OldOption) and (option.is_flag or isinstance(option.type, click.Path)):
            assert name in HARMLESS or name in NOT_FROM_FILE, (command, name)


def test_what_only_the_command_line_may_set_is_refused_from_a_file_too() -> None:
    assert set(COMMAND_LINE_ONLY) <= set(NOT_FROM_FILE)


@pytest.mark.parametrize(
    ("command", "name"),
    sorted({(command, setting_name(option)) for command, option in options_of_all_commands() if setting_name(option) in NOT_FROM_FILE}),
)
@pytest.mark.parametrize("place", ["top", "table", "table of another command"])
def test_an_option_that_deletes_or_connects_is_refused_from_a_file_with_the_reason(command: str, name: str, place: str) -> None:
    table = "" if place == "top" else f"[{command}]\n"
    Path("flowkit.toml").write_text(f"{table}{name.replace('_', '-')} = false\n")
    with pytest.raises(click.UsageError) as error:
        flowkit.main(args=["info" if place == "table of another command" else command, "a"], prog_name="flowkit", standalone_mode=False)
    assert NOT_FROM_FILE[name] in error.value.format_message()
    assert error.value.exit_code == 2


@pytest.mark.parametrize(("command", "name"), [("train", "RESUME"), ("train", "TRAIN_RESUME"), ("demo", "OVERWRITE"), ("pack", "MOVE")])
def test_an_option_that_deletes_is_refused_from_the_environment(command: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"FLOWKIT_{name}", "0")
    with pytest.raises(click.UsageError, match="on the command line only"):
        flowkit.main(args=[command], prog_name="flowkit", standalone_mode=False)


def test_a_file_that_names_a_scheduler_connects_to_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        (tmp_path / "videos").mkdir()
        for text in (f'cluster = "{address}"\n', f'[extract]\ncluster = "{address}"\n', f'[extract]\nCLUSTER = "{address}"\n'):
            Path("flowkit.toml").write_text(text)
            ended = run_flowkit("extract", "videos")
            assert ended.code == 2
            assert "Traceback" not in ended.err
        with pytest.raises(TimeoutError):
            listener.accept()


def test_lists_are_for_options_that_take_several(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("flowkit.toml").write_text('[train]\nset = ["lr=0.1", "batch=8"]\ntemporal-stages = [4, 5]\n')
    values = chosen("train", monkeypatch=monkeypatch)
    assert values["set"] == ("lr=0.1", "batch=8")
    assert values["temporal_stages"] == (4, 5)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["extract", "--bound", "0"], "--bound must be a number"),
        (["extract", "--short-side", "8"], "--short-side must be a whole number of at least 32 px, got 8"),
        (["extract", "--tvl1-tau", "nan"], "--tvl1-tau must be positive and finite, got nan"),
        (["import", "--tool", "denseflow", "--bound", "-1"], "--bound must be a number"),
    ],
)
def test_a_setting_out_of_its_range_is_a_usage_error(tmp_path: Path, line: list[str], said: str) -> None:
    device = ["--device", "cpu"] if line[0] == "extract" else []
    result = CliRunner().invoke(flowkit, [line[0], str(tmp_path), *line[1:], "--data", str(tmp_path / "data"), *device])
    assert result.exit_code == 2
    assert said in result.stderr
    assert not (tmp_path / "data").exists()


_ODD_VALUES = (
    *(0, 1, -1, 2.5, float("nan"), float("inf"), True, False, "", "x", "yes", " ", "~", "\n", "a,b", "1,2", "=", "\udcff", "9" * 400),
    *(datetime.date(1979, 5, 27), datetime.time(1, 2), [1], ["a"], [], [[1]], {}, 10**400),
)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_value_of_any_type_is_read_or_refused_for_any_option(name: str) -> None:
    """Nothing that TOML can say reaches the code of an option in a type that no command line could give."""
    group = click.Context(flowkit)
    command = flowkit.get_command(group, name)
    assert command is not None
    for parameter in command.params:
        for value in _ODD_VALUES if isinstance(parameter, click.Option) else ():
            context = click.Context(command, parent=group)
            try:
                parameter.process_value(context, checked(value, parameter, "flowkit.toml"))
            except (click.UsageError, click.exceptions.Exit, OSError):
                continue
