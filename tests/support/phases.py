"""The phases of ST-ResNet in the order of their training, the streams of each, and the rows of the results table."""

from __future__ import annotations

from flowkit.model.settings.network_config import STREAMS
from flowkit.model.systems.st_resnet import ST_RESNET

PHASES = ST_RESNET.networks
STREAMS_OF: dict[str, tuple[str, ...]] = {phase: (phase,) if phase in STREAMS else STREAMS for phase in PHASES}
ROWS = {row.name: row.parts for row in ST_RESNET.rows}
HEADS = {f"{row.name}, {stream} head": (phase, stream) for row in ST_RESNET.rows if row.has_heads for phase, stream in row.parts}
