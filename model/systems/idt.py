"""Improved dense trajectories: Fisher vectors of their descriptors, and a linear SVM."""

from __future__ import annotations

from collections.abc import Mapping

from flowkit.model.settings.svm_phase import SvmDescription, TrajectoryVectors
from flowkit.model.systems.system import System

PHASE = SvmDescription("idt", "IDT", TrajectoryVectors(), words="trajectories")

IDT = System(
    name=PHASE.name,
    row=PHASE.row,
    svms=(PHASE,),
    citation="H. Wang, C. Schmid, Action Recognition with Improved Trajectories, ICCV 2013; the figures are those that the ST-ResNet paper "
    "prints (Table 4)",
    published={"ucf101": 86.4, "hmdb51": 61.7},
    note="a linear SVM on improved trajectories; a row with + IDT is the mean of L2-normalised scores",
    differences=(
        "camera motion from SIFT (paper: SURF, which no package of OpenCV has)",
        "no boxes of persons (paper: from a detector)",
    ),
)


def with_idt(system: System, published: Mapping[str, float], *, differences: tuple[str, ...] = ()) -> System:
    """Return a system of networks joined with improved trajectories, with its own published accuracies."""
    return System(
        name=f"{system.name}+{IDT.name}",
        row=f"{system.row} + {IDT.row}",
        trains=system.trains,
        svms=(*system.svms, PHASE),
        joined=(system.row, IDT.row),
        citation=system.citation,
        published=published,
        differences=(*system.differences, *differences, *IDT.differences),
    )
