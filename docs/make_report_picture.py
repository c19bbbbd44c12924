"""Draw docs/pictures/report.png: ``python docs/make_report_picture.py FOLDER``, the output of `flowkit demo`. It needs Chromium.

Two parts of the report of the demo side by side: its first page in light colours, and the training in dark ones.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

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
    halves = [screenshot(page.replace("</style>", f"{HIDDEN[scheme]} {{ display: none }}</style>"), scheme) for scheme in (LIGHT, DARK)]
    both = Image.new("RGB", (2 * WIDTH + GAP, HEIGHT), "#868f99")
    for k, half in enumerate(halves):
        both.paste(half, (k * (WIDTH + GAP), 0))
    smaller = both.resize((SHOWN_WIDTH, round(HEIGHT * SHOWN_WIDTH / both.width)), Image.Resampling.LANCZOS)
    smaller.quantize(256).save(PICTURE, optimize=True)


def screenshot(page: str, scheme: int) -> Image.Image:
    """Return a picture of a page, from its top."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with tempfile.TemporaryDirectory() as folder:
        path, picture = Path(folder, "page.html"), Path(folder, "picture.png")
        path.write_text(page, encoding="utf-8")
        options = [f"--blink-settings=preferredColorScheme={scheme}", f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={picture}"]
        headless = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder}/profile"]
        subprocess.run([browser, *headless, *options, path.as_uri()], check=True, capture_output=True)  # noqa: S603
        return Image.open(picture).convert("RGB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
