"""The recipes of ST-ResNet, ST-ResNet* and their base streams, as data (standard library only)."""

from __future__ import annotations

from typing import Any

from flowkit.model.settings.recipes import PhaseRecipe, RecipeName

_CROP = 224 / 256  # side of the mean crop, as a share of the frame's short side
_SMALL_INPUT_SIZE_LIMIT = 112
_POOLED = {"temporal_pool": True}  # what makes an ST-ResNet an ST-ResNet*


def small_network(short_side: int) -> dict[str, Any]:
    """Return the small recipe's network for frames of this short side, px: it sees 7/8 of it, at most 112 px, a multiple of 8."""
    input_size = min(round(short_side * _CROP / 8) * 8, _SMALL_INPUT_SIZE_LIMIT)
    return {"base_width": 16, "stage_units": (2, 2, 2, 2), "input_size": max(input_size, 32)}


_OFFICIAL = {"bn_moments": "std"}  # what the official code does in all phases, unlike the defaults of `TrainConfig`
# The last version of the code of Feichtenhofer, Pinz and Wildes (NIPS 2016), feichtenhofer/st-resnet at 8b4f284: `STResNet_stage1.m`,
# `STResNet_stage2.m` and the two scripts of `base_streams`. Two things are flowkit's choice, because that code leaves them open: how
# often a schedule's last rate is repeated where the code sets no number of epochs and so trains 300 (all phases but st-resnet), and what
# `FREE_CHOICES` of `flowkit.model.systems.shared.residual_code` lists. `paper` is the paper's own schedule (its Table 2) as far as it is
# known: it is recollection and could not be checked against the text. Its motion batch of 256 in three sub-batches of up to 86 is 258
# here, because BN groups are equal.
OFFICIAL: dict[str, PhaseRecipe] = {
    "appearance": PhaseRecipe(
        _OFFICIAL | {"batch": 256, "bn_group": 32},
        passes=10,
        epochs=((2, 1e-2), (2, 1e-3), (2, 1e-4)),
        paper={"batch": 256, "bn_group": 8, "schedule": ((10_000, 1e-2), (10_000, 1e-3))},
    ),
    "motion": PhaseRecipe(
        _OFFICIAL | {"batch": 128, "bn_group": 32, "crop": "regular"},
        passes=100,
        epochs=((1, 1e-2), (1, 1e-3), (1, 1e-4), (1, 1e-5)),
        paper={"batch": 258, "bn_group": 86, "schedule": ((30_000, 1e-2), (10_000, 1e-3))},
        network={"motion_dropout": 0.8},
    ),
    "st-resnet": PhaseRecipe(
        _OFFICIAL | {"batch": 128, "bn_group": 4, "num_samples": 5, "tau_min": 5, "tau_max": 15},
        passes=10,
        epochs=((3, 1e-3), (3, 1e-4), (2, 1e-5)),
        paper={"batch": 128, "bn_group": 4, "schedule": ((30_000, 1e-3), (30_000, 1e-4), (20_000, 1e-5))},
    ),
    "st-resnet-star": PhaseRecipe(
        _OFFICIAL | {"batch": 128, "bn_group": 4, "num_samples": 11, "tau_min": 1, "tau_max": 15},
        passes=1,
        epochs=((1, 1e-4), (1, 1e-5)),
        paper={"batch": 128, "bn_group": 4, "schedule": ((2_000, 1e-4), (2_000, 1e-5))},
        network=_POOLED,
    ),
}

# A narrow, shallow network, trained from scratch in minutes on a laptop's CPU.
_SMALL = {"decay": "cosine", "bn_momentum": 0.1, "bn_average_first": True}
SMALL: dict[str, PhaseRecipe] = {
    "appearance": PhaseRecipe(_SMALL | {"batch": 32, "bn_group": 32, "warmup_steps": 20}, steps=((200, 0.05),), network_for=small_network),
    "motion": PhaseRecipe(
        _SMALL | {"batch": 32, "bn_group": 32, "warmup_steps": 20, "crop": "regular"}, steps=((250, 0.03),), network_for=small_network
    ),
    # The loss is a sum over T time steps and two streams, so these rates act like rates 2T times as high.
    "st-resnet": PhaseRecipe(
        _SMALL | {"batch": 16, "bn_group": 16, "warmup_steps": 5, "num_samples": 5, "tau_min": 1, "tau_max": 15},
        steps=((100, 0.004),),
        network_for=small_network,
    ),
    "st-resnet-star": PhaseRecipe(
        _SMALL | {"batch": 16, "bn_group": 16, "warmup_steps": 2, "num_samples": 11, "tau_min": 1, "tau_max": 15},
        steps=((25, 0.002),),
        network_for=small_network,
        network=_POOLED,
    ),
}
# The full-width network on users' own lists, which are mostly much shorter than UCF101's. Every choice is flowkit's own: steps follow the
# list, but are never too few to learn (the official schedule gives ST-ResNet* 4 steps for 213 videos). Batches are smaller than the
# official ones, and so are rates, which rise and fall smoothly: at 0.01 the motion stream has spikes (benchmarks/README.md). Its dropout is
# mild, because with the official 0.8 it stays at chance on so few videos. The rates of the ST phases, times the 5 or 4 outputs of a stream
# over which the loss is a sum, are a little below those of the base streams.
_OWN = {"decay": "cosine", "bn_momentum": 0.1, "bn_average_first": True, "warmup_steps": 20}
OWN: dict[str, PhaseRecipe] = {
    "appearance": PhaseRecipe(_OWN | {"batch": 32, "bn_group": 32}, epochs=((30, 0.005),), least_steps=300),
    "motion": PhaseRecipe(
        _OWN | {"batch": 32, "bn_group": 32, "crop": "regular"}, epochs=((60, 0.003),), least_steps=600, network={"motion_dropout": 0.2}
    ),
    "st-resnet": PhaseRecipe(
        _OWN | {"batch": 16, "bn_group": 8, "num_samples": 5, "tau_min": 1, "tau_max": 15}, epochs=((15, 0.0005),), least_steps=300
    ),
    "st-resnet-star": PhaseRecipe(
        _OWN | {"batch": 16, "bn_group": 4, "num_samples": 11, "tau_min": 1, "tau_max": 15},
        epochs=((5, 0.00025),),
        least_steps=150,
        network=_POOLED,
    ),
}


def recipes_of(phase: str) -> dict[RecipeName, PhaseRecipe]:
    """Return a phase's part of each recipe."""
    return {"official": OFFICIAL[phase], "own": OWN[phase], "small": SMALL[phase]}
