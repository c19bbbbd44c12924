"""The page of a gallery: ``index.html``, which holds all it says and loads pictures from the folder ``pictures`` beside it only.

What the page shows is written into it as JSON, in which no text can end the script that it stands in. The script puts texts into the
page as texts, never as HTML. A content security policy allows that script and no other, and no address but the folder's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from flowkit.describe.encoding import data_uri, png
from flowkit.describe.flow_colour import wheel_picture
from flowkit.describe.gallery_files import FILM_SUFFIX, PAGE_NAME, PICTURES_NAME, STILL_SUFFIX, PictureFacts
from flowkit.describe.gallery_videos import GalleryVideo
from flowkit.describe.html_page import render_html
from flowkit.words import printable_name

_PAGE = Path(__file__).with_suffix("")
_WHEEL_PX = 36


@dataclass(frozen=True)
class GalleryAbout:
    """What a gallery's page says about all of its videos.

    Parameters
    ----------
    root : str
        The data root.
    num_known : int
        How many videos it has, those that could not be extracted included.
    split : int, optional
        The split that gives classes and subsets.
    run, row : str
        The run and the row of its results table that the predictions are of; empty if there are none.
    """

    root: str
    num_known: int
    split: int | None = None
    run: str = ""
    row: str = ""


def link_to_video(video_id: str) -> str:
    """Return the address of a video in a gallery, relative to its folder: the page scrolls to the video and opens it.

    Examples
    --------
    >>> from flowkit.describe.gallery_page import link_to_video
    >>> link_to_video("run/50 % #1")
    'index.html#video=run%2F50%20%25%20%231'
    """
    return f"{PAGE_NAME}#video={quote(video_id, safe=_NOT_ENCODED)}"


_NOT_ENCODED = "-_.!~*'()"  # besides letters and digits, by encodeURIComponent of browsers


def render_page(
    about: GalleryAbout,
    videos: Sequence[GalleryVideo],
    facts: Mapping[str, PictureFacts],
    names: Mapping[str, str],
    failures: Mapping[str, str],
) -> str:
    """Return the page as HTML.

    Parameters
    ----------
    about : GalleryAbout
        What it says about all videos.
    videos : sequence of GalleryVideo
        The videos, in the order of the page; those of a class stand together.
    facts, names : mapping of str to PictureFacts, mapping of str to str
        The pictures of the videos that have some, by video id, and what their files are called.
    failures : mapping of str to str
        Why videos that have a clip could not be drawn.
    """
    values = {
        "about": about,
        "num_videos": len(videos),
        "subsets": [subset for subset in ("train", "test", "unlisted") if any(video.subset == subset for video in videos)],
        "has_predictions": any(video.prediction for video in videos),
        "speeds": [one.speed_px for one in facts.values()],
        "wheel": data_uri(png(wheel_picture(_WHEEL_PX))),
        "wheel_px": 2 * _WHEEL_PX + 1,
        "data": {"isSample": len(videos) < about.num_known, **_data(videos, facts, names, failures)},
    }
    return render_html(_PAGE, values)


def _data(
    videos: Sequence[GalleryVideo], facts: Mapping[str, PictureFacts], names: Mapping[str, str], failures: Mapping[str, str]
) -> dict[str, Any]:
    """Return what the script reads: the classes once, and the videos with indices into them."""
    predicted = (name for video in videos if video.prediction for name, _ in video.prediction.scores)
    classes = list(dict.fromkeys([*(video.class_name for video in videos), *predicted]))
    index_of = {name: k for k, name in enumerate(classes)}
    return {
        "folder": PICTURES_NAME,
        "still": STILL_SUFFIX,
        "film": FILM_SUFFIX,
        "classes": [printable_name(name) for name in classes],
        "videos": [
            _video_data(video, index_of, facts.get(video.video_id), names.get(video.video_id, ""), failures.get(video.video_id, ""))
            for video in videos
        ],
    }


def _video_data(video: GalleryVideo, index_of: Mapping[str, int], facts: PictureFacts | None, name: str, failure: str) -> dict[str, Any]:
    values: dict[str, Any] = {
        "id": video.video_id,
        "label": printable_name(video.video_id),
        "class": index_of[video.class_name],
        "subset": video.subset,
        "status": video.status,
        "reason": printable_name("; ".join(filter(None, (video.reason, failure and f"it could not be drawn: {failure}")))),
    }
    if video.prediction is not None:
        values["scores"] = [[index_of[class_name], round(100 * share, 1)] for class_name, share in video.prediction.scores]
    if facts is not None:
        values["pictures"] = {
            "name": name,
            "width": facts.width,
            "height": facts.height,
            "speed": round(facts.speed_px, 2),
            "scale": facts.scale_px,
            "start": round(facts.start_seconds, 1),
            "seconds": round(facts.seconds, 1),
            "whole": round(facts.whole_seconds, 1),
            "cut": facts.is_cut,
            "frames": facts.num_frames,
            "rate": facts.frame_rate,
        }
    return values
