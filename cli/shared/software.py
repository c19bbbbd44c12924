"""What must be installed, and what may be: for ``doctor``, and for the commands whose worker processes would all fail without it."""

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
OPENCVS = (OPENCV, "opencv-contrib-python", "opencv-python-headless", "opencv-python")  # all of them own the folder cv2/


class SoftwareError(FlowkitError, ImportError):
    """A package that flowkit needs is missing or broken."""


@dataclass(frozen=True)
class Package:
    """A distribution that flowkit uses: the module to import, the oldest version that will do, and its purpose."""

    module: str
    oldest: str
    purpose: str
    extra: str = ""  # the extra of flowkit's that brings it; none: flowkit cannot do without


# As in pyproject.toml; a test compares them.
PACKAGES = {
    "numpy": Package("numpy", "1.26", "arrays"),
    "av": Package("av", "17", "decoding"),
    OPENCV: Package("cv2", "4.10", "resizing, JPEG"),
    "numba": Package("numba", "0.61", "TV-L1 on the CPU"),
    "h5py": Package("h5py", "3.16", "shards"),  # older ones carry an HDF5 with known holes in reading foreign files
    "hdf5plugin": Package("hdf5plugin", "5", "the zstd codec"),
    "joblib": Package("joblib", "1.4", "worker processes"),
    "torch": Package("torch", "2.9", "the network"),
    "torchvision": Package("torchvision", "0.24", "ImageNet weights"),
    "safetensors": Package("safetensors", "0.5", "weights files"),
    "matplotlib": Package("matplotlib", "3.8", "pictures of a report"),
    "jinja2": Package("jinja2", "3.1", "the report's page"),
    "pillow": Package("PIL", "10", "images of other tools"),
    "click": Package("click", "8.1", "the command line"),
    "rich": Package("rich", "13", "progress"),
    "cuda-core": Package("cuda.core", "0.5", "flow on an NVIDIA GPU", "cuda"),
    "dask": Package("distributed", "2025.1", "extract --cluster", "cluster"),
    "onnx": Package("onnx", "1.17", "export --model onnx", "onnx"),
    "onnxruntime": Package("onnxruntime", "1.20", "export --model onnx", "onnx"),
    "tensorboard": Package("tensorboard", "2.16", "train --tensorboard", "tensorboard"),
    "scikit-learn": Package("sklearn", "1.5", "fuse --method svm", "svm"),
}


def check_opencv() -> None:
    """Before worker processes start: warn of an OpenCV that is about to break, refuse one that is broken.

    Raises
    ------
    SoftwareError
        If OpenCV cannot be used; with the line that mends it.
    """
    problem = opencv_problem()
    if not problem:
        return
    try:
        import cv2

        cv2.resize  # noqa: B018 - what is left of two distributions when one is removed can be imported, and is empty
    except (ImportError, AttributeError) as error:
        raise SoftwareError(problem) from error
    warn(f"warning: {show(problem)}")


def opencv_problem() -> str:
    """Tell what is wrong with OpenCV, and the line that mends it.

    Its distributions share one folder: the last one installed wins, and removing one breaks the others.
    """
    installed = [name for name in OPENCVS if installed_version(name)]
    mend = f"{PIP} uninstall -y {' '.join(OPENCVS)} && {PIP} install {OPENCV}"
    if len(installed) > 1:
        return f"{len(installed)} OpenCV distributions share one folder ({', '.join(installed)}): {mend}"
    try:
        import cv2
    except ImportError as error:
        return f"OpenCV cannot be imported ({error}): {mend}"
    if not hasattr(cv2, "optflow"):
        return f"this OpenCV lacks the contrib modules (cv2.optflow), or is there in part only: {mend}"
    if installed and _numbers(found := installed_version(installed[0]) or "") < _numbers(PACKAGES[OPENCV].oldest):
        return f"{installed[0]} {found} is too old: {mend}"
    return ""


def package_problem(name: str) -> str:
    """Tell what is wrong with a package: missing, too old or broken; an extra that is missing is no problem."""
    package, found = PACKAGES[name], installed_version(name)
    mend = f"{PIP} install '{name}>={package.oldest}'"
    if found is None:
        return "" if package.extra else f"{name} is missing ({package.purpose}): {mend}"
    if _numbers(found) < _numbers(package.oldest):
        return f"{name} {found} is too old ({package.purpose}): {mend}"
    try:
        import_module(package.module)
    except Exception as error:  # whatever a broken installation raises; torchvision RuntimeError, beside a torch that is not its own
        pair = "torch torchvision, or the CPU builds of both" if name in ("torch", "torchvision") else f"'{name}>={package.oldest}'"
        return f"{name} cannot be imported ({type(error).__name__}: {error}): {PIP} install --force-reinstall {pair}"
    return ""


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])
