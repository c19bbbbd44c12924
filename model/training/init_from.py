"""The trained networks from which ``train --init-from`` starts its phases, instead of from the phases before them or a ResNet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from flowkit.dataset.manifest import ClipRecord, Split
from flowkit.errors import CheckpointError
from flowkit.files import file_sha256
from flowkit.model.data.sampling import initial_seed
from flowkit.model.networks.family import NetworkFamily, State
from flowkit.model.networks.fitting import fit_exactly
from flowkit.model.networks.phase_networks import FAMILIES, build_network
from flowkit.model.networks.transfer import with_classes
from flowkit.model.runs.checkpoint import load_checkpoint
from flowkit.model.runs.first_network import Classifier, FirstNetwork
from flowkit.model.runs.provenance import Provenance
from flowkit.model.runs.trained_source import find_trained
from flowkit.model.runs.training_data import extraction_differences, quantiser_differences, videos_trained_on
from flowkit.model.settings.network_config import NetworkConfig
from flowkit.model.settings.training import Phase, TrainConfig
from flowkit.model.systems.registry import description_of, first_phases, starts_from
from flowkit.video.ids import first_few
from flowkit.words import counted

_WHERE_ELSE = "`flowkit train --weights FILE` takes those of a ResNet"


@dataclass(frozen=True)
class Origin:
    """A trained network from which a phase starts."""

    path: Path
    sha256: str
    provenance: Provenance

    @property
    def network(self) -> NetworkConfig:
        """Its settings."""
        return self.provenance.config.network

    @property
    def phase(self) -> Phase:
        """The phase that trained it."""
        return self.provenance.config.phase

    @property
    def streams(self) -> tuple[str, ...]:
        """Its streams."""
        return self.provenance.config.streams


class InitialNetworks:
    """Which phase starts from which trained network of a source.

    Parameters
    ----------
    source : str, path or None
        What the user named; see `find_trained`. None, if every phase starts as usual.
    wanted : sequence of str
        The phases that will be trained.
    runs : Path
        The folder of the runs.
    run : str
        The run that will be trained.
    split : flowkit.Split
        The split that they will be trained on.
    extraction : dict
        How its frames and flow were made, as `Provenance` has it.
    unseen : sequence of ClipRecord
        The videos of the split that are not trained on: those of the test, and those held out.

    Attributes
    ----------
    origins : dict from phase to dict from phase to Origin
        For each phase that starts from the source: the networks that it takes, by their phase.

    Raises
    ------
    CheckpointError
        If no phase can start from it, it is the run itself, a file is damaged, or its networks differ in their streams.

    Notes
    -----
    A phase takes the network of its own kind. If there is none, it starts as usual from the phases before it where those are trained
    too, and else from what fits of the source: a base stream from its stream of a network of two, ST-ResNet from base streams, and
    ST-ResNet and ST-ResNet*, which have the same parameters, from each other.
    """

    def __init__(
        self,
        source: str | Path | None,
        wanted: Sequence[Phase],
        *,
        runs: Path,
        run: str,
        split: Split,
        extraction: Mapping[str, Any],
        unseen: Sequence[ClipRecord],
    ) -> None:
        self.source, self._split, self._wanted = source, split, tuple(wanted)
        found = {} if source is None else find_trained(source, runs=runs, split=split.number)
        taken = {phase: names for phase in wanted if (names := _taken(phase, wanted, found))}
        if found and not taken:
            raise CheckpointError(
                f"{source} holds {' and '.join(found)}, from which {' and '.join(wanted)} cannot start; {_WHERE_ELSE}, and --phase chooses "
                "what is trained"
            )
        used = dict.fromkeys(name for names in taken.values() for name in names)
        own = [(runs / run / f"split{split.number}" / phase).resolve() for phase in wanted]
        if any(found[name].resolve().parent in own for name in used):
            raise CheckpointError(f"run {run!r} cannot start from itself; give the new run another name with --run")
        origins = {name: _origin(name, found[name]) for name in used}
        self.origins = {phase: {name: origins[name] for name in names} for phase, names in taken.items()}
        self._all = list(origins.values())
        self._check_alike()
        self._differences = {phase: self._differences_of(phase, extraction) for phase in self.origins}
        self._seen = {phase: self._seen_by(phase, unseen) for phase in self.origins}

    @property
    def digests(self) -> dict[Path, str]:
        """The SHA-256 of each file of weights that is taken."""
        return {origin.path: origin.sha256 for origin in self._all}

    def covers(self, phase: Phase) -> frozenset[Phase]:
        """Return the earlier phases that a phase does not need, because it takes something of the source in their place."""
        names = self.origins.get(phase, {})
        before = starts_from(phase)
        return frozenset(names if set(names) <= set(before) else before if names else ())

    def overrides(self, user: Mapping[str, Any]) -> dict[str, Any]:
        """Return the network's settings that the phases take from the source, for `make_configs`; the user's own go first."""
        adopted: dict[str, Any] = {}
        for phase, origins in self.origins.items():
            for origin in origins.values():
                its = origin.network.adopted(origin.streams, self._streams_of(phase, origin))
                # What the origin's phase leaves at its default says nothing about the phases beside it.
                names = description_of(phase).all_keys & description_of(origin.phase).network_keys
                adopted = {name: value for name, value in its.items() if name in names} | adopted
        given = {name.rpartition(".")[2] for name in user}
        given |= {"depth", "stage_units"} if given & {"depth", "stage_units"} else set()  # one would hide the other
        return {name: value for name, value in adopted.items() if name not in given}

    def check(self, config: TrainConfig) -> None:
        """Raise `CheckpointError` if a phase with these settings cannot start from its networks of the source."""
        for name, origin in self.origins.get(config.phase, {}).items():
            its, ours = origin.network, config.network
            if type(its) is not type(ours):
                raise CheckpointError(f"{config.phase} cannot start from {name} of {self.source}, which is another kind of network")
            keys = its.must_match(ours, origin.streams, config.streams)
            for key in [key for key in keys if getattr(its, key) != getattr(ours, key)]:
                raise CheckpointError(
                    f"{config.phase} cannot start from {name} of {self.source}: its {key} is {getattr(its, key)}, and {key} "
                    f"{getattr(ours, key)} was asked for; do without that option"
                )
        if config.phase not in self.origins:
            return
        with torch.device("meta"):
            network = build_network(config)
        states = self.states(config)
        try:
            if config.phase in states:
                fit_exactly(network.state_dict(), states[config.phase], "its weights")
            else:
                _family(config.network).check_start(network, states)
        except CheckpointError as cause:
            raise CheckpointError(f"{config.phase} cannot start from {self.source}: {cause}") from cause

    def states(self, config: TrainConfig) -> dict[Phase, State]:
        """Return a phase's first weights: of the whole network under its own name, or of base streams under theirs.

        Classifiers are for the classes of the split. A `CheckpointError` names a file that is not the one of the beginning.
        """
        phase, family = config.phase, _family(config.network)
        states: dict[Phase, State] = {}
        generator = torch.Generator().manual_seed(initial_seed(config.seed, phase))
        for name, origin in self.origins.get(phase, {}).items():
            state: State = load_checkpoint(origin.path).network
            if file_sha256(origin.path) != origin.sha256:
                raise CheckpointError(f"{origin.path} was changed while {phase} began to train from it; run the same command again")
            if name != phase and len(config.streams) == 1:
                state = family.stream_state(state, config.streams[0])
            before, now = origin.provenance.classes, self._split.classes
            state = with_classes(state, before, now, classifier=family.classifier, generator=generator)
            states[name if set(origin.streams) < set(config.streams) else phase] = state
        return states

    def with_weights(self, configs: Mapping[Phase, TrainConfig]) -> dict[Phase, TrainConfig]:
        """Return the settings with what `TrainConfig` stores as first weights: the files of the source, also of the phases before."""
        made = dict(configs)
        for phase in configs:
            if phase in self.origins:
                digests = {name: f"sha256:{origin.sha256}" for name, origin in self.origins[phase].items()}
            elif set(starts_from(phase)) & set(self.origins):
                digests = {name: made[name].weights for name in starts_from(phase)}
            else:
                continue
            alike = len(set(digests.values())) == 1
            weights = next(iter(digests.values())) if alike else ", ".join(f"{name}: {of}" for name, of in digests.items())
            made[phase] = replace(made[phase], weights=weights)
        return made

    def record(self, phase: Phase) -> FirstNetwork | None:
        """Return what the provenance of a phase stores of the source; None if it does not start from it."""
        origins = self.origins.get(phase)
        if not origins:
            return None
        return FirstNetwork(
            source=_without_folders(str(self.source)),
            files={name: origin.sha256 for name, origin in origins.items()},
            classifiers={name: self._classifier(origin) for name, origin in origins.items()},
            trained_on="; ".join(dict.fromkeys(_data(origin.provenance) for origin in origins.values())),
            differences=(*self._differences[phase], *self._seen[phase]),
        )

    def lines(
        self, phases: Sequence[Phase], configs: Mapping[Phase, TrainConfig], usual: Mapping[Phase, TrainConfig], *, usually: str
    ) -> list[str]:
        """Return what the source gives these phases, in words: networks, what becomes of the classifiers, and settings taken from it.

        `configs` are the settings of the phases, and `usual` those that they would have without the source; `usually` is what a base
        stream starts from for which the source has nothing.
        """
        own = [phase for phase in phases if phase in self.origins[phase]]
        named = "the network of that name" if len(own) == 1 else "the networks of these names"
        starts = [f"{', '.join(own)} from {named}"] if own else []
        for phase in phases:
            if phase not in own:
                streams = configs[phase].streams
                notes = [note for origin in self.origins[phase].values() if (note := origin.network.note_of_one_stream())]
                of_one = len(streams) == 1
                taps = f", {notes[0]}" if of_one and notes else ""
                starts.append(f"{phase} from {f'the {streams[0]} stream of ' if of_one else ''}{' and '.join(self.origins[phase])}{taps}")
        settings = sorted(
            {
                f"{key} {_shown(getattr(configs[phase].network, key))}"
                for phase in phases
                for key in configs[phase].network.shown_settings(phase)
                if getattr(configs[phase].network, key) != getattr(usual[phase].network, key)
            }
        )
        start = "random weights" if usually == "none" else usually
        others = [phase for phase in first_phases(self._wanted) if phase not in self.origins]
        starts += [f"but {' and '.join(others)} from {start}"] if others else []
        return [
            f"From {self.source}: {'; '.join(starts)}. {self._classifier_line(configs[phases[0]].seed)}",
            *([f"Settings of its network instead of the recipe's: {'; '.join(settings)}."] if settings else []),
        ]

    def warnings(self, phases: Sequence[Phase]) -> list[str]:
        """Return in words how the frames and flow of the source's training differ from these, and which unseen videos were in it."""
        different = dict.fromkeys(text for phase in phases for text in self._differences[phase])
        made = f"{self.source} was trained on frames and flow that were made in another way: {'; '.join(different)}"
        seen = dict.fromkeys(text for phase in phases for text in self._seen[phase])
        return [*([made] if different else []), *(f"{self.source}: {text}, so that they test nothing" for text in seen)]

    def _streams_of(self, phase: Phase, origin: Origin) -> tuple[str, ...]:
        """Return the streams of a phase that starts from a network."""
        kind = description_of(phase).network
        return origin.network.streams_of(phase) if isinstance(origin.network, kind) else origin.streams

    def _check_alike(self) -> None:
        """Check that all networks have the same kind of stream, because a run has one."""
        for first, other in pairwise(self._all):
            kinds = {type(first.network), type(other.network)}
            if not any(all(issubclass(kind, base) for kind in kinds) for base in kinds):  # a network that joins streams has their settings
                raise CheckpointError(
                    f"{self.source} has different kinds of networks, {first.phase} and {other.phase}; start each phase by itself, with "
                    "--phase"
                )
            for key in first.network.alike:
                its, ours = getattr(other.network, key), getattr(first.network, key)
                if its != ours:
                    raise CheckpointError(
                        f"the networks of {self.source} differ: {key} is {ours} in {first.phase} and {its} in {other.phase}; start each "
                        "phase by itself, with --phase"
                    )

    def _classifier(self, origin: Origin) -> Classifier:
        before, now = origin.provenance.classes, self._split.classes
        return "kept" if before == now else "reordered" if sorted(before) == sorted(now) else "new"

    def _classifier_line(self, seed: int) -> str:
        kinds = {self._classifier(origin): origin for origin in self._all}
        if "new" in kinds:
            before, now = len(kinds["new"].provenance.classes), len(self._split.classes)
            which = f"{now} classes instead of {before}" if now != before else "other classes"
            return f"Classifiers are replaced by random ones (seed {seed}), for {which}."
        return "Classifiers are kept." if "reordered" not in kinds else "Classifiers are kept, in the order of these classes."

    def _differences_of(self, phase: Phase, extraction: Mapping[str, Any]) -> list[str]:
        """Return the differences that concern the inputs of a phase; RGB frames depend on their size only."""
        texts: list[str] = []
        for origin in self.origins[phase].values():
            before, now = dict(origin.provenance.extraction), dict(extraction)
            if self._streams_of(phase, origin) == ("appearance",):  # which sees no flow
                before, now = ({key: value for key, value in values.items() if key == "short_side"} for values in (before, now))
            else:
                texts += quantiser_differences(origin.provenance, self._split)
            texts += extraction_differences(before, now)
        return list(dict.fromkeys(texts))

    def _seen_by(self, phase: Phase, unseen: Sequence[ClipRecord]) -> list[str]:
        """Say how many of these videos the source was trained on, by their names."""
        trained_on = set[str]().union(*(videos_trained_on(each.path.parent, each.provenance) for each in self.origins[phase].values()))
        seen = [row.video_id for row in unseen if row.video_id in trained_on]
        if not seen:
            return []
        return [f"it was trained on {len(seen):,} of {counted(len(unseen), 'test or validation video')} ({first_few(sorted(seen))})"]


def _taken(phase: Phase, wanted: Sequence[Phase], found: Mapping[Phase, Path]) -> tuple[Phase, ...]:
    """Return the networks of the source from which a phase starts; empty if it starts as usual.

    A phase that learns from features does, because its features must be those of the network of its own run.
    """
    if description_of(phase).network.learns_from_features:
        return ()
    if phase in found:
        return (phase,)
    before = starts_from(phase)
    trained = set(before) & set(wanted)
    if before and trained == set(before):
        return ()
    also = description_of(phase).also_from
    possible = [tuple(name for name in names if name not in trained) for names in also if set(names) <= set(found)]
    return next((names for names in possible if names), ())


def _family(network: NetworkConfig) -> NetworkFamily:
    return FAMILIES[type(network)]


def _origin(name: Phase, path: Path) -> Origin:
    made, digest = load_checkpoint(path).provenance, file_sha256(path)
    if made.config.phase != name:
        raise CheckpointError(f"{path} holds {made.config.phase}, not {name}, as its folder says")
    return Origin(path, digest, made)


def _shown(value: Any) -> str:
    """Return a setting in few characters: the numbers of a tuple have blanks between them."""
    return " ".join(map(_shown, value)) if isinstance(value, tuple) else f"{value:.4g}" if isinstance(value, float) else str(value)


def _data(made: Provenance) -> str:
    what = "the authors' file for split" if made.is_converted else "split"
    return f"{len(made.classes)} classes of {what} {made.split} ({made.protocol})"


def _without_folders(source: str) -> str:
    """Return a path as it may be passed on: of an absolute one only what follows ``runs``, or the last name."""
    path = Path(source)
    if not path.is_absolute():
        return source
    parts = path.parts
    return "/".join(parts[len(parts) - parts[::-1].index("runs") :] if "runs" in parts[:-1] else parts[-1:])
