"""The phases of ST-ResNet in the order of their training, and the streams of each."""

from __future__ import annotations

from flowkit.model.settings.network_config import STREAMS
from flowkit.model.systems.st_resnet import ST_RESNET

PHASES = ST_RESNET.networks
STREAMS_OF: dict[str, tuple[str, ...]] = {phase: (phase,) if phase in STREAMS else STREAMS for phase in PHASES}
