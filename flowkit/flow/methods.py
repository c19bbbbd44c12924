"""Flow methods besides TV-L1: each is found by its name, and recorded with all its parameters.

A method is a frozen dataclass. Its fields are its parameters, each a number, a text or a truth value with a default, and
``flows(frames)`` computes the flow; `Solver` says what else it may have. It is registered under its name in the entry-point group
`GROUP`, so that a package can bring one, which processes that start later find in the same way. In a checkout of flowkit, whose
installed metadata may be missing or old, the entries of its ``pyproject.toml`` count as well.

This module imports nothing beyond the standard library before a method is used.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from flowkit.errors import ParameterError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

GROUP = "flowkit.flow_methods"
NO_FLOW = "no-flow"  # stands where a method or a solver has its name, of clips and data roots that have frames only
TVL1 = "tvl1"
DISTRIBUTION = "flowkit-video"
# Those that need nothing but flowkit's own requirements, for a copy of this package without any metadata.
BUILT_IN = {"farneback": "flowkit.flow.other.farneback:Farneback", "dis": "flowkit.flow.other.dis:DIS"}
OF_MACHINE = {"of_machine": True}  # the metadata of a parameter that says where the flow was computed, as by which version of a library

Value = bool | int | float | str

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
# What a clip's attribute `solver` says of TV-L1 and of imported flow, where it names any other method.
_RESERVED = (TVL1, NO_FLOW, "strict", "fast", "cuda", "gpu_flow", "denseflow", "dense_flow", "imported")


_CHECKOUT = Path(__file__).resolve().parents[2] / "pyproject.toml"


class Solver(Protocol):
    """A flow method with its parameters: an instance of its dataclass.

    The class may have these besides: ``takes_rgb = True``, so that it receives RGB frames instead of grey ones; ``min_side_px``, the least
    side of its frames; ``prepare()``, which a worker process calls before its first video; and ``num_processes()``, which returns how many
    worker processes suffice because they share a GPU, or None for one per core.
    """

    def flows(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the flow, float32 (T - 1, 2, H, W) in px/frame, between consecutive frames, uint8 (T, H, W) with T of at least 2.

        RGB frames are (T, H, W, 3). Flow field k depends on frames k and k + 1 alone: long videos are solved in pieces.
        """


@dataclass(frozen=True)
class FlowMethod:
    """The name of a flow method that is not TV-L1, with all its parameters; `named` completes them.

    Parameters
    ----------
    name : str
        Its name in the entry-point group ``flowkit.flow_methods``: ``farneback``, ``dis``, or that of an installed package.
    params : dict of str to number, str or bool
        All parameters. They need not fit the method that is installed here, or any, until `solver` is called.

    Raises
    ------
    ParameterError
        If this cannot be a method's name, or these cannot be parameters.

    Examples
    --------
    >>> from flowkit import ExtractSettings, FlowMethod
    >>> settings = ExtractSettings(method=FlowMethod.named("farneback", win_size=21))
    >>> settings.differences(ExtractSettings(method=FlowMethod.named("farneback")))
    ['farneback win_size: 21, not 13']
    """

    name: str
    params: Mapping[str, Value] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name) or self.name in _RESERVED:
            raise ParameterError(
                f"a flow method has a name of small letters and digits, and none of {', '.join(_RESERVED)}; got {self.name!r}"
            )
        if not isinstance(self.params, Mapping) or not all(
            isinstance(key, str) and key != "name" and isinstance(value, (bool, int, float, str)) for key, value in self.params.items()
        ):
            raise ParameterError(f"parameters of a flow method are numbers, texts and truth values by name, got {self.params!r}")

    @classmethod
    def named(cls, name: str, **params: Value) -> FlowMethod:
        """Return a method with these parameters, and its defaults for the others.

        Raises
        ------
        ParameterError
            If there is no such method, or a parameter is unknown to it or out of its range.
        """
        solver: Any = FlowMethod(name, params).solver()
        return cls(name, asdict(solver))

    def solver(self) -> Solver:
        """Return the installed method with these parameters.

        Raises
        ------
        ParameterError
            If there is no such method here, or it does not take these parameters.
        """
        made = _class_of(self.name)
        defaults = method_defaults(self.name)
        values: dict[str, Value] = {}
        for key, value in self.params.items():
            if key not in defaults:
                raise ParameterError(f"{self.name} has no parameter {key!r}; it has {', '.join(defaults) or 'none'}")
            kind = type(defaults[key])
            number = float(value) if kind is float and type(value) is int else value
            if type(number) is not kind:
                raise ParameterError(f"{self.name} {key} must be {_KINDS.get(kind, kind.__name__)}, got {value!r}")
            values[key] = number
        solver: Solver = made(**values)
        return solver

    def as_here(self) -> FlowMethod:
        """Return the same method as this machine computes it: the parameters that say where flow was computed are those of this one.

        Raises
        ------
        ParameterError
            As by `solver`.
        """
        of_machine = {entry.name for entry in fields(_class_of(self.name)) if entry.metadata.get("of_machine")}
        return FlowMethod.named(self.name, **{key: value for key, value in self.params.items() if key not in of_machine})

    @property
    def takes_rgb(self) -> bool:
        """Whether the method takes RGB frames instead of grey ones."""
        return bool(getattr(_class_of(self.name), "takes_rgb", False))

    def check_size(self, height: int, width: int) -> None:
        """Raise `ParameterError` if frames of this size are too small for the method."""
        least = getattr(_class_of(self.name), "min_side_px", 1)
        if min(height, width) < least:
            raise ParameterError(f"{self.name} needs frames of at least {least} px per side, got {width}x{height}")

    def prepare(self) -> None:
        """Load what a worker process needs before its first video."""
        solver = self.solver()
        getattr(solver, "prepare", lambda: None)()

    def num_processes(self) -> int | None:
        """Return how many worker processes suffice; None is one per core."""
        found: int | None = getattr(self.solver(), "num_processes", lambda: None)()
        return found

    def flows(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the flow between consecutive frames as float32 (T - 1, 2, H, W) in px/frame.

        Parameters
        ----------
        frames : uint8 array, shape (T, H, W) grey, or (T, H, W, 3) RGB for a method that takes these
            The frames.

        Raises
        ------
        ParameterError
            If the method refuses its parameters or the frames, or if it does not return such an array.
        """
        import numpy as np

        solver, due = self.solver(), (max(len(frames) - 1, 0), 2, *frames.shape[1:3])
        if not due[0]:
            return np.empty(due, np.float32)
        self.check_size(*frames.shape[1:3])
        flow = solver.flows(frames)
        if not isinstance(flow, np.ndarray) or flow.dtype != np.float32 or flow.shape != due:
            got = f"{flow.dtype} {flow.shape}" if isinstance(flow, np.ndarray) else type(flow).__name__
            raise ParameterError(f"the flow method {self.name!r} must return float32 {due}, got {got}; ask its author")
        if not np.isfinite(flow).all():
            raise ParameterError(f"{self} gives flow that is no finite number; use other parameters")
        return flow

    def to_dict(self) -> dict[str, Value]:
        """Return the name and the parameters as one table, as they are stored with the flow."""
        return {"name": self.name, **self.params}

    @classmethod
    def from_dict(cls, values: object) -> FlowMethod:
        """Return the method that `to_dict` described; raise `ParameterError` if that is something else."""
        if not isinstance(values, Mapping) or "name" not in values:
            raise ParameterError(f"a flow method must be a dict with its name and its parameters, got {values!r}")
        return cls(values["name"], {key: value for key, value in values.items() if key != "name"})

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(f'{key} {value}' for key, value in self.params.items())})" if self.params else self.name


_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


@cache
def _class_of(name: str) -> Any:
    """Return the dataclass of a method."""
    places = _entries().get(name, ())
    if len(places) > 1:
        raise ParameterError(f"several packages bring a flow method {name!r} ({', '.join(sorted(places))}); uninstall all but one")
    if not places:
        raise ParameterError(
            f"unknown flow method {name!r}; choose one of {', '.join(method_names())}, or install the package that brings it"
        )
    (where,) = places
    module, _, attribute = where.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except ModuleNotFoundError as cause:
        missing = (cause.name or "").partition(".")[0]
        if not missing or missing == module.partition(".")[0]:
            raise ParameterError(f"the flow method {name!r} cannot be loaded from {where}: {cause}") from cause
        install = f"{Path(sys.executable).name} -m pip install {missing}"
        raise ParameterError(f"the flow method {name!r} needs the package {missing}, which is not installed: {install}") from cause
    except (ImportError, AttributeError) as cause:
        raise ParameterError(f"the flow method {name!r} cannot be loaded from {where}: {cause}") from cause
    if not (isinstance(found, type) and is_dataclass(found) and callable(getattr(found, "flows", None))):
        raise ParameterError(f"the flow method {name!r}, {where}, must be a dataclass with a method `flows`; ask its author")
    if any(entry.default is MISSING or type(entry.default) not in _KINDS or entry.name == "name" for entry in fields(found)):
        raise ParameterError(f"a parameter of the flow method {name!r}, {where}, has no plain default, or is called `name`; ask its author")
    return found


def method_defaults(name: str) -> dict[str, Value]:
    """Return the parameters of a method that is not TV-L1, with their defaults; raise `ParameterError` if it cannot be loaded."""
    defaults: dict[str, Any] = {entry.name: entry.default for entry in fields(_class_of(name))}
    return defaults


def method_names() -> list[str]:
    """Return the names of all flow methods that can be used here, TV-L1's first."""
    return list(dict.fromkeys([TVL1, *_own_entries(), *sorted(_entries())]))


def _entries() -> dict[str, set[str]]:
    """Return where the class of each method lies, by name: in more than one place only if several packages bring it."""
    from importlib.metadata import entry_points  # not at the top: it takes longer to load than all the settings

    own = _own_entries()
    places = {name: {where} for name, where in own.items()}
    for entry in entry_points(group=GROUP):
        if entry.name not in own:
            places.setdefault(entry.name, set()).add(entry.value)
    return places


@cache
def _own_entries() -> dict[str, str]:
    """Return the entries of flowkit itself: those of its checkout, or of its installed distribution."""
    from importlib.metadata import entry_points

    try:
        declared = _tomllib().loads(_CHECKOUT.read_text(encoding="utf-8"))["project"]
        if declared["name"] == DISTRIBUTION:
            return {**BUILT_IN, **declared["entry-points"][GROUP]}
    except (OSError, ValueError, KeyError, TypeError):  # not a checkout
        pass
    ours = [entry for entry in entry_points(group=GROUP) if entry.dist is not None and entry.dist.name == DISTRIBUTION]
    return {**BUILT_IN, **{entry.name: entry.value for entry in ours}}


def _tomllib() -> Any:
    return import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
