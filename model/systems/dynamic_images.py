"""Dynamic images of frames and of flow, by approximate rank pooling."""

from __future__ import annotations

from flowkit.model.settings.dynamic_image import DynamicImageConfig
from flowkit.model.settings.phase import PhaseDescription, Reference
from flowkit.model.settings.recipes import PhaseRecipe
from flowkit.model.systems.idt import with_idt
from flowkit.model.systems.shared.residual_recipes import small_network
from flowkit.model.systems.system import Row, System

# At first the losses of these networks rise, since the maximum over images makes large values of maps that nothing normalises; a long
# warm-up and 32 videos a step keep that short.
_SMALL = {"batch": 32, "bn_group": 32, "decay": "cosine", "warmup_steps": 40, "bn_momentum": 0.1, "bn_average_first": True}


def _phase(stream: str, dropout: float) -> PhaseDescription:
    return PhaseDescription(
        f"dynamic-image-{stream}",
        DynamicImageConfig,
        {
            # hbilen/dynamic-image-nets, for ResNeXt-50: epochs of five passes over the videos, up to ten images of each.
            "official": PhaseRecipe(
                {"batch": 128, "bn_group": 32, "crop": "regular", "num_samples": 10},
                passes=5,
                epochs=((2, 1e-2), (8, 1e-3)),
                network={"dropout": dropout},
            ),
            "own": PhaseRecipe(
                {"batch": 32, "bn_group": 32, "crop": "regular", "num_samples": 4, "decay": "cosine", "warmup_steps": 20},
                epochs=((30, 0.005),),
                least_steps=300,
                network={"dropout": 0.5},
            ),
            "small": PhaseRecipe(
                _SMALL | {"crop": "regular", "num_samples": 2},
                steps=((200, 0.02),),
                network={"dropout": 0.1},
                network_for=small_network,
            ),
        },
        network_keys=frozenset(
            {"depth", "stage_units", "base_width", "input_size", "stride_in_1x1", "stem_pool", "head_pool", "dropout"}
            | {"image_frames", "image_rms", "image_limit"}
        ),
        reference=Reference(name="official code", first_weights="ResNeXt-50, trained on ImageNet"),
    )


_PHASES = (_phase("appearance", 0.5), _phase("motion", 0.8))
_PARTS = tuple((phase.name, phase.name.removeprefix("dynamic-image-")) for phase in _PHASES)

DYNAMIC_IMAGES = System(
    name="dynamic-images",
    row="Dynamic images",
    trains=_PHASES,
    rows=(
        Row("Dynamic images of RGB", _PARTS[:1]),
        Row("Dynamic images of flow", _PARTS[1:]),
        Row("Dynamic images", _PARTS),
    ),
    citation="H. Bilen, B. Fernando, E. Gavves, A. Vedaldi, S. Gould, Dynamic Image Networks for Action Recognition, CVPR 2016",
    note="the maximum over the maps of a video's dynamic images, and the mean of the logits of both networks",
    differences=(
        "ResNet-50 (paper: CaffeNet; code: ResNeXt-50)",
        "the root mean square of a picture is fixed (code: its Euclidean norm, 6000; the same for crops of 224 px)",
        "dynamic images of flow have two channels, u and v",
    ),
)
DYNAMIC_IMAGES_IDT = with_idt(
    DYNAMIC_IMAGES,
    {"ucf101": 89.1, "hmdb51": 65.2},
    differences=("no network of single frames (paper: dynamic images of RGB, single frames and trajectories)",),
)
