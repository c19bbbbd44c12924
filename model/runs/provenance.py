"""What weights were trained on, and how: the record that every checkpoint and weights file carries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flowkit.errors import CheckpointError, ParameterError
from flowkit.model.runs.first_network import FirstNetwork
from flowkit.model.settings.training import TrainConfig
from flowkit.model.systems.registry import description_of, starts_from
from flowkit.records import check_depth

_DATA = ("classes", "digest", "earlier_digests", "num_videos", "validation")  # compared in words by `training_data`
_NOT_COMPARED = (*_DATA, "precision", "first_network")


@dataclass(frozen=True)
class Provenance:
    """What weights were trained on, and how; the same wherever it is stored.

    Parameters
    ----------
    config : TrainConfig
        The settings of the phase.
    classes : tuple of str
        The class names by label.
    split : int
        The number of the split.
    protocol : str
        Where the split's lists come from.
    digest : str
        What identifies the split that it was trained on; see `flowkit.Split`.
    quantiser : dict
        The settings of the flow's quantiser.
    started_from : dict
        SHA-256 of the weights files of earlier phases.
    extraction : dict
        How the videos became frames and flow: `short_side` in px, `tvl1` parameters, `solver`, `codec`. New videos must be treated in
        the same way. Weights from before it was recorded have none, which is not a difference, because `digest` covers it.
    earlier_digests : tuple of str
        Further digests of the same split.
    num_videos : dict
        The number of videos in each half of the split: ``train`` and ``test``. Empty in weights from before it was recorded.
    first_network : FirstNetwork, optional
        The trained network that ``--init-from`` named, if the phase started from one.
    precision : str
        The precision in which the phase was trained, ``float32`` in weights from before it was recorded. It may change when a phase
        resumes, so it is not compared.
    validation : dict
        Which training videos were held out for validation: how they were chosen (``fraction`` and ``seed``, or ``groups``), and their
        ids as ``video_ids``. Empty if all were trained on.
    cuts : dict
        The cuts across which no sample was drawn: the version of the ``rule``, ``num_fields`` and ``num_videos`` that have some,
        ``num_left_out`` videos without other samples, and the ``sha256`` of their list. Empty if cuts were not left out.
    """

    config: TrainConfig
    classes: tuple[str, ...]
    split: int
    protocol: str
    digest: str
    quantiser: dict[str, Any]
    started_from: dict[str, str] = field(default_factory=dict)
    extraction: dict[str, Any] = field(default_factory=dict)
    earlier_digests: tuple[str, ...] = ()
    num_videos: dict[str, int] = field(default_factory=dict)
    precision: str = "float32"
    validation: dict[str, Any] = field(default_factory=dict)
    first_network: FirstNetwork | None = None
    cuts: dict[str, Any] = field(default_factory=dict)

    @property
    def is_converted(self) -> bool:
        """Whether the weights are the authors' own, out of a MATLAB file, which says nothing of their training and its data."""
        return "matconvnet" in self.started_from

    @property
    def validation_ids(self) -> tuple[str, ...]:
        """The training videos that were held out for validation."""
        return tuple(self.validation.get("video_ids", ()))

    @property
    def digests(self) -> frozenset[str]:
        """All digests under which the split is known; two that share one are the same data."""
        return frozenset({self.digest, *self.earlier_digests})

    def to_dict(self) -> dict[str, Any]:
        """Return it as built-in types."""
        values = {
            **vars(self),
            "config": self.config.to_dict(),
            "classes": list(self.classes),
            "earlier_digests": list(self.earlier_digests),
            "num_videos": dict(self.num_videos),
            "validation": dict(self.validation),
            "cuts": dict(self.cuts),
            "first_network": self.first_network.to_dict() if self.first_network else None,
        }
        left_out: dict[str, Any] = {
            "earlier_digests": [],
            "num_videos": {},
            "precision": "float32",
            "validation": {},
            "cuts": {},
            "first_network": None,
        }
        return {name: value for name, value in values.items() if name not in left_out or value != left_out[name]}

    @classmethod
    def from_dict(cls, values: object) -> Provenance:
        """Read what `to_dict` returned; `CheckpointError` if it is anything else."""
        try:
            if not isinstance(values, dict):
                raise TypeError("it is not a table")
            check_depth(values)
            classes, split, protocol, digest = (values[key] for key in ("classes", "split", "protocol", "digest"))
            earlier, num_videos = tuple(values.get("earlier_digests", ())), dict(values.get("num_videos", {}))
            precision = values.get("precision", "float32")
            first = values.get("first_network")
            texts = [
                protocol,
                digest,
                precision,
                *earlier,
                *num_videos,
                *classes,
                *values["started_from"].keys(),
                *values["started_from"].values(),
            ]
            numbers = [split, *num_videos.values()]
            if not isinstance(classes, list) or not all(isinstance(n, int) for n in numbers) or not all(isinstance(t, str) for t in texts):
                raise TypeError("a value has the wrong type")
            config = TrainConfig.from_dict(values["config"])
            description_of(config.phase)  # raises an error if this flowkit does not know it
            if config.network.num_classes != len(classes):
                raise ParameterError(f"{config.network.num_classes} classes in the network, {len(classes)} names")
            quantiser, started_from, extraction = map(dict, (values["quantiser"], values["started_from"], values.get("extraction", {})))
            validation = dict(values.get("validation", {}))
            held = validation.get("video_ids", [])
            if not isinstance(held, list) or not all(isinstance(video_id, str) for video_id in held) or bool(held) != bool(validation):
                raise TypeError("validation does not list the videos that were held out")
            cuts = dict(values.get("cuts", {}))
            first_network = None if first is None else FirstNetwork.from_dict(first)
        except (KeyError, TypeError, ValueError, AttributeError) as cause:
            raise CheckpointError(f"the record of what the weights were trained on is damaged or foreign: {cause}") from cause
        made = (config, tuple(classes), split, protocol, digest, quantiser, started_from, extraction, earlier, num_videos, precision)
        return cls(*made, validation, first_network, cuts)

    def differences(self, other: Provenance, form: str = "{} is {}, now {}") -> list[str]:
        """Return the name and both values of every setting in which `other` differs, but not how their videos and classes differ."""
        mine, theirs = ({name: value for name, value in made.to_dict().items() if name not in _NOT_COMPARED} for made in (self, other))
        sources = [made.first_network.files if made.first_network else None for made in (self, other)]
        if starts_from(self.config.phase) or sources != [None, None]:  # it starts from other networks, whose digests are compared
            del mine["config"]["weights"], theirs["config"]["weights"]
        if not (self.extraction and other.extraction):
            del mine["extraction"], theirs["extraction"]
        mine, theirs = flattened(mine), flattened(theirs)
        names = sorted(key for key in {*mine, *theirs} if mine.get(key) != theirs.get(key))
        different = [form.format(name, _brief(mine.get(name)), _brief(theirs.get(name))) for name in names]
        if sources[0] != sources[1]:
            given = [made.first_network.name if made.first_network else "nothing" for made in (self, other)]
            different.append(form.format("--init-from", *given))
        return different


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested tables as one table with dotted names: ``network.depth``."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flattened(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _brief(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."
