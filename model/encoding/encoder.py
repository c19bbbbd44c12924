"""An encoder: what makes one vector of fixed length from all descriptors of a video, of several types."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import ParameterError
from flowkit.model.encoding.fisher import BLOCK, FisherSums
from flowkit.model.encoding.fisher_reference import normalised
from flowkit.model.encoding.mixture import Mixture
from flowkit.model.encoding.projection import Projection
from flowkit.records import canonical_json

PARTS = ("pca_mean", "pca_components", "weights", "means", "deviations")  # the arrays of one type


@dataclass(frozen=True)
class DescriptorEncoder:
    """The encoder of one type of descriptors.

    Parameters
    ----------
    name : str
        The type, such as ``hog``.
    projection : Projection
        Its principal components.
    mixture : Mixture
        The mixture of the projected descriptors.

    Raises
    ------
    ParameterError
        If the mixture has another number of dimensions than the projection.
    """

    name: str
    projection: Projection
    mixture: Mixture

    def __post_init__(self) -> None:
        if self.projection.num_outputs != self.mixture.num_dimensions:
            raise ParameterError(
                f"{self.name}: the projection gives {self.projection.num_outputs} numbers, and the mixture needs "
                f"{self.mixture.num_dimensions}"
            )

    @classmethod
    def of(cls, name: str, arrays: Mapping[str, NDArray[np.float64]]) -> DescriptorEncoder:
        """Make an encoder of what `arrays` returned; `ParameterError` if the arrays do not agree."""
        mean, components, weights, means, deviations = (arrays[part] for part in PARTS)
        return cls(name, Projection(mean, components), Mixture(weights, means, deviations))

    def arrays(self) -> dict[str, NDArray[np.float64]]:
        """Return its arrays by the names of `PARTS`."""
        projection, mixture = self.projection, self.mixture
        values = (projection.mean, projection.components, mixture.weights, mixture.means, mixture.deviations)
        return dict(zip(PARTS, values, strict=True))

    @property
    def is_constant(self) -> bool:
        """Whether it was fitted to descriptors that are all equal, so that nothing is left of any descriptor and all vectors are 0."""
        return not self.projection.components.any()

    @property
    def size(self) -> int:
        """2 K d, the length of the Fisher vector."""
        return 2 * self.mixture.means.size

    def sums(self, descriptors: NDArray[np.floating]) -> FisherSums:
        """Return the sums over descriptors (n, D).

        Raises
        ------
        ParameterError
            If a descriptor has another length, or is not finite.
        """
        if descriptors.ndim != 2 or descriptors.shape[1] != self.projection.num_inputs:
            raise ParameterError(f"{self.name} must have the shape (n, {self.projection.num_inputs}), got {descriptors.shape}")
        sums = FisherSums.of(self.projection.apply(descriptors), self.mixture)  # which also checks them
        return FisherSums.none(self.mixture) if self.is_constant else sums


@dataclass(frozen=True)
class Encoder:
    """PCA, a Gaussian mixture and Fisher vectors for each type of descriptors.

    Parameters
    ----------
    types : tuple of DescriptorEncoder
        The types, in the order in which their Fisher vectors are concatenated.
    provenance : dict
        What the encoder was fitted to, and how, as built-in types.

    Raises
    ------
    ParameterError
        If there is no type, or two have the same name.

    Examples
    --------
    >>> import numpy as np
    >>> from flowkit.model.encoding.fitting import fit_encoder
    >>> rng = np.random.default_rng(0)
    >>> sample = {"hog": rng.normal(size=(500, 8)).astype(np.float32), "hof": rng.normal(size=(500, 6)).astype(np.float32)}
    >>> encoder = fit_encoder(sample, num_components=4, seed=0, provenance={})
    >>> encoder.size  # 2 K d of each type: d is half of 8 and of 6
    56
    >>> blocks = ({name: rows[first : first + 100] for name, rows in sample.items()} for first in (0, 100))
    >>> vector = encoder.encode(blocks)
    >>> vector.shape, float(np.linalg.norm(vector).round(5))
    ((56,), 1.41421)
    """

    types: tuple[DescriptorEncoder, ...]
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [one.name for one in self.types]
        if not names or len(set(names)) < len(names):
            raise ParameterError(f"an encoder needs types of descriptors with different names, got {names}")

    @property
    def size(self) -> int:
        """The length of a video's vector."""
        return sum(one.size for one in self.types)

    def encode(self, blocks: Iterable[Mapping[str, NDArray[np.floating]]]) -> NDArray[np.float32]:
        """Encode the descriptors of a video.

        Parameters
        ----------
        blocks : iterable of mappings from type to array, shape (n, D)
            The descriptors, some at a time; only few are in memory. Their order and their division do not matter.

        Returns
        -------
        float32 array, shape (size,)
            The Fisher vectors of the types, one after the other. Each has the length 1; without descriptors it is 0.

        Raises
        ------
        ParameterError
            If a type is missing, a descriptor has another length, or a number is not finite.
        """
        totals = [FisherSums.none(one.mixture) for one in self.types]
        for block in self._joined(blocks):
            totals = [total + one.sums(block[one.name]) for total, one in zip(totals, self.types, strict=True)]
        vectors = [normalised(total.vector(one.mixture)) for total, one in zip(totals, self.types, strict=True)]
        return np.concatenate(vectors).astype(np.float32)

    def _joined(self, blocks: Iterable[Mapping[str, NDArray[np.floating]]]) -> Iterator[dict[str, NDArray[np.floating]]]:
        """Yield the descriptors in fewer blocks, because those of one frame are so few that what is computed once for a block counts."""
        waiting: dict[str, list[NDArray[np.floating]]] = {one.name: [] for one in self.types}
        num_waiting = 0
        for block in blocks:
            missing = [name for name in waiting if name not in block]
            if missing:
                raise ParameterError(f"descriptors of the type {missing[0]} are missing; there are {', '.join(block) or 'none'}")
            for name, parts in waiting.items():
                parts.append(block[name])
            num_waiting += len(block[self.types[0].name])
            if num_waiting >= BLOCK:
                yield {name: np.concatenate(parts) for name, parts in waiting.items()}
                waiting, num_waiting = {name: [] for name in waiting}, 0
        if num_waiting:
            yield {name: np.concatenate(parts) for name, parts in waiting.items()}

    def arrays(self) -> dict[str, NDArray[np.float64]]:
        """Return all arrays by name: ``hog.pca_mean``, ``hog.pca_components``, ``hog.weights``, ``hog.means``, ``hog.deviations``, ..."""
        return {f"{one.name}.{part}": array for one in self.types for part, array in one.arrays().items()}

    def digest(self) -> str:
        """Return the SHA-256 of the arrays and the provenance, whatever version of flowkit wrote the file."""
        digest = hashlib.sha256(canonical_json(self.provenance).encode())
        for name, array in self.arrays().items():
            digest.update(f"\0{name} {array.shape}\0".encode())
            digest.update(np.ascontiguousarray(array, "<f8").data)
        return digest.hexdigest()
