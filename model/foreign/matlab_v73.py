"""MAT version 7.3: HDF5 with MATLAB's attributes. Structs are groups; struct arrays and cells refer to objects of the same file."""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import h5py
from numpy.typing import NDArray

from flowkit.errors import CheckpointError
from flowkit.model.foreign.matlab_values import MAX_NAME, Budget, CellArray, MatlabValue, StructArray, Unread, empty_array, text_of

_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
_MOST_GZIP_RATIO = 1032  # of unpacked to packed bytes, which deflate cannot exceed
_NUMERIC = {
    "single": "f4",
    "double": "f8",
    "logical": "u1",
    **{f"{sign}int{8 * n}": f"{sign or 'i'}{n}" for sign in ("", "u") for n in (1, 2, 4, 8)},
}


def read_v73(path: Path, names: Collection[str], budget: Budget) -> dict[str, MatlabValue]:
    """Read variables of a MAT v7.3 file, which is a regular file.

    Notes
    -----
    Only hard links are followed, within the file; external and virtual storage and filters other than gzip, shuffle and checksums are
    refused. References may form cycles: the depth is bounded, and so is the number of elements.
    """
    try:
        with h5py.File(path, "r", locking=False) as hdf5:  # much faster than through the open file
            reader = _Reader(hdf5, budget)
            return {name: reader.child(hdf5, name, 0) for name in sorted(names) if name in hdf5}
    except CheckpointError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, NotImplementedError) as cause:  # HDF5 finds damage
        line = next(iter(str(cause).splitlines()), type(cause).__name__)
        raise CheckpointError(f"{budget.path}: damaged, or not a MATLAB file of version 7.3 ({line})") from cause


class _Reader:
    def __init__(self, file: h5py.File, budget: Budget) -> None:
        self._file, self._budget = file, budget

    def child(self, group: h5py.Group, name: str, depth: int) -> MatlabValue:
        return self._value(self._node(group, name), depth)

    def _node(self, group: h5py.Group, name: str) -> Any:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            self._budget.refuse("it has a link, which MATLAB does not write")
        return group[name]

    def _value(self, node: Any, depth: int) -> MatlabValue:
        kind = _text_attribute(node, "MATLAB_class")
        if isinstance(node, h5py.Group):
            return self._struct(node, depth) if kind == "struct" else Unread(kind or "group")
        if not isinstance(node, h5py.Dataset):
            return Unread("data type")
        if "MATLAB_object_decode" in node.attrs or kind == "function_handle":
            return Unread("object" if kind != "function_handle" else "function handle")
        if "MATLAB_sparse" in node.attrs:
            return Unread("sparse array")
        if "MATLAB_empty" in node.attrs:  # the data set holds the dimensions
            empties: dict[str, MatlabValue] = {"char": "", "cell": CellArray(()), "struct": StructArray(())}
            return empties.get(kind, empty_array())
        if kind == "cell":
            return CellArray(tuple(self._referred(node, depth)))
        if kind == "char":
            return text_of(self._numbers(node).T, self._budget)
        if kind in _NUMERIC and node.dtype.kind in "iuf":
            return self._numbers(node).astype(_NUMERIC[kind], copy=False).T
        return Unread("complex array" if node.dtype.names == ("real", "imag") else kind or "data set without a class")

    def _struct(self, group: h5py.Group, depth: int) -> StructArray:
        fields = list(group)
        if any(len(field.encode()) > MAX_NAME for field in fields):
            self._budget.refuse("a field name of a struct is too long")
        self._budget.take_elements(max(len(fields), 1), depth + 1)
        if not fields or not all(self._is_list(group, field) for field in fields):
            return StructArray(({field: self.child(group, field, depth + 1) for field in fields},))
        columns = [self._referred(group[field], depth) for field in fields]
        if len({len(column) for column in columns}) != 1:
            self._budget.refuse("the fields of a struct array have different lengths")
        return StructArray(tuple(dict(zip(fields, values, strict=True)) for values in zip(*columns, strict=True)))

    def _is_list(self, group: h5py.Group, field: str) -> bool:
        """Whether a field has one value for each element of a struct array: a data set of references without a class."""
        node = self._node(group, field)
        return isinstance(node, h5py.Dataset) and node.dtype == h5py.ref_dtype and "MATLAB_class" not in node.attrs

    def _referred(self, node: h5py.Dataset, depth: int) -> list[MatlabValue]:
        """Return the values that a data set of references leads to, in MATLAB's order."""
        if node.dtype != h5py.ref_dtype:
            self._budget.refuse("a cell array does not hold references")
        self._budget.take_elements(math.prod(node.shape), depth + 1)
        references = self._numbers(node).ravel()  # HDF5's row-major order of the reversed shape is MATLAB's column-major order
        if not all(references):
            self._budget.refuse("a reference leads nowhere")
        return [self._value(self._file[reference], depth + 1) for reference in references]

    def _numbers(self, node: h5py.Dataset) -> NDArray[Any]:
        """Read a data set once its size and storage are known to be harmless."""
        if node.external or node.is_virtual:
            self._budget.refuse("it refers to other files")
        shape = self._budget.checked_shape(node.shape if node.ndim >= 2 else (*node.shape, *(1,) * (2 - node.ndim)))
        self._budget.take_bytes(math.prod(shape) * node.dtype.itemsize)
        filters = node.id.get_create_plist()
        if any(filters.get_filter(k)[0] not in _FILTERS for k in range(filters.get_nfilters())):
            self._budget.refuse("it is compressed with a filter that MATLAB does not use")
        if node.chunks and math.prod(node.chunks) > max(math.prod(shape), 1 << 20):
            self._budget.refuse("it has a chunk larger than its array")
        if math.prod(shape) * node.dtype.itemsize > _MOST_GZIP_RATIO * node.id.get_storage_size():
            self._budget.refuse("it has an array that is larger than its stored data can be")
        numbers: NDArray[Any] = node[()]
        return numbers.reshape(shape)


def _text_attribute(node: Any, name: str) -> str:
    value = node.attrs.get(name, b"")
    return value.decode("latin-1") if isinstance(value, bytes) else value if isinstance(value, str) else ""
