"""Headless Chromium for tests of pages: chromedriver, spoken to in plain HTTP (the W3C WebDriver protocol)."""

from __future__ import annotations

import base64
import json
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
needs_browser = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Chromium and its chromedriver (Debian: chromium, chromium-driver)"),
]

QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync", "--disable-component-update")
# What sticks out of the page at the right. What scrolls in a box of its own may be wider than that box.
_WIDER = """
const width = document.documentElement.clientWidth, found = [];
for (const element of document.querySelectorAll("body *")) {
  const out = element.getBoundingClientRect().right > width + 1;
  if (out && !element.parentElement.closest(".scroll")) found.push(element.outerHTML.slice(0, 90));
}
if (document.documentElement.scrollWidth > width) found.push(`the page, by ${document.documentElement.scrollWidth - width} px`);
return found;
"""
# Each text that is shown, with its colour and the first opaque background behind it, by its computed styles.
_TEXTS = """
const found = {};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let node; (node = walker.nextNode()); ) {
  const element = node.parentElement;
  if (!node.textContent.trim() || ["SCRIPT", "STYLE", "NOSCRIPT"].includes(element.tagName) || !element.checkVisibility()) continue;
  let behind = element;
  while (behind && getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
  const ground = behind ? getComputedStyle(behind).backgroundColor : getComputedStyle(document.documentElement).backgroundColor;
  found[[getComputedStyle(element).color, ground].join(" on ")] = node.textContent.trim().slice(0, 40);
}
return found;
"""


class Browser:
    """A session of chromedriver.

    Parameters
    ----------
    profile : Path
        The folder of the browser's profile.
    """

    def __init__(self, profile: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._process = subprocess.Popen([str(DRIVER), f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._address = f"http://127.0.0.1:{port}"
        options = {"binary": CHROMIUM, "args": [*QUIET, "--disable-background-networking", f"--user-data-dir={profile}"]}
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

    def open(self, page: Path, *, width: int = 1280, dark: bool = False, scripts: bool = True, fragment: str = "") -> None:
        """Open a page at a width in CSS px, in a light or dark scheme, with an empty log."""
        self.command("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 700)
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.command("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.ask("/url", {"url": "about:blank"})
        for kind in ("browser", "performance"):
            self.log(kind)
        self.ask("/url", {"url": page.as_uri() + fragment})

    def command(self, name: str, **values: Any) -> Any:
        """Give a command of the Chrome DevTools protocol."""
        return self.ask("/goog/cdp/execute", {"cmd": name, "params": values})

    def run(self, script: str, *args: Any) -> Any:
        return self.ask("/execute/sync", {"script": script, "args": list(args)})

    def log(self, kind: str) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = self.ask("/se/log", {"type": kind})
        return entries

    def requests(self, page: Path) -> set[str]:
        """Return the addresses that a page asked for since it was opened, except those of what it contains."""
        sent = [json.loads(entry["message"])["message"] for entry in self.log("performance")]
        asked = [event["params"] for event in sent if event["method"] == "Network.requestWillBeSent"]
        own = {one["request"]["url"] for one in asked if one["documentURL"].startswith(page.as_uri())}  # not those of the tab before it
        return {address for address in own if not address.startswith("data:")}

    def inject(self) -> None:
        """Put a script and a picture from elsewhere into the page, as names could if they were taken for HTML."""
        self.run(
            "const script = document.createElement('script'); script.textContent = 'window.ran = true'; document.body.append(script);"
            "const image = new Image(); image.src = 'http://127.0.0.1:9/x.png'; document.body.append(image);"
        )

    def sticking_out(self) -> list[str]:
        """Return what reaches beyond the right end of the page."""
        found: list[str] = self.run(_WIDER)
        return found

    def text_contrasts(self) -> dict[str, float]:
        """Return the contrast of every text that is shown with what is behind it."""
        return {f"{text!r}: {colours}": contrast(*colours.split(" on ")) for colours, text in self.run(_TEXTS).items()}

    def style(self, selector: str, name: str) -> str:
        """Return the computed value of a property of the first element that fits."""
        value: str = self.run(f"return getComputedStyle(document.querySelector({json.dumps(selector)})).{name}")
        return value

    def screenshot(self, path: Path | None = None, *, clip: dict[str, float] | None = None) -> bytes:
        """Return a PNG of the whole page, or of a rectangle of it (x, y, width, height); write it too, if there is a path."""
        area = {"clip": clip | {"scale": 1}} if clip else {}
        encoded = self.command("Page.captureScreenshot", format="png", captureBeyondViewport=True, **area)["data"]
        picture = base64.b64decode(encoded)
        if path is not None:
            path.write_bytes(picture)
        return picture

    def printed(self) -> bytes:
        """Return the page as it is printed on A4, a PDF."""
        options = {"printBackground": False, "paperWidth": 8.27, "paperHeight": 11.69}
        return base64.b64decode(self.command("Page.printToPDF", **options)["data"])

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


def contrast(first: str, second: str) -> float:
    """Return the contrast of two computed colours, as WCAG 2 defines it: 1 for equal ones, 21 for black on white."""
    light, dark = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    channels = [float(part) / 255 for part in re.findall(r"[\d.]+", colour)]
    assert len(channels) == 3 or channels[3] == 1 / 255, f"{colour} is not opaque"
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in channels[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
