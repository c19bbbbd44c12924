"""A picture of a page, taken by Chromium; for the scripts that make the pictures of the documentation."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image


def screenshot(page: Path, *, width: int, height: int, settings: str) -> Image.Image:
    """Return a picture of a page, from its top; `settings` are Blink settings, such as a colour scheme."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder, "picture.png")
        options = (f"--window-size={width},{height}", f"--blink-settings={settings}", f"--screenshot={picture}", "--hide-scrollbars")
        # The virtual time lets pictures that load when they are in sight arrive.
        headless = ("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", f"--user-data-dir={folder}/profile")
        subprocess.run([browser, *headless, *options, page.as_uri()], check=True, capture_output=True)  # noqa: S603
        return Image.open(picture).convert("RGB")
