"""Fisher vectors from sums over descriptors, which are added up block by block: a long video needs no more memory than a short one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import ParameterError
from flowkit.model.encoding.mixture import Mixture

BLOCK = 2048  # points at once: with 256 components, 4 MB of responsibilities


@dataclass(frozen=True)
class FisherSums:
    """What the Fisher vector of a set of points needs to know about it. The sums of two sets add up to those of both together.

    Parameters
    ----------
    num_points : int
        N, the number of points.
    shares : float64 array, shape (K,)
        The sum over the points of their responsibilities ``g_nk``.
    firsts, seconds : float64 array, shape (K, d)
        The sums of ``g_nk x_n`` and ``g_nk x_n^2``, with x measured from the mixture's mean.

    Examples
    --------
    >>> import numpy as np
    >>> from flowkit.model.encoding.fisher import FisherSums
    >>> from flowkit.model.encoding.mixture import Mixture
    >>> mixture = Mixture(weights=np.array([0.5, 0.5]), means=np.array([[-1.0], [1.0]]), deviations=np.ones((2, 1)))
    >>> first, second = (FisherSums.of(np.array([[x]]), mixture) for x in (1.0, 2.0))
    >>> (first + second).vector(mixture).round(3)
    array([0.118, 0.59 , 0.061, 0.009])
    """

    num_points: int
    shares: NDArray[np.float64]
    firsts: NDArray[np.float64]
    seconds: NDArray[np.float64]

    @classmethod
    def none(cls, mixture: Mixture) -> FisherSums:
        """Return the sums over no points."""
        return cls(0, np.zeros(mixture.num_components), np.zeros_like(mixture.means), np.zeros_like(mixture.means))

    @classmethod
    def of(cls, points: NDArray[np.float64], mixture: Mixture) -> FisherSums:
        """Return the sums over points (n, d).

        Raises
        ------
        ParameterError
            If the points have another number of dimensions than the mixture, or are not finite.
        """
        if points.ndim != 2 or points.shape[1] != mixture.num_dimensions:
            raise ParameterError(f"the mixture needs points of the shape (n, {mixture.num_dimensions}), got {points.shape}")
        if not np.isfinite(points).all():
            raise ParameterError("points that are not finite have no Fisher vector")
        total = cls.none(mixture)
        for block in _blocks(points):
            powers = mixture.with_squares(block)
            shares = mixture.responsibilities_of(powers)
            firsts, seconds = np.split(shares.T @ powers, 2, axis=1)
            total += cls(len(block), shares.sum(0), firsts, seconds)
        return total

    def __add__(self, other: FisherSums) -> FisherSums:
        return FisherSums(
            self.num_points + other.num_points, self.shares + other.shares, self.firsts + other.firsts, self.seconds + other.seconds
        )

    def vector(self, mixture: Mixture) -> NDArray[np.float64]:
        """Return the Fisher vector before its norms, shape (2 K d,): first the part of the means, then that of the deviations.

        No points give zeros. `fisher_reference.fisher_vector` is the same, written as in the paper.
        """
        if not self.num_points:
            return np.zeros(2 * mixture.means.size)
        means, shares, weights = mixture.means - mixture.centre, self.shares[:, None], mixture.weights[:, None]
        centred = self.firsts - means * shares
        squares = self.seconds - 2 * means * self.firsts + means**2 * shares
        of_means = centred / (mixture.deviations * np.sqrt(weights))
        of_deviations = (squares / mixture.deviations**2 - shares) / np.sqrt(2 * weights)
        return np.concatenate([of_means.ravel(), of_deviations.ravel()]) / self.num_points


def _blocks(points: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    for first in range(0, len(points), BLOCK):
        yield points[first : first + BLOCK]
