"""Find the videos in a tree of flow images that another tool wrote.

The tools and the projects that use them differ in folders and names. The comments beside the layouts say who writes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from flowkit.dataset.settings import ForeignTool
from flowkit.errors import ManifestError
from flowkit.exchange.layouts import LAYOUTS
from flowkit.exchange.record import ExportRecord
from flowkit.video.folders import read_layout
from flowkit.video.ids import check_video_id, utf8_name
from flowkit.video.tree import walk_files

FlowNames = Literal["any", "flow_x", "x"]

# u and v in one folder, by name: denseflow and dense_flow write flow_x_00001.jpg; older versions of mmaction2 x_00001.jpg.
# ``flow_x_p2_00001.jpg`` (denseflow -s=2) is found too, so that the video is reported.
_NAMED = re.compile(r"(flow_x|flow_y|x|y)_(?:[pm]\d+_)?\d+\.(?:jpg|jpeg|png)", re.I)
# u and v in folders of their own, at the top (gpu_flow: u/<video>; I3D: tvl1_flow/x/<video>) or inside the video's folder
# (EPIC-Kitchens: <video>/u; I3D-Tensorflow: <video>/x beside <video>/i). Only gpu_flow names them u and v.
_AXES = (("u", "v"), ("x", "y"), ("flow_x", "flow_y"))
_FLOW_FOLDERS = ("tvl1_flow", "flow_frames", "flow")
_FRAME_FOLDERS = ("rgb", "jpegs_256", "frames", "rgb_frames", "jpegs", "images", "rawframes")
_FRAMES_INSIDE = ("i", "rgb", "img", "image", "images", "frames", "rgb_frames")  # in the folder of a video
_ANY_IMAGE = re.compile(r"[^.].*?\d\.(?:jpg|jpeg|png)|\d\.(?:jpg|jpeg|png)", re.I)

_LOOKED_FOR_GPU_FLOW = (
    "u/<video>/frame000001.jpg with v/<video>/..., or x/ with y/, also in tvl1_flow/ or flow/",
    "<video>/u/frame_0000000001.jpg with <video>/v/..., or x/ with y/",
)
_LOOKED_FOR_OTHERS = (
    "<video>/flow_x_00001.jpg with flow_y_00001.jpg, or x_00001.jpg with y_00001.jpg",
    "x/<video>/00001.jpg with y/<video>/..., also in tvl1_flow/ or flow/",
    "<video>/x/00001.jpg with <video>/y/...",
)


@dataclass(frozen=True)
class TreeVideo:
    """A video of a tree.

    Parameters
    ----------
    video_id, class_name : str
        The video and its class.
    folder : str
        Its folder relative to the tree, as in the record of an export.
    frames, u, v : Path
        Folders of the images of each kind.
    flow_names : {"any", "flow_x", "x"}
        How flow images are named: in any way, in folders of their own; or ``flow_x_00001`` or ``x_00001``, all in one folder.
    fault : str
        Why it cannot be imported; empty if nothing is known to be wrong.
    """

    video_id: str
    class_name: str
    folder: str
    frames: Path
    u: Path
    v: Path
    flow_names: FlowNames = "any"
    fault: str = ""


@dataclass(frozen=True)
class _Images:
    """What a folder holds: names that say which part of flow an image is; or why the folder cannot be read."""

    kinds: set[str] = field(default_factory=set)
    fault: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether the folder holds u and v."""
        return {"flow_x", "flow_y"} <= self.kinds or {"x", "y"} <= self.kinds


def find_videos(tree: Path, tool: ForeignTool, *, frames: Path | None = None, record: ExportRecord | None = None) -> list[TreeVideo]:
    """Find the videos of a tree, sorted by id.

    Parameters
    ----------
    tree : Path
        A folder above those of the videos, with or without folders of classes between.
    tool : {"gpu_flow", "denseflow", "dense_flow"}
        The tool that wrote the tree.
    frames : Path, optional
        The folder with the frames, in folders of the same names. By default frames are looked for beside the flow images, or in
        ``rgb``, ``jpegs_256``, ``frames``, ... in the tree or beside it.
    record : ExportRecord, optional
        The record of a tree that flowkit exported.

    Raises
    ------
    ManifestError
        If there are no videos, or no folder of frames.
    """
    if record is not None:
        tree = tree / LAYOUTS[record.layout].frames[0] if record.layout != "gpu_flow" else tree
    roots = _top_folders(tree, tool, exported=record is not None)
    if roots is not None:
        u_root, v_root, below = roots
        frame_root = frames or _frame_root(tree, u_root)
        videos = [
            _video(folder, frame_root / folder, u_root / folder, v_root / folder, "any", images.fault) for folder, images in below.items()
        ]
    else:
        videos = list(_videos_below(tree, tool, frames))
    if not videos:
        raise ManifestError(_nothing_found(tree, tool))
    class_of = read_layout(video.video_id for video in videos).class_of
    return sorted((replace(video, class_name=class_of[video.video_id]) for video in videos), key=lambda video: video.video_id)


def _video(folder: str, frames: Path, u: Path, v: Path, names: FlowNames, fault: str) -> TreeVideo:
    return TreeVideo(folder, folder.rpartition("/")[0], utf8_name(folder), frames, u, v, names, fault or _name_fault(folder))


def _axes(tool: ForeignTool) -> tuple[tuple[str, str], ...]:
    return _AXES if tool == "gpu_flow" else _AXES[1:]


def _top_folders(tree: Path, tool: ForeignTool, *, exported: bool = False) -> tuple[Path, Path, dict[str, _Images]] | None:
    """Return the folders of u and v above those of the videos, and what the first holds; None if there are none.

    Folders u and v in which each video has both are classes of such names.
    """
    for folder in (tree, *(tree / name for name in _FLOW_FOLDERS)):
        for u, v in _axes(tool):
            if (folder / u).is_dir() and (folder / v).is_dir():
                below = _folders_with_images(folder / u)
                are_whole = bool(below) and all(
                    images.is_whole or _axis_place(name.split("/"), _axes(tool), below) or name.rpartition("/")[2] in _FRAMES_INSIDE
                    for name, images in below.items()
                )
                if exported or not are_whole:
                    return folder / u, folder / v, below
    return None


def _frame_root(tree: Path, u_root: Path) -> Path:
    for folder in dict.fromkeys((tree, u_root.parent, u_root.parent.parent)):
        for name in _FRAME_FOLDERS:
            if (folder / name).is_dir():
                return folder / name
    raise ManifestError(f"no folder of frames found in or beside {str(tree)!r} ({', '.join(_FRAME_FOLDERS)}); name it with --frames DIR")


def _videos_below(tree: Path, tool: ForeignTool, frames: Path | None) -> Iterable[TreeVideo]:
    """Find videos whose flow images lie in one folder, or in two that are anywhere below the tree."""
    folders = _folders_with_images(tree)
    axes = _axes(tool)
    for folder, images in folders.items():
        parts = folder.split("/")
        found = None if images.is_whole else _axis_place(parts, axes, folders)
        if found is not None:
            place, u, v = found
            if parts[place] == v and "/".join([*parts[:place], u, *parts[place + 1 :]]) in folders:
                continue  # the video is found by its u
            own = [*parts[:place], *parts[place + 1 :]]
            u_path, v_path = (tree.joinpath(*parts[:place], axis, *parts[place + 1 :]) for axis in (u, v))
            if own:
                own, frame_path = _frames_of(tree, own, frames)
                yield _video("/".join(own), frame_path, u_path, v_path, "any", images.fault)
        elif images.fault or (images.kinds and tool != "gpu_flow"):
            path = tree / folder
            names: FlowNames = "x" if images.kinds <= {"x", "y"} else "flow_x"
            yield _video(folder, path if frames is None else frames / folder, path, path, names, images.fault)


def _axis_place(parts: list[str], axes: tuple[tuple[str, str], ...], folders: Mapping[str, _Images]) -> tuple[int, str, str] | None:
    """Return which part of a folder's path names the axis, with the names of both axes; None if no part does.

    A folder that is called x may be a class. It counts only with images in the folder for the other axis, except at the end of a
    path, where the folder of the other axis may be missing.
    """
    is_named = bool(folders["/".join(parts)].kinds)
    if parts[-1] in _FRAMES_INSIDE and any("/".join([*parts[:-1], axis]) in folders for pair in axes for axis in pair):
        return None  # frames beside folders of flow
    for place in (len(parts) - 1, *range(len(parts) - 1)):
        for u, v in axes:
            other = {u: v, v: u}.get(parts[place])
            if other is not None and (
                "/".join([*parts[:place], other, *parts[place + 1 :]]) in folders or (place == len(parts) - 1 and not is_named)
            ):
                return place, u, v
    return None


def _frames_of(tree: Path, parts: list[str], frames: Path | None) -> tuple[list[str], Path]:
    """Return the parts of a video's id and the folder of its frames, where flow images lie in folders for each axis."""
    if frames is not None:
        return parts, frames.joinpath(*parts)
    for name in _FRAMES_INSIDE:
        if (path := tree.joinpath(*parts, name)).is_dir():
            return parts, path
    for place, part in enumerate(parts):
        if part in _FLOW_FOLDERS:  # P01/flow_frames/P01_01/u beside P01/rgb_frames/P01_01
            for name in _FRAME_FOLDERS:
                if (path := tree.joinpath(*parts[:place], name, *parts[place + 1 :])).is_dir():
                    return [*parts[:place], *parts[place + 1 :]], path
    for place in reversed(range(len(parts))):
        for name in _FRAME_FOLDERS:
            if (path := tree.joinpath(*parts[:place], name, *parts[place:])).is_dir():
                return parts, path
    for name in _FRAME_FOLDERS:
        if (path := tree.absolute().parent.joinpath(name, *parts)).is_dir():
            return parts, path
    return parts, tree.joinpath(*parts)


def _nothing_found(tree: Path, tool: ForeignTool) -> str:
    """Say what was looked for, and which tool writes what is there instead."""
    looked_for = "; ".join(_LOOKED_FOR_GPU_FLOW if tool == "gpu_flow" else _LOOKED_FOR_OTHERS)
    other: tuple[ForeignTool, ...] = ("denseflow", "dense_flow") if tool == "gpu_flow" else ("gpu_flow",)
    hint = ""
    if _top_folders(tree, other[0]) is not None or next(iter(_videos_below(tree, other[0], None)), None) is not None:
        hint = f"; what is there is named as by {' or '.join(other)} (--tool)"
    return f"no flow of {tool} found under {str(tree)!r}: flowkit looks for {looked_for}; name the folder above those of the videos{hint}"


def _name_fault(folder: str) -> str:
    try:
        check_video_id(folder)
    except ManifestError as error:
        return str(error)
    return ""


def _folders_with_images(root: Path) -> dict[str, _Images]:
    """Return the folders below a root that hold numbered images or cannot be read, relative to it and with ``/``."""
    found: dict[str, _Images] = {}
    for relative, _, fault in walk_files(str(root)):
        folder, _, name = relative.rpartition("/")
        if fault is not None:
            found[relative] = _Images(fault=fault)
        elif folder and _ANY_IMAGE.fullmatch(name):
            images = found.setdefault(folder, _Images())
            if match := _NAMED.fullmatch(name):
                images.kinds.add(match[1].lower())
    return found
