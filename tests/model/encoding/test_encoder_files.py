"""Files of encoders: exact, the same bytes each time, and refused with one clear error if they are anything else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from flowkit.errors import CheckpointError
from flowkit.model.encoding.encoder import PARTS, Encoder
from flowkit.model.encoding.encoder_files import load_encoder, save_encoder
from flowkit.model.encoding.fitting import fit_encoder


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    rng = np.random.default_rng(0)
    sample = {"hog": rng.normal(size=(200, 6)).astype(np.float32), "hof": rng.normal(size=(200, 4)).astype(np.float32)}
    return fit_encoder(sample, num_components=3, seed=0, provenance={"split": 1, "note": "Zürich"})


@pytest.fixture
def path(encoder: Encoder, tmp_path: Path) -> Path:
    save_encoder(tmp_path / "encoder.safetensors", encoder)
    return tmp_path / "encoder.safetensors"


def test_what_is_written_is_read(encoder: Encoder, path: Path) -> None:
    read = load_encoder(path)
    assert read.provenance == encoder.provenance
    assert [one.name for one in read.types] == ["hog", "hof"]
    for name, array in encoder.arrays().items():
        np.testing.assert_array_equal(read.arrays()[name], array)
    assert read.digest() == encoder.digest()


def test_the_same_encoder_gives_the_same_bytes(encoder: Encoder, path: Path) -> None:
    before = path.read_bytes()
    for _ in range(3):
        save_encoder(path, load_encoder(path))
        assert path.read_bytes() == before


def changed(path: Path, *, arrays: dict[str, Any] | None = None, **metadata: str) -> None:
    """Write the file again with other arrays (None removes one) or other metadata."""
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    kept = {name: array for name, array in (load(data) | (arrays or {})).items() if array is not None}
    path.write_bytes(save(kept, {**header, **metadata}))


def record(**values: Any) -> str:
    return json.dumps({"types": ["hog", "hof"], "fitted": {}, **values})


@pytest.mark.parametrize(
    ("arrays", "metadata", "message"),
    [
        ({"hog.weights": np.array([0.5, 0.2, 0.2])}, {}, "hog: the weights of a mixture"),
        ({"hog.weights": np.array([1.5, 0.5, -1.0])}, {}, "hog: the weights of a mixture"),
        ({"hog.weights": np.array([np.nan, 0.5, 0.5])}, {}, "'hog.weights' must hold finite numbers of 64 bits"),
        ({"hof.means": np.zeros((3, 2), np.float32)}, {}, "'hof.means' must hold finite numbers of 64 bits"),
        ({"hof.means": np.zeros((3, 2), np.int64)}, {}, "'hof.means' must hold finite numbers of 64 bits"),
        ({"hof.means": np.zeros((4, 2))}, {}, "hof: weights, means and deviations of the shapes"),
        ({"hof.means": np.zeros((3, 0)), "hof.deviations": np.zeros((3, 0))}, {}, "hof: weights, means and deviations of the shapes"),
        ({"hof.deviations": np.zeros((3, 2))}, {}, "hof: the standard deviations of a mixture must be above 0"),
        ({"hof.pca_mean": np.zeros(5)}, {}, "hof: a mean"),
        ({"hof.pca_components": np.zeros((3, 4))}, {}, "hof: the projection gives 3 numbers, and the mixture needs 2"),
        ({"hof.pca_components": np.zeros((0, 4))}, {}, "hof: a mean"),
        ({"hof.pca_mean": np.array(1.0)}, {}, "hof: a mean"),
        ({"hof.weights": None}, {}, "must hold 10 arrays"),
        ({"mbh.weights": np.ones(1)}, {}, "must hold 10 arrays"),
        ({}, {"format": "flowkit-weights"}, "does not hold an encoder"),
        ({}, {"format_version": "2"}, "format version '2', but this flowkit reads version 1"),
        ({}, {"provenance": "{"}, "its provenance is not valid JSON"),
        ({}, {"provenance": "[" * 1000 + "]" * 1000}, "nested more than 64 deep"),
        ({}, {"provenance": "[]"}, "its provenance is not a JSON object"),
        ({}, {"provenance": record(types=5)}, "does not name its types"),
        ({}, {"provenance": record(types=["hog", 5])}, "does not name its types"),
        ({}, {"provenance": record(types=["hog"] * 1000)}, "does not name its types"),
        ({}, {"provenance": record(types=["hog", "hof", "hof"])}, "different names"),
        ({}, {"provenance": record(fitted=[])}, "does not say what it was fitted to"),
    ],
)
def test_anything_else_is_refused(path: Path, arrays: dict[str, Any], metadata: dict[str, str], message: str) -> None:
    changed(path)
    load_encoder(path)
    changed(path, arrays=arrays, **metadata)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_encoder(path)
    assert str(path) in str(caught.value)


def test_damaged_and_foreign_bytes_are_refused(path: Path) -> None:
    whole = path.read_bytes()
    bad = [b"", b"{}", b"\x89HDF\r\n", whole[:-1], whole[: len(whole) // 2], whole + b"\0", b"\xff" * 8 + whole[8:], bytes(len(whole))]
    header = json.dumps({"a": {"dtype": "F64", "shape": [1 << 40], "data_offsets": [0, 8]}}).encode()
    bad += [len(header).to_bytes(8, "little") + header + bytes(8)]
    for data in bad:
        path.write_bytes(data)
        with pytest.raises(CheckpointError):
            load_encoder(path)
    path.unlink()
    with pytest.raises(CheckpointError, match="No such file"):
        load_encoder(path)
    with pytest.raises(CheckpointError):
        load_encoder(path.parent)


def test_no_changed_byte_gives_anything_but_an_encoder_or_the_error(path: Path) -> None:
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for place in rng.integers(len(whole), size=300):
        data = bytearray(whole)
        data[place] ^= int(rng.integers(1, 256))
        path.write_bytes(data)
        try:
            assert len(load_encoder(path).types) == 2
        except CheckpointError:
            continue


def test_the_arrays_are_named_by_their_type_and_part(encoder: Encoder) -> None:
    assert list(encoder.arrays()) == [f"{name}.{part}" for name in ("hog", "hof") for part in PARTS]
