"""Two streams whose features of frames are pooled over time before a hidden layer (conv pooling)."""

from __future__ import annotations

from flowkit.model.systems.shared.sequences import CITATION, DIFFERENCES, sequence_phases, sequence_rows
from flowkit.model.systems.st_resnet import APPEARANCE, MOTION
from flowkit.model.systems.system import System

_ROW, _PUBLISHED = "Two-Stream + conv pooling (ResNet features)", {"ucf101": 88.2}

TWO_STREAMS_POOLING = System(
    name="two-streams-pooling",
    row=_ROW,
    trains=(
        APPEARANCE,
        MOTION,
        *sequence_phases(
            "pooling",
            "resnet-pooling",
            frozenset({"hidden", "late_pooling", "dropout"}),
            rates=(0.01, 0.01, 0.02),
            small={"hidden": 128, "dropout": 0.2},
        ),
    ),
    rows=sequence_rows("pooling", "Conv pooling", _ROW, _PUBLISHED),
    citation=CITATION,
    published=_PUBLISHED,
    note="the mean of the logits of both streams",
    differences=(*DIFFERENCES, "the maximum over time of features that are averaged over space (paper: of the last maps)"),
)
