"""The table of all test videos: their class, what each row predicts, and links into the gallery.

A script in the page shows it in parts, sorted and filtered, from a compact JSON record; the first part is in the page as HTML too, for
print and for readers without scripts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from flowkit.model.evaluation.results import SplitEvaluation
from flowkit.model.scoring.metrics import Fusion, shares

NUM_AT_ONCE = 100  # videos of a part
_GALLERY = Path("gallery") / "index.html"
_UNCHANGED = "-_.!~*'()"  # by encodeURIComponent


def gallery_address(folder: Path, root: Path) -> str:
    """Return the relative address of the gallery from a report's folder, with percent signs; empty if there is no gallery.

    It is looked for in ``reports/gallery`` of the data root, where ``flowkit inspect --gallery`` makes it, and beside the run's folder
    of reports that lie elsewhere.
    """
    for page in (root / "reports" / _GALLERY, folder.absolute().parent.parent / _GALLERY):
        if page.is_file():
            # A browser removes the names before ".." without following links, and so does relpath.
            return quote(Path(os.path.relpath(page.absolute(), folder.absolute())).as_posix())
    return ""


def fragment_of(video_id: str) -> str:
    """Return the end of an address that shows a video in the gallery.

    Examples
    --------
    >>> from flowkit.model.report.video_table import fragment_of
    >>> fragment_of("Run/a b#1")
    '#video=Run%2Fa%20b%231'
    """
    return "#video=" + quote(video_id.encode("utf-8", "replace"), safe=_UNCHANGED)


def video_table(
    result: SplitEvaluation, fusion: Fusion, main: str, *, gallery: str, shown: Callable[[object], object]
) -> dict[str, Any] | None:
    """Return what the page needs for the table of test videos; None if no video was scored.

    Parameters
    ----------
    result : SplitEvaluation
        The results of a split.
    fusion : {"logits_mean", "softmax_mean"}
        How the rows' scores were combined.
    main : str
        The row by which the videos are sorted: those that it classifies wrongly first, the surest ones first.
    gallery : str
        The address of the gallery; empty if there is none.
    shown : callable
        How a text is shown: with characters that cannot be seen written out.

    Returns
    -------
    dict or None
        `rows`: names of the rows, `main` first. `first`: the first videos as HTML needs them. `num`, `num_first`: how many there are,
        and how many of them these are. `json`: all videos, in the order of the table, for the script: ``[id, label, predicted, share,
        predicted, share, ...]``, shares in thousandths, and ``raw``: the ids that are shown differently.
    """
    if not len(result.video_ids):
        return None
    names = [main, *(name for name in result.rows if name != main)]
    predicted = np.stack([result.rows[name].scores.argmax(1) for name in names], axis=1)
    share = np.stack([shares(result.rows[name].scores, fusion).max(1) for name in names], axis=1)
    is_correct = predicted == result.labels[:, None]
    # `np.lexsort` sorts by its last key first: mistakes, then the share of the mistake (of correct videos, the least sure first), then ids.
    order = np.lexsort((np.array(result.video_ids), np.where(is_correct[:, 0], share[:, 0], -share[:, 0]), is_correct[:, 0])).tolist()
    classes = [str(shown(name)) for name in result.classes]
    videos = []
    for k in order:
        numbers = [
            value for pair in zip(predicted[k].tolist(), (1000 * share[k]).round().astype(int).tolist(), strict=True) for value in pair
        ]
        videos.append([str(shown(result.video_ids[k])), int(result.labels[k]), *numbers])
    raw = {place: result.video_ids[k] for place, k in enumerate(order) if videos[place][0] != result.video_ids[k]}
    first = [
        {
            "id": videos[place][0],
            "href": gallery + fragment_of(result.video_ids[k]) if gallery else "",
            "label": classes[result.labels[k]],
            "answers": [
                {"name": classes[label], "is_correct": bool(good), "share": f"{100 * part:.1f} %"}
                for label, good, part in zip(predicted[k].tolist(), is_correct[k].tolist(), share[k].tolist(), strict=True)
            ],
        }
        for place, k in enumerate(order[:NUM_AT_ONCE])
    ]
    record = {"rows": names, "classes": classes, "videos": videos, "raw": raw, "gallery": gallery, "at_once": NUM_AT_ONCE}
    return {"rows": names, "first": first, "num": len(videos), "num_first": len(first), "json": _in_script(record)}


def _in_script(record: dict[str, Any]) -> str:
    """Return JSON that a script element can hold: in ASCII, and without the characters that end or open an element."""
    text = json.dumps(record, ensure_ascii=True, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
