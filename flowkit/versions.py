"""The version of flowkit, and the versions of the software that shapes its results."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

__version__ = "0.1.0"


def installed_version(name: str) -> str | None:
    """Return the version of an installed distribution, or None where it is missing."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def software_versions() -> dict[str, str]:
    """Return the versions of what shapes the data: flowkit, Python and the libraries that decode, solve and pack."""
    names = ("av", "h5py", "hdf5plugin", "numba", "numpy", "opencv-contrib-python-headless", "opencv-contrib-python")
    installed = {name: found for name in names if (found := installed_version(name)) is not None}
    return {"flowkit": __version__, "python": platform.python_version(), **installed}
