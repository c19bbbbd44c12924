"""The parameters of TV-L1 and the three presets in use (standard library only)."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, fields
from numbers import Integral, Real

from flowkit.errors import ParameterError

PRESETS = ("opencv", "paper", "denseflow")
MODES = ("strict", "fast")  # of the CPU solver
MIN_SIDE_PX = 16  # of frames and pyramid levels, as in OpenCV

_LARGEST = 2**31 - 1


@dataclass(frozen=True)
class TVL1Params:
    """Parameters of the duality-based TV-L1 method [1]_, [2]_. The defaults are those of OpenCV's ``DualTVL1OpticalFlow``.

    Parameters
    ----------
    tau : float
        Time step of the dual update.
    lambda_ : float
        Weight of the data term, for frames with values from 0 to 255.
    theta : float
        Tightness of the coupling between u and its auxiliary v.
    num_scales : int
        Largest number of pyramid levels; see `level_sizes`.
    scale_step : float
        Ratio of the size of a pyramid level to that of the next finer one, in (0, 1).
    num_warps : int
        Warps per pyramid level.
    epsilon : float
        Iterations stop when the mean squared update per pixel is at most ``epsilon**2``.
    inner_iterations, outer_iterations : int
        Largest number of iterations per outer loop, and of outer loops per warp. A median filter precedes each outer loop.
    median_size : {5, 3, 1}
        Side of the median filter, px; 1 means no filter.

    Raises
    ------
    ParameterError
        If a value is out of its range.

    References
    ----------
    .. [1] Zach, Pock, Bischof, "A duality based approach for realtime TV-L1 optical flow", DAGM 2007.
    .. [2] Sanchez, Meinhardt-Llopis, Facciolo, "TV-L1 optical flow estimation", IPOL 2013,
       doi:10.5201/ipol.2013.26

    Examples
    --------
    The repr shows what differs from the defaults.

    >>> from flowkit import TVL1Params
    >>> TVL1Params.preset("paper")
    TVL1Params(scale_step=0.5, inner_iterations=300, outer_iterations=1, median_size=1)
    >>> TVL1Params(num_warps=2).num_scales
    5
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
            if not 0 < number <= (_LARGEST if whole else sys.float_info.max):
                raise ParameterError(
                    f"TV-L1 {field.name} must be positive and {f'at most {_LARGEST}' if whole else 'finite'}, got {value!r}"
                )
            object.__setattr__(self, field.name, number if whole else float(number))
        if not self.scale_step < 1:
            raise ParameterError(f"TV-L1 scale_step must be below 1, got {self.scale_step!r}")
        if self.median_size not in (1, 3, 5):
            raise ParameterError(f"TV-L1 median_size must be 1 (none), 3 or 5, got {self.median_size!r}")

    def __repr__(self) -> str:
        changed = (f"{field.name}={value!r}" for field in fields(self) if (value := getattr(self, field.name)) != field.default)
        return f"TVL1Params({', '.join(changed)})"

    @classmethod
    def preset(cls, name: str) -> TVL1Params:
        """Return a named set of parameters.

        Parameters
        ----------
        name : {"opencv", "paper", "denseflow"}
            ``opencv``: the defaults of OpenCV's CPU class ``DualTVL1OpticalFlow``. ``paper``: the defaults of the GPU class of
            OpenCV 2.4, with which the flow of the ST-ResNet paper was computed. ``denseflow``: the defaults of OpenCV 4's CUDA class.

        Raises
        ------
        ParameterError
            If there is no such preset.

        Notes
        -----
        The CUDA classes differ from the CPU class not only in their parameters but also in the alignment of the pyramid, the
        interpolation kernel and the treatment of borders. These differences are not reproduced: a preset sets only parameters.
        """
        if name == "opencv":
            return cls()
        if name == "paper":
            return cls(scale_step=0.5, inner_iterations=300, outer_iterations=1, median_size=1)
        if name == "denseflow":
            return cls(inner_iterations=300, outer_iterations=1, median_size=1)
        raise ParameterError(f"unknown TV-L1 preset {name!r}; choose one of {', '.join(PRESETS)}")

    def level_sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Return (height, width) of every pyramid level, finest first.

        Each side is that of the finer level times `scale_step`, rounded half to even. There is no level with a side below 16 px.

        Parameters
        ----------
        height, width : int, px
            Size of the frames.

        Raises
        ------
        ParameterError
            If a side of the frames is below 16 px.
        """
        if min(height, width) < MIN_SIDE_PX:
            raise ParameterError(f"TV-L1 needs frames of at least {MIN_SIDE_PX} px per side, got {width}x{height}")
        sizes = [(height, width)]
        while len(sizes) < self.num_scales:
            coarser = (round(sizes[-1][0] * self.scale_step), round(sizes[-1][1] * self.scale_step))
            if min(coarser) < MIN_SIDE_PX:
                break
            sizes.append(coarser)
        return sizes

    def to_dict(self) -> dict[str, float | int]:
        """Return the parameters as built-in types, as they are stored with the flow."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: object) -> TVL1Params:
        """Return the parameters that `to_dict` described; raise `ParameterError` if that is something else."""
        if not isinstance(values, dict):
            raise ParameterError(f"TV-L1 parameters must be a dict of names and values, got {values!r}")
        unknown = sorted(str(name) for name in set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ParameterError(f"unknown TV-L1 parameters: {', '.join(unknown)}")
        return cls(**values)
