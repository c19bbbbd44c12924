"""The chain of phases of a system, each started from the weights of those before it; each only if it is not done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from flowkit.errors import ParameterError
from flowkit.model.compute.execution import Execution
from flowkit.model.compute.ranks import wait
from flowkit.model.data.training_clips import ClipDataset
from flowkit.model.runs.events import PhaseSkipped, RunStopped, TrainEvent, ignore, never, to_all
from flowkit.model.runs.places import check_run_name, check_writable
from flowkit.model.runs.progress import RunProgress
from flowkit.model.runs.provenance import Provenance
from flowkit.model.runs.run_folder import PhaseFolder, phase_folder
from flowkit.model.settings.recipes import Recipe, TrainSettings, Weights
from flowkit.model.settings.training import Phase, TrainConfig
from flowkit.model.settings.validation import Validation
from flowkit.model.systems.registry import DEFAULT_SYSTEM, find_system, first_phases, linked, starts_from
from flowkit.model.training.feature_clips import FOLDER as FEATURES_FOLDER
from flowkit.model.training.feature_clips import FeatureClips, feature_clips
from flowkit.model.training.loop import PhaseRun
from flowkit.model.training.prepare import PreparedTraining, prepare_training
from flowkit.model.training.validation import Validator


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
    system: str = DEFAULT_SYSTEM,
    phases: Sequence[Phase] | None = None,
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
    system : str
        The name of a system, all of whose networks are trained.
    phases : sequence of str, optional
        Which phases to train instead, in any order, such as ``["motion"]``. What they start from must be among them, or trained already.
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
        of `TrainConfig` and of the network's settings, such as `STResNetConfig`; ``steps`` (of a phase) and ``lr`` (the first rate).
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
    phases = find_system(system).networks if phases is None else phases
    if weights is not None and phases and not first_phases(phases):
        raise ParameterError(_unused_weights(phases))
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
    for name in restart_too:
        check_run_name(name)
    ready = prepare_training(
        root,
        settings,
        split=split,
        run=run,
        runs=runs,
        base_run=base_run,
        init_from=init_from,
        phases=phases,
        execution=execution,
        restart=restart,
    )
    if execution.rank == 0:
        for folder in ready.folders.values():
            if restart or not folder.done:
                check_writable(folder.path, option="--runs DIR")
    for event in ready.events():
        on_event(event)
    if restart:
        if ready.start.source != "none":
            ready.start.read()  # if the weights are unavailable, fail before anything is deleted
        if execution.rank == 0:  # all at once, so that a stopped run does not continue with old phases
            for name in (run, *restart_too):
                for phase in ready.folders:
                    PhaseFolder(phase_folder(root, name, split, phase, runs=runs)).discard()
        wait(execution.world)
    trained: list[Phase] = []
    skipped: list[Phase] = []
    for phase, folder in ready.folders.items():
        provenance = ready.provenance(phase)
        with folder.alone() if execution.rank == 0 and not folder.done else nullcontext():
            if execution.rank == 0:
                folder.claim(provenance, ready.listed, ready.given(phase))
            wait(execution.world)
            if folder.done:
                skipped.append(phase)
                on_event(PhaseSkipped(phase, folder.path))
                continue
            clips = _clips(ready, provenance.config, on_event=on_event, should_stop=should_stop)
            if clips is None:
                begun = folder.checkpoint()
                on_event(RunStopped(phase, 0 if begun is None else begun.step, provenance.config.num_steps))
                return TrainReport(tuple(trained), tuple(skipped), stopped=True)
            if not _phase_run(ready, provenance, clips).train(on_event=on_event, should_stop=should_stop):
                return TrainReport(tuple(trained), tuple(skipped), stopped=True)
            trained.append(phase)
    return TrainReport(tuple(trained), tuple(skipped), stopped=False)


def _unused_weights(phases: Sequence[Phase]) -> str:
    """Return what to do instead of naming first weights for phases that start from others."""
    bases = [phase.name for phase in linked(phases) if not phase.starts_from]
    starts = ", and ".join(f"{phase.name} starts from {' and '.join(phase.starts_from)}" for phase in linked(phases) if phase.starts_from)
    return (
        f"weights are for the base streams, {' and '.join(bases)}; {starts}; base_run names the run that has them, and "
        "init_from a trained network of any data"
    )


def _clips(
    ready: PreparedTraining, config: TrainConfig, *, on_event: Callable[[TrainEvent], None], should_stop: Callable[[], bool]
) -> ClipDataset | FeatureClips | None:
    """Return what a phase learns from; None if a stop was requested before all its features were there."""
    if not config.network.learns_from_features:
        return ClipDataset(ready.dataset, ready.trained_on, config, cuts=ready.skipped.cuts)
    (before,) = starts_from(config.phase)
    folder = ready.folders[config.phase].path.parent / FEATURES_FOLDER
    weights, execution = ready.weights.path(before), ready.execution
    return feature_clips(
        ready.dataset.root, ready.trained_on, config, weights, folder, execution=execution, on_event=on_event, should_stop=should_stop
    )


def _phase_run(ready: PreparedTraining, provenance: Provenance, clips: ClipDataset | FeatureClips) -> PhaseRun:
    """Return the training of one phase."""
    config, execution = provenance.config, ready.execution
    return PhaseRun(
        ready.folders[config.phase],
        provenance,
        clips,
        execution=execution,
        start=partial(
            ready.start.initialise,
            config=config,
            earlier=ready.earlier(config.phase),
            digests=provenance.started_from,
            taken=ready.initial.states,
        ),
        validator=Validator(ready.dataset, ready.listed, provenance, execution=execution) if ready.held.video_ids else None,
    )
