"""The command line as a whole: how errors of usage are explained."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from flowkit.children import leave_working_folder_out
from flowkit.cli.main import describe, main
from flowkit.dataset.example import example_root


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


@pytest.mark.parametrize("closed", [(2,), (0, 1, 2)])
def test_streams_that_are_closed_do_not_stop_a_command_and_lend_their_number_to_no_file(tmp_path: Path, closed: tuple[int, ...]) -> None:
    """Services and ``2>&-`` close streams; what a library prints would otherwise land in the file that is opened next."""
    script = (
        "import os, sys\n"
        "from flowkit.cli.shared.console import open_closed_streams, say, warn\n"
        "open_closed_streams()\n"
        "opened = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)\n"
        "os.write(1, b'of a library'), os.write(2, b'of a library'), say('text'), warn('text'), print('text'), sys.stdin.read(1)\n"
        "os.write(opened, b'only this')\n"
        "sys.exit(0 if opened > 2 else f'the file is number {opened}')\n"
    )
    path = tmp_path / "file"
    close = [partial(os.close, number) for number in closed]
    commands = ([sys.executable, "-c", script, str(path)], [sys.executable, "-m", "flowkit.cli", "config", "pack"])
    for command in commands:
        ended = subprocess.run(
            command,
            stdin=None if 0 in closed else subprocess.DEVNULL,
            stdout=None if 1 in closed else subprocess.PIPE,
            stderr=None if 2 in closed else subprocess.PIPE,
            preexec_fn=lambda: [each() for each in close],
            check=False,
        )
        assert ended.returncode == 0, ended
    assert path.read_bytes() == b"only this"


def test_an_error_of_a_full_disk_names_the_file_and_says_what_to_do() -> None:
    text = describe(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "clips/a.h5"))
    assert text.startswith("No space left on device: 'clips/a.h5'; ")
    assert "make space" in text
    assert describe(OSError(errno.ENOENT, os.strerror(errno.ENOENT), "a")) == "No such file or directory: 'a'"


@pytest.mark.parametrize(
    "arguments",
    [("extract", "videos", "--data", ""), ("extract", ""), ("pack", "--data="), ("predict", "a.mp4", "--output", ""), ("verify", "")],
)
def test_an_empty_path_is_refused_and_never_means_the_working_folder(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A shell makes one of a variable that is not set."""
    monkeypatch.chdir(tmp_path)
    Path("videos").mkdir()
    Path("a.mp4").touch()
    with pytest.raises(SystemExit) as stop:
        main([*arguments])
    assert stop.value.code == 2
    assert "it is empty" in capsys.readouterr().err
    assert sorted(os.listdir()) == ["a.mp4", "videos"]


def test_an_empty_path_in_the_settings_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("flowkit.toml").write_text("[info]\ndata = ''\n")
    with pytest.raises(SystemExit) as stop:
        main(["info"])
    assert stop.value.code == 2
    assert "it is empty" in capsys.readouterr().err


@pytest.mark.parametrize("way", ["option", "variable", "file"])
def test_the_home_folder_is_known_where_no_shell_writes_its_name(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder called ``~`` would be made instead, and whoever removes it by that name removes the home folder."""
    home = tmp_path / "home"
    shutil.copytree(example_root(), home / "root")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    if way == "variable":
        monkeypatch.setenv("FLOWKIT_DATA", "~/root")
    elif way == "file":
        Path("flowkit.toml").write_text("data = '~/root'\n")
    with pytest.raises(SystemExit) as stop:
        main(["info", *(["--data=~/root"] if way == "option" else [])])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith(f"{home / 'root'}: data root")


def test_a_locale_in_which_names_are_not_utf8_is_said_and_no_bug(tmp_path: Path) -> None:
    """Old clusters have such locales; Python reads names with the locale's encoding, unless it is in its UTF-8 mode."""
    root = shutil.copytree(example_root(), tmp_path / "data")
    command = [sys.executable, "-m", "flowkit.cli", "convert", "of-a-run", "\u00fc.onnx", "--data", str(root)]
    latin = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for variables, said in ((latin, True), ({"LC_ALL": "C", "PYTHONUTF8": "1"}, False)):
        ended = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, cwd=tmp_path, check=False)
        assert ended.returncode == 1, ended
        assert (b"set PYTHONUTF8=1" in ended.stderr) == said
        assert b"internal error" not in ended.stderr


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_a_settings_file_that_is_no_file_is_not_passed_over(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    if kind == "link":
        Path("flowkit.toml").symlink_to("gone.toml")
    else:
        Path("flowkit.toml").mkdir()
    with pytest.raises(SystemExit) as stop:
        main(["config", "pack"])
    assert stop.value.code == 2
    assert "flowkit.toml is no file" in capsys.readouterr().err
