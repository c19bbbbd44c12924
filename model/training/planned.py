"""What is known of a training before it begins: its videos, and the settings of its phases."""

from __future__ import annotations

from pathlib import Path

from flowkit.dataset.manifest import Split
from flowkit.dataset.root import Dataset
from flowkit.dataset.shard_files import check_shards
from flowkit.errors import ManifestError
from flowkit.model.data.held_out import HeldOut, held_out
from flowkit.model.data.official_lists import is_official_list
from flowkit.model.runs.training_data import extraction_of
from flowkit.model.settings.recipes import RecipeName, TrainSettings, make_configs
from flowkit.model.settings.training import Phase, TrainConfig
from flowkit.model.training.phases import Start

_OF_WEIGHTS = {"stride_in_1x1", "stem_pool", "rgb_offset"}  # what a file of weights may say of its network


def training_lists(root: Path, settings: TrainSettings, *, split: int) -> tuple[Dataset, Split, HeldOut]:
    """Return a data root, one of its splits, and which of the split's training videos are held out.

    Raises
    ------
    ManifestError
        If the split is not packed or has no training video, or a shard with its training videos is missing or truncated.
    ParameterError
        If no training video can be held out as `settings` ask, or none would remain.
    """
    dataset = Dataset.open(root)
    listed = dataset.split(split)
    if not listed.train:
        raise ManifestError(f"{root}: split {split} has no training video; pack it with lists that have some (`flowkit pack --lists`)")
    check_shards(dataset, listed, records=listed.train)
    if settings.validation is None:
        return dataset, listed, HeldOut()
    return dataset, listed, held_out(dataset, listed, settings.validation, seed=settings.all_overrides.get("seed", 0))


def planned_configs(root: Path, settings: TrainSettings, *, split: int, device_type: str) -> tuple[RecipeName, dict[Phase, TrainConfig]]:
    """Return the recipe, and the settings of all phases, that `train` would have in a new run with these arguments.

    Parameters
    ----------
    root : Path
        The data root.
    settings : TrainSettings
        How to train.
    split : int
        The number of the split, whose list decides the number of steps.
    device_type : str
        ``cpu`` or ``cuda``, for the recipe `auto`.

    Raises
    ------
    ManifestError
        As `training_lists` says.
    ParameterError
        If a setting is out of its range.
    CheckpointError
        If the first weights are a file that cannot be read.
    """
    dataset, listed, held = training_lists(root, settings, split=split)
    recipe = settings.recipe_on(device_type, is_official_list=is_official_list(listed))
    weights = settings.weights_for(recipe)
    # A file of weights decides some settings, unless the user has decided all of them.
    decided = settings.all_overrides.keys() >= _OF_WEIGHTS or not isinstance(weights, Path)
    of_weights = {} if decided else Start(weights, settings.all_overrides).overrides
    configs = make_configs(
        recipe,
        num_classes=len(listed.classes),
        num_videos=len(held.without(listed).train),
        short_side=extraction_of(dataset, listed.train[0])["short_side"],
        paper_schedule=settings.paper_schedule,
        file=settings.file,
        overrides={**of_weights, **settings.overrides},
    )
    return recipe, configs
