"""Trees of flow images as other tools lay them out, as declarations; and the record that an exported tree carries.

Export writes by these declarations; import reads them, and more (what the tools themselves wrote, in all its variants).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from flowkit.dataset.settings import ExtractSettings
from flowkit.errors import FlowkitError, ManifestError
from flowkit.files import read_file, write_atomically
from flowkit.shards.schema import ClipAttributes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TreeName = Literal["rawframes", "gpu_flow", "denseflow"]
FlowImages = Literal["jpeg", "png"]

RECORD_NAME = "flowkit-export.json"
_RECORD_FORMAT, _RECORD_FORMAT_VERSION = "flowkit-export", 1
_MAX_RECORD_BYTES = 1 << 30
_MAX_PART_BYTES = 240

SUFFIX: dict[str, str] = {"jpeg": ".jpg", "png": ".png"}


@dataclass(frozen=True)
class TreeLayout:
    """Where a tree keeps its images: ``<folder>/<video>/<prefix><number><suffix>``.

    Parameters
    ----------
    name : str
    frames, u, v : (str, str)
        Folder and prefix.
    digits : int
        Of the number, with leading zeros.
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
        """Return the name of the `index`-th image, from 0."""
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


@dataclass(frozen=True)
class ExportRecord:
    """What an exported tree says of itself, in ``flowkit-export.json``.

    Parameters
    ----------
    layout : str
        A tree's, or ``webdataset``.
    flow : {"jpeg", "png"}
        What the flow images are; PNG is lossless.
    settings : ExtractSettings
        Of the data root it came from, with the quantiser that the images have.
    split : int or None
        The split that it holds; None if it holds all videos.
    complete : bool
        False while it is being written.
    videos : dict of str to ClipAttributes
        By folder.
    failed : dict of str to str
        Videos that could not be exported, and why.
    """

    layout: str
    flow: FlowImages
    settings: ExtractSettings
    split: int | None = None
    complete: bool = False
    videos: dict[str, ClipAttributes] | None = None
    failed: dict[str, str] | None = None

    def same_export(self, other: ExportRecord) -> bool:
        """Whether both are of one export, however far it is."""
        bare = [replace(record, complete=False, videos=None, failed=None) for record in (self, other)]
        return bare[0] == bare[1]

    def write(self, folder: Path) -> None:
        """Write the record into an exported tree."""
        record = {
            "format": _RECORD_FORMAT,
            "format_version": _RECORD_FORMAT_VERSION,
            "layout": self.layout,
            "flow": self.flow,
            "settings": self.settings.to_dict(),
            "split": self.split,
            "complete": self.complete,
            "videos": {name: attributes.to_stored() for name, attributes in sorted((self.videos or {}).items())},
            "failed": dict(sorted((self.failed or {}).items())),
        }
        write_atomically(folder / RECORD_NAME, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def read_record(folder: Path) -> ExportRecord | None:
    """Read the record of an exported tree; None if the folder has none.

    Raises
    ------
    ManifestError
        If it is not as `ExportRecord.write` writes it.
    """
    path = folder / RECORD_NAME
    if not path.exists():
        return None
    try:
        values = json.loads(read_file(path, most_bytes=_MAX_RECORD_BYTES).decode("utf-8"))
    except OSError as cause:
        raise ManifestError(f"cannot read {path}: {cause.strerror}") from cause
    except (ValueError, RecursionError) as cause:
        raise ManifestError(f"{path} is not valid JSON ({cause}); delete it to treat the tree as another tool's") from cause
    try:
        return _parse_record(values)
    except (FlowkitError, KeyError, TypeError, ValueError, AttributeError) as cause:
        raise ManifestError(f"{path} is not as flowkit writes it ({cause}); delete it to treat the tree as another tool's") from cause


def _parse_record(values: Any) -> ExportRecord:
    if (values["format"], values["format_version"]) != (_RECORD_FORMAT, _RECORD_FORMAT_VERSION):
        raise ManifestError(f"format {values['format']!r}, version {values['format_version']!r}")
    layout, flow, split, complete, failed = (values[key] for key in ("layout", "flow", "split", "complete", "failed"))
    if layout not in (*LAYOUTS, "webdataset") or flow not in SUFFIX:
        raise ManifestError(f"layout {layout!r}, flow {flow!r}")
    if not isinstance(complete, bool) or not (split is None or type(split) is int):
        raise ManifestError(f"complete {complete!r}, split {split!r}")
    if not isinstance(failed, dict) or not all(isinstance(text, str) for text in failed.values()):
        raise ManifestError("failed must give a reason for each video")
    settings = ExtractSettings.from_dict(values["settings"])
    videos = {name: ClipAttributes.from_stored(stored) for name, stored in values["videos"].items()}
    return ExportRecord(layout, flow, settings, split, complete, videos, failed)


def folder_name(video_id: str) -> str:
    """Return a video's folder: its id, with what would break a list of folders in hexadecimal (``%20`` for a space).

    Notes
    -----
    mmaction2's lists are cut at white space. Different ids have different folders.
    """
    return "/".join(_escaped_part(part) for part in video_id.split("/"))


def _escaped_part(part: str) -> str:
    escaped = "".join("".join(f"%{byte:02X}" for byte in c.encode()) if c == "%" or c.isspace() or not c.isprintable() else c for c in part)
    if len(escaped.encode()) <= _MAX_PART_BYTES:
        return escaped
    return f"%{hashlib.sha256(part.encode()).hexdigest()}"


def gaps(numbers: list[int]) -> str:
    """Return the numbers missing between the first and the last, as ``7, 9-12``; empty if there are none."""
    return ", ".join(_gaps(numbers))


def _gaps(numbers: list[int]) -> Iterator[str]:
    missing = [(before + 1, after - 1) for before, after in pairwise(numbers) if after > before + 1]
    for first, last in missing[:8]:
        yield str(first) if first == last else f"{first}-{last}"
    if len(missing) > 8:
        yield f"and {len(missing) - 8} more"
