"""A training that is checked before it writes anything: its videos, the settings of its phases, and what they start from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flowkit.dataset.manifest import Split
from flowkit.dataset.root import Dataset
from flowkit.dataset.shard_files import check_flow, check_shards
from flowkit.errors import CheckpointError, ManifestError, ParameterError
from flowkit.files import file_sha256
from flowkit.model.compute.execution import Execution
from flowkit.model.data.held_out import HeldOut, held_out
from flowkit.model.data.official_lists import is_official_list
from flowkit.model.data.scene_cuts import SkippedCuts, skipped_cuts
from flowkit.model.runs.checkpoint import WEIGHTS_NAME, Checkpoint, load_checkpoint
from flowkit.model.runs.events import NetworksTaken, RunStarted, TrainEvent
from flowkit.model.runs.places import check_run_name
from flowkit.model.runs.provenance import Provenance
from flowkit.model.runs.run_folder import PhaseFolder, phase_folder
from flowkit.model.runs.training_data import differences_from_training_data, extraction_of, refuse_other_phase, validation_differences
from flowkit.model.settings.recipes import RecipeName, TrainSettings, Weights, with_moments_of
from flowkit.model.settings.training import Phase, TrainConfig
from flowkit.model.systems.configs import OVERRIDES, make_configs
from flowkit.model.systems.registry import PHASES, first_phases, starts_from
from flowkit.model.training.init_from import InitialNetworks
from flowkit.model.training.phases import Start, WeightsMisfitError, check_earlier, settings_before


@dataclass(frozen=True)
class EarlierWeights:
    """Where the final weights of phases lie that others start from: in the run, or else in its base run.

    Parameters
    ----------
    root : Path
        The data root.
    run : str
        The run.
    base_run : str or None
        The run whose phases serve where `run` lacks them.
    split : int
        The number of the split.
    runs : Path or None
        The folder of the runs, if it is not the data root's.
    """

    root: Path
    run: str
    base_run: str | None
    split: int
    runs: Path | None

    def path(self, phase: Phase) -> Path:
        """Return the path of a phase's final weights, whether they exist or not."""
        own = phase_folder(self.root, self.run, self.split, phase, runs=self.runs) / WEIGHTS_NAME
        if self.base_run is None or own.is_file():
            return own
        return phase_folder(self.root, self.base_run, self.split, phase, runs=self.runs) / WEIGHTS_NAME

    def load(self, name: Phase, *, before: Phase, split: Split) -> Checkpoint:
        """Return a phase's weights for the phase that starts from them.

        Raises
        ------
        CheckpointError
            If they do not exist, cannot be read, or were not trained on this split's data.
        """
        path = self.path(name)
        if not path.is_file():
            raise CheckpointError(f"{before} starts from {name}, and {path} does not exist; train it first with `--phase {name}`")
        checkpoint = load_checkpoint(path)
        differences = differences_from_training_data(split, checkpoint.provenance, path.parent)
        if differences:
            raise CheckpointError(
                f"{before} starts from {path}, which was trained on other data: {'; '.join(differences)}. Train {name} on this split, in "
                f"another run (`--run NAME`) or again (`--phase {name} --restart`)"
            )
        return checkpoint


@dataclass(frozen=True)
class PreparedTraining:
    """A training that may begin, as `prepare_training` returns it.

    Parameters
    ----------
    dataset : Dataset
        The data root.
    listed, trained_on : Split
        The split, and the same without the videos that are held out, and those that have nothing but cuts.
    held : HeldOut
        The videos that are held out for validation.
    skipped : SkippedCuts
        What is left out because it lies across cuts.
    extraction : dict
        How frames and flow were made, as `Provenance` has it.
    settings : TrainSettings
        How the user wants to train.
    execution : Execution
        Where and how to compute.
    weights : EarlierWeights
        Where the phases lie from which others start.
    start : Start
        What the base streams start from.
    initial : InitialNetworks
        The trained networks from which phases start.
    recipe : str
        The recipe that was chosen, also by `auto`.
    configs, usual : dict from phase to TrainConfig
        The settings of the phases, and what they would be without the networks of `initial`.
    folders : dict from phase to PhaseFolder
        Where the phases are kept, in the order of their training.
    restart : bool
        Whether what the phases have will be discarded.
    """

    dataset: Dataset
    listed: Split
    trained_on: Split
    held: HeldOut
    skipped: SkippedCuts
    extraction: dict[str, Any]
    settings: TrainSettings
    execution: Execution
    weights: EarlierWeights
    start: Start
    initial: InitialNetworks
    recipe: RecipeName
    configs: dict[Phase, TrainConfig]
    usual: dict[Phase, TrainConfig]
    folders: dict[Phase, PhaseFolder]
    restart: bool

    def earlier(self, phase: Phase, *, pending: Sequence[Phase] = ()) -> dict[Phase, Path]:
        """Return the paths of the earlier weights that a phase starts from, except those that are still to be trained."""
        return {name: self.weights.path(name) for name in _needed(phase, self.initial) if name not in pending}

    def provenance(self, phase: Phase, *, pending: Sequence[Phase] = ()) -> Provenance:
        """Return how a phase is made, with the digests of its earlier weights except those that are still to be trained."""
        return Provenance(
            config=self.configs[phase],
            classes=self.listed.classes,
            split=self.listed.number,
            protocol=self.listed.protocol,
            digest=self.listed.digest,
            quantiser=self.listed.quantiser.to_dict(),
            started_from={name: file_sha256(path) for name, path in self.earlier(phase, pending=pending).items()},
            extraction=self.extraction,
            earlier_digests=self.listed.earlier_digests,
            num_videos={"train": len(self.listed.train), "test": len(self.listed.test)},
            precision=self.execution.amp,
            validation=self.held.record,
            cuts=self.skipped.record if self.configs[phase].skip_cuts else {},
            first_network=self.initial.record(phase),
        )

    def given(self, phase: Phase) -> dict[str, Any]:
        """Return what the user gave for a phase, in the form in which its folder keeps it."""
        given: dict[str, Any] = {"overrides": {key: str(value) for key, value in self.settings.all_overrides.items()}}
        if isinstance(self.start.source, Path):
            given["weights_file"] = str(self.start.source.absolute())
        if phase in self.initial.origins:
            given["init_from"] = str(self.initial.source)
        return given

    def events(self) -> Iterator[TrainEvent]:
        """Yield what is known of the training before its first step."""
        device, is_official = self.execution.torch_device(), is_official_list(self.listed)
        has_bases = bool(first_phases(self.folders))
        yield RunStarted(
            self.recipe,
            str(device),
            weights=str(self.initial.source) if self.initial.origins else self.start.describe() if has_bases else "",
            num_videos=len(self.trained_on.train),
            num_classes=len(self.listed.classes),
            num_empty_classes=len(self.listed.classes) - len({record.label for record in self.trained_on.train}),
            num_held_out=len(self.held.video_ids),
            notes=(*self.held.notes, *([self.skipped.note] if any(config.skip_cuts for config in self.configs.values()) else [])),
            why_recipe=self.settings.why_recipe(device.type, is_official_list=is_official),
            num_steps=tuple(
                (phase, self.configs[phase].num_steps) for phase, folder in self.folders.items() if self.restart or not folder.done
            ),
        )
        new = [phase for phase in self.initial.origins if self.restart or not self.folders[phase].begun]
        if new:
            lines = self.initial.lines(new, self.configs, self.usual, usually=self.start.describe())
            yield NetworksTaken(tuple(lines), tuple(self.initial.warnings(new)))


def training_lists(root: Path, settings: TrainSettings, *, split: int) -> tuple[Dataset, Split, HeldOut]:
    """Return a data root, one of its splits, and which of the split's training videos are held out.

    Raises
    ------
    NoFlowError
        If the data root has frames only.
    ManifestError
        If the split is not packed or has no training video, or a shard with its training videos is missing or truncated.
    ParameterError
        If no training video can be held out as `settings` ask, or none would remain.
    """
    dataset = Dataset.open(root)
    check_flow(dataset, "training")
    listed = dataset.split(split)
    if not listed.train:
        raise ManifestError(f"{root}: split {split} has no training video; pack it with lists that have some (`flowkit pack --lists`)")
    check_shards(dataset, listed, records=listed.train)
    if settings.validation is None:
        return dataset, listed, HeldOut()
    return dataset, listed, held_out(dataset, listed, settings.validation, seed=settings.all_overrides.get("seed", 0))


def prepare_training(
    root: Path,
    settings: TrainSettings,
    *,
    split: int,
    run: str,
    runs: Path | None = None,
    base_run: str | None = None,
    init_from: str | Path | None = None,
    phases: Sequence[Phase],
    execution: Execution,
    restart: bool = False,
) -> PreparedTraining:
    """Return a training of these phases, or raise what `train` would raise before its first step; nothing is written.

    `flowkit.model.train` explains the parameters and the errors.
    """
    device = execution.torch_device()
    for name in {run, base_run or run}:
        check_run_name(name)
    wanted = [phase for phase in PHASES if phase in phases]
    if not wanted or set(phases) - set(PHASES):
        raise ParameterError(f"phases must be some of {', '.join(PHASES)}, got {list(phases)}")
    dataset, listed, held = training_lists(root, settings, split=split)
    trained_on, held_ids = held.without(listed), set(held.video_ids)
    unseen = [*listed.test, *(row for row in listed.train if row.video_id in held_ids)]
    recipe = settings.recipe_on(device.type, is_official_list=is_official_list(listed))
    extraction = extraction_of(dataset, listed.train[0])
    initial = InitialNetworks(init_from, wanted, runs=runs or root / "runs", run=run, split=listed, extraction=extraction, unseen=unseen)
    bases = [phase for phase in first_phases(wanted) if phase not in initial.origins]
    weights = EarlierWeights(root, run, base_run, split, runs)
    # What the phases start from that this training does not make.
    before = {}
    for phase in wanted:
        outside = [name for name in _needed(phase, initial) if name not in wanted]
        before[phase] = {name: weights.load(name, before=phase, split=listed) for name in outside}
    try:
        start = Start(first_weights(settings, recipe, bases), settings.all_overrides, first=bases)
    except CheckpointError as cause:
        raise WeightsMisfitError(str(cause)) from cause
    from_start = {key: value for key, value in start.overrides.items() if key in OVERRIDES} if bases else settings_before(before)

    def made(taken: Mapping[str, Any], num_videos: int) -> dict[Phase, TrainConfig]:
        return make_configs(
            recipe,
            phases=wanted,
            num_classes=len(listed.classes),
            num_videos=num_videos,
            short_side=extraction["short_side"],
            weights=start.identity if bases else _weights_of(before),
            paper_schedule=settings.paper_schedule,
            file=settings.file,
            overrides={**from_start, **taken, **settings.overrides},
        )

    skipping = [config for phase, config in made({}, len(trained_on.train)).items() if phase in wanted and config.skip_cuts]
    skipped = skipped_cuts(dataset, trained_on.train, skipping) if skipping else SkippedCuts()
    trained_on = skipped.without(trained_on)
    usual, configs = (made(taken, len(trained_on.train)) for taken in ({}, initial.overrides(settings.overrides)))
    configs = initial.with_weights(configs)
    folders = {phase: PhaseFolder(phase_folder(root, run, split, phase, runs=runs)) for phase in wanted}
    ready = PreparedTraining(
        dataset=dataset,
        listed=listed,
        trained_on=trained_on,
        held=held,
        skipped=skipped,
        extraction=extraction,
        settings=settings,
        execution=execution,
        weights=weights,
        start=start,
        initial=initial,
        recipe=recipe,
        configs=configs,
        usual=usual,
        folders=folders,
        restart=restart,
    )
    for phase, folder in folders.items():
        _check_ranks(configs[phase], execution.world)
        if before[phase]:
            check_earlier(configs[phase], before[phase])
            _check_validation(phase, before[phase], held)
        is_new = restart or not folder.begun
        if phase in bases and (is_new or isinstance(start.source, Path)):
            start.check(configs[phase])
        if is_new:
            initial.check(configs[phase])
        else:
            _check_begun(ready, phase)
    return ready


def with_fitting_weights(root: Path, settings: TrainSettings, **training: Any) -> TrainSettings:
    """Return settings without their file of first weights if that is not for these phases; `training` is as in `prepare_training`."""
    if not isinstance(settings.weights, Path) or not settings.weights.is_file():
        return settings
    try:
        prepare_training(root, settings, **training)
    except WeightsMisfitError:
        return replace(settings, weights=None)
    return settings


def first_weights(settings: TrainSettings, recipe: RecipeName, bases: Sequence[Phase]) -> Weights:
    """Return the weights from which these phases start: those that the user chose, or else the usual ones of the recipe."""
    if not bases or (settings.weights is None and not all(PHASES[phase].has_imagenet for phase in bases)):
        return "none"
    return settings.weights_for(recipe)


def _needed(phase: Phase, initial: InitialNetworks) -> list[Phase]:
    """Return the earlier phases that a phase starts from."""
    return [name for name in starts_from(phase) if name not in initial.covers(phase)]


def _check_ranks(config: TrainConfig, world: int) -> None:
    """Raise `ParameterError` unless the processes can share a step evenly."""
    if config.num_sub_batches % world:
        raise ParameterError(
            f"{config.phase}: the {config.num_sub_batches} sub-batches of a step (batch / bn_group) cannot be shared evenly by "
            f"{world} processes; choose --batch and --bn-group so that they can"
        )


def _check_begun(ready: PreparedTraining, phase: Phase) -> None:
    """Raise `CheckpointError` if a phase was begun in another way; it continues with the moments that it was begun with."""
    folder = ready.folders[phase]
    begun = load_checkpoint(folder.path).provenance
    ready.configs[phase] = with_moments_of(ready.configs[phase], begun.config, ready.settings.all_overrides)
    # Weights that this training is going to make are compared when they are there.
    pending = [name for name in _needed(phase, ready.initial) if name in ready.folders and not ready.folders[name].done]
    now = ready.provenance(phase, pending=pending)
    expected = {name: digest for name, digest in begun.started_from.items() if name in pending}
    refuse_other_phase(begun, replace(now, started_from=now.started_from | expected), ready.listed, folder.path)


def _check_validation(phase: Phase, before: Mapping[Phase, Checkpoint], held: HeldOut) -> None:
    """Raise `CheckpointError` if an earlier phase held out other videos, so that it was trained on videos that must be new to it."""
    for name, checkpoint in before.items():
        made = checkpoint.provenance
        differences = validation_differences(made, replace(made, validation=held.record))
        if differences:
            raise CheckpointError(
                f"{phase} starts from {name}, which must hold out the same videos for validation: {'; '.join(differences)}. Give the "
                f"options --validation or --validation-groups, and --seed, with which {name} was trained"
            )


def _weights_of(before: Mapping[Phase, Mapping[Phase, Checkpoint]]) -> str:
    """Return what the base streams of earlier phases started from, by their own record."""
    recorded = {name: checkpoint.provenance.config.weights for given in before.values() for name, checkpoint in given.items()}
    return (
        next(iter(recorded.values())) if len(set(recorded.values())) == 1 else ", ".join(f"{name}: {of}" for name, of in recorded.items())
    )
