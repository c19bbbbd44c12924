"""MatConvNet's DagNN networks in MATLAB files: layers, parameters and meta data, checked for sense but not yet for their architecture.

References
----------
A. Vedaldi, K. Lenc, "MatConvNet: Convolutional Neural Networks for MATLAB", ACM Multimedia 2015; ``saveobj.m`` of its DagNN class.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import CheckpointError
from flowkit.model.foreign.matlab import read_matlab
from flowkit.model.foreign.matlab_values import CellArray, MatlabValue, StructArray

# Types are looked up here and nowhere else; MATLAB would call the function of that name.
KINDS = ("Conv", "BatchNorm", "ReLU", "Pooling", "Sum", "Mul", "ConvTime", "PoolTime", "DropOut", "Loss", "SoftMax")
_PREFIX = "dagnn."
VARIABLES = ("net", "layers", "params", "meta", "normalization", "classes")  # the last two are those of old SimpleNN files


@dataclass(frozen=True)
class Layer:
    """One layer of a graph.

    Parameters
    ----------
    name : str
        The layer's name, which says nothing certain about what it does.
    kind : str
        One of `KINDS`.
    inputs, outputs : tuple of str
        The variables that it reads and writes.
    params : tuple of str
        Its parameters, in the order that its kind fixes: filter and bias; or scale, bias and moments.
    block : dict
        The settings of its kind, such as ``stride``.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: tuple[str, ...]
    block: Mapping[str, MatlabValue]


@dataclass(frozen=True)
class DagNN:
    """A network as it is stored.

    Parameters
    ----------
    path : Path
        The file.
    layers : tuple of Layer
        In the file's order, which need not be the order of execution.
    params : dict of str to float array
        The parameters in MATLAB's layout: filters are (height, width, in, out), with trailing ones dropped. float64, or float32 as
        a SimpleNN stores them.
    average_image : float64 array or None
        ``meta.normalization.averageImage``: what is subtracted from a network's input, in grey levels.
    class_names : tuple of str
        ``meta.classes.description``. Training on other data leaves the names of ImageNet here.
    """

    path: Path
    layers: tuple[Layer, ...]
    params: Mapping[str, NDArray[Any]]
    average_image: NDArray[np.float64] | None
    class_names: tuple[str, ...]

    def refuse(self, why: str) -> NoReturn:
        """Raise a `CheckpointError` that names the file."""
        raise CheckpointError(f"{self.path}: {why}")

    def filter_shape(self, layer: Layer) -> tuple[int, ...]:
        """Return the shape (height, width, in, out) of a convolution's filter."""
        if not 1 <= len(layer.params) <= 2:
            self.refuse(f"layer {layer.name!r} has {len(layer.params)} parameters; a filter and perhaps a bias are needed")
        shape = self.params[layer.params[0]].shape
        return (*shape, *(1,) * (4 - len(shape)))

    def numbers(self, layer: Layer, key: str, count: int, *, default: int = 0) -> tuple[int, ...]:
        """Return a setting of a layer as `count` whole numbers; one stands for all, and two of four for both sides of an axis."""
        value = layer.block.get(key)
        if value is None:
            return (default,) * count
        few = value.ravel(order="F").tolist() if isinstance(value, np.ndarray) and value.size <= 4 else []
        numbers = tuple(int(number) for number in few if np.isfinite(number) and number == int(number))
        if len(numbers) == 1:
            numbers *= count
        if count == 4 and len(numbers) == 2:
            numbers = (numbers[0], numbers[0], numbers[1], numbers[1])
        if len(numbers) != count:
            self.refuse(f"layer {layer.name!r} has a {key} that is not {count} whole numbers")
        return numbers


def read_dagnn(path: Path) -> DagNN:
    """Read a DagNN from a MATLAB file, either from its variable ``net`` or from its variables ``layers``, ``params`` and ``meta``.

    Raises
    ------
    CheckpointError
        If the file is no MATLAB file, is damaged, or holds another kind of network, which the error names.
    OSError
        If the file cannot be read.
    """
    return dagnn_of(path, read_stored(path))


def read_stored(path: Path) -> Mapping[str, MatlabValue]:
    """Return the fields of the network in a MATLAB file, of either kind; ``layers`` is one of them. Raises as `read_dagnn` does."""
    variables = read_matlab(path, VARIABLES)
    stored: Mapping[str, MatlabValue] = variables
    if "net" in variables:
        net = variables["net"]
        if not isinstance(net, StructArray) or len(net.elements) != 1:
            raise CheckpointError(f"{path}: its variable net is not a struct; a MATLAB object must be saved as net.saveobj()")
        stored = net.elements[0]
    if "layers" not in stored:
        raise CheckpointError(f"{path}: it holds no network of MatConvNet: there is neither a variable net nor layers")
    return stored


def dagnn_of(path: Path, stored: Mapping[str, MatlabValue], *, kinds: Sequence[str] = KINDS) -> DagNN:
    """Return the DagNN whose fields are given, of layers of these kinds; raises as `read_dagnn` does."""
    return _Reading(path, kinds).network(stored)


class _Reading:
    """Reads the parts of one file; every refusal names it."""

    def __init__(self, path: Path, kinds: Sequence[str]) -> None:
        self._path, self._kinds = path, kinds

    def network(self, stored: Mapping[str, MatlabValue]) -> DagNN:
        if isinstance(stored["layers"], CellArray):
            kinds = [self._simple_kind(layer) for layer in stored["layers"].elements]
            self._refuse(
                f"it holds a SimpleNN of {len(kinds)} layers ({', '.join(dict.fromkeys(kinds))}), such as a VGG network; "
                "flowkit reads residual networks stored as DagNN (ResNet-50, 101 and 152, and ST-ResNet)"
            )
        layers = tuple(self._layer(item) for item in self._items(stored["layers"], "layers"))
        params = self._params(stored.get("params"))
        self._check_names(layers, params)
        mean, names = meta_of(self._path, fields_of(stored.get("meta")))
        return DagNN(self._path, layers, params, mean, names)

    def _layer(self, item: Mapping[str, MatlabValue]) -> Layer:
        name, kind = self._text(item, "name", "a layer"), self._text(item, "type", "a layer")
        if kind.removeprefix(_PREFIX) not in self._kinds or not kind.startswith(_PREFIX):
            what = "no residual network has" if self._kinds is KINDS else "flowkit does not read here"
            self._refuse(f"layer {name!r} has the type {kind[:64]!r}, which {what} (flowkit reads {', '.join(self._kinds)})")
        lists = [self._texts(item.get(key, CellArray(())), f"{key} of layer {name!r}") for key in ("inputs", "outputs", "params")]
        return Layer(name, kind.removeprefix(_PREFIX), lists[0], lists[1], lists[2], fields_of(item.get("block")))

    def _params(self, stored: MatlabValue | None) -> dict[str, NDArray[np.float64]]:
        params: dict[str, NDArray[np.float64]] = {}
        for item in self._items(stored, "params"):
            name, value = self._text(item, "name", "a parameter"), item.get("value")
            if name in params:
                self._refuse(f"it has two parameters {name!r}")
            if not isinstance(value, np.ndarray) or value.dtype not in (np.float32, np.float64) or not value.size:
                self._refuse(f"parameter {name!r} is not an array of single or double numbers")
            if not np.isfinite(value).all():
                self._refuse(f"parameter {name!r} has values that are not finite")
            params[name] = value.astype(np.float64)
        return params

    def _check_names(self, layers: tuple[Layer, ...], params: Mapping[str, Any]) -> None:
        """Check that names are unique, and that every parameter belongs to exactly one layer."""
        for what, counts in (
            ("layers called", Counter(layer.name for layer in layers)),
            ("layers that write variable", Counter(name for layer in layers for name in layer.outputs)),
            ("layers that use parameter", Counter(name for layer in layers for name in layer.params)),
        ):
            twice = [name for name, count in counts.items() if count > 1]
            if twice:
                self._refuse(f"there are {counts[twice[0]]} {what} {twice[0]!r}")
        used = {name for layer in layers for name in layer.params}
        for name in sorted(used - params.keys()):
            self._refuse(f"a layer uses parameter {name!r}, which the file lacks")
        for name in sorted(params.keys() - used):
            self._refuse(f"no layer uses parameter {name!r}")

    def _items(self, value: MatlabValue | None, what: str) -> tuple[Mapping[str, MatlabValue], ...]:
        if not isinstance(value, StructArray) or not value.elements:
            self._refuse(f"its {what} are not a struct array")
        return value.elements

    def _text(self, item: Mapping[str, MatlabValue], key: str, where: str) -> str:
        value = item.get(key)
        if not isinstance(value, str) or not value:
            self._refuse(f"{where} has no {key}")
        return value

    def _texts(self, value: MatlabValue, what: str) -> tuple[str, ...]:
        return _texts_of(self._path, value, what)

    def _simple_kind(self, layer: MatlabValue) -> str:
        kind = fields_of(layer).get("type")
        return kind[:32] if isinstance(kind, str) else "unknown"

    def _refuse(self, why: str) -> NoReturn:
        raise CheckpointError(f"{self._path}: {why}")


def fields_of(value: MatlabValue | None) -> Mapping[str, MatlabValue]:
    """Return the fields of a scalar struct; none if the value is anything else."""
    return value.elements[0] if isinstance(value, StructArray) and len(value.elements) == 1 else {}


def meta_of(path: Path, meta: Mapping[str, MatlabValue]) -> tuple[NDArray[np.float64] | None, tuple[str, ...]]:
    """Return the average image and the class names that the meta data of a network hold."""
    mean = fields_of(meta.get("normalization")).get("averageImage")
    names = fields_of(meta.get("classes")).get("description")
    average = None
    if isinstance(mean, np.ndarray) and mean.size:
        average = mean.astype(np.float64)
        if not np.isfinite(average).all():
            raise CheckpointError(f"{path}: its averageImage has values that are not finite")
    return average, _texts_of(path, names, "the class names") if isinstance(names, CellArray) else ()


def _texts_of(path: Path, value: MatlabValue, what: str) -> tuple[str, ...]:
    """Return the texts of a cell array; a single text, or an empty array, is one too."""
    if isinstance(value, str):
        return (value,) if value else ()
    if isinstance(value, np.ndarray) and not value.size:
        return ()
    if not isinstance(value, CellArray) or not all(isinstance(part, str) for part in value.elements):
        raise CheckpointError(f"{path}: {what} are not texts")
    return tuple(str(part) for part in value.elements)
