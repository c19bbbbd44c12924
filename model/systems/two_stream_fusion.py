"""Two-stream fusion: two VGG-16 streams joined by a 3D convolution and 3D pooling."""

from __future__ import annotations

from flowkit.model.settings.fusion3d import FusionConfig
from flowkit.model.settings.phase import PhaseDescription, Reference
from flowkit.model.settings.recipes import PhaseRecipe
from flowkit.model.systems.idt import with_idt
from flowkit.model.systems.shared.vgg_streams import small_network
from flowkit.model.systems.system import Row, System
from flowkit.model.systems.two_streams_vgg_16 import TWO_STREAMS_VGG_16

_SAMPLES = {"num_samples": 5, "tau_min": 5, "tau_max": 15}
_STREAMS = TWO_STREAMS_VGG_16.trains
FUSION = PhaseDescription(
    "vgg-16-fusion",
    FusionConfig,
    {
        # feichtenhofer/twostreamfusion, epochs of ten passes over the videos.
        "official": PhaseRecipe(
            _SAMPLES | {"batch": 96, "bn_group": 4},
            passes=10,
            epochs=((2, 1e-3), (1, 1e-4), (1, 1e-5), (1, 1e-6)),
            network={"dropout": (0.85, 0.85)},
        ),
        "own": PhaseRecipe(
            _SAMPLES | {"batch": 32, "bn_group": 4, "decay": "cosine", "warmup_steps": 20, "tau_min": 1},
            epochs=((15, 0.001),),
            least_steps=300,
        ),
        "small": PhaseRecipe(
            _SAMPLES | {"batch": 16, "bn_group": 16, "decay": "cosine", "warmup_steps": 5, "tau_min": 1},
            steps=((60, 0.01),),
            network_for=small_network,
        ),
    },
    starts_from=tuple(phase.name for phase in _STREAMS),
    network_keys=frozenset({"width", "input_size", "dropout", "lrn", "rgb_offset", "shares", "train_trunks"}),
    fixed={"kind": "vgg-16-fusion"},
    same=("width", "lrn", "rgb_offset"),
    reference=Reference(name="official code", first_weights="the VGG-16 streams", has_flow=True),
)
_PUBLISHED = {"ucf101": 92.5, "hmdb51": 65.4}

TWO_STREAM_FUSION = System(
    name="two-stream-fusion",
    row="Two-Stream Fusion",
    trains=(*_STREAMS, FUSION),
    rows=(Row("Two-Stream Fusion", ((FUSION.name, "appearance"), (FUSION.name, "motion")), _PUBLISHED, has_heads=True),),
    citation="C. Feichtenhofer, A. Pinz, A. Zisserman, Convolutional Two-Stream Network Fusion for Video Action Recognition, CVPR 2016",
    published=_PUBLISHED,
    note="the mean of the logits of both heads; the appearance head sees both streams",
    differences=(
        "streams from the recipe of Wang et al. (paper: their own schedule, with 82.6 and 86.3 % on split 1 of UCF101)",
        "25 frames that the network sees at once (official code: ten sequences of five frames at random distances)",
    ),
)
TWO_STREAM_FUSION_IDT = with_idt(TWO_STREAM_FUSION, {"ucf101": 93.5, "hmdb51": 69.2})
