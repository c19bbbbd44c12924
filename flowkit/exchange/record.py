"""The record that an exported tree carries, ``flowkit-export.json``: what an export wrote, and how far it is."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flowkit.dataset.settings import ExtractSettings
from flowkit.errors import FlowkitError, ManifestError
from flowkit.exchange.layouts import LAYOUTS, SUFFIX, FlowImages
from flowkit.files import write_atomically
from flowkit.records import RecordFormat
from flowkit.shards.schema import ClipAttributes

RECORD_NAME = "flowkit-export.json"
_RECORD = RecordFormat("flowkit-export", 1, ManifestError, "delete it to treat the tree as another tool's", max_bytes=1 << 30)


@dataclass(frozen=True)
class ExportRecord:
    """What an export wrote, as ``flowkit-export.json`` records it.

    Parameters
    ----------
    layout : str
        The name of a tree layout, or ``webdataset``.
    flow : {"jpeg", "png"}
        The kind of flow images; PNG is lossless.
    settings : ExtractSettings
        The settings of the data root, with the quantiser of the images.
    split : int or None
        The split that it holds; None if it holds all videos.
    complete : bool
        Whether the export has finished.
    videos : dict of str to ClipAttributes
        The attributes of each exported clip, by its folder.
    failed : dict of str to str
        Videos that could not be exported, and why.
    times : dict of str to tuple of float, s
        The time stamps of the frames of each exported clip that has some, by its folder.
    """

    layout: str
    flow: FlowImages
    settings: ExtractSettings
    split: int | None = None
    complete: bool = False
    videos: dict[str, ClipAttributes] | None = None
    failed: dict[str, str] | None = None
    times: dict[str, tuple[float, ...]] | None = None

    def same_export(self, other: ExportRecord) -> bool:
        """Return whether both describe the same export, however far it is."""
        bare = [replace(record, complete=False, videos=None, failed=None, times=None) for record in (self, other)]
        return bare[0] == bare[1]

    def write(self, folder: Path) -> None:
        """Write the record into an exported tree."""
        record = {
            **_RECORD.header,
            "layout": self.layout,
            "flow": self.flow,
            "settings": self.settings.to_dict(),
            "split": self.split,
            "complete": self.complete,
            "videos": {name: attributes.to_stored() for name, attributes in sorted((self.videos or {}).items())},
            "failed": dict(sorted((self.failed or {}).items())),
            "times": dict(sorted((self.times or {}).items())),
        }
        write_atomically(folder / RECORD_NAME, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def read_record(folder: Path) -> ExportRecord | None:
    """Read the record of an exported tree; None if the folder has none.

    Raises
    ------
    ManifestError
        If the record is damaged.
    """
    path = folder / RECORD_NAME
    values = _RECORD.read_if_present(path)
    if values is None:
        return None
    try:
        return _parse_record(values)
    except (FlowkitError, KeyError, TypeError, ValueError, AttributeError) as cause:
        raise ManifestError(f"{path} is not as flowkit writes it ({cause}); {_RECORD.remedy}") from cause


def _parse_record(values: dict[str, Any]) -> ExportRecord:
    layout, flow, split, complete, failed = (values[key] for key in ("layout", "flow", "split", "complete", "failed"))
    if layout not in (*LAYOUTS, "webdataset") or flow not in SUFFIX:
        raise ManifestError(f"layout {layout!r}, flow {flow!r}")
    if not isinstance(complete, bool) or not (split is None or type(split) is int):
        raise ManifestError(f"complete {complete!r}, split {split!r}")
    if not isinstance(failed, dict) or not all(isinstance(text, str) for text in failed.values()):
        raise ManifestError("failed must give a reason for each video")
    settings = ExtractSettings.from_dict(values["settings"])
    if not settings.has_flow:
        raise ManifestError("its settings have no flow")
    videos = {name: ClipAttributes.from_stored(stored) for name, stored in values["videos"].items()}
    times = {name: _times(stored, videos[name].num_frames) for name, stored in values.get("times", {}).items()}
    return ExportRecord(layout, flow, settings, split, complete, videos, failed, times)


def _times(stored: object, num_frames: int) -> tuple[float, ...]:
    """Return the time stamps of a video as the record has them."""
    if not isinstance(stored, list) or len(stored) != num_frames or not all(type(time) in (int, float) for time in stored):
        raise ManifestError(f"times must give the {num_frames} time stamps of each video")
    times = tuple(map(float, stored))
    if not all(map(math.isfinite, times)):
        raise ManifestError("times must be finite")
    return times
