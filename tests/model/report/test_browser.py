"""The report in headless Chromium, on a laptop's and a phone's width: nothing in the console, no request, nothing wider than the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from browser import Browser, needs_browser
from hostile_results import CLASSES, make_evaluation, make_hostile_root, make_result

from flowkit.model.report.page import visible, write_report

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = needs_browser

WIDTHS = [1280, 390]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dataset = make_hostile_root(tmp_path_factory.mktemp("browser"))
    folder = tmp_path_factory.mktemp("report")
    one, two = make_result(dataset), make_result(dataset, 2, seed=1)
    write_report(folder, one, make_evaluation(one, two), dataset, run="default")
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    session = Browser(tmp_path_factory.mktemp("profile"))
    try:
        yield session
    finally:
        session.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_opens_without_errors_requests_or_overflow(browser: Browser, report: Path, width: int) -> None:
    browser.open(report, width=width)
    assert browser.log("browser") == []
    assert browser.requests(report) == {report.as_uri()}
    assert browser.run("return window.innerWidth") == width
    assert browser.sticking_out() == []
    broken = "return [...document.images].filter(image => !image.complete || !image.naturalWidth).map(image => image.alt)"
    assert browser.run(broken) == []
    assert browser.run("return document.scripts.length") == 0
    text = browser.run("return document.body.textContent")
    assert all(str(visible(name)) in text for name in CLASSES)
    browser.run("for (const part of document.querySelectorAll('details')) part.open = true;")
    assert browser.sticking_out() == []


def test_the_policy_keeps_an_injected_script_and_a_foreign_picture_out(browser: Browser, report: Path) -> None:
    browser.open(report)
    browser.run(
        "const script = document.createElement('script'); script.textContent = 'window.ran = true'; document.body.append(script);"
        "const image = new Image(); image.src = 'http://127.0.0.1:9/x.png'; document.body.append(image);"
    )
    assert browser.run("return window.ran === undefined")
    assert sum("Content Security Policy" in entry["message"] for entry in browser.log("browser")) == 2
