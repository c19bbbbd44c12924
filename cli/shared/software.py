"""The packages that flowkit needs or can use: for ``doctor``, and for commands whose workers would all fail without them."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from flowkit.cli.shared.console import show, warn
from flowkit.errors import FlowkitError
from flowkit.versions import installed_version

PIP = f"{Path(sys.executable).name} -m pip"

OPENCV = "opencv-contrib-python-headless"
OPENCVS = (OPENCV, "opencv-contrib-python", "opencv-python-headless", "opencv-python")  # all of them install the folder cv2/


class SoftwareError(FlowkitError, ImportError):
    """A package that flowkit needs is missing or broken."""


@dataclass(frozen=True)
class Package:
    """A distribution that flowkit uses: the module to import, the oldest version that works, and its purpose."""

    module: str
    oldest: str
    purpose: str
    extra: str = ""  # the extra of flowkit that installs it; empty: flowkit always needs it


# As in pyproject.toml; a test compares them.
PACKAGES = {
    "numpy": Package("numpy", "1.26", "arrays"),
    "av": Package("av", "17", "decoding"),
    OPENCV: Package("cv2", "4.10", "resizing, JPEG"),
    "numba": Package("numba", "0.61", "TV-L1 on the CPU"),
    "h5py": Package("h5py", "3.16", "shards"),  # older versions contain an HDF5 with known security holes in reading untrusted files
    "hdf5plugin": Package("hdf5plugin", "5", "the zstd codec"),
    "joblib": Package("joblib", "1.4", "worker processes"),
    "torch": Package("torch", "2.9", "the network"),
    "torchvision": Package("torchvision", "0.24", "ImageNet weights"),
    "safetensors": Package("safetensors", "0.5", "weights files"),
    "matplotlib": Package("matplotlib", "3.8", "pictures of a report"),
    "jinja2": Package("jinja2", "3.1", "pages of reports and galleries"),
    "pillow": Package("PIL", "10", "images of other tools, and pictures of reports and galleries"),
    "click": Package("click", "8.1", "the command line"),
    "rich": Package("rich", "13", "progress"),
    "cuda-core": Package("cuda.core", "0.5", "flow on an NVIDIA GPU", "cuda"),
    "dask": Package("distributed", "2025.1", "extract --cluster", "cluster"),
    "onnx": Package("onnx", "1.17", "convert RUN OUT.onnx", "onnx"),
    "onnxruntime": Package("onnxruntime", "1.20", "convert RUN OUT.onnx", "onnx"),
    "tensorboard": Package("tensorboard", "2.16", "train --tensorboard", "tensorboard"),
    "scikit-learn": Package("sklearn", "1.5", "fuse --method svm, features --of idt", "svm"),
}


def check_opencv() -> None:
    """Warn of an OpenCV that may break, and refuse one that is broken, before worker processes start.

    Raises
    ------
    SoftwareError
        If OpenCV cannot be used; the message has the command that fixes it.
    """
    problem = opencv_problem()
    if not problem:
        return
    try:
        import cv2

        cv2.resize  # noqa: B018 - if one of two distributions was removed, an empty module may remain
    except (ImportError, AttributeError) as error:
        raise SoftwareError(problem) from error
    warn(f"warning: {show(problem)}")


def opencv_problem() -> str:
    """Return what is wrong with OpenCV and the command that fixes it, or an empty text.

    Its distributions share one folder: the last one installed wins, and removing one breaks the others.
    """
    installed = [name for name in OPENCVS if installed_version(name)]
    fix = f"{PIP} uninstall -y {' '.join(OPENCVS)} && {PIP} install {OPENCV}"
    if len(installed) > 1:
        return f"{len(installed)} OpenCV distributions share one folder ({', '.join(installed)}): {fix}"
    try:
        import cv2
    except ImportError as error:
        return f"OpenCV cannot be imported ({error}): {fix}"
    if not hasattr(cv2, "optflow"):
        return f"this OpenCV lacks the contrib modules (cv2.optflow), or is incomplete: {fix}"
    if installed and _numbers(version := installed_version(installed[0]) or "") < _numbers(PACKAGES[OPENCV].oldest):
        return f"{installed[0]} {version} is too old: {fix}"
    return ""


def package_problem(name: str) -> str:
    """Return what is wrong with a package (missing, too old, broken), or an empty text; a missing extra is not a problem."""
    package, version = PACKAGES[name], installed_version(name)
    fix = f"{PIP} install '{name}>={package.oldest}'"
    if version is None:
        return "" if package.extra else f"{name} is missing ({package.purpose}): {fix}"
    if _numbers(version) < _numbers(package.oldest):
        return f"{name} {version} is too old ({package.purpose}): {fix}"
    try:
        import_module(package.module)
    except Exception as error:  # a broken installation may raise anything; torchvision raises RuntimeError if torch does not match it
        pair = "torch torchvision, or the CPU builds of both" if name in ("torch", "torchvision") else f"'{name}>={package.oldest}'"
        return f"{name} cannot be imported ({type(error).__name__}: {error}): {PIP} install --force-reinstall {pair}"
    return ""


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])
