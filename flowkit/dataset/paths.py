"""Where the files of a data root lie, and what they are called."""

from __future__ import annotations

import os
import re
from pathlib import Path

from flowkit.video.ids import OWN_FOLDERS

_SHARD_NAME = re.compile(r"shard-(\d{5,9})\.h5")
MOST_SPLITS = 999_999_999
_SPLIT_FOLDER = re.compile(r"split([1-9]\d{0,8})")


def clip_path(root: Path, video_id: str) -> Path:
    """Return where the clip file of a video lies in a data root."""
    return root / "clips" / (video_id + ".h5")


def clip_video_id(root: Path, path: Path) -> str:
    """Return the video id that the name of a clip file stands for."""
    return path.relative_to(root / "clips").as_posix().removesuffix(".h5")


def clip_paths(root: Path) -> list[Path]:
    """Return the clip files of a data root, sorted. The name of a class folder may begin with a dot or end in .h5."""
    clips = root / "clips"
    paths = (path for path in clips.rglob("*.h5") if path.relative_to(clips).parts[0] not in OWN_FOLDERS)
    return sorted(path for path in paths if not path.is_dir())


def shard_name(index: int) -> str:
    """Return the file name of the shard with this index."""
    return f"shard-{index:05d}.h5"


def is_shard_name(name: object) -> bool:
    """Return whether a value is the file name of a shard."""
    return isinstance(name, str) and _SHARD_NAME.fullmatch(name) is not None


def shard_paths(root: Path) -> list[Path]:
    """Return the shards of a data root, in order of their indices."""
    numbered = [(int(match[1]), path) for path in (root / "shards").glob("shard-*.h5") if (match := _SHARD_NAME.fullmatch(path.name))]
    return [path for _, path in sorted(numbered)]


def split_folder(root: Path, number: int) -> Path:
    """Return where a data root keeps the manifest of a split, whose number is at most `MOST_SPLITS`."""
    return root / "splits" / f"split{number}"


def complete_splits(root: Path) -> list[int]:
    """Return the numbers of the splits whose manifest is complete, ascending."""
    try:
        names = os.listdir(root / "splits")
    except OSError:
        return []
    numbers = [int(match[1]) for name in names if (match := _SPLIT_FOLDER.fullmatch(name))]
    return sorted(number for number in numbers if (split_folder(root, number) / "split.json").is_file())
