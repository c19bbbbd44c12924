"""What MATLAB files hold, as Python sees it, and the bounds that both readers of such files keep."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import CheckpointError

MAX_DIMENSIONS = 8
MAX_TEXT = 1 << 20  # characters
MAX_NAME = 64  # bytes of a field's name


@dataclass(frozen=True)
class StructArray:
    """A MATLAB struct array, in MATLAB's column-major order; a scalar struct has one element.

    Parameters
    ----------
    elements : tuple of dict
        The value of each field by its name, for each element.
    """

    elements: tuple[Mapping[str, MatlabValue], ...]


@dataclass(frozen=True)
class CellArray:
    """A MATLAB cell array, in column-major order."""

    elements: tuple[MatlabValue, ...]


@dataclass(frozen=True)
class Unread:
    """A value that was not looked into.

    Parameters
    ----------
    kind : str
        What MATLAB calls it, such as ``function handle``.
    """

    kind: str


# Numbers and logicals are arrays of the type that MATLAB declares (not of the smaller one in which it may store whole numbers), in
# MATLAB's shape, whose trailing ones MATLAB drops down to two dimensions.
MatlabValue = StructArray | CellArray | Unread | str | NDArray[Any]


@dataclass(frozen=True)
class Limits:
    """What a file may ask for.

    Parameters
    ----------
    num_bytes : int
        Bytes of all values that are read, unpacked.
    num_elements : int
        Elements of structs and cells, fields included.
    depth : int
        Nesting of structs and cells.
    """

    num_bytes: int = 2 << 30
    num_elements: int = 1_000_000
    depth: int = 16


class Budget:
    """Counts what is read from one file, and refuses more than the limits allow."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path, self.limits = path, limits
        self._num_bytes = self._num_elements = 0

    def refuse(self, why: str) -> NoReturn:
        """Raise a `CheckpointError` that names the file."""
        raise CheckpointError(f"{self.path}: {why}")

    def take_bytes(self, count: int) -> None:
        """Count bytes before they are read or unpacked."""
        self._num_bytes += count
        if self._num_bytes > self.limits.num_bytes:
            self.refuse(f"its values unpack to more than {self.limits.num_bytes} bytes, which is the limit")

    def take_elements(self, count: int, depth: int) -> None:
        """Count elements of a struct or cell that lies `depth` levels deep, before they are read."""
        self._num_elements += count
        if self._num_elements > self.limits.num_elements:
            self.refuse(f"it has more than {self.limits.num_elements} structs, cells and fields, which is the limit")
        if depth > self.limits.depth:
            self.refuse(f"its structs and cells are nested more than {self.limits.depth} levels deep, which is the limit")

    def checked_shape(self, sides: Collection[int]) -> tuple[int, ...]:
        """Return the shape of an array as a tuple, refusing one that MATLAB does not write."""
        shape = tuple(int(side) for side in sides)
        if not 2 <= len(shape) <= MAX_DIMENSIONS or min(shape) < 0 or math.prod(shape) > self.limits.num_bytes:
            self.refuse(f"it has an array of {len(shape)} dimensions, {shape[:MAX_DIMENSIONS]}, which cannot be read")
        return shape


def text_of(codes: NDArray[Any], budget: Budget) -> str:
    """Return MATLAB's characters, as code units of UTF-16, as text."""
    if codes.size > MAX_TEXT:
        budget.refuse(f"it has a text of {codes.size} characters; the limit is {MAX_TEXT}")
    if codes.size and not 0 <= int(codes.min()) <= int(codes.max()) < 1 << 16:
        budget.refuse("it has a text with characters that are no UTF-16")
    return codes.astype("<u2").tobytes(order="F").decode("utf-16-le", "replace")


def empty_array() -> NDArray[np.float64]:
    """Return MATLAB's empty array, 0 x 0."""
    return np.zeros((0, 0))
