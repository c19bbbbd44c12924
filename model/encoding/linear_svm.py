"""Linear support vector machines, one against the rest, trained on one vector for each video.

They are LIBSVM's, as in the literature on improved trajectories: the hinge loss with C = 100 and an offset that is not regularised. LIBSVM
sees only the inner products of the training videos (their Gram matrix), since there are fewer videos than numbers in a vector:
a Fisher vector of trajectories has 109,056, and the training list of UCF101 has 9,537 videos.

References
----------
C.-C. Chang, C.-J. Lin, "LIBSVM: A library for support vector machines", ACM TIST 2(3), 2011.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import ParameterError

SVM_C = 100.0  # as programs that classify improved trajectories have it; the paper's own value is not known
MOST_VIDEOS = 40_000  # their Gram matrix takes 13 GB
_TOLERANCE = 1e-9  # of LIBSVM: the order of the videos changes no score by more than about this
_USUAL_TOLERANCE = 1e-3  # LIBSVM's own, which programs that classify improved trajectories have too
_USUAL_STEPS = 10_000_000  # after which LIBSVM's own program ends, however near it is
_BLOCK_BYTES = 1 << 29


class Vectors(Protocol):
    """The vectors of n videos, shape (n, D): an array, or whatever reads some rows of them from a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The numbers n and D."""

    def __getitem__(self, rows: slice, /) -> NDArray[Any]:
        """Return some rows as numbers (k, D)."""


@dataclass(frozen=True)
class LinearSvm:
    """A linear classifier of vectors.

    Parameters
    ----------
    classes : tuple of str
        The names of the classes that had training videos.
    planes : float64 array, shape (C, D)
        The normal of each class's plane.
    offsets : float64 array, shape (C,)
        The offset of each plane.
    normalise : bool
        Whether a vector is divided by its Euclidean length first.

    Raises
    ------
    ParameterError
        If the shapes do not agree.
    """

    classes: tuple[str, ...]
    planes: NDArray[np.float64]
    offsets: NDArray[np.float64]
    normalise: bool = True

    def __post_init__(self) -> None:
        count = len(self.classes)
        if count < 2 or self.planes.ndim != 2 or len(self.planes) != count or self.offsets.shape != (count,):
            raise ParameterError(
                f"an SVM needs a plane and an offset for each of at least two classes, got planes {self.planes.shape} and offsets "
                f"{self.offsets.shape} for {count} classes"
            )

    def scores(self, vectors: Vectors) -> NDArray[np.float64]:
        """Return each video's distance from the plane of each class, times the length of its normal: float64 (n, C).

        Raises
        ------
        ParameterError
            If the vectors have another number of features.
        """
        if vectors.shape[1] != self.planes.shape[1]:
            raise ParameterError(f"the SVM was trained on vectors of {self.planes.shape[1]:,} features, not {vectors.shape[1]:,}")
        parts = [block @ self.planes.T + self.offsets for _, block in _blocks(vectors, normalise=self.normalise)]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.classes)))

    def scores_of(self, classes: Sequence[str], vectors: Vectors) -> NDArray[np.float64]:
        """Return the scores for these classes: float64 (n, C). A class without training videos scores below all others."""
        known = self.scores(vectors)
        columns = {name: column for column, name in enumerate(self.classes)}
        scores = np.repeat(known.min(axis=1, keepdims=True) - 1, len(classes), axis=1)
        for column, name in enumerate(classes):
            if name in columns:
                scores[:, column] = known[:, columns[name]]
        return scores


def train_svm(
    vectors: Vectors,
    labels: Sequence[int] | NDArray[np.int64],
    classes: Sequence[str],
    *,
    c: float = SVM_C,
    normalise: bool = True,
    on_class: Callable[[int], None] = lambda done: None,
) -> LinearSvm:
    """Train a linear SVM for each class against all others.

    Parameters
    ----------
    vectors : array or Vectors, shape (n, D)
        One vector for each training video.
    labels : sequence of int, length n
        Their classes, as places in `classes`.
    classes : sequence of str
        The names of all classes. Those without a training video are left out.
    c : float
        The weight of the hinge losses against the squared length of the plane's normal.
    normalise : bool
        Divide each vector by its Euclidean length first.
    on_class : callable
        Receives the number of classes that are done.

    Returns
    -------
    LinearSvm
        The same, up to about 1e-8, for any order of the videos and for any factor of their Gram matrix in place of the vectors. Where
        classes overlap and there are many more videos than features, LIBSVM would take hours for that: after 100,000 steps and 20 for
        each video it is asked for its usual tolerance (1e-3) instead.

    Raises
    ------
    ParameterError
        If scikit-learn is missing, there are fewer than two classes or too many videos, a number is not finite, or lengths do not agree.

    Examples
    --------
    >>> import numpy as np
    >>> from flowkit.model.encoding.linear_svm import train_svm
    >>> svm = train_svm(np.array([[1.0, 0], [0, 2], [3, 1], [1, 3]]), [0, 1, 0, 1], ["flat", "steep"])
    >>> svm.scores(np.array([[5.0, 1], [1, 5]])).argmax(1)
    array([0, 1])
    """
    labels = np.asarray(labels, np.int64)
    if len(vectors.shape) != 2 or labels.shape != vectors.shape[:1] or not c > 0:
        raise ParameterError(f"an SVM needs one label for each vector (n, D) and c above 0, got {vectors.shape}, {labels.shape} and {c:g}")
    if len(labels) > MOST_VIDEOS:
        raise ParameterError(f"an SVM is trained on at most {MOST_VIDEOS:,} videos, got {len(labels):,}; choose a part of them")
    known = np.unique(labels)
    if len(known) < 2:
        raise ParameterError(f"an SVM needs training videos of two classes, got {len(known)}")
    gram = gram_matrix(vectors, normalise=normalise)
    duals = np.zeros((len(known), len(labels)))
    offsets = np.zeros(len(known))
    for row, label in enumerate(known.tolist()):
        duals[row], offsets[row] = _train_one(gram, labels == label, c)
        on_class(row + 1)
    planes = np.zeros((len(known), vectors.shape[1]))
    for rows, block in _blocks(vectors, normalise=normalise):
        planes += duals[:, rows] @ block
    return LinearSvm(tuple(classes[label] for label in known.tolist()), planes, offsets, normalise)


def gram_matrix(vectors: Vectors, *, normalise: bool) -> NDArray[np.float64]:
    """Return the inner products of all pairs of vectors: float64 (n, n). Two blocks of vectors are in memory at once.

    Raises
    ------
    ParameterError
        If a number is not finite.
    """
    gram = np.zeros((vectors.shape[0],) * 2)
    for rows, block in _blocks(vectors, normalise=normalise):
        for columns, other in _blocks(vectors, normalise=normalise, stop=rows.start):
            gram[rows, columns] = block @ other.T
            gram[columns, rows] = gram[rows, columns].T
        gram[rows, rows] = block @ block.T
    if not np.isfinite(gram).all():
        raise ParameterError("the vectors of an SVM must be finite numbers")
    return gram


def _train_one(gram: NDArray[np.float64], is_positive: NDArray[np.bool_], c: float) -> tuple[NDArray[np.float64], float]:
    """Return the weight of each video in the normal of the plane between two classes, and the plane's offset."""
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.svm import SVC
    except ImportError as cause:
        raise ParameterError(f'the SVM needs scikit-learn ({cause}): pip install "flowkit-video[svm]"') from cause
    cache_mebibytes = 1 + gram.size * 4 / 2**20  # all of the matrix in LIBSVM's 32 bits, so that no row is converted twice
    most = 100_000 + 20 * len(gram)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for tolerance, steps in ((_TOLERANCE, most), (_USUAL_TOLERANCE, max(_USUAL_STEPS, 100 * len(gram)))):
            machine = SVC(C=c, kernel="precomputed", tol=tolerance, max_iter=steps, cache_size=cache_mebibytes).fit(gram, is_positive)
            if int(machine.n_iter_[0]) < steps:
                break
    duals = np.zeros(len(gram))
    duals[machine.support_] = machine.dual_coef_[0]
    return duals, float(machine.intercept_[0])


def _blocks(vectors: Vectors, *, normalise: bool, stop: int | None = None) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Yield the rows up to `stop` in blocks of bounded size, in float64 and normalised; a vector of zeros stays zeros."""
    most = max(1, _BLOCK_BYTES // (8 * max(1, vectors.shape[1])))
    end = vectors.shape[0] if stop is None else stop
    for first in range(0, end, most):
        rows = slice(first, min(first + most, end))
        block = np.array(vectors[rows], np.float64)
        if normalise:
            length = np.linalg.norm(block, axis=1, keepdims=True)
            block /= np.where(length > 0, length, 1)
        yield rows, block
