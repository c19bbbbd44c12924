"""Writers of MATLAB files for tests, of versions 5 to 7 and of 7.3.

A value is a `dict` (scalar struct), a `list` of dicts with the same keys (struct array), a `tuple` (cell array, 1 x n), a `str`, or a
NumPy array (float32, float64, bool or integers).
"""

from __future__ import annotations

import struct
import zlib
from itertools import count
from pathlib import Path
from typing import Any

import h5py
import numpy as np

CLASSES = {"f8": 6, "f4": 7, "i1": 8, "u1": 9, "i2": 10, "u2": 11, "i4": 12, "u4": 13, "i8": 14, "u8": 15}
STORED = {"i1": 1, "u1": 2, "i2": 3, "u2": 4, "i4": 5, "u4": 6, "f4": 7, "f8": 9, "i8": 12, "u8": 13}
NAMES = {"f8": "double", "f4": "single", **{f"{s}{n}": f"{'u' * (s == 'u')}int{8 * n}" for s in "iu" for n in (1, 2, 4, 8)}}


def write_v5(path: Path, variables: dict[str, Any], *, compress: bool = True, order: str = "<") -> Path:
    """Write a file of version 7 (compressed) or 5."""
    path.write_bytes(header(order) + b"".join(variable(name, value, compress=compress, order=order) for name, value in variables.items()))
    return path


def header(order: str = "<", version: bytes = b"\x00\x01") -> bytes:
    text = b"MATLAB 5.0 MAT-file, Platform: GLNXA64".ljust(124)
    return text + (version + b"IM" if order == "<" else version[::-1] + b"MI")


def variable(name: str, value: Any, *, compress: bool, order: str = "<") -> bytes:
    data = array(value, name, order)
    if compress:
        packed = zlib.compress(data)
        return struct.pack(order + "II", 15, len(packed)) + packed
    return data


def element(kind: int, data: bytes, order: str = "<") -> bytes:
    """Return one tagged element, in the small form where it fits, as MATLAB writes it."""
    if 0 < len(data) <= 4 and kind != 14:
        return struct.pack(order + "I", len(data) << 16 | kind) + data.ljust(4, b"\0")
    return struct.pack(order + "II", kind, len(data)) + data + b"\0" * (-len(data) % 8)


def array(value: Any, name: str = "", order: str = "<") -> bytes:
    """Return the element of one array."""

    def integers(*numbers: int) -> bytes:
        return element(5, struct.pack(f"{order}{len(numbers)}i", *numbers), order)

    def head(kind: int, shape: tuple[int, ...], flags: int = 0) -> bytes:
        return element(6, struct.pack(order + "II", kind | flags, 0), order) + integers(*shape) + element(1, name.encode(), order)

    if isinstance(value, tuple):
        return element(14, head(1, (1, len(value)) if value else (0, 0)) + b"".join(array(part, "", order) for part in value), order)
    if isinstance(value, dict | list):
        items = [value] if isinstance(value, dict) else value
        fields = list(items[0]) if items else []
        width = max((len(field) for field in fields), default=0) + 1
        names = integers(width) + element(1, b"".join(field.encode().ljust(width, b"\0") for field in fields), order)
        return element(14, head(2, (1, len(items))) + names + b"".join(array(item[f], "", order) for item in items for f in fields), order)
    if isinstance(value, str):
        codes = value.encode("utf-16-le" if order == "<" else "utf-16-be")
        return element(14, head(4, (1, len(codes) // 2) if value else (0, 0)) + element(4, codes, order), order)
    numbers = np.atleast_2d(np.asarray(value))
    is_logical = numbers.dtype == bool
    if is_logical:
        numbers = numbers.astype("u1")
    kind = numbers.dtype.str[1:]
    stored = kind
    if kind == "f8" and numbers.size and np.all(np.isin(numbers, range(256))):  # MATLAB stores whole numbers in fewer bytes
        stored = "u1"
    data = numbers.astype(np.dtype(order + stored)).tobytes(order="F")
    return element(14, head(CLASSES[kind], numbers.shape, 0x200 * is_logical) + element(STORED[stored], data, order), order)


def write_v73(path: Path, variables: dict[str, Any]) -> Path:
    """Write a file of version 7.3."""
    with h5py.File(path, "w", userblock_size=512) as file:
        file.create_group("#refs#")
        numbers = count()
        for name, value in variables.items():
            put(file, file, name, value, numbers)
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
    return path


def put(file: h5py.File, group: h5py.Group, name: str, value: Any, numbers: count[int]) -> Any:
    """Store a value under a name and return its object."""

    def referred(items: Any) -> Any:
        return np.array([put(file, file["#refs#"], f"r{next(numbers)}", item, numbers).ref for item in items], h5py.ref_dtype)

    kind = "struct"
    if isinstance(value, list) and len(value) == 1:
        value = value[0]  # version 7.3 stores a struct array of one element as a scalar struct
    if isinstance(value, dict):
        node = group.create_group(name)
        for field, part in value.items():
            put(file, node, field, part, numbers)
    elif isinstance(value, list) and value:
        node = group.create_group(name)
        for field in value[0]:
            node[field] = referred(item[field] for item in value)[:, None]
    elif len(value) == 0 if isinstance(value, list | tuple | str) else np.size(value) == 0:
        kind = (
            "struct" if isinstance(value, list) else "cell" if isinstance(value, tuple) else "char" if isinstance(value, str) else "double"
        )
        node = group.create_dataset(name, data=np.zeros(2, "u8"))
        node.attrs["MATLAB_empty"] = np.uint8(1)
    elif isinstance(value, tuple):
        kind, node = "cell", group.create_dataset(name, data=referred(value)[:, None])
    elif isinstance(value, str):
        codes = np.frombuffer(value.encode("utf-16-le"), "<u2")
        kind, node = "char", group.create_dataset(name, data=codes[:, None])
    else:
        array = np.atleast_2d(np.asarray(value))
        kind = "logical" if array.dtype == bool else NAMES[array.dtype.str[1:]]
        node = group.create_dataset(name, data=array.T.astype("u1") if kind == "logical" else array.T)
    node.attrs["MATLAB_class"] = np.bytes_(kind)
    return node
