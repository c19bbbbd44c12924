"""The command line as a whole: how errors of usage are explained."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from flowkit.children import leave_working_folder_out
from flowkit.cli.main import main


@pytest.mark.parametrize("command", ["predict", "extract", "import", "verify"])
@pytest.mark.parametrize("name", ["-J__x.mp4", "-Jabc", "--x.mp4"])
def test_a_name_that_begins_with_a_hyphen_is_explained(command: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, name])
    assert stop.value.code == 2
    assert f"To name the file '{name}', write './{name}', or '-- {name}' after all options." in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--vidoes", "--fps=3.5", "-Z"])
def test_an_unknown_option_is_not_explained_as_a_file(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["predict", option])
    assert stop.value.code == 2
    assert "To name the file" not in capsys.readouterr().err


def test_the_ways_that_are_named_do_name_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-J__x.h5").write_bytes(b"no clip")
    for arguments in (["./-J__x.h5"], ["--", "-J__x.h5"]):
        with pytest.raises(SystemExit):
            main(["verify", *arguments])
        assert "No such option" not in capsys.readouterr().err


def test_without_pythonpath_a_command_keeps_the_folders_that_an_installation_put_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An editable installation may name the working folder; an unset PYTHONPATH is no empty entry of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", {name: value for name, value in os.environ.items() if name != "PYTHONPATH"})
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), *sys.path])
    leave_working_folder_out()
    assert str(tmp_path) in sys.path
    assert "" not in sys.path
