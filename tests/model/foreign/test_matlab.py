"""MATLAB files: what is read, what is skipped, and what is refused within bounded memory."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import matlab_files
import numpy as np
import pytest
from hostile_matlab import HOSTILE, HOSTILE_V73, SOUND, raw_array, write_hostile_v73
from matlab_files import array, header, write_v5, write_v73

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


@pytest.mark.parametrize("name", HOSTILE_V73)
def test_a_hostile_file_of_version_7_3_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    change, why = HOSTILE_V73[name]
    path = write_hostile_v73(tmp_path / "hostile.mat", change)
    with pytest.raises(CheckpointError, match=why) as refused:
        read_matlab(path, ["net"], Limits(num_bytes=1 << 30 if "400 MB" in name else 10 << 20))
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_objects_and_function_handles_of_version_7_3_are_not_looked_into(tmp_path: Path) -> None:
    def change(file: h5py.File) -> None:
        file["net/a"].attrs["MATLAB_class"] = np.bytes_("function_handle")
        file["net/cell"].attrs["MATLAB_object_decode"] = np.int32(3)

    read = as_plain(read_matlab(write_hostile_v73(tmp_path / "a.mat", change), ["net"])["net"])
    assert read == {"a": Unread("function handle"), "cell": Unread("object")}


def test_the_writers_of_the_tests_write_what_matlab_writes() -> None:
    """The genuine file's own bytes: a compressed variable whose whole doubles are stored as bytes, in small elements."""
    whole = array(np.array([[125.0, 125.0, 3.0]]))
    assert whole.endswith(struct.pack("<I", 3 << 16 | matlab_files.STORED["u1"]) + bytes([125, 125, 3, 0]))
