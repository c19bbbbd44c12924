"""Two VGG-16 streams, as trained by Wang et al. in 2015."""

from __future__ import annotations

from flowkit.model.settings.recipes import PhaseRecipe
from flowkit.model.systems.shared.vgg_streams import vgg_phases, vgg_rows
from flowkit.model.systems.system import System

# yjxiong/caffe, branch action_recog: solver and training prototxt of both networks.
_OFFICIAL = {
    "appearance": PhaseRecipe(
        {"batch": 256, "bn_group": 32, "crop": "regular"},
        steps=((4_000, 1e-3), (4_000, 1e-4), (2_000, 1e-5)),
        network={"dropout": (0.9, 0.9)},
    ),
    "motion": PhaseRecipe(
        {"batch": 264, "bn_group": 33, "crop": "regular"},
        steps=((10_000, 5e-3), (10_000, 5e-4), (10_000, 5e-5)),
        network={"dropout": (0.9, 0.8)},
    ),
}
_TITLE = "VGG-16"

TWO_STREAMS_VGG_16 = System(
    name="two-streams-vgg-16",
    row=f"{_TITLE} two-streams",
    trains=vgg_phases("vgg-16", _OFFICIAL, first_weights="VGG-16, trained on ImageNet", rates=(0.005, 0.005)),
    rows=vgg_rows("vgg-16", _TITLE, {"two-streams": {"ucf101": 91.4, "hmdb51": 58.5}}, softmax_weights=(1.0, 2.0)),
    citation="L. Wang, Y. Xiong, Z. Wang, Y. Qiao, Towards Good Practices for Very Deep Two-Stream ConvNets, arXiv:1507.02159, 2015; the "
    "figures are those that the ST-ResNet paper prints (Table 4)",
    published={"ucf101": 91.4, "hmdb51": 58.5},
    note="the mean of the softmax of both streams, appearance : motion = 1 : 2, unless other weights are given",
    differences=(
        "crop sides of motion are 256, 224, 192 and 168 (paper's code: no 168)",
        "the classifier begins as N(0, 0.01^2) (paper's code: N(0, 0.001^2))",
        "whole frames unless --crops ten says otherwise (paper's code: ten crops)",
    ),
)
