"""Linear SVMs: the same scores on vectors and on a factor of their Gram matrix, whatever the order; LIBSVM's own decision."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from flowkit.errors import ParameterError
from flowkit.model.encoding import linear_svm
from flowkit.model.encoding.linear_svm import LinearSvm, gram_matrix, train_svm

NAMES = tuple("abcde")


def drawn(seed: int, *, count: int = 40, width: int = 300, gap: float = 4.0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Noise in which one number of each vector tells its class; two of five classes have no vector."""
    draw = np.random.default_rng(seed)
    labels = draw.permutation(np.arange(count) % 3) + 1
    vectors = draw.normal(size=(count, width))
    vectors[np.arange(count), labels] += gap
    return vectors, labels


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize(("count", "width", "gap"), [(40, 300, 4.0), (80, 5, 1.0)])
def test_the_scores_are_those_of_a_factor_of_the_gram_matrix(count: int, width: int, gap: float, normalise: bool) -> None:
    vectors, labels = drawn(0, count=count, width=width, gap=gap)
    one = train_svm(vectors, labels, NAMES, normalise=normalise)
    values, axes = np.linalg.eigh(gram_matrix(vectors, normalise=normalise))
    factor = axes[:, values > 1e-10] * np.sqrt(values[values > 1e-10])
    two = train_svm(factor, labels, NAMES, normalise=False)
    assert one.classes == two.classes == ("b", "c", "d")
    assert np.abs(one.scores(vectors) - two.scores(factor)).max() < 1e-6


@pytest.mark.parametrize("gap", [4.0, 0.5])
def test_the_order_of_videos_and_features_changes_nothing(gap: float) -> None:
    vectors, labels = drawn(1, width=60, gap=gap)
    others, _ = drawn(2, width=60)
    rows, columns = np.random.default_rng(3).permutation(40), np.random.default_rng(4).permutation(60)
    one = train_svm(vectors, labels, NAMES)
    two = train_svm(vectors[rows][:, columns], labels[rows], NAMES)
    assert np.abs(one.scores(others) - two.scores(others[:, columns])).max() < 1e-6


def test_classes_that_overlap_in_few_features_do_not_take_for_ever() -> None:
    """LIBSVM approaches 1e-9 for many minutes here. What it finds in seconds is as good as another program's solution."""
    from sklearn.svm import SVC, LinearSVC

    vectors, labels = drawn(6, count=200, width=8, gap=0.5)
    unfinished = SVC(C=100, kernel="linear", tol=1e-9, max_iter=1_000_000)
    with pytest.warns(match="terminated early"):
        unfinished.fit(vectors, labels == 1)
    svm = train_svm(vectors, labels, NAMES, normalise=False)
    for number, label in enumerate((1, 2, 3)):
        signs = np.where(labels == label, 1.0, -1.0)

        def cost(plane: NDArray[np.float64], offset: float, signs: NDArray[np.float64] = signs) -> float:
            return float(plane @ plane / 2 + 100 * np.maximum(1 - signs * (vectors @ plane + offset), 0).sum())

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it does not converge either
            other = LinearSVC(C=100, loss="hinge", intercept_scaling=100).fit(vectors, signs)
        assert cost(svm.planes[number], svm.offsets[number]) < 1.001 * cost(other.coef_[0], float(other.intercept_[0]))


def test_a_feature_that_occurs_twice_is_one_times_the_root_of_two() -> None:
    vectors, labels = drawn(5, width=30)
    twice, scaled = np.column_stack([vectors, vectors[:, :1]]), vectors.copy()
    scaled[:, 0] *= np.sqrt(2)
    one, two = train_svm(twice, labels, NAMES, normalise=False), train_svm(scaled, labels, NAMES, normalise=False)
    assert np.abs(one.scores(twice) - two.scores(scaled)).max() < 1e-6


def test_it_is_the_svm_of_libsvm_for_each_class_against_the_rest() -> None:
    from sklearn.svm import SVC

    vectors, labels = drawn(6, width=20, gap=1.0)
    svm = train_svm(vectors, labels, NAMES, c=3.0, normalise=False)
    for column, label in enumerate((1, 2, 3)):
        oracle = SVC(C=3.0, kernel="linear", tol=1e-9).fit(vectors, labels == label)
        assert np.abs(svm.scores(vectors)[:, column] - oracle.decision_function(vectors)).max() < 1e-5


def test_the_length_of_a_vector_matters_only_without_normalising() -> None:
    vectors, labels = drawn(7)
    longer = vectors * np.random.default_rng(8).uniform(0.1, 9, (40, 1))
    one, two = train_svm(vectors, labels, NAMES), train_svm(longer, labels, NAMES)
    assert np.abs(one.scores(vectors) - two.scores(longer)).max() < 1e-6
    assert np.abs(one.scores(vectors) - train_svm(vectors, labels, NAMES, normalise=False).scores(vectors)).max() > 1e-3
    longer[3] = 0
    assert np.isfinite(train_svm(longer, labels, NAMES).scores(longer)).all()


def test_vectors_are_read_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, labels = drawn(9)
    whole, asked = train_svm(vectors, labels, NAMES), []

    class Rows:
        shape = vectors.shape

        def __getitem__(self, rows: slice, /) -> NDArray[Any]:
            asked.append(rows.stop - rows.start)
            return vectors[rows].astype(np.float32)

    monkeypatch.setattr(linear_svm, "_BLOCK_BYTES", 7 * 8 * vectors.shape[1])
    done: list[int] = []
    parts = train_svm(Rows(), labels, NAMES, on_class=done.append)
    assert np.abs(parts.scores(Rows()) - whole.scores(vectors)).max() < 1e-5
    assert max(asked) == 7
    assert done == [1, 2, 3]


def test_two_classes_have_opposite_scores() -> None:
    vectors, labels = drawn(10)
    svm = train_svm(vectors, labels % 2, ("even", "odd"))
    assert np.allclose(*svm.scores(vectors).T * np.array([[1], [-1]]), atol=1e-6)
    assert (svm.scores(vectors).argmax(1) == labels % 2).all()


def test_what_no_svm_can_be_trained_on_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, labels = drawn(11)
    for message, arguments in {
        "two classes, got 1": (vectors, labels * 0, NAMES),
        "one label for each vector": (vectors, labels[1:], NAMES),
        "finite": (np.where(vectors > 2.5, np.nan, vectors), labels, NAMES),
    }.items():
        with pytest.raises(ParameterError, match=message):
            train_svm(*arguments)
    svm = train_svm(vectors, labels, NAMES)
    with pytest.raises(ParameterError, match="vectors of 300 features, not 299"):
        svm.scores(vectors[:, 1:])
    with pytest.raises(ParameterError, match="a plane and an offset"):
        LinearSvm(("a", "b"), np.zeros((3, 2)), np.zeros(3))
    monkeypatch.setattr(linear_svm, "MOST_VIDEOS", 39)
    with pytest.raises(ParameterError, match="at most 39 videos, got 40"):
        train_svm(vectors, labels, NAMES)
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "sklearn.svm", None)
    with pytest.raises(ParameterError, match=r'pip install "flowkit-video\[svm\]"'):
        train_svm(vectors, labels, NAMES)
