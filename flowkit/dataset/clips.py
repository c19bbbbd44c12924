"""The clips of a data root, found by video id and opened as needed, whether they are in clip files or in shards."""

from __future__ import annotations

import difflib
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from flowkit.dataset.paths import clip_paths, clip_video_id, shard_paths
from flowkit.errors import FlowkitError, ManifestError, ShardFormatError
from flowkit.flow.methods import NO_FLOW
from flowkit.shards.reader import Clip, ShardReader
from flowkit.shards.structure import ShardStructure

_FILES_OPEN = 16


@dataclass(frozen=True)
class StoredClips:
    """Which file holds each video of a data root.

    Parameters
    ----------
    paths : dict of str to Path
        The file of each video, sorted by video id. A video that is both in a shard and in a clip file has the shard, unless only its
        frames are there.
    num_packed : int
        The number of videos that are in a shard.
    unreadable : tuple of (str, str)
        Shards that could not be read, and why.
    """

    paths: dict[str, Path]
    num_packed: int
    unreadable: tuple[tuple[str, str], ...]


def find_clips(root: Path) -> StoredClips:
    """Find the videos of a data root. Shards are opened; clip files are not, since their names are the video ids.

    Raises
    ------
    OSError
        If the folders of the root cannot be read.
    """
    paths = {clip_video_id(root, path): path for path in clip_paths(root)}
    packed: dict[str, Path] = {}
    unreadable = []
    for path in shard_paths(root):
        try:
            with ShardStructure(path) as structure:
                codecs = zip(structure.video_ids(), structure.texts("codec"), strict=True)
            packed.update({video_id: path for video_id, codec in codecs if codec != NO_FLOW or video_id not in paths})
        except (FlowkitError, OSError) as error:
            unreadable.append((str(path), str(error)))
    paths.update(packed)
    return StoredClips(dict(sorted(paths.items())), len(packed), tuple(unreadable))


def each_clip(stored: StoredClips, video_ids: Iterable[str]) -> Iterator[tuple[str, Clip | str]]:
    """Yield each of these videos with its clip, or with the reason why that cannot be read: one bad video does not stop the others."""
    with ClipSource(stored) as clips:
        for video_id in video_ids:
            try:
                clip = clips.clip(video_id)
            except (ShardFormatError, OSError) as error:
                yield video_id, str(error)
            else:
                yield video_id, clip


class Packed(NamedTuple):
    """A video in a shard: the shard, the SHA-256 of the video file that it was extracted from, and whether it has flow."""

    path: Path
    source_sha256: str
    has_flow: bool


def packed_videos(root: Path) -> dict[str, Packed]:
    """Return the videos that are in shards.

    Raises
    ------
    ShardFormatError
        If a shard cannot be read.
    """
    packed: dict[str, Packed] = {}
    for path in shard_paths(root):
        with ShardStructure(path) as structure:
            for video_id, sha256, codec in zip(
                structure.video_ids(), structure.texts("source_sha256"), structure.texts("codec"), strict=True
            ):
                packed[video_id] = Packed(path, sha256, codec != NO_FLOW)
    return packed


class ClipSource:
    """Opens clips of a data root by id, keeping the last few files open. A context manager.

    Parameters
    ----------
    stored : StoredClips
        The clips to open, from `find_clips`.
    """

    def __init__(self, stored: StoredClips) -> None:
        self._paths = stored.paths
        self._readers: OrderedDict[Path, ShardReader] = OrderedDict()

    def __enter__(self) -> ClipSource:
        return self

    def __exit__(self, *exception: object) -> None:
        for reader in self._readers.values():
            reader.close()

    def clip(self, video_id: str) -> Clip:
        """Open a clip.

        Raises
        ------
        ManifestError
            If there is no such video; suggests those with a similar id.
        ShardFormatError
            If its file is damaged or foreign.
        OSError
            If its file cannot be read.
        """
        if video_id not in self._paths:
            raise ManifestError(_no_such_video(video_id, self._paths))
        path = self._paths[video_id]
        reader = self._readers.pop(path, None) or ShardReader(path)
        self._readers[path] = reader
        while len(self._readers) > _FILES_OPEN:
            self._readers.popitem(last=False)[1].close()
        return reader.clip(video_id)


def similar_ids(video_id: str, video_ids: Iterable[str], *, most: int = 3) -> list[str]:
    """Return the ids that somebody may have meant, the likeliest first: those with the same last part or a similar spelling."""
    ids = sorted(video_ids)
    wanted = video_id.casefold()
    last = wanted.rpartition("/")[2]
    same_name = [other for other in ids if other.casefold() == wanted or other.casefold().rpartition("/")[2] == last]
    folded = {other.casefold(): other for other in ids}
    alike = [folded[match] for match in difflib.get_close_matches(wanted, folded, n=most, cutoff=0.6)]
    names = {other.rpartition("/")[2]: folded[other] for other in folded}
    alike += [names[match] for match in difflib.get_close_matches(last, names, n=most, cutoff=0.75)]
    return list(dict.fromkeys(same_name + alike))[:most]


def _no_such_video(video_id: str, video_ids: Iterable[str]) -> str:
    ids = list(video_ids)
    if not ids:
        return f"there is no video {video_id!r}: the data root holds no clips yet; run `flowkit extract VIDEOS` first"
    similar = similar_ids(video_id, ids)
    hint = f"did you mean {' or '.join(map(repr, similar))}?" if similar else f"ids look like {ids[0]!r}"
    return f"there is no video {video_id!r} among the {len(ids)} of the data root; {hint}"
