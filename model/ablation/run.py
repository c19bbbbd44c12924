"""An ablation: variants of ST-ResNet and the reference, trained from the same base streams and tested on the same videos."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from flowkit.dataset.root import Dataset
from flowkit.dataset.shard_files import check_shards
from flowkit.errors import BusyError, CheckpointError, FlowkitError, ParameterError, RankError
from flowkit.files import file_sha256
from flowkit.model.ablation.table import VariantResult, is_tested, num_failed_videos, read_score, write_ablation, write_tested
from flowkit.model.ablation.variants import BASE_PHASES, REFERENCE, ST_PHASES, Variant
from flowkit.model.compute.execution import Execution
from flowkit.model.compute.ranks import gathered, wait
from flowkit.model.data.official_lists import is_official_list
from flowkit.model.evaluation.protocol import evaluate
from flowkit.model.runs.checkpoint import WEIGHTS_NAME
from flowkit.model.runs.events import AblationEvent, VariantFailed, VariantStarted, VariantTested, ignore, never
from flowkit.model.runs.places import check_run_name, check_writable, report_folder
from flowkit.model.runs.run_folder import PhaseFolder, phase_folder, writing_report
from flowkit.model.settings.recipes import TrainSettings
from flowkit.model.settings.training import Phase, TrainConfig
from flowkit.model.systems.configs import later_keys, make_configs
from flowkit.model.systems.registry import PHASES
from flowkit.model.training.chain import train_phases

_ANY_SHORT_SIDE = 256  # px; what it decides (the small recipe's input size) is the same for all variants


@dataclass(frozen=True)
class PlannedVariant:
    """A variant and what will be trained for it.

    Parameters
    ----------
    variant : Variant
        What to train.
    run : str
        Its own run; the base run for the reference.
    phases : tuple of str
        The phases that it trains itself: all from the first in which it differs from the reference.
    configs : dict from phase to TrainConfig
        The settings of these phases; number of classes and steps are those of the split.
    """

    variant: Variant
    run: str
    phases: tuple[Phase, ...]
    configs: dict[Phase, TrainConfig]


@dataclass(frozen=True)
class AblationReport:
    """What a call of `ablate` did.

    Parameters
    ----------
    results : tuple of VariantResult
        One per variant, the reference first.
    folder : Path
        Where the table is.
    stopped : bool
        Whether it returned early, on request.
    """

    results: tuple[VariantResult, ...]
    folder: Path
    stopped: bool = False


def variant_run(base_run: str, variant: Variant) -> str:
    """Return the name of a variant's own run."""
    return f"{base_run}+{variant.name}"


def plan_ablation(
    root: Path,
    variants: Sequence[Variant],
    settings: TrainSettings,
    *,
    split: int = 1,
    run: str = "default",
    phases: Sequence[Phase] = ST_PHASES,
    execution: Execution | None = None,
) -> tuple[list[PlannedVariant], list[Variant]]:
    """Return what `ablate` would train with the same arguments.

    Returns
    -------
    planned : list of PlannedVariant
        The reference first.
    same : list of Variant
        Variants that do not differ from the reference in these phases, and so are left out.

    Raises
    ------
    ParameterError
        If a setting is out of its range, or a general setting is one that variants vary, or nothing is left to compare.
    ManifestError
        If the split is not packed.
    """
    check_run_name(run)
    wanted = tuple(phase for phase in ST_PHASES if phase in phases)
    if not wanted or set(phases) - set(ST_PHASES) or wanted[0] != ST_PHASES[0]:
        raise ParameterError(f"phases must be st-resnet, or st-resnet and st-resnet-star, got {list(phases)}")
    varied = [name for name in settings.overrides if name.rpartition(".")[2] in later_keys(ST_PHASES)]
    if varied:
        raise ParameterError(f"{varied[0]} is a setting that variants vary: make a variant of it ({REFERENCE} has the recipe's value)")
    listed = Dataset.open(root).split(split)
    device = (execution or Execution()).torch_device()
    chosen = settings.recipe_on(device.type, is_official_list=is_official_list(listed))

    def configs_with(more: Mapping[str, Any]) -> dict[Phase, TrainConfig]:
        return make_configs(
            chosen,
            phases=wanted,
            num_classes=len(listed.classes),
            num_videos=len(listed.train),
            short_side=_ANY_SHORT_SIDE,
            paper_schedule=settings.paper_schedule,
            overrides=settings.but(more).overrides,
        )

    reference = configs_with({})
    planned = [PlannedVariant(Variant(REFERENCE), run, wanted, {phase: reference[phase] for phase in wanted})]
    same = []
    for variant in variants:
        try:
            own = configs_with(variant.overrides)
        except ParameterError as cause:
            raise ParameterError(f"variant {variant.name}: {cause}") from cause
        first = next((k for k, phase in enumerate(wanted) if own[phase] != reference[phase]), None)
        if first is None:
            same.append(variant)
        else:
            differing = wanted[first:]
            planned.append(PlannedVariant(variant, variant_run(run, variant), differing, {phase: own[phase] for phase in differing}))
    if len(planned) == 1:
        why = f"no variant differs from the reference in {', '.join(wanted)}" if variants else "no variant is given"
        raise ParameterError(f"nothing to compare: {why}")
    return planned, same


def ablate(
    root: Path,
    variants: Sequence[Variant],
    settings: TrainSettings,
    *,
    split: int = 1,
    run: str = "default",
    runs: Path | None = None,
    reports: Path | None = None,
    phases: Sequence[Phase] = ST_PHASES,
    execution: Execution | None = None,
    restart: bool = False,
    restart_too: Sequence[str] = (),
    on_event: Callable[[AblationEvent], None] = ignore,
    should_stop: Callable[[], bool] = never,
) -> AblationReport:
    """Train and test the reference and variants of it from the same base streams; continue where an earlier call stopped.

    Parameters
    ----------
    root : Path
        The data root.
    variants : sequence of Variant
        The variants besides the reference, which always comes first.
    settings : TrainSettings
        How to train; the same for all variants. Its `overrides` must not contain what variants vary.
    split : int
        The number of the split.
    run : str
        The base run: all variants share its base streams, and its ST phases are the reference. Those it lacks are trained. The
        run of a variant is ``<run>+<variant>``.
    runs, reports : Path, optional
        The folders of runs and of reports. Default: ``runs`` and ``reports`` in the data root.
    phases : sequence of str
        ``st-resnet`` alone or with ``st-resnet-star``.
    execution : Execution, optional
        Where and how to compute.
    restart : bool
        Discard what the variants' own runs have; the base run is left alone.
    restart_too : sequence of str
        Further base runs, of other seeds, whose variants `restart` discards at the same time.
    on_event : callable
        Receives the events of `flowkit.model.runs.events`.
    should_stop : callable
        Called after each step of training and each variant. When it returns True, `ablate` returns.

    Returns
    -------
    AblationReport
        Has a failure in place of scores where a variant's training or test raised a `FlowkitError`, for example because its loss was
        not a finite number.

    Raises
    ------
    ParameterError, ManifestError
        As `plan_ablation`.
    CheckpointError
        If the base run was begun with other settings or data.
    RankError
        If another process of the run has ended.
    """
    execution = execution or Execution()
    planned, _ = plan_ablation(root, variants, settings, split=split, run=run, phases=phases, execution=execution)
    dataset = Dataset.open(root)
    check_shards(dataset, dataset.split(split))
    training = partial(train_phases, root, split=split, runs=runs, execution=execution, on_event=on_event, should_stop=should_stop)
    folder = report_folder(root, run, split, reports=reports)
    if execution.rank == 0:
        check_writable(folder, option="--reports DIR")
    results: list[VariantResult] = []
    with writing_report(folder / "ablation", "ablate") if execution.rank == 0 else nullcontext():
        if restart and execution.rank == 0:  # all at once, so that a stop leaves no old phase beside a new one
            for plan in planned[1:]:
                for name in (plan.run, *(variant_run(base, plan.variant) for base in restart_too)):
                    for phase in plan.phases:
                        PhaseFolder(phase_folder(root, name, split, phase, runs=runs)).discard()
        wait(execution.world)
        if training(settings, run=run, phases=BASE_PHASES).stopped:
            return AblationReport((), folder, stopped=True)
        for number, plan in enumerate(planned):
            on_event(VariantStarted(plan.variant.name, str(plan.variant), number, len(planned), plan.run, plan.phases))
            base_run = None if plan.run == run else run
            own, done, failure = settings.but(plan.variant.overrides), [], None
            try:
                for phase in plan.phases:
                    stopped = training(own, run=plan.run, base_run=base_run, phases=[phase]).stopped
                    if stopped or should_stop():
                        return AblationReport(tuple(results), folder, stopped=True)
                    done.append(phase)
            except (BusyError, RankError):
                raise  # not caused by the variant: the others would fail too
            except FlowkitError as error:
                failure = str(error)
            tests = folder / "ablation" / plan.variant.name
            results.append(_tested(root, split, plan, tuple(done), failure, tests, execution, on_event, runs))
            if execution.rank == 0:
                write_ablation(folder, results, split=split, base_run=run, complete=len(results) == len(planned))
            if should_stop() and len(results) < len(planned):
                return AblationReport(tuple(results), folder, stopped=True)
        return AblationReport(tuple(results), folder)


def _tested(
    root: Path,
    split: int,
    plan: PlannedVariant,
    done: tuple[Phase, ...],
    failure: str | None,
    folder: Path,
    execution: Execution,
    on_event: Callable[[AblationEvent], None],
    runs: Path | None,
) -> VariantResult:
    """Test the phases of a variant that could be trained, unless exactly these weights were tested already."""
    name, scores, num_failed = plan.variant.name, {}, 0
    try:
        if done:
            paths = {phase: phase_folder(root, plan.run, split, phase, runs=runs) / WEIGHTS_NAME for phase in PHASES}
            listed = Dataset.open(root).split(split)
            files = _tested_files(root, split, paths)
            what = {**files, "amp": execution.amp}
            # The first process decides for all of them, so that either all test or none.
            if not gathered(is_tested(folder, what, listed.digests), execution.world)[0]:
                evaluation = evaluate(
                    root,
                    splits=(split,),
                    run=plan.run,
                    runs=runs,
                    execution=execution,
                    progress=False,
                    on_event=on_event,
                    keep_scores_in=lambda _: folder,
                )
                if gathered(_tested_files(root, split, paths) != files, execution.world)[0]:
                    raise CheckpointError(
                        f"the weights or the data of run {plan.run} changed while they were tested; run the same line again"
                    )
                if execution.rank == 0:
                    write_tested(folder, evaluation, what)
                wait(execution.world)
            scores = {phase: read_score(folder, phase, plan.configs[phase], paths[phase].parent) for phase in done}
            num_failed = num_failed_videos(folder)
    except RankError:
        raise
    except FlowkitError as error:
        failure = str(error)
    on_event(VariantTested(name) if failure is None else VariantFailed(name, failure))
    return VariantResult(plan.variant, plan.run, plan.phases, scores, failure, num_failed)


def _tested_files(root: Path, split: int, paths: Mapping[Phase, Path]) -> dict[str, Any]:
    """Return the digests of the weights and of the data that a test depends on."""
    return {
        "weights": {phase: file_sha256(path) for phase, path in paths.items() if path.is_file()},
        "data": Dataset.open(root).split(split).digest,
    }
