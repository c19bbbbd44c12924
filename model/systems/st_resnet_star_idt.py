"""ST-ResNet* joined with improved dense trajectories: the best row of the ST-ResNet paper."""

from __future__ import annotations

from flowkit.model.systems.idt import IDT
from flowkit.model.systems.st_resnet import ST_RESNET
from flowkit.model.systems.system import System

ST_RESNET_STAR_IDT = System(
    name="st-resnet-star+idt",
    row=f"{ST_RESNET.row} + {IDT.row}",
    trains=ST_RESNET.trains,
    has_trajectories=True,
    joined=(ST_RESNET.row, IDT.row),
    citation="C. Feichtenhofer, A. Pinz, R. P. Wildes, Spatiotemporal Residual Networks for Video Action Recognition, NIPS 2016, Table 4",
    published={"ucf101": 94.6, "hmdb51": 70.3},
    differences=IDT.differences,
)
