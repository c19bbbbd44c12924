"""The base streams and ST-ResNet* joined with improved dense trajectories; the latter is the best row of the ST-ResNet paper."""

from __future__ import annotations

from flowkit.model.systems.idt import IDT
from flowkit.model.systems.st_resnet import APPEARANCE, MOTION, ST_RESNET
from flowkit.model.systems.system import System

_ROW = "two-streams"

TWO_STREAMS_IDT = System(
    name="two-streams+idt",
    row=f"{_ROW} + {IDT.row}",
    trains=(APPEARANCE, MOTION),
    svms=IDT.svms,
    joined=(_ROW, IDT.row),
    citation="The base streams of ST-ResNet with improved trajectories; the paper has no figure for them",
    differences=IDT.differences,
)
ST_RESNET_STAR_IDT = System(
    name="st-resnet-star+idt",
    row=f"{ST_RESNET.row} + {IDT.row}",
    trains=ST_RESNET.trains,
    svms=IDT.svms,
    joined=(ST_RESNET.row, IDT.row),
    citation="C. Feichtenhofer, A. Pinz, R. P. Wildes, Spatiotemporal Residual Networks for Video Action Recognition, NIPS 2016, Table 4",
    published={"ucf101": 94.6, "hmdb51": 70.3},
    differences=IDT.differences,
)
