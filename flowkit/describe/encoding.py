"""Figures as pixels, and pixels as files: what the pictures of reports and galleries need."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Colour-blind readers can distinguish blue and orange; line styles distinguish two lines without colour.
TWO_LINES: tuple[dict[str, Any], dict[str, Any]] = (
    {"color": "#1f5fa8", "linestyle": "-"},
    {"color": "#b45309", "linestyle": (0, (4, 1.5))},
)


def drawn(draw: Callable[[Figure], None], *, inches: tuple[float, float], dpi: int) -> NDArray[np.uint8]:
    """Draw a figure without a display, in matplotlib's default style and font, whatever the user's settings are.

    Parameters
    ----------
    draw : callable
        Fills the figure that it receives.
    inches : (float, float)
        Width and height.
    dpi : int
        Pixels per inch.

    Returns
    -------
    uint8 array, shape (H, W, 3), RGB
    """
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with style.context("default"):
        figure = Figure(figsize=inches, dpi=dpi, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        draw(figure)
        canvas.draw()  # type: ignore[no-untyped-call]
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def plain_ticks(axis: Axis) -> None:
    """Label the ticks of a logarithmic axis with plain numbers: 0.001, not 10 to the power of -3."""
    axis.set_major_formatter(lambda value, _: f"{Decimal(f'{value:.1g}'):f}")
    axis.set_minor_formatter(lambda *_: "")


def png(pixels: NDArray[np.uint8], *, num_colours: int | None = None) -> bytes:
    """Encode an RGB picture (H, W, 3) as PNG; a palette of `num_colours` (at most 256) makes plots three times smaller."""
    from PIL import Image

    image = Image.fromarray(pixels)
    if num_colours is not None:
        image = image.quantize(num_colours)
    return _encoded(image, format="PNG")


def jpeg(pixels: NDArray[np.uint8], *, quality: int = 82) -> bytes:
    """Encode an RGB picture (H, W, 3) as JPEG with full colour resolution, which pictures of flow need."""
    from PIL import Image

    return _encoded(Image.fromarray(pixels), format="JPEG", quality=quality, subsampling=0, optimize=True)


def data_uri(encoded: bytes) -> str:
    """Return a PNG or JPEG as a ``data:`` URI, for a page that needs no other file."""
    kind = "png" if encoded.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(encoded).decode('ascii')}"


def size_of(pixels: NDArray[np.uint8]) -> tuple[int, int]:
    """Return a picture's width and height in px."""
    return int(pixels.shape[1]), int(pixels.shape[0])


def _encoded(image: object, **settings: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **settings)  # type: ignore[attr-defined]
    return buffer.getvalue()
