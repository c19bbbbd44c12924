"""Hostile MATLAB files: lying sizes, endless nesting, storage elsewhere. Each comes with a part of the reason for which it is refused."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from matlab_files import array, element, header, variable, write_v73


def raw_array(kind: int, shape: tuple[int, ...], *rest: bytes, flags: int = 0) -> bytes:
    """Return an uncompressed variable `net` whose contents need not fit its class and dimensions."""
    dimensions = element(5, struct.pack(f"<{len(shape)}i", *shape))
    return element(14, element(6, struct.pack("<II", kind | flags, 0)) + dimensions + element(1, b"net") + b"".join(rest))


def nested_cells(depth: int) -> bytes:
    value: Any = np.zeros((0, 0))
    for _ in range(depth):
        value = (value,)
    return array(value, "net")


def deep_cells(depth: int) -> bytes:
    """Return nested cells written from the inside, as a recursive writer could not."""
    head = element(6, struct.pack("<II", 1, 0)) + element(5, struct.pack("<2i", 1, 1)) + element(1, b"net")
    size_of_level = len(head) + 8
    return b"".join(struct.pack("<II", 14, size_of_level * level - 8) + head for level in range(depth, 0, -1))


def bomb(num_bytes: int, *, declared: int | None = None) -> bytes:
    """Return a compressed variable of zeros that unpacks to about this size, whatever it declares."""
    squeeze = zlib.compressobj(9)
    size = num_bytes if declared is None else declared
    body = raw_array(6, (1, size // 8), struct.pack("<II", 9, size))[8:]
    packed = squeeze.compress(struct.pack("<II", 14, len(body) + size) + body)
    for _ in range(num_bytes >> 20):
        packed += squeeze.compress(bytes(1 << 20))
    packed += squeeze.flush()
    return struct.pack("<II", 15, len(packed)) + packed


SOUND = variable("net", {"a": np.arange(5.0), "b": ("x", "y")}, compress=False)
PACKED = variable("net", np.arange(100.0) / 7, compress=True)
HOSTILE: dict[str, tuple[bytes, str]] = {
    "numbers of an unknown type": (raw_array(6, (1, 4), struct.pack("<II", 8, 32) + bytes(32)), "type 8 stands where numbers"),
    "numbers of another unknown type": (raw_array(6, (1, 4), struct.pack("<II", 200, 32) + bytes(32)), "type 200"),
    "fewer numbers than the shape needs": (raw_array(6, (2, 4), element(9, bytes(32))), "has 4 numbers"),
    "half a number": (raw_array(6, (1, 4), element(9, bytes(33))), "within a number"),
    "huge dimensions": (raw_array(6, (2**31 - 1, 2**31 - 1), element(9, bytes(32))), "cannot be read"),
    "a negative dimension": (raw_array(6, (-1, 4), element(9, bytes(32))), "cannot be read"),
    "one dimension": (raw_array(6, (4,), element(9, bytes(32))), "cannot be read"),
    "nine dimensions": (raw_array(6, (1,) * 9, element(9, bytes(8))), "cannot be read"),
    "a huge cell": (raw_array(1, (1, 2**24)), "more than 1000000"),
    "a huge struct without fields": (raw_array(2, (1, 2**24), element(5, struct.pack("<i", 8)), element(1, b"")), "more than 1000000"),
    "a struct of two equal fields": (raw_array(2, (1, 1), element(5, struct.pack("<i", 2)), element(1, b"a\0a\0")), "two fields"),
    "field names of length zero": (raw_array(2, (1, 1), element(5, struct.pack("<i", 0)), element(1, b"a\0")), "field names"),
    "a cell of numbers without an array": (raw_array(1, (1, 1), element(9, bytes(8))), "where an array should be"),
    "cells 40 levels deep": (nested_cells(40), "more than 16 levels"),
    "cells 20,000 levels deep": (deep_cells(20_000), "more than 16 levels"),
    "an unknown class": (raw_array(99, (1, 1), element(9, bytes(8))), "unknown class 99"),
    "a truncated file": (SOUND[:-20], "truncated"),
    "a file that ends in a tag": (SOUND + b"\0\0\0", "truncated"),
    "two variables of one name": (SOUND + SOUND, "two variables"),
    "a variable that unpacks to 100 MB": (bomb(100 << 20), "unpack to more than"),
    "a variable that unpacks to more than it declares": (bomb(100 << 20, declared=4096), "does not hold the one array"),
    "a compressed variable with a flipped bit": (PACKED[:60] + bytes([PACKED[60] ^ 8]) + PACKED[61:], "compressed variable"),
    "a compressed variable without its end": (struct.pack("<II", 15, len(PACKED) - 28) + PACKED[8:-20], "truncated"),
    "bytes after a compressed variable": (struct.pack("<II", 15, len(PACKED)) + PACKED[8:] + bytes(8), "followed by other bytes"),
    "a wrong checksum": (PACKED[:-1] + bytes([PACKED[-1] ^ 1]), "damaged"),
}


def _in_place_of_numbers(make: Callable[[h5py.Group], Any]) -> Callable[[h5py.File], None]:
    """Return a change that puts what `make` creates in place of the field `a`."""

    def change(file: h5py.File) -> None:
        del file["net/a"]
        node = make(file["net"])
        if node is not None:
            node.attrs["MATLAB_class"] = np.bytes_("double")

    return change


def _linked(link: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file["net/link"] = link

    return change


def _external(net: h5py.Group) -> Any:
    secret = str(Path(net.file.filename).with_name("secret"))
    Path(secret).write_bytes(bytes(64))
    return net.create_dataset("a", (2, 4), "f8", external=[(secret, 0, 64)])


def _virtual(net: h5py.Group) -> Any:
    layout = h5py.VirtualLayout((1, 4), "f8")
    layout[0] = h5py.VirtualSource(str(Path(net.file.filename).with_name("b.h5")), "x", (4,))
    return net.create_virtual_dataset("a", layout)


def _cycle(file: h5py.File) -> None:
    file["net/cell"][...] = file["net/cell"].ref


def _null_reference(file: h5py.File) -> None:
    file["net/cell"][...] = h5py.Reference()


def _chunked(shape: tuple[int, int], chunks: tuple[int, int], **storage: Any) -> Callable[[h5py.Group], Any]:
    return lambda net: net.create_dataset("a", shape, "f8", chunks=chunks, maxshape=(None, None), **storage)


HOSTILE_V73: dict[str, tuple[Callable[[h5py.File], None], str]] = {
    "a soft link": (_linked(h5py.SoftLink("/net/cell")), "has a link"),
    "an external link": (_linked(h5py.ExternalLink("other.mat", "/net")), "has a link"),
    "external storage": (_in_place_of_numbers(_external), "other files"),
    "virtual storage": (_in_place_of_numbers(_virtual), "other files"),
    "a huge array without data": (_in_place_of_numbers(_chunked((1 << 20, 1 << 20), (64, 64))), "cannot be read"),
    "an array of 400 MB without data": (_in_place_of_numbers(_chunked((5000, 10000), (1000, 100))), "larger than its stored data can be"),
    "a huge chunk": (_in_place_of_numbers(_chunked((1, 1), (1 << 12, 1 << 12), compression="gzip")), "chunk larger"),
    "a cycle of references": (_cycle, "levels deep"),
    "a null reference": (_null_reference, "leads nowhere"),
}


def write_hostile_v73(path: Path, change: Callable[[h5py.File], None]) -> Path:
    """Write a small sound file of version 7.3, change it, and return it."""
    write_v73(path, {"net": {"a": np.arange(4.0), "cell": ("x", "y")}})
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def write_hostile_files(folder: Path) -> list[Path]:
    """Write all of them, and return their paths."""
    folder.mkdir()
    paths = []
    for number, (data, _) in enumerate(HOSTILE.values()):
        paths.append(folder / f"{number}.mat")
        paths[-1].write_bytes(header() + data)
    for number, (change, _) in enumerate(HOSTILE_V73.values()):
        paths.append(write_hostile_v73(folder / f"hdf5-{number}.mat", change))
    return paths
