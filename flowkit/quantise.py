"""Quantise flow to bytes and back: the two mappings of the field, their error bounds and their mirror images.

Both mappings store zero motion as 128, so that ``q - 128`` is zero where nothing moves.
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
ZERO = 128  # the byte of zero motion, in both mappings


@dataclass(frozen=True)
class Quantiser:
    """A mapping between flow in px/frame and bytes.

    Parameters
    ----------
    bound : float, px/frame
        Displacements beyond ``+-bound`` are clipped. 20 is the bound of the ST-ResNet paper's data.
    mapping : {"symmetric", "paper"}
        ``symmetric``: ``clip(round(127 v / b), -127, 127) + 128``; byte 0 never occurs in encoded data.
        ``paper``: ``clip(round(255 (v + b) / (2 b)), 0, 255)``, as gpu_flow and denseflow.

    Raises
    ------
    ParameterError
        If the bound is not a number from 1e-6 to below 1e6, or the mapping is unknown.

    Notes
    -----
    Rounding is half to even (``numpy.rint``, as ``cvRound`` of gpu_flow). It is done in float64, so that equal
    float32 flows give equal bytes on every machine.
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
        """Largest ``|decode(encode(v)) - v|`` for ``|v| <= bound``, in px/frame (float32 round-off included).

        The ``paper`` mapping stores zero as 128, whose exact value is ``b/255``; ``decode`` uses that exact affine
        inverse, so its bound is half a step too.
        """
        half_step = self.bound / 254 if self.mapping == "symmetric" else self.bound / 255
        return half_step * (1 + 1e-4)

    def encode(self, flow: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Quantise flow.

        Parameters
        ----------
        flow : float array, any shape, px/frame

        Returns
        -------
        uint8 array of the same shape

        Raises
        ------
        ParameterError
            If the flow holds NaN or infinity.
        """
        import numpy as np

        if not np.isfinite(flow).all():
            raise ParameterError("flow holds NaN or infinity; it cannot be quantised (do the TV-L1 parameters diverge? try a preset)")
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
        q : uint8 array, any shape

        Returns
        -------
        float32 array of the same shape, px/frame
        """
        import numpy as np

        self._check_bytes(q)
        if self.mapping == "symmetric":
            # A JPEG codec can produce byte 0, which encode never does; it stands for the same flow as byte 1.
            table = ((np.maximum(np.arange(256), 1) - ZERO) * (self.bound / 127)).astype(np.float32)
        else:
            table = (np.arange(256) * (2 * self.bound / 255) - self.bound).astype(np.float32)
        decoded: NDArray[np.float32] = table[q]
        return decoded

    def flip_u(self, q: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the bytes of ``-u`` for the bytes of ``u``: what a mirror image does to horizontal flow.

        Notes
        -----
        ``symmetric``: ``256 - max(q, 1)``, exact, and 128 stays 128. ``paper``: ``255 - q`` as the official code, so
        zero motion flips to 127. Only the values change here; mirroring the columns is the caller's.
        """
        import numpy as np

        self._check_bytes(q)
        if self.mapping == "symmetric":
            return (256 - np.maximum(q, np.uint8(1)).astype(np.int16)).astype(np.uint8)
        return np.uint8(255) - q

    def to_dict(self) -> dict[str, float | str]:
        """Return the settings as built-in types, as stored with the data."""
        return {"bound": self.bound, "mapping": self.mapping}

    @classmethod
    def from_dict(cls, settings: object) -> Quantiser:
        """Make a quantiser from what `to_dict` returned, refusing anything else.

        Raises
        ------
        ParameterError
            If keys are missing, unknown or of a wrong type.
        """
        if not isinstance(settings, dict) or set(settings) != {"bound", "mapping"}:
            raise ParameterError(f"quantiser settings must have the keys bound and mapping, got {settings!r}")
        return cls(bound=settings["bound"], mapping=settings["mapping"])

    @staticmethod
    def _check_bytes(q: NDArray[np.uint8]) -> None:
        if q.dtype.name != "uint8":
            raise ParameterError(f"quantised flow must be uint8, got {q.dtype}")
