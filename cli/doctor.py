"""``flowkit doctor``: versions, devices, what is missing and what to do about it."""

from __future__ import annotations

import json
import platform
import sys
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any

import click

from flowkit import __version__
from flowkit.cli.console import say, show
from flowkit.cli.options import json_option

# package -> what flowkit needs it for
PACKAGES = {
    "numpy": "arrays",
    "av": "decoding",
    "opencv-contrib-python-headless": "resizing, JPEG",
    "numba": "TV-L1 on the CPU",
    "h5py": "shards",
    "hdf5plugin": "the zstd codec",
    "joblib": "worker processes",
    "torch": "the network",
    "torchvision": "ImageNet weights",
}
OPENCVS = ("opencv-contrib-python-headless", "opencv-contrib-python", "opencv-python-headless", "opencv-python")


@click.command()
@json_option
def doctor(as_json: bool) -> int:
    """Show versions and devices, and say what is missing and what to do. Exits 1 if something must be mended."""
    findings = examine()
    if as_json:
        say(json.dumps({"format": "flowkit-doctor", "format_version": 1, **findings}, indent=1))
        return 1 if findings["problems"] else 0
    say(f"flowkit {__version__}, Python {findings['python']}, {findings['machine']}, {findings['cores']} cores")
    for name, found in findings["packages"].items():
        say(f"  {name:32} {found or 'missing':16} {PACKAGES.get(name, '')}")
    for name, text in findings["devices"].items():
        say(f"  {name:32} {show(text)}")
    for problem in findings["problems"]:
        say(f"problem: {show(problem)}")
    say("all is well" if not findings["problems"] else f"{len(findings['problems'])} to mend")
    return 1 if findings["problems"] else 0


def examine() -> dict[str, Any]:
    """Return versions, devices and problems as built-in types."""
    from flowkit.parallel import num_cores

    problems: list[str] = []
    packages = {name: _version(name) for name in PACKAGES}
    opencvs = [name for name in OPENCVS if _version(name)]
    for name in opencvs:
        packages[name] = _version(name)
    if opencvs and not packages["opencv-contrib-python-headless"]:
        del packages["opencv-contrib-python-headless"]
    for name, found in packages.items():
        if not found:
            problems.append(f"{name} is missing ({PACKAGES[name]}): pip install {name}")
    problems.extend(_opencv_problems(opencvs))
    problems.extend(_h5py_problems())
    return {
        "flowkit": __version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "cores": num_cores(),
        "packages": packages,
        "devices": _devices(problems),
        "problems": problems,
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _opencv_problems(installed: list[str]) -> list[str]:
    """Two OpenCV distributions own the same folder, and the one installed last wins: say so, with the line that mends it."""
    pip = f"{Path(sys.executable).name} -m pip"
    mend = f"{pip} uninstall -y {' '.join(OPENCVS)} && {pip} install opencv-contrib-python-headless"
    if len(installed) > 1:
        return [f"{len(installed)} OpenCV distributions share one folder ({', '.join(installed)}): {mend}"]
    try:
        import cv2
    except ImportError as error:
        return [f"OpenCV cannot be imported ({error}): {mend}"]
    if not hasattr(cv2, "optflow"):
        return [f"this OpenCV has no contrib modules (cv2.optflow; the tests' reference TV-L1): {mend}"]
    return []


def _h5py_problems() -> list[str]:
    """Old h5py carries an HDF5 library with known holes in reading foreign files."""
    try:
        import h5py
    except ImportError as error:
        return [f"h5py cannot be imported ({error}): pip install 'h5py>=3.16'"]
    if tuple(int(part) for part in h5py.version.version.split(".")[:2]) < (3, 16):
        return [f"h5py {h5py.version.version} carries an HDF5 with known faults: pip install 'h5py>=3.16'"]
    return []


def _devices(problems: list[str]) -> dict[str, str]:
    """Describe the devices for flow and for training."""
    found = {}
    try:
        import torch

        names = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
        found["training"] = ", ".join(names) if names else "CPU (no CUDA device that torch can use)"
        import torchvision  # noqa: F401 - a torch and torchvision that do not match fail here
    except (ImportError, RuntimeError) as error:
        problems.append(
            f"torch and torchvision cannot be imported together ({error}): install a matching pair, pip install torch torchvision"
        )
    has_cuda_core = any(d.metadata["Name"] == "cuda-core" for d in distributions())
    found["flow"] = "CPU" + ("" if has_cuda_core else "; for an NVIDIA GPU: pip install 'flowkit-video[cuda]'")
    return found
