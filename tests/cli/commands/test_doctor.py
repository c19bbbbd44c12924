"""The doctor's findings, and what commands say if software is missing or broken."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from command_lines import call_flowkit

from flowkit.cli.commands import doctor
from flowkit.cli.main import flowkit as command
from flowkit.cli.shared import software
from flowkit.errors import DeviceError
from flowkit.flow.cuda import device as cuda_device
from flowkit.flow.cuda.card import KNOWN_CARDS

ROOT = Path(__file__).resolve().parents[3]


def run(*line: object, broken: Path | None = None) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(str(part) for part in (broken, ROOT) if part)
    environment = os.environ | {"PYTHONPATH": path}
    return subprocess.run(
        [sys.executable, "-m", "flowkit.cli", *map(str, line)], capture_output=True, text=True, env=environment, timeout=300, check=False
    )


def break_module(folder: Path, name: str, code: str) -> Path:
    (folder / "broken").mkdir(exist_ok=True)
    (folder / "broken" / f"{name}.py").write_text(code)
    return folder / "broken"


def test_the_table_of_packages_is_that_of_pyproject() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has none")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {extra: lines for extra, lines in project["optional-dependencies"].items() if extra not in ("dev", "bench")}
    listed = [(line, "") for line in project["dependencies"] if not line.startswith("tomli")]
    listed += [(line, extra) for extra, lines in extras.items() for line in lines]
    declared = {}
    for line, extra in listed:
        name, oldest = re.fullmatch(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", line).groups()  # type: ignore[union-attr]
        declared[name] = (oldest, extra)
    assert {name: (package.oldest, package.extra) for name, package in software.PACKAGES.items()} == declared


def test_what_the_tests_need_includes_every_extra() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has none")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {line for extra, lines in extras.items() if extra != "bench" for line in lines} == set(extras["dev"])


def test_this_environment_has_no_problems() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages that import each other
        done = call_flowkit("doctor", "--json")
    findings = json.loads(done.out)
    assert (done.code, findings["problems"]) == (0, [])
    assert set(findings["packages"]) | set(findings["extras"]) >= set(software.PACKAGES) - {software.OPENCV}


def test_packages_that_cannot_be_imported_are_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    def import_module(name: str) -> None:
        if name == "av":
            raise ImportError("a library is missing")
        if name == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(software, "import_module", import_module)
    one, other = doctor.examine()["problems"]
    assert one.startswith("av cannot be imported (ImportError: a library is missing): ")
    assert one.endswith("-m pip install --force-reinstall 'av>=17'")
    assert other.startswith("torchvision cannot be imported (RuntimeError: operator torchvision::nms does not exist): ")
    assert "--force-reinstall torch torchvision" in other


def with_versions(monkeypatch: pytest.MonkeyPatch, **versions: str | None) -> None:
    """Let distributions have other versions, or be missing (``_`` for ``-``); import none."""
    monkeypatch.setattr(software, "import_module", lambda name: None)
    real = importlib.metadata.version

    def version(name: str) -> str:
        found = versions.get(name.replace("-", "_"), "") or (real(name) if name.replace("-", "_") not in versions else None)
        if found is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(importlib.metadata, "version", version)


def test_missing_and_old_packages_are_problems_and_missing_extras_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with_versions(monkeypatch, joblib=None, h5py="3.9.0", onnx=None)
    findings = doctor.examine()
    assert [problem.split(" (")[0] for problem in findings["problems"]] == ["h5py 3.9.0 is too old", "joblib is missing"]
    assert all(re.search(r"-m pip install '\w+>=[\d.]+'$", problem) for problem in findings["problems"])
    assert findings["extras"]["onnx"] is None
    text = CliRunner().invoke(command, ["doctor"], standalone_mode=False).stdout
    assert re.search(r"onnx +missing +convert RUN OUT\.onnx; pip install 'flowkit-video\[onnx\]'", text)


def test_two_opencvs_are_a_problem_and_extract_warns_of_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_versions(monkeypatch, opencv_python="5.0.0", opencv_contrib_python_headless="5.0.0")
    expected = "2 OpenCV distributions share one folder (opencv-contrib-python-headless, opencv-python): "
    assert [problem for problem in doctor.examine()["problems"] if problem.startswith(expected)]
    (tmp_path / "videos").mkdir()
    result = CliRunner().invoke(command, ["extract", str(tmp_path / "videos"), "--data", str(tmp_path / "data")], standalone_mode=False)
    assert f"warning: {expected}" in result.output
    assert "pip uninstall -y " in result.output


@pytest.mark.parametrize("code", ["raise ImportError('libGL.so.1: cannot open shared object file')", "imread = None"])
def test_a_broken_opencv_is_reported_once_with_the_command_that_fixes_it_before_anything_is_written(code: str, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(b"no video")
    done = run("extract", tmp_path / "videos", "--data", tmp_path / "data", broken=break_module(tmp_path, "cv2", code))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("flowkit: error: ")
    assert "pip install opencv-contrib-python-headless" in done.stderr
    assert not (tmp_path / "data").exists()


def test_any_other_package_that_cannot_be_imported_points_to_the_doctor(packed_root: Path, tmp_path: Path) -> None:
    done = run("info", packed_root / "shards/shard-00000.h5", broken=break_module(tmp_path, "h5py", "raise ImportError('libhdf5.so')"))
    expected = "flowkit: error: a package cannot be imported (libhdf5.so); `flowkit doctor` shows what is missing and how to fix it\n"
    assert (done.returncode, done.stderr) == (1, expected)


def gpus(monkeypatch: pytest.MonkeyPatch, *found: tuple[str, tuple[int, int]]) -> None:
    cards = [replace(KNOWN_CARDS[90], name=name) for name, _ in found]
    devices = tuple(cuda_device.DeviceInfo(k, name, capability, 1 << 34, 100, cards[k]) for k, (name, capability) in enumerate(found))
    monkeypatch.setattr(cuda_device, "list_devices", lambda: devices)


@pytest.mark.parametrize(("capability", "usable"), [((7, 5), True), ((9, 0), True), ((6, 1), False)])
def test_auto_chooses_a_gpu_only_if_the_solver_runs_on_it(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], usable: bool
) -> None:
    gpus(monkeypatch, ("a GPU", capability))
    monkeypatch.setattr(cuda_device, "supported_archs", lambda: (75, 80, 90))
    assert cuda_device.has_gpu() is usable


def test_the_doctor_names_the_gpus_of_flow_or_why_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with_versions(monkeypatch)
    gpus(monkeypatch, ("NVIDIA A", (8, 0)), ("NVIDIA B", (9, 0)))
    assert doctor.examine()["devices"]["flow"] == "NVIDIA A (cuda:0), NVIDIA B (cuda:1), CPU"

    def missing() -> Any:
        raise DeviceError("no driver")

    monkeypatch.setattr(cuda_device, "list_devices", missing)
    assert doctor.examine()["devices"]["flow"] == "CPU; no GPU: no driver"


def test_the_plan_of_a_card_that_is_not_here_has_a_line_for_each_level() -> None:
    done = CliRunner().invoke(command, ["doctor", "--plan", "340x256", "--card", "H200"], standalone_mode=False)
    assert done.return_value == 0
    head, *lines = done.stdout.splitlines()
    assert head == "TV-L1 of 340x256 px with default parameters on H200:"
    others = lines[lines.index("never chosen there:") + 1 :]
    lines = lines[: -len(others) - 1]
    assert any(
        "patches of 4x4, 3 per multiprocessor, constants in shared memory: its patches need more than the 168" in other for other in others
    )
    assert [line.split()[0] for line in lines] == ["340x256", "272x205", "218x164", "174x131", "139x105"]
    assert "3 iterations per launch in tiles of 64x32, patches of 4x2, 2 per multiprocessor, constants in registers: 16 warps" in lines[0]


def test_the_plan_of_this_machines_gpus_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = [cuda_device.DeviceInfo(0, "A", (7, 5), 1 << 34, 40, replace(KNOWN_CARDS[75], name="A"))]
    monkeypatch.setattr(cuda_device, "list_devices", lambda: devices)
    done = CliRunner().invoke(command, ["doctor", "--plan", "256x192", "--json"], standalone_mode=False)
    (plan,) = json.loads(done.stdout)["plans"]
    assert plan["card"] == "A"
    assert [(level["width"], level["height"]) for level in plan["levels"]] == [(256, 192), (205, 154), (164, 123), (131, 98), (105, 78)]
    assert any("which has 65,536" in other["reason"] for other in plan["never_chosen"])
    assert all(level["shared_bytes"] <= 64 << 10 and level["forecast_speed"] >= 1 for level in plan["levels"])


@pytest.mark.parametrize("size", ["340", "340x", "0x256", "340x256x3", "9999999x9"])
def test_a_frame_size_of_another_form_is_refused(size: str) -> None:
    with pytest.raises(click.BadParameter, match="is no frame size: write width and height in px, such as 340x256"):
        call_flowkit("doctor", "--plan", size)


def test_the_plan_of_small_frames_says_why_it_has_one_iteration_per_launch() -> None:
    done = CliRunner().invoke(command, ["doctor", "--plan", "47x33", "--card", "H200"], standalone_mode=False)
    assert done.stdout.count(" 1 iterations per launch in tiles of ") == 4
    assert "frames as small as these have one iteration per launch" in done.stdout
    assert "as small as" not in CliRunner().invoke(command, ["doctor", "--plan", "340x256", "--card", "H200"], standalone_mode=False).stdout


@pytest.mark.parametrize(("size", "message"), [("16385x32768", "too large for the GPU solver"), ("12x40", "at least 16 px")])
def test_a_frame_size_that_the_solver_refuses_is_a_usage_error(size: str, message: str) -> None:
    done = CliRunner().invoke(command, ["doctor", "--plan", size, "--card", "H200"])
    assert done.exit_code == 2
    assert message in done.output
