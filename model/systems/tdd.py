"""Trajectory-pooled deep-convolutional descriptors: maps of two VGG-M streams along improved trajectories, and a linear SVM."""

from __future__ import annotations

from flowkit.model.settings.svm_phase import PooledVectors, SvmDescription
from flowkit.model.systems.idt import with_idt
from flowkit.model.systems.system import System
from flowkit.model.systems.two_streams_vgg_m import TWO_STREAMS_VGG_M

_APPEARANCE, _MOTION = TWO_STREAMS_VGG_M.trains

PHASE = SvmDescription(
    "tdd",
    "TDD",
    PooledVectors(
        layers={_APPEARANCE.name: ("conv4", "conv5"), _MOTION.name: ("conv3", "conv4")},
        # The five scales of the authors' code, which lie half an octave apart; of what it does with them, see the system's page.
        scales={"official": tuple(2 ** (half / 2) for half in (2, 1, 0, -1, -2)), "own": (1.0,), "small": (1.0,)},
    ),
    words="trajectory-pooled maps",
)

TDD = System(
    name="tdd",
    row=PHASE.row,
    trains=TWO_STREAMS_VGG_M.trains,
    svms=(PHASE,),
    citation="L. Wang, Y. Qiao, X. Tang, Action Recognition with Trajectory-Pooled Deep-Convolutional Descriptors, CVPR 2015; its figures "
    "without IDT could not be checked",
    published={"ucf101": 90.3, "hmdb51": 63.2},
    note="a linear SVM on Fisher vectors of maps along trajectories: conv4 and conv5 of the appearance network, conv3 and conv4 of the "
    "motion network",
    differences=(
        "both networks trained as in two-streams-vgg-m (paper: VGG-M-2048 on UCF101 at all events; the appearance network from ImageNet)",
        "all layers, normalisations and scales in one vector, C = 100 (what the paper does could not be checked)",
        "TV-L1 flow at 256 px (code: at the videos' own size)",
        "camera motion from SIFT (paper: SURF, which no package of OpenCV has)",
    ),
)
TDD_IDT = with_idt(TDD, {"ucf101": 91.5, "hmdb51": 65.9})
