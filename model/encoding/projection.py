"""The projection of descriptors onto their principal components."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import ParameterError


@dataclass(frozen=True)
class Projection:
    """Principal components of descriptors: ``y = (x - mean) components'``.

    Parameters
    ----------
    mean : float64 array, shape (D,)
        The mean of the descriptors.
    components : float64 array, shape (d, D)
        The directions of the largest variance, the largest first: orthonormal, or if they whiten, divided by the standard deviations.

    Raises
    ------
    ParameterError
        If the shapes do not agree, or a number is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from flowkit.model.encoding.projection import Projection
    >>> Projection(mean=np.array([1.0, 2.0]), components=np.array([[0.6, 0.8]])).apply(np.array([[2.0, 2.0]]))
    array([[0.6]])
    """

    mean: NDArray[np.float64]
    components: NDArray[np.float64]

    def __post_init__(self) -> None:
        agree = self.mean.ndim == 1 and self.components.ndim == 2 and self.components.shape[1:] == self.mean.shape
        if not agree or not 1 <= len(self.components) <= len(self.mean):
            raise ParameterError(f"a mean {self.mean.shape} and components {self.components.shape} are no projection (D,), (d, D)")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.components).all()):
            raise ParameterError("a projection must consist of finite numbers")

    @property
    def num_inputs(self) -> int:
        """D, the length of a descriptor."""
        return len(self.mean)

    @property
    def num_outputs(self) -> int:
        """d, the number of components."""
        return len(self.components)

    def apply(self, descriptors: NDArray[np.floating]) -> NDArray[np.float64]:
        """Project descriptors (n, D).

        Returns
        -------
        float64 array, shape (n, d)
        """
        projected: NDArray[np.float64] = (descriptors.astype(np.float64) - self.mean) @ self.components.T
        return projected
