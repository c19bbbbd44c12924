"""A test of four phases that were trained exactly by the recipe `official`, on all of a data set that has published figures."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from hostile_results import make_evaluation, make_result
from phases import PHASES

from flowkit.flow.params import TVL1Params
from flowkit.model.data.official_lists import CLASSES_SHA256, classes_sha256
from flowkit.model.evaluation.official import PROTOCOL
from flowkit.model.evaluation.published import PUBLISHED
from flowkit.model.systems.configs import make_configs
from flowkit.quantise import Quantiser

if TYPE_CHECKING:
    import pytest

    from flowkit.dataset.manifest import Split
    from flowkit.dataset.root import Dataset
    from flowkit.model.evaluation.results import Evaluation, SplitEvaluation

NUM_TRAIN = 3
EXTRACTION: dict[str, Any] = {"short_side": 256, "tvl1": TVL1Params.preset("paper").to_dict(), "solver": "strict", "codec": "jpeg"}


class OfficialCase(NamedTuple):
    """The arguments of `compare_with_paper`."""

    split: Split
    result: SplitEvaluation
    evaluation: Evaluation


def official_case(dataset: Dataset, patch: pytest.MonkeyPatch) -> OfficialCase:
    """Return a test of a split that is, by `patch`, all of UCF101."""
    split = replace(dataset.split(1), protocol="ucf101")
    split = replace(split, train=split.test[:NUM_TRAIN], test=split.test[:-1])  # the last one could not be read
    counts = ((NUM_TRAIN, len(split.test)),) * 3
    patch.setitem(CLASSES_SHA256, "ucf101", classes_sha256(split.classes))
    patch.setitem(PUBLISHED, "ucf101", replace(PUBLISHED["ucf101"], num_videos=counts))
    result = make_result(dataset)
    result = replace(result, failed=(), warnings=(), provenances=with_recipe(result, "official"))
    evaluation = replace(make_evaluation(result), protocol=(*PROTOCOL, "streams joined"), environment={"amp": "float32"})
    return OfficialCase(split, result, evaluation)


def with_recipe(result: SplitEvaluation, recipe: Any, *, paper_schedule: bool = False, **overrides: Any) -> dict[Any, Any]:
    """Return how the phases of a result would have been trained by a recipe with these overrides."""
    overrides = {"bn_renewal_steps": 0, **overrides}  # which this short list would have, unlike the official ones
    configs = make_configs(
        recipe,
        num_classes=len(result.classes),
        num_videos=NUM_TRAIN,
        short_side=256,
        weights="imagenet",
        paper_schedule=paper_schedule,
        overrides=overrides,
    )
    flow: dict[str, Any] = {"quantiser": Quantiser(20.0, "paper").to_dict(), "extraction": EXTRACTION}
    return {phase: replace(result.provenances[phase], config=configs[phase], **flow) for phase in PHASES}
