"""What a phase is whose model is a linear SVM on one vector for each video, described as data (standard library only)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# How many Gaussians a mixture of descriptors has in each recipe: the papers' 256, and a sixteenth for data sets of a few dozen videos.
FISHER_COMPONENTS: Mapping[str, int] = {"official": 256, "own": 256, "small": 16}


def _fisher_components() -> Mapping[str, int]:
    return FISHER_COMPONENTS


@dataclass(frozen=True)
class TrajectoryVectors:
    """Fisher vectors of the descriptors of improved trajectories: of their shape, HOG, HOF, MBHx and MBHy.

    Parameters
    ----------
    components : mapping from recipe to int
        How many Gaussians there are for each type of descriptors.
    """

    components: Mapping[str, int] = field(default_factory=_fisher_components)

    @property
    def networks(self) -> tuple[str, ...]:
        """The phases whose trained networks they need."""
        return ()


@dataclass(frozen=True)
class PooledVectors:
    """Fisher vectors of maps of trained networks, added up along improved trajectories.

    Parameters
    ----------
    layers : mapping from phase to tuple of str
        The networks, and which of their layers.
    scales : mapping from recipe to tuple of float
        The scales of the networks' inputs, for networks that were trained by a recipe.
    components : mapping from recipe to int
        How many Gaussians there are for each type of descriptors.
    """

    layers: Mapping[str, tuple[str, ...]]
    scales: Mapping[str, tuple[float, ...]]
    components: Mapping[str, int] = field(default_factory=_fisher_components)

    @property
    def networks(self) -> tuple[str, ...]:
        """The phases whose trained networks they need."""
        return tuple(self.layers)


@dataclass(frozen=True)
class NetworkVectors:
    """Features of a trained network, the mean over a video.

    Parameters
    ----------
    network : str
        The phase of the network.
    layer : str
        Which layer, as `flowkit.model.features` calls it.
    """

    network: str
    layer: str

    @property
    def components(self) -> Mapping[str, int]:
        """Empty, because they are no Fisher vectors."""
        return {}

    @property
    def networks(self) -> tuple[str, ...]:
        """The phases whose trained networks they need."""
        return (self.network,)


Vectors = TrajectoryVectors | PooledVectors | NetworkVectors


@dataclass(frozen=True)
class SvmDescription:
    """One linear SVM that is trained on a split's training list: a vector for each video, each class against the rest.

    Parameters
    ----------
    name : str
        The phase's name, which names its folder: small letters, digits and hyphens.
    row : str
        The row of the results table that its scores give.
    vectors : Vectors
        What a video's vector is. `flowkit.model.training.svm_vectors` computes each kind.
    words : str
        What messages call that of which a vector is made, as in "no features of trajectories".

    Examples
    --------
    >>> from flowkit.model.systems.registry import SVM_PHASES
    >>> SVM_PHASES["idt"].row, SVM_PHASES["idt"].vectors.networks
    ('IDT', ())
    """

    name: str
    row: str
    vectors: Vectors
    words: str
