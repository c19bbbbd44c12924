"""The official code of ST-ResNet as the reference of its phases, as data (standard library only).

It is feichtenhofer/st-resnet at 8b4f284. What is said of the paper here is in its equations and tables.
"""

from __future__ import annotations

from typing import Any

from flowkit.model.settings.phase import Reference

# Choices that the recipe `official` makes: setting, flowkit's value, and what the official code (and the paper) has instead.
FREE_CHOICES: dict[str, tuple[Any, Any, str]] = {
    "tau_drawn": ("clip", "sub_batch", "official code: once for a sub-batch, getBatchWrapper_rgbflow.m:31"),
    "corners": ("four", "diagonal", "official code: two of the four, cnn_get_im_flow_batch.m:273"),
    "network.temporal_pool_position": (
        "after_pool5",
        "before_pool5",
        "paper, Table 1: after_pool5; official code: before_pool5, STResNet_stage2.m:97",
    ),
    "network.stride_in_1x1": (False, True, "official code: in the 1x1, as in its ImageNet weights"),
    "network.stem_pool": ("same", "ceil", "official code: ceil, as in its ImageNet weights"),
}
_IN_THE_CODE = frozenset(
    {
        *("batch", "bn_group", "schedule", "num_samples", "tau_min", "tau_max", "momentum", "weight_decay", "crop", "flip"),
        *("bn_momentum", "bn_moments", "bn_renewal_steps", "balance"),
        *(f"network.{name}" for name in ("units", "base_width", "input_size", "head_pool", "motion_dropout", "temporal_pool")),
        *(f"network.injection{name}" for name in ("", "_direction", "_kind", "_stages")),
        *(f"network.temporal_{name}" for name in ("convolution", "stages", "init", "padding", "pool_stride")),
    }
)
IMAGENET = "ResNet-50 of MSRA, trained on ImageNet"
LAST_RATE = ("the schedule ends with its list of rates (official code: the last rate up to epoch 300, cnn_train_dag.m:22)", 0)
HMDB51_EPOCHS = (
    "epochs as for UCF101 (official code for HMDB51: 2 x 0.01, 1 x 0.001, 1 x 0.0001, cnn_ucf101_spatial.m:36)",
    51,
)


def official_code(first_weights: str, *remarks: tuple[str, int]) -> Reference:
    """Return the official code as the reference of a phase."""
    return Reference("official code", first_weights, FREE_CHOICES, _IN_THE_CODE, remarks, has_flow=True)
