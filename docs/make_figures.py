"""Draw the diagrams of the pages, as SVG files in docs/pictures: ``python docs/make_figures.py``. A test keeps files and script equal.

Each diagram is narrow, so that its text can be read on a telephone, and has its own background, light or dark as the reader's
system is.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from flowkit.model import STResNetConfig
from flowkit.model.data.sampling import stack_fields
from flowkit.model.settings.network import STAGE_UNITS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PICTURES = Path(__file__).resolve().parent / "pictures"
LINE = 19  # height of a line of text

STYLE = """
  text { font: 15px system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328 }
  .small { font-size: 13px; fill: #4d5661 }
  .bold { font-weight: 600 }
  .panel { fill: #ffffff; stroke: #d0d7de }
  .plain { fill: #f3f5f7; stroke: #8c959f }
  .appearance { fill: #ddeafb; stroke: #3f76bb }
  .motion { fill: #fdebd0; stroke: #b3731a }
  .both { fill: #dcf0e4; stroke: #2d7d53 }
  .line { fill: none; stroke: #4d5661; stroke-width: 1.6 }
  .head { fill: #4d5661 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .small { fill: #adb7c2 }
    .panel { fill: #151a21; stroke: #3d444d }
    .plain { fill: #252b33; stroke: #76808c }
    .appearance { fill: #1c3556; stroke: #7aa6d8 }
    .motion { fill: #4a3413; stroke: #e3a33b }
    .both { fill: #173b2a; stroke: #58b383 }
    .line { stroke: #adb7c2 }
    .head { fill: #adb7c2 }
  }
"""


class Drawing:
    """An SVG picture that is put together from boxes, arrows and text; lengths are in px."""

    def __init__(self, title: str, width: int, height: int) -> None:
        self.title, self.width, self.height = title, width, height
        self.parts: list[str] = []

    def text(self, x: float, y: float, text: str, *, kind: str = "", anchor: str = "middle") -> None:
        """Write one line, its baseline at y."""
        self.parts.append(f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>')

    def box(self, x: float, y: float, width: float, height: float, lines: Sequence[str], kind: str = "plain") -> None:
        """Draw a box with lines of text in its middle; the first line is large, the others are small."""
        self.parts.append(f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="5"/>')
        top = y + height / 2 - LINE * (len(lines) - 1) / 2 + 5
        for k, line in enumerate(lines):
            self.text(x + width / 2, top + LINE * k, line, kind="small" if k else "")

    def arrow(self, *points: tuple[float, float]) -> None:
        """Draw a line through points, with a head at the last one."""
        (x0, y0), (x1, y1) = points[-2:]
        length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
        dx, dy = (x1 - x0) / length, (y1 - y0) / length
        path = " ".join(f"{x:g},{y:g}" for x, y in (*points[:-1], (x1 - 7 * dx, y1 - 7 * dy)))
        self.parts.append(f'<polyline class="line" points="{path}"/>')
        corners = [(x1, y1), (x1 - 9 * dx - 4.5 * dy, y1 - 9 * dy + 4.5 * dx), (x1 - 9 * dx + 4.5 * dy, y1 - 9 * dy - 4.5 * dx)]
        self.parts.append('<polygon class="head" points="{}"/>'.format(" ".join(f"{x:.4g},{y:.4g}" for x, y in corners)))

    def operation(self, x: float, y: float, sign: str, kind: str = "panel") -> None:
        """Draw a circle with a sign in it, such as +."""
        self.parts.append(f'<circle class="{kind}" cx="{x:g}" cy="{y:g}" r="12"/>')
        self.text(x, y + 5.5, sign, kind="bold")

    def svg(self) -> str:
        """Return the file's text."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}" '
            f'height="{self.height}" role="img">'
        )
        panel = f'<rect class="panel" x="0.5" y="0.5" width="{self.width - 1}" height="{self.height - 1}" rx="8"/>'
        return "\n".join([head, f"<title>{escape(self.title)}</title>", f"<style>{STYLE}</style>", panel, *self.parts, "</svg>\n"])


def network() -> Drawing:
    """Draw the two streams from their inputs to the score of a video."""
    config = STResNetConfig(num_classes=101)
    drawing = Drawing("ST-ResNet: two residual networks, with connections from motion to appearance in each stage", 460, 848)
    left, right, width, gap = 20, 260, 180, 22
    middles = (left + width / 2, right + width / 2)
    rows: list[tuple[int, list[str], list[str]]] = [
        (62, ["T frames", "3 channels"], ["T stacks of flow", "10 fields = 20 channels"]),
        (62, ["first convolution", "7x7, then max pooling"], ["first convolution", "7x7, then max pooling"]),
    ]
    for k, units in enumerate(STAGE_UNITS[config.depth]):
        stage = [f"stage {k + 2}: {units} units", f"{4 * config.base_width * 2**k} channels, 1/{4 * 2**k} size", "unit 2: 1x1x3 in time"]
        rows.append((80, stage, stage))
    head = ["average pooling 7x7", "ST-ResNet*: then max", "pooling over 5 samples"]
    rows += [(80, head, head), (44, ["classifier"], ["classifier"])]
    y = 46.0
    drawing.text(middles[0], 30, "appearance", kind="bold")
    drawing.text(middles[1], 30, "motion", kind="bold")
    for number, (height, appearance, motion) in enumerate(rows):
        drawing.box(left, y, width, height, appearance, "appearance")
        drawing.box(right, y, width, height, motion, "motion")
        if number in range(2, 2 + len(STAGE_UNITS[config.depth])):
            drawing.arrow((right, y + height / 2), (left + width, y + height / 2))
            drawing.operation((left + width + right) / 2, y + height / 2, "+")
        bottom = y + height
        y = bottom + gap
        for middle in middles:
            drawing.arrow((middle, bottom), (middle, y))
    drawing.box(
        left, y, right + width - left, 62, ["mean over samples, places, mirror images", "and both streams: the score of the video"], "both"
    )
    drawing.height = int(y + 62 + 20)
    return drawing


def unit() -> Drawing:
    """Draw the second unit of a stage, where motion enters."""
    drawing = Drawing("The second unit of a stage: motion enters the residual branch of the appearance stream", 460, 560)
    appearance, branch, motion = 90, 220, 370
    drawing.text(appearance + 65, 30, "appearance", kind="bold")
    drawing.text(motion, 30, "motion", kind="bold")
    drawing.box(75, 46, 160, 44, ["unit 1: sum s_a"], "appearance")
    drawing.box(290, 46, 150, 44, ["unit 1: sum s_m"], "motion")
    drawing.arrow((motion, 90), (motion, 116))
    drawing.box(320, 116, 100, 36, ["ReLU"], "motion")
    drawing.arrow((appearance, 90), (appearance, 116))
    drawing.box(40, 116, 100, 36, ["ReLU"], "appearance")
    drawing.arrow((branch, 90), (branch, 184))
    drawing.operation(branch, 196, "+")
    drawing.arrow((motion, 152), (motion, 196), (branch + 12, 196))
    drawing.text(298, 188, "or x (gating)", kind="small")
    top = 232.0
    drawing.arrow((branch, 208), (branch, top))
    layers = (
        ("1x1x3 convolution", "over three samples in time"),
        ("3x3 convolution",),
        ("1x1x3 convolution", "over three samples in time"),
    )
    for k, lines in enumerate(layers):
        drawing.box(120, top, 200, 56, lines, "appearance")
        if k < len(layers) - 1:
            drawing.arrow((branch, top + 56), (branch, top + 76))
        top += 76
    end = top + 14
    drawing.arrow((branch, top - 20), (branch, end), (appearance + 12, end))
    drawing.arrow((appearance, 152), (appearance, end - 12))
    drawing.operation(appearance, end, "+")
    drawing.arrow((appearance, end + 12), (appearance, end + 42))
    drawing.text(appearance + 10, end + 34, "unit 3", anchor="start", kind="small")
    drawing.arrow((motion + 40, 152), (motion + 40, end + 42))
    drawing.text(motion + 30, end + 8, "to motion's own", anchor="end", kind="small")
    drawing.text(motion + 30, end + 26, "unit 2, unchanged", anchor="end", kind="small")
    drawing.text(appearance - 10, 300, "identity", kind="small", anchor="end")
    drawing.text(appearance - 10, 318, "path", kind="small", anchor="end")
    drawing.text(318, 218, "residual branch", kind="small")
    drawing.height = int(end + 62)
    return drawing


def sampling() -> Drawing:
    """Draw the frames of a video, the samples of a clip, and the stack of flow fields around one of them."""
    num_frames, centres, shown = 49, (8, 16, 24, 32, 40), 24
    drawing = Drawing("Sampling: frames of a video, five samples, and the ten flow fields around one of them", 460, 398)
    left, step, y = 22.0, 8.5, 62

    def place(frame: float) -> float:
        return left + step * frame

    drawing.text(left, 32, f"a video of {num_frames} frames, and five samples", kind="bold", anchor="start")
    for frame in range(num_frames):
        kind = "appearance" if frame in centres else "plain"
        drawing.parts.append(f'<rect class="{kind}" x="{place(frame):g}" y="{y - 10 * (frame in centres)}" width="6" height="30"/>')
    drawing.text(left, y + 48, "frame 0", kind="small", anchor="start")
    drawing.text(place(num_frames - 1) + 6, y + 48, f"frame {num_frames - 1}", kind="small", anchor="end")
    drawing.arrow((place(centres[0]) + 3, y + 74), (place(centres[1]) + 3, y + 74))
    drawing.arrow((place(centres[1]) + 3, y + 74), (place(centres[0]) + 3, y + 74))
    drawing.text(place(centres[1]) + 12, y + 79, "tau: 5 to 15 frames, drawn for each clip", kind="small", anchor="start")

    fields, _ = stack_fields([shown])
    top, cell = 206, 34
    drawing.text(left, top - 22, f"one sample: frame {shown} and a stack of ten fields", kind="bold", anchor="start")
    first = (460 - cell * (len(fields) + 1)) / 2
    for k, frame in enumerate((*fields, fields[-1] + 1)):
        kind = "appearance" if frame == shown else "plain"
        drawing.box(first + cell * k + 2, top, cell - 4, 34, [str(frame)], kind)
    for k, field in enumerate(fields):
        x = first + cell * (k + 0.5)
        drawing.arrow((x, top + 36), (x + cell / 2 - 2, top + 56))
        drawing.arrow((x + cell, top + 36), (x + cell / 2 + 2, top + 56))
        drawing.box(x + 2, top + 58, cell - 4, 34, [str(field)], "motion")
    drawing.text(460 / 2, top + 116, "field k leads from frame k to frame k + 1", kind="small")
    drawing.text(460 / 2, top + 146, "appearance sees frame 24: 3 channels", kind="")
    drawing.text(460 / 2, top + 168, "motion sees u and v of fields 19 to 28: 20 channels", kind="")
    return drawing


def data_root() -> Drawing:
    """Draw what each command makes of what the one before it made."""
    drawing = Drawing("From videos to a report: what each command reads and writes", 460, 640)
    rows = [
        ("videos", "one file each, in folders of classes", "plain", "extract"),
        ("clip files", "frames and flow of one video each", "appearance", "pack"),
        ("shards", "many videos in one file, about 1 GiB", "appearance", ""),
        ("splits", "which videos train, which test, with labels", "both", "train"),
        ("a run", "phases: appearance, motion, ST-ResNet, ST-ResNet*", "motion", "evaluate"),
        ("a report", "one row for each network, and two-streams", "both", ""),
    ]
    y = 20.0
    for number, (name, about, kind, command) in enumerate(rows):
        drawing.box(30, y, 400, 58, [name, about], kind)
        y += 58
        if number == len(rows) - 1:
            break
        joined = 12 if name == "shards" else 40
        if command:
            drawing.arrow((230, y), (230, y + joined))
            drawing.text(244, y + 25, f"flowkit {command}", anchor="start")
        y += joined
    drawing.height = int(y + 20)
    return drawing


FIGURES: dict[str, Callable[[], Drawing]] = {"network": network, "unit": unit, "sampling": sampling, "data-root": data_root}


def main() -> None:
    """Write all diagrams."""
    for name, draw in FIGURES.items():
        (PICTURES / f"{name}.svg").write_text(draw().svg(), encoding="utf-8")


if __name__ == "__main__":
    main()
