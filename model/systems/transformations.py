"""Actions as transformations, which flowkit does not build: its published figures, and why."""

from __future__ import annotations

from flowkit.model.systems.system import System

TRANSFORMATIONS = System(
    name="transformations",
    row="Transformations",
    citation="X. Wang, A. Farhadi, A. Gupta, Actions ~ Transformations, CVPR 2016",
    published={"ucf101": 92.4, "hmdb51": 62.0},
    why_not_built="no code of its authors is public, and its margin, first weights, learning rates and the weights of RGB and flow could "
    "not be verified, so that a figure of flowkit's would say nothing about the published one",
)
