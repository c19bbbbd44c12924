"""PCA and mixtures, fitted by scikit-learn to a sample of descriptors. The same sample and seed give the same encoder."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import ParameterError
from flowkit.model.encoding.encoder import DescriptorEncoder, Encoder
from flowkit.model.encoding.mixture import Mixture
from flowkit.model.encoding.projection import Projection
from flowkit.model.encoding.trajectory_settings import NUM_COMPONENTS

VARIANCE_FLOOR = 1e-4  # of the variance of the descriptors along the same dimension
MAX_ITERATIONS = 100
_CONSTANT = 1e-6  # of the largest deviation, or of the largest value: what varies less is as good as constant
_NUM_DESCRIPTORS, _CONVERGED = "num_descriptors", "converged"
_EMPTY = 1e-3  # descriptors: a component with fewer has none


@dataclass(frozen=True)
class FittedType:
    """What was fitted to the descriptors of one type.

    Parameters
    ----------
    encoder : DescriptorEncoder
        The projection and the mixture.
    num_descriptors : int
        The size of the sample.
    converged : bool
        Whether the likelihood of the mixture had settled.
    """

    encoder: DescriptorEncoder
    num_descriptors: int
    converged: bool

    @classmethod
    def of(cls, name: str, arrays: Mapping[str, NDArray[Any]]) -> FittedType:
        """Make one of what `arrays` returned."""
        return cls(DescriptorEncoder.of(name, arrays), int(arrays[_NUM_DESCRIPTORS]), bool(arrays[_CONVERGED]))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all of it but the name, as arrays by name."""
        return {**self.encoder.arrays(), _NUM_DESCRIPTORS: np.array(self.num_descriptors), _CONVERGED: np.array(self.converged)}


def check_scikit_learn() -> None:
    """Raise `ParameterError` if scikit-learn is missing."""
    try:
        import sklearn  # noqa: F401
    except ImportError as cause:
        raise ParameterError(f'encoders are fitted by scikit-learn ({cause}): pip install "flowkit-video[svm]"') from cause


def fit_projection(sample: NDArray[np.floating], num_components: int, *, whiten: bool = False) -> Projection:
    """Return the first principal components of descriptors (n, D).

    Parameters
    ----------
    sample : array, shape (n, D)
        The descriptors.
    num_components : int
        d, how many components.
    whiten : bool
        Divide each component by the standard deviation of the descriptors along it, so that all have the variance 1. One along which
        descriptors hardly vary is divided by `_CONSTANT` of the largest deviation, so that noise is not magnified.

    Raises
    ------
    ParameterError
        If scikit-learn is missing, there are fewer descriptors than components, or the descriptors are all equal or not finite.
    """
    check_scikit_learn()
    from sklearn.decomposition import PCA

    _check_sample(sample, num_components, "principal components")
    with _one_thread():
        found = PCA(num_components, svd_solver="covariance_eigh").fit(sample.astype(np.float64))
    components = np.ascontiguousarray(found.components_)
    if whiten:
        deviations = np.sqrt(np.maximum(found.explained_variance_, 0))
        components /= np.maximum(deviations, _CONSTANT * deviations.max())[:, None]
    return Projection(found.mean_, components)


def fit_mixture(points: NDArray[np.float64], num_components: int, *, seed: int) -> tuple[Mixture, bool]:
    """Fit a Gaussian mixture by expectation and maximisation, from the centres that k-means finds.

    Parameters
    ----------
    points : float64 array, shape (n, d)
        Projected descriptors.
    num_components : int
        K.
    seed : int
        Seed of k-means.

    Returns
    -------
    mixture : Mixture
        Each variance has at least `VARIANCE_FLOOR` of the variance of the points along its dimension.
    converged : bool
        Whether the likelihood had settled after `MAX_ITERATIONS`.

    Raises
    ------
    ParameterError
        If scikit-learn is missing, or there are too few different points for so many components.
    """
    check_scikit_learn()
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    _check_sample(points, num_components, "components")
    mean, scale = points.mean(0), points.std(0)
    scale = np.maximum(scale, _CONSTANT * scale.max())  # every dimension has the variance 1, so that the floor is relative to it
    machine = GaussianMixture(
        num_components, covariance_type="diag", reg_covar=VARIANCE_FLOOR, max_iter=MAX_ITERATIONS, random_state=seed % 2**32
    )
    with _one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        machine.fit((points - mean) / scale)
    if machine.weights_.min() * len(points) < _EMPTY:
        raise ParameterError(f"the sample of {len(points)} descriptors has too few different ones for {num_components} components")
    mixture = Mixture(machine.weights_ / machine.weights_.sum(), machine.means_ * scale + mean, np.sqrt(machine.covariances_) * scale)
    return mixture, bool(machine.converged_)


def fit_type(
    name: str,
    sample: NDArray[np.floating],
    num_components: int,
    *,
    seed: int,
    num_outputs: int | None = None,
    whiten: bool = False,
) -> FittedType:
    """Fit PCA and a mixture to the descriptors of one type.

    Descriptors that are all equal, such as those of maps of zeros, say nothing about a video. They are encoded as zeros.

    Parameters
    ----------
    name : str
        The type.
    sample : array, shape (n, D)
        A random sample of its descriptors. With 256,000 descriptors and 256 components, the fit takes about 1.5 GB.
    num_components : int
        K, the number of components of the mixture.
    seed : int
        Seed of the mixture.
    num_outputs : int, optional
        The number of principal components. Default: half of D.
    whiten : bool
        Divide the components by their standard deviations.

    Raises
    ------
    ParameterError
        If scikit-learn is missing, `num_components` is below 1, or the sample is too small.
    """
    if num_components < 1:
        raise ParameterError(f"a mixture has at least 1 component, got {num_components}")
    num_outputs = num_outputs or max(sample.shape[1] // 2, 1)
    if _is_constant(sample):
        return FittedType(_constant_encoder(name, sample, num_components, num_outputs), len(sample), converged=True)
    try:
        projection = fit_projection(sample, num_outputs, whiten=whiten)
        mixture, converged = fit_mixture(projection.apply(sample), num_components, seed=seed)
    except ParameterError as cause:
        raise ParameterError(f"{name}: {cause}") from cause
    return FittedType(DescriptorEncoder(name, projection, mixture), len(sample), converged)


def encoder_of(types: Sequence[FittedType], *, num_components: int, seed: int, provenance: Mapping[str, Any]) -> Encoder:
    """Return the encoder of these types; how they were fitted is added to its provenance."""
    import sklearn

    how = {
        "num_components": num_components,
        "num_descriptors": {one.encoder.name: one.num_descriptors for one in types},
        "variance_floor": VARIANCE_FLOOR,
        "not_converged": [one.encoder.name for one in types if not one.converged],
        "seed": seed,
        "scikit_learn": sklearn.__version__,
    }
    constant = [one.encoder.name for one in types if one.encoder.is_constant]
    how |= {"constant": constant} if constant else {}
    return Encoder(tuple(one.encoder for one in types), {**provenance, **how})


def fit_encoder(
    samples: Mapping[str, NDArray[np.floating]], *, num_components: int = NUM_COMPONENTS, seed: int, provenance: Mapping[str, Any]
) -> Encoder:
    """Fit an encoder to samples of descriptors, one array (n, D) for each type; `fit_type` and `encoder_of` explain the parameters."""
    check_scikit_learn()
    types = [fit_type(name, sample, num_components, seed=seed) for name, sample in samples.items()]
    return encoder_of(types, num_components=num_components, seed=seed, provenance=provenance)


def _is_constant(sample: NDArray[np.floating]) -> bool:
    """Return whether finite descriptors are all equal, but for rounding."""
    largest = np.abs(sample).max(initial=0)
    return bool(len(sample) and np.isfinite(largest) and np.ptp(sample, axis=0).max() <= _CONSTANT * largest)


def _constant_encoder(name: str, sample: NDArray[np.floating], num_components: int, num_outputs: int) -> DescriptorEncoder:
    """Return an encoder whose projection leaves nothing, and whose mixture is never used."""
    shape = num_components, num_outputs
    projection = Projection(sample.astype(np.float64).mean(0), np.zeros((num_outputs, sample.shape[1])))
    return DescriptorEncoder(name, projection, Mixture(np.full(num_components, 1 / num_components), np.zeros(shape), np.ones(shape)))


def _check_sample(sample: NDArray[np.floating], num_components: int, what: str) -> None:
    if len(sample) < num_components:
        raise ParameterError(f"{num_components} {what} need as many descriptors, and the sample has {len(sample)}")
    if not np.isfinite(sample).all():
        raise ParameterError("a descriptor of the sample is not finite")
    if not np.ptp(sample, axis=0).any():
        raise ParameterError("the descriptors of the sample are all equal, so they cannot be encoded")


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread: with several, sums are added up in an order that changes from call to call."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield
