"""Files of named arrays, such as a fitted encoder: safetensors with their provenance as JSON, written in one step, read as foreign data.

They hold numbers and text only, so reading one runs no code. Unlike the weights of networks they need no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import CheckpointError
from flowkit.files import read_file, write_atomically
from flowkit.records import canonical_json, parse_json
from flowkit.versions import __version__

MAX_BYTES = 1 << 30
MAX_HEADER_BYTES = 1 << 24


@dataclass(frozen=True)
class ArrayFormat:
    """The format of a file of arrays: its name and version, and how flowkit refuses a file that is not of this format.

    Parameters
    ----------
    name : str
        The value of ``format`` in the file's header.
    version : int
        The value of ``format_version``.
    what : str
        What the file holds, with its article: ``an encoder``.
    remedy : str
        What the user should do about a file that cannot be read, in the imperative.
    """

    name: str
    version: int
    what: str
    remedy: str

    def to_bytes(self, arrays: Mapping[str, NDArray[np.float64]], provenance: Mapping[str, Any]) -> bytes:
        """Return the bytes of a file. The same arrays and provenance give the same bytes."""
        from safetensors.numpy import save

        metadata = {
            "format": self.name,
            "format_version": str(self.version),
            "created_by": f"flowkit {__version__}",
            "provenance": canonical_json(provenance),
        }
        return with_sorted_header(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, metadata))

    def write(self, path: Path, arrays: Mapping[str, NDArray[np.float64]], provenance: Mapping[str, Any]) -> None:
        """Write a file; a reader sees either the one before or all of this one.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        write_atomically(path, self.to_bytes(arrays, provenance))

    def read(self, path: Path) -> tuple[dict[str, NDArray[np.float64]], dict[str, Any]]:
        """Return the arrays of a file, all of them float64 and finite, and its provenance.

        Raises
        ------
        CheckpointError
            If the file is missing, larger than 1 GiB, damaged, or of another format or version.
        """
        try:
            data = read_file(path, most_bytes=MAX_BYTES)
        except OSError as cause:
            raise CheckpointError(f"cannot read {path}: {cause.strerror}") from cause
        try:
            arrays, metadata = _parsed(data)
        except ValueError as cause:
            raise CheckpointError(f"{path} is damaged, or no safetensors file ({cause}); {self.remedy}") from cause
        if metadata.get("format") != self.name:
            raise CheckpointError(f"{path} does not hold {self.what} (its format is {metadata.get('format')!r:.60}); {self.remedy}")
        if metadata.get("format_version") != str(self.version):
            raise CheckpointError(
                f"{path} has format version {metadata.get('format_version')!r:.60}, but this flowkit reads version {self.version}; "
                f"use the flowkit that wrote it, or else {self.remedy}"
            )
        try:
            provenance = parse_json(metadata.get("provenance", ""))
        except ValueError as cause:
            raise CheckpointError(f"{path}: its provenance is not valid JSON ({cause}); {self.remedy}") from cause
        if not isinstance(provenance, dict):
            raise CheckpointError(f"{path}: its provenance is not a JSON object; {self.remedy}")
        for name, array in arrays.items():
            if array.dtype != np.float64 or not np.isfinite(array).all():
                raise CheckpointError(f"{path}: {name!r:.60} must hold finite numbers of 64 bits; {self.remedy}")
        return arrays, provenance


def with_sorted_header(data: bytes) -> bytes:
    """Return a safetensors file with the keys of its header sorted; the library writes the metadata in random order."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # tensors begin at a multiple of 8 bytes
    return len(header).to_bytes(8, "little") + header + data[end:]


def _parsed(data: bytes) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Return the arrays and the metadata of the bytes of a safetensors file; `ValueError` if they are not one."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    length = int.from_bytes(data[:8], "little")
    if length > MAX_HEADER_BYTES:
        raise ValueError("its header is too long")
    try:
        arrays = dict(load(data))  # checks that the header describes the bytes
    except (SafetensorError, ValueError, TypeError, KeyError) as cause:
        raise ValueError(f"{str(cause) or type(cause).__name__:.200}".splitlines()[0]) from cause
    return arrays, parse_json(data[8 : 8 + length]).get("__metadata__") or {}
