"""``flowkit fuse``: a run's scores combined with those of other systems, as the paper combines its network with IDT."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowkit.cli.help.format import Command
from flowkit.cli.shared.console import inform, say, say_json, show_name, table, warn
from flowkit.cli.shared.options import (
    data_option,
    json_option,
    output_option,
    read_numbers,
    refuse_unused,
    reports_option,
    split_numbers,
    splits_option,
    usage_errors,
)
from flowkit.dataset.progress import ProgressBar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flowkit.model.evaluation.scores import ScoreTable
    from flowkit.model.fusion.late_fusion import FusionResult, FusionSettings

    # The paper's accuracies by system, and what was done differently; None if they cannot be compared.
    Published = tuple[dict[str, float], tuple[str, ...]] | None


@click.command(cls=Command)
@click.argument("scores", nargs=-1, required=True, metavar="SCORES...", type=click.Path(path_type=Path))
@data_option
@click.option("--run", default="default", show_default=True, metavar="NAME", help="The run whose scores are combined with SCORES.")
@reports_option
@splits_option
@click.option("--row", metavar="ROW", help="Which row of the results table.  [default: the last that is trained, ST-ResNet* if it is]")
@click.option("--method", type=click.Choice(["mean", "svm"]), default="mean", show_default=True, help="How scores are combined.")
@click.option(
    "--normalise",
    type=click.Choice(["l2", "softmax", "none"]),
    default="l2",
    show_default=True,
    help="What is first done with each system's scores of a video: divided by their length, made probabilities, or nothing.",
)
@click.option(
    "--weights", metavar="W,W[,...]", help="The weight of the run, then those of SCORES in their order.  [default: equal weights]"
)
@click.option("--folds", type=click.IntRange(min=2), default=5, show_default=True, help="How many folds the SVM's cross-validation has.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The seed of the folds.")
@click.option(
    "--order",
    type=click.Path(path_type=Path),
    metavar="LIST",
    help="The test list whose videos are the rows of SCORES, for files that name no videos (TSN, mmaction2).",
)
@click.option(
    "--vectors",
    type=click.Choice(["l2", "none"]),
    default="l2",
    show_default=True,
    help="What is done with each video's features before the SVM sees them: divided by their length, or nothing.",
)
@click.option("--common", is_flag=True, help="Score only the videos that all systems have; otherwise a missing video is an error.")
@output_option
@json_option
def fuse(
    scores: Sequence[Path],
    data: Path,
    run: str,
    reports: Path | None,
    splits: str,
    row: str | None,
    method: str,
    normalise: str,
    weights: str | None,
    folds: int,
    seed: int,
    order: Path | None,
    vectors: str,
    common: bool,
    output: Path | None,
    as_json: bool,
) -> int:
    """Combine a run's scores with those of other systems (IDT and others), and print the accuracy of each and of all together.

    \b
    SCORES are files with a score for each video and class:
      .csv          a header video_id,<class>,<class>,... and one row per video
      .npz          arrays video_ids (n,), classes (C,), scores (n, C); no pickle
      .h5, .hdf5    data sets of the same names; or a scores.h5 of `flowkit evaluate`
      .npz          TSN's arrays scores (n, ..., C) and labels (n,), with --order
      .json         mmaction2's list of the scores of each video, with --order
      .json         3D-ResNets' {"results": {video: [{"label": ..., "score": ...}, ...]}}
      .h5, folder   features of the data root's videos by `flowkit features`

    With features, a linear SVM (C = 100) is trained on those of the split's training list. It is stored beside them, and its scores of
    the test videos are combined with the run's.

    Videos are matched by id, with or without folders and suffix, and classes by name; files without names of classes by label
    number. With several splits, {split} in a file's name stands for the split's number. Pickles are never read.

    The default is what is remembered of the paper's "+ IDT": L2-normalised scores with equal weights. --method svm trains a linear
    SVM (C = 100) on all systems' scores of the test videos of other folds. It sees labels of test videos, so its number is a
    cross-validated one, is not the paper's protocol, and is never shown beside published figures.
    """
    if method == "mean":
        refuse_unused("the mean needs no cross-validation; --method svm does", "folds", "seed")
    from flowkit.model.fusion.late_fusion import FusionSettings
    from flowkit.model.runs.places import check_run_name
    from flowkit.model.runs.run_folder import writing_report

    check_run_name(run)
    with usage_errors():
        settings = FusionSettings(
            method=method,  # type: ignore[arg-type]
            normalise=normalise,  # type: ignore[arg-type]
            weights=None if weights is None else read_numbers(weights, "--weights"),
            num_folds=folds,
            seed=seed,
        )
    if not {".npz", ".json"} & {path.suffix.lower() for path in scores}:
        refuse_unused("CSV and HDF5 files name their videos", "order")
    numbers = split_numbers(splits, _evaluated(data, run, reports) if splits == "all" else [])
    if len(numbers) > 1 and (fixed := [path for path in (*scores, *filter(None, [order])) if "{split}" not in str(path)]):
        raise click.UsageError(
            f"scores belong to one split: write {{split}} instead of its number in {show_name(fixed[0])}, or choose one --split"
        )
    folders = {number: _folder(data, run, number, output, reports, several=len(numbers) > 1) for number in numbers}
    for folder in folders.values():
        click.get_current_context().with_resource(writing_report(folder, "fuse"))
    inputs = _Inputs(tuple(scores), order, normalise_vectors=vectors == "l2")
    results = {number: _fuse_split(inputs, data, run, reports, number, row, settings, common) for number in numbers}
    written = []
    for number, (result, sources, published) in results.items():
        written.append({"split": number, **_write(result, sources, published, folders[number])})
    if as_json:
        means = _means([result for result, _, _ in results.values()])
        say_json("fusion-report", {"splits": written, "mean": means}, indent=None)
        return 0
    say(_table({number: result for number, (result, _, _) in results.items()}))
    for number, (result, _, published) in results.items():
        of = "" if len(result.fused.video_ids) == result.num_ours else f" of {result.num_ours}"
        say(f"split {number}: {len(result.fused.video_ids)}{of} videos")
        if published:
            figures, differences = published
            values = ", ".join(f"{name} {value:g} %" for name, value in figures.items())
            say(f"the paper's figures, means over three splits: {values}")
            for difference in differences:
                say(f"  done differently: {show_name(difference)}")
    say(f"* {_method_text(settings)}")
    if len(results) == 1:
        from flowkit.model.evaluation.row_results import interval_text

        ((result, _, _),) = results.values()
        say(f"* 95 % interval: {interval_text(result.rows)}")
        say("* p: exact McNemar test of a row against the fusion on the same videos; small means unlikely to be chance")
    return 0


@dataclass(frozen=True)
class _Inputs:
    """The other systems: files of scores or of features, the list that names the videos of some, and what is done with features."""

    paths: tuple[Path, ...]
    order: Path | None
    normalise_vectors: bool

    def of_split(self, number: int) -> _Inputs:
        """Return the files of one split."""
        paths = [Path(str(path).replace("{split}", str(number))) for path in (*self.paths, *filter(None, [self.order]))]
        return replace(self, paths=tuple(paths[: len(self.paths)]), order=paths[-1] if self.order else None)

    def read(self, path: Path, data: Path, split: int, own: ScoreTable) -> tuple[ScoreTable, tuple[str, ...]]:
        """Return the scores of one of the systems, and what is worth knowing of them."""
        from flowkit.model.encoding.video_vectors import is_stored_features
        from flowkit.model.fusion.feature_scores import scores_of_features
        from flowkit.model.fusion.foreign_scores import read_system_scores

        if not is_stored_features(path):
            return read_system_scores(path, own, order=self.order)
        with ProgressBar(f"SVM of {show_name(path.name)}", total=len(own.classes), unit="classes") as progress:
            return scores_of_features(path, data, split, normalise=self.normalise_vectors, on_class=progress.update)


def _fuse_split(
    inputs: _Inputs,
    data: Path,
    run: str,
    reports: Path | None,
    split: int,
    row: str | None,
    settings: FusionSettings,
    common: bool,
) -> tuple[FusionResult, dict[str, str], Published]:
    """Return a split's fusion, the file of each system, and the published figures if they can be compared."""
    from flowkit.dataset.root import Dataset
    from flowkit.errors import ScoresError
    from flowkit.model.evaluation.scores import read_own_scores
    from flowkit.model.fusion.late_fusion import NamedScores, fuse_systems, published_with_idt
    from flowkit.model.runs.places import place_options, report_folder

    own_path = report_folder(data, run, split, reports=reports) / "scores.h5"
    if not own_path.is_file():
        if reports is None and not any((data / "reports").glob("*/split*/scores.h5")):
            Dataset.open(data)  # says so if this is no data root
        raise ScoresError(
            f"run {run!r} has no scores for split {split} ({own_path}); make them with "
            f"`flowkit evaluate --split {split}{place_options(data, reports=reports)}`"
        )
    own, own_row = read_own_scores(own_path, row=row)
    inputs = inputs.of_split(split)
    paths = inputs.paths
    names = [path.stem if sum(other.stem == path.stem for other in paths) == 1 and path.stem != own_row else str(path) for path in paths]
    read = [inputs.read(path, data, split, own) for path in paths]
    others = [NamedScores(name, scores_of) for name, (scores_of, _) in zip(names, read, strict=True)]
    if settings.method == "mean":
        result = fuse_systems(NamedScores(own_row, own), others, settings=settings, common=common)
    else:
        with ProgressBar(f"SVM split {split}", total=settings.num_folds, unit="folds") as progress:
            result = fuse_systems(NamedScores(own_row, own), others, settings=settings, common=common, on_fold=progress.update)
    for note in (*(note for _, notes in read for note in notes), *result.notes):
        warn(f"split {split}: {show_name(note)}")
    sources = {own_row: str(own_path), **{name: str(path) for name, path in zip(names, paths, strict=True)}}
    return result, sources, published_with_idt(data, split, result, report=own_path.parent)


def _folder(data: Path, run: str, split: int, output: Path | None, reports: Path | None, *, several: bool) -> Path:
    """Return where a split's results are written, after trying whether that is possible."""
    from flowkit.model.runs.places import check_writable, report_folder

    folder = output / f"split{split}" if output and several else output or report_folder(data, run, split, reports=reports)
    check_writable(folder, option="--output DIR")
    return folder


def _write(result: FusionResult, sources: dict[str, str], published: Published, folder: Path) -> dict[str, Any]:
    """Write a split's results, and return them as --json prints them."""
    from flowkit.model.fusion.late_fusion import fusion_dict, write_fusion

    figures, differences = published or (None, ())
    values = fusion_dict(result, sources=sources, published=figures, differences=differences)
    paths = write_fusion(folder, result, values)
    inform(f"Results in {show_name(folder)}: {', '.join(path.name for path in paths)}.")
    return values


def _table(results: dict[int, FusionResult]) -> str:
    """Return the table of one split, or of several with the mean. The rows are systems, whose names may differ between splits."""
    from flowkit.model.evaluation.row_results import paired_test
    from flowkit.model.scoring.metrics import p_value, percent, percent_interval

    if len(results) == 1:
        ((split, result),) = results.items()
        fused = list(result.rows)[-1]
        rows = []
        for name, row in result.rows.items():
            p = "-" if name == fused else p_value(paired_test(result.rows, name, fused).p)
            rows.append((name, percent(row.top1), percent_interval(row.interval), f"{row.num_correct}/{len(row.ranks)}", p))
        return table((f"split {split}", "top-1 %", "95 % interval", "correct", "p"), rows)
    header = ("top-1 %", *(f"split {split}" for split in results), "mean")
    lines = zip(*(result.rows.items() for result in results.values()), strict=True)
    means = _means(list(results.values()))
    return table(
        header,
        [
            (" / ".join(dict.fromkeys(name for name, _ in line)), *(percent(row.top1) for _, row in line), percent(mean))
            for line, mean in zip(lines, means, strict=True)
        ],
    )


def _means(results: Sequence[FusionResult]) -> list[float]:
    """Return each row's unweighted mean accuracy over the splits: the run, the other systems in order, the fusion."""
    return [sum(row.top1 for row in line) / len(results) for line in zip(*(result.rows.values() for result in results), strict=True)]


def _method_text(settings: FusionSettings) -> str:
    normalised = {"l2": "L2-normalised scores", "softmax": "softmax probabilities", "none": "scores as they are"}[settings.normalise]
    weights = "equal weights" if settings.weights is None else f"weights {' : '.join(f'{weight:g}' for weight in settings.weights)}"
    if settings.method == "mean":
        return f"fused: mean of {normalised}, {weights}"
    return (
        f"fused: linear SVM on {normalised}, {weights}, cross-validated in {settings.num_folds} folds of the test videos (groups kept "
        "together): no video is scored by an SVM that saw it, but the SVMs were trained on labels of test videos"
    )


def _evaluated(data: Path, run: str, reports: Path | None) -> list[int]:
    """Return the splits for which a run has scores."""
    from flowkit.model.runs.places import report_folder

    folders = report_folder(data, run, 0, reports=reports).parent.glob("split*/scores.h5")
    numbers = [path.parent.name.removeprefix("split") for path in folders]
    return sorted(int(number) for number in numbers if number.isdecimal())
