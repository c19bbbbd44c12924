"""What a report says about the origin of its numbers: the training of the networks, the data, the software."""

from __future__ import annotations

import json
import platform
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from flowkit.dataset.manifest import ClipRecord, Split
from flowkit.dataset.root import Dataset
from flowkit.errors import FlowkitError
from flowkit.model.evaluation.results import Evaluation, SplitEvaluation
from flowkit.model.networks.phase_networks import build_network
from flowkit.model.runs.provenance import Provenance, flattened
from flowkit.model.settings.training import TrainConfig
from flowkit.model.systems.registry import starts_from
from flowkit.shards.reader import ShardReader
from flowkit.versions import installed_version
from flowkit.words import duration

_SOFTWARE = ("numpy", "torch", "torchvision", "h5py", "opencv-contrib-python-headless", "matplotlib")
_MOST_SHARDS = 50  # that are opened for the properties of their videos
_CROPS = {
    "borders25": "random, .75 to 1.25 of the mean size, near the borders",
    "regular": "each side 1, 7/8, 3/4 or 21/32 of the frame's short side, at a corner or the centre",
    "uniform": "random, 112/128 of the height and 112/171 of the width",
    "none": "complete frames",
}


def network_settings(result: SplitEvaluation, root: Path) -> dict[str, Any] | None:
    """Return how each tested phase was trained; None if nothing is known.

    The keys are `phases` (names), and `summary` and `all` (rows with a `name` and one value per phase as `values`).
    """
    made = result.provenances
    if not made:
        return None
    described = [_described(result.checkpoints[phase], provenance, root) for phase, provenance in made.items()]
    flat = [flattened(provenance.config.to_dict()) for provenance in made.values()]
    return {
        "phases": list(made),
        "summary": [{"name": name, "values": [values.get(name, "-") for values in described]} for name in _names(described)],
        "all": [{"name": name, "values": [_text(values.get(name, "")) for values in flat]} for name in _names(flat)],
    }


def data_facts(result: SplitEvaluation, split: Split, dataset: Dataset) -> dict[str, Any]:
    """Return the data that the networks were tested on."""
    rows = [
        ("lists", split.protocol),
        ("classes", f"{len(split.classes):,}"),
        ("training videos", f"{len(split.train):,} of {split.num_listed_train:,} listed"),
        *_held_out(result),
        ("test videos", f"{len(result.video_ids):,} scored, {len(split.test):,} packed, {split.num_listed_test:,} listed"),
        ("digest of the split", split.digest),
        *_stored(dataset, split.test),
        ("quantiser", _words(split.quantiser.to_dict())),
    ]
    if dataset.versions:
        rows.append(("extracted with", ", ".join(f"{name} {version}" for name, version in dataset.versions.items())))
    return {"heading": "Data", "rows": rows}


def _held_out(result: SplitEvaluation) -> list[tuple[str, str]]:
    """Return how many of the training videos the tested networks did not see, because they were held out for validation."""
    validation = next((made.validation for made in result.provenances.values() if made.validation), None)
    if validation is None:
        return []
    how = _words({name: value for name, value in validation.items() if name != "video_ids"})
    return [("of these held out for validation", f"{len(validation['video_ids']):,} ({how})")]


def test_facts(result: SplitEvaluation, evaluation: Evaluation) -> dict[str, Any]:
    """Return when, how and where the test was made, and with which software; what an older flowkit did not store is left out."""
    rows = {"began (UTC)": result.started.removesuffix("+00:00").replace("T", " ")} if result.started else {}
    rows |= {"duration": duration(result.seconds)} if result.seconds is not None else {}
    rows |= {"command": _command(evaluation.command)} if evaluation.command else {}
    rows |= {name.replace("_", " "): str(value) for name, value in evaluation.environment.items()}
    rows |= {"python": platform.python_version()}
    rows |= {name: version for name in _SOFTWARE if (version := installed_version(name)) is not None}
    return {"heading": "The test", "rows": list(rows.items())}


def _command(command: str) -> str:
    """Return a command line with absolute paths reduced to their names, because a report should not show folders of the machine."""
    try:
        words = shlex.split(command)
    except ValueError:  # results.json may come from anyone
        return ""
    return shlex.join(re.sub(r"(^|=)[/~].*/|(^|=)[A-Za-z]:[\\/].*[\\/]", lambda found: found[1] or found[2] or "", word) for word in words)


def _described(source: str, made: Provenance, root: Path) -> dict[str, str]:
    """Return a phase's settings in words."""
    config = made.config
    network = config.network.described(config.phase)
    samples = f"{config.num_samples} samples, {config.tau_min} to {config.tau_max} frames apart" if config.num_samples > 1 else "1 sample"
    return {
        "recipe": config.recipe,
        "first weights": _start(made),
        "network": network.pop("network"),
        "parameters": f"{_num_parameters(config):,}",
        **network,
        "training clip": samples,
        "crop": _CROPS.get(config.crop, config.crop) + (", mirrored at random" if config.flip else ""),
        "batch": f"{config.batch} videos, statistics over {config.bn_group}",
        "running moments": _moments(config),
        "steps": f"{config.num_steps:,}",
        "learning rate": _schedule(config),
        "SGD": f"momentum {config.momentum:g}, weight decay {config.weight_decay:g}",
        "weights of": "the best validation accuracy" if config.select == "best" else "the last step",
        "seed": str(config.seed),
        "trained on": f"split {made.split} ({made.protocol}), digest {made.digest[:12]}…",
        "kept in": _relative(source, root),
    }


@lru_cache(maxsize=64)
def _num_parameters(config: TrainConfig) -> int:
    """Return how many parameters are trained in a phase, counted in a network without memory."""
    import torch

    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_network(config).parameters())


def _start(made: Provenance) -> str:
    config = made.config
    if made.first_network is not None:
        return str(made.first_network)
    if made.is_converted:
        return "unknown; the trained network is the authors' own"
    if starts_from(config.phase):
        return " and ".join(starts_from(config.phase))
    names = {"none": "random", "imagenet": "ImageNet"}
    return names.get(config.weights, f"a file, {config.weights[:19]}…")


def _moments(config: TrainConfig) -> str:
    kind = "standard deviations" if config.bn_moments == "std" else "variances"
    renewed = f", renewed in {config.bn_renewal_steps} steps at the end" if config.bn_renewal_steps else ""
    return f"{kind}, a step's weight {config.bn_momentum:g}{', a plain mean at first' if config.bn_average_first else ''}{renewed}"


def _schedule(config: TrainConfig) -> str:
    parts = ", ".join(f"{rate:g} for {steps:,}" for steps, rate in config.schedule) + " steps"
    text = f"cosine from {config.schedule[0][1]:g} to 0" if config.decay == "cosine" else parts
    return text + (f", after a warm-up of {config.warmup_steps:,}" if config.warmup_steps else "")


def _stored(dataset: Dataset, records: Sequence[ClipRecord]) -> list[tuple[str, str]]:
    """Return frame size, codec, solver and TV-L1 parameters of one test video per shard; each has one value, unless data were mixed."""
    first_of_shard = {record.shard: record for record in reversed(records)}
    properties: dict[str, set[str]] = {"frame size": set(), "codec": set(), "solver": set(), "TV-L1": set()}
    for record in list(first_of_shard.values())[:_MOST_SHARDS]:
        try:
            with ShardReader(dataset.shard_path(record)) as shard:
                clip = shard.clip(record.video_id)
        except (FlowkitError, OSError):
            continue  # the report says so where it shows the videos
        properties["frame size"].add(f"{clip.width} x {clip.height} px")
        properties["codec"].add(clip.codec)
        properties["solver"].add(clip.attributes.solver)
        if clip.attributes.method:
            properties.setdefault("flow method", set()).add(_words(clip.attributes.method))
        else:
            properties["TV-L1"].add(_words(clip.attributes.tvl1))
        if clip.attributes.camera_motion:
            properties.setdefault("camera motion", set()).add(f"removed ({clip.attributes.camera_motion})")
    return [
        (name, "; or ".join(sorted(values)) or "unknown")
        for name, values in properties.items()
        if values or name != "TV-L1" or "flow method" not in properties
    ]


def _words(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.rstrip('_').replace('_', ' ')} {_text(value)}" for name, value in values.items()) or "unknown"


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _relative(source: str, root: Path) -> str:
    """Return a path relative to the data root, or only its name, because a report should not show other folders of the machine."""
    path = Path(source)
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def _names(tables: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for values in tables for name in values))
