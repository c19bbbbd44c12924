"""What gpu_suite.py says of the machine before it measures: the card, its driver, and the versions of the software."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

from flowkit.flow.cuda.compile import nvrtc_version
from flowkit.flow.cuda.device import list_devices
from flowkit.versions import __version__, installed_version

PACKAGES = (
    "cuda-core",
    "cuda-bindings",
    "torch",
    "torchvision",
    "numpy",
    "numba",
    "opencv-contrib-python-headless",
    "opencv-python-headless",
)
_MODULE = Path("/proc/driver/nvidia/version")


def describe(index: int) -> list[dict[str, str]]:
    """Return rows (what, value) about the machine and the GPU with this index."""
    info = list_devices()[index]
    capability = "".join(map(str, info.compute_capability))
    found = {name: version for name in PACKAGES if (version := installed_version(name))}
    major, minor = nvrtc_version()
    values = {
        "card": f"{info.name}, sm_{capability}, {info.num_multiprocessors} SMs, {info.card.clock_hz / 1e6:.0f} MHz at most, "
        f"{info.card.bytes_per_second / 1e9:.0f} GB/s, {info.total_bytes / 2**30:.0f} GiB",
        "driver": f"{driver_version(index)}, CUDA {_cuda_of_driver()}",
        "software": f"flowkit {__version__}{_commit()}, NVRTC {major}.{minor}, "
        + ", ".join(f"{name} {version}" for name, version in found.items()),
        "host": f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()} {platform.machine()}",
    }
    return [{"what": what, "value": value} for what, value in values.items()]


def driver_version(index: int) -> str:
    """Return the version of the NVIDIA driver, from nvidia-smi or the kernel's module; "of unknown version" if neither tells."""
    if program := shutil.which("nvidia-smi"):
        query = [program, f"--id={index}", "--query-gpu=driver_version", "--format=csv,noheader"]
        told = subprocess.run(query, capture_output=True, text=True, check=False, timeout=30).stdout.strip()
        if re.fullmatch(r"[\d.]+", told):
            return told
    if _MODULE.is_file() and (match := re.search(r"Kernel Module.*?\s{2}([\d.]+)\s", _MODULE.read_text())):
        return match[1]
    return "of unknown version"


def _cuda_of_driver() -> str:
    """Return the newest version of CUDA that the driver runs; it is loaded already."""
    from cuda.bindings import driver

    _, version = driver.cuDriverGetVersion()
    return f"{version // 1000}.{version % 1000 // 10}"


def _commit() -> str:
    """Return the commit of the sources in parentheses; an empty text where they are no repository."""
    told = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
    return f" ({told.stdout.strip()})" if told.returncode == 0 else ""
