"""ST-ResNet with its base streams, and ST-ResNet*."""

from __future__ import annotations

from flowkit.model.settings.training import PHASES
from flowkit.model.systems.system import System

ST_RESNET = System(
    name="st-resnet",
    row="ST-ResNet*",
    phases=PHASES,
    citation="C. Feichtenhofer, A. Pinz, R. P. Wildes, Spatiotemporal Residual Networks for Video Action Recognition, NIPS 2016, Table 3",
    published={"ucf101": 93.46, "hmdb51": 66.41},
)
