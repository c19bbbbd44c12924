"""The parameters of TV-L1 and the three presets of the field (standard library only)."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, fields
from numbers import Integral, Real

from flowkit.errors import ParameterError

PRESETS = ("opencv", "paper", "denseflow")
MODES = ("strict", "fast")  # of the CPU's solver

_MOST = 2**31 - 1  # of anything that is counted


@dataclass(frozen=True)
class TVL1Params:
    """Parameters of the duality-based TV-L1 solver [1]_, [2]_, named after their meaning, with the paper's letter.

    Parameters
    ----------
    tau : float
        Time step of the dual update.
    lambda_ : float
        Weight of the data term (attachment), for frames of range 0..255.
    theta : float
        Tightness of the coupling between u and its auxiliary v.
    num_scales : int
        Pyramid levels at most; levels with a side below 16 px are not made.
    scale_step : float
        Size ratio of one pyramid level to the finer one, in (0, 1).
    num_warps : int
        Warps per pyramid level.
    epsilon : float
        Iterations stop when the mean squared update per pixel is at most ``epsilon**2``.
    inner_iterations, outer_iterations : int
        Iterations per outer loop, and outer loops per warp. A median filter precedes each outer loop.
    median_size : int
        Side of the median filter: 5 or 3; 1 is none.

    Raises
    ------
    ParameterError
        If a value is out of its range.

    References
    ----------
    .. [1] Zach, Pock, Bischof, "A duality based approach for realtime TV-L1 optical flow", DAGM 2007.
    .. [2] Sanchez, Meinhardt-Llopis, Facciolo, "TV-L1 optical flow estimation", IPOL 2013,
       doi:10.5201/ipol.2013.26
    """

    tau: float = 0.25
    lambda_: float = 0.15
    theta: float = 0.3
    num_scales: int = 5
    scale_step: float = 0.8
    num_warps: int = 5
    epsilon: float = 0.01
    inner_iterations: int = 30
    outer_iterations: int = 10
    median_size: int = 5

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            whole = field.type == "int"
            if isinstance(value, bool) or not isinstance(value, Integral if whole else Real):
                raise ParameterError(f"TV-L1 {field.name} must be {'a whole' if whole else 'a'} number, got {value!r}")
            number = int(value) if isinstance(value, Integral) else float(value)
            if not 0 < number <= (_MOST if whole else sys.float_info.max):
                raise ParameterError(f"TV-L1 {field.name} must be positive and {f'at most {_MOST}' if whole else 'finite'}, got {value!r}")
            object.__setattr__(self, field.name, number if whole else float(number))
        if not self.scale_step < 1:
            raise ParameterError(f"TV-L1 scale_step must be below 1, got {self.scale_step!r}")
        if self.median_size not in (1, 3, 5):
            raise ParameterError(f"TV-L1 median_size must be 1 (none), 3 or 5, got {self.median_size!r}")

    @classmethod
    def preset(cls, name: str) -> TVL1Params:
        """Return a named set of parameters.

        Parameters
        ----------
        name : {"opencv", "paper", "denseflow"}
            ``opencv``: the defaults of OpenCV's CPU ``DualTVL1OpticalFlow``. ``paper``: those of OpenCV 2.4's GPU class, which
            computed the flow of the ST-ResNet paper. ``denseflow``: those of OpenCV 4's CUDA class.

        Notes
        -----
        The CUDA classes differ from the CPU class in more than parameters (pyramid shift, warp kernel, borders), which is not
        reproduced: a preset is its parameters run through flowkit's one solver.
        """
        if name == "opencv":
            return cls()
        if name == "paper":
            return cls(scale_step=0.5, inner_iterations=300, outer_iterations=1, median_size=1)
        if name == "denseflow":
            return cls(inner_iterations=300, outer_iterations=1, median_size=1)
        raise ParameterError(f"unknown TV-L1 preset {name!r}; choose one of {', '.join(PRESETS)}")

    def to_dict(self) -> dict[str, float | int]:
        """Return the parameters as built-in types, as stored with the flow."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: object) -> TVL1Params:
        """Make parameters from what `to_dict` returned; anything else, and unknown names, raise `ParameterError`."""
        if not isinstance(values, dict):
            raise ParameterError(f"TV-L1 parameters must be a dict of names and values, got {values!r}")
        unknown = sorted(str(name) for name in set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ParameterError(f"unknown TV-L1 parameters: {', '.join(unknown)}")
        return cls(**values)
