"""MAT versions 5 to 7: a sequence of tagged elements, each variable compressed (version 7) or not."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Collection
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from flowkit.model.foreign.matlab_values import MAX_NAME, Budget, CellArray, MatlabValue, StructArray, Unread, empty_array, text_of

_MATRIX, _COMPRESSED = 14, 15  # types of elements that are no numbers
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8", 16: "u1", 17: "u2", 18: "u4"}
_UTF8 = 16
_CELL, _STRUCT, _CHAR = 1, 2, 4  # classes of arrays
_NUMERIC = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_UNREAD = {3: "object", 5: "sparse array", 16: "function handle", 17: "object"}
_COMPLEX = 0x0800
_NAME_BYTES = 4096  # of a variable: enough for its flags, dimensions and name
_PIECE_BYTES = 1 << 24


def read_v5(file: IO[bytes], num_bytes: int, order: str, names: Collection[str], budget: Budget) -> dict[str, MatlabValue]:
    """Read variables of a MAT v5, v6 or v7 file.

    Parameters
    ----------
    file : file
        Opened for reading, after its header of 128 bytes.
    num_bytes : int
        Size of the file.
    order : {"<", ">"}
        The byte order that the header gives.
    names : collection of str
        The variables to read.
    budget : Budget
        Counts what is read.
    """
    found: dict[str, MatlabValue] = {}
    while (at := file.tell()) < num_bytes:
        tag = file.read(8)
        if len(tag) < 8:
            budget.refuse("it is truncated")
        kind, size = struct.unpack(order + "II", tag)
        if at + 8 + size > num_bytes:
            budget.refuse("it is truncated")
        if kind == _COMPRESSED:
            start, inflate = _first_bytes(file, size, budget)
            name = _name(start[8:], order)
        else:
            start = file.read(min(size, _NAME_BYTES))
            name = _name(start, order) if kind == _MATRIX else ""
        if name in names:
            if name in found:
                budget.refuse(f"it has two variables {name!r}")
            if kind == _COMPRESSED:
                data = _inflated(inflate, start, file, size, order, budget)
            else:
                budget.take_bytes(size)
                data = memoryview(start + file.read(size - len(start)))
            found[name] = _Element(data, order, budget).value(0)
        file.seek(at + 8 + size)
    return found


def _first_bytes(file: IO[bytes], size: int, budget: Budget) -> tuple[bytes, Any]:
    """Unpack the start of a compressed variable; return it with the decompressor."""
    inflate = zlib.decompressobj()
    try:
        return inflate.decompress(file.read(min(size, _NAME_BYTES)), _NAME_BYTES), inflate
    except zlib.error as cause:
        budget.refuse(f"a compressed variable is damaged ({cause})")


def _inflated(inflate: Any, start: bytes, file: IO[bytes], size: int, order: str, budget: Budget) -> memoryview:
    """Unpack the rest of a compressed variable, piece by piece, and return what its one element holds."""
    kind, inner = struct.unpack_from(order + "II", start) if len(start) >= 8 else (0, 0)
    if kind != _MATRIX:
        budget.refuse("a compressed variable does not hold one array")
    budget.take_bytes(8 + inner)
    left = size - min(size, _NAME_BYTES)
    data = bytearray(start)
    try:
        while not inflate.eof and len(data) <= 8 + inner:  # never more than it declares
            packed = inflate.unconsumed_tail
            if not packed:
                packed = file.read(min(left, _PIECE_BYTES))
                left -= len(packed)
            piece = inflate.decompress(packed, _PIECE_BYTES)
            data += piece
            if not packed and not piece:
                budget.refuse("a compressed variable is truncated")
    except zlib.error as cause:  # the checksum is among what zlib tests
        budget.refuse(f"a compressed variable is damaged ({cause})")
    if len(data) != 8 + inner:
        budget.refuse(f"a compressed variable does not hold the one array of {inner} bytes that it declares")
    if inflate.unused_data or left:
        budget.refuse("a compressed variable is followed by other bytes")
    return memoryview(data)[8:]


def _name(start: bytes, order: str) -> str:
    """Return the name of the variable whose first bytes are given; empty if they are damaged or no array."""
    at = 0
    parts = []
    for _ in range(3):  # flags, dimensions, name
        if at + 8 > len(start):
            return ""
        kind, size = struct.unpack_from(order + "II", start, at)
        if kind >> 16:
            parts.append(start[at + 4 : at + 4 + (kind >> 16)])
            at += 8
        else:
            parts.append(start[at + 8 : at + 8 + size])
            at += 8 + size + -size % 8
    return parts[2].decode("latin-1")


class _Element:
    """The inside of an array element: flags, dimensions, name and contents, each an element of its own."""

    def __init__(self, data: memoryview, order: str, budget: Budget) -> None:
        self._data, self._order, self._budget, self._at = data, order, budget, 0

    def value(self, depth: int) -> MatlabValue:
        """Return the array."""
        if not self._data:
            return empty_array()
        flags = self._numbers()
        if flags.size != 2:
            self._budget.refuse("the flags of an array are damaged")
        kind, is_complex = int(flags[0]) & 0xFF, bool(int(flags[0]) & _COMPLEX)
        if kind in _UNREAD:
            return Unread(_UNREAD[kind])
        shape = self._budget.checked_shape(self._numbers().tolist())
        self._numbers()  # the name
        if is_complex:
            return Unread("complex array")
        if kind == _CELL:
            return CellArray(tuple(self._children(math.prod(shape), depth)))
        if kind == _STRUCT:
            return self._struct(math.prod(shape), depth)
        if kind == _CHAR:
            return self._text(math.prod(shape))
        if kind not in _NUMERIC:
            self._budget.refuse(f"it has an array of the unknown class {kind}")
        stored = self._numbers()
        if stored.size != math.prod(shape):
            self._budget.refuse(f"an array of shape {shape} has {stored.size} numbers")
        declared = np.dtype(_NUMERIC[kind])
        if stored.dtype.itemsize < declared.itemsize:
            self._budget.take_bytes(stored.size * declared.itemsize)
        return stored.astype(declared).reshape(shape, order="F")

    def _struct(self, count: int, depth: int) -> StructArray:
        widths, text = self._numbers(), self._numbers().tobytes()
        width = int(widths[0]) if widths.size == 1 else 0
        if not 1 <= width <= MAX_NAME or len(text) % width:
            self._budget.refuse("the field names of a struct are damaged")
        fields = [text[at : at + width].split(b"\0")[0].decode("latin-1") for at in range(0, len(text), width)]
        if len(set(fields)) != len(fields):
            self._budget.refuse("a struct has two fields of one name")
        values = iter(self._children(count * len(fields), depth))
        if not fields:
            self._budget.take_elements(count, depth)
        return StructArray(tuple({field: next(values) for field in fields} for _ in range(count)))

    def _children(self, count: int, depth: int) -> list[MatlabValue]:
        self._budget.take_elements(count, depth + 1)
        children = []
        for _ in range(count):
            kind, data = self._next()
            if kind != _MATRIX:
                self._budget.refuse(f"an element of type {kind} stands where an array should be")
            children.append(_Element(data, self._order, self._budget).value(depth + 1))
        return children

    def _text(self, count: int) -> str:
        kind, data = self._next()
        if kind == _UTF8:
            return bytes(data).decode("utf-8", "replace")
        codes = self._as_numbers(kind, data)
        if codes.size != count:
            self._budget.refuse(f"a text of {count} characters has {codes.size}")
        return text_of(codes, self._budget)

    def _numbers(self) -> NDArray[Any]:
        return self._as_numbers(*self._next())

    def _as_numbers(self, kind: int, data: memoryview) -> NDArray[Any]:
        if kind not in _STORED:
            self._budget.refuse(f"an element of type {kind} stands where numbers should be")
        stored = np.dtype(self._order + _STORED[kind])
        if len(data) % stored.itemsize:
            self._budget.refuse("an array ends within a number")
        return np.frombuffer(data, stored)

    def _next(self) -> tuple[int, memoryview]:
        """Return the type and the bytes of the next element."""
        if self._at + 8 > len(self._data):
            self._budget.refuse("an array is truncated")
        kind, size = struct.unpack_from(self._order + "II", self._data, self._at)
        if kind >> 16:  # a small element: type and size share four bytes, and the data are the other four
            kind, size, start = kind & 0xFFFF, kind >> 16, self._at + 4
            if size > 4:
                self._budget.refuse("a small element has more than four bytes")
            self._at += 8
        else:
            start = self._at + 8
            self._at = start + size + -size % 8
        if start + size > len(self._data):
            self._budget.refuse("an array is truncated")
        return kind, self._data[start : start + size]
