"""The chain of phases: appearance and motion, ST-ResNet from both, and ST-ResNet* from ST-ResNet; each only if it is not done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from flowkit.dataset.manifest import Split
from flowkit.errors import CheckpointError, ParameterError
from flowkit.files import file_sha256
from flowkit.model.compute.execution import Execution
from flowkit.model.compute.ranks import wait
from flowkit.model.data.held_out import HeldOut
from flowkit.model.data.official_lists import is_official_list
from flowkit.model.data.training_clips import ClipDataset
from flowkit.model.runs.checkpoint import WEIGHTS_NAME, Checkpoint, load_checkpoint
from flowkit.model.runs.events import NetworksTaken, PhaseSkipped, RunStarted, TrainEvent, ignore, never, to_all
from flowkit.model.runs.first_network import FirstNetwork
from flowkit.model.runs.places import check_writable
from flowkit.model.runs.progress import RunProgress
from flowkit.model.runs.provenance import Provenance
from flowkit.model.runs.run_folder import PhaseFolder, check_run_name, phase_folder
from flowkit.model.runs.training_data import differences_from_training_data, extraction_of, refuse_other_phase, validation_differences
from flowkit.model.settings.recipes import Recipe, TrainSettings, Weights, make_configs, with_moments_of
from flowkit.model.settings.training import BASE_PHASES, PHASES, Phase, TrainConfig
from flowkit.model.settings.validation import Validation
from flowkit.model.training.init_from import InitialNetworks
from flowkit.model.training.loop import PhaseRun
from flowkit.model.training.phases import BEFORE, Start, check_earlier, settings_before
from flowkit.model.training.planned import training_lists
from flowkit.model.training.validation import Validator

UNUSED_WEIGHTS = (
    "st-resnet starts from both of them, and st-resnet-star from st-resnet; base_run names the run that has them, and init_from a "
    "trained network of any data"
)


@dataclass(frozen=True)
class TrainReport:
    """What a call of `train` did.

    Parameters
    ----------
    trained : tuple of str
        The phases that this call trained to the end.
    skipped : tuple of str
        The phases that were done already.
    stopped : bool
        Whether it returned early, on request.
    """

    trained: tuple[Phase, ...]
    skipped: tuple[Phase, ...]
    stopped: bool


def train(
    root: str | Path,
    *,
    split: int = 1,
    run: str = "default",
    runs: str | Path | None = None,
    base_run: str | None = None,
    init_from: str | Path | None = None,
    phases: Sequence[Phase] = PHASES,
    recipe: Recipe = "auto",
    weights: Weights | str | None = None,
    paper_schedule: bool = False,
    overrides: Mapping[str, Any] | None = None,
    validation: float | None = None,
    validation_groups: Sequence[int] = (),
    execution: Execution | None = None,
    restart: bool = False,
    progress: bool | None = None,
    on_event: Callable[[TrainEvent], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> TrainReport:
    """Train phases on a packed split, each from the one before; continue where an earlier call stopped.

    Parameters
    ----------
    root : path
        The data root.
    split : int
        The number of the split.
    run : str
        The run's name. A phase is kept in ``runs/<run>/split<n>/<phase>/``.
    runs : path, optional
        The folder of the runs. Default: ``runs`` in the data root, which may be read-only.
    base_run : str, optional
        Another run, whose phases serve as starting points where this run does not have them.
    init_from : str or path, optional
        Trained networks to start from, also of other data: the name of a run, or the path of the folder of a run, a split or a phase, or
        of a file of weights. A phase takes the network of its own kind, with a new classifier if the classes are others; see
        `flowkit.model.training.init_from.InitialNetworks`. It excludes `weights`.
    phases : sequence of {"appearance", "motion", "st-resnet", "st-resnet-star"}
        Which phases to train, in any order. What they start from must be among them, or trained already.
    recipe : {"auto", "official", "own", "small"}
        The network at full width with the official code's schedule or with one for smaller data sets, or a small network for a CPU.
        ``auto`` is `small` on a CPU; on a CUDA device it is `official` for the lists of UCF101 and HMDB51, and `own` for others.
    weights : "imagenet", "none" or path, optional
        What the base streams start from. By default random weights for `small`, ImageNet for the others. A file may be a training
        checkpoint of PyTorch's; of a larger model only the ResNet is used.
    paper_schedule : bool
        Take the paper's batches and iterations, as far as they are known, instead of the official code's.
    overrides : dict, optional
        Values to use instead of the recipe's, for all phases or one: ``{"batch": 8, "motion.lr": 0.01}``. Their names are the fields
        of `TrainConfig` and `STResNetConfig`, ``steps`` (of a phase) and ``lr`` (the first learning rate).
    validation : float, optional
        The share of each class's training videos to hold out for validation, drawn with the run's seed. No phase trains on them.
        Byte-identical videos, and videos of a class that share a ``_gNN_``, stay together. Their accuracy and loss are measured now and
        then; with the override ``{"select": "best"}``, each phase ends with the weights of the best accuracy.
    validation_groups : sequence of int, optional
        Instead: the numbers of the ``_gNN_`` groups to hold out.
    execution : Execution, optional
        Where and how fast to compute.
    restart : bool
        Discard what these phases have and train them from the start.
    progress : bool, optional
        Show progress on stderr. By default on a terminal and in a notebook.
    on_event : callable, optional
        Receives the events of `flowkit.model.runs.events` while training proceeds.
    should_stop : callable, optional
        Called after each step. When it returns True, a checkpoint is written and `train` returns.

    Returns
    -------
    TrainReport
        Which phases were trained, which were done already, and whether training was stopped.

    Raises
    ------
    ParameterError
        If a setting is out of its range.
    CheckpointError
        If a phase was begun with other settings or data, or what it starts from is missing.
    ManifestError
        If the split is not packed or has no training video, or a shard that is needed is missing or truncated.
    BusyError
        If another process trains the same phase of the same run.

    References
    ----------
    C. Feichtenhofer, A. Pinz, R. P. Wildes, "Spatiotemporal Residual Networks for Video Action Recognition", NIPS 2016,
    arXiv:1611.02155.

    Examples
    --------
    Two steps of each phase with a tiny network, and then the same call again, which finds nothing to do:

    >>> from flowkit.dataset.example import example_root
    >>> from flowkit.model import train
    >>> root = example_root()  # 12 training videos of 6 classes
    >>> overrides = {"base_width": 4, "input_size": 32, "batch": 4, "bn_group": 2, "steps": 2}
    >>> train(root, recipe="small", overrides=overrides).trained
    ('appearance', 'motion', 'st-resnet', 'st-resnet-star')
    >>> train(root, recipe="small", overrides=overrides).skipped
    ('appearance', 'motion', 'st-resnet', 'st-resnet-star')
    >>> sorted(path.name for path in (root / "runs/default/split1/motion").iterdir())
    ['checkpoint.pt', 'config.json', 'digests.json', 'metrics.jsonl', 'videos.json', 'weights.safetensors']
    """
    execution = execution or Execution()
    if weights is not None and not set(phases) & set(BASE_PHASES):
        raise ParameterError(f"weights are for the base streams, {' and '.join(BASE_PHASES)}; {UNUSED_WEIGHTS}")
    if weights is not None and init_from is not None:
        raise ParameterError("weights and init_from both name first weights; give one of them")
    wanted = validation is not None or validation_groups
    chosen = Validation(validation, tuple(validation_groups)) if wanted else None
    with RunProgress(progress if execution.rank == 0 else False) as show:
        return train_phases(
            Path(root),
            TrainSettings(recipe, weights, paper_schedule, overrides or {}, chosen),
            split=split,
            run=run,
            runs=None if runs is None else Path(runs),
            base_run=base_run,
            init_from=init_from,
            phases=phases,
            execution=execution,
            restart=restart,
            on_event=to_all(show, on_event),
            should_stop=should_stop or never,
        )


def train_phases(
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
    restart_too: Sequence[str] = (),
    on_event: Callable[[TrainEvent], None] = ignore,
    should_stop: Callable[[], bool] = never,
) -> TrainReport:
    """Train phases as `train` does, which explains the parameters. `restart` also discards these phases of the runs `restart_too`."""
    device = execution.torch_device()
    for name in {run, base_run or run, *restart_too}:
        check_run_name(name)
    wanted = [phase for phase in PHASES if phase in phases]
    if not wanted or set(phases) - set(PHASES):
        raise ParameterError(f"phases must be some of {', '.join(PHASES)}, got {list(phases)}")
    dataset, listed, held = training_lists(root, settings, split=split)
    trained_on, held_ids = held.without(listed), set(held.video_ids)
    unseen = [*listed.test, *(row for row in listed.train if row.video_id in held_ids)]
    is_official = is_official_list(listed)
    chosen = settings.recipe_on(device.type, is_official_list=is_official)
    extraction = extraction_of(dataset, listed.train[0])
    initial = InitialNetworks(init_from, wanted, runs=runs or root / "runs", run=run, split=listed, extraction=extraction, unseen=unseen)
    needed = {phase: [name for name in BEFORE[phase] if name not in initial.covers(phase)] for phase in wanted}
    bases = [phase for phase in wanted if phase in BASE_PHASES and phase not in initial.origins]
    # What the phases start from that this call does not train.
    before = {phase: {name: _earlier(listed, phase, name, _weights_before(root, run, base_run, split, name, runs))
                      for name in needed[phase] if name not in wanted} for phase in wanted}  # fmt: skip
    start = Start(settings.weights_for(chosen) if bases else "none", settings.all_overrides)
    from_start = start.overrides if bases else settings_before(before)
    usual, configs = (
        make_configs(
            chosen,
            num_classes=len(listed.classes),
            num_videos=len(trained_on.train),
            short_side=extraction["short_side"],
            weights=start.identity if bases else _weights_of(before),
            paper_schedule=settings.paper_schedule,
            file=settings.file,
            overrides={**from_start, **taken, **settings.overrides},
        )
        for taken in ({}, initial.overrides(settings.overrides))
    )
    configs = initial.with_weights(configs)
    for phase in wanted:
        if configs[phase].num_sub_batches % execution.world:
            raise ParameterError(
                f"{phase}: the {configs[phase].num_sub_batches} sub-batches of a step (batch / bn_group) cannot be shared evenly by "
                f"{execution.world} processes; choose --batch and --bn-group so that they can"
            )

    def provenance_of(phase: Phase, earlier: Mapping[Phase, Path]) -> Provenance:
        return _provenance(configs[phase], listed, earlier, extraction, execution.amp, held, initial.record(phase))

    folders = {phase: PhaseFolder(phase_folder(root, run, split, phase, runs=runs)) for phase in wanted}
    for phase, folder in folders.items():
        if before[phase]:
            check_earlier(configs[phase], before[phase])
            _check_validation(phase, before[phase], held)
        if not restart and folder.begun:
            begun = load_checkpoint(folder.path).provenance
            configs[phase] = with_moments_of(configs[phase], begun.config, settings.all_overrides)
            # Weights that this call is going to train are compared when they are there.
            pending = {name for name in needed[phase] if name in folders and not folders[name].done}
            earlier = {name: _weights_before(root, run, base_run, split, name, runs) for name in needed[phase] if name not in pending}
            now = provenance_of(phase, earlier)
            expected = {name: digest for name, digest in begun.started_from.items() if name in pending}
            refuse_other_phase(begun, replace(now, started_from=now.started_from | expected), listed, folder.path)
        if restart or not folder.begun:
            initial.check(configs[phase])
            if phase in bases:
                start.check(configs[phase])
        if execution.rank == 0 and (restart or not folder.done):
            check_writable(folder.path, option="--runs DIR")
    on_event(
        RunStarted(
            chosen,
            str(device),
            weights=str(init_from) if initial.origins else start.describe() if bases else "",
            num_videos=len(trained_on.train),
            num_classes=len(listed.classes),
            num_empty_classes=len(listed.classes) - len({record.label for record in trained_on.train}),
            num_held_out=len(held_ids),
            notes=held.notes,
            why_recipe=settings.why_recipe(device.type, is_official_list=is_official),
        )
    )
    new = [phase for phase in initial.origins if restart or not folders[phase].begun]
    if new:
        lines = initial.lines(new, configs, usual, usually=start.describe())
        on_event(NetworksTaken(tuple(lines), tuple(initial.warnings(new))))
    if restart:
        if start.source != "none":
            start.read()  # if the weights are unavailable, fail before anything is deleted
        if execution.rank == 0:  # all at once, so that a stopped run does not continue with old phases
            for name in (run, *restart_too):
                for phase in wanted:
                    PhaseFolder(phase_folder(root, name, split, phase, runs=runs)).discard()
        wait(execution.world)

    given: dict[str, Any] = {"overrides": {key: str(value) for key, value in settings.all_overrides.items()}}
    given |= {"weights_file": str(start.source.absolute())} if isinstance(start.source, Path) else {}
    trained: list[Phase] = []
    skipped: list[Phase] = []
    for phase, folder in folders.items():
        earlier = {name: _weights_before(root, run, base_run, split, name, runs) for name in needed[phase]}
        provenance = provenance_of(phase, earlier)
        with folder.alone() if execution.rank == 0 and not folder.done else nullcontext():
            if execution.rank == 0:
                said = {"init_from": str(init_from)} if phase in initial.origins else {}
                folder.claim(provenance, listed, given | said)
            wait(execution.world)
            if folder.done:
                skipped.append(phase)
                on_event(PhaseSkipped(phase, folder.path))
                continue
            work = PhaseRun(
                folder,
                provenance,
                ClipDataset(dataset, trained_on, configs[phase]),
                execution=execution,
                start=partial(
                    start.initialise, config=configs[phase], earlier=earlier, digests=provenance.started_from, taken=initial.states
                ),
                validator=Validator(dataset, listed, provenance, execution=execution) if held.video_ids else None,
            )
            if not work.train(on_event=on_event, should_stop=should_stop):
                return TrainReport(tuple(trained), tuple(skipped), stopped=True)
            trained.append(phase)
    return TrainReport(tuple(trained), tuple(skipped), stopped=False)


def _weights_before(root: Path, run: str, base_run: str | None, split: int, phase: Phase, runs: Path | None) -> Path:
    """Return the path of an earlier phase's final weights, in the run or else in its base run, whether they exist or not."""
    own = phase_folder(root, run, split, phase, runs=runs) / WEIGHTS_NAME
    return own if base_run is None or own.is_file() else phase_folder(root, base_run, split, phase, runs=runs) / WEIGHTS_NAME


def _earlier(split: Split, phase: Phase, name: Phase, path: Path) -> Checkpoint:
    """Return the weights that a phase starts from; `CheckpointError` unless they exist and were trained on this split's data."""
    if not path.is_file():
        raise CheckpointError(f"{phase} starts from {name}, and {path} does not exist; train it first with `--phase {name}`")
    checkpoint = load_checkpoint(path)
    differences = differences_from_training_data(split, checkpoint.provenance, path.parent)
    if differences:
        raise CheckpointError(
            f"{phase} starts from {path}, which was trained on other data: {'; '.join(differences)}. Train {name} on this split, in "
            f"another run (`--run NAME`) or again (`--phase {name} --restart`)"
        )
    return checkpoint


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


def _provenance(
    config: TrainConfig,
    split: Split,
    earlier: Mapping[Phase, Path],
    extraction: dict[str, Any],
    precision: str,
    held: HeldOut,
    first_network: FirstNetwork | None,
) -> Provenance:
    return Provenance(
        config=config,
        classes=split.classes,
        split=split.number,
        protocol=split.protocol,
        digest=split.digest,
        quantiser=split.quantiser.to_dict(),
        started_from={name: file_sha256(path) for name, path in earlier.items()},
        extraction=extraction,
        earlier_digests=split.earlier_digests,
        num_videos={"train": len(split.train), "test": len(split.test)},
        precision=precision,
        validation=held.record,
        first_network=first_network,
    )
