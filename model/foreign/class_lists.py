"""The classes of UCF101 and HMDB51 in the order in which the ST-ResNet authors' networks list their outputs.

Their files name ImageNet's classes, whatever a network was trained on, so the order comes from here: ``classInd.txt`` for UCF101 and
``cnn_setup_data.m``, line 111, for HMDB51, which is sorted but for two swaps (kick_ball before kick, sword_exercise before sword).
"""

from __future__ import annotations

from collections.abc import Mapping

from flowkit.dataset.lists.data_sets import DATA_SETS

_SWAPPED = {"kick": "kick_ball", "kick_ball": "kick", "sword": "sword_exercise", "sword_exercise": "sword"}
CLASS_LISTS: Mapping[str, tuple[str, ...]] = {
    "ucf101": DATA_SETS["ucf101"].classes,
    "hmdb51": tuple(_SWAPPED.get(name, name) for name in DATA_SETS["hmdb51"].classes),
}
