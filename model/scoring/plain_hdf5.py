"""Arrays of foreign HDF5 files: only those that lie in the file itself, bounded, without filters that would load a plugin."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import FlowkitError

MAX_BYTES = 1 << 30  # of a file of scores, and of each array
_PLAIN_FILTERS = {1, 2, 3}  # gzip, shuffle and checksum: built into every HDF5


class NotPlainError(ValueError):
    """Part of an HDF5 file is missing, or is not what is read here."""


def group_of(file: Any, name: str) -> Any:
    """Return a group that is in this very file."""
    import h5py

    _check_link(file, name)
    if not isinstance(file[name], h5py.Group):
        raise NotPlainError(f"{name} is not a group")
    return file[name]


def read_data_set(group: Any, name: str, *, most_bytes: int = MAX_BYTES) -> NDArray[Any]:
    """Read a data set that is in this very file, has a bounded size, and no filter that would load a plugin."""
    import h5py

    _check_link(group, name)
    data_set = group[name]
    if not isinstance(data_set, h5py.Dataset) or data_set.is_virtual or data_set.external:
        raise NotPlainError(f"{name} is not a data set in the file itself")
    properties = data_set.id.get_create_plist()
    filters = {properties.get_filter(k)[0] for k in range(properties.get_nfilters())}
    if filters - _PLAIN_FILTERS:
        raise NotPlainError(f"{name} has HDF5 filters that are not supported here: {sorted(filters - _PLAIN_FILTERS)}")
    if data_set.shape is None or data_set.size * data_set.dtype.itemsize > most_bytes:
        raise NotPlainError(f"{name} is empty, or larger than {most_bytes} bytes")
    return np.asarray(data_set[()])


def format_of(path: Path) -> str:
    """Return the format that a file names in its root attribute ``format``; empty if it is no HDF5 file, or names none."""
    import h5py

    try:
        with h5py.File(path, "r", locking=False) as file:
            return text_of(file.attrs.get("format", ""))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        return ""


def text_of(value: object) -> str:
    """Return a text that may be stored as bytes."""
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _check_link(group: Any, name: str) -> None:
    import h5py

    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise NotPlainError(f"{name} is missing, or a link to elsewhere")


@contextmanager
def refusing(path: Path, kind: str, error: type[FlowkitError]) -> Iterator[None]:
    """Turn whatever a damaged file makes its reader raise into one clear error that names the file."""
    try:
        yield
    except (error, NotPlainError) as cause:
        raise cause if isinstance(cause, error) and str(path) in str(cause) else error(f"{path}: {cause}") from cause
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as cause:
        reason = " ".join(str(cause).split())[:300]
        raise error(f"{path} is damaged, or not {kind} ({reason})") from cause
