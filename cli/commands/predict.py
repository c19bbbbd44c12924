"""``flowkit predict``: a trained network on any video file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowkit.cli.help.format import Command
from flowkit.cli.shared.console import counted, inform, json_text, say, say_json, show_name, table, warn
from flowkit.cli.shared.exit_codes import EXIT_SOME_FAILED
from flowkit.cli.shared.options import (
    crops_option,
    data_option,
    grace_option,
    json_option,
    refuse_unused,
    runs_option,
    split_option,
    two_weights,
)
from flowkit.cli.shared.stopping import report_stopped, stop_signals
from flowkit.dataset.csv_fields import csv_line, harmless_field
from flowkit.files import remove_leftovers, write_atomically
from flowkit.model.evaluation.rows import ALL_ROWS, SYSTEM_ROWS

if TYPE_CHECKING:
    from flowkit.model.evaluation.prediction.predictor import Predictor
    from flowkit.model.evaluation.prediction.result import Prediction
    from flowkit.model.evaluation.prediction.svm_rows import SvmPredictor

_LISTS = (".txt", ".list", ".lst")  # suffixes of files that name videos


@click.command(cls=Command)
@click.argument("videos", nargs=-1, required=True, metavar="VIDEO...", type=click.Path(exists=True, path_type=Path))
@data_option
@click.option("--run", default="default", show_default=True, metavar="NAME", help="The run whose networks classify the videos.")
@runs_option
@split_option
@click.option(
    "--row",
    type=click.Choice(list(ALL_ROWS), case_sensitive=False),
    help="Which row of the results table classifies the videos, such as motion, IDT or C3D + IDT.  [default: the last of networks that "
    "is trained, or else of SVMs]",
)
@click.option(
    "--checkpoint",
    type=click.Path(exists=True, path_type=Path),
    help="Use this phase's weights or folder instead of a run; no data root is needed.",
)
@click.option(
    "--fusion-weights",
    metavar="A,M",
    help="The weights of the appearance and the motion stream in a row that joins two; `flowkit evaluate --fusion-weights` takes the "
    "same.  [default: as evaluate]",
)
@crops_option
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, metavar="N", help="How many classes to show.")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:N]", help="Where the network computes.")
@click.option(
    "--solver",
    type=click.Choice(["auto", "strict", "fast", "cuda"]),
    default="auto",
    show_default=True,
    help="What computes the flow. auto is the solver of the training data, or the GPU's if --device names a GPU.",
)
@click.option("--jobs", type=click.IntRange(min=1), metavar="N", help="How many threads compute flow on the CPU.  [default: one per core]")
@click.option(
    "--window",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Classify windows of this length instead of whole videos, each with its times.",
)
@click.option(
    "--stride",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="The time between the starts of two windows.  [default: that of --window]",
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.csv|FILE.json",
    help="Write all results to this file too; a command that was stopped resumes from what is kept beside it.",
)
@grace_option("the video or window in progress may take")
@json_option
def predict(
    videos: Sequence[Path],
    data: Path,
    run: str,
    runs: Path | None,
    split: int,
    row: str | None,
    checkpoint: Path | None,
    fusion_weights: str | None,
    crops: Any,
    top: int,
    device: str,
    solver: Any,
    jobs: int | None,
    window: float | None,
    stride: float | None,
    output: Path | None,
    grace: float,
    as_json: bool,
) -> int:
    """Classify each VIDEO with a trained network: any video file, a folder of videos, or a text file with the path of a video in each line.

    Frames and flow are made as those of the training data were, and classified as `flowkit evaluate` does: 25 frames with their
    stacks of flow, and their mirror images. The command prints the classes with the highest scores and their probabilities, of both
    streams together and of each. With --window, it does so for each window of a long video. A bad video never stops the rest: it is
    listed, and the exit code is 3.
    """
    import cv2

    from flowkit.model.compute.execution import Execution
    from flowkit.model.evaluation.prediction.journal import WHOLE, PredictionJournal
    from flowkit.model.evaluation.prediction.predictor import Predictor
    from flowkit.model.evaluation.prediction.svm_rows import SvmPredictor, only_svm_row
    from flowkit.model.evaluation.trained_row import find_row, row_of
    from flowkit.model.runs.places import check_writable
    from flowkit.model.runs.recorded_extraction import extraction_here

    weights = None if fusion_weights is None else two_weights(fusion_weights)
    if checkpoint is not None:
        refuse_unused("a --checkpoint is one network and therefore one row", "run", "runs", "split", "row")
    if window is None:
        refuse_unused("it is the distance between windows, which --window makes", "stride")
    if output is not None and output.suffix.casefold() not in (".csv", ".json"):
        raise click.UsageError(f"--output {output}: the name of the file must end with .csv or .json, which says its form")
    files = _files_of(videos)
    row = row or (only_svm_row(data, run=run, split=split, runs=runs) if checkpoint is None else None)
    execution = Execution(device=device)
    predictor: Predictor | SvmPredictor
    if row in SYSTEM_ROWS:
        refuse_unused(f"windows are classified by rows of networks, and {row} has an SVM", "window")
        if all(part in SYSTEM_ROWS for part in SYSTEM_ROWS[row]):
            refuse_unused(f"{row} joins no row of networks", "fusion_weights", "crops", "solver", "jobs")
        where: dict[str, Any] = {"run": run, "split": split, "runs": runs, "execution": execution}
        predictor = SvmPredictor(row, data, **where, solver=solver, num_threads=jobs, weights=weights, crops=crops)
    else:
        trained = row_of(checkpoint) if checkpoint is not None else find_row(data, run=run, split=split, row=row, runs=runs)
        settings, notes = extraction_here(trained.provenance, data, solver, device)
        predictor = Predictor(trained, settings=settings, execution=execution, num_threads=jobs, notes=notes, weights=weights, crops=crops)
    if predictor.settings.solver == "cuda":
        refuse_unused("the GPU computes the flow", "jobs")
    if output is not None:
        check_writable(output.parent, option="--output")
        output.parent.mkdir(parents=True, exist_ok=True)
    _print_start(predictor)
    cv2.setNumThreads(1)  # OpenCV must not start threads inside the threads that solve flow
    trained_row, extraction = predictor.row, predictor.settings.to_dict()
    about = {"row": trained_row.name, "weights": trained_row.sources, "extraction": extraction, "notes": list(predictor.notes)}
    depends_on = {
        **about,
        "digests": trained_row.digests(),
        "fusion_weights": weights,
        "crops": crops,
        "top": top,
        "window": window,
        "stride": stride,
    }
    results: list[dict[str, Any]] = []
    with stop_signals(grace) as stop, PredictionJournal(output, depends_on) as journal:
        for path in files:
            if stop.requested():
                break
            known = journal.results(path)
            clips = None if output is None else output.with_name(f".{output.name}.clips")
            new: Iterator[Prediction]
            if WHOLE in known or (window is None and known):
                new = iter(())
            elif window is None:
                new = iter([predictor.predict(path, progress=True)])
            else:
                assert isinstance(predictor, Predictor)  # others refuse --window
                new = predictor.predict_windows(
                    path, seconds=window, stride=stride, folder=clips, done=known, jobs=jobs, stop=stop, progress=True
                )
            for prediction in new:
                number = 0 if prediction.window is None else prediction.window.number
                known[number] = _as_dict(prediction, top)
                journal.add(path, number, known[number])
                if not as_json:
                    _print_prediction(prediction, predictor, top)
            if window is not None and WHOLE not in known and not stop.requested():
                journal.add(path, WHOLE, {})
            results += [result for number, result in sorted(known.items()) if number != WHOLE]
        stopped = stop.requested()
        stop.end_grace()
        if output is not None and not stopped:
            whole = json_text("prediction", {**about, "videos": results}) + "\n"
            text = whole if output.suffix.casefold() == ".json" else _csv(results, top)
            write_atomically(output, text.encode("utf-8", "surrogateescape"))
            remove_leftovers(output.parent, alone=False)  # of commands that were killed while they wrote
            journal.remove()
    if stopped:
        return report_stopped(stop, "stopped" if output is None else "stopped; what is classified is kept")
    if output is not None:
        inform(f"predict: {counted(len(results), 'result')} in {show_name(output)}")
    if as_json:
        say_json("prediction", {**about, "videos": results})
    return EXIT_SOME_FAILED if any(_has_failed(result) for result in results) else 0


def _has_failed(result: Mapping[str, Any]) -> bool:
    """Return whether a video or a window has no classes; the end of a video may be too short for a window of its own."""
    return not result["top"] and not ("window" in result and result["status"] == "short")


def _csv(results: Sequence[Mapping[str, Any]], top: int) -> str:
    """Return results as CSV: one line for each video or window, with its classes, the most probable first."""
    places = range(min(top, max((len(result["top"]) for result in results), default=0)))
    header = ["path", "status", "num_frames", "start_seconds", "end_seconds", "error"]
    lines = [csv_line([*header, *(name for k in places for name in (f"class_{k + 1}", f"probability_{k + 1}"))])]
    for result in results:
        window = result.get("window") or {}
        times = [f"{window[name]:.6f}" if name in window else "" for name in ("start_seconds", "end_seconds")]
        texts = [result["path"], result["status"], str(result["num_frames"]), *times, result["error"]]
        for k in places:
            best = result["top"][k] if k < len(result["top"]) else None
            texts += ["", ""] if best is None else [best["class_name"], f"{best['probability']:.6f}"]
        lines.append(csv_line(map(harmless_field, texts)))
    return "".join(lines)


def _files_of(videos: Sequence[Path]) -> list[Path]:
    """Return the files that were named, all videos of the folders that were, and those in lists, each once."""
    from flowkit.errors import ManifestError
    from flowkit.video.containers import VIDEO_SUFFIXES
    from flowkit.video.named import find_videos

    files: list[Path] = []
    for path in videos:
        found = [path]
        if path.is_dir() or path.suffix.casefold() in _LISTS:
            _, scan = find_videos(path, VIDEO_SUFFIXES)
            found = [video.path for video in scan.videos]
            for name, why in scan.unreadable:
                warn(f"predict: warning: {show_name(name)} is left out: {show_name(why)}")
        if not found:
            raise ManifestError(f"no video found under {str(path)!r}; name video files, or a folder that holds some")
        files += found
    return list(dict.fromkeys(files))


def _print_start(predictor: Predictor | SvmPredictor) -> None:
    from flowkit.model.evaluation.prediction.svm_rows import SvmPredictor

    settings = predictor.settings
    has_flow = not isinstance(predictor, SvmPredictor) or predictor.row.networks is not None
    extraction = f"; {settings.flow_in_words()}, short side {settings.short_side} px" if has_flow else ""
    sources = " and ".join(map(show_name, predictor.row.sources.values()))
    inform(f"predict: {predictor.row.name}, {counted(len(predictor.classes), 'class')}, on {predictor.device}, from {sources}{extraction}")
    for note in predictor.notes:
        inform(f"note: {show_name(note)}")


def _print_prediction(prediction: Prediction, predictor: Predictor | SvmPredictor, top: int) -> None:
    """Print one video's classes to stdout, or to stderr why there are none."""
    name = show_name(prediction.path)
    if prediction.window is not None:
        name += f", {prediction.window.start_seconds:.2f} to {prediction.window.end_seconds:.2f} s"
    if not prediction.scores:
        warn(f"{name}: {prediction.status}: {show_name(prediction.error)}")
        return
    if prediction.error:
        warn(f"{name}: {prediction.status}: {show_name(prediction.error)}")
    columns = _columns(prediction)
    rows = [(class_name, *(f"{100 * shares[column]:.2f}" for column in columns)) for class_name, shares in prediction.top_classes(top)]
    span = "" if prediction.times is None else f", classified from {prediction.times[0]:.2f} to {prediction.times[-1]:.2f} s"
    say(f"{name}: {counted(prediction.num_frames, 'frame')}{span}")
    say(table((predictor.row.name, *(f"{column} %" for column in columns)), rows) + "\n")


def _columns(prediction: Prediction) -> list[str]:
    """Return which probabilities to show: the fused ones first, then those of each stream if there are two."""
    streams = [name for name in prediction.scores if name != "fused"]
    return ["fused", *streams] if len(streams) > 1 else streams


def _as_dict(prediction: Prediction, top: int) -> dict[str, Any]:
    classes = prediction.top_classes(top)
    window = prediction.window
    part = {} if window is None else {"window": asdict(window)}
    return {
        "path": str(prediction.path),
        "status": prediction.status,
        "num_frames": prediction.num_frames,
        "decode_errors": prediction.decode_errors,
        "error": prediction.error,
        **part,
        "times": None if prediction.times is None else prediction.times.tolist(),
        "top": [
            {
                "class_name": name,
                "probability": shares["fused"],
                "by_stream": {stream: share for stream, share in shares.items() if stream != "fused"},
            }
            for name, shares in classes
        ],
    }
