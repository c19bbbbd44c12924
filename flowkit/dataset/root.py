"""The data root: `Dataset`, the one reader of its record ``dataset.json``, and how a root is made."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import combinations
from pathlib import Path

from flowkit.dataset.manifest import ClipRecord, Split, read_split
from flowkit.dataset.paths import complete_splits
from flowkit.dataset.settings import ExtractSettings
from flowkit.errors import ManifestError, ParameterError
from flowkit.files import write_atomically, write_if_new
from flowkit.locks import exclusive_lock
from flowkit.records import RecordFormat
from flowkit.versions import software_versions
from flowkit.video.ids import MOST_CLASHES, comparable_name, first_few

RECORD_NAME = "dataset.json"
_SETTINGS_LOCK = ".settings.lock"
_RECORD = RecordFormat("flowkit-dataset", 1, ManifestError, "restore it, or choose another data root with --data DIR")


@dataclass(frozen=True, repr=False)
class Dataset:
    """A data root: where it lies, what its videos were extracted with, and its splits. Iterating over it reads each split.

    Parameters
    ----------
    root : Path
        The folder. Open one with `open`, which checks it.
    source : str
        The folder of the videos; empty if it is not known.
    settings : ExtractSettings
        What all clips of the root were extracted with.
    versions : dict of str to str
        The software that made the root: flowkit, Python and the libraries that decode, solve and pack, each with its version.

    Examples
    --------
    >>> import flowkit
    >>> from flowkit.dataset.example import example_root
    >>> dataset = flowkit.Dataset.open(example_root())
    >>> dataset.splits
    [1]
    >>> dataset.settings.quantiser
    Quantiser(bound=20.0, mapping='symmetric')
    >>> split = dataset.split(1)
    >>> with flowkit.ShardReader(dataset.shard_path(split.train[0])) as shard:
    ...     flow = shard.clip(split.train[0].video_id).flow(0, 10)
    >>> flow.shape
    (10, 2, 40, 56)
    """

    root: Path
    source: str
    settings: ExtractSettings
    versions: dict[str, str]

    @classmethod
    def open(cls, root: str | os.PathLike[str]) -> Dataset:
        """Open a data root.

        Raises
        ------
        ManifestError
            If the folder is not a data root, or its ``dataset.json`` is damaged.
        """
        dataset = cls.open_if_present(root)
        if dataset is None:
            raise ManifestError(
                f"{str(root)!r} is not a data root (it has no {RECORD_NAME}): {_meant(Path(root))}make one with `flowkit extract VIDEOS`, "
                "or name another one with --data DIR"
            )
        return dataset

    @classmethod
    def open_if_present(cls, root: str | os.PathLike[str]) -> Dataset | None:
        """Open a data root as `open` does; return None if there is none in this folder yet."""
        root = Path(root)
        path = root / RECORD_NAME
        record = _RECORD.read_if_present(path)
        if record is None:
            return None
        source, versions = record.get("source", ""), record.get("versions", {})
        if not isinstance(source, str) or not isinstance(versions, dict) or not all(isinstance(v, str) for v in versions.values()):
            raise ManifestError(f"{path}: source must be a text, and versions must give a text by name; {_RECORD.remedy}")
        try:
            settings = ExtractSettings.from_dict(record.get("settings"))
        except ManifestError as cause:
            by = f" (written by flowkit {versions['flowkit']})" if "flowkit" in versions else ""
            raise ManifestError(f"{path}{by}: {cause}; run `flowkit extract` again, into another data root") from cause
        return cls(root, source, settings, versions)

    def __repr__(self) -> str:
        return f"Dataset({str(self.root)!r}, splits {self.splits})"

    def __iter__(self) -> Iterator[Split]:
        return map(self.split, self.splits)

    @property
    def splits(self) -> list[int]:
        """The numbers of the splits whose manifest is complete, ascending."""
        return complete_splits(self.root)

    def split(self, number: int) -> Split:
        """Read the manifest of a split.

        Raises
        ------
        ManifestError
            If there is no such split, a table does not have the digest that split.json gives, or anything in them is not
            valid; names the file and the row.
        """
        if number not in self.splits:
            has = f"it has {', '.join(map(str, self.splits))}" if self.splits else "it has none"
            raise ManifestError(f"{str(self.root)!r} has no split {number} ({has}): make it with `flowkit pack --split {number}`")
        try:
            return read_split(self.root, number)
        except ManifestError as cause:
            text = str(cause).removesuffix("; pack the split again")
            raise ManifestError(f"{text}; pack the split again, with the same options: `flowkit pack --split {number}`") from cause

    def check_settings(self, settings: ExtractSettings) -> None:
        """Check that clips with these settings may be added.

        Raises
        ------
        ParameterError
            If the root was made with other settings; names those that differ. Frames that are stored without flow may be stored
            with flow of any settings.
        """
        if self.settings.has_flow and not settings.has_flow:
            raise ParameterError(
                f"the data root {str(self.root)!r} has flow, so none can be added without it: leave out --no-flow, or choose another "
                "root with --data DIR"
            )
        adds_flow = not self.settings.has_flow and settings.has_flow and not settings.is_imported
        differing = self.settings.differences(settings.frames_only() if adds_flow else settings)
        if differing:
            raise ParameterError(
                f"the data root {str(self.root)!r} was made with other settings ({'; '.join(differing)}); "
                "one root never mixes settings: use the same options, or another root with --data DIR"
            )

    def shard_path(self, record: ClipRecord) -> Path:
        """Return the path of the shard that holds a clip."""
        return self.root / "shards" / record.shard


def _meant(root: Path) -> str:
    """Return a question about the data root that was probably meant, in the same folder; empty if there is none of a similar name."""
    try:
        others = [name for name in os.listdir(root.parent) if (root.parent / name / RECORD_NAME).is_file()]
    except OSError:
        return ""
    close = get_close_matches(root.name, others, n=1)
    return f"did you mean {str(root.parent / close[0])!r}? If not, " if close else ""


def open_root(root: Path, videos: Path, settings: ExtractSettings) -> None:
    """Make a data root with these settings, or check that an existing one has the same.

    A data root that has frames without flow gets these settings if they store the same frames with flow. What is there without flow is
    then yet to be extracted again.

    Raises
    ------
    ParameterError
        If the root was made with other settings; names those that differ.
    ManifestError
        If the ``dataset.json`` of the root is damaged.
    """
    existing = Dataset.open_if_present(root)
    if existing is None and write_if_new(root / RECORD_NAME, _record_text(os.path.abspath(videos), settings)):
        return
    existing = existing or Dataset.open(root)  # another process has just made it
    existing.check_settings(settings)
    if existing.settings.has_flow == settings.has_flow:
        return
    with exclusive_lock(root / _SETTINGS_LOCK, f"sets the settings of {str(root)!r}", on_wait=lambda _: None):  # parts may do so at once
        existing = Dataset.open(root)
        existing.check_settings(settings)
        if existing.settings.has_flow != settings.has_flow:
            write_atomically(root / RECORD_NAME, _record_text(existing.source, settings))


def _record_text(source: str, settings: ExtractSettings) -> str:
    record = {**_RECORD.header, "source": source, "settings": settings.to_dict(), "versions": software_versions()}
    return json.dumps(record, indent=2, ensure_ascii=False) + "\n"


def check_apart(root: Path, video_ids: Iterable[str]) -> None:
    """Refuse ids that differ only in case or composition where the file system of the data root treats them as one name.

    Raises
    ------
    ManifestError
        Names all of them: the clip of one would overwrite the clip of the other.
    """
    by_comparable_id: dict[str, list[str]] = {}
    for video_id in sorted(video_ids):
        by_comparable_id.setdefault(comparable_name(video_id), []).append(video_id)
    several = [ids for ids in by_comparable_id.values() if len(ids) > 1]
    pairs = [pair for ids in several for pair in combinations(ids, 2) if _are_one_name(root, *pair)]
    if pairs:
        names = first_few((f"{first!r} and {second!r}" for first, second in pairs), most=MOST_CLASHES)
        raise ManifestError(
            f"the file system of {str(root)!r} treats these ids as the same name: {names}; rename one of each, or choose a data root "
            "elsewhere with --data DIR"
        )


def _are_one_name(root: Path, first: str, second: str) -> bool:
    """Try two names out, beside the root or in it."""
    folder = next(folder for folder in (root, *root.absolute().parents) if folder.is_dir())
    try:
        with tempfile.TemporaryDirectory(prefix=".flowkit-", dir=folder) as trial:
            for part, other in zip(first.split("/"), second.split("/"), strict=True):
                if part != other:
                    (Path(trial) / part).touch()
                    if not (Path(trial) / other).exists():
                        return False
    except OSError:  # not writable: nothing will be overwritten
        return False
    return True
