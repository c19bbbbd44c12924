"""MATLAB files: what is read, what is skipped, and what is refused within bounded memory."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import matlab_files
import numpy as np
import pytest
from matlab_files import array, element, header, variable, write_v5, write_v73

from flowkit.errors import CheckpointError
from flowkit.model.foreign.matlab import read_matlab
from flowkit.model.foreign.matlab_values import CellArray, Limits, StructArray, Unread

GENUINE = Path(__file__).parents[4] / "shared" / "data" / "matconvnet" / "DCFNet-net-7-125-2.mat"

WRITERS: dict[str, Callable[[Path, dict[str, Any]], Path]] = {
    "v5": lambda path, variables: write_v5(path, variables, compress=False),
    "v7": write_v5,
    "big-endian": lambda path, variables: write_v5(path, variables, order=">"),
    "v7.3": write_v73,
}
RNG = np.random.default_rng(0)
VALUES: dict[str, Any] = {
    "filter": RNG.standard_normal((3, 2, 4, 5)).astype("f4"),
    "doubles": RNG.standard_normal((2, 3)),
    "whole doubles": np.array([[7.0, 255.0, 0.0]]),
    "one": np.array([[3.5]]),
    "integers": np.array([[-5, 2**31 - 1]], "i4"),
    "bytes": np.array([[1, 255]], "u1"),
    "logicals": np.array([[True, False]]),
    "nothing": np.zeros((0, 0)),
    "text": "res2a_branch1",
    "accents": "Straße, 跑步, \U0001f3c3",
    "no text": "",
    "cell": ("conv1", np.array([[1.0]]), ()),
    "struct": {"name": "conv1", "pad": np.array([[0.0, 1.0, 0.0, 1.0]])},
    "structs": [{"name": "a", "inputs": ("x", "y")}, {"name": "b", "inputs": ()}],
}


def as_plain(value: Any) -> Any:
    """Return a value that was read in the form in which tests write it; a struct array of one is a dict."""
    if isinstance(value, StructArray):
        items = [{name: as_plain(part) for name, part in item.items()} for item in value.elements]
        return items[0] if len(items) == 1 else items
    return tuple(map(as_plain, value.elements)) if isinstance(value, CellArray) else value


def assert_same(read: Any, written: Any) -> None:
    if isinstance(written, np.ndarray):
        assert read.dtype == (np.uint8 if written.dtype == bool else written.dtype)
        assert read.shape == written.shape
        assert np.array_equal(read, written)
    elif isinstance(written, dict):
        assert read.keys() == written.keys()  # HDF5 lists the fields by name
        for name in written:
            assert_same(read[name], written[name])
    elif isinstance(written, list | tuple):
        assert type(read) is type(written)
        for one, other in zip(read, written, strict=True):
            assert_same(one, other)
    else:
        assert read == written


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("name", VALUES)
def test_a_value_is_read_as_it_was_written(tmp_path: Path, writer: str, name: str) -> None:
    path = WRITERS[writer](tmp_path / "a.mat", {"value": VALUES[name]})
    assert_same(as_plain(read_matlab(path, ["value"])["value"]), VALUES[name])


@pytest.mark.parametrize("writer", WRITERS)
def test_only_the_variables_asked_for_are_read_and_missing_ones_are_left_out(tmp_path: Path, writer: str) -> None:
    path = WRITERS[writer](tmp_path / "a.mat", {"state": np.zeros((100, 100)), "net": np.array([[1.0]]), "stats": {"x": "y"}})
    read = read_matlab(path, ["net", "layers"], Limits(num_bytes=4096))  # the state would pass this limit
    assert list(read) == ["net"]


def test_trailing_dimensions_of_one_are_dropped_as_matlab_does(tmp_path: Path) -> None:
    read = read_matlab(write_v5(tmp_path / "a.mat", {"value": np.ones((3, 3, 1))[:, :, 0]}), ["value"])["value"]
    assert isinstance(read, np.ndarray)
    assert read.shape == (3, 3)


@pytest.mark.skipif(not GENUINE.is_file(), reason="needs ../shared/data")
def test_a_genuine_file_of_matconvnet_is_read_completely() -> None:
    net = read_matlab(GENUINE, ["net"])["net"]
    assert isinstance(net, StructArray)
    layers = as_plain(net)["layers"]
    assert [layer["type"] for layer in layers] == ["conv", "relu", "conv", "lrn"]
    assert [weight.shape for layer in layers for weight in layer.get("weights", ())] == [(3, 3, 3, 32), (32, 1), (3, 3, 32, 32), (32, 1)]
    normalization = as_plain(net)["meta"]["normalization"]
    assert normalization["imageSize"].tolist() == [[125, 125, 3]]
    assert normalization["imageSize"].dtype == np.float64  # stored as bytes, declared as double
    assert normalization["averageImage"].ravel().tolist() == [123, 117, 104]


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
    inner = b""
    for _ in range(depth):
        inner = element(14, element(6, struct.pack("<II", 1, 0)) + element(5, struct.pack("<2i", 1, 1)) + element(1, b"net") + inner)
    return inner


def bomb(num_bytes: int) -> bytes:
    """Return a compressed variable of zeros that unpacks to about this size."""
    squeeze = zlib.compressobj(9)
    body = raw_array(6, (1, num_bytes // 8), struct.pack("<II", 9, num_bytes))[8:]
    packed = squeeze.compress(struct.pack("<II", 14, len(body) + num_bytes) + body)
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
    "a compressed variable with a flipped bit": (PACKED[:60] + bytes([PACKED[60] ^ 8]) + PACKED[61:], "compressed variable"),
    "a compressed variable without its end": (struct.pack("<II", 15, len(PACKED) - 28) + PACKED[8:-20], "truncated"),
    "bytes after a compressed variable": (struct.pack("<II", 15, len(PACKED)) + PACKED[8:] + bytes(8), "followed by other bytes"),
    "a wrong checksum": (PACKED[:-1] + bytes([PACKED[-1] ^ 1]), "damaged"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_one_line_that_names_it(tmp_path: Path, name: str) -> None:
    data, why = HOSTILE[name]
    path = tmp_path / "hostile.mat"
    path.write_bytes(header() + data)
    with pytest.raises(CheckpointError, match=why) as refused:
        read_matlab(path, ["net"], Limits(num_bytes=50 << 20))
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "flags", "expected"),
    [(16, 0, "function handle"), (17, 0, "object"), (3, 0, "object"), (5, 0, "sparse array"), (6, 0x800, "complex array")],
)
def test_what_the_reader_does_not_know_is_not_looked_into(tmp_path: Path, kind: int, flags: int, expected: str) -> None:
    path = tmp_path / "a.mat"
    path.write_bytes(header() + raw_array(kind, (1, 1), b"\xff" * 16, flags=flags))
    assert read_matlab(path, ["net"])["net"] == Unread(expected)


def test_damage_in_a_variable_that_is_not_asked_for_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    state = raw_array(99, (1, 1)).replace(b"net", b"sta")
    path.write_bytes(header() + state + SOUND)
    assert as_plain(read_matlab(path, ["net"])["net"])["b"] == ("x", "y")


@pytest.mark.parametrize("data", [b"", b"MATLAB", bytes(200), b"\x89HDF\r\n\x1a\n" + bytes(200), b"<!DOCTYPE html>" + b" " * 200])
def test_a_file_that_is_no_matlab_file_is_called_that(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.mat"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="not a MATLAB file"):
        read_matlab(path, ["net"])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mat")
    with pytest.raises(CheckpointError, match="not a regular file"):
        read_matlab(tmp_path / "pipe.mat", ["net"])


def test_each_mutation_of_a_file_is_read_or_refused(tmp_path: Path) -> None:
    value = {
        "layers": [{"name": "a", "w": np.arange(12.0)}, {"name": "b", "w": np.zeros((0, 0))}],
        "meta": (1.5 + np.zeros((2, 2)), "text"),
    }
    draw = np.random.default_rng(1)
    refusals = []
    for writer in WRITERS.values():
        whole = writer(tmp_path / "whole.mat", {"net": value}).read_bytes()
        for _ in range(60):
            data = bytearray(whole)
            for _ in range(int(draw.integers(1, 4))):
                data[int(draw.integers(len(data)))] = int(draw.integers(256))
            path = tmp_path / "mutated.mat"
            path.write_bytes(bytes(data[: int(draw.integers(len(data)))]) if draw.random() < 0.2 else bytes(data))
            try:
                read_matlab(path, ["net"], Limits(num_bytes=1 << 20, num_elements=1000))
            except CheckpointError as error:
                refusals.append(str(error))
    assert len(refusals) > 40
    assert not [refusal for refusal in refusals if "\n" in refusal]


class TestVersion73:
    def hostile(self, path: Path, change: Callable[[h5py.File], None]) -> Path:
        write_v73(path, {"net": {"a": np.arange(4.0), "cell": ("x", "y")}})
        with h5py.File(path, "r+") as file:
            change(file)
        return path

    def refusal(self, path: Path) -> str:
        with pytest.raises(CheckpointError) as refused:
            read_matlab(path, ["net"], Limits(num_bytes=10 << 20))
        assert "\n" not in str(refused.value)
        return str(refused.value)

    def replaced(self, file: h5py.File, make: Callable[[h5py.Group], Any]) -> None:
        del file["net/a"]
        node = make(file["net"])
        if node is not None:
            node.attrs["MATLAB_class"] = np.bytes_("double")

    @pytest.mark.parametrize("link", [h5py.SoftLink("/net/cell"), h5py.ExternalLink("other.mat", "/net")])
    def test_links_are_refused(self, tmp_path: Path, link: Any) -> None:
        def change(file: h5py.File) -> None:
            file["net/link"] = link

        assert "has a link" in self.refusal(self.hostile(tmp_path / "a.mat", change))

    def test_external_storage_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "secret").write_bytes(bytes(64))
        path = self.hostile(
            tmp_path / "a.mat",
            lambda file: self.replaced(
                file, lambda net: net.create_dataset("a", (2, 4), "f8", external=[(str(tmp_path / "secret"), 0, 64)])
            ),
        )
        assert "other files" in self.refusal(path)

    def test_virtual_storage_is_refused(self, tmp_path: Path) -> None:
        def make(net: h5py.Group) -> Any:
            layout = h5py.VirtualLayout((1, 4), "f8")
            layout[0] = h5py.VirtualSource(str(tmp_path / "b.h5"), "x", (4,))
            return net.create_virtual_dataset("a", layout)

        assert "other files" in self.refusal(self.hostile(tmp_path / "a.mat", lambda file: self.replaced(file, make)))

    def test_a_huge_array_without_data_is_refused_before_it_is_read(self, tmp_path: Path) -> None:
        path = self.hostile(
            tmp_path / "a.mat",
            lambda file: self.replaced(file, lambda net: net.create_dataset("a", (1 << 20, 1 << 20), "f8", chunks=(64, 64))),
        )
        assert "cannot be read" in self.refusal(path)

    def test_a_huge_chunk_is_refused(self, tmp_path: Path) -> None:
        def make(net: h5py.Group) -> Any:
            return net.create_dataset("a", (1, 1), "f8", chunks=(1 << 12, 1 << 12), maxshape=(None, None), compression="gzip")

        assert "chunk larger" in self.refusal(self.hostile(tmp_path / "a.mat", lambda file: self.replaced(file, make)))

    def test_references_that_form_a_cycle_end_at_the_depth_limit(self, tmp_path: Path) -> None:
        def change(file: h5py.File) -> None:
            cell = file["net/cell"]
            cell[...] = cell.ref

        assert "levels deep" in self.refusal(self.hostile(tmp_path / "a.mat", change))

    def test_a_null_reference_is_refused(self, tmp_path: Path) -> None:
        def change(file: h5py.File) -> None:
            file["net/cell"][...] = h5py.Reference()

        assert "leads nowhere" in self.refusal(self.hostile(tmp_path / "a.mat", change))

    def test_objects_and_function_handles_are_not_looked_into(self, tmp_path: Path) -> None:
        def change(file: h5py.File) -> None:
            file["net/a"].attrs["MATLAB_class"] = np.bytes_("function_handle")
            file["net/cell"].attrs["MATLAB_object_decode"] = np.int32(3)

        read = as_plain(read_matlab(self.hostile(tmp_path / "a.mat", change), ["net"])["net"])
        assert read == {"a": Unread("function handle"), "cell": Unread("object")}


def test_the_writers_of_the_tests_write_what_matlab_writes() -> None:
    """The genuine file's own bytes: a compressed variable whose whole doubles are stored as bytes, in small elements."""
    whole = array(np.array([[125.0, 125.0, 3.0]]))
    assert whole.endswith(struct.pack("<I", 3 << 16 | matlab_files.STORED["u1"]) + bytes([125, 125, 3, 0]))
