"""A mixture of Gaussians with diagonal covariances: its parameters, and how likely it is that a component gave a descriptor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import ParameterError

_NEARLY = 1e-6


@dataclass(frozen=True)
class Mixture:
    """A mixture of K Gaussians in d dimensions, each with a diagonal covariance.

    Parameters
    ----------
    weights : float64 array, shape (K,)
        The probability of each component, above 0; their sum is 1.
    means : float64 array, shape (K, d)
        The components' means.
    deviations : float64 array, shape (K, d)
        Their standard deviations, above 0.

    Raises
    ------
    ParameterError
        If the shapes do not agree, or a number is out of its range.

    Examples
    --------
    >>> import numpy as np
    >>> from flowkit.model.encoding.mixture import Mixture
    >>> mixture = Mixture(weights=np.array([0.5, 0.5]), means=np.array([[-1.0], [1.0]]), deviations=np.ones((2, 1)))
    >>> mixture.responsibilities(np.array([[0.0], [3.0]])).round(3)
    array([[0.5  , 0.5  ],
           [0.002, 0.998]])
    """

    weights: NDArray[np.float64]
    means: NDArray[np.float64]
    deviations: NDArray[np.float64]

    def __post_init__(self) -> None:
        shapes = self.weights.shape, self.means.shape, self.deviations.shape
        if self.means.ndim != 2 or not self.means.size or shapes != (self.means.shape[:1], self.means.shape, self.means.shape):
            raise ParameterError(f"weights, means and deviations of the shapes {shapes} are no mixture (K,), (K, d), (K, d)")
        if not all(np.isfinite(values).all() for values in (self.weights, self.means, self.deviations)):
            raise ParameterError("a mixture must consist of finite numbers")
        if (self.weights <= 0).any() or abs(self.weights.sum() - 1) > _NEARLY:
            raise ParameterError(f"the weights of a mixture must be above 0 and have the sum 1, got {self.weights.sum():.9g}")
        if (self.deviations <= 0).any():
            raise ParameterError("the standard deviations of a mixture must be above 0")

    @property
    def num_components(self) -> int:
        """K."""
        return len(self.means)

    @property
    def num_dimensions(self) -> int:
        """d, the length of a projected descriptor."""
        return int(self.means.shape[1])

    def responsibilities(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the probability that each component gave each point, by Bayes's rule.

        Parameters
        ----------
        points : float64 array, shape (n, d)
            Projected descriptors.

        Returns
        -------
        float64 array, shape (n, K)
            The sum over the components is 1.
        """
        return self.responsibilities_of(self.with_squares(points))

    @property
    def centre(self) -> NDArray[np.float64]:
        """The mean of the mixture, shape (d,)."""
        centre: NDArray[np.float64] = self.weights @ self.means
        return centre

    def with_squares(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return points (n, d), measured from the mixture's mean, with their squares: (n, 2 d). A common offset then costs no digits."""
        offsets = points - self.centre
        return np.concatenate([offsets, offsets**2], axis=1)

    def responsibilities_of(self, with_squares: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return `responsibilities` of what `with_squares` returns."""
        means, precisions = self.means - self.centre, 1 / self.deviations**2
        # -(x - mu)^2 / (2 s^2) is linear in x and x^2, so the sum over d is a matrix product.
        logs = with_squares @ np.concatenate([means * precisions, precisions / -2], axis=1).T
        logs += np.log(self.weights) - np.log(self.deviations).sum(1) - (means**2 * precisions).sum(1) / 2
        logs -= logs.max(1, keepdims=True)
        shares: NDArray[np.float64] = np.exp(logs, out=logs)
        shares /= shares.sum(1, keepdims=True)
        return shares
