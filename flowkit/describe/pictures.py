"""Pictures of one clip for people to look at: a contact sheet, a histogram of its flow, an animation."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowkit.describe.encoding import TWO_LINES, plain_ticks
from flowkit.describe.films import Animation, shrunk, write_animation
from flowkit.describe.flow_colour import flow_to_colour, round_scale, wheel_picture
from flowkit.describe.flow_histogram import FlowHistogram, component_px, lowest_level
from flowkit.files import replacing, write_atomically
from flowkit.shards.reader import Clip
from flowkit.words import counted, percentage, printable_name

_NUM_COLUMNS, _NUM_BANDS = 5, 2  # of the contact sheet; a band is a row of frames over a row of flow
_CELL_PX = 320  # pictures are shrunk to this width at most
_MARGIN_PX, _HEADER_PX, _LABEL_PX, _WHEEL_PX = 12, 64, 22, 60
_LABEL_WIDTH_PX = 300
_RULE = (190, 190, 190)
_LEGEND_FROM_PX = 100  # animations of smaller pictures have no legend, which would hide too much
_MEASURED_FIELDS = 200  # at most, spread evenly over the clip
MOST_PICTURES: dict[Animation, int] = {"gif": 120, "mp4": 1500}  # of an animation; of longer clips it shows every second, third, ...
_AT_ONCE = 16


@dataclass(frozen=True)
class Inspection:
    """The pictures that were drawn.

    Parameters
    ----------
    sheet, histogram : Path
        Files of the contact sheet and of the histogram.
    animation : Path or None
        File of the animation; None if there is none.
    scale_px : float
        The speed (px/frame) of full saturation in the sheet and the animation.
    num_fields : int
        Number of the clip's flow fields.
    num_measured : int
        How many of them, spread evenly, the histogram is drawn from.
    num_animated : int
        How many of them, spread evenly, the animation shows; 0 if there is none.
    """

    sheet: Path
    histogram: Path
    animation: Path | None
    scale_px: float
    num_fields: int
    num_measured: int
    num_animated: int


def inspect_clip(clip: Clip, folder: Path, *, animation: Animation | None = "mp4") -> Inspection:
    """Draw the pictures of a clip.

    Parameters
    ----------
    clip : Clip
        The clip.
    folder : Path
        The folder for the pictures, made if need be. Earlier pictures of the same clip are replaced.
    animation : {"mp4", "gif"}, optional
        MP4, at the full size, or GIF, at most 240 px high. None: no animation. It shows the whole clip at its speed. Of a clip that has
        more than 1,500 flow fields (GIF: 120) it shows every second, every third, ..., and its file name says so: ``...-every3.gif``.

    Returns
    -------
    Inspection

    Raises
    ------
    ShardFormatError
        If the clip is damaged.
    OSError
        If the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = picture_name(clip.video_id)
    flow = measure_flow(clip)
    stats = flow.stats()
    scale_px = round_scale(stats.p99_px if stats is not None else 1.0)
    sheet, histogram = folder / f"{name}-sheet.png", folder / f"{name}-flow-histogram.png"
    write_atomically(sheet, png(contact_sheet(clip, scale_px=scale_px)))
    draw_histogram(clip, flow, histogram)
    moving, shown = None, range(0)
    if animation is not None:
        shown = _animated(clip.num_frames - 1, MOST_PICTURES[animation])
        moving = folder / f"{name}-flow{f'-every{shown.step}' if shown.step > 1 else ''}.{animation}"
        pictures = (picture for batch in _side_by_side(clip, shown, scale_px) for picture in batch)
        write_animation(animation, moving, pictures, (clip.height, 2 * clip.width), frame_rate=clip.frame_rate, step=shown.step)
    return Inspection(sheet, histogram, moving, scale_px, clip.num_frames - 1, flow.num_fields, len(shown))


def picture_name(video_id: str) -> str:
    """Return the beginning of the file names of a clip: readable, safe on every system, and different for every id."""
    return "-".join(filter(None, (readable_part(video_id), hashlib.sha256(video_id.encode("utf-8")).hexdigest()[:8])))


def readable_part(video_id: str) -> str:
    """Return the last part of a video id with only those characters that every file system takes; may be empty."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", video_id.rpartition("/")[2]).strip("._-")[:80]


def measure_flow(clip: Clip, *, most: int | None = None) -> FlowHistogram:
    """Count the flow of up to `most` fields, by default 200, spread evenly over the clip."""
    histogram = FlowHistogram()
    for k in spread_indices(clip.num_frames - 1, most or _MEASURED_FIELDS):
        histogram.add(clip.quantiser, clip.flow(k, k + 1))
    return histogram


def _animated(num_fields: int, most: int) -> range:
    """Return the flow fields that an animation shows: all, or every second, third, ... so that they are at most so many."""
    return range(0, num_fields, -(-num_fields // most))


def contact_sheet(clip: Clip, *, scale_px: float) -> NDArray[np.uint8]:
    """Draw ten moments of a clip: each frame above the flow from it to the next, with the colour wheel as legend.

    Returns
    -------
    uint8 array, shape (H, W, 3), RGB
    """
    from PIL import Image, ImageDraw

    chosen = spread_indices(clip.num_frames - 1, _NUM_COLUMNS * _NUM_BANDS)
    num_bands = -(-len(chosen) // _NUM_COLUMNS)
    width = min(clip.width, _CELL_PX)
    height = max(1, round(clip.height * width / clip.width))
    cell_width, band_height = max(width, _LABEL_WIDTH_PX) + _MARGIN_PX, 2 * (height + _LABEL_PX) + _MARGIN_PX
    columns = max(min(len(chosen), _NUM_COLUMNS), -(-(8 * _WHEEL_PX + 2 * _MARGIN_PX) // cell_width))  # room for header and legend
    header = max(_HEADER_PX, 2 * _WHEEL_PX + 2 * _MARGIN_PX)
    sheet = Image.new("RGB", (columns * cell_width + _MARGIN_PX, header + num_bands * band_height), "white")
    draw = ImageDraw.Draw(sheet)
    _draw_header(draw, clip, scale_px, sheet.width - 2 * _WHEEL_PX - 150)
    sheet.paste(Image.fromarray(wheel_picture(_WHEEL_PX)), (sheet.width - 2 * _WHEEL_PX - _MARGIN_PX, _MARGIN_PX))
    legend = (sheet.width - 2 * _WHEEL_PX - 2 * _MARGIN_PX, header // 2)
    text = f"colour: direction\nrim: {scale_px:g} px/frame"
    drawn = [(k, _decoded(clip, clip.flow(k, k + 1))[0]) for k in chosen]
    if max(float(np.hypot(*flow).max()) for _, flow in drawn) > scale_px:
        text += "\ndarker: faster than the rim"
    draw.multiline_text(legend, text, fill="black", font=_font(12), anchor="rm", align="right")
    for place, (k, flow) in enumerate(drawn):
        x, y = _MARGIN_PX + place % _NUM_COLUMNS * cell_width, header + place // _NUM_COLUMNS * band_height
        speed = np.hypot(flow[0], flow[1])
        pictures = (
            (clip.frames([k])[0], f"frame {k}"),
            (flow_to_colour(flow, scale_px=scale_px), f"flow {k} to {k + 1}: mean {speed.mean():.2f}, max {speed.max():.1f} px/frame"),
        )
        for row, (picture, label) in enumerate(pictures):
            top = y + row * (height + _LABEL_PX)
            draw.rectangle((x - 1, top - 1, x + width, top + height), outline=_RULE)  # where still flow ends is white on white
            sheet.paste(Image.fromarray(shrunk(picture, height, width)), (x, top))
            draw.text((x, top + height + 3), _fitting(draw, label, _font(12), cell_width - _MARGIN_PX), fill="black", font=_font(12))
    return np.asarray(sheet)


def _draw_header(draw: Any, clip: Clip, scale_px: float, room_px: int) -> None:
    a = clip.attributes
    mapping = printable_name(a.quantiser["mapping"])
    rate = f"{float(clip.frame_rate):.4g} frames/s" if clip.frame_rate else "unknown frame rate"
    lines = [
        (printable_name(clip.video_id), 18),
        (f"class {printable_name(clip.class_name) or 'not known'}, from {printable_name(a.source_name) or 'unknown'}", 12),
        (f"{clip.num_frames} frames of {clip.width}x{clip.height} px, {rate}, {a.decode_errors} decode errors", 12),
        (f"flow: {printable_name(a.solver)}, bound {a.quantiser['bound']:g} px/frame, {mapping}, {a.codec}", 12),
    ]
    y = _MARGIN_PX
    for text, size in lines:
        font = _font(size)
        draw.text((_MARGIN_PX, y), _fitting(draw, text, font, room_px), fill="black", font=font)
        y += size + 8


def _fitting(draw: Any, text: str, font: Any, room_px: int) -> str:
    """Return as much of a text as fits, with an ellipsis if it was cut."""
    while len(text) > 4 and draw.textlength(text, font=font) > room_px:
        text = text[: max(3, int(len(text) * 0.95) - 1)].rstrip("…") + "…"
    return text


def draw_histogram(clip: Clip, flow: FlowHistogram, path: Path) -> None:
    """Draw the distribution of the speeds of a clip, and of u and v, to a PNG file."""
    from matplotlib import style

    with style.context("default"):  # a matplotlibrc in the working folder may be foreign, and could have LaTeX run
        _draw_histogram(clip, flow, path)


def _draw_histogram(clip: Clip, flow: FlowHistogram, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    quantiser = clip.quantiser
    stats = flow.stats()
    assert stats is not None  # a clip has at least one flow field
    component, counts_u, counts_v = flow.components()
    joint = next(iter(flow.counts.values())).reshape(256, 256)
    speed = np.hypot(component[:, None], component[None, :])
    num_pixels = joint.sum()

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    edges = np.linspace(0, max(float(speed[joint > 0].max()), 1.0) * 1.001, 81)
    shares = np.histogram(speed, bins=edges, weights=joint)[0] / num_pixels
    left.stairs(100 * shares, edges, fill=True, color="#1f5fa8")
    for value, label, style in ((stats.median_px, "50 %", ":"), (stats.p90_px, "90 %", "--"), (stats.p99_px, "99 %", "-")):
        left.axvline(value, color="black", linewidth=1, linestyle=style, label=f"{label} are at most {value:.2f}")
    left.legend(loc="upper right")
    left.set(xlabel="speed, px/frame", ylabel=f"% of pixels in a bin of {edges[1]:.2g} px/frame")
    left.set_title(f"mean {stats.mean_px:.2f}, max {stats.max_px:.1f} px/frame", fontsize=11)
    lowest = lowest_level(quantiser)
    for counts, label, line in zip((counts_u, counts_v), ("u (to the right)", "v (down)"), TWO_LINES, strict=True):
        merged = counts[lowest:].copy()
        merged[0] += counts[:lowest].sum()
        right.step(component_px(quantiser)[lowest:], 100 * merged / num_pixels, where="mid", label=label, **line)
    for axes in (left, right):
        axes.set_yscale("log")
        plain_ticks(axes.yaxis)
    right.axvspan(-quantiser.bound * 1.05, -quantiser.bound, color="grey", alpha=0.3, label="beyond the bound")
    right.axvspan(quantiser.bound, quantiser.bound * 1.05, color="grey", alpha=0.3)
    right.set(xlabel="u and v, px/frame", ylabel="% of pixels at each stored value")
    right.set_title(f"{percentage(stats.clipped_share)} of pixels at the bound of {quantiser.bound:g} px/frame", fontsize=11)
    right.legend()
    num = clip.num_frames - 1
    measured = counted(num, "flow field") if stats.num_fields == num else f"sample of {stats.num_fields:,} of {counted(num, 'flow field')}"
    figure.suptitle(f"{_in_ascii(clip.video_id)}: {measured}", parse_math=False)
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=110)


def _side_by_side(clip: Clip, indices: range, scale_px: float) -> Any:
    """Yield batches (n, H, 2 W, 3): frames on the left, their flow on the right, with a legend in its corner."""
    legend, opaque = _legend(clip.height, clip.width, scale_px)
    for start in range(0, len(indices), _AT_ONCE):
        chosen = indices[start : start + _AT_ONCE]
        fields = clip.flow(chosen[0], chosen[-1] + 1) if indices.step == 1 else np.concatenate([clip.flow(k, k + 1) for k in chosen])
        flow = flow_to_colour(_decoded(clip, fields), scale_px=scale_px)
        flow[:, opaque] = legend[opaque]
        yield np.concatenate([clip.frames(chosen), flow], axis=2)


def _legend(height: int, width: int, scale_px: float) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Draw a small colour wheel and its scale in the lower right corner of a picture; return the picture and a mask of the legend."""
    from PIL import Image, ImageDraw

    picture, mask = Image.new("RGB", (width, height), "white"), Image.new("1", (width, height))
    radius = height // 14
    text, font = f"{scale_px:g} px\nper frame", _font(max(10, radius * 2 // 3))
    draw = ImageDraw.Draw(picture)
    room = int(draw.textlength("per frame", font=font)) + 3 * radius + 8
    if height >= _LEGEND_FROM_PX and width >= 2 * room:
        x, y = width - radius - 4, height - radius - 4
        box = (width - room, y - radius - 3, width - 1, height - 1)
        ImageDraw.Draw(mask).rectangle(box, fill=1)
        draw.rectangle(box, outline=_RULE, fill="white")
        draw.multiline_text((x - radius - 6, y), text, fill="black", font=font, anchor="rm", align="right", spacing=1)
        picture.paste(Image.fromarray(wheel_picture(radius)), (x - radius, y - radius))
    return np.array(picture), np.array(mask)


def _decoded(clip: Clip, q: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return flow in px/frame, with byte 128 as exactly no motion, so that it is drawn white."""
    return component_px(clip.quantiser).astype(np.float32)[q]


def spread_indices(count: int, most: int) -> list[int]:
    """Return up to `most` of 0..count-1, spread evenly: the middles of as many equal parts."""
    num = min(count, most)
    return [(2 * k + 1) * count // (2 * num) for k in range(num)]


def small_moment(clip: Clip, k: int, height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return frame k (H, W, 3) and the flow from it to the next one (2, H, W), shrunk; flow stays in px/frame of the stored size."""
    flow = _decoded(clip, clip.flow(k, k + 1))[0].transpose(1, 2, 0)
    return shrunk(clip.frames([k])[0], height, width), shrunk(np.ascontiguousarray(flow), height, width).transpose(2, 0, 1)


def png(picture: NDArray[np.uint8]) -> bytes:
    """Return an RGB picture (H, W, 3) as the bytes of a PNG file."""
    import cv2

    good, encoded = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    assert good
    return bytes(encoded)


def _font(size: int) -> Any:
    """Return the font that comes with matplotlib."""
    from matplotlib import get_data_path
    from PIL import ImageFont

    return ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)


def _in_ascii(name: str) -> str:
    """Return a name with everything escaped that matplotlib's font may lack."""
    return printable_name(name).encode("ascii", "backslashreplace").decode()
