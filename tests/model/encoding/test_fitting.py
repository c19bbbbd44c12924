"""Fitting encoders: principal components and mixtures of a sample, the same from the same sample; and what is no sample."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from flowkit.errors import ParameterError
from flowkit.model.encoding import fisher_reference as reference
from flowkit.model.encoding.descriptor_sample import VideoSample
from flowkit.model.encoding.encoder import Encoder
from flowkit.model.encoding.fitting import VARIANCE_FLOOR, encoder_of, fit_encoder, fit_mixture, fit_projection, fit_type

Sample = dict[str, NDArray[np.float32]]


def drawn_sample(number: int = 400, seed: int = 0) -> Sample:
    """Return descriptors of two types that are clustered, each type with its own scale."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 3, (6, 14))
    rows = (centres[rng.integers(6, size=number)] + rng.normal(size=(number, 14))).astype(np.float32)
    return {"hog": rows[:, :8] * np.float32(0.02), "hof": rows[:, 8:]}


def test_components_are_orthonormal_and_ordered_and_uncorrelated_in_the_sample() -> None:
    sample = drawn_sample()["hog"]
    projection = fit_projection(sample, 4)
    np.testing.assert_allclose(projection.components @ projection.components.T, np.eye(4), atol=1e-12)
    covariance = np.cov(projection.apply(sample).T)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-9)
    assert (np.diff(np.diag(covariance)) < 0).all()
    values = np.linalg.eigvalsh(np.cov(sample.astype(np.float64).T))
    np.testing.assert_allclose(np.diag(covariance), values[::-1][:4], rtol=1e-6)


def test_half_of_the_dimensions_are_kept() -> None:
    encoder = fit_encoder(drawn_sample(), num_components=3, seed=0, provenance={})
    assert [(one.name, one.projection.num_inputs, one.projection.num_outputs) for one in encoder.types] == [("hog", 8, 4), ("hof", 6, 3)]
    assert encoder.size == 2 * 3 * (4 + 3)


def test_the_same_sample_and_seed_give_the_same_encoder_and_other_seeds_another() -> None:
    first, again, other = (fit_encoder(drawn_sample(), num_components=5, seed=seed, provenance={}) for seed in (0, 0, 1))
    assert first.digest() == again.digest() != other.digest()
    for name, array in first.arrays().items():
        assert array.tobytes() == again.arrays()[name].tobytes()


def test_a_mixture_of_scaled_points_is_the_scaled_mixture() -> None:
    points = drawn_sample()["hof"].astype(np.float64)
    mixture, _ = fit_mixture(points, 4, seed=0)
    scaled, _ = fit_mixture(points * 1e-4, 4, seed=0)
    np.testing.assert_allclose(scaled.weights, mixture.weights, atol=1e-6)
    np.testing.assert_allclose(scaled.deviations, mixture.deviations * 1e-4, rtol=1e-5)


def test_no_variance_is_below_its_share_of_the_points() -> None:
    points = np.repeat(np.random.default_rng(0).normal(size=(4, 2)), 50, axis=0) * np.array([1.0, 1e-3])  # four points, often
    mixture, _ = fit_mixture(points, 4, seed=0)
    floor = VARIANCE_FLOOR * points.var(0)
    assert (mixture.deviations**2 >= floor * (1 - 1e-9)).all()
    assert (mixture.deviations**2 < 2 * floor).all()
    assert np.isfinite(reference.fisher_vector(points, mixture)).all()


def test_a_dimension_that_never_changes_does_not_matter() -> None:
    points = np.column_stack([drawn_sample()["hof"], np.zeros(400)]).astype(np.float64)
    mixture, _ = fit_mixture(points, 3, seed=0)
    assert np.isfinite(mixture.deviations).all()
    assert (mixture.deviations > 0).all()


@pytest.mark.parametrize("value", [0.0, 15.0, -1e-20])
@pytest.mark.parametrize("num_outputs", [4, None])
def test_a_type_whose_descriptors_are_all_equal_contributes_zeros(value: float, num_outputs: int | None) -> None:
    rng = np.random.default_rng(0)
    constant = np.full((50, 7), value, np.float32) * (1 + np.float32(1e-7) * rng.integers(-1, 2, (50, 7), dtype=np.int8))  # rounding
    types = [fit_type("hog", drawn_sample()["hog"], 3, seed=0), fit_type("hof", constant, 3, seed=0, num_outputs=num_outputs, whiten=True)]
    encoder = encoder_of(types, num_components=3, seed=0, provenance={})
    assert encoder.provenance["constant"] == ["hof"]
    some = drawn_sample(seed=9)["hog"]
    vector = encoder.encode([{"hog": some, "hof": rng.normal(size=(len(some), 7)).astype(np.float32)}])
    size = encoder.types[0].size
    alone = fit_encoder({"hog": drawn_sample()["hog"]}, num_components=3, seed=0, provenance={})
    np.testing.assert_array_equal(vector[:size], alone.encode([{"hog": some}]))
    assert not vector[size:].any()
    assert len(vector) == size + 2 * 3 * (num_outputs or 3)
    assert "constant" not in alone.provenance
    with pytest.raises(ParameterError, match="finite"):
        encoder.encode([{"hog": some, "hof": np.full((2, 7), np.nan, np.float32)}])


@pytest.mark.parametrize(
    ("sample", "num_components", "message"),
    [
        (drawn_sample(10), 11, "hog: 11 components need as many descriptors, and the sample has 10"),
        (drawn_sample(3), 1, "hog: 4 principal components need as many descriptors, and the sample has 3"),
        ({"hog": np.full((50, 8), np.nan, np.float32)}, 2, "hog: a descriptor of the sample is not finite"),
        ({"hog": np.repeat(np.eye(8, dtype=np.float32), 10, axis=0)}, 20, "too few different ones for 20 components"),
        (drawn_sample(), 0, "at least 1 component, got 0"),
        ({}, 2, "types"),
    ],
)
def test_what_is_no_sample_is_refused(sample: Sample, num_components: int, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        fit_encoder(sample, num_components=num_components, seed=0, provenance={})


def test_without_scikit_learn_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ParameterError, match=r'pip install "flowkit-video\[svm\]"'):
        fit_encoder(drawn_sample(), num_components=2, seed=0, provenance={})


def test_a_vector_depends_neither_on_blocks_nor_on_order_and_is_zero_without_descriptors() -> None:
    sample = drawn_sample()
    encoder = fit_encoder(sample, num_components=4, seed=0, provenance={})
    whole = encoder.encode([sample])
    shuffled = np.random.default_rng(1).permutation(400)
    blocks = [{name: rows[part] for name, rows in sample.items()} for part in np.split(shuffled, [0, 7, 300])]
    np.testing.assert_allclose(encoder.encode(blocks), whole, atol=1e-4)
    hog, hof = np.split(whole.astype(np.float64), [encoder.types[0].size])
    assert (np.linalg.norm(hog), np.linalg.norm(hof)) == pytest.approx((1, 1))
    for none in ([], [{name: rows[:0] for name, rows in sample.items()}]):
        assert not encoder.encode(none).any()
        assert encoder.encode(none).shape == (encoder.size,)


def test_a_vector_is_that_of_the_equations() -> None:
    sample = drawn_sample()
    encoder = fit_encoder(sample, num_components=4, seed=0, provenance={})
    some = {name: rows[:30] for name, rows in drawn_sample(seed=9).items()}
    parts = [reference.normalised(reference.fisher_vector(one.projection.apply(some[one.name]), one.mixture)) for one in encoder.types]
    np.testing.assert_allclose(encoder.encode([some]), np.concatenate(parts), atol=1e-6)


def test_missing_and_other_descriptors_are_refused() -> None:
    sample = drawn_sample()
    encoder = fit_encoder(sample, num_components=2, seed=0, provenance={})
    with pytest.raises(ParameterError, match="the type hof are missing; there are hog"):
        encoder.encode([{"hog": sample["hog"]}])
    with pytest.raises(ParameterError, match=r"hof must have the shape \(n, 6\), got \(400, 8\)"):
        encoder.encode([{"hog": sample["hog"], "hof": sample["hog"]}])
    with pytest.raises(ParameterError, match="different names"):
        Encoder(encoder.types[:1] * 2)


def test_memory_does_not_grow_with_the_number_of_descriptors() -> None:
    encoder = fit_encoder(drawn_sample(), num_components=4, seed=0, provenance={})

    def peak_bytes(num_frames: int) -> int:
        sample = VideoSample("v", 100, seed=0)

        def blocks() -> Iterator[Sample]:
            for number in range(num_frames):
                block = drawn_sample(50, seed=number)
                sample.add(block)
                yield block

        tracemalloc.start()
        encoder.encode(blocks())
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert sample.num_seen == 50 * num_frames
        return peak

    assert peak_bytes(1200) < 1.2 * peak_bytes(150)
