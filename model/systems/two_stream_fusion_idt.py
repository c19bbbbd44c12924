"""Two-stream fusion joined with improved dense trajectories."""

from __future__ import annotations

from flowkit.model.systems.idt import IDT
from flowkit.model.systems.system import System
from flowkit.model.systems.two_stream_fusion import TWO_STREAM_FUSION

TWO_STREAM_FUSION_IDT = System(
    name="two-stream-fusion+idt",
    row=f"{TWO_STREAM_FUSION.row} + {IDT.row}",
    trains=TWO_STREAM_FUSION.trains,
    has_trajectories=True,
    joined=(TWO_STREAM_FUSION.row, IDT.row),
    citation=TWO_STREAM_FUSION.citation,
    published={"ucf101": 93.5, "hmdb51": 69.2},
    differences=(*TWO_STREAM_FUSION.differences, *IDT.differences),
)
