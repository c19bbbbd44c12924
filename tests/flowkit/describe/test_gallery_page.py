"""The page of a gallery: hostile names stay texts, its policy allows its own script only, and links lead to single videos."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote

import pytest

from flowkit.describe.gallery_files import PictureFacts
from flowkit.describe.gallery_page import GalleryAbout, link_to_video, render_page
from flowkit.describe.gallery_videos import GalleryVideo, Prediction

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "<img src=x onerror=alert(2)>",
    "\"quotes\" & 'more' `ticks`",
    "50 % of #1? a/b&amp;",
    "two\nlines\u2028and \u202ereversed",
    "日本/動画 \U0001f600",
    "{{ 7 * 7 }}{% raw %}",
    "${7*7}\\",
]


class Parsed(HTMLParser):
    """The elements of a page with their attributes, and the texts of its scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {"script": [], "style": [], "title": [], "h1": []}
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in self.texts:
            self.texts[tag].append("")
            self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = "" if tag == self._inside else self._inside

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.texts[self._inside][-1] += data


def facts_of(video_id: str, **changes: Any) -> PictureFacts:
    values = {"speed_px": 2.34, "scale_px": 5.0, "width": 340, "height": 128, "start_seconds": 0.0, "seconds": 4.0, "whole_seconds": 4.0}
    counts = {"num_frames": 101, "num_shown": 50, "frame_rate": 25.0, "still_bytes": 9000, "film_bytes": 60000}
    return PictureFacts(video_id=video_id, **(values | counts | changes))


def page_of(videos: list[GalleryVideo], about: GalleryAbout | None = None, *, failures: dict[str, str] | None = None) -> str:
    facts = {video.video_id: facts_of(video.video_id) for video in videos if video.status != "failed"}
    names = {video_id: f"name{k}" for k, video_id in enumerate(facts)}
    return render_page(about or GalleryAbout("data", len(videos)), videos, facts, names, failures or {})


def data_of(text: str) -> Any:
    return json.loads(Parsed(text).texts["script"][0])


def hostile_videos() -> list[GalleryVideo]:
    said = Prediction(HOSTILE[1], ((HOSTILE[1], 0.6), (HOSTILE[0], 0.4)))
    return [GalleryVideo(f"{name}/v", name, "test", "damaged", f"lost: {name}", said) for name in HOSTILE]


def test_hostile_names_are_data_and_texts_and_nothing_else() -> None:
    videos = hostile_videos()
    text = page_of(videos, GalleryAbout(HOSTILE[0], 9, 1, HOSTILE[2], HOSTILE[3]))
    plain = page_of([GalleryVideo("a/v", "a", "test", prediction=Prediction("a", (("a", 1.0),)))], GalleryAbout("data", 1, 1, "run", "row"))
    assert [tag for tag, _ in Parsed(text).elements] == [tag for tag, _ in Parsed(plain).elements], "no name makes an element"
    assert [video["id"] for video in data_of(text)["videos"]] == [video.video_id for video in videos]
    assert Parsed(text).texts["title"] == [f"Gallery of {HOSTILE[0]}"]
    shown = "".join(f"{video['label']}{video['reason']}" for video in data_of(text)["videos"]) + "".join(data_of(text)["classes"])
    assert shown.isprintable()
    assert "\\u202e" in shown


def test_the_policy_allows_the_own_style_and_script_and_pictures_of_the_folder_only() -> None:
    parsed = Parsed(page_of(hostile_videos()))
    (policy,) = [attributes["content"] for tag, attributes in parsed.elements if attributes.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    for name, (own,) in (("script-src", parsed.texts["script"][1:]), ("style-src", parsed.texts["style"])):
        assert rules[name] == f"'sha256-{base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()}'"
    assert rules["default-src"] == "'none'"
    assert not re.search(r"https?:|\*|unsafe", policy)
    for _, attributes in parsed.elements:
        assert not any(name.startswith("on") or name == "style" for name in attributes), "the policy would refuse it"
        address = attributes.get("src") or attributes.get("href") or "#"
        assert address.startswith(("#", "data:")), "everything is in the page"


def test_the_data_say_what_the_script_shows() -> None:
    said = Prediction("swim", (("swim", 0.6004), ("run", 0.3996)))
    videos = [GalleryVideo("run/a", "run", "test", prediction=said), GalleryVideo("swim/b", "swim", "", "failed", "no frame")]
    data = data_of(page_of(videos, failures={"run/a": "it is damaged"}))
    assert data["classes"] == ["run", "swim"]
    first, second = data["videos"]
    assert (first["class"], first["subset"], first["scores"]) == (0, "test", [[1, 60.0], [0, 40.0]])
    assert first["reason"] == "it could not be drawn: it is damaged"
    assert first["pictures"]["name"] == "name0"
    assert (first["pictures"]["speed"], first["pictures"]["cut"]) == (2.34, False)
    assert second == {"id": "swim/b", "label": "swim/b", "class": 1, "subset": "", "status": "failed", "reason": "no frame"}


def test_a_film_that_is_cut_is_marked() -> None:
    video = GalleryVideo("run/a", "run")
    facts = {"run/a": facts_of("run/a", seconds=5.0, whole_seconds=10.3, start_seconds=2.6)}
    (shown,) = data_of(render_page(GalleryAbout("data", 1), [video], facts, {"run/a": "name"}, {}))["videos"]
    pictures = shown["pictures"]
    assert (pictures["cut"], pictures["seconds"], pictures["whole"], pictures["start"]) == (True, 5.0, 10.3, 2.6)


@pytest.mark.parametrize(
    ("num_known", "split", "sentence"),
    [
        (13320, 1, "A sample of 2 of 13,320 videos, spread over all classes and both halves of split 1."),
        (9, None, "A sample of 2 of 9 videos, spread over all classes."),
        (2, 2, "All 2 videos, divided by split 2."),
        (2, None, "All 2 videos."),
    ],
)
def test_the_page_says_whether_it_is_a_sample(num_known: int, split: int | None, sentence: str) -> None:
    videos = [GalleryVideo("run/a", "run"), GalleryVideo("run/b", "run")]
    assert sentence in page_of(videos, GalleryAbout("data", num_known, split))


def test_filters_that_would_do_nothing_are_left_out() -> None:
    def filters(videos: list[GalleryVideo]) -> set[str]:
        return {attributes.get("id") or "" for tag, attributes in Parsed(page_of(videos)).elements if tag == "select"}

    assert filters([GalleryVideo("run/a", "run")]) == {"class", "status", "order"}
    said = Prediction("run", (("run", 1.0),))
    assert filters([GalleryVideo("run/a", "run", "test", prediction=said)]) == {"class", "subset", "status", "answer", "predicted", "order"}


@pytest.mark.parametrize("video_id", [f"{name}/v" for name in HOSTILE])
def test_a_link_carries_the_id_as_encode_uri_component_writes_it(video_id: str) -> None:
    address = link_to_video(video_id)
    page, _, encoded = address.partition("#video=")
    assert page == "index.html"
    assert unquote(encoded) == video_id
    assert re.fullmatch(r"([A-Za-z0-9\-_.!~*'()]|%[0-9A-F]{2})*", encoded)
