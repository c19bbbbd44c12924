"""Options that were renamed or moved: refused as a usage error that gives the new name, wherever they are set."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from flowkit.cli.main import flowkit
from flowkit.cli.shared.old_options import OLD_OPTIONS, Old

CASES = [(command, old) for command, options in OLD_OPTIONS.items() for old in options]
ARGUMENTS = {"extract": ["."], "evaluate": [], "export": ["--layout", "rawframes", "--output", "out"], "convert": ["default", "out.onnx"]}
FOUR_WAYS = ["flag", "key", "section key", "variable of the command", "variable"]
everywhere = pytest.mark.parametrize(("command", "old"), CASES, ids=[f"{command} {old.flag}" for command, old in CASES])


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run_with(command: str, old: Old, where: str, monkeypatch: pytest.MonkeyPatch, *, value: str = "x") -> tuple[int, str]:
    """Set an old option in one of the ways and return the command's exit code and what it printed to stderr."""
    name, flag = old.flag.removeprefix("--"), [old.flag] if old.is_flag else [old.flag, value]
    value = "true" if old.is_flag else f"'{value}'"
    if where == "key":
        Path("flowkit.toml").write_text(f"{name} = {value}\n")
    elif where == "section key":
        Path("flowkit.toml").write_text(f"[{command}]\n{name} = {value}\n")
    elif where.startswith("variable"):
        middle = f"{command}_" if where.endswith("command") else ""
        monkeypatch.setenv(f"FLOWKIT_{middle}{name}".upper().replace("-", "_"), value.strip("'"))
    result = CliRunner().invoke(flowkit, [command, *ARGUMENTS[command], *(flag if where == "flag" else [])])
    return result.exit_code, result.stderr


@everywhere
@pytest.mark.parametrize("where", FOUR_WAYS)
def test_an_old_option_is_refused_with_its_new_name(command: str, old: Old, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    code, err = run_with(command, old, where, monkeypatch)
    refusal = f"{old.flag} is no longer an option of flowkit {command}: {old.advice}"
    if old.only_here and where in ("key", "variable"):  # meant for the other commands, which still have it
        assert refusal not in err
    else:
        # What a file may not set at all is said first.
        assert (code, refusal in err or "a file may not set this option" in err) == (2, True)


@pytest.mark.parametrize("command", ["train", "ablate"])
@pytest.mark.parametrize("where", FOUR_WAYS)
def test_the_recipe_paper_is_refused_with_its_new_name(command: str, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ARGUMENTS, command, ["all"] if command == "ablate" else [])
    code, err = run_with(command, Old("--recipe", ""), where, monkeypatch, value="paper")
    assert (code, "'paper' is now called 'official'" in err) == (2, True)


@everywhere
def test_help_does_not_show_an_old_option(command: str, old: Old) -> None:
    shown = CliRunner().invoke(flowkit, [command, "--help"]).output
    assert not [line for line in shown.splitlines() if line.strip().split(" ")[0] == old.flag]


def test_the_advice_names_options_and_commands_that_exist() -> None:
    assert [old.advice for _, old in CASES] == [
        "write --fail-on-damaged",
        "leave it out: scores.h5 is always written",
        *["networks are written by `flowkit convert RUN|FILE OUT.safetensors|OUT.onnx`"] * 4,
        "write `flowkit convert RUN|FILE OUT`",
        *["write the run's name, or the file, before OUT: `flowkit convert RUN|FILE OUT`"] * 2,
    ]
    assert "--fail-on-damaged" in CliRunner().invoke(flowkit, ["extract", "--help"]).output
    help_text = CliRunner().invoke(flowkit, ["convert", "--help"]).output
    assert "RUN|FILE OUT" in help_text


@pytest.mark.parametrize("where", ["flag", "key", "section key", "variable"])
def test_a_shard_size_without_a_unit_is_refused_by_export_and_names_the_unit(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, err = run_with("export", Old("--shard-size", ""), where, monkeypatch)
    assert "'x' is not a size such as 500MB or 1GiB" in err
    result = CliRunner().invoke(flowkit, ["export", *ARGUMENTS["export"], "--shard-size", "512"])
    assert result.exit_code == 2
    assert "'512' has no unit: write 512MiB" in result.stderr
