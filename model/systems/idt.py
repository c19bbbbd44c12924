"""Improved dense trajectories: Fisher vectors of their descriptors, and a linear SVM."""

from __future__ import annotations

from flowkit.model.systems.system import System

IDT = System(
    name="idt",
    row="IDT",
    has_trajectories=True,
    citation="H. Wang, C. Schmid, Action Recognition with Improved Trajectories, ICCV 2013; the figures are those that the ST-ResNet paper "
    "prints (Table 4)",
    published={"ucf101": 86.4, "hmdb51": 61.7},
    note="a linear SVM on improved trajectories; a row with + IDT is the mean of L2-normalised scores",
    differences=(
        "camera motion from SIFT (paper: SURF, which no package of OpenCV has)",
        "no boxes of persons (paper: from a detector)",
    ),
)
