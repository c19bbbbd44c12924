"""The table of all test videos: their class, what each row predicts, and links into the gallery.

A script in the page shows it in parts, sorted and filtered, from a compact JSON record; the first part is in the page as HTML too, for
print and for readers without scripts.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from flowkit.model.evaluation.results import SplitEvaluation
from flowkit.model.report.gallery_links import GalleryLinks
from flowkit.model.scoring.metrics import Fusion, shares
from flowkit.words import printable_name

NUM_AT_ONCE = 100  # videos of a part


def video_table(result: SplitEvaluation, fusion: Fusion, main: str, *, gallery: GalleryLinks) -> dict[str, Any] | None:
    """Return what the page needs for the table of test videos; None if no video was scored.

    Parameters
    ----------
    result : SplitEvaluation
        The results of a split.
    fusion : {"logits_mean", "softmax_mean"}
        How the rows' scores were combined.
    main : str
        The row by which the videos are sorted: those that it classifies wrongly first, the surest ones first.
    gallery : GalleryLinks
        The gallery that ids lead to, as far as it shows them.

    Returns
    -------
    dict or None
        `rows`: names of the rows, `main` first. `first`: the first videos as HTML needs them. `num`, `num_first`, `num_linked`: how many
        there are, how many of them these are, and how many the gallery shows. `record`: all videos, in the order of the table, for the
        script: ``[id, label, predicted, share, predicted, share, ...]``, shares in thousandths; ``raw``, the ids that are shown
        differently; and ``linked``, which videos the gallery shows.
    """
    if not len(result.video_ids):
        return None
    names = [main, *(name for name in result.rows if name != main)]
    predicted = np.stack([result.rows[name].scores.argmax(1) for name in names], axis=1)
    share = np.stack([shares(result.rows[name].scores, fusion).max(1) for name in names], axis=1)
    is_correct = predicted == result.labels[:, None]
    # `np.lexsort` sorts by its last key first: mistakes, then the share of the mistake (of correct videos, the least sure first), then ids.
    order = np.lexsort((np.array(result.video_ids), np.where(is_correct[:, 0], share[:, 0], -share[:, 0]), is_correct[:, 0])).tolist()
    classes = [printable_name(name) for name in result.classes]
    videos = []
    for k in order:
        numbers = [
            value for pair in zip(predicted[k].tolist(), (1000 * share[k]).round().astype(int).tolist(), strict=True) for value in pair
        ]
        videos.append([printable_name(result.video_ids[k]), int(result.labels[k]), *numbers])
    raw = {place: result.video_ids[k] for place, k in enumerate(order) if videos[place][0] != result.video_ids[k]}
    first = [
        {
            "id": videos[place][0],
            "href": gallery.of(result.video_ids[k]),
            "label": classes[result.labels[k]],
            "answers": [
                {"name": classes[label], "is_correct": bool(good), "share": f"{100 * part:.1f} %"}
                for label, good, part in zip(predicted[k].tolist(), is_correct[k].tolist(), share[k].tolist(), strict=True)
            ],
        }
        for place, k in enumerate(order[:NUM_AT_ONCE])
    ]
    linked = [place for place, k in enumerate(order) if result.video_ids[k] in gallery.video_ids]
    record = {"rows": names, "classes": classes, "videos": videos, "raw": raw, "gallery": gallery.page, "linked": linked}
    record["at_once"] = NUM_AT_ONCE
    return {
        "rows": names,
        "first": first,
        "num": len(videos),
        "num_linked": len(linked),
        "num_first": len(first),
        "record": record,
    }
