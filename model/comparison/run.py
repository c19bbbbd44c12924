"""Every phase that is trained is tested once, and its scores and the systems' results are kept until weights, data or settings change."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from flowkit.dataset.manifest import Split
from flowkit.dataset.root import Dataset
from flowkit.errors import FlowkitError
from flowkit.model.ablation.table import is_tested, write_tested
from flowkit.model.comparison.compared import ComparedSystem, Comparison, differences_of
from flowkit.model.comparison.estimates import Estimates
from flowkit.model.comparison.phase_scores import PhaseScores, TestStoppedError
from flowkit.model.compute.execution import Execution
from flowkit.model.evaluation.protocol import described
from flowkit.model.evaluation.results import SplitEvaluation, read_results
from flowkit.model.runs.events import EvaluateEvent, never
from flowkit.model.runs.places import check_run_name, report_folder
from flowkit.model.runs.run_folder import train_command, untrained_phases
from flowkit.model.scoring.tested_networks import Crops
from flowkit.model.settings.recipes import TrainSettings
from flowkit.model.systems.registry import NOT_BUILT, SYSTEMS, find_system
from flowkit.model.systems.system import System

FOLDER = "compare"  # in the folder of the reports of a split


def compare(
    root: str | Path,
    *,
    split: int = 1,
    run: str = "default",
    runs: str | Path | None = None,
    reports: str | Path | None = None,
    systems: Sequence[str] = (),
    training: TrainSettings | None = None,
    failures: dict[str, str] | None = None,
    execution: Execution | None = None,
    crops: Crops = "whole",
    on_event: Callable[[EvaluateEvent], None] | None = None,
    should_stop: Callable[[], bool] = never,
) -> Comparison:
    """Test the systems that a run has on one split, and put them beside their published figures.

    Parameters
    ----------
    root : path
        The data root.
    split : int
        The number of the split.
    run : str
        The run whose phases are tested. Systems share those that they have in common.
    runs, reports : path, optional
        The folders of the runs and of the reports. Default: those of the data root.
    systems : sequence of str
        Names of systems. Default: all, and those of the paper's table that flowkit does not build.
    training : TrainSettings, optional
        How the phases that are missing would be trained; then two steps of each are measured for an estimate of its time, unless it was
        begun already. Default: no estimates.
    failures : dict from str to str, optional
        Why a system could not be trained, for those that a caller tried to train.
    execution : Execution, optional
        Where and how to compute.
    crops : {"whole", "ten"}
        What networks see of a frame. Ten crops, as in the tests of the two-stream papers, are for systems whose networks all look at one
        frame, or one stack of flow, at a time; other systems see whole frames nevertheless, and the comparison says which.
    on_event : callable, optional
        Receives the events of `flowkit.model.runs.events`.
    should_stop : callable
        Called before each system, and after each few videos. When it returns True, the comparison has the systems until then, and
        another call goes on there.

    Returns
    -------
    Comparison
        A row for each system. A system that is not trained, or cannot be tested, has no result, and says why.

    Raises
    ------
    ManifestError
        If the split is not packed.
    ParameterError
        If there is no such system.

    Examples
    --------
    >>> from flowkit.dataset.example import example_root
    >>> from flowkit.model.comparison.run import compare
    >>> made = compare(example_root(), systems=["two-streams-vgg-16"])
    >>> made.systems[0].missing
    ('vgg-16-appearance', 'vgg-16-motion')
    >>> made.systems[0].system.published["ucf101"]
    91.4
    """
    root, execution = Path(root), execution or Execution()
    kept, folder = None if runs is None else Path(runs), None if reports is None else Path(reports)
    check_run_name(run)
    dataset = Dataset.open(root)
    listed, place = dataset.split(split), report_folder(root, run, split, reports=folder) / FOLDER
    scores = PhaseScores(
        *(dataset, listed),
        run=run,
        runs=kept,
        folder=place,
        execution=execution,
        crops=crops,
        on_event=on_event or (lambda _: None),
        should_stop=should_stop,
    )
    places: dict[str, Any] = {"split": split, "run": run, "runs": kept}
    estimates = None if training is None else Estimates(root, training, **places, execution=execution, should_stop=should_stop)
    found: list[ComparedSystem] = []
    for name in systems or tuple(SYSTEMS):
        system = find_system(name)
        if should_stop():
            return Comparison(run, listed, tuple(found), stopped=True)
        failure = (failures or {}).get(name, "")
        missing = untrained_phases(system.phases, root, **places)
        if missing:
            has_recipe = training is not None and training.recipe != "auto" and (system.networks or system.has_fisher_vectors)
            recipe = f" --recipe {training.recipe}" if training is not None and has_recipe else ""
            untrained = ComparedSystem(
                system,
                missing=tuple(missing),
                command=train_command(root, run=run, split=split, runs=kept, options=f" --system {name}{recipe}"),
                estimate=None if estimates is None or failure else estimates.of(system, missing),
                failure=failure,
                differences=system.differences,
            )
            found.append(untrained)
            continue
        try:
            seen = scores.crops_of(system)
            result = _tested(system, listed, scores, place / (name if seen == "whole" else f"{name}-{seen}-crops"), execution)
        except TestStoppedError:
            return Comparison(run, listed, tuple(found), stopped=True)
        except FlowkitError as error:
            found.append(ComparedSystem(system, failure=str(error), differences=system.differences))
            continue
        differences = differences_of(system, listed, result)
        row = result.rows.get(system.row)
        if row is None:
            found.append(ComparedSystem(system, failure="; ".join(result.notes) or "it has no scores", differences=differences))
        else:
            found.append(ComparedSystem(system, row, result.video_ids, differences=differences, crops=seen))
    found += [ComparedSystem(system) for system in NOT_BUILT if not systems]
    return Comparison(run, listed, tuple(found))


def _tested(system: System, split: Split, scores: PhaseScores, folder: Path, execution: Execution) -> SplitEvaluation:
    """Return the results of a system, from its folder if exactly these weights were tested on these data in this way."""
    what: dict[str, Any] = {
        "weights": {phase: scores.weights(phase) for phase in system.phases},
        "data": split.digest,
        "settings": execution.scoring_environment(execution.torch_device()),
    }
    if is_tested(folder, what, split.digests):
        return read_results(folder).splits[0]
    started, began = datetime.now(timezone.utc).isoformat(timespec="seconds"), time.monotonic()
    result = replace(scores.results(system), started=started, seconds=round(time.monotonic() - began, 3))
    evaluation = described([result], execution, crops=scores.crops_of(system))
    folder.mkdir(parents=True, exist_ok=True)
    write_tested(folder, evaluation, what)
    return result
