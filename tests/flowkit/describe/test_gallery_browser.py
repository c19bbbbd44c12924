"""The gallery in headless Chromium: no console message, no request outside its folder, filters, films, keyboard and links."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, needs_browser
from command_lines import run_flowkit
from hostile_results import CLASSES, make_evaluation, make_hostile_root, make_result

from flowkit.dataset.root import Dataset
from flowkit.describe.gallery_files import PictureFacts
from flowkit.describe.gallery_page import GalleryAbout, link_to_video, render_page
from flowkit.describe.gallery_videos import GalleryVideo, Prediction
from flowkit.model.evaluation.results import write_results
from flowkit.model.runs.places import report_folder
from flowkit.words import printable_name

pytestmark = needs_browser

WIDTHS = [1280, 400]
NUM_MANY = 2000
SHOWN = (
    "return [...document.querySelectorAll('.card')].filter(card => card.checkVisibility())"
    ".map(card => card.querySelector('.name').textContent)"
)
LOADED = "return [...document.images].filter(image => image.complete && image.naturalWidth).length"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A data root whose names are hostile, with the results of a run, a video that failed and one that was damaged."""
    dataset = make_hostile_root(tmp_path_factory.mktemp("hostile") / "<b>root #1 %41")
    shutil.rmtree(dataset.root / "clips")  # its shard has them
    result = make_result(dataset)
    write_results(report_folder(dataset.root, "default", 1), result, make_evaluation(result), table="")
    failed = [{"video_id": "jump/<i>x</i>", "status": "undecodable", "error": "no <b>frame</b>"}]
    damaged = [{"video_id": dataset.split(1).test[0].video_id, "status": "damaged", "error": "3 decode errors"}]
    report = {"format": "flowkit-extract-report", "format_version": 1, "done": damaged, "skipped": [], "failed": failed}
    (dataset.root / "extract-report.json").write_text(json.dumps(report))
    return dataset


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> Path:
    """The page of a gallery of that root, in a folder whose name is hostile too."""
    output = tmp_path_factory.mktemp("gallery") / "a #1 %41?"
    ended = run_flowkit("inspect", "--gallery", "--data", dataset.root, "--output", output, "--jobs", 1)
    assert ended.code == 0, ended.err
    return output / "index.html"


@pytest.fixture(scope="module")
def ids(gallery: Path) -> list[str]:
    """The ids of the videos of that page, in its order."""
    text = gallery.read_text(encoding="utf-8")
    data = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    return [video["id"] for video in data["videos"]]


def wait_for(holds: Callable[[], Any]) -> Any:
    """Wait for a state of the page that lasts, and return what `holds` says of it."""
    for _ in range(600):
        if found := holds():
            return found
        time.sleep(0.1)
    raise AssertionError("the page never came into that state")


def choose(browser: Browser, name: str, value: str) -> None:
    """Give a filter a value, as a user does, and wait for the frame in which the page applies it."""
    script = (
        "const [name, value, done] = arguments, field = document.getElementById(name); field.value = value;"
        "for (const kind of ['input', 'change']) field.dispatchEvent(new Event(kind, {bubbles: true}));"
        "requestAnimationFrame(() => done(null));"
    )
    browser.ask("/execute/async", {"script": script, "args": [name, value]})


def shown_after(browser: Browser, name: str, value: str, number: int) -> list[str]:
    """Choose a value of a filter, and return the names of the cards when there are so many."""
    choose(browser, name, value)
    wait_for(lambda: len(browser.run(SHOWN)) == number)
    shown: list[str] = browser.run(SHOWN)
    return shown


def press(browser: Browser, key: str, *, code: int) -> None:
    for kind in ("rawKeyDown", "keyUp"):
        browser.command("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)


def point_at(browser: Browser, selector: str) -> None:
    """Move the mouse to the middle of an element."""
    box = browser.run(
        f"const r = document.querySelector({json.dumps(selector)}).getBoundingClientRect(); return [r.x, r.y, r.width, r.height]"
    )
    browser.command("Input.dispatchMouseEvent", type="mouseMoved", x=box[0] + box[2] / 2, y=box[1] + box[3] / 2, pointerType="mouse")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_opens_without_messages_or_overflow_and_asks_for_its_own_pictures_only(
    browser: Browser, gallery: Path, ids: list[str], width: int, dark: bool
) -> None:
    browser.open(gallery, width=width, dark=dark)
    assert len(ids) == 15
    assert browser.run(SHOWN) == [printable_name(video_id) for video_id in ids]
    assert browser.sticking_out() == []
    assert {text: ratio for text, ratio in browser.text_contrasts().items() if ratio < 4.5} == {}
    browser.run("document.querySelector('.card').scrollIntoView()")
    wait_for(lambda: browser.run(LOADED) >= 2)  # the wheel, and at least the first still
    assert browser.log("browser") == []
    pictures = (gallery.parent / "pictures").as_uri()
    assert {address for address in browser.requests(gallery) if not address.startswith(pictures)} == {gallery.as_uri()}
    text = browser.run("return document.body.textContent")
    assert all(printable_name(name) in text for name in CLASSES)
    assert browser.run("return document.querySelectorAll('main b, main i, main script').length") == 0


def test_the_policy_keeps_other_scripts_and_addresses_out(browser: Browser, gallery: Path) -> None:
    browser.open(gallery)
    browser.inject()
    assert browser.run("return window.ran === undefined")
    assert sum("Content Security Policy" in entry["message"] for entry in browser.log("browser")) == 2


def test_filters_and_search_show_what_they_say(browser: Browser, gallery: Path, ids: list[str]) -> None:
    browser.open(gallery)
    assert shown_after(browser, "status", "failed", 1) == ["jump/<i>x</i>"]
    assert browser.run("return document.getElementById('count').textContent") == "1 video of 15 shown."
    assert shown_after(browser, "status", "damaged", 1) == [printable_name(ids[0])]
    browser.run("document.getElementById('filters').reset()")
    wait_for(lambda: len(browser.run(SHOWN)) == 15)
    (named,) = shown_after(browser, "search", "FOLDER3 <i>10", 1)
    assert named.startswith("folder3/<i>10</i>")
    shown_after(browser, "search", "", 15)
    assert len(shown_after(browser, "class", "2", 2)) == 2
    choose(browser, "class", "")
    assert shown_after(browser, "slowest", "1000", 0) == []
    assert browser.run("return [...document.querySelectorAll('h2')].every(heading => !heading.checkVisibility())"), (
        "no heading without a video"
    )
    choose(browser, "slowest", "")
    shown_after(browser, "search", "", 15)


def test_predictions_are_shown_and_filtered(browser: Browser, gallery: Path, dataset: Dataset) -> None:
    row = make_result(dataset).rows["ST-ResNet*"]
    num_correct = row.num_correct
    browser.open(gallery)
    assert len(shown_after(browser, "answer", "correct", num_correct)) == num_correct
    assert browser.run("return document.querySelectorAll('.card:not([hidden]) .correct').length") == num_correct
    wrong = len(row.ranks) - num_correct
    assert len(shown_after(browser, "answer", "wrong", wrong)) == wrong
    assert len(shown_after(browser, "answer", "none", 15 - len(row.ranks))) == 15 - len(row.ranks)
    choose(browser, "answer", "")
    predicted = int(row.scores.argmax(1)[0])
    shown_after(browser, "predicted", str(predicted), int((row.scores.argmax(1) == predicted).sum()))


def test_the_order_by_speed_is_flat_and_by_class_comes_back(browser: Browser, gallery: Path, ids: list[str]) -> None:
    browser.open(gallery)
    speeds = (
        "return [...document.querySelectorAll('.card')].map(card => parseFloat(/([0-9.]+)\\spx/.exec(card.textContent)?.[1] ?? 'Infinity'))"
    )
    choose(browser, "order", "slow")
    slow = [speed for speed in browser.run(speeds) if speed is not None]
    assert slow == sorted(slow)
    assert len(slow) == 14
    choose(browser, "order", "fast")
    assert [speed for speed in browser.run(speeds) if speed is not None] == slow[::-1]
    choose(browser, "order", "")
    assert browser.run(SHOWN) == [printable_name(video_id) for video_id in ids]


def test_a_film_plays_while_the_mouse_points_at_it(browser: Browser, gallery: Path) -> None:
    browser.open(gallery)
    point_at(browser, "h1")
    assert browser.run("return document.querySelectorAll('video').length") == 0
    point_at(browser, ".card .picture")
    wait_for(lambda: browser.run("return document.querySelector('.card video')?.currentTime > 0"))
    point_at(browser, "h1")
    wait_for(lambda: browser.run("return document.querySelectorAll('video').length") == 0)
    assert browser.log("browser") == []


def test_the_keyboard_plays_films_opens_videos_and_comes_back(browser: Browser, gallery: Path, ids: list[str]) -> None:
    browser.open(gallery)
    browser.run("document.getElementById('videos').focus()")
    press(browser, "Tab", code=9)
    assert browser.run("return document.activeElement.hash") == "#" + link_to_video(ids[0]).partition("#")[2]
    wait_for(lambda: browser.run("return document.activeElement.querySelector('video')?.currentTime > 0"))
    browser.run("document.activeElement.click()")
    wait_for(lambda: browser.run("return document.getElementById('detail').open"))
    assert browser.run("return document.getElementById('detail-title').textContent") == printable_name(ids[0])
    assert browser.run("return document.getElementById('detail').contains(document.activeElement)")
    browser.run("document.getElementById('after').click()")
    assert browser.run("return document.getElementById('detail-title').textContent") == printable_name(ids[1])
    press(browser, "Escape", code=27)
    wait_for(lambda: not browser.run("return document.getElementById('detail').open"))
    assert browser.run("return location.hash") == ""
    assert browser.run("return document.activeElement.hash") == "#" + link_to_video(ids[1]).partition("#")[2]
    assert browser.log("browser") == []


def test_nothing_moves_by_itself_where_motion_is_not_wanted(browser: Browser, gallery: Path, ids: list[str]) -> None:
    browser.open(gallery)
    browser.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
    try:
        point_at(browser, ".card .picture")
        browser.run("document.getElementById('videos').focus()")
        press(browser, "Tab", code=9)
        assert browser.run("return document.querySelectorAll('video').length") == 0
        assert browser.run("return document.querySelector('.play').checkVisibility()")
        browser.run("document.querySelector('.play').click()")
        wait_for(lambda: browser.run("return document.querySelector('.card video')?.currentTime > 0"))
        assert browser.run("return document.querySelector('.play').getAttribute('aria-pressed')") == "true"
        browser.run("document.querySelector('.play').click()")
        assert browser.run("return document.querySelectorAll('video').length") == 0
        browser.run("location.hash = arguments[0]", link_to_video(ids[0]).partition("#")[2])
        wait_for(lambda: browser.run("return document.getElementById('detail').open"))
        assert browser.run("return document.querySelector('#stage video').paused")
    finally:
        browser.command("Emulation.setEmulatedMedia", features=[])


@pytest.mark.parametrize(("width", "k"), [*((1280, k) for k in range(15)), (400, 0), (400, 14)])
def test_a_link_opens_its_video_whatever_its_name(browser: Browser, gallery: Path, ids: list[str], width: int, k: int) -> None:
    browser.open(gallery, width=width, fragment="#" + link_to_video(ids[k]).partition("#")[2])
    assert browser.run("return document.getElementById('detail').open")
    assert browser.run("return document.getElementById('detail-title').textContent") == printable_name(ids[k])
    assert browser.run("return document.querySelector('.card.opened .name').textContent") == printable_name(ids[k])
    assert browser.sticking_out() == []
    assert {text: ratio for text, ratio in browser.text_contrasts().items() if ratio < 4.5} == {}
    assert browser.log("browser") == []


def test_a_link_reaches_a_video_that_filters_hide_and_says_when_there_is_none(browser: Browser, gallery: Path, ids: list[str]) -> None:
    browser.open(gallery)
    shown_after(browser, "status", "failed", 1)
    browser.run("location.hash = arguments[0]", link_to_video(ids[3]).partition("#")[2])
    wait_for(lambda: browser.run("return document.getElementById('detail').open"))
    assert browser.run("return document.querySelector('.card.opened').checkVisibility()")
    browser.run("location.hash = arguments[0]", link_to_video("no/<b>such</b>").partition("#")[2])
    wait_for(lambda: browser.run("return document.getElementById('missing').checkVisibility()"))
    assert not browser.run("return document.getElementById('detail').open")
    said = browser.run("return document.getElementById('missing').textContent")
    assert said == "The video “no/<b>such</b>” is not in this gallery. It may have been removed or renamed."


def test_a_film_that_is_missing_is_said(browser: Browser, gallery: Path, ids: list[str], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(gallery.parent, tmp_path / "copy")) / "index.html"
    for film in (copy.parent / "pictures").glob("*.webm"):
        film.unlink()
    browser.open(copy, fragment="#" + link_to_video(ids[0]).partition("#")[2])
    wait_for(lambda: "cannot play the film" in browser.run("return document.getElementById('stage').textContent"))


def test_of_thousands_of_videos_only_those_in_sight_are_loaded(browser: Browser, gallery: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(gallery.parent, tmp_path / "many"))
    page = write_many(folder, NUM_MANY)
    browser.open(page)
    wait_for(lambda: browser.run("return document.querySelectorAll('.card').length") == NUM_MANY)
    first = wait_for(lambda: browser.run(LOADED))
    assert first < NUM_MANY / 10
    browser.run("scrollTo(0, document.documentElement.scrollHeight)")
    last = "const card = [...document.querySelectorAll('.card')].at(-1).querySelector('img'); return card.complete && card.naturalWidth > 0"
    wait_for(lambda: browser.run("scrollTo(0, document.documentElement.scrollHeight); " + last))
    assert browser.run(LOADED) < NUM_MANY / 4, "those in between were passed over"
    browser.open(page, fragment=f"#video=class{(NUM_MANY - 1) // 20:02d}%2Fvideo{NUM_MANY - 1:04d}")
    assert browser.run("return document.getElementById('detail').open"), "the last card is made when it is needed"
    assert browser.run("return document.getElementById('after').disabled && !document.getElementById('before').disabled")
    assert browser.log("browser") == []


def write_many(folder: Path, number: int) -> Path:
    """Write a page of so many videos into a gallery; their pictures are copies of one that is there."""
    name = sorted((folder / "pictures").glob("*.jpg"))[0].stem
    facts = PictureFacts("", 2.0, 5.0, 64, 24, 0.0, 0.5, 0.5, 12, 6, 25.0, 1, 1)
    said = Prediction("class00", (("class00", 0.9), ("class01", 0.1)))
    videos = [GalleryVideo(f"class{k // 20:02d}/video{k:04d}", f"class{k // 20:02d}", "test", prediction=said) for k in range(number)]
    names = {video.video_id: f"video{k}" for k, video in enumerate(videos)}
    for other in names.values():
        for suffix in (".jpg", ".webm"):
            os.link(folder / "pictures" / f"{name}{suffix}", folder / "pictures" / f"{other}{suffix}")
    page = folder / "index.html"
    page.write_text(render_page(GalleryAbout("data", number, 1, "run", "row"), videos, dict.fromkeys(names, facts), names, {}))
    return page
