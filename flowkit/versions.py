"""The version of flowkit, and the versions of the software on which its results depend."""

from __future__ import annotations

import platform

__version__ = "0.1.0"


def installed_version(name: str) -> str | None:
    """Return the version of an installed distribution, or None if it is missing."""
    from importlib.metadata import PackageNotFoundError, version  # a third of the time that `import flowkit` would take

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def software_versions() -> dict[str, str]:
    """Return the versions of flowkit, Python and the libraries that decode videos, compute flow and write shards."""
    names = ("av", "h5py", "hdf5plugin", "numba", "numpy", "opencv-contrib-python-headless", "opencv-contrib-python")
    installed = {name: number for name in names if (number := installed_version(name)) is not None}
    return {"flowkit": __version__, "python": platform.python_version(), **installed}
