"""Fisher vectors: the equations, an independent program, and what must hold of them whatever the data."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture

from flowkit.errors import ParameterError
from flowkit.model.encoding import fisher_reference as reference
from flowkit.model.encoding.fisher import BLOCK, FisherSums
from flowkit.model.encoding.fitting import fit_mixture
from flowkit.model.encoding.mixture import Mixture

Array = NDArray[np.float64]


def drawn_mixture(num_components: int, num_dimensions: int, seed: int = 0) -> Mixture:
    rng = np.random.default_rng(seed)
    shape = num_components, num_dimensions
    return Mixture(rng.dirichlet(np.full(num_components, 3.0)), rng.normal(size=shape), rng.uniform(0.3, 1.5, shape))


def drawn_points(number: int, num_dimensions: int, seed: int = 1) -> Array:
    return np.random.default_rng(seed).normal(0.2, 1.3, (number, num_dimensions))


def plain(points: Array, mixture: Mixture) -> Array:
    """Return the Fisher vector of the fast path before its norms."""
    return FisherSums.of(points, mixture).vector(mixture)


@pytest.mark.parametrize(("number", "num_components", "num_dimensions"), [(1, 1, 1), (7, 5, 3), (40, 2, 11), (3, 16, 15), (0, 3, 2)])
def test_the_fast_path_equals_the_equations(number: int, num_components: int, num_dimensions: int) -> None:
    mixture, points = drawn_mixture(num_components, num_dimensions), drawn_points(number, num_dimensions)
    np.testing.assert_allclose(plain(points, mixture), reference.fisher_vector(points, mixture), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(mixture.responsibilities(points), reference.responsibilities(points, mixture), atol=1e-12)


def test_it_is_the_scaled_gradient_of_the_mean_log_likelihood() -> None:
    mixture, points, step = drawn_mixture(4, 3), drawn_points(60, 3), 1e-5

    def gradient(name: str, component: int, dimension: int) -> float:
        likelihoods = []
        for sign in (1, -1):
            values = {key: value.copy() for key, value in vars(mixture).items()}
            values[name][component, dimension] += sign * step
            likelihoods.append(reference.mean_log_likelihood(points, Mixture(**values)))
        return (likelihoods[0] - likelihoods[1]) / (2 * step)

    every = [(k, d) for k in range(4) for d in range(3)]
    weights, deviations = mixture.weights[:, None], mixture.deviations
    of_means = np.array([gradient("means", k, d) for k, d in every]).reshape(4, 3) * deviations / np.sqrt(weights)
    of_deviations = np.array([gradient("deviations", k, d) for k, d in every]).reshape(4, 3) * deviations / np.sqrt(2 * weights)
    expected = np.concatenate([of_means.ravel(), of_deviations.ravel()])
    np.testing.assert_allclose(plain(points, mixture), expected, atol=1e-7)
    assert np.abs(expected).max() > 0.1


def test_it_equals_scikit_images_whose_deviation_part_has_the_other_sign() -> None:
    from skimage.feature import fisher_vector

    mixture, points = drawn_mixture(6, 5), drawn_points(200, 5)
    machine = GaussianMixture(6, covariance_type="diag").fit(drawn_points(50, 5))
    machine.weights_, machine.means_, machine.covariances_ = mixture.weights, mixture.means, mixture.deviations**2
    machine.precisions_cholesky_ = 1 / mixture.deviations
    of_weights, of_means, of_deviations = np.split(fisher_vector(points, machine), [6, 6 + 30])
    np.testing.assert_allclose(plain(points, mixture), np.concatenate([of_means, -of_deviations]), atol=1e-12)
    assert len(of_weights) == 6


def test_a_mixtures_own_training_data_have_a_vector_close_to_zero() -> None:
    centres = np.random.default_rng(3).normal(0, 4, (5, 4))
    points = (centres[:, None] + np.random.default_rng(4).normal(size=(5, 300, 4))).reshape(-1, 4)
    mixture, converged = fit_mixture(points, 5, seed=0)
    assert converged
    assert np.abs(plain(points, mixture)).max() < 0.01
    assert np.abs(plain(points + 0.5, mixture)).max() > 0.1


@pytest.mark.parametrize(("scale", "offset"), [(3.0, 0.0), (0.01, -7.0), (1.0, 1e4)])
def test_descriptors_and_mixture_moved_alike_have_the_same_vector(scale: float, offset: float) -> None:
    mixture, points = drawn_mixture(5, 4), drawn_points(80, 4)
    moved = Mixture(mixture.weights, scale * mixture.means + offset, scale * mixture.deviations)
    np.testing.assert_allclose(plain(scale * points + offset, moved), plain(points, mixture), atol=1e-8)


def test_sums_add_up_over_sets_and_blocks() -> None:
    mixture, points = drawn_mixture(3, 2), drawn_points(2 * BLOCK + 7, 2)
    parts = np.split(points, [1, 10, 10, BLOCK + 5])
    total = FisherSums.none(mixture)
    for part in parts:
        total += FisherSums.of(part, mixture)
    assert total.num_points == len(points)
    np.testing.assert_allclose(total.vector(mixture), plain(points, mixture), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(plain(points, mixture), reference.fisher_vector(points, mixture), rtol=1e-9, atol=1e-12)


def test_neither_order_nor_repetition_changes_a_vector() -> None:
    mixture, points = drawn_mixture(4, 3), drawn_points(BLOCK + 100, 3)
    shuffled = np.random.default_rng(5).permutation(points)
    for other in (shuffled, np.concatenate([points, points])):
        np.testing.assert_allclose(plain(other, mixture), plain(points, mixture), rtol=1e-9, atol=1e-12)


def test_norms_keep_the_sign_and_give_length_one_or_zero() -> None:
    vector = np.array([4.0, -9.0, 0.0])
    np.testing.assert_allclose(reference.normalised(vector), np.array([2, -3, 0]) / np.sqrt(13))
    np.testing.assert_array_equal(reference.normalised(np.zeros(4)), np.zeros(4))


def test_far_points_and_narrow_components_stay_finite() -> None:
    mixture = Mixture(np.array([1 - 1e-9, 1e-9]), np.array([[0.0], [1.0]]), np.array([[1e-6], [1e-8]]))
    for points in (np.array([[1e10]]), np.array([[-3.0], [0.0], [1.0]])):
        assert np.isfinite(reference.normalised(plain(points, mixture))).all()


@pytest.mark.parametrize("points", [np.zeros((3, 4)), np.zeros(3), np.array([[np.nan, 0, 0]]), np.array([[0, np.inf, 0]])])
def test_other_points_are_refused(points: Array) -> None:
    with pytest.raises(ParameterError, match="points"):
        FisherSums.of(points, drawn_mixture(2, 3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": np.array([0.5, 0.6])}, "sum 1"),
        ({"weights": np.array([1.0, 0.0])}, "above 0"),
        ({"weights": np.array([1.0])}, "shapes"),
        ({"means": np.zeros((2, 4))}, "shapes"),
        ({"means": np.full((2, 3), np.nan)}, "finite"),
        ({"deviations": np.zeros((2, 3))}, "above 0"),
        ({"deviations": np.full((2, 3), np.inf)}, "finite"),
    ],
)
def test_what_is_no_mixture_is_refused(change: dict[str, Array], message: str) -> None:
    values = {"weights": np.array([0.5, 0.5]), "means": np.zeros((2, 3)), "deviations": np.ones((2, 3))}
    Mixture(**values)
    with pytest.raises(ParameterError, match=message):
        Mixture(**{**values, **change})
