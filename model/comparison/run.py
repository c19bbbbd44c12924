"""Every system that is trained is tested once, and its results are kept until its weights or the data change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flowkit.dataset.manifest import Split
from flowkit.dataset.root import Dataset
from flowkit.errors import FlowkitError
from flowkit.files import file_sha256
from flowkit.model.ablation.table import is_tested, write_tested
from flowkit.model.comparison.compared import ComparedSystem, Comparison, differences_of
from flowkit.model.compute.execution import Execution
from flowkit.model.evaluation.protocol import evaluate
from flowkit.model.evaluation.results import SplitEvaluation, read_results
from flowkit.model.runs.checkpoint import WEIGHTS_NAME
from flowkit.model.runs.events import EvaluateEvent, never
from flowkit.model.runs.places import check_run_name, report_folder
from flowkit.model.runs.run_folder import phase_folder, train_command, untrained_phases
from flowkit.model.systems.registry import SYSTEMS, find_system
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
    failures: dict[str, str] | None = None,
    execution: Execution | None = None,
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
        Names of systems. Default: all.
    failures : dict from str to str, optional
        Why a system could not be trained, for those that a caller tried to train.
    execution : Execution, optional
        Where and how to compute.
    on_event : callable, optional
        Receives the events of `flowkit.model.runs.events`.
    should_stop : callable
        Called before each system. When it returns True, the comparison has the systems until then.

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
    listed = Dataset.open(root).split(split)
    found: list[ComparedSystem] = []
    for name in systems or SYSTEMS:
        system = find_system(name)
        if should_stop():
            return Comparison(run, listed, tuple(found), stopped=True)
        failure = (failures or {}).get(name, "")
        missing = untrained_phases(system.phases, root, run=run, split=split, runs=kept)
        if missing:
            command = train_command(root, run=run, split=split, runs=kept, options=f" --system {name}")
            found.append(ComparedSystem(system, missing=tuple(missing), command=command, failure=failure, differences=system.differences))
            continue
        own = report_folder(root, run, split, reports=folder) / FOLDER / name
        try:
            result = _tested(root, system, listed, run, kept, own, execution, on_event)
        except FlowkitError as error:
            found.append(ComparedSystem(system, failure=str(error), differences=system.differences))
            continue
        differences = differences_of(system, listed, result)
        row = result.rows.get(system.row)
        if row is None:
            found.append(ComparedSystem(system, failure="; ".join(result.notes) or "it has no scores", differences=differences))
        else:
            found.append(ComparedSystem(system, row, result.video_ids, differences=differences))
    return Comparison(run, listed, tuple(found))


def _tested(
    root: Path,
    system: System,
    split: Split,
    run: str,
    runs: Path | None,
    folder: Path,
    execution: Execution,
    on_event: Callable[[EvaluateEvent], None] | None,
) -> SplitEvaluation:
    """Return the results of a system, from its folder if exactly these weights were tested on these data."""
    what: dict[str, Any] = {
        "weights": {phase: file_sha256(phase_folder(root, run, split.number, phase, runs=runs) / WEIGHTS_NAME) for phase in system.phases},
        "data": split.digest,
        "amp": execution.amp,
    }
    if is_tested(folder, what, split.digests):
        return read_results(folder).splits[0]
    evaluation = evaluate(
        root,
        splits=(split.number,),
        run=run,
        runs=runs,
        system=system.name,
        execution=execution,
        progress=False,
        on_event=on_event,
        keep_scores_in=lambda _: folder,
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_tested(folder, evaluation, what)
    return evaluation.splits[0]
