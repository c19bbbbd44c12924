"""The two base streams joined with improved dense trajectories."""

from __future__ import annotations

from flowkit.model.systems.idt import IDT
from flowkit.model.systems.st_resnet import APPEARANCE, MOTION
from flowkit.model.systems.system import System

_ROW = "two-streams"

TWO_STREAMS_IDT = System(
    name="two-streams+idt",
    row=f"{_ROW} + {IDT.row}",
    trains=(APPEARANCE, MOTION),
    has_trajectories=True,
    joined=(_ROW, IDT.row),
    citation="The base streams of ST-ResNet with improved trajectories; the paper has no figure for them",
    differences=IDT.differences,
)
