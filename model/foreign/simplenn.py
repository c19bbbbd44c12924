"""MatConvNet's SimpleNN networks in MATLAB files: layers in the order of the file, as a DagNN in which each reads the one before.

References
----------
A. Vedaldi, K. Lenc, "MatConvNet: Convolutional Neural Networks for MATLAB", ACM Multimedia 2015: ``vl_simplenn.m`` and, for what older
files lack or name otherwise, ``vl_simplenn_tidy.m``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import CheckpointError
from flowkit.model.foreign.dagnn import KINDS, DagNN, Layer, dagnn_of, fields_of, meta_of, read_stored
from flowkit.model.foreign.matlab_values import CellArray, MatlabValue

# As a DagNN calls them. Any other type is refused by its name.
_KIND_OF = {
    "conv": "Conv",
    "relu": "ReLU",
    "pool": "Pooling",
    "lrn": "LRN",
    "normalize": "LRN",  # its name in old files
    "dropout": "DropOut",
    "softmax": "SoftMax",
    "softmaxloss": "Loss",
    "loss": "Loss",
}
_FIELD_OF = {"pool": "poolSize"}  # the others have one name in both
_BLOCK = ("stride", "pad", "dilate", "leak", "pool", "method", "param", "rate")


def read_chain(path: Path) -> DagNN:
    """Read a network that may have local response normalisations, from a MATLAB file with a SimpleNN or a DagNN.

    Returns
    -------
    DagNN
        A SimpleNN becomes one whose variables are ``x0``, ``x1``, ...; its parameters keep their type.

    Raises
    ------
    CheckpointError
        If the file is no MATLAB file, is damaged, or holds a layer of another type, which the error names.
    OSError
        If the file cannot be read.
    """
    stored = read_stored(path)
    if isinstance(stored["layers"], CellArray):
        return _Reading(path).network(stored, stored["layers"].elements)
    return dagnn_of(path, stored, kinds=(*KINDS, "LRN"))


class _Reading:
    """Reads the layers of one file; every refusal names it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._params: dict[str, NDArray[Any]] = {}

    def network(self, stored: Mapping[str, MatlabValue], items: tuple[MatlabValue, ...]) -> DagNN:
        layers = tuple(self._layer(place, fields_of(item)) for place, item in enumerate(items))
        names = Counter(layer.name for layer in layers)
        twice = [name for name, count in names.items() if count > 1]
        if twice:
            self._refuse(f"there are {names[twice[0]]} layers called {twice[0]!r}")
        # Old files have the meta data at the top.
        mean, classes = meta_of(self._path, fields_of(stored["meta"]) if "meta" in stored else stored)
        return DagNN(self._path, layers, self._params, mean, classes)

    def _layer(self, place: int, item: Mapping[str, MatlabValue]) -> Layer:
        kind, name = item.get("type"), item.get("name", "")
        if not isinstance(kind, str) or not kind:
            self._refuse(f"layer {place + 1} has no type")
        if not isinstance(name, str):
            self._refuse(f"the name of layer {place + 1} is no text")
        name = name or f"layer {place + 1}"
        if kind not in _KIND_OF:
            self._refuse(f"layer {name!r} has the type {kind[:64]!r}, which flowkit does not read (it reads {', '.join(_KIND_OF)})")
        params = self._weights(name, item) if kind == "conv" else ()
        block = {_FIELD_OF.get(key, key): item[key] for key in _BLOCK if key in item and not self._is_empty(item[key])}
        return Layer(name, _KIND_OF[kind], (f"x{place}",), (f"x{place + 1}",), params, block)

    def _weights(self, name: str, item: Mapping[str, MatlabValue]) -> tuple[str, ...]:
        """Keep the filters and, if there are any, the biases of a convolution; return under which names."""
        weights = item.get("weights")
        given = weights.elements if isinstance(weights, CellArray) else tuple(item[key] for key in ("filters", "biases") if key in item)
        if not 1 <= len(given) <= 2:
            self._refuse(f"layer {name!r} has {len(given)} arrays of weights; filters and perhaps biases are needed")
        kept = []
        for suffix, value in zip(("f", "b"), given, strict=False):
            if suffix == "b" and self._is_empty(value):
                continue
            if not isinstance(value, np.ndarray) or value.dtype not in (np.float32, np.float64) or not value.size:
                self._refuse(f"the weights of layer {name!r} are not arrays of single or double numbers")
            if not np.isfinite(value).all():
                self._refuse(f"the weights of layer {name!r} have values that are not finite")
            self._params[name + suffix] = value
            kept.append(name + suffix)
        return tuple(kept)

    def _is_empty(self, value: MatlabValue) -> bool:
        return isinstance(value, np.ndarray) and not value.size

    def _refuse(self, why: str) -> NoReturn:
        raise CheckpointError(f"{self._path}: {why}")
