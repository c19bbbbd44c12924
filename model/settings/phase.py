"""What a phase is: one network that is trained on one split, described as data (standard library only)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from flowkit.model.settings.network_config import NetworkConfig
from flowkit.model.settings.recipes import PhaseRecipe, RecipeName


@dataclass(frozen=True)
class Reference:
    """What a phase's recipe ``official`` follows, and in what flowkit chooses its own way, for the notes beside published figures.

    Parameters
    ----------
    name : str
        What the notes call it: the paper, or the official code.
    first_weights : str
        What the phase starts from there.
    choices : mapping from setting to (value, value, str)
        Settings of `TrainConfig`, or of the network as ``network.NAME``: flowkit's value, the reference's, and what the reference does, in
        words. Neither value is a difference.
    settings : frozenset of str, optional
        The settings that the reference has; for the others, the value of the recipe stands for what it does without a name for it.
        Default: all.
    remarks : tuple of (str, int)
        What else flowkit does in its own way if the phase has the recipe's schedule; with a number that is not 0, for data of so many
        classes only.
    has_flow : bool
        Whether flow is compared with that of the official code of ST-ResNet.
    """

    name: str = "paper"
    first_weights: str = "random weights"
    choices: Mapping[str, tuple[Any, Any, str]] = field(default_factory=dict)
    settings: frozenset[str] | None = None
    remarks: tuple[tuple[str, int], ...] = ()
    has_flow: bool = False


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
    fixed : mapping
        Settings of its network that make it what it is, in every recipe, and that nobody may change.
    same : tuple of str
        Settings of the network that must be the same in all phases that are linked by `starts_from`.
    reference : Reference
        What its recipe ``official`` follows.
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
    fixed: Mapping[str, Any] = field(default_factory=dict)
    same: tuple[str, ...] = ()
    reference: Reference = field(default_factory=Reference)
    has_imagenet: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "network_keys", self.network_keys or self.all_keys)

    @property
    def all_keys(self) -> frozenset[str]:
        """The settings that its kind of network has and that may be changed."""
        return frozenset(item.name for item in fields(self.network)) - {"num_classes", *self.fixed}  # type: ignore[arg-type]
