"""What a system is, and what a row of the results table is (standard library only)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from flowkit.model.settings.phase import PhaseDescription
from flowkit.model.settings.svm_phase import SvmDescription


@dataclass(frozen=True)
class Row:
    """One row of the results table that networks give by themselves: the mean of the scores of streams.

    Parameters
    ----------
    name : str
        What the table calls it.
    parts : tuple of (str, str)
        The phase and the stream of each score.
    published : mapping from protocol to float, percent
        The accuracies that the publication reports, means over the three splits of UCF101 (``ucf101``) and HMDB51 (``hmdb51``).
    has_heads : bool
        Whether each of its scores has a row of its own below the table. A row that joins the outputs of one network equally hides that
        one of them is at chance.
    softmax_weights : tuple of 2 float
        The weights of its two scores in a mean of their softmax, if it was published with such. Default: the mean of the logits.
    """

    name: str
    parts: tuple[tuple[str, str], ...]
    published: Mapping[str, float] = field(default_factory=dict)
    has_heads: bool = False
    softmax_weights: tuple[float, float] | None = None


@dataclass(frozen=True)
class System:
    """What is compared under one name: a set of phases, and how their scores make one row of the results table.

    Parameters
    ----------
    name : str
        The name that ``--system`` takes.
    row : str
        The row of the results table that is the system's accuracy.
    citation : str
        The publication.
    trains : tuple of PhaseDescription
        The phases that train a network, each after those that it starts from. Systems share a phase by sharing its description.
    svms : tuple of SvmDescription
        The phases that train a linear SVM on one vector for each video, after the networks that these vectors need.
    rows : tuple of Row
        The rows that its networks give, in the order of the table; those of phases that it shares are listed by one system only.
    joined : tuple of str
        The rows whose scores are joined in `row`: each video's scores of a row are divided by their Euclidean length, then averaged.
        Empty if the phases give the row by themselves.
    published : mapping from protocol to float, percent
        Its accuracies, means over the three splits of UCF101 (``ucf101``) and HMDB51 (``hmdb51``); empty if there are none for just this.
    note : str
        What its row is, for the explanations below a table.
    differences : tuple of str
        What flowkit does in another way than the publication, in any run.
    why_not_built : str
        Why flowkit does not have it, for a system that is listed for its published figures only.

    Examples
    --------
    >>> from flowkit.model.systems.registry import SYSTEMS
    >>> SYSTEMS["st-resnet"].networks
    ('appearance', 'motion', 'st-resnet', 'st-resnet-star')
    >>> SYSTEMS["st-resnet-star+idt"].joined
    ('ST-ResNet*', 'IDT')
    """

    name: str
    row: str
    citation: str
    trains: tuple[PhaseDescription, ...] = ()
    svms: tuple[SvmDescription, ...] = ()
    rows: tuple[Row, ...] = ()
    joined: tuple[str, ...] = ()
    published: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    differences: tuple[str, ...] = ()
    why_not_built: str = ""

    @property
    def networks(self) -> tuple[str, ...]:
        """The names of its phases that train a network."""
        return tuple(phase.name for phase in self.trains)

    @property
    def phases(self) -> tuple[str, ...]:
        """The names of all its phases."""
        return (*self.networks, *(svm.name for svm in self.svms))

    @property
    def has_fisher_vectors(self) -> bool:
        """Whether one of its SVMs classifies Fisher vectors, which have options of their own."""
        return any(svm.vectors.components for svm in self.svms)
