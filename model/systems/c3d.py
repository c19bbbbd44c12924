"""C3D: 3D convolutions over clips of 16 frames."""

from __future__ import annotations

from typing import Any

from flowkit.model.settings.c3d import C3DConfig
from flowkit.model.settings.phase import PhaseDescription, Reference
from flowkit.model.settings.recipes import PhaseRecipe
from flowkit.model.settings.svm_phase import NetworkVectors, SvmDescription
from flowkit.model.systems.idt import with_idt
from flowkit.model.systems.system import Row, System

_SMALL_INPUT_SIZE = (56, 32)  # px: of frames whose short side is at least 64, and of smaller ones


def small_network(short_side: int) -> dict[str, Any]:
    """Return the small recipe's network for frames of this short side, px: an eighth of the width, little dropout."""
    return {"width": 0.125, "input_size": _SMALL_INPUT_SIZE[short_side < 64], "dropout": (0.1, 0.1)}


PHASE = PhaseDescription(
    "c3d-appearance",
    C3DConfig,
    {
        # facebookarchive/C3D, examples/c3d_train_ucf101: from scratch, on frames of 128 x 171 px.
        "official": PhaseRecipe(
            {"batch": 30, "bn_group": 30, "crop": "uniform"},
            steps=((20_000, 3e-3), (20_000, 3e-4), (20_000, 3e-5)),
            network={"view": "centre"},
        ),
        "own": PhaseRecipe({"batch": 32, "bn_group": 32, "decay": "cosine", "warmup_steps": 20}, epochs=((60, 0.003),), least_steps=600),
        "small": PhaseRecipe(
            {"batch": 16, "bn_group": 16, "decay": "cosine", "warmup_steps": 20}, steps=((200, 0.02),), network_for=small_network
        ),
    },
    network_keys=frozenset({"width", "input_size", "dropout", "view"}),
    fixed={"kind": "c3d-scratch"},
    reference=Reference(name="official code"),
    has_imagenet=False,
)

SVM = SvmDescription("c3d-svm", "C3D", NetworkVectors(PHASE.name, "fc6"), words="fc6")

C3D = System(
    name="c3d",
    row=SVM.row,
    trains=(PHASE,),
    svms=(SVM,),
    rows=(Row("C3D classifier", ((PHASE.name, "appearance"),)),),
    citation="D. Tran, L. Bourdev, R. Fergus, L. Torresani, M. Paluri, Learning Spatiotemporal Features with 3D Convolutional Networks, "
    "ICCV 2015",
    published={"ucf101": 85.2},
    note="a linear SVM on the mean of fc6 over a video's clips of 16 frames, 8 frames apart, of length 1; C3D classifier: the mean of "
    "the network's own logits",
    differences=(
        "one network of five convolutions from random weights (paper: three of eight, trained on Sports-1M and I380K)",
        "ImageNet's mean colour is subtracted from frames (code: the mean of training clips, place by place)",
    ),
)
C3D_IDT = with_idt(C3D, {"ucf101": 90.4})
