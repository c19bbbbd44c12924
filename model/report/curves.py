"""Training curves of a run's phases, from their metrics.jsonl: loss, accuracy on the training batches, learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from flowkit.describe.encoding import TWO_LINES, drawn, plain_ticks
from flowkit.model.runs.metrics import VALIDATION_ACCURACY, VALIDATION_LOSS, read_metrics
from flowkit.model.settings.training import Phase, TrainConfig

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Panel = Literal["loss", "accuracy", "learning rate"]
PANELS: tuple[Panel, ...] = ("loss", "accuracy", "learning rate")

_WINDOW_SHARE, _MOST_STEPS = 1 / 20, 500  # the steps that a line is the mean of: this share of a phase, at most so many
_LARGEST = 1e100  # larger values cannot be drawn
_MOST_POINTS = 600  # of one line, so that long runs draw as fast as short ones
_PANEL_INCHES, _DPI = (3.8, 2.9), 190
_STYLES = dict(zip(("appearance", "motion"), TWO_LINES, strict=True))
_GREY = "#57606a"
_BOTH = "both"  # streams of a two-stream network, joined


@dataclass(frozen=True)
class TrainingCurves:
    """The measurements at each step of a phase.

    Parameters
    ----------
    phase : str
        The phase.
    steps : int64 array, shape (n,)
        Numbers of the steps from 0, ascending.
    learning_rate : float64 array, shape (n,)
        The learning rate.
    loss, accuracy : dict from stream to float64 array, shape (n,)
        Loss of each stream per frame, and the share of the batch's videos that it classified correctly. NaN where unknown.
    num_classes : int
        Number of classes C. A network that guesses has a loss of ln C and an accuracy of 1 / C.
    validation_loss, validation_accuracy : dict from str to float64 array, shape (n,)
        The same for complete videos that were held out, by stream and, for two streams, for ``both``; NaN after most steps. Empty if
        none were held out.
    best, validation_best : int and float, optional
        The index of the step after which the weights had the best accuracy on these videos, the first one among equals, and that
        accuracy, in [0, 1]. None and NaN if there are none.
    is_selected : bool
        Whether the phase ended with the weights of that step instead of the last.
    seconds : float
        How long the steps took together, as far as it is known.
    """

    phase: Phase
    steps: NDArray[np.int64]
    learning_rate: NDArray[np.float64]
    loss: dict[str, NDArray[np.float64]]
    accuracy: dict[str, NDArray[np.float64]]
    num_classes: int
    validation_loss: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    validation_accuracy: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    best: int | None = None
    validation_best: float = math.nan
    is_selected: bool = False
    seconds: float = 0.0


def read_curves(path: Path, config: TrainConfig) -> TrainingCurves | None:
    """Read the metrics.jsonl of a phase with these settings; return None if no line of it can be read."""
    lines = read_metrics(path, config)
    if not lines:
        return None

    def column(name: str) -> NDArray[np.float64]:
        return np.array([_number(line.get(name)) for line in lines.values()], dtype=np.float64)

    def by_stream(what: str) -> dict[str, NDArray[np.float64]]:
        columns = {stream: column(f"{what}_{stream}") for stream in _STYLES}
        return {stream: values for stream, values in columns.items() if np.isfinite(values).any()}

    def on_validation(what: str) -> dict[str, NDArray[np.float64]]:
        columns = by_stream(what)
        return columns | ({_BOTH: column(what)} if len(columns) > 1 else {})

    validated = column(VALIDATION_ACCURACY)
    best = int(np.nanargmax(validated)) if np.isfinite(validated).any() else None
    return TrainingCurves(
        config.phase,
        np.array(list(lines), dtype=np.int64),
        column("lr"),
        by_stream("loss"),
        by_stream("accuracy"),
        config.network.num_classes,
        on_validation(VALIDATION_LOSS),
        on_validation(VALIDATION_ACCURACY),
        best,
        math.nan if best is None else float(validated[best]),
        is_selected=best is not None and config.select == "best",
        seconds=float(np.nansum(column("seconds"))),
    )


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and abs(value) < _LARGEST else math.nan


def smoothing_window(num_steps: int) -> int:
    """Return how many steps the line is the mean of: a twentieth of the phase, at most 501, and an odd number."""
    return 2 * (int(min(num_steps * _WINDOW_SHARE, _MOST_STEPS)) // 2) + 1


def smoothed(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Return the mean of values (n,) over a `window` around each, an odd number of steps, of which NaN and missing ones are left out."""
    known = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    centre = np.arange(len(values))
    first, end = np.maximum(centre - window // 2, 0), np.minimum(centre + window // 2 + 1, len(values))
    num = counts[end] - counts[first]
    return np.where(num > 0, (sums[end] - sums[first]) / np.maximum(num, 1), math.nan)


def panel_picture(curves: TrainingCurves, panel: Panel) -> NDArray[np.uint8]:
    """Draw one panel as an RGB picture, uint8 (H, W, 3), which has the same shape for every panel."""
    from matplotlib.ticker import MaxNLocator

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        if panel == "learning rate":
            _draw_learning_rate(axes, curves)
        else:
            _draw_streams(axes, curves, panel)
            figure.legend(loc="outside lower left", ncols=2, fontsize=7, frameon=False, borderpad=0.2)
        axes.set_title(f"{curves.phase}: {panel}", fontsize=10, loc="left")
        axes.set_xlabel("step", fontsize=8)
        axes.set_xlim(*_ends(curves.steps))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
        axes.tick_params(labelsize=8)
        axes.grid(color="#d8dee4", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)

    return drawn(draw, inches=_PANEL_INCHES, dpi=_DPI)


def guessing(curves: TrainingCurves, panel: Panel) -> float:
    """Return the loss of a network that gives all classes the same score, or its accuracy, in [0, 1]."""
    return math.log(curves.num_classes) if panel == "loss" else 1 / curves.num_classes


def curves_picture(panels: list[list[NDArray[np.uint8]]]) -> NDArray[np.uint8]:
    """Put the panels of several phases together, one row per phase."""
    return np.concatenate([np.concatenate(row, axis=1) for row in panels], axis=0)


def _draw_streams(axes: Axes, curves: TrainingCurves, panel: Panel) -> None:
    streams = curves.loss if panel == "loss" else curves.accuracy
    window = smoothing_window(len(curves.steps))
    scale = 100 if panel == "accuracy" else 1
    for stream, values in streams.items():
        style = _STYLES[stream] if len(streams) > 1 else {**_STYLES[stream], "linestyle": "-"}
        axes.fill_between(*_ranges(curves.steps, scale * values), color=style["color"], alpha=0.2, linewidth=0.9)
        at = _places(len(values))
        mean = scale * smoothed(values, window)
        axes.plot(curves.steps[at], mean[at], label=stream, linewidth=1.8, marker="o" if len(at) == 1 else None, markersize=4, **style)
    measured = curves.validation_loss if panel == "loss" else curves.validation_accuracy
    for name, values in measured.items():
        known = np.isfinite(values)
        style = {"color": _STYLES[name]["color"], "marker": "o"} if name in _STYLES else {"color": _GREY, "marker": "s"}
        label = f"validation, {name}" if len(measured) > 1 else "validation"
        axes.plot(curves.steps[known], scale * values[known], label=label, linewidth=0.9, linestyle=":", markersize=3.5, **style)
    if curves.best is not None and measured:
        which = "tested weights" if curves.is_selected else "best validation"
        after = int(curves.steps[curves.best])
        axes.axvline(after, color=_GREY, linewidth=1.2, linestyle="-.", label=f"{which} (step {after:,})")
    chance = guessing(curves, panel)
    text = f"guessing: ln {curves.num_classes:,} = {chance:.2f}" if panel == "loss" else f"guessing: {scale * chance:.3g} %"
    axes.axhline(scale * chance, color=_GREY, linewidth=1.2, linestyle=(0, (1, 2)), label=text)
    label = "loss per frame and stream" if panel == "loss" else "correct, %" if measured else "correct, % of the batch"
    axes.set_ylabel(label, fontsize=8)
    if panel == "accuracy":
        axes.set_ylim(-3, 103)
    else:
        axes.set_ylim(bottom=0)


def _draw_learning_rate(axes: Axes, curves: TrainingCurves) -> None:
    rates, at = curves.learning_rate, _places(len(curves.steps))
    axes.plot(
        curves.steps[at], rates[at], color=_GREY, linewidth=1.8, drawstyle="steps-post", marker="o" if len(at) == 1 else None, markersize=4
    )
    known = rates[np.isfinite(rates)]
    if len(known) and known.min() > 0 and len(np.unique(known)) <= 10 and known.max() > 5 * known.min():
        axes.set_yscale("log")  # a schedule in steps
        plain_ticks(axes.yaxis)
    else:
        axes.set_ylim(bottom=0)
    axes.set_ylabel("learning rate", fontsize=8)


def _places(num: int) -> NDArray[np.int64]:
    """Return the indices of the points to draw out of `num`: all, or evenly spaced ones with both ends."""
    return np.unique(np.linspace(0, num - 1, min(num, _MOST_POINTS)).round().astype(np.int64))


def _ranges(steps: NDArray[np.int64], values: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the range of the values around each point that is drawn, so that long runs show their outliers."""
    at = _places(len(steps))
    filled = np.where(np.isfinite(values), values, math.nan)
    edges = np.concatenate([[0], (at[1:] + at[:-1] + 1) // 2, [len(steps)]])
    least = np.array([np.nanmin(part) if np.isfinite(part).any() else math.nan for part in np.split(filled, edges[1:-1])])
    most = np.array([np.nanmax(part) if np.isfinite(part).any() else math.nan for part in np.split(filled, edges[1:-1])])
    return steps[at], least, most


def _ends(steps: NDArray[np.int64]) -> tuple[float, float]:
    first, last = float(steps[0]), float(steps[-1])
    room = max(0.02 * (last - first), 0.5)
    return first - room, last + room
