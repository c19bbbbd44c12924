"""No command, and no process that it starts, imports a module from the working folder, where the data of others may lie."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hostile_modules import write_hostile_modules
from small_videos import write_video

SMALL = ["--recipe", "small", "--base-width", "4", "--input-size", "32", "--batch", "4", "--bn-group", "2", "--steps-per-phase", "2"]
MODULE = [sys.executable, "-m", "flowkit.cli"]
# What `python -m` imports before flowkit can prevent it; PYTHONSAFEPATH=1 prevents it.
LOADED_BY_MINUS_M = "import runpy, pkgutil, sys; print(*sys.modules)"
SCRIPT = [sys.executable, "-c", "import sys; sys.path[0:1] = []; from flowkit.cli.main import main; main()"]


def run(*line: str, environment: dict[str, str]) -> str:
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a hostile folder the working folder; return the file in which its modules leave their marks."""
    folder, marker = tmp_path / "hostile", tmp_path / "marks"
    folder.mkdir()
    write_hostile_modules(folder, marker)
    monkeypatch.chdir(folder)
    for name in ("run", "walk"):
        for k in range(6):
            write_video(folder / "videos" / name / f"{k}.avi", 14, seed=k)
    return marker


def environment(path: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
@pytest.mark.parametrize("start", [SCRIPT, MODULE], ids=["script", "module"])
def test_extract_pack_verify_and_forecast_import_nothing_from_the_working_folder(hostile: Path, start: list[str]) -> None:
    if start is MODULE:
        loaded = subprocess.run([sys.executable, "-c", LOADED_BY_MINUS_M], capture_output=True, text=True, check=True, cwd=hostile.parent)
        for name in loaded.stdout.split():
            Path(f"{name}.py").unlink(missing_ok=True)
    custom = hostile.parent / "custom"
    custom.mkdir()
    (custom / "sitecustomize.py").write_text("import sys; sys.customised = True")
    here = environment(str(custom))
    extract = [*start, "extract", "videos", "--short-side", "32", "--jobs", "2", "--device", "cpu"]
    run(*extract, "--dry-run", environment=here)
    assert "12 done" in run(*extract, environment=here)
    run(*start, "pack", "--split", "1", environment=here)
    assert "no fault" in run(*start, "verify", "flowkit-data", environment=here)
    run(*start, "inspect", "run/0", environment=here)
    assert not Path("pickles").exists()
    assert not hostile.exists(), hostile.read_text()


@pytest.mark.parametrize("entries", ["", os.pathsep, ".", "../hostile", "custom"])
def test_children_find_no_module_through_empty_and_relative_entries_of_pythonpath(
    hostile: Path, monkeypatch: pytest.MonkeyPatch, entries: str
) -> None:
    """The parent is not this test's matter: Python itself has imported modules there before flowkit starts."""
    from flowkit.shards.verify import verify_files

    Path("custom").mkdir()
    monkeypatch.setenv("PYTHONPATH", entries)
    monkeypatch.setattr(sys, "path", ["", os.getcwd(), *sys.path])
    Path("x.h5").write_bytes(b"not HDF5")
    (checked,) = verify_files([Path("x.h5")])
    assert "is not an HDF5 file" in checked.problems[0].what
    assert not hostile.exists(), hostile.read_text()


@pytest.mark.slow
def test_no_command_imports_anything_from_the_working_folder(hostile: Path) -> None:
    here = environment("")
    flowkit = SCRIPT
    run(*flowkit, "extract", "videos", "--short-side", "32", "--jobs", "2", "--device", "cpu", environment=here)
    run(*flowkit, "pack", "--split", "1", environment=here)
    for line in (
        ["info", "flowkit-data"],
        ["stats"],
        ["inspect", "run/0"],
        ["verify", "flowkit-data"],
        ["train", *SMALL, "--workers", "2", "--phase", "motion", "--device", "cpu"],
        ["evaluate", "--workers", "1", "--device", "cpu"],
        ["predict", "videos/run/0.avi", "--device", "cpu"],
        ["export", "--output", "out", "--layout", "denseflow"],
        ["import", "out", "--data", "imported"],
        ["doctor"],
    ):
        run(*flowkit, *line, environment=here)
        assert not hostile.exists(), (line, hostile.read_text())
