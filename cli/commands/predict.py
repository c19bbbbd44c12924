"""``flowkit predict``: a trained network on any video file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowkit.cli.help.format import Command
from flowkit.cli.shared.console import counted, inform, say, say_json, show_name, table, warn
from flowkit.cli.shared.exit_codes import EXIT_SOME_FAILED
from flowkit.cli.shared.options import crops_option, data_option, json_option, refuse_unused, runs_option, split_option, two_weights
from flowkit.model.evaluation.rows import ROWS

if TYPE_CHECKING:
    from flowkit.model.evaluation.predict import Prediction, Predictor


@click.command(cls=Command)
@click.argument("videos", nargs=-1, required=True, metavar="VIDEO...", type=click.Path(exists=True, path_type=Path))
@data_option
@click.option("--run", default="default", show_default=True, metavar="NAME", help="The run whose networks classify the videos.")
@runs_option
@split_option
@click.option(
    "--row",
    type=click.Choice(list(ROWS), case_sensitive=False),
    help="Which row of the results table classifies the videos.  [default: the last that is trained]",
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
    as_json: bool,
) -> int:
    """Classify each VIDEO, any video file or a folder of videos, with a trained network.

    Frames and flow are made as those of the training data were, and classified as `flowkit evaluate` does: 25 frames with their
    stacks of flow, and their mirror images. The command prints the classes with the highest scores and their probabilities, of both
    streams together and of each.
    """
    import cv2

    from flowkit.model.compute.execution import Execution
    from flowkit.model.evaluation.predict import Predictor
    from flowkit.model.evaluation.trained_row import find_row, row_of
    from flowkit.model.runs.recorded_extraction import extraction_here

    weights = None if fusion_weights is None else two_weights(fusion_weights)
    if checkpoint is not None:
        refuse_unused("a --checkpoint is one network and therefore one row", "run", "runs", "split", "row")
    files = _files_of(videos)
    trained = row_of(checkpoint) if checkpoint is not None else find_row(data, run=run, split=split, row=row, runs=runs)
    settings, notes = extraction_here(trained.provenance, data, solver, device)
    if settings.solver == "cuda":
        refuse_unused("the GPU computes the flow", "jobs")
    predictor = Predictor(
        trained, settings=settings, execution=Execution(device=device), num_threads=jobs, notes=notes, weights=weights, crops=crops
    )
    _print_start(predictor)
    cv2.setNumThreads(1)  # OpenCV must not start threads inside the threads that solve flow
    results: list[dict[str, Any]] = []
    for path in files:
        prediction = predictor.predict(path, progress=True)
        results.append(_as_dict(prediction, top))
        if not as_json:
            _print_prediction(prediction, predictor, top)
    if as_json:
        sources = {phase: source for phase, (source, _) in trained.checkpoints.items()}
        about = {"row": trained.name, "weights": sources, "extraction": settings.to_dict(), "notes": notes}
        say_json("prediction", {**about, "videos": results})
    return EXIT_SOME_FAILED if any(not result["top"] for result in results) else 0


def _files_of(videos: Sequence[Path]) -> list[Path]:
    """Return the files that were named, and all videos of the folders that were."""
    from flowkit.errors import ManifestError
    from flowkit.video.containers import VIDEO_SUFFIXES
    from flowkit.video.tree import scan_videos

    files = []
    for path in videos:
        found = [path] if not path.is_dir() else [video.path for video in scan_videos(path, VIDEO_SUFFIXES).videos]
        if not found:
            raise ManifestError(f"no video found under {str(path)!r}; name video files, or a folder that holds some")
        files += found
    return files


def _print_start(predictor: Predictor) -> None:
    settings = predictor.settings
    sources = " and ".join(show_name(source) for source, _ in predictor.row.checkpoints.values())
    inform(
        f"predict: {predictor.row.name}, {counted(len(predictor.classes), 'class')}, on {predictor.device}, from {sources}; "
        f"{settings.flow_in_words()}, short side {settings.short_side} px"
    )
    for note in predictor.notes:
        inform(f"note: {show_name(note)}")


def _print_prediction(prediction: Prediction, predictor: Predictor, top: int) -> None:
    """Print one video's classes to stdout, or to stderr why there are none."""
    name = show_name(prediction.path)
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
    return {
        "path": str(prediction.path),
        "status": prediction.status,
        "num_frames": prediction.num_frames,
        "decode_errors": prediction.decode_errors,
        "error": prediction.error,
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
