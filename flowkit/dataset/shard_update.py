"""The shards of a data root: which videos each holds, which it should hold, and a replacement in which a crash loses nothing.

``shards/pack.json`` records the shard size and, while shards change, how far the change is; see `recover`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flowkit.dataset.paths import clip_video_id, is_shard_name, shard_name
from flowkit.dataset.settings import OPTIONAL, ExtractSettings
from flowkit.errors import ManifestError, ParameterError, ShardFormatError
from flowkit.files import fsync_folder, remove_leftovers, write_atomically
from flowkit.flow.methods import NO_FLOW
from flowkit.records import RecordFormat

DEFAULT_SHARD_BYTES = 1 << 30
NEW_SUFFIX = ".new"  # a complete shard that will replace the one of the same name
_OLD_NAMES = re.compile(r"shard-\d{5,9}\.h5(\.new)?|pack\.json")

_STATE_RECORD = RecordFormat("flowkit-pack", 1, ManifestError, "delete it and pack again", max_bytes=1 << 26)


@dataclass(frozen=True)
class StoredVideo:
    """A video that a data root holds, in a clip file or a shard.

    Parameters
    ----------
    video_id, class_name : str
        The video and its class.
    num_frames : int
        Frames of the clip.
    sha256 : str
        The digest of attributes, offsets, CRCs and raw flow: two videos with the same digest are stored as the same bytes.
    stored_bytes : int
        What frames and flow take in the file.
    path : Path
        The file that holds it.
    source_sha256 : str
        The digest of the video file that it was extracted from; empty if unknown.
    segment : str
        The frames of that file, if it is a segment of it: ``25-60``; otherwise empty.
    has_flow : bool
        Whether it has flow, and not frames only.
    """

    video_id: str
    class_name: str
    num_frames: int
    sha256: str
    stored_bytes: int
    path: Path
    source_sha256: str
    segment: str = ""
    has_flow: bool = True


def _segment(about: Any) -> str:
    return f"{about.segment['start_frame']}-{about.segment['end_frame']}" if about.segment else ""


@dataclass(frozen=True)
class PackState:
    """The contents of ``shards/pack.json``.

    Parameters
    ----------
    shard_bytes : int
        The shard size that was used last.
    unsettled : tuple of str
        Shards that were written, or were about to be, after the manifests: their digests in the manifests may be stale.
    replacing, removing : tuple of str
        Once all new shards are complete: those that are being replaced, and those that are being removed. Otherwise empty.
    """

    shard_bytes: int = DEFAULT_SHARD_BYTES
    unsettled: tuple[str, ...] = ()
    replacing: tuple[str, ...] = ()
    removing: tuple[str, ...] = ()


def read_videos(path: Path, settings: ExtractSettings) -> list[StoredVideo]:
    """Return the videos of a clip file or shard, in order, after checking that they were made with these settings, perhaps without flow.

    Raises
    ------
    ShardFormatError
        If the file is damaged or foreign.
    ParameterError
        If a video was extracted with other settings, which the error names.
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
        StoredVideo(
            a.video_id, a.class_name, a.num_frames, layout.sha256, layout.stored_bytes, path, a.source_sha256, _segment(a), a.has_flow
        )
        for layout in layouts
        for a in (layout.attributes,)
    ]


def read_clip(path: Path, root: Path, settings: ExtractSettings) -> StoredVideo:
    """Return the one video of a clip file; see `read_videos`.

    Raises
    ------
    ShardFormatError
        If the file is damaged, or does not hold the video that its name stands for.
    """
    videos = read_videos(path, settings)
    expected = clip_video_id(root, path)
    if [video.video_id for video in videos] != [expected]:
        raise ShardFormatError(
            f"{path} holds {videos[0].video_id!r}, not {expected!r}: clip files cannot be renamed; delete it and extract the video again"
        )
    return videos[0]


def settings_differences(stored: Mapping[str, Any], settings: ExtractSettings) -> list[str]:
    """Name each setting in which a stored video (`VideoLayout.settings`) differs from the settings of a data root.

    A video that has frames only, and is yet to get its flow, does not differ by that.
    """
    due = settings.to_dict()
    if stored["codec"] == NO_FLOW and not settings.is_imported:
        due = settings.frames_only().to_dict()
    if not settings.short_side:  # imported flow: each video has the size it was found with
        due["short_side"] = stored["short_side"]
    names = [*stored, *sorted(OPTIONAL & due.keys() - stored.keys())]
    return [f"{name} {stored.get(name)!r} instead of {due.get(name)!r}" for name in names if stored.get(name) != due.get(name)]


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
        If the file is damaged.
    """
    path = root / "shards" / "pack.json"
    record = _STATE_RECORD.read_if_present(path)
    if record is None:
        return PackState()
    names: list[Any] = [record.get(key) for key in ("unsettled", "replacing", "removing")]
    shard_bytes = record.get("shard_bytes")
    if not all(_are_shard_names(value) for value in names) or type(shard_bytes) is not int or shard_bytes < 1:
        raise ManifestError(f"{path} is not valid; delete it and pack again")
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
    """Restore order among the shards after a pack that was killed: finish the replacement if it had begun, or else undo it.

    Returns
    -------
    PackState
        Its `unsettled` shards may differ from what manifests say.
    """
    state = read_state(root)
    if state.replacing or state.removing:
        state = _replace(root, state)
    for path in (root / "shards").glob("shard-*" + NEW_SUFFIX):
        if is_shard_name(path.name.removesuffix(NEW_SUFFIX)):
            path.unlink()
    remove_leftovers(root / "shards", alone=True, old_names=_OLD_NAMES)
    return state


def _replace(root: Path, state: PackState) -> PackState:
    """Put the new shards in place of the old ones. This can be repeated if it is killed at any moment."""
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
    """Return, by name, the planned shards that do not exist yet or hold other videos."""
    named = {shard_name(index): members for index, members in enumerate(planned)}
    return {name: members for name, members in named.items() if _contents(members) != _contents(existing.get(name, []))}


def write_shards(
    root: Path,
    planned: Sequence[Sequence[StoredVideo]],
    existing: dict[str, list[StoredVideo]],
    state: PackState,
    *,
    on_shard: Callable[[str, Sequence[StoredVideo]], None],
    on_bytes: Callable[[int, int], None],
) -> PackState:
    """Write the shards whose members change, so that all shards are as planned.

    Parameters
    ----------
    root : Path
        The data root.
    planned : sequence of sequences of StoredVideo
        The videos that each shard should hold.
    existing : dict of str to list of StoredVideo
        The videos that each shard holds now.
    state : PackState
        The state before.
    on_shard : callable
        Called with (name, members) when a shard has its final name and no older shard holds any of its members.
    on_bytes : callable
        Called with (done, total) bytes after each video that was copied.

    Returns
    -------
    PackState
        Its `unsettled` shards include those that were written.

    Notes
    -----
    Old shards may hold the only copy of a video (`--move`), and videos change shards when others are added. So all new versions
    of existing shards are written beside them first; then ``pack.json`` records that they are complete; then they replace the
    old ones.
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


def _contents(members: Sequence[StoredVideo]) -> list[tuple[str, str]]:
    return [(video.video_id, video.sha256) for video in members]
