"""The pictures of a report, encoded and described: training curves, confusion matrices, confused videos."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowkit.dataset.manifest import Split
from flowkit.dataset.root import Dataset
from flowkit.describe.encoding import data_uri, jpeg, png, size_of
from flowkit.describe.flow_colour import wheel_picture
from flowkit.model.evaluation.results import Evaluation, SplitEvaluation
from flowkit.model.report.confused_videos import ConfusedPair, Mistake, Thumbnails, most_confused
from flowkit.model.report.confusion import confusion_picture, drawable, occurring_classes
from flowkit.model.report.curves import PANELS, TrainingCurves, curves_picture, guessing, panel_picture, read_curves, smoothing_window
from flowkit.model.report.gallery_links import GalleryLinks
from flowkit.model.runs.run_folder import METRICS_NAME
from flowkit.model.systems.registry import PHASES
from flowkit.words import counted, duration

_PLOT_COLOURS = 128
_ALL_MATRICES = 25  # classes up to which every row's matrix is drawn
_MATRIX_FITS = 30  # classes up to which a matrix is readable at the page's width
_NUM_PAIRS, _NUM_VIDEOS, _NUM_BEST = 6, 3, 5


@dataclass(frozen=True)
class TrainingPictures:
    """The curves of the phases that were tested.

    Parameters
    ----------
    encoded : bytes
        All of them as one PNG; empty if there are no metrics.
    phases : list of dict
        For the page: `name`, `panels` and `note`.
    """

    encoded: bytes
    phases: list[dict[str, Any]]


def training_pictures(result: SplitEvaluation) -> TrainingPictures:
    """Draw the curves of each phase that was tested, from the metrics beside its weights."""
    rows, phases = [], []
    for phase in PHASES:
        if phase in result.checkpoints:
            source = Path(result.checkpoints[phase])
            curves = read_curves((source if source.is_dir() else source.parent) / METRICS_NAME, result.provenances[phase].config)
            if curves is not None:
                rows.append([panel_picture(curves, panel) for panel in PANELS])
                phases.append(_phase_values(curves, rows[-1]))
    encoded = png(curves_picture(rows), num_colours=_PLOT_COLOURS) if rows else b""
    return TrainingPictures(encoded, phases)


def _phase_values(curves: TrainingCurves, pictures: list[NDArray[np.uint8]]) -> dict[str, Any]:
    num, window = len(curves.steps), smoothing_window(len(curves.steps))
    losses = curves.loss | {f"validation of {name}": values for name, values in curves.validation_loss.items()}
    accuracies = curves.accuracy | {f"validation of {name}": values for name, values in curves.validation_accuracy.items()}
    values = {
        "loss": "; ".join(
            [*(f"{name} {_ends(values, '.3g')}" for name, values in losses.items()), f"guessing {guessing(curves, 'loss'):.3g}"]
        ),
        "accuracy": "; ".join(
            [
                *(f"{name} {_ends(100 * values, '.0f')} percent" for name, values in accuracies.items()),
                f"guessing {100 * guessing(curves, 'accuracy'):.3g} percent",
            ]
        ),
        "learning rate": _ends(curves.learning_rate, ".3g"),
    }
    panels = [
        _picture(picture, png(picture, num_colours=_PLOT_COLOURS), f"{curves.phase}, {panel} by step: {values[panel]}.", pixel_ratio=2)
        for panel, picture in zip(PANELS, pictures, strict=True)
    ]
    note = counted(num, "step") + (f" in {duration(curves.seconds)}" if curves.seconds else "")
    note += f"; each line is a mean over {window} steps." if window > 1 else "."
    if curves.validation_accuracy:
        note += " Dotted lines with marks are complete videos that were held out for validation, scored as in the test, with fewer frames."
    if curves.best is not None:
        best, step = curves.validation_best, int(curves.steps[curves.best])
        note += f" The best accuracy on them, {100 * best:.1f} %, was measured after step {step:,}"
        note += ", whose weights were tested." if curves.is_selected else "; the weights of the last step were tested."
    return {"name": curves.phase, "panels": panels, "note": note}


def _ends(values: NDArray[np.float64], form: str) -> str:
    known = values[np.isfinite(values)]
    return f"from {known[0]:{form}} to {known[-1]:{form}}" if len(known) else "unknown"


@dataclass(frozen=True)
class MatrixPicture:
    """One row's confusion matrix as a PNG, with its caption and alternative text; `fits` says if it is readable at the page's width."""

    row: str
    encoded: bytes
    size: tuple[int, int]
    caption: str
    alt: str
    fits: bool

    def values(self) -> dict[str, Any]:
        """Return what the template needs."""
        width, height = (round(side / 1.5) for side in self.size)
        texts = {"row": self.row, "caption": self.caption, "alt": self.alt, "fits": self.fits}
        return texts | {"uri": data_uri(self.encoded), "width": width, "height": height}


def matrix_pictures(result: SplitEvaluation, main: str) -> list[MatrixPicture]:
    """Draw the main row's confusion matrix, and then the other rows' where that is quick and readable; none if no video was scored."""
    if not len(result.video_ids):
        return []
    num_shown = len(occurring_classes(result.rows[main].confusion))
    return [_matrix(result, name) for name in result.rows if name == main] + [
        _matrix(result, name) for name in result.rows if name != main and num_shown <= _ALL_MATRICES
    ]


def _matrix(result: SplitEvaluation, name: str) -> MatrixPicture:
    row = result.rows[name]
    shown = occurring_classes(row.confusion).tolist()
    title = f"{name}: {row.num_correct:,} of {counted(len(row.ranks), 'video')} correct"
    pixels = confusion_picture(row.confusion, result.classes, title=title)
    caption = f"{title}. Rows are classes, columns are predictions, and correct predictions lie on the diagonal."
    if len(shown) < len(result.classes):
        caption += f" {len(result.classes) - len(shown)} classes that do not occur are left out."
    if not all(drawable(result.classes[label]) for label in shown):
        caption += " Classes whose names the font of the picture cannot write are shown by their labels, as in per_class.csv."
    alt = f"Confusion matrix of {counted(len(shown), 'class')}. {title}. The sections Classes and Confused classes give the numbers."
    return MatrixPicture(name, png(pixels, num_colours=_PLOT_COLOURS), size_of(pixels), caption, alt, len(shown) <= _MATRIX_FITS)


def confused_videos(
    result: SplitEvaluation, evaluation: Evaluation, dataset: Dataset, split: Split, main: str, gallery: GalleryLinks
) -> dict[str, Any]:
    """Return the most confused pairs of classes with pictures of videos, the colour wheel, and the scale of the flow pictures."""
    row = result.rows.get(main)
    if row is None or not len(row.ranks):
        return {"pairs": [], "confused_intro": "", "wheel": None, "scale": "", "exceeds_scale": False}
    pairs = most_confused(row, result.labels, num_pairs=_NUM_PAIRS, num_videos=_NUM_VIDEOS, num_best=_NUM_BEST, fusion=evaluation.fusion)
    records = {record.video_id: record for record in split.test}
    wanted = [result.video_ids[mistake.video] for pair in pairs for mistake in pair.mistakes]
    thumbnails = Thumbnails(dataset, [records[video_id] for video_id in wanted if video_id in records])
    num_wrong = len(row.ranks) - row.num_correct
    of_these = sum(pair.num_first + pair.num_second for pair in pairs)
    share = "the class's weight in the mean of softmaxes" if evaluation.fusion == "softmax_mean" else "its softmax over all classes"
    intro = (
        f"The pairs of classes that {main} confused most often, with {of_these:,} of its {num_wrong:,} mistakes. Each pair shows up to "
        f"{_NUM_VIDEOS} videos, those with the highest scores first. The score is the mean of the logits; the share is {share}, "
        "which is not the probability of being correct."
    )
    if evaluation.fusion == "softmax_mean":
        intro = intro.replace("The score is the mean of the logits; the share is", "Score and share are")
    wheel = wheel_picture(44)
    return {
        "pairs": [_pair_values(pair, result, thumbnails, gallery) for pair in pairs],
        "confused_intro": intro,
        "wheel": _picture(wheel, png(wheel), ""),
        "scale": f"{thumbnails.scale_px:g}",
        "exceeds_scale": thumbnails.exceeds_scale,
    }


def _pair_values(pair: ConfusedPair, result: SplitEvaluation, thumbnails: Thumbnails, gallery: GalleryLinks) -> dict[str, Any]:
    first, second = result.classes[pair.first], result.classes[pair.second]
    totals = [int((result.labels == label).sum()) for label in (pair.first, pair.second)]
    text = (
        f"{pair.num_first} of {totals[0]} videos of {first} were classified as {second}, and {pair.num_second} of {totals[1]} the reverse."
    )
    videos = [_video_values(mistake, result, thumbnails, gallery) for mistake in pair.mistakes]
    return {"first": first, "second": second, "text": text, "videos": videos}


def _video_values(mistake: Mistake, result: SplitEvaluation, thumbnails: Thumbnails, gallery: GalleryLinks) -> dict[str, Any]:
    video_id = result.video_ids[mistake.video]
    label, predicted = result.classes[mistake.label], result.classes[mistake.predicted]
    best = [
        {
            "rank": rank,
            "name": result.classes[k],
            "score": f"{score:.2f}",
            "share": f"{100 * share:.1f} %",
            "is_correct": k == mistake.label,
        }
        for rank, (k, score, share) in enumerate(mistake.best, 1)
    ]
    values: dict[str, Any] = {
        "id": video_id,
        "href": gallery.of(video_id),
        "label": label,
        "predicted": predicted,
        "best": best,
        "frames": None,
        "flow": None,
    }
    moments = thumbnails.moments(video_id)
    if moments is None:
        return values | {"failure": thumbnails.failures.get(video_id, "it is no longer in the split")}
    which = ", ".join(map(str, moments.indices))
    for name, pixels, alt in (
        ("frames", moments.frames, f"Frames {which} of {video_id}, class {label}"),
        ("flow", moments.flow, f"Flow from frames {which} to the next frames, in colours"),
    ):
        values[name] = _picture(pixels, jpeg(pixels), alt)
    return values


def _picture(pixels: NDArray[np.uint8], encoded: bytes, alt: str, *, pixel_ratio: float = 1) -> dict[str, Any]:
    width, height = size_of(pixels)
    return {"uri": data_uri(encoded), "width": round(width / pixel_ratio), "height": round(height / pixel_ratio), "alt": alt}
