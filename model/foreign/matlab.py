"""MATLAB files (MAT v5, v6, v7 and v7.3) as foreign data: a bounded reader of structs, cells, text and numbers.

Nothing in a file is evaluated. What this reader does not know (function handles, objects, sparse and complex arrays) is never looked
into: it becomes `Unread`. scipy's reader is not used, because it crashes on hostile files and puts no limit on what they unpack to.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from pathlib import Path

from flowkit.files import open_without_waiting
from flowkit.model.foreign.matlab_v5 import read_v5
from flowkit.model.foreign.matlab_v73 import read_v73
from flowkit.model.foreign.matlab_values import Budget, Limits, MatlabValue

_HEADER_BYTES = 128
_MOST_FILE_BYTES = 4 << 30
_V73 = b"\x00\x02"  # the version, in a little-endian header


def read_matlab(path: Path, names: Collection[str], limits: Limits | None = None) -> dict[str, MatlabValue]:
    """Read variables of a MATLAB file.

    Parameters
    ----------
    path : Path
        A file of MAT version 5 to 7.3.
    names : collection of str
        The variables to read; the others are skipped unread. A name that the file lacks is missing from the result.
    limits : Limits, optional
        Bounds on memory, number of elements and depth.

    Returns
    -------
    dict
        The value of each variable found.

    Raises
    ------
    CheckpointError
        If the file is no MATLAB file, is damaged, or passes a limit.
    OSError
        If the file cannot be read.

    Notes
    -----
    The formats are those of MathWorks' "MAT-File Format" (versions 5 to 7) and HDF5 with MATLAB's attributes (7.3). In versions 5 to 7
    only compressed variables (version 7) have a checksum.
    """
    budget = Budget(path, limits or Limits())
    with open(path, "rb", opener=open_without_waiting) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            budget.refuse("not a regular file")
        if status.st_size > _MOST_FILE_BYTES:
            budget.refuse(f"too large ({status.st_size} bytes; the limit is {_MOST_FILE_BYTES})")
        header = file.read(_HEADER_BYTES)
        if len(header) < _HEADER_BYTES or header[126:128] not in (b"IM", b"MI"):
            budget.refuse("not a MATLAB file of version 5 or later (its header is missing)")
        if header.startswith(b"MATLAB 7.3") or (header[126:128] == b"IM" and header[124:126] == _V73):
            return read_v73(path, names, budget)
        return read_v5(file, status.st_size, "<" if header[126:128] == b"IM" else ">", names, budget)
