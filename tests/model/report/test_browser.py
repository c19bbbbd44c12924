"""The report in headless Chromium, on a laptop's and a phone's width, light and dark: nothing in the console, no request, no overflow."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from browser import Browser, contrast, needs_browser
from hostile_results import CLASSES, make_evaluation, make_gallery, make_hostile_root, make_result
from PIL import Image

from flowkit.describe.html_page import visible
from flowkit.model.evaluation.row_results import RowResult
from flowkit.model.report.page import write_report

if TYPE_CHECKING:
    from pathlib import Path

    from flowkit.dataset.root import Dataset

pytestmark = needs_browser

WIDTHS = [1280, 390]
SCHEMES = [False, True]
BOX = "const box = arguments[0].getBoundingClientRect(); return [box.left, box.right, box.top + scrollY, box.width, box.height]"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_hostile_root(tmp_path_factory.mktemp("browser"))


@pytest.fixture(scope="module")
def report(dataset: Dataset) -> Path:
    """A report with a row without mistakes and one without a correct video, beside a gallery."""
    folder = dataset.root / "reports" / "default" / "split1"
    one, two = make_result(dataset), make_result(dataset, 2, seed=1)
    make_gallery(folder.parent.parent / "gallery", one.video_ids[1:])
    perfect = np.eye(len(CLASSES))[one.labels]
    rows = one.rows | {"appearance": RowResult.of(perfect, one.labels), "motion": RowResult.of(-perfect, one.labels)}
    write_report(folder, replace(one, rows=rows), make_evaluation(one, two), dataset, run="default")
    return folder / "report.html"


@pytest.fixture(scope="module")
def long_report(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on as many videos as HMDB51 has in a test list."""
    num = 1530
    draw = np.random.default_rng(0)
    labels = np.arange(num) % len(CLASSES)
    rows = {}
    for name in ("appearance", "motion"):
        scores = draw.normal(size=(num, len(CLASSES)))
        scores[np.arange(num), labels] += 2
        rows[name] = RowResult.of(scores, labels)
    ids = tuple(f"run/v{number:04}" for number in range(num))
    result = replace(make_result(dataset), video_ids=ids, labels=labels, rows=rows, stream_scores={}, checkpoints={}, provenances={})
    folder = tmp_path_factory.mktemp("long")
    write_report(folder, result, make_evaluation(result), dataset, run="default")
    return folder / "report.html"


@pytest.mark.parametrize("dark", SCHEMES, ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_opens_without_errors_requests_or_overflow(browser: Browser, report: Path, width: int, dark: bool) -> None:
    browser.open(report, width=width, dark=dark)
    assert browser.log("browser") == []
    assert browser.requests(report) == {report.as_uri()}
    assert browser.run("return window.innerWidth") == width
    assert browser.sticking_out() == []
    broken = "return [...document.images].filter(image => !image.complete || !image.naturalWidth).map(image => image.alt)"
    assert browser.run(broken) == []
    text = browser.run("return document.body.textContent")
    assert all(str(visible(name)) in text for name in CLASSES)
    browser.run("for (const part of document.querySelectorAll('details')) part.open = true;")
    assert browser.sticking_out() == []


def test_the_policy_keeps_an_injected_script_and_a_foreign_picture_out(browser: Browser, report: Path) -> None:
    browser.open(report)
    browser.inject()
    assert browser.run("return window.ran === undefined")
    assert sum("Content Security Policy" in entry["message"] for entry in browser.log("browser")) == 2


# -- light and dark ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dark", SCHEMES, ids=["light", "dark"])
def test_text_has_a_contrast_of_4_5_and_marks_of_3(browser: Browser, report: Path, dark: bool) -> None:
    browser.open(report, dark=dark)
    browser.run("for (const part of document.querySelectorAll('details')) part.open = true;")
    paper = browser.style("body", "backgroundColor")
    assert (contrast(paper, "rgb(0, 0, 0)") < 1.5) == dark
    texts = browser.text_contrasts()
    assert len(texts) > 5
    assert {text: value for text, value in texts.items() if value < 4.5} == {}
    grounds = {"plain": paper, "main": browser.style("tr.main td", "backgroundColor"), "track": browser.style(".track", "backgroundColor")}
    marks = {name: browser.style(name, "backgroundColor") for name in (".range", ".fill")} | {
        "dot": browser.style(".dot", "backgroundColor"),
        "ends of the scale": browser.style(".scale", "borderLeftColor"),
        "bar's track": browser.style(".track", "borderLeftColor"),
        "fields": browser.style("#video-search", "borderLeftColor"),
    }
    assert {(m, g): contrast(marks[m], grounds[g]) for m in marks for g in grounds if contrast(marks[m], grounds[g]) < 3} == {}
    assert contrast(marks["dot"], marks[".range"]) >= 3


@pytest.mark.parametrize("dark", SCHEMES, ids=["light", "dark"])
def test_plots_have_the_colour_of_the_page_and_their_lines_stand_out(browser: Browser, report: Path, dark: bool) -> None:
    browser.open(report, dark=dark)
    plot = browser.run(
        "const box = document.querySelector('img.plot').getBoundingClientRect();"
        "return {x: box.x, y: box.y + scrollY, width: box.width, height: box.height}"
    )
    with Image.open(io.BytesIO(browser.screenshot(clip=plot))) as picture:
        pixels = np.array(picture.convert("RGB"))
    colours, times = np.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)
    ground = rgb(colours[times.argmax()])
    assert contrast(ground, browser.style("body", "backgroundColor")) < 1.1
    bluish = pixels[(pixels[..., 2].astype(int) - pixels[..., 0] > 90)]
    assert len(bluish) > 100, "the line of the appearance stream is blue in both schemes"
    assert np.percentile([contrast(rgb(pixel), ground) for pixel in bluish], 90) >= 3
    most = max(contrast(rgb(pixel), ground) for pixel in colours)
    assert most > 10, "axes and texts"


def rgb(pixel: Any) -> str:
    return f"rgb({', '.join(map(str, pixel.tolist()))})"


def test_a_dark_page_is_printed_in_light_colours(browser: Browser, report: Path) -> None:
    browser.open(report, dark=True)
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.command("Emulation.setEmulatedMedia", media="print", features=features)
    try:
        assert browser.style("body", "backgroundColor") == "rgb(255, 255, 255)"
        assert browser.style("img.plot", "filter") == "none"
        assert browser.style("#video-filters", "display") == "none"
        assert browser.printed().startswith(b"%PDF")
    finally:
        browser.command("Emulation.setEmulatedMedia", media="", features=features)


# -- tables ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", WIDTHS)
def test_dots_at_0_and_100_percent_are_whole(browser: Browser, report: Path, width: int) -> None:
    browser.open(report, width=width)
    dots = browser.run(
        "return [...document.querySelectorAll('.dot')].map(dot => { const own = dot.getBoundingClientRect(),"
        " cell = dot.closest('td').getBoundingClientRect(); return [dot.style.left, own.left - cell.left, cell.right - own.right]; })"
    )
    assert {"0%", "100%"} <= {left for left, _, _ in dots}
    assert all(min(before, after) >= 0 for _, before, after in dots)


def test_no_table_of_results_scrolls_on_a_laptop(browser: Browser, report: Path) -> None:
    browser.open(report, width=1280)
    boxes = "[...document.querySelectorAll('#results .scroll, #classes .scroll')]"
    assert browser.run(f"return {boxes}.filter(box => box.scrollWidth > box.clientWidth + 1).length") == 0


def test_what_scrolls_sideways_says_so_and_keeps_the_names_of_its_rows_in_sight(browser: Browser, report: Path) -> None:
    for width in WIDTHS:
        browser.open(report, width=width)
        boxes = browser.run(
            "return [...document.querySelectorAll('.scroll')].filter(box => box.checkVisibility()).map(box => [box.ariaLabel,"
            " box.scrollWidth > box.clientWidth + 1, box.previousElementSibling.classList.contains('hint') &&"
            " !box.previousElementSibling.hidden, getComputedStyle(box).backgroundImage.split('linear-gradient').length])"
        )
        assert all(scrolls == told for _, scrolls, told, _ in boxes), boxes
        assert {num for *_, num in boxes} == {5}, "four shades"
    assert any(scrolls for _, scrolls, _, _ in boxes)
    kept = browser.run(
        "const box = document.querySelector('#results .scroll'); box.scrollLeft = 300;"
        "return [box.scrollLeft, box.querySelector('tbody th').getBoundingClientRect().left - box.getBoundingClientRect().left]"
    )
    assert kept == [300, 0]


FIRST = "return [...document.querySelectorAll('#video-rows tr')].map(row => [...row.cells].map(cell => cell.textContent))"
HTML = "return document.getElementById('video-rows').innerHTML.replace(/\\n/g, '')"
COUNT = "return document.getElementById('video-count').textContent"


def choose(browser: Browser, **values: str) -> None:
    for name, value in values.items():
        browser.run(
            "const field = document.getElementById('video-' + arguments[0]); field.value = arguments[1];"
            "field.dispatchEvent(new Event(field.type === 'search' ? 'input' : 'change'))",
            name,
            value,
        )


def test_the_script_shows_the_same_rows_as_the_page_without_it(browser: Browser, report: Path) -> None:
    browser.open(report, scripts=False)
    plain, html = browser.run(FIRST), browser.run(HTML)
    assert not browser.run("return document.getElementById('video-filters').checkVisibility()")
    browser.open(report)
    assert browser.run(FIRST) == plain
    assert browser.run(HTML) == html, "links into the gallery too"
    assert browser.run("return document.getElementById('video-filters').checkVisibility()")
    addresses = browser.run("return [...document.querySelectorAll('#video-rows a')].map(link => link.href)")
    gallery = (report.parent.parent.parent / "gallery" / "index.html").as_uri()
    assert len(addresses) == len(plain) - 1
    assert all(address.startswith(f"{gallery}#video=folder") for address in addresses)


def test_many_videos_are_searched_filtered_sorted_and_leafed_through(browser: Browser, long_report: Path) -> None:
    browser.open(long_report)
    assert browser.log("browser") == []
    assert len(browser.run(FIRST)) == 100
    assert browser.run(COUNT) == "1 to 100 of 1,530 videos"
    browser.run("document.getElementById('video-after').click()")
    assert browser.run(COUNT) == "101 to 200 of 1,530 videos"
    choose(browser, search="V015")
    assert browser.run(COUNT) == "10 of 1,530 videos"
    assert all("v015" in row[0] for row in browser.run(FIRST))
    browser.run("document.querySelector('#video-table thead button').click()")
    ids = [row[0] for row in browser.run(FIRST)]
    assert ids == sorted(ids)
    browser.run("document.querySelector('#video-table thead button').click()")
    assert [row[0] for row in browser.run(FIRST)] == ids[::-1]
    assert browser.run("return [...document.querySelectorAll('#video-table th')].map(head => head.ariaSort)")[0] == "descending"
    browser.run("document.getElementById('video-reset').click()")
    choose(browser, network="1", result="wrong", predicted="6")
    rows = browser.run(FIRST)
    assert rows
    assert all(row[3].startswith(f"✗ {CLASSES[6]}") for row in rows)
    shares = [float(row[3].split()[-2]) for row in rows]
    browser.run("document.querySelectorAll('#video-table thead button')[3].click()")
    again = [float(row[3].split()[-2]) for row in browser.run(FIRST)]
    assert again == sorted(shares, reverse=True)
    choose(browser, result="correct")
    assert browser.run(COUNT).endswith("of 1,530 videos")
    assert all(row[1] == CLASSES[6] and row[3].startswith("✓ correct") for row in browser.run(FIRST))
    choose(browser, search="nothing at all")
    assert browser.run(FIRST) == []
    assert browser.run(COUNT) == "0 of 1,530 videos"
    assert browser.log("browser") == []
