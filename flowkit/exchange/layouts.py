"""The layouts of flow images that other tools write, as declarations.

Export writes them; import reads them, and more (the variants that the tools themselves wrote).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

TreeName = Literal["rawframes", "gpu_flow", "denseflow"]
FlowImages = Literal["jpeg", "png"]

_MAX_PART_BYTES = 240

SUFFIX: dict[str, str] = {"jpeg": ".jpg", "png": ".png"}


@dataclass(frozen=True)
class TreeLayout:
    """Where a tree keeps its images: ``<folder>/<video>/<prefix><number><suffix>``.

    Parameters
    ----------
    name : str
        The name of the layout.
    frames, u, v : (str, str)
        Folder and prefix of the images of each kind.
    digits : int
        Digits of the number, with leading zeros.
    first : int
        The number of the first image.
    """

    name: TreeName
    frames: tuple[str, str]
    u: tuple[str, str]
    v: tuple[str, str]
    digits: int
    first: int

    def image_name(self, prefix: str, index: int, suffix: str) -> str:
        """Return the file name of an image; its index is 0-based."""
        return f"{prefix}{index + self.first:0{self.digits}d}{suffix}"


LAYOUTS: dict[str, TreeLayout] = {
    layout.name: layout
    for layout in (
        # mmaction2's RawframeDataset: filename_tmpl img_{:05}.jpg, flow_{}_{:05d}.jpg, start_index 1
        TreeLayout("rawframes", ("rawframes", "img_"), ("rawframes", "flow_x_"), ("rawframes", "flow_y_"), 5, 1),
        # feichtenhofer/gpu_flow: compute_flow.cpp writes u/<video>/frame%06d.jpg, v/..., and frames elsewhere, from 1
        TreeLayout("gpu_flow", ("rgb", "frame"), ("u", "frame"), ("v", "frame"), 6, 1),
        # open-mmlab/denseflow: <video>/{img,flow_x,flow_y}_%05d.jpg, from 0
        TreeLayout("denseflow", ("denseflow", "img_"), ("denseflow", "flow_x_"), ("denseflow", "flow_y_"), 5, 0),
    )
}


def folder_name(video_id: str) -> str:
    """Return the folder of a video: its id, in which characters that would break a list of folders are hexadecimal (``%20``).

    Notes
    -----
    The lists of mmaction2 are split at white space. Different ids have different folders.
    """
    return "/".join(_escaped_part(part) for part in video_id.split("/"))


def _escaped_part(part: str) -> str:
    escaped = "".join("".join(f"%{byte:02X}" for byte in c.encode()) if c == "%" or c.isspace() or not c.isprintable() else c for c in part)
    if len(escaped.encode()) <= _MAX_PART_BYTES:
        return escaped
    return f"%{hashlib.sha256(part.encode()).hexdigest()}"
