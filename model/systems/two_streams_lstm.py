"""Two streams whose features of frames pass through LSTMs."""

from __future__ import annotations

from flowkit.model.systems.shared.sequences import CITATION, DIFFERENCES, sequence_phases, sequence_rows
from flowkit.model.systems.st_resnet import APPEARANCE, MOTION
from flowkit.model.systems.system import System

_ROW, _PUBLISHED = "Two-Stream + LSTM (ResNet features)", {"ucf101": 88.6}

TWO_STREAMS_LSTM = System(
    name="two-streams-lstm",
    row=_ROW,
    trains=(
        APPEARANCE,
        MOTION,
        *sequence_phases(
            "lstm",
            "resnet-lstm",
            frozenset({"hidden", "layers", "dropout"}),
            rates=(0.05, 0.05, 0.1),
            small={"hidden": 128, "layers": 1, "dropout": 0.2},
        ),
    ),
    rows=sequence_rows("lstm", "LSTM", _ROW, _PUBLISHED),
    citation=CITATION,
    published=_PUBLISHED,
    note="the mean softmax over the steps of each LSTM, later steps counted more, then the mean of the logarithms of both streams",
    differences=DIFFERENCES,
)
