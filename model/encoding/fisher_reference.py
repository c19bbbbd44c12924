"""Fisher vectors as their equations have them, one function for each; `fisher` computes the same in blocks and faster.

Perronnin, Sanchez and Mensink, "Improving the Fisher Kernel for Large-Scale Image Classification", ECCV 2010, section 2 (the gradients)
and section 3 (the norms). There is no part for the weights of the mixture.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flowkit.model.encoding.mixture import Mixture

Array = NDArray[np.float64]


def log_densities(points: Array, mixture: Mixture) -> Array:
    """Return ``log(w_k N(x_n; mu_k, s_k^2))``, shape (n, K), of points (n, d)."""
    distances = (points[:, None] - mixture.means) / mixture.deviations  # (n, K, d)
    exponents = -(distances**2).sum(2) / 2
    volumes = np.log(np.sqrt(2 * np.pi) * mixture.deviations).sum(1)
    densities: Array = np.log(mixture.weights) + exponents - volumes
    return densities


def mean_log_likelihood(points: Array, mixture: Mixture) -> float:
    """Return the mean over the points of the logarithm of their density."""
    return float(np.logaddexp.reduce(log_densities(points, mixture), axis=1).mean())


def responsibilities(points: Array, mixture: Mixture) -> Array:
    """Return ``g_nk``, the probability that component k gave point n, shape (n, K)."""
    logs = log_densities(points, mixture)
    shares: Array = np.exp(logs - np.logaddexp.reduce(logs, axis=1)[:, None])
    return shares


def mean_part(points: Array, mixture: Mixture) -> Array:
    """Return ``1/(N sqrt(w_k)) sum_n g_nk (x_n - mu_k)/s_k``, shape (K, d)."""
    shares = responsibilities(points, mixture)[:, :, None]
    distances = (points[:, None] - mixture.means) / mixture.deviations
    part: Array = (shares * distances).sum(0) / (len(points) * np.sqrt(mixture.weights)[:, None])
    return part


def deviation_part(points: Array, mixture: Mixture) -> Array:
    """Return ``1/(N sqrt(2 w_k)) sum_n g_nk ((x_n - mu_k)^2/s_k^2 - 1)``, shape (K, d)."""
    shares = responsibilities(points, mixture)[:, :, None]
    distances = (points[:, None] - mixture.means) / mixture.deviations
    part: Array = (shares * (distances**2 - 1)).sum(0) / (len(points) * np.sqrt(2 * mixture.weights)[:, None])
    return part


def fisher_vector(points: Array, mixture: Mixture) -> Array:
    """Return the Fisher vector of points (n, d) before its norms: the parts of means and deviations, shape (2 K d,). No points give 0."""
    if not len(points):
        return np.zeros(2 * mixture.means.size)
    return np.concatenate([mean_part(points, mixture).ravel(), deviation_part(points, mixture).ravel()])


def normalised(vector: Array) -> Array:
    """Return ``sign(v) sqrt(|v|)``, divided by its Euclidean length. A vector of zeros stays one."""
    powered = np.sign(vector) * np.sqrt(np.abs(vector))
    length = np.linalg.norm(powered)
    return powered / length if length > 0 else powered
