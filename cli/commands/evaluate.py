"""``flowkit evaluate``: the paper's test protocol and its table."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace as changed
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from flowkit.cli.help.format import Command
from flowkit.cli.shared.compute_options import device_option, precision_option, video_workers_option
from flowkit.cli.shared.console import counted, inform, say, say_json, show_name, table, warn
from flowkit.cli.shared.exit_codes import EXIT_ERROR, EXIT_SOME_FAILED
from flowkit.cli.shared.options import (
    crops_option,
    data_option,
    json_option,
    output_option,
    refuse_unused,
    reports_option,
    runs_option,
    split_numbers,
    splits_option,
    two_weights,
)
from flowkit.cli.shared.seeds import SeedReports, seeds_option, show_seed
from flowkit.cli.shared.stopping import resume_command
from flowkit.model.scoring.metrics import Fusion
from flowkit.model.systems.registry import SYSTEMS

if TYPE_CHECKING:
    from flowkit.dataset.root import Dataset
    from flowkit.model.evaluation.fusion_weights import FusionWeights
    from flowkit.model.evaluation.results import Evaluation, SplitEvaluation

_LOST_SHOWN = 3
_NAMES_SHOWN = 10
_FILES = ("results.json", "table.md", "per_class.csv", "per_video.csv", "scores.h5", "curves.png", "confusion.png", "report.html")


@click.command(cls=Command)
@data_option
@splits_option
@click.option("--run", default="default", show_default=True, metavar="NAME", help="The run to evaluate.")
@seeds_option("Evaluate the runs NAME-seed0, NAME-seed1, ... of these seeds, and give the mean and the standard deviation of each row.")
@runs_option
@reports_option
@click.option(
    "--system",
    type=click.Choice(list(SYSTEMS)),
    help="Evaluate the phases of this system only, all of which must be trained.  [default: all phases that are trained]",
)
@click.option(
    "--checkpoint",
    type=click.Path(exists=True, path_type=Path),
    help="Evaluate this phase's folder, weights or checkpoint instead of a run; results are written only with --output.",
)
@click.option(
    "--fusion",
    type=click.Choice(get_args(Fusion)),
    help="How the two streams are combined.  [default: as the row's publication if it says so, else logits_mean]",
)
@click.option(
    "--fusion-weights",
    metavar="A,M|auto",
    help="The weights of the appearance and the motion stream; auto chooses those of each row on the validation videos of the run.  "
    "[default: as the row's publication if it says so, else 1,1]",
)
@crops_option
@output_option
@click.option("--report/--no-report", default=True, help="Draw report.html, curves.png and confusion.png beside the numbers (the default).")
@click.option("--redraw", is_flag=True, help="Draw the reports of stored results again, without an evaluation.")
@click.option(
    "--replace",
    is_flag=True,
    help="Replace an earlier evaluation even if it has videos, rows or seeds that this one lacks, which is refused otherwise.",
)
@click.option("--force", is_flag=True, help="Evaluate even if the weights were trained on other data.")
@device_option
@precision_option
@video_workers_option
@json_option
def evaluate(
    data: Path,
    splits: str,
    run: str,
    seeds: tuple[int, ...] | None,
    runs: Path | None,
    reports: Path | None,
    system: str | None,
    checkpoint: Path | None,
    fusion: Fusion | None,
    fusion_weights: str | None,
    crops: Any,
    output: Path | None,
    report: bool,
    redraw: bool,
    replace: bool,
    force: bool,
    device: str,
    amp: str,
    workers: int | None,
    as_json: bool,
) -> int:
    """Evaluate a run's networks by the paper's test protocol and print its table.

    The networks see 25 complete frames of each video and their mirror images, and the logits are averaged. The rows are appearance,
    motion, two-streams, ST-ResNet and ST-ResNet*, as far as they are trained, and IDT with its fusions if improved trajectories are
    (`flowkit train --system idt`); below them, the two heads of ST-ResNet and ST-ResNet* by themselves.

    An earlier evaluation is replaced only if every video and every row that it has can be scored now; --replace replaces it in any
    case. An evaluation that is stopped keeps the scores it has computed, and the same command goes on from there.
    """
    _refuse_unused_options(redraw=redraw, checkpoint=checkpoint, output=output, seeds=seeds)
    from flowkit.cli.shared.ranks import ranks_from_environment
    from flowkit.dataset.root import Dataset
    from flowkit.model.compute.execution import Execution
    from flowkit.model.evaluation.protocol import evaluate as run_evaluation
    from flowkit.model.evaluation.unfinished import remove_unfinished
    from flowkit.model.runs.seeds import seed_run

    weights: FusionWeights | None = None
    if fusion_weights is not None:
        weights = "auto" if fusion_weights == "auto" else two_weights(fusion_weights)
    dataset = Dataset.open(data)
    numbers = split_numbers(splits, dataset.splits if splits == "all" else [])
    names = [run] if seeds is None or checkpoint is not None else [seed_run(run, seed) for seed in seeds]
    stored = checkpoint is None or output is not None
    folders = [_Folders(data, name, output, reports, several=len(numbers) > 1, replace=replace) for name in names if stored]
    table_of_seeds = None
    if seeds is not None and checkpoint is None:
        table_of_seeds = SeedReports(data, run, seeds, runs=runs, reports=reports, replace=replace)
    evaluations: list[Evaluation] = []
    if redraw and not (stored and report):
        raise click.UsageError("--redraw draws the reports of a run or of --output; it goes with neither --checkpoint nor --no-report")
    if table_of_seeds is not None:
        table_of_seeds.check(numbers)
    if redraw:
        _keep_others_out(folders, table_of_seeds, numbers)
        evaluations = [own.stored(numbers) for own in folders]
    else:
        for own in folders:
            own.check(dataset, numbers)
        command = resume_command(sys.argv[1:])
        with ranks_from_environment(device) as (rank, world, own_device):
            if rank == 0:
                _keep_others_out(folders, table_of_seeds, numbers)
            for turn, name in enumerate(names):
                if table_of_seeds is not None and rank == 0:
                    show_seed(table_of_seeds.seeds, turn, run=name)
                keep = partial(_keep, folders[turn] if stored and rank == 0 else None, command)
                evaluation = run_evaluation(
                    data,
                    splits=numbers,
                    run=name,
                    runs=runs,
                    checkpoint=checkpoint,
                    system=system,
                    fusion=fusion,
                    weights=weights,
                    crops=crops,
                    force=force,
                    execution=Execution(device=own_device, amp=amp, num_workers=workers, rank=rank, world=world),  # type: ignore[arg-type]
                    progress=True,
                    on_split=keep,
                    keep_scores_in=folders[turn].of if stored else None,
                    forget_scores=table_of_seeds is None,
                )
                if len(numbers) > 1:
                    keep(evaluation)  # again, now with the table of all splits
                evaluations.append(changed(evaluation, command=command))
        if rank:
            return 0
        if table_of_seeds is not None:  # only now, so that a call that was stopped scores no video of an earlier seed again
            for folder in (own.of(split) for own in folders for split in numbers):
                remove_unfinished(folder)
    complete = True
    for turn, evaluation in enumerate(evaluations):
        _print_warnings(evaluation, of="" if table_of_seeds is None else f"{names[turn]}, ")
        if stored:
            complete &= (not report or folders[turn].draw(evaluation, dataset)) and folders[turn].all_stored
            folders[turn].print_names(evaluation)
    if table_of_seeds is None:
        _print_results(evaluations[0], as_json=as_json)
    else:
        is_kept = all(own.nothing_refused for own in folders)
        complete &= table_of_seeds.finish(evaluations, dataset, store=is_kept, as_json=as_json)
    if not complete:
        return EXIT_ERROR
    return EXIT_SOME_FAILED if any(split.failed for evaluation in evaluations for split in evaluation.splits) else 0


def _keep(folders: _Folders | None, command: str, evaluation: Evaluation) -> None:
    """Write the results of an evaluation to its folders, if it has any."""
    if folders is not None:
        folders.keep(changed(evaluation, command=command))


def _keep_others_out(folders: Sequence[_Folders], table_of_seeds: SeedReports | None, splits: list[int]) -> None:
    """Let no other process evaluate into any of these folders until this command ends."""
    for own in folders:
        own.keep_others_out(splits)
    if table_of_seeds is not None:
        table_of_seeds.keep_others_out(splits)


def _print_results(evaluation: Evaluation, *, as_json: bool) -> None:
    """Print the results of one run to stdout."""
    from flowkit.model.evaluation.fusion_weights import weights_text
    from flowkit.model.evaluation.results import results_dict
    from flowkit.model.evaluation.tables import explanations, results_table

    if as_json:
        values = {"splits": [results_dict(split, evaluation) for split in evaluation.splits], "mean": _means(evaluation)}
        say_json("evaluation", values, indent=None)
        return
    say(table(*results_table(evaluation)))
    for split in evaluation.splits:
        say(f"split {split.split}: scored {len(split.video_ids)} of {split.num_listed} listed videos")
        if split.fusion_weights:
            say(f"split {split.split}: {weights_text(split.fusion_weights)}")
    notes = explanations(evaluation.splits[0]) if len(evaluation.splits) == 1 else []
    say("\n".join(f"* {line}" for line in [*notes, *evaluation.protocol]))


def _refuse_unused_options(*, redraw: bool, checkpoint: Path | None, output: Path | None, seeds: tuple[int, ...] | None) -> None:
    """Refuse options that would do nothing beside --redraw or --checkpoint."""
    if redraw:
        unused = [
            "system",
            "fusion",
            "fusion_weights",
            "crops",
            *(["replace"] if seeds is None else []),
            "force",
            "device",
            "amp",
            "workers",
        ]
        refuse_unused("--redraw draws the reports of stored results and evaluates nothing", *unused)
    if checkpoint is not None:
        refuse_unused("--checkpoint names the network", "run", "runs", "seeds", "system")
    if checkpoint is not None and output is None and not redraw:
        refuse_unused("the results of a --checkpoint are written only with --output", "report", "replace", "reports")
    if output is not None:
        refuse_unused("--output names the folder of the results", "reports")
    if seeds is not None and checkpoint is None:
        refuse_unused("each seed has a folder of its own; --reports DIR names the folder of all of them", "output")


class _Folders:
    """The folders to which the results of each split are written, and what became of those of this evaluation."""

    def __init__(self, data: Path, run: str, output: Path | None, reports: Path | None, *, several: bool, replace: bool) -> None:
        self._data, self._run, self._output, self._reports = data, run, output, reports
        self._several, self._replace = several, replace
        self._not_stored: set[int] = set()
        self._lacks_rows = False
        self.elsewhere: dict[int, Path] = {}  # where the results of a split are that could not be written to its folder

    @property
    def nothing_refused(self) -> bool:
        """Whether no earlier results stayed in place of these."""
        return not self._not_stored

    @property
    def all_stored(self) -> bool:
        """Whether all results were stored in their folders, except those that lack videos, which count as failures."""
        return not self.elsewhere and not self._lacks_rows

    def of(self, split: int) -> Path:
        from flowkit.model.runs.places import report_folder

        if self._output is None:
            return report_folder(self._data, self._run, split, reports=self._reports)
        return self._output / f"split{split}" if self._several else self._output

    def check(self, dataset: Dataset, splits: list[int]) -> None:
        """Refuse, before any work, a folder that cannot be written, and to replace an evaluation of videos that left a split."""
        from flowkit.errors import ManifestError
        from flowkit.model.evaluation.earlier import lost_videos
        from flowkit.model.runs.places import check_writable

        for number in splits:
            check_writable(self.of(number), option="--reports DIR" if self._output is None else "--output DIR")
        for number in splits if not self._replace else ():
            lost = lost_videos(self.of(number), [record.video_id for record in dataset.split(number).test])
            if lost:
                raise ManifestError(
                    f"the evaluation in {str(self.of(number))!r} scored {_videos(lost)} that split {number} no longer has. "
                    f"{_other_ways('replaces it')}"
                )

    def keep_others_out(self, splits: list[int]) -> None:
        """Let no other process evaluate into these folders until this command ends."""
        from flowkit.model.runs.run_folder import writing_report

        for number in splits:
            click.get_current_context().with_resource(writing_report(self.of(number), "evaluate"))

    def keep(self, evaluation: Evaluation) -> None:
        """Write the numbers, and remove the report of an earlier evaluation; or keep that if videos or rows would be lost."""
        from flowkit.model.evaluation.earlier import lost_rows, lost_videos
        from flowkit.model.evaluation.tables import details, results_table

        text = table(*results_table(evaluation))
        for split in evaluation.splits:
            number, folder = split.split, self.of(split.split)
            if number in self._not_stored:
                continue
            lost = [] if self._replace else lost_videos(folder, split.video_ids)
            if lost:
                self._not_stored.add(number)
                warn(
                    f"split {number}: the evaluation in {show_name(folder)} scored {_videos(lost)} that could not be scored now. "
                    f"It stays as it is, and this one is not stored. Repair the data, and evaluate again. {_other_ways('stores this one')}"
                )
            elif rows := [] if self._replace or not split.video_ids else lost_rows(folder, split.rows):
                self._not_stored.add(number)
                self._lacks_rows = True
                warn(
                    f"split {number}: the evaluation in {show_name(folder)} has {', '.join(rows)}, for which no trained network was found "
                    f"now. It stays as it is, and this one is not stored. {_other_ways('stores this one')}"
                )
            elif not split.video_ids:
                self._not_stored.add(number)
                warn(f"split {number}: no video could be scored; nothing was written")
            else:
                self._write(split, evaluation, f"{text}\n\n{details(split)}")

    def _write(self, split: SplitEvaluation, evaluation: Evaluation, text: str) -> None:
        """Write the numbers of one split: to a temporary folder if they cannot be written to their own, so that they are not lost."""
        from flowkit.model.evaluation.results import write_results
        from flowkit.model.report.page import discard_report

        folder = self.of(split.split)
        try:
            write_results(folder, split, evaluation, table=text)
            discard_report(folder)
        except OSError as error:
            if split.split not in self.elsewhere:
                self.elsewhere[split.split] = Path(tempfile.mkdtemp(prefix=f"flowkit-evaluation-split{split.split}-"))
            other = self.elsewhere[split.split]
            warn(
                f"split {split.split}: the results could not be written to their folder ({show_name(error.strerror or str(error))}); "
                f"they are in {show_name(other)}"
            )
            write_results(other, split, evaluation, table=text)

    def stored(self, splits: list[int]) -> Evaluation:
        """Read what `keep` wrote."""
        from flowkit.model.evaluation.results import join_results, read_results

        return join_results([read_results(self.of(split)) for split in splits])

    def draw(self, evaluation: Evaluation, dataset: Dataset) -> bool:
        """Write the reports of the results that are stored, and return whether all of them could be written."""
        from flowkit.model.report.page import write_report

        complete = True
        for split in self._stored_splits(evaluation):
            try:
                write_report(self.of(split.split), split, evaluation, dataset, run=self._run)
            except Exception as error:
                if click.get_current_context().find_root().params.get("debug"):
                    raise
                warn(
                    f"split {split.split}: the report could not be drawn, but all numbers are stored: "
                    f"{type(error).__name__}: {show_name(error)}"
                )
                complete = False
        return complete

    def print_names(self, evaluation: Evaluation) -> None:
        """Print the names of the files to stderr."""
        for split in self._stored_splits(evaluation):
            folder = self.of(split.split)
            names = [name for name in _FILES if (folder / name).is_file()]
            inform(f"Results in {show_name(folder)}: {', '.join(names)}.")

    def _stored_splits(self, evaluation: Evaluation) -> list[SplitEvaluation]:
        """Return the splits whose results are in their folders."""
        return [split for split in evaluation.splits if split.split not in self._not_stored | self.elsewhere.keys()]


def _videos(video_ids: list[str]) -> str:
    """Return how many videos, and the names of the first."""
    names = ", ".join(map(show_name, video_ids[:_LOST_SHOWN])) + (", ..." if len(video_ids) > _LOST_SHOWN else "")
    return f"{counted(len(video_ids), 'video')} ({names})"


def _other_ways(what: str) -> str:
    """Return the command that replaces an earlier evaluation, and the option that writes elsewhere."""
    elsewhere = "--output DIR" if click.get_current_context().params["seeds"] is None else "--reports DIR"
    return f"`{resume_command(sys.argv[1:])} --replace` {what}, and {elsewhere} writes to another folder"


def _print_warnings(evaluation: Evaluation, *, of: str) -> None:
    from flowkit.model.evaluation.earlier import failure_lines
    from flowkit.video.ids import first_few

    for split in evaluation.splits:
        for text in split.warnings:
            warn(f"{of}split {split.split}: {show_name(text)} (--force)")
        for text in split.notes:
            inform(f"{of}split {split.split}: note: {show_name(text)}")
        for line in failure_lines(split.failed):
            warn(f"{of}split {split.split}: {show_name(line)}")
        names = split.untrained_classes
        if names:
            warn(
                f"{of}split {split.split}: {len(names)} classes of test videos have no training video, so none of these can be classified: "
                f"{first_few(map(show_name, names), most=_NAMES_SHOWN)}"
            )


def _means(evaluation: Evaluation) -> dict[str, Any]:
    from flowkit.model.evaluation.rows import table_rows

    return {row: evaluation.mean_top1(row) for row in table_rows({row for split in evaluation.splits for row in split.rows})}
