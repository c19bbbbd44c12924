"""Find the videos in a tree of flow images that another tool wrote, and list and check the images of a video in order.

The tools differ in folders, names, first numbers and in the frames that they write. The comments beside the patterns say what
their source code does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from flowkit.dataset.settings import ForeignTool
from flowkit.errors import ManifestError, ShardFormatError
from flowkit.exchange.layouts import LAYOUTS
from flowkit.exchange.record import ExportRecord
from flowkit.files import read_file
from flowkit.shards.jpeg import jpeg_size
from flowkit.shards.schema import MAX_JPEG_BYTES
from flowkit.video.ids import check_video_id, printable_name
from flowkit.video.tree import walk_files

# compute_flow.cpp of gpu_flow: flow k (from 1) leads from frame k to frame k + 1, both named frame%06d.jpg.
# dense_flow and denseflow: img_, flow_x_, flow_y_ with %05d, from 1 in dense_flow, from 0 in denseflow.
_SUFFIX = r"\.(jpg|jpeg|png)"
_PATTERNS = {
    "gpu_flow": {"u": re.compile(r"frame(\d+)" + _SUFFIX, re.I), "v": re.compile(r"frame(\d+)" + _SUFFIX, re.I)},
    "dense": {"u": re.compile(r"flow_x_(\d+)" + _SUFFIX, re.I), "v": re.compile(r"flow_y_(\d+)" + _SUFFIX, re.I)},
}
_FRAMES = re.compile(r"(?:frame|img|image)_?(\d+)" + _SUFFIX, re.I)
_FRAME_FOLDERS = ("rgb", "jpegs_256", "frames", "jpegs", "images", "rawframes")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END_OF_JPEG = b"\xff\xd9"
_MOST_GAPS = 8  # named in an error


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
    fault : str
        Why it cannot be imported; empty if nothing is known to be wrong.
    """

    video_id: str
    class_name: str
    folder: str
    frames: Path
    u: Path
    v: Path
    fault: str = ""


@dataclass(frozen=True)
class ImageRun:
    """Images of one kind, in order of their numbers, without gaps."""

    paths: tuple[Path, ...]
    first: int

    @property
    def is_png(self) -> bool:
        """Whether the images are PNGs."""
        return self.paths[0].suffix.lower() == ".png"


def find_videos(tree: Path, tool: ForeignTool, *, frames: Path | None = None, record: ExportRecord | None = None) -> list[TreeVideo]:
    """Find the videos of a tree, sorted by id.

    Parameters
    ----------
    tree : Path
        gpu_flow: the folder with ``u`` and ``v``, or with ``tvl1_flow`` above them. Others: the parent of the folders of videos.
    tool : {"gpu_flow", "denseflow", "dense_flow"}
        The tool that wrote the tree.
    frames : Path, optional
        The folder with the frames, in folders of the same names. By default frames are looked for beside the flow images, or for
        gpu_flow in ``rgb``, ``jpegs_256``, ``frames``, ... in the tree or beside it.
    record : ExportRecord, optional
        The record of a tree that flowkit exported.

    Raises
    ------
    ManifestError
        If there are no videos, or no folder of frames.
    """
    if tool == "gpu_flow":
        u_root, v_root = _gpu_flow_roots(tree)
        frame_root = frames or _frame_root(tree, u_root)
    else:
        inside = tree / LAYOUTS[record.layout].frames[0] if record is not None else tree
        u_root = v_root = inside
        frame_root = frames or inside
    pattern = _patterns(tool)["u"]
    videos = []
    for folder, unreadable in _folders_with(u_root, pattern).items():
        fault = unreadable or _name_fault(folder)
        videos.append(TreeVideo(folder, folder.rpartition("/")[0], folder, frame_root / folder, u_root / folder, v_root / folder, fault))
    if not videos:
        example = "u/<video>/frame000001.jpg" if tool == "gpu_flow" else "<video>/flow_x_00001.jpg"
        raise ManifestError(f"no flow of {tool} found under {str(tree)!r}: it writes {example}; name the correct folder or --tool")
    return [replace(video, folder=printable_name(video.folder)) for video in sorted(videos, key=lambda video: video.video_id)]


def _patterns(tool: ForeignTool) -> Mapping[str, re.Pattern[str]]:
    return _PATTERNS["gpu_flow" if tool == "gpu_flow" else "dense"]


def _gpu_flow_roots(tree: Path) -> tuple[Path, Path]:
    for folder in (tree, tree / "tvl1_flow"):
        if (folder / "u").is_dir() and (folder / "v").is_dir():
            return folder / "u", folder / "v"
    raise ManifestError(f"{str(tree)!r} has no folders u and v, as gpu_flow writes them; name the folder that has them, or another --tool")


def _frame_root(tree: Path, u_root: Path) -> Path:
    for folder in dict.fromkeys((tree, u_root.parent, u_root.parent.parent)):
        for name in _FRAME_FOLDERS:
            if (folder / name).is_dir():
                return folder / name
    raise ManifestError(f"no folder of frames found in or beside {str(tree)!r} ({', '.join(_FRAME_FOLDERS)}); name it with --frames DIR")


def _name_fault(folder: str) -> str:
    try:
        check_video_id(folder)
    except ManifestError as error:
        return str(error)
    return ""


def _folders_with(root: Path, pattern: re.Pattern[str]) -> dict[str, str]:
    """Return the folders below a root that hold a file of a name, relative to it and with ``/``; and for those that cannot be read, why."""
    faults: dict[str, str] = {}
    for relative, _, fault in walk_files(str(root)):
        folder, _, name = relative.rpartition("/")
        if fault is not None:
            faults[relative] = fault
        elif folder and pattern.fullmatch(name):
            faults[folder] = ""
    return faults


def read_runs(video: TreeVideo, tool: ForeignTool) -> tuple[ImageRun, ImageRun, ImageRun]:
    """List the frames, u images and v images of a video.

    Raises
    ------
    ShardFormatError
        If images are missing: there are none, the numbers have gaps, or u and v have different numbers.
    """
    patterns = _patterns(tool)
    u = _image_run(video.u, patterns["u"], "flow images u")
    v = _image_run(video.v, patterns["v"], "flow images v")
    if (u.first, len(u.paths)) != (v.first, len(v.paths)):
        spans = " and ".join(f"{name} has {run.first} to {run.first + len(run.paths) - 1}" for name, run in (("u", u), ("v", v)))
        raise ShardFormatError(f"flow images do not match: {spans}")
    return _image_run(video.frames, _FRAMES, "frames"), u, v


def _image_run(folder: Path, pattern: re.Pattern[str], what: str) -> ImageRun:
    numbered: dict[int, str] = {}
    try:
        names = os.listdir(folder)
    except OSError as cause:
        raise ShardFormatError(f"has no {what}: {str(folder)!r}: {cause.strerror}") from cause
    for name in sorted(names):
        match = pattern.fullmatch(name)
        if match is None:
            continue
        number = int(match[1])
        if number in numbered:
            raise ShardFormatError(f"has {what} number {number} twice: {numbered[number]} and {name}")
        numbered[number] = name
    if not numbered:
        raise ShardFormatError(f"has no {what} in {str(folder)!r}")
    numbers = sorted(numbered)
    if numbers[0] > 1:
        raise ShardFormatError(f"{what} begin with number {numbers[0]}; those before it are missing")
    if missing := missing_numbers(numbers):
        raise ShardFormatError(f"{what} lack number {missing}")
    paths = tuple(folder / numbered[number] for number in numbers)
    if len({path.suffix.lower() == ".png" for path in paths}) > 1:
        raise ShardFormatError(f"{what} are partly JPEG, partly PNG")
    return ImageRun(paths, numbers[0])


def missing_numbers(numbers: list[int]) -> str:
    """Return the numbers that are missing between the first and the last, as ``7, 9-12``; empty if there are none."""
    missing = [(before + 1, after - 1) for before, after in pairwise(numbers) if after > before + 1]
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in missing[:_MOST_GAPS]]
    more = [f"and {len(missing) - _MOST_GAPS} more"] if len(missing) > _MOST_GAPS else []
    return ", ".join(texts + more)


def align(frames: ImageRun, u: ImageRun, v: ImageRun, tool: ForeignTool, *, trim: str) -> tuple[ImageRun, ImageRun, ImageRun, str]:
    """Reduce images to N frames and N - 1 flow fields, if it is known which are too many.

    Parameters
    ----------
    frames, u, v : ImageRun
        The images of a video.
    tool : str
        The tool that wrote them. dense_flow writes as many frames as flow fields: it omits the first frame, and flow k leads to
        image k. So the first flow field, which starts at the missing frame, is dropped.
    trim : {"none", "first", "last"}
        The end at which other surplus images are dropped.

    Returns
    -------
    (frames, u, v, what was dropped)

    Raises
    ------
    ShardFormatError
        If the numbers do not fit; the error explains which numbers would.
    """
    num_frames, num_fields = len(frames.paths), len(u.paths)
    surplus = num_fields - (num_frames - 1)  # of flow, or if negative of frames
    if surplus and trim == "none" and tool == "dense_flow" and surplus == 1:
        trim = "first"
    if surplus and trim == "none":
        raise ShardFormatError(_off_by(num_frames, num_fields))

    def without_surplus(run: ImageRun, num: int) -> ImageRun:
        if num <= 0:
            return run
        return replace(run, paths=run.paths[num:] if trim == "first" else run.paths[:-num])

    dropped = "" if not surplus else f"the {trim} {abs(surplus)} {'flow fields' if surplus > 0 else 'frames'} dropped"
    frames, u, v = without_surplus(frames, -surplus), without_surplus(u, surplus), without_surplus(v, surplus)
    if len(frames.paths) < 2:
        raise ShardFormatError(f"has {num_frames} frames and {num_fields} flow fields; at least 2 frames and 1 field are needed")
    return frames, u, v, dropped


def _off_by(num_frames: int, num_fields: int) -> str:
    counts = f"has {num_frames} frames and {num_fields} flow fields; {num_frames} frames need {num_frames - 1} fields, one between any two"
    if num_fields == num_frames:
        return (
            f"{counts}. Either field k leads from frame k to k + 1 and the last is too many (--trim last), or it leads to frame k and the "
            "first is too many (--trim first; dense_flow writes no image of the first frame)"
        )
    missing, surplus = ("frames", "fields") if num_fields > num_frames else ("fields", "frames")
    number = abs(num_fields - (num_frames - 1))
    return f"{counts}. {number} {missing} are missing, or there are as many {surplus} too many at one end (--trim first or last)"


def read_image(path: Path) -> tuple[bytes, tuple[int, int]]:
    """Read a JPEG or PNG file; return its bytes and (height, width).

    Raises
    ------
    ShardFormatError
        If it is not a regular file, too large, truncated, or not of the kind that its name says.
    """
    try:
        data = read_file(path, most_bytes=MAX_JPEG_BYTES)
    except OSError as cause:
        raise ShardFormatError(f"{path.name} cannot be read: {cause.strerror}") from cause
    if path.suffix.lower() == ".png":
        if data[:8] != _PNG_SIGNATURE or data[12:16] != b"IHDR" or b"IEND" not in data[-12:]:
            raise ShardFormatError(f"{path.name} is not a complete PNG")
        return data, (int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big"))
    try:
        size = jpeg_size(data)
    except ShardFormatError as cause:
        raise ShardFormatError(f"{path.name} {cause}") from cause
    if _END_OF_JPEG not in data[-1024:]:
        raise ShardFormatError(f"{path.name} is a truncated JPEG")
    return data, size
