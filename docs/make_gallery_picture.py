"""Make docs/pictures/gallery.jpg: ``python docs/make_gallery_picture.py FOLDER``, the output of `flowkit demo`. Needs Chromium.

It draws the gallery of the demo's videos, with what the trained network predicts for the test videos, and takes a picture of the page.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from page_screenshot import screenshot

from flowkit.cli.main import flowkit

PICTURE = Path(__file__).resolve().parent / "pictures" / "gallery.jpg"
WIDTH, HEIGHT = 1100, 1000


def main(demo: Path) -> None:
    """Draw the gallery in a temporary folder, and the page as a picture."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "flowkit-data")
        data.symlink_to((demo / "flowkit-data").resolve())
        output = Path(folder, "gallery")
        flowkit.main(["inspect", "--gallery", "--data", str(data), "--output", str(output)], standalone_mode=False)
        page = output / "index.html"
        page.write_text(page.read_text(encoding="utf-8").replace(folder + "/", ""), encoding="utf-8")
        picture = screenshot(page, width=WIDTH, height=HEIGHT, settings="preferredColorScheme=1,primaryHoverType=2,availableHoverTypes=2")
        picture.save(PICTURE, quality=85, subsampling=0, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
