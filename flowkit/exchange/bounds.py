"""The bounds at which tools clip flow when a known project runs them (standard library only, for the help of the command line).

Images do not say at which flow their tool clipped, and one tool was run with several bounds:

* gpu_flow clips at 20 (``clipFlow`` in its ``compute_flow.cpp``).
* denseflow clips at 32 and dense_flow at 15 (the defaults of their option ``bound``).
* mmaction2's ``tools/data/build_rawframes.py`` calls ``denseflow ... -b=20``; before, it called dense_flow with 20.
* TSN's ``tools/build_of.py`` calls dense_flow as ``extract_gpu ... -b 20``.
"""

from __future__ import annotations

from dataclasses import dataclass

from flowkit.dataset.settings import ForeignTool
from flowkit.errors import ParameterError


@dataclass(frozen=True)
class KnownBound:
    """The bound (px/frame) of a project that ran one of some tools, or of a tool that was run with its own default."""

    bound_px: float
    tools: tuple[ForeignTool, ...]


KNOWN_BOUNDS: dict[str, KnownBound] = {
    "mmaction2": KnownBound(20.0, ("denseflow", "dense_flow")),
    "tsn": KnownBound(20.0, ("dense_flow",)),
    "gpu_flow": KnownBound(20.0, ("gpu_flow",)),
    "denseflow": KnownBound(32.0, ("denseflow",)),
    "dense_flow": KnownBound(15.0, ("dense_flow",)),
}


def bound_of(name: str, tool: ForeignTool) -> float:
    """Return the bound of a project, or of a tool that was run by hand with its default.

    Parameters
    ----------
    name : str
        A key of `KNOWN_BOUNDS`, or ``default``, which stands for the tool if no project ran it with another bound.
    tool : {"gpu_flow", "denseflow", "dense_flow"}
        The tool that wrote the images.

    Raises
    ------
    ParameterError
        If the name does not decide the bound, or belongs to other tools.

    Examples
    --------
    >>> bound_of("mmaction2", "denseflow"), bound_of("denseflow", "denseflow"), bound_of("default", "gpu_flow")
    (20.0, 32.0, 20.0)
    """
    fitting = _fitting(tool)
    if name == "default":
        if len(fitting) == 1:
            return fitting[tool]
        raise ParameterError(
            f"the bound of {tool} depends on what ran it: {_texts(fitting, tool)}; give one of these names or the number of px/frame"
        )
    if name not in KNOWN_BOUNDS:
        raise ParameterError(f"{name!r} is neither a number of px/frame nor one of {', '.join(KNOWN_BOUNDS)}")
    if name not in fitting:
        raise ParameterError(f"{name} does not run {tool}: give the number of px/frame, or one of {_texts(fitting, tool)}")
    return fitting[name]


def bounds_text(tool: ForeignTool) -> str:
    """Return the known bounds of a tool, as messages list them."""
    return _texts(_fitting(tool), tool)


def _fitting(tool: ForeignTool) -> dict[str, float]:
    return {key: known.bound_px for key, known in KNOWN_BOUNDS.items() if tool in known.tools}


def _texts(bounds: dict[str, float], tool: ForeignTool) -> str:
    return ", ".join(f"{name} {bound:g}" + " (run by hand)" * (name == tool) for name, bound in bounds.items())
