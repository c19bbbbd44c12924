"""The data root: its record ``dataset.json``, and where clips lie in it."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from flowkit.dataset.manifest import DATASET_FORMAT, DATASET_FORMAT_VERSION, MAX_TABLE_BYTES
from flowkit.dataset.settings import ExtractSettings
from flowkit.errors import ManifestError, ParameterError
from flowkit.files import read_file, write_atomically
from flowkit.versions import software_versions
from flowkit.video.ids import folded

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
                "format": DATASET_FORMAT,
                "format_version": DATASET_FORMAT_VERSION,
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
        twins = alike.setdefault(folded(video_id), [])
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
    path = root / "dataset.json"
    try:
        record = json.loads(read_file(path, most_bytes=MAX_TABLE_BYTES).decode("utf-8"))
    except FileNotFoundError:
        return None
    except OSError as cause:
        raise ManifestError(f"cannot read {path}: {cause.strerror}") from cause
    except (ValueError, RecursionError) as cause:
        raise ManifestError(f"{path} is not valid JSON ({cause}); restore it, or choose another root with --data DIR") from cause
    if not isinstance(record, dict) or record.get("format") != DATASET_FORMAT:
        raise ManifestError(f"{path} is not a flowkit data root's; choose another root with --data DIR")
    if record.get("format_version") != DATASET_FORMAT_VERSION:
        raise ManifestError(f"{path} has format version {record.get('format_version')!r}; this flowkit reads {DATASET_FORMAT_VERSION}")
    return ExtractSettings.from_dict(record.get("settings"))
