"""``flowkit predict``: a trained network on any video file."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowkit.cli.shared.console import say, show_name, table, warn
from flowkit.cli.shared.exit_codes import EXIT_SOME_FAILED
from flowkit.cli.shared.options import data_option, json_option, split_option
from flowkit.dataset.progress import ProgressBar
from flowkit.model.evaluation.rows import ROWS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from flowkit.dataset.settings import ExtractSettings
    from flowkit.model.evaluation.predict import Prediction, Predictor

_PATIENCE_SECONDS = 2.0  # for counting frames without a word


@click.command()
@click.argument("videos", nargs=-1, required=True, metavar="VIDEO...", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@data_option
@click.option("--run", default="default", show_default=True, metavar="NAME", help="The run whose networks classify.")
@split_option
@click.option(
    "--row",
    type=click.Choice(list(ROWS), case_sensitive=False),
    help="Which row of the results table classifies.  [default: the last that is trained]",
)
@click.option(
    "--checkpoint",
    type=click.Path(exists=True, path_type=Path),
    help="Use this phase's weights or folder instead of a run; no data root is needed.",
)
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, metavar="N", help="How many classes to show.")
@click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:N]", help="Where the network computes.")
@click.option(
    "--solver",
    type=click.Choice(["auto", "strict", "fast", "cuda"]),
    default="auto",
    show_default=True,
    help="What computes the flow. auto: the training data's solver; the GPU's if --device names a GPU.",
)
@click.option("--jobs", type=click.IntRange(min=1), metavar="N", help="Threads that compute flow on the CPU.  [default: one per core]")
@json_option
def predict(
    videos: Sequence[Path],
    data: Path,
    run: str,
    split: int,
    row: str | None,
    checkpoint: Path | None,
    top: int,
    device: str,
    solver: str,
    jobs: int | None,
    as_json: bool,
) -> int:
    """Classify VIDEOs, any video files, with a trained network.

    Frames and flow are made as those of the training data, and tested as `flowkit evaluate` does: 25 frames with their stacks of
    flow and their mirror images. Prints the classes with the highest scores and their probabilities, fused and by stream.
    """
    from flowkit.model.compute.execution import Execution
    from flowkit.model.evaluation.predict import Predictor, extraction_of, find_row, row_of
    from flowkit.workers.processes import num_cores

    if checkpoint is not None and row is not None:
        raise click.UsageError("--row is for a run; a --checkpoint is one network and so one row")
    trained = row_of(checkpoint) if checkpoint is not None else find_row(data, run=run, split=split, row=row)
    execution = Execution(device=device)
    network_device = execution.torch_device()
    settings, assumed = extraction_of(trained.provenance, data)
    chosen, note = _with_solver(settings, solver, device)
    predictor = Predictor(
        trained,
        settings=chosen,
        execution=execution,
        flow_device_index=network_device.index or 0,
        num_threads=jobs or num_cores(),
    )
    notes = [text for text in (assumed, note) if text]
    _tell_start(predictor, str(network_device), notes)
    _leave_threads_to_us()
    results: list[dict[str, Any]] = []
    for path in videos:
        with _Bar(path.name) as bar:
            prediction = predictor.predict(path, on_progress=bar.tell)
        results.append(_as_dict(prediction, predictor, top))
        if not as_json:
            _tell(prediction, predictor, top)
    if as_json:
        weights = {phase: source for phase, (source, _) in trained.checkpoints.items()}
        about = {"row": trained.name, "weights": weights, "extraction": chosen.to_dict(), "notes": notes}
        say(json.dumps({"format": "flowkit-prediction", "format_version": 1, **about, "videos": results}, indent=1))
    return EXIT_SOME_FAILED if any(not result["top"] for result in results) else 0


class _Bar:
    """Progress of one video: of counting its frames, if that takes long, and of its flow."""

    def __init__(self, name: str) -> None:
        self._name, self._began = name, time.monotonic()
        self._bar: ProgressBar | None = None

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.__exit__(kind, error, trace)

    def tell(self, num_frames: int, done: int, total: int) -> None:
        """Show how many frames were counted, or how many flow fields are solved."""
        if total:
            self._show("flow fields", done, total)
        elif time.monotonic() - self._began > _PATIENCE_SECONDS:
            self._show("frames", num_frames, 0)

    def _show(self, unit: str, done: int, total: int) -> None:
        if self._bar is None or self._bar.unit != unit:
            self.__exit__(None, None, None)
            self._bar = ProgressBar("count" if unit == "frames" else "predict", total=total, unit=unit)
        self._bar.update(done, note=self._name)


def _with_solver(settings: ExtractSettings, solver: str, device: str) -> tuple[ExtractSettings, str]:
    """Return the settings with the solver to use here, and what to say if it is not that of the training."""
    from flowkit.cli.commands.extract import has_gpu

    chosen = solver
    if solver == "auto":
        chosen = settings.solver
        if device.startswith("cuda") and has_gpu():
            chosen = "cuda"
        elif chosen == "cuda" and not has_gpu():
            chosen = "strict"
    elif solver == "cuda":
        from flowkit.flow.cuda.device import list_devices

        list_devices()  # says what is missing
    if chosen == settings.solver:
        return settings, ""
    note = f"flow by the {chosen} solver; the training data's is of the {settings.solver} solver, which differs by hundredths of a pixel"
    return replace(settings, solver=chosen), note  # type: ignore[arg-type]


def _leave_threads_to_us() -> None:
    """Keep OpenCV from starting threads inside the threads that solve flow."""
    import cv2

    cv2.setNumThreads(1)


def _tell_start(predictor: Predictor, device: str, notes: Sequence[str]) -> None:
    settings = predictor.settings
    where = "GPU" if settings.solver == "cuda" else f"CPU, {settings.solver}"
    sources = " and ".join(show_name(source) for source, _ in predictor.row.checkpoints.values())
    warn(
        f"predict: {predictor.row.name}, {len(predictor.classes)} classes, on {device}, from {sources}; "
        f"TV-L1 {settings.preset} ({where}), short side {settings.short_side} px"
    )
    for note in notes:
        warn(f"note: {show_name(note)}")


def _tell(prediction: Prediction, predictor: Predictor, top: int) -> None:
    """Print one video's classes to stdout, or why there are none to stderr."""
    name = show_name(prediction.path)
    if not prediction.scores:
        warn(f"{name}: {prediction.status}: {show_name(prediction.error)}")
        return
    if prediction.error:
        warn(f"{name}: {prediction.status}: {show_name(prediction.error)}")
    columns = _columns(prediction)
    rows = [
        (class_name, *(f"{100 * shares[column]:.2f}" for column in columns))
        for class_name, shares in predictor.top_classes(prediction, top)
    ]
    say(f"{name}: {prediction.num_frames} frames")
    say(table((predictor.row.name, *(f"{column} %" for column in columns)), rows) + "\n")


def _columns(prediction: Prediction) -> list[str]:
    """Return which probabilities to show: the fused ones first, and each stream's if there are two."""
    streams = [name for name in prediction.scores if name != "fused"]
    return ["fused", *streams] if len(streams) > 1 else streams


def _as_dict(prediction: Prediction, predictor: Predictor, top: int) -> dict[str, Any]:
    classes = predictor.top_classes(prediction, top) if prediction.scores else []
    return {
        "path": str(prediction.path),
        "status": prediction.status,
        "num_frames": prediction.num_frames,
        "decode_errors": prediction.decode_errors,
        "error": prediction.error,
        "top": [
            {
                "class_name": name,
                "probability": shares["fused"],
                "by_stream": {stream: share for stream, share in shares.items() if stream != "fused"},
            }
            for name, shares in classes
        ],
    }
