"""Draw docs/pictures/report.png: ``python docs/make_report_picture.py FOLDER``, the output of `flowkit demo`. Needs Chromium.

Two parts of the report of the demo side by side: its first page in light colours, and the training in dark ones.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from page_screenshot import screenshot
from PIL import Image

PICTURE = Path(__file__).resolve().parent / "pictures" / "report.png"
WIDTH, HEIGHT, GAP = 1120, 1330, 16
SHOWN_WIDTH = 1500
LIGHT, DARK = 1, 0  # as Chromium counts the schemes
# The parts that a half of the picture leaves out.
HIDDEN = {LIGHT: "nav, footer, main > section:not(#results)", DARK: "header, footer, main > section:not(#training)"}


def main(demo: Path) -> None:
    """Take a picture of each part and put them together."""
    page = (demo / "flowkit-data" / "reports" / "default" / "split1" / "report.html").read_text(encoding="utf-8")
    halves = [half(page.replace("</style>", f"{HIDDEN[scheme]} {{ display: none }}</style>"), scheme) for scheme in (LIGHT, DARK)]
    both = Image.new("RGB", (2 * WIDTH + GAP, HEIGHT), "#868f99")
    for k, picture in enumerate(halves):
        both.paste(picture, (k * (WIDTH + GAP), 0))
    smaller = both.resize((SHOWN_WIDTH, round(HEIGHT * SHOWN_WIDTH / both.width)), Image.Resampling.LANCZOS)
    smaller.quantize(256).save(PICTURE, optimize=True)


def half(page: str, scheme: int) -> Image.Image:
    """Return a picture of a page in one of the schemes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "page.html")
        path.write_text(page, encoding="utf-8")
        return screenshot(path, width=WIDTH, height=HEIGHT, settings=f"preferredColorScheme={scheme}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
