"""What a system is (standard library only)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from flowkit.model.encoding.trajectory_settings import TRAJECTORIES
from flowkit.model.settings.training import PHASES


@dataclass(frozen=True)
class System:
    """What is compared under one name: a set of phases, and how their scores make one row of the results table.

    Parameters
    ----------
    name : str
        The name that ``--system`` takes.
    row : str
        The row of the results table that is the system's accuracy.
    phases : tuple of str
        The phases that must be trained, each after those that it starts from.
    joined : tuple of str
        The rows whose scores are joined in `row`: each video's scores of a row are divided by their Euclidean length, then averaged.
        Empty if the phases give the row by themselves.
    citation : str
        The publication.
    published : mapping from protocol to float, percent
        Its accuracies, means over the three splits of UCF101 (``ucf101``) and HMDB51 (``hmdb51``); empty if there are none for just this.
    differences : tuple of str
        What flowkit does in another way than the publication, in any run.

    Examples
    --------
    >>> from flowkit.model.systems.registry import SYSTEMS
    >>> SYSTEMS["st-resnet-star+idt"].joined
    ('ST-ResNet*', 'IDT')
    """

    name: str
    row: str
    phases: tuple[str, ...]
    citation: str
    joined: tuple[str, ...] = ()
    published: Mapping[str, float] = field(default_factory=dict)
    differences: tuple[str, ...] = ()

    @property
    def networks(self) -> tuple[str, ...]:
        """Those of its phases that train a network."""
        return tuple(phase for phase in self.phases if phase in PHASES)

    @property
    def has_trajectories(self) -> bool:
        """Whether one of its phases is that of improved trajectories."""
        return TRAJECTORIES in self.phases
