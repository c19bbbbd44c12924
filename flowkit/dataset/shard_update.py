"""The shards of a data root: what is stored where, which shard shall hold what, and replacing shards so that a crash loses nothing.

``shards/pack.json`` remembers the shard size and, while shards change, how far that is; see `recover`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from flowkit.dataset.paths import clip_video_id, is_shard_name, shard_name
from flowkit.errors import ManifestError, ParameterError, ShardFormatError
from flowkit.files import PART_SUFFIX, fsync_folder, write_atomically
from flowkit.records import RecordFormat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from flowkit.dataset.settings import ExtractSettings

DEFAULT_SHARD_BYTES = 1 << 30
NEW_SUFFIX = ".new"  # a whole shard that waits to replace the one of its name

_STATE_RECORD = RecordFormat("flowkit-pack", 1, ManifestError, "delete it and pack again", max_bytes=1 << 26)


@dataclass(frozen=True)
class StoredVideo:
    """A video that a data root holds, in a clip file or a shard.

    Parameters
    ----------
    video_id, class_name : str
    num_frames : int
    sha256 : str
        Of attributes, offsets, CRCs and raw flow: two videos with the same one are stored as the same bytes.
    stored_bytes : int
        What frames and flow take.
    path : Path
        The file that holds it.
    """

    video_id: str
    class_name: str
    num_frames: int
    sha256: str
    stored_bytes: int
    path: Path


@dataclass(frozen=True)
class PackState:
    """What ``shards/pack.json`` remembers.

    Parameters
    ----------
    shard_bytes : int
        The shard size last used.
    unsettled : tuple of str
        Shards that were, or were about to be, written since the manifests were: a digest in a manifest may be stale.
    replacing, removing : tuple of str
        Once the new shards are all whole: those that take their place, and those that go. Empty otherwise.
    """

    shard_bytes: int = DEFAULT_SHARD_BYTES
    unsettled: tuple[str, ...] = ()
    replacing: tuple[str, ...] = ()
    removing: tuple[str, ...] = ()


def read_videos(path: Path, settings: ExtractSettings) -> list[StoredVideo]:
    """Return the videos of a clip file or shard, in order, having checked that they were made with these settings.

    Raises
    ------
    ShardFormatError
        If the file is damaged or foreign.
    ParameterError
        If a video was extracted with other settings; names them.
    """
    from flowkit.shards.structure import ShardStructure

    with ShardStructure(path) as structure:
        layouts = [structure.layout(index) for index in range(structure.num_videos)]
    for layout in layouts:
        differing = settings_differences(layout.settings, settings)
        if differing:
            raise ParameterError(
                f"{path}: video {layout.attributes.video_id!r} was extracted with other settings than dataset.json says "
                f"({'; '.join(differing)}); one data root never mixes settings: delete that file and extract the video again"
            )
    return [
        StoredVideo(a.video_id, a.class_name, a.num_frames, layout.sha256, layout.stored_bytes, path)
        for layout in layouts
        for a in (layout.attributes,)
    ]


def read_clip(path: Path, root: Path, settings: ExtractSettings) -> StoredVideo:
    """Return the one video of a clip file; see `read_videos`.

    Raises
    ------
    ShardFormatError
        Also if the file does not hold the video that its name says.
    """
    videos = read_videos(path, settings)
    expected = clip_video_id(root, path)
    if [video.video_id for video in videos] != [expected]:
        raise ShardFormatError(
            f"{path} holds {videos[0].video_id!r}, not {expected!r}: clip files cannot be renamed; delete it and extract the video again"
        )
    return videos[0]


def settings_differences(stored: Mapping[str, Any], settings: ExtractSettings) -> list[str]:
    """Name each setting in which a stored video (`VideoLayout.settings`) differs from a data root's."""
    due = settings.to_dict()
    if not settings.short_side:  # imported flow: each video has the size it was found with
        due["short_side"] = stored["short_side"]
    return [f"{name} {value!r} instead of {due[name]!r}" for name, value in stored.items() if value != due[name]]


def plan_shards(videos: Iterable[StoredVideo], shard_bytes: int) -> list[list[StoredVideo]]:
    """Divide videos into shards: sorted by id, each shard ending with the first video that brings it past `shard_bytes`."""
    shards: list[list[StoredVideo]] = []
    filled = shard_bytes
    for video in sorted(videos, key=lambda video: video.video_id):
        if filled >= shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(video)
        filled += video.stored_bytes
    return shards


def read_state(root: Path) -> PackState:
    """Read ``shards/pack.json``; a data root without one has the default state.

    Raises
    ------
    ManifestError
        If it is not flowkit's.
    """
    path = root / "shards" / "pack.json"
    record = _STATE_RECORD.read_if_present(path)
    if record is None:
        return PackState()
    names: list[Any] = [record.get(key) for key in ("unsettled", "replacing", "removing")]
    shard_bytes = record.get("shard_bytes")
    if not all(_are_shard_names(value) for value in names) or type(shard_bytes) is not int or shard_bytes < 1:
        raise ManifestError(f"{path} does not hold what it must; delete it and pack again")
    return PackState(shard_bytes, *(tuple(value) for value in names))


def _are_shard_names(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_shard_name, value))


def write_state(root: Path, state: PackState) -> None:
    """Write ``shards/pack.json``."""
    record = {
        **_STATE_RECORD.header,
        "shard_bytes": state.shard_bytes,
        "unsettled": list(state.unsettled),
        "replacing": list(state.replacing),
        "removing": list(state.removing),
    }
    write_atomically(root / "shards" / "pack.json", json.dumps(record, indent=1) + "\n")


def recover(root: Path) -> PackState:
    """Bring the shards of a data root into order after a pack that was killed: finish replacing, or forget what was begun.

    Returns
    -------
    PackState
        Its `unsettled` shards may not be what manifests say.
    """
    state = read_state(root)
    if state.replacing or state.removing:
        state = _replace(root, state)
    for path in (root / "shards").glob("shard-*"):
        if path.name.endswith((NEW_SUFFIX, PART_SUFFIX)):
            path.unlink()
    return state


def _replace(root: Path, state: PackState) -> PackState:
    """Let the new shards take their places. Killed at any moment, it can be done again."""
    folder = root / "shards"
    for name in state.replacing:
        new = folder / (name + NEW_SUFFIX)
        if new.exists():
            new.replace(folder / name)
    for name in state.removing:
        (folder / name).unlink(missing_ok=True)
    fsync_folder(folder)
    state = replace(state, replacing=(), removing=())
    write_state(root, state)
    return state


def changed_shards(
    planned: Sequence[Sequence[StoredVideo]], existing: Mapping[str, Sequence[StoredVideo]]
) -> dict[str, Sequence[StoredVideo]]:
    """Return the planned shards that are not there yet, or hold something else, by name."""
    return {name: members for name, members in map(_named, enumerate(planned)) if not _same(members, existing.get(name, []))}


def write_shards(
    root: Path,
    planned: Sequence[Sequence[StoredVideo]],
    existing: dict[str, list[StoredVideo]],
    state: PackState,
    *,
    on_shard: Callable[[str, Sequence[StoredVideo]], None],
    on_bytes: Callable[[int, int], None],
) -> PackState:
    """Make the shards hold what is planned, writing only those whose members change.

    Parameters
    ----------
    root : Path
    planned : sequence of sequences of StoredVideo
        What each shard shall hold.
    existing : dict of str to list of StoredVideo
        What each shard holds now.
    state : PackState
    on_shard : callable
        Told (name, members) when a shard has its final name and no older shard holds any of its members.
    on_bytes : callable
        Told (done, total) bytes after each video that was copied.

    Returns
    -------
    PackState
        Its `unsettled` names the shards that were written.

    Notes
    -----
    Old shards may hold the only copy of a video (`--move`), and videos wander between shards when some are added. So the
    new versions of existing shards are first all written beside them; then ``pack.json`` says that they are whole; then
    they take their places.
    """
    from flowkit.shards.writer import Member, write_shard

    changed = changed_shards(planned, existing)
    removing = tuple(name for name in existing if name not in {shard_name(index) for index in range(len(planned))})
    if not changed and not removing:
        return state
    old = {video.video_id for name in (*changed, *removing) for video in existing.get(name, [])}
    state = replace(state, unsettled=tuple(sorted({*state.unsettled, *changed, *removing})))
    write_state(root, state)
    later, done, total = [], 0, sum(video.stored_bytes for members in changed.values() for video in members)

    def count(num_bytes: int) -> None:
        nonlocal done
        done += num_bytes
        on_bytes(done, total)

    for name, members in changed.items():
        path = root / "shards" / (name + NEW_SUFFIX if name in existing else name)
        write_shard(path, [Member(video.path, video.video_id) for video in members], on_video=count)
        if name in existing or old.intersection(video.video_id for video in members):
            later.append(name)
        else:
            on_shard(name, members)
    if old:
        state = replace(state, replacing=tuple(name for name in changed if name in existing), removing=removing)
        write_state(root, state)
        state = _replace(root, state)
    for name in later:
        on_shard(name, changed[name])
    return state


def _named(numbered: tuple[int, Sequence[StoredVideo]]) -> tuple[str, Sequence[StoredVideo]]:
    return shard_name(numbered[0]), numbered[1]


def _same(members: Sequence[StoredVideo], others: Sequence[StoredVideo]) -> bool:
    return [(video.video_id, video.sha256) for video in members] == [(video.video_id, video.sha256) for video in others]
