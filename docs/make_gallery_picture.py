"""Make docs/pictures/gallery.jpg: ``python docs/make_gallery_picture.py FOLDER``, the output of `flowkit demo`. Needs Chromium.

It draws the gallery of the demo's videos, with what the trained network predicts for the test videos, and takes a picture of the page.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from flowkit.cli.main import flowkit

PICTURE = Path(__file__).resolve().parent / "pictures" / "gallery.jpg"
WIDTH, HEIGHT = 1100, 1000


def main(demo: Path) -> None:
    """Draw the gallery in a temporary folder, and the page as a picture."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "flowkit-data")
        data.symlink_to((demo / "flowkit-data").resolve())
        output = Path(folder, "gallery")
        flowkit.main(["inspect", "--gallery", "--data", str(data), "--output", str(output)], standalone_mode=False)
        page = output / "index.html"
        page.write_text(page.read_text(encoding="utf-8").replace(folder + "/", ""), encoding="utf-8")
        options = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=5000")
        shown = (f"--window-size={WIDTH},{HEIGHT}", "--blink-settings=preferredColorScheme=1,primaryHoverType=2,availableHoverTypes=2")
        screenshot = Path(folder, "page.png")
        subprocess.run([browser, *options, *shown, f"--screenshot={screenshot}", page.as_uri()], check=True)  # noqa: S603
        with Image.open(screenshot) as picture:
            picture.convert("RGB").save(PICTURE, quality=85, subsampling=0, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
