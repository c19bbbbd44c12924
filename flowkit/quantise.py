"""Quantise flow to bytes and back: the two mappings in use, their error bounds and their mirror images.

Both mappings store zero motion as 128, so ``q - 128`` is zero where nothing moves.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Literal, get_args

from flowkit.errors import ParameterError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Mapping = Literal["symmetric", "paper"]
ZERO = 128  # the byte for zero motion, in both mappings


@dataclass(frozen=True)
class Quantiser:
    """A mapping between flow in px/frame and bytes.

    Parameters
    ----------
    bound : float, px/frame
        Displacements outside ``[-bound, bound]`` are clipped. 20 is the bound of the ST-ResNet paper's data.
    mapping : {"symmetric", "paper"}
        ``symmetric``: ``clip(round(127 v / b), -127, 127) + 128`` for the displacement v and the bound b; the byte 0 never
        occurs in encoded data. ``paper``: ``clip(round(255 (v + b) / (2 b)), 0, 255)``, as in gpu_flow and denseflow.

    Raises
    ------
    ParameterError
        If the bound is not a number from 1e-6 to below 1e6, or the mapping is unknown.

    Notes
    -----
    Halves are rounded to even numbers (``numpy.rint``, like ``cvRound`` in gpu_flow). All arithmetic is in float64, so
    that equal float32 flows give equal bytes on every machine.

    Examples
    --------
    >>> import numpy as np
    >>> from flowkit import Quantiser
    >>> quantiser = Quantiser(bound=20)
    >>> q = quantiser.encode(np.array([-30, -1, 0, 1, 20], np.float32))
    >>> q
    array([  1, 122, 128, 134, 255], dtype=uint8)
    >>> quantiser.decode(q).round(2)
    array([-20.  ,  -0.94,   0.  ,   0.94,  20.  ], dtype=float32)
    >>> quantiser.flip_u(q)
    array([255, 134, 128, 122,   1], dtype=uint8)
    """

    bound: float = 20.0
    mapping: Mapping = "symmetric"

    def __post_init__(self) -> None:
        bound: object = self.bound
        if isinstance(bound, bool) or not isinstance(bound, Real) or not 1e-6 <= bound < 1e6:  # type: ignore[operator]
            raise ParameterError(f"quantiser bound must be a number of px/frame from 1e-6 to below 1e6, got {bound!r}")
        if self.mapping not in get_args(Mapping):
            raise ParameterError(f"quantiser mapping must be one of {get_args(Mapping)}, got {self.mapping!r}")
        object.__setattr__(self, "bound", float(bound))

    @property
    def max_error_px(self) -> float:
        """Largest ``|decode(encode(v)) - v|`` for ``|v| <= bound``, in px/frame (including float32 rounding).

        The ``paper`` mapping stores zero as 128, which stands for ``bound / 255``; `decode` uses this exact affine inverse,
        so the error of this mapping is at most half a step as well.
        """
        half_step = self.bound / 254 if self.mapping == "symmetric" else self.bound / 255
        return half_step * (1 + 1e-4)

    def encode(self, flow: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Quantise flow.

        Parameters
        ----------
        flow : float array of any shape, px/frame
            The flow.

        Returns
        -------
        uint8 array of the same shape

        Raises
        ------
        ParameterError
            If the flow contains NaN or infinity.
        """
        import numpy as np

        if not np.isfinite(flow).all():
            raise ParameterError(
                "the flow contains NaN or infinity and cannot be quantised; if the TV-L1 parameters make it diverge, use those of a preset"
            )
        scaled = np.asarray(flow, dtype=np.float64)
        if self.mapping == "symmetric":
            levels = np.clip(np.rint(scaled * (127 / self.bound)), -127, 127) + ZERO
        else:
            levels = np.clip(np.rint((scaled + self.bound) * (255 / (2 * self.bound))), 0, 255)
        return levels.astype(np.uint8)

    def decode(self, q: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the flow that bytes stand for.

        Parameters
        ----------
        q : uint8 array of any shape
            Quantised flow.

        Returns
        -------
        float32 array of the same shape, px/frame
        """
        import numpy as np

        self._check_bytes(q)
        if self.mapping == "symmetric":
            # A JPEG codec can produce the byte 0, which `encode` never does; it stands for the same flow as the byte 1.
            table = ((np.maximum(np.arange(256), 1) - ZERO) * (self.bound / 127)).astype(np.float32)
        else:
            table = (np.arange(256) * (2 * self.bound / 255) - self.bound).astype(np.float32)
        decoded: NDArray[np.float32] = table[q]
        return decoded

    def flip_u(self, q: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the bytes of ``-u`` for the bytes of ``u``: the horizontal flow of a mirror image.

        Parameters
        ----------
        q : uint8 array of any shape
            Quantised horizontal flow.

        Returns
        -------
        uint8 array of the same shape

        Notes
        -----
        ``symmetric``: ``256 - max(q, 1)``, which is exact, and 128 stays 128. ``paper``: ``255 - q`` as in the official
        code of the ST-ResNet paper, so zero motion becomes 127. Only the values change; the caller mirrors the columns.
        """
        import numpy as np

        self._check_bytes(q)
        if self.mapping == "symmetric":
            return (256 - np.maximum(q, np.uint8(1)).astype(np.int16)).astype(np.uint8)
        return np.uint8(255) - q

    def to_dict(self) -> dict[str, float | str]:
        """Return the bound and the mapping as built-in types, as they are stored with the data."""
        return {"bound": self.bound, "mapping": self.mapping}

    @classmethod
    def from_dict(cls, settings: object) -> Quantiser:
        """Return the quantiser that `to_dict` described.

        Raises
        ------
        ParameterError
            If a key is missing or unknown, or a value is of a wrong type or out of its range.
        """
        if not isinstance(settings, dict) or set(settings) != {"bound", "mapping"}:
            raise ParameterError(f"quantiser settings must have the keys bound and mapping, got {settings!r}")
        return cls(bound=settings["bound"], mapping=settings["mapping"])

    @staticmethod
    def _check_bytes(q: NDArray[np.uint8]) -> None:
        if q.dtype.name != "uint8":
            raise ParameterError(f"quantised flow must be uint8, got {q.dtype}")
