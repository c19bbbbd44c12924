"""ST-ResNet with its base streams, and ST-ResNet*."""

from __future__ import annotations

from flowkit.model.settings.network import STResNetConfig
from flowkit.model.settings.phase import PhaseDescription
from flowkit.model.systems.shared.residual_code import HMDB51_EPOCHS, IMAGENET, LAST_RATE, official_code
from flowkit.model.systems.shared.residual_recipes import recipes_of
from flowkit.model.systems.system import Row, System

_STREAM_KEYS = frozenset(
    {"depth", "stage_units", "base_width", "input_size", "stride_in_1x1", "stem_pool", "rgb_offset", "head_pool", "motion_dropout"}
)
_SAME = ("depth", "stage_units", "base_width", "stride_in_1x1", "stem_pool", "rgb_offset")
_TIME_POOL_KEYS = frozenset({"temporal_pool_position"})

APPEARANCE = PhaseDescription(
    "appearance",
    STResNetConfig,
    recipes_of("appearance"),
    also_from=(("st-resnet",), ("st-resnet-star",)),
    network_keys=_STREAM_KEYS - {"motion_dropout"},
    same=_SAME,
    reference=official_code(IMAGENET, LAST_RATE, HMDB51_EPOCHS),
)
MOTION = PhaseDescription(
    "motion",
    STResNetConfig,
    recipes_of("motion"),
    also_from=(("st-resnet",), ("st-resnet-star",)),
    network_keys=_STREAM_KEYS - {"rgb_offset"},
    same=_SAME,
    reference=official_code(IMAGENET, LAST_RATE),
)
JOINED = PhaseDescription(
    "st-resnet",
    STResNetConfig,
    recipes_of("st-resnet"),
    starts_from=("appearance", "motion"),
    also_from=(("st-resnet-star",), ("appearance", "motion"), ("appearance",), ("motion",)),
    idle_keys=_TIME_POOL_KEYS,
    same=_SAME,
    reference=official_code("the base streams"),
)
POOLED = PhaseDescription(
    "st-resnet-star",
    STResNetConfig,
    recipes_of("st-resnet-star"),
    starts_from=("st-resnet",),
    also_from=(("st-resnet",),),
    same=_SAME,
    reference=official_code("st-resnet", LAST_RATE),
)
_TWO_STREAMS = (("appearance", "appearance"), ("motion", "motion"))
# Table 3 of the paper.
_ROWS = (
    Row("appearance", (("appearance", "appearance"),), {"ucf101": 82.29, "hmdb51": 43.42}),
    Row("motion", (("motion", "motion"),), {"ucf101": 79.05, "hmdb51": 55.47}),
    Row("two-streams", _TWO_STREAMS, {"ucf101": 89.47, "hmdb51": 60.59}),
    *(
        Row(name, ((phase, "appearance"), (phase, "motion")), published, has_heads=True)
        for name, phase, published in (
            ("ST-ResNet", "st-resnet", {"ucf101": 92.76, "hmdb51": 65.57}),
            ("ST-ResNet*", "st-resnet-star", {"ucf101": 93.46, "hmdb51": 66.41}),
        )
    ),
)

ST_RESNET = System(
    name="st-resnet",
    row="ST-ResNet*",
    trains=(APPEARANCE, MOTION, JOINED, POOLED),
    rows=_ROWS,
    citation="C. Feichtenhofer, A. Pinz, R. P. Wildes, Spatiotemporal Residual Networks for Video Action Recognition, NIPS 2016, Table 3",
    published=_ROWS[-1].published,
)
