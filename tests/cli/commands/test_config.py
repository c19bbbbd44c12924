"""`flowkit config`, `completion`, variables that set nothing, and how much is printed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from flowkit.cli.commands.completion import _START
from flowkit.cli.main import flowkit
from flowkit.dataset.progress import ProgressBar, Verbosity, print_note, set_verbosity


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def normal_verbosity() -> Iterator[None]:
    yield
    set_verbosity(Verbosity.NORMAL)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(flowkit, arguments)


def test_each_value_is_shown_with_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("flowkit.toml").write_text("short-side = 128\n[extract]\nbound = 15\n[train]\nset = ['batch=4', 'lr=0.1']\n")
    monkeypatch.setenv("FLOWKIT_EXTRACT_SHORT_SIDE", "96")
    monkeypatch.setenv("FLOWKIT_JOBS", "3")
    result = run("config", "--json")
    assert result.exit_code == 0, result.output
    found = {(each["command"], each["option"]): (each["value"], each["source"]) for each in json.loads(result.stdout)["options"]}
    assert found["extract", "--short-side"] == ("96", "FLOWKIT_EXTRACT_SHORT_SIDE")
    assert found["extract", "--bound"] == ("15", "flowkit.toml")
    assert found["extract", "--jobs"] == found["verify", "--jobs"] == ("3", "FLOWKIT_JOBS")
    assert found["train", "--set"] == ("batch=4,lr=0.1", "flowkit.toml")
    assert found["extract", "--preset"] == ("opencv", "default")
    assert found["train", "--base-width"] == ("64; 16 in recipe small", "default")
    assert found["pack", "--move"] == ("no", "default")


def test_only_what_is_set_can_be_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("config", "--changed", "train").stdout == "Every option has its default.\n"
    monkeypatch.setenv("FLOWKIT_LR", "0.5")
    assert "| train   | --lr   |   0.5 | FLOWKIT_LR |" in run("config", "--changed", "train").stdout


def test_an_unknown_command_is_refused() -> None:
    result = run("config", "trian")
    assert result.exit_code == 2
    assert "no command 'trian'" in result.stderr


def test_a_variable_that_sets_no_option_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWKIT_EXTRACT_SHORTSIDE", "96")
    monkeypatch.setenv("FLOWKIT_DTAA", "x\x1b[2J")
    monkeypatch.setenv("FLOWKIT_DATA", "elsewhere")
    result = run("info")
    lines = result.stderr.splitlines()
    assert lines[0] == "warning: the environment variable FLOWKIT_DTAA sets no option of flowkit; did you mean FLOWKIT_DATA?"
    assert lines[1].endswith("FLOWKIT_EXTRACT_SHORTSIDE sets no option of flowkit; did you mean FLOWKIT_EXTRACT_SHORT_SIDE?")
    assert "'elsewhere' is not a data root" in str(result.exception)
    assert len(lines) == 2


def test_variables_of_the_command_itself_need_no_other_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATA", "INFO_JSON", "QUIET"):
        monkeypatch.setenv(f"FLOWKIT_{name}", "1")
    monkeypatch.setattr("flowkit.cli.main._all_commands", lambda _: pytest.fail("imports the modules of all commands"))
    result = run("info")
    assert result.stderr == ""
    assert "'1' is not a data root" in str(result.exception)


@pytest.mark.parametrize("shell", _START)
def test_completion_prints_a_script_with_where_to_put_it(shell: str) -> None:
    result = run("completion", shell)
    assert result.exit_code == 0
    assert result.stdout.startswith("# ")
    assert "_FLOWKIT_COMPLETE" in result.stdout


@pytest.mark.parametrize(
    ("verbosity", "shown"), [(Verbosity.QUIET, []), (Verbosity.NORMAL, ["note"]), (Verbosity.VERBOSE, ["work: 2 videos", "note"])]
)
def test_how_much_is_printed(
    verbosity: Verbosity, shown: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr("flowkit.dataset.progress.time.monotonic", lambda: now[0])
    set_verbosity(verbosity)
    bar = ProgressBar("work", unit="videos")
    now[0] += 2  # seconds, which is long for verbose progress only
    bar.update(2)
    print_note("note")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" in ")[0] for line in lines] == shown


def test_quiet_leaves_notes_out_and_keeps_results_and_errors(tmp_path: Path) -> None:
    result = run("--quiet", "info")
    assert "is not a data root" in str(result.exception)
    assert run("--quiet", "--verbose", "info").exit_code == 2


def test_verbose_says_which_options_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWKIT_DATA", "elsewhere")
    assert run("--verbose", "info").stderr.startswith("info: --data is elsewhere, from FLOWKIT_DATA\n")


def test_python_runs_the_package_too() -> None:
    done = subprocess.run([sys.executable, "-m", "flowkit", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("flowkit, version ")
