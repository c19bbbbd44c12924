"""A confusion matrix as a picture, readable from two classes to a few hundred."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flowkit.describe.encoding import drawn

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 144
_MOST_COUNTS = 25  # classes up to which every cell shows its number
_MOST_NAMES = 150  # classes up to which every row has its name
_LONGEST_NAME = 26
_COLOURS = ("#5f97d3", "#1f5fa8", "#08306b")  # the palest has a contrast of 3 to 1 with white, so that a single video can be seen
_WHITE_FROM = 9  # percent; numbers on darker cells are white


def occurring_classes(confusion: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the labels that have a test video or were predicted; the rows and columns of others would be empty."""
    return np.flatnonzero(confusion.sum(0) + confusion.sum(1))


def confusion_picture(confusion: NDArray[np.int64], classes: Sequence[str], *, title: str) -> NDArray[np.uint8]:
    """Draw the predictions for the videos of each class that occurs, in percent.

    Parameters
    ----------
    confusion : int64 array, shape (C, C)
        Number of videos by class and prediction; at least one video.
    classes : sequence of str
        Any names: long ones are cut, and one that the font cannot write is shown by its label, as ``class 12``.
    title : str
        The heading of the picture.

    Returns
    -------
    uint8 array, shape (H, W, 3), RGB
    """
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm

    shown = occurring_classes(confusion)
    counts = confusion[np.ix_(shown, shown)]
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    seen = np.ma.masked_equal(shares, 0)  # type: ignore[no-untyped-call, unused-ignore] # cells without a video stay white
    num, font = len(shown), _font_size(len(shown))
    side = num * _cell_inches(num)
    labelled = np.arange(num) if num <= _MOST_NAMES else np.arange(0, num, -(-num // _MOST_NAMES))
    names = [_shown_name(classes[shown[k]], int(shown[k])) for k in labelled]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        # The scale is a square root, because the cells of interest beside the diagonal have a few percent.
        colours = LinearSegmentedColormap.from_list("flowkit", _COLOURS)
        image = axes.imshow(seen, cmap=colours, norm=PowerNorm(0.5, 0, 100), interpolation="nearest")
        bar = figure.colorbar(image, ax=axes, shrink=min(1.0, 3.0 / side), pad=0.02)
        bar.set_label("% of the class's videos", fontsize=9)
        bar.ax.tick_params(labelsize=8)
        axes.set_xticks(labelled, names, rotation=90, fontsize=font, parse_math=False)
        axes.set_yticks(labelled, names, fontsize=font, parse_math=False)
        axes.tick_params(length=0)
        if num <= _MOST_NAMES:
            between = np.arange(1, num) - 0.5
            axes.vlines(between, -0.5, num - 0.5, color="#d8dee4", linewidth=0.5)
            axes.hlines(between, -0.5, num - 0.5, color="#d8dee4", linewidth=0.5)
        axes.set_xlabel("predicted class", fontsize=10)
        axes.set_ylabel("class", fontsize=10)
        axes.set_title(title, fontsize=11, loc="left", parse_math=False)
        if num <= _MOST_COUNTS:
            for row, column in zip(*np.nonzero(counts), strict=True):
                colour = "white" if shares[row, column] > _WHITE_FROM else "black"
                axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=font, color=colour)

    return drawn(draw, inches=(side + 3.4, side + 2.6), dpi=_DPI)


def drawable(text: str) -> bool:
    """Return whether matplotlib's own font has every character of a text."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    characters = get_font(findfont(FontProperties(family="DejaVu Sans"))).get_charmap()
    return text.isprintable() and all(ord(character) in characters for character in text)


def _shown_name(name: str, label: int) -> str:
    if not drawable(name):
        return f"class {label}"
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def _cell_inches(num: int) -> float:
    return float(np.clip(6.0 / num, 0.13 if num <= _MOST_NAMES else 20 / num, 0.55))


def _font_size(num: int) -> float:
    return float(np.clip(0.6 * 72 * _cell_inches(num), 5.0, 9.0))
