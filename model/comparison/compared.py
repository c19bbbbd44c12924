"""One system of a comparison: its result if it is trained, and what differs from its publication."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from flowkit.dataset.manifest import Split
from flowkit.model.comparison.estimates import Estimate
from flowkit.model.data.official_lists import is_official_list
from flowkit.model.evaluation.official import phase_differences
from flowkit.model.evaluation.results import SplitEvaluation
from flowkit.model.evaluation.row_results import PairedTest, RowResult, paired_test
from flowkit.model.scoring.tested_networks import Crops
from flowkit.model.systems.system import System

PUBLISHED_DATA = {"ucf101": "UCF101", "hmdb51": "HMDB51"}  # protocol -> what the table calls it


@dataclass(frozen=True)
class ComparedSystem:
    """One row of a comparison.

    Parameters
    ----------
    system : System
        The system.
    result : RowResult, optional
        Its result on the test videos; None if it is not trained or not built, or could not be tested.
    video_ids : tuple of str
        The videos of the result.
    missing : tuple of str
        The phases that are not trained.
    command : str
        The command that trains them; empty if all are trained.
    estimate : Estimate, optional
        About how long that takes on this machine.
    failure : str
        Why it has no result although it is trained, or could not be trained; empty if that is not so.
    differences : tuple of str
        In what the system differs from its publication, as trained and tested here.
    crops : {"whole", "ten"}
        What its networks saw of each frame in the test.
    """

    system: System
    result: RowResult | None = None
    video_ids: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    command: str = ""
    estimate: Estimate | None = None
    failure: str = ""
    differences: tuple[str, ...] = ()
    crops: Crops = "whole"

    def to_dict(self) -> dict[str, Any]:
        """Return the row as built-in types, for JSON."""
        return {
            "system": self.system.name,
            "row": self.system.row,
            "trained": not self.missing and not self.system.why_not_built,
            **({"not_built": self.system.why_not_built} if self.system.why_not_built else {}),
            "missing_phases": list(self.missing),
            "command": self.command or None,
            **({"time_to_train": self.estimate.to_dict()} if self.estimate else {}),
            "failure": self.failure or None,
            **({} if self.result is None else self.result.accuracy_dict()),
            "published_percent": dict(self.system.published),
            "citation": self.system.citation,
            "differences": list(self.differences),
            **({"crops": self.crops} if self.crops != "whole" else {}),
        }


@dataclass(frozen=True)
class Comparison:
    """All systems on the test videos of one split.

    Parameters
    ----------
    run : str
        The run.
    split : Split
        The split.
    systems : tuple of ComparedSystem
        The systems, in the order of the table.
    stopped : bool
        Whether the work was stopped on request, so that some results may be missing.
    """

    run: str
    split: Split
    systems: tuple[ComparedSystem, ...] = ()
    stopped: bool = field(default=False, compare=False)

    def paired_tests(self) -> list[PairedTest]:
        """Return the test of each pair of rows that have results of the same videos."""
        tested = {one.system.row: one for one in self.systems if one.result is not None}
        rows: Mapping[str, RowResult] = {name: one.result for name, one in tested.items() if one.result is not None}
        return [
            paired_test(rows, first, second)
            for first, second in combinations(rows, 2)
            if tested[first].video_ids == tested[second].video_ids
        ]


def differences_of(system: System, split: Split, result: SplitEvaluation) -> tuple[str, ...]:
    """Return in what a system that was trained and tested differs from its publication: data, each phase, then the system itself."""
    texts: list[str] = []
    if not is_official_list(split):
        texts.append(f"other data than the publication's: {split.protocol}, {len(split.classes)} classes")
    texts += [f"{warning} (--force)" for warning in result.warnings]
    for phase, made in result.provenances.items():
        differing, _ = phase_differences(made, num_train=len(split.train))
        texts += [f"{phase}: {', '.join(differing)}"] if differing else []
    return (*texts, *system.differences)


def published_data(systems: Sequence[ComparedSystem]) -> list[str]:
    """Return the data sets for which some of these systems has a published figure."""
    return [protocol for protocol in PUBLISHED_DATA if any(protocol in one.system.published for one in systems)]
