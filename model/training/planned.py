"""The settings that a training would have, without training."""

from __future__ import annotations

from pathlib import Path

from flowkit.dataset.root import Dataset
from flowkit.errors import ManifestError
from flowkit.model.data.held_out import HeldOut, held_out
from flowkit.model.data.official_lists import is_official_list
from flowkit.model.runs.training_data import extraction_of
from flowkit.model.settings.recipes import RecipeName, TrainSettings, make_configs
from flowkit.model.settings.training import Phase, TrainConfig
from flowkit.model.training.phases import Start


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
        If the split is not packed or has no training video.
    ParameterError
        If a setting is out of its range.
    CheckpointError
        If the first weights are a file that cannot be read.
    """
    dataset = Dataset.open(root)
    listed = dataset.split(split)
    if not listed.train:
        raise ManifestError(f"{root}: split {split} has no training video; pack it with lists that have some (`flowkit pack --lists`)")
    held = HeldOut()
    if settings.validation is not None:
        held = held_out(dataset, listed, settings.validation, seed=settings.all_overrides.get("seed", 0))
    recipe = settings.recipe_on(device_type, is_official_list=is_official_list(listed))
    weights = settings.weights_for(recipe)
    # A file of weights decides where the stride is, unless the settings do.
    decided = "stride_in_1x1" in settings.all_overrides or not isinstance(weights, Path)
    stride = {} if decided else Start(weights, settings.all_overrides).overrides
    configs = make_configs(
        recipe,
        num_classes=len(listed.classes),
        num_videos=len(held.without(listed).train),
        short_side=extraction_of(dataset, listed.train[0])["short_side"],
        paper_schedule=settings.paper_schedule,
        file=settings.file,
        overrides={**stride, **settings.overrides},
    )
    return recipe, configs
