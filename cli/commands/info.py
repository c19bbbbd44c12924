"""``flowkit info``: what a shard, a clip file or a data root holds."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flowkit.cli.help.format import Command
from flowkit.cli.shared.console import complete, counted, duration, long_table, say, show_name, size, table, warn
from flowkit.cli.shared.exit_codes import EXIT_SOME_FAILED
from flowkit.cli.shared.options import data_option, json_option, refuse_unused
from flowkit.errors import FlowkitError
from flowkit.flow.methods import FlowMethod
from flowkit.flow.params import PRESETS, TVL1Params
from flowkit.quantise import Quantiser

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowkit.describe.contents import Contents, FileInfo, RootInfo, VideoFacts


@click.command(cls=Command)
@click.argument("path", required=False, type=click.Path(exists=True, path_type=Path))
@data_option
@json_option
def info(path: Path | None, data: Path, as_json: bool) -> int:
    """Show what PATH holds: a shard, a clip file or a data root (the default).

    This reads the structure of the files, not their pixels. To test the data, use `flowkit verify`.
    """
    if path is not None:
        refuse_unused("PATH names what to describe", "data")
    from flowkit.describe.contents import describe_file, describe_root

    path = path or data
    if path.is_file():
        described = describe_file(path)
        say(json.dumps(described.to_dict(), indent=1) if as_json else _file_text(described))
        return 0
    root = describe_root(path, progress=True)
    say(json.dumps(root.to_dict(), indent=1) if as_json else _root_text(root))
    if root.unreadable:
        warn("\nnot readable:\n" + table(("file", "reason"), root.unreadable))
        return EXIT_SOME_FAILED
    return 0


def _file_text(info: FileInfo) -> str:
    lines = [f"{show_name(info.path)}: {size(info.num_bytes)}, format {info.shard_format_version}, written by {show_name(info.created_by)}"]
    lines += ["", _contents_text(info.contents), ""]
    rows = [
        (v.video_id, v.class_name, v.num_frames, f"{v.width}x{v.height}", v.frame_rate, _span(v), size(v.stored_bytes)) for v in info.videos
    ]
    lines.append(long_table(("video", "class", "frames", "size", "frame rate", "times, s", "bytes"), rows, rest=" (--json lists all)"))
    return "\n".join(lines)


def _span(video: VideoFacts) -> str:
    """Return the time stamps of the first and the last frame of a video, in s."""
    if video.first_seconds is None or video.last_seconds is None:
        return "unknown"
    return f"{video.first_seconds:.2f} to {video.last_seconds:.2f}"


def _root_text(root: RootInfo) -> str:
    lines = [f"{show_name(root.path)}: data root, made from {show_name(root.source or 'unknown')}", "", _contents_text(root.contents)]
    lines.append(f"clip files  {root.num_clip_files} ({size(root.clip_bytes)})")
    lines.append(
        f"shards      {root.num_shards} ({size(root.shard_bytes)}), {root.num_packed} of {counted(root.contents.num_videos, 'video')}"
    )
    versions = ", ".join(f"{show_name(name)} {show_name(version)}" for name, version in root.versions.items())
    lines.append(f"written by  {versions or 'unknown'}")
    if not root.splits:
        return "\n".join([*lines, "", complete("no split yet: `flowkit pack --split 1`")])
    rows = [
        (s.number, s.protocol or show_name(s.problem), s.num_classes, s.num_train, s.num_listed_train, s.num_test, s.num_listed_test)
        for s in root.splits
    ]
    return "\n".join([*lines, "", table(("split", "protocol", "classes", "train", "of listed", "test", "of listed"), rows)])


def _contents_text(contents: Contents) -> str:
    def shares(counts: dict[str, int]) -> str:
        shown = sorted(counts.items(), key=lambda item: -item[1])[:6]
        one = len(counts) == 1
        text = ", ".join(show_name(name or "none") + ("" if one else f" ({count})") for name, count in shown)
        return text + (f", and {len(counts) - len(shown)} more" if len(counts) > len(shown) else "") or "none"

    damaged = f", {contents.num_damaged} damaged at their source" if contents.num_damaged else ""
    length = f" ({duration(contents.seconds)})" if contents.seconds else ""
    return "\n".join(
        [
            f"videos      {contents.num_videos}{damaged}",
            f"classes     {contents.num_classes}: {shares(contents.classes)}",
            f"frames      {contents.num_frames}{length}, of {shares(contents.sizes)} px",
            f"flow        {counted(contents.num_pairs, 'flow field')}, solver {shares(contents.solvers)}",
            *([f"quantiser   {shares(_in_words(contents.quantisers, _quantiser_text))}"] if contents.quantisers else []),
            *([f"TV-L1       {shares(_in_words(tvl1, _tvl1_text))}"] if (tvl1 := _tvl1_sets(contents)) else []),
            *([f"method      {shares(_in_words(contents.methods, _method_text))}"] if contents.methods else []),
            *([f"camera      motion removed, by {shares(contents.camera_motions)}"] if contents.camera_motions else []),
            f"codec       {shares(contents.codecs)}, {size(contents.stored_bytes)}",
        ]
    )


def _in_words(counts: dict[str, int], words: Callable[[str], str]) -> dict[str, int]:
    """Return numbers of videos by settings in words, where they were by settings in JSON; what cannot be understood stays as it is."""
    counted_words: Counter[str] = Counter()
    for stored, number in counts.items():
        try:
            counted_words[words(stored)] += number
        except FlowkitError:
            counted_words[stored] += number
    return counted_words


def _quantiser_text(stored: str) -> str:
    """Return a quantiser in words."""
    quantiser = Quantiser.from_dict(json.loads(stored))
    return f"bound {quantiser.bound:g} px/frame, mapping {quantiser.mapping}"


def _tvl1_sets(contents: Contents) -> dict[str, int]:
    """Return numbers of videos by parameters of TV-L1, without the videos of other flow methods, which have none."""
    others = sum(contents.methods.values())
    return {stored: rest for stored, number in contents.tvl1.items() if (rest := number - (others if stored == "{}" else 0))}


def _method_text(stored: str) -> str:
    """Return a flow method that is not TV-L1 in words."""
    return str(FlowMethod.from_dict(json.loads(stored)))


def _tvl1_text(stored: str) -> str:
    """Return parameters of TV-L1 in words: the preset, or every value where they are those of none."""
    if stored == "{}":
        return "not known (imported)"
    params = TVL1Params.from_dict(json.loads(stored))
    for name in PRESETS:
        if params == TVL1Params.preset(name):
            return f"preset {name}"
    return " ".join(f"{key.rstrip('_')}={value:g}" for key, value in params.to_dict().items())
