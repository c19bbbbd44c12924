"""Two VGG-M streams: the two-stream network of Simonyan and Zisserman."""

from __future__ import annotations

from flowkit.model.settings.recipes import PhaseRecipe
from flowkit.model.systems.shared.vgg_streams import vgg_phases, vgg_rows
from flowkit.model.systems.system import System

_SHARED = {"batch": 256, "bn_group": 32, "balance": "sampling"}
# Section 5 of the paper, with the schedule of training from scratch, because flowkit has no VGG-M that was trained on ImageNet.
_OFFICIAL = {
    "appearance": PhaseRecipe(
        _SHARED | {"crop": "regular"}, steps=((50_000, 1e-2), (20_000, 1e-3), (10_000, 1e-4)), network={"dropout": (0.9, 0.9)}
    ),
    "motion": PhaseRecipe(
        _SHARED | {"crop": "regular"}, steps=((50_000, 1e-2), (20_000, 1e-3), (10_000, 1e-4)), network={"dropout": (0.9, 0.9)}
    ),
}
_TITLE = "VGG-M"

TWO_STREAMS_VGG_M = System(
    name="two-streams-vgg-m",
    row=f"{_TITLE} two-streams",
    trains=vgg_phases("vgg-m", _OFFICIAL, first_weights="random weights", rates=(0.02, 0.02), of_motion={"without_mean": True}),
    rows=vgg_rows(
        "vgg-m",
        _TITLE,
        {
            "appearance": {"ucf101": 73.0, "hmdb51": 40.5},
            "motion": {"ucf101": 83.7, "hmdb51": 54.6},
            "two-streams": {"ucf101": 88.0, "hmdb51": 59.4},
        },
    ),
    citation="K. Simonyan, A. Zisserman, Two-Stream Convolutional Networks for Action Recognition in Videos, NIPS 2014",
    published={"ucf101": 88.0, "hmdb51": 59.4},
    differences=(
        "random first weights unless --weights names a VGG-M (paper: the spatial network from ImageNet, only its last layer trained)",
        "one classifier a network (paper: the temporal network has two, for UCF101 and HMDB51)",
        "the mean of a flow field over what the network sees of it is subtracted (paper: over the whole field)",
        "whole frames unless --crops ten says otherwise, and the mean of logits (paper: ten crops, and a linear SVM on the stacked scores)",
        "TV-L1 flow (paper: Brox et al.)",
    ),
)
