"""The report in headless Chromium, on a laptop's and a phone's width: nothing in the console, no request, nothing wider than the page."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from hostile_results import CLASSES, make_evaluation, make_hostile_root, make_result

from flowkit.model.report.page import visible, write_report

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Chromium and its chromedriver (Debian: chromium, chromium-driver)"),
]

QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync", "--disable-component-update")
# What sticks out of the page at the right. What scrolls in a box of its own may be wider than that box.
WIDER = """
const width = document.documentElement.clientWidth, found = [];
for (const element of document.querySelectorAll("body *")) {
  const out = element.getBoundingClientRect().right > width + 1;
  if (out && !element.parentElement.closest(".scroll")) found.push(element.outerHTML.slice(0, 90));
}
return [width, document.documentElement.scrollWidth, found];
"""


class Browser:
    """A session of chromedriver, spoken to in plain HTTP (the W3C WebDriver protocol)."""

    def __init__(self, profile: Path, *, width: int) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._process = subprocess.Popen([DRIVER, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._address = f"http://127.0.0.1:{port}"
        options = {
            "binary": CHROMIUM,
            "args": [*QUIET, "--disable-background-networking", f"--user-data-dir={profile}"],
            "mobileEmulation": {"deviceMetrics": {"width": width, "height": 800, "pixelRatio": 1.0, "touch": False}},
        }
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
        try:
            self._wait(60)
            self._address += "/session/" + self.ask("/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise

    def ask(self, path: str, body: dict[str, Any] | None = None, *, method: str = "POST") -> Any:
        data = None if method != "POST" else json.dumps(body or {}).encode()
        request = urllib.request.Request(self._address + path, data, {"Content-Type": "application/json"}, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=120) as answer:
            return json.loads(answer.read())["value"]

    def run(self, script: str) -> Any:
        return self.ask("/execute/sync", {"script": script, "args": []})

    def log(self, kind: str) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = self.ask("/se/log", {"type": kind})
        return entries

    def close(self) -> None:
        try:
            self.ask("", method="DELETE")
        finally:
            self._process.terminate()
            self._process.wait()

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while True:
            try:
                self.ask("/status", method="GET")
                return
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dataset = make_hostile_root(tmp_path_factory.mktemp("browser"))
    folder = tmp_path_factory.mktemp("report")
    one, two = make_result(dataset), make_result(dataset, 2, seed=1)
    write_report(folder, one, make_evaluation(one, two), dataset, run="default")
    return folder / "report.html"


@pytest.fixture(params=[1280, 390])
def browser(request: pytest.FixtureRequest, report: Path, tmp_path: Path) -> Iterator[Browser]:
    session = Browser(tmp_path / "profile", width=request.param)
    try:
        session.ask("/url", {"url": report.as_uri()})
        yield session
    finally:
        session.close()


def test_the_page_opens_without_errors_requests_or_overflow(browser: Browser, request: pytest.FixtureRequest, report: Path) -> None:
    assert browser.log("browser") == []
    sent = [json.loads(entry["message"])["message"] for entry in browser.log("performance")]
    requests = [event["params"] for event in sent if event["method"] == "Network.requestWillBeSent"]
    own = {one["request"]["url"] for one in requests if one["documentURL"] == report.as_uri()}  # not those of the empty tab before it
    assert report.as_uri() in own
    assert {address for address in own if not address.startswith("data:")} == {report.as_uri()}
    width, scroll_width, wider = browser.run(WIDER)
    assert width == request.node.callspec.params["browser"]
    assert scroll_width == width
    assert wider == []
    broken = "return [...document.images].filter(image => !image.complete || !image.naturalWidth).map(image => image.alt)"
    assert browser.run(broken) == []
    assert browser.run("return document.scripts.length") == 0
    text = browser.run("return document.body.textContent")
    assert all(str(visible(name)) in text for name in CLASSES)
    assert browser.run("for (const part of document.querySelectorAll('details')) part.open = true;" + WIDER)[1:] == [width, []]


def test_the_policy_keeps_an_injected_script_and_a_foreign_picture_out(browser: Browser) -> None:
    browser.log("browser")
    browser.run(
        "const script = document.createElement('script'); script.textContent = 'window.ran = true'; document.body.append(script);"
        "const image = new Image(); image.src = 'http://127.0.0.1:9/x.png'; document.body.append(image);"
    )
    assert browser.run("return window.ran === undefined")
    assert sum("Content Security Policy" in entry["message"] for entry in browser.log("browser")) == 2
