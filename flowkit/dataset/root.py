"""The data root: its record ``dataset.json``, and where clips lie in it."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from flowkit.dataset.manifest import DATASET_RECORD
from flowkit.dataset.settings import ExtractSettings
from flowkit.errors import ManifestError, ParameterError
from flowkit.files import write_atomically
from flowkit.versions import software_versions
from flowkit.video.ids import comparable_name

if TYPE_CHECKING:
    from collections.abc import Iterable


def clip_path(root: Path, video_id: str) -> Path:
    """Return where the clip of a video lies in a data root."""
    return root / "clips" / (video_id + ".h5")


def open_root(root: Path, videos: Path, settings: ExtractSettings, *, create: bool = True) -> None:
    """Make a data root with these settings, or check that an existing one has the same.

    Raises
    ------
    ParameterError
        If the root was made with other settings; names those that differ.
    ManifestError
        If ``dataset.json`` is not flowkit's.
    """
    existing = root_settings(root)
    if existing is None:
        if create:
            record = {
                **DATASET_RECORD.header,
                "source": os.path.abspath(videos),
                "settings": settings.to_dict(),
                "versions": software_versions(),
            }
            root.mkdir(parents=True, exist_ok=True)
            write_atomically(root / "dataset.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")
        return
    differing = existing.differences(settings)
    if differing:
        raise ParameterError(
            f"the data root {str(root)!r} was made with other settings ({'; '.join(differing)}); "
            "one root never mixes settings: use the same options, or another root with --data DIR"
        )


def check_apart(root: Path, video_ids: Iterable[str]) -> None:
    """Refuse ids that differ only in case or composition where the file system of the data root takes them for one name.

    Raises
    ------
    ManifestError
        Names both: the clip of one would overwrite the other's.
    """
    alike: dict[str, list[str]] = {}
    for video_id in sorted(video_ids):
        twins = alike.setdefault(comparable_name(video_id), [])
        for twin in twins:
            if _taken_for_one(root, twin, video_id):
                raise ManifestError(
                    f"the file system of {str(root)!r} takes {twin!r} and {video_id!r} for one name; rename one, or choose a data root "
                    "elsewhere with --data DIR"
                )
        twins.append(video_id)


def _taken_for_one(root: Path, first: str, second: str) -> bool:
    """Try two names out, beside the root or in it."""
    folder = next(folder for folder in (root, *root.absolute().parents) if folder.is_dir())
    try:
        with tempfile.TemporaryDirectory(prefix=".flowkit-", dir=folder) as tried:
            for one, other in zip(first.split("/"), second.split("/"), strict=True):
                if one != other:
                    (Path(tried) / one).touch()
                    if not (Path(tried) / other).exists():
                        return False
    except OSError:  # not writable: nothing will be overwritten
        return False
    return True


def root_settings(root: Path) -> ExtractSettings | None:
    """Return the extraction settings of a data root, or None if there is no root yet."""
    record = DATASET_RECORD.read_if_present(root / "dataset.json")
    return None if record is None else ExtractSettings.from_dict(record.get("settings"))
