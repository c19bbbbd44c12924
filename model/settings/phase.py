"""What a phase is: one network that is trained on one split, described as data (standard library only)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from flowkit.model.settings.network_config import NetworkConfig
from flowkit.model.settings.recipes import PhaseRecipe, RecipeName


@dataclass(frozen=True)
class PhaseDescription:
    """One network that is trained on one split.

    Parameters
    ----------
    name : str
        Its name, which names its folder: small letters, digits and hyphens.
    network : type
        The data class of its network's settings, which says what kind of network it is.
    recipes : mapping from recipe to PhaseRecipe
        How it is trained in each recipe.
    starts_from : tuple of str
        The phases whose final weights are its first weights. A phase without any starts from pretrained or random weights.
    also_from : tuple of tuple of str
        The phases from whose networks ``train --init-from`` may start it if there is none of its own, in the order of preference.
    network_keys : frozenset of str
        The settings of its network that it has; the others keep their defaults, so that runs do not differ by them. Default: all.
    idle_keys : frozenset of str
        Those among them that have no effect on what its recipes build.
    same : tuple of str
        Settings of the network that must be the same in all phases that are linked by `starts_from`.
    has_imagenet : bool
        Whether flowkit can fetch weights for it that were trained on ImageNet.

    Examples
    --------
    >>> from flowkit.model.systems.registry import PHASES
    >>> PHASES["st-resnet"].starts_from
    ('appearance', 'motion')
    """

    name: str
    network: type[NetworkConfig]
    recipes: Mapping[RecipeName, PhaseRecipe]
    starts_from: tuple[str, ...] = ()
    also_from: tuple[tuple[str, ...], ...] = ()
    network_keys: frozenset[str] = frozenset()
    idle_keys: frozenset[str] = frozenset()
    same: tuple[str, ...] = ()
    has_imagenet: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "network_keys", self.network_keys or self.all_keys)

    @property
    def all_keys(self) -> frozenset[str]:
        """The settings that its kind of network has, without the number of classes."""
        return frozenset(item.name for item in fields(self.network)) - {"num_classes"}  # type: ignore[arg-type]
