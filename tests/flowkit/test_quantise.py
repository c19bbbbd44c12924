"""The quantiser: error bound, zero, clipping, monotony, mirror images (F1, F2 and F4 of docs/invariants.md)."""

from __future__ import annotations

import numpy as np
import pytest

from flowkit import ParameterError, Quantiser

BOTH = pytest.mark.parametrize("mapping", ["symmetric", "paper"])
ALL_BYTES = np.arange(256, dtype=np.uint8)


@BOTH
def test_zero_is_128_and_the_bound_clips(mapping: str) -> None:
    q = Quantiser(20.0, mapping)
    lowest = 1 if mapping == "symmetric" else 0
    assert q.encode(np.array([0, -0.0, 20, 25, -20, -25])).tolist() == [128, 128, 255, 255, lowest, lowest]


@BOTH
@pytest.mark.parametrize("bound", [0.5, 15.0, 20.0, 32.0])
def test_error_is_within_max_error_px_up_to_the_bound(mapping: str, bound: float) -> None:
    q = Quantiser(bound, mapping)
    v = np.random.default_rng(0).uniform(-bound, bound, 200_000).astype(np.float32)
    error = np.abs(q.decode(q.encode(v)) - v)
    assert error.max() <= q.max_error_px
    assert error.max() > 0.9 * q.max_error_px  # the bound is tight, not merely safe


@BOTH
def test_encoding_is_monotone(mapping: str) -> None:
    v = np.sort(np.random.default_rng(1).normal(0, 12, 50_000))
    assert (np.diff(Quantiser(20.0, mapping).encode(v).astype(int)) >= 0).all()


@BOTH
def test_every_byte_survives_decode_and_encode(mapping: str) -> None:
    q = Quantiser(20.0, mapping)
    start = 1 if mapping == "symmetric" else 0
    assert np.array_equal(q.encode(q.decode(ALL_BYTES[start:])), ALL_BYTES[start:])


def test_symmetric_never_produces_byte_0_and_reads_it_as_1() -> None:
    q = Quantiser()
    assert q.encode(np.linspace(-40, 40, 10_001)).min() == 1
    assert q.decode(np.array([0], np.uint8)) == q.decode(np.array([1], np.uint8))
    assert q.flip_u(np.array([0, 1], np.uint8)).tolist() == [255, 255]


def test_symmetric_flip_is_the_byte_of_the_negated_flow_and_keeps_zero() -> None:
    q = Quantiser()
    v = np.random.default_rng(2).uniform(-25, 25, 100_000)
    assert np.array_equal(q.flip_u(q.encode(v)), q.encode(-v))
    assert q.flip_u(np.array([128], np.uint8)) == 128


def test_paper_flip_is_255_minus_q() -> None:
    assert np.array_equal(Quantiser(20.0, "paper").flip_u(ALL_BYTES), 255 - ALL_BYTES)


@BOTH
def test_flip_is_an_involution(mapping: str) -> None:
    q = Quantiser(20.0, mapping)
    encoded = ALL_BYTES[1:] if mapping == "symmetric" else ALL_BYTES
    assert np.array_equal(q.flip_u(q.flip_u(encoded)), encoded)


def test_paper_mapping_is_gpu_flows_formula() -> None:
    v = np.random.default_rng(3).uniform(-22, 22, 10_000)
    expected = [0 if x < -20 else 255 if x > 20 else round(255 * (x + 20) / 40) for x in v]  # Python rounds half to even, as cvRound
    assert Quantiser(20.0, "paper").encode(v).tolist() == expected


@BOTH
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(mapping: str, bad: float) -> None:
    with pytest.raises(ParameterError, match="NaN or infinity"):
        Quantiser(20.0, mapping).encode(np.array([0.0, bad], np.float32))


@pytest.mark.parametrize("bound", [0, -1, 1e-310, float("nan"), float("inf"), 10**400, "20", True, None])
def test_a_bound_that_is_no_positive_number_is_refused(bound: object) -> None:
    with pytest.raises(ParameterError, match="bound"):
        Quantiser(bound)  # type: ignore[arg-type]


@pytest.mark.parametrize("bound", [np.float32(20), np.int64(20), np.float64(20)])
def test_a_bound_from_numpy_is_a_number_like_another(bound: np.number) -> None:
    q = Quantiser(bound)  # type: ignore[arg-type]
    assert q == Quantiser(20.0)
    assert type(q.bound) is float


def test_settings_round_trip_and_foreign_ones_are_refused() -> None:
    q = Quantiser(15, "paper")
    assert Quantiser.from_dict(q.to_dict()) == q
    for foreign in ({}, {"bound": 20}, {"bound": 20, "mapping": "minmax"}, {"bound": 20, "mapping": "paper", "x": 1}, None, []):
        with pytest.raises(ParameterError):
            Quantiser.from_dict(foreign)


def test_only_bytes_are_decoded() -> None:
    with pytest.raises(ParameterError, match="uint8"):
        Quantiser().decode(np.zeros(3))  # type: ignore[arg-type]
