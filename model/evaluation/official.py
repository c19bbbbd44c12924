"""In what a run differs from the official code or the paper, setting by setting, and which choices of its own flowkit makes.

What each phase is compared with is its `Reference`. For the flow, it is feichtenhofer/gpu_flow at 32548bc.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowkit.flow.methods import FlowMethod
from flowkit.flow.params import TVL1Params
from flowkit.model.data.sampling import NUM_TEST_CENTRES
from flowkit.model.runs.provenance import Provenance, flattened
from flowkit.model.scoring.tested_networks import Crops
from flowkit.model.settings.network import NUM_FLOW_FIELDS
from flowkit.model.settings.network_config import MANY_CLIPS, ClipPlan
from flowkit.model.settings.phase import Reference
from flowkit.model.settings.training import TrainConfig
from flowkit.model.systems.configs import make_configs
from flowkit.model.systems.registry import description_of, linked
from flowkit.quantise import Quantiser
from flowkit.video.reading import Reading
from flowkit.words import counted

_SCORE = "score of a stream: mean of its logits over places, time and mirror images"
PROTOCOL = (
    f"{NUM_TEST_CENTRES} frames a video, evenly spaced, each with its stack of {NUM_FLOW_FIELDS} flow fields, and their mirror images",
    "whole frames, no crop; the 25 samples of one mirror state are one sequence",
    _SCORE,
)
_TEN_CROPS = "ten crops of the size of training crops: corners, centre and their mirror images"

_NO_COMPARISON = ("seed", "validation_steps", "weights", "recipe", "phase", "network.depth", "network.stage_units", "network.num_classes")
_ABOUT_CLIPS = ("tau_min", "tau_max", "tau_drawn")  # without meaning for single samples


def protocol_of(plan: ClipPlan | None, crops: Crops = "whole") -> tuple[str, ...]:
    """Return how networks are tested that see single frames and stacks, or the clips of a plan: one line for each point.

    `crops` says whether they see whole frames or ten crops of each.

    Examples
    --------
    >>> from flowkit.model.evaluation.official import protocol_of
    >>> from flowkit.model.settings.network_config import ClipPlan
    >>> protocol_of(ClipPlan(length=16, stride=8, training_stride=1))[0]
    'clips of 16 consecutive frames, of which the first ones are 8 apart, and their mirror images'
    """
    if plan is None:
        return PROTOCOL if crops == "whole" else (PROTOCOL[0], _TEN_CROPS, *PROTOCOL[2:])
    most = f", at most {plan.most} of a video" if plan.most < MANY_CLIPS else ""
    clips = f"clips of {plan.length} consecutive frames, of which the first ones are {plan.stride} apart{most}, and their mirror images"
    seen = "whole frames, no crop" if plan.view == "whole" else "the centre of frames that are resized, of the size of training crops"
    return (clips, f"{seen}; the clips of one mirror state are one sequence", _SCORE)


def phase_differences(made: Provenance, *, num_train: int) -> tuple[list[str], list[str]]:
    """Return the settings of a phase that differ from those of its reference, and flowkit's choices that it follows.

    Parameters
    ----------
    made : Provenance
        How the phase was trained. A network that the authors trained is compared in its architecture only.
    num_train : int
        The number of videos of the training list, from which the official schedule follows.
    """
    reference = description_of(made.config.phase).reference
    code = reference.name
    own, theirs = _flat(made.config), _flat(_official_config(made, num_train))
    names = [name for name in theirs if name not in _NO_COMPARISON and own.get(name) != theirs[name]]
    chosen = {name: values[:2] for name, values in reference.choices.items()}
    if made.is_converted:  # the file does not say how it was trained, and rgb_offset is the authors' mean colour
        names = [name for name in names if name.startswith("network.") and name != "network.rgb_offset"]
    weights = made.config.weights
    if made.first_network is not None or "sha256:" in weights:  # the mean colour belongs to the first weights, which are listed
        names = [name for name in names if name != "network.rgb_offset"]
    if not made.is_converted and made.config.num_samples == 1:
        names = [name for name in names if name not in _ABOUT_CLIPS or theirs["num_samples"] > 1]
    differences = [
        f"{_shown(name)} {_brief(own.get(name))} ({_source(reference, name, theirs[name])})"
        for name in names
        if own.get(name) not in chosen.get(name, ())  # the official code's own value is no difference either
    ]
    choices: list[str] = []
    if made.is_converted:
        return differences, choices
    if made.validation_ids:
        differences.append(f"{counted(len(made.validation_ids), 'training video')} held out for validation ({code}: none)")
    choices = [
        f"{_shown(name)} {_brief(ours)} ({instead})"
        for name, (ours, _, instead) in reference.choices.items()
        if own.get(name) == ours and _matters(name, made.config)
    ]
    if made.first_network is not None:
        differences.append(f"first weights of a trained network: {made.first_network} ({code}: {reference.first_weights})")
    elif weights == "none":
        differences += [f"random first weights ({code}: ImageNet)"] if "ImageNet" in _first_weights(made) else []
    elif weights == "imagenet":
        choices.append(f"first weights torchvision's, trained on ImageNet ({code}: {_first_weights(made)})")
    elif weights != "matconvnet":
        differences.append(f"first weights of a file, {_brief(weights)} ({code}: {_first_weights(made)})")
    if "schedule" not in names:
        choices += [text for text, count in reference.remarks if count in (0, len(made.classes))]
    return differences, choices


def flow_differences(extraction: Mapping[str, Any], quantiser: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return in what frames and flow differ from the official code's, and flowkit's choices.

    Parameters
    ----------
    extraction : dict
        Frame size, TV-L1 parameters, solver and codec, as `Provenance` has them; empty if they are not recorded.
    quantiser : dict
        The quantiser's settings.
    """
    theirs: dict[str, Any] = {f"quantiser {key}": value for key, value in Quantiser(20.0, "paper").to_dict().items()}
    own: dict[str, Any] = {f"quantiser {key}": value for key, value in quantiser.items()}
    differences, choices = [], []
    if not extraction:
        differences.append("how frames and flow were made is not recorded")
    else:
        solver = extraction.get("solver")
        if solver == "strict":
            choices.append("solver strict, OpenCV's CPU class with other parameters (official code: the GPU class of OpenCV 2.4, gpu_flow)")
        elif extraction.get("method"):
            differences.append(f"flow method {FlowMethod.from_dict(extraction['method'])} (official code: TV-L1, by gpu_flow)")
        elif solver != "gpu_flow":
            differences.append(f"solver {_brief(solver)} (official code: gpu_flow)")
        if words := Reading.from_dict(extraction.get("reading", {})).in_words():
            differences.append(f"frames were read otherwise: {words} (official code: all frames as they are)")
        theirs |= {"short side": 256, "codec": "jpeg", "removed camera motion": "none"}
        own |= {
            "short side": extraction.get("short_side"),
            "codec": extraction.get("codec"),
            "removed camera motion": extraction.get("camera_motion", "none"),
        }
        parameters = extraction.get("tvl1") or {}
        if parameters:
            theirs |= {f"TV-L1 {name}": value for name, value in TVL1Params.preset("paper").to_dict().items()}
            own |= {f"TV-L1 {name}": value for name, value in parameters.items()}
        elif solver != "gpu_flow" and not extraction.get("method"):
            differences.append("TV-L1 parameters unknown (official code: those of the preset paper)")
    differences += [
        f"{name.rstrip('_')} {_brief(own.get(name))} (official code: {_brief(theirs.get(name))})"
        for name in dict.fromkeys([*theirs, *own])
        if own.get(name) != theirs.get(name)
    ]
    return differences, choices


def _official_config(made: Provenance, num_train: int) -> TrainConfig:
    """Return the recipe `official` of a phase."""
    configs = make_configs(
        "official",
        phases=[made.config.phase],
        num_classes=len(made.classes),
        num_videos=num_train,
        short_side=256,
        weights="imagenet",
        overrides={"bn_renewal_steps": 0},  # which the official code does not have
    )
    return configs[made.config.phase]


def _matters(name: str, config: TrainConfig) -> bool:
    """Return whether a free choice has an effect on a phase."""
    if name == "tau_drawn":
        return config.num_samples > 1
    if name == "corners":
        return config.crop == "borders25"
    return name != "network.temporal_pool_position" or bool(config.network.temporal_stride(config.phase))


def _first_weights(made: Provenance) -> str:
    """Return what the networks started from in the reference, of which a phase's weights are the result."""
    first = [phase for phase in linked([made.config.phase]) if not phase.starts_from]
    own = description_of(made.config.phase)
    return (first[0] if own.starts_from and first else own).reference.first_weights


def _source(reference: Reference, name: str, value: Any) -> str:
    is_theirs = reference.settings is None or name in reference.settings
    return f"{reference.name if is_theirs else 'recipe official'}: {_brief(value)}"


def _shown(name: str) -> str:
    return name.removeprefix("network.")


def _flat(config: TrainConfig) -> dict[str, Any]:
    units = getattr(config.network, "units", None)
    return flattened(config.to_dict()) | ({} if units is None else {"network.units": list(units)})


def _brief(value: Any) -> str:
    if value and isinstance(value, list) and isinstance(value[0], list):
        text = ", ".join(f"{steps} x {rate:g}" for steps, rate in value)
    else:
        text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
