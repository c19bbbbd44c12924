"""The images of a video of a foreign tree: listed in order of their numbers, checked, and reduced to frames with the flow between them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from flowkit.dataset.settings import ForeignTool
from flowkit.errors import ShardFormatError
from flowkit.exchange.foreign_trees import TreeVideo

_NAME = re.compile(r"(|[^.].*?)(\d+)\.(?:jpg|jpeg|png)", re.I)
_FRAME_PREFIX = re.compile(r"(?:(?:frame|img|image|i)_?)?", re.I)  # mmaction2 and denseflow, gpu_flow, I3D; ffmpeg and TSN: 000001.jpg
_FLOW_PREFIX = re.compile(r"(?:flow_)?[xy]_(?:[pm]\d+_)?", re.I)
_FLOW_STEP = re.compile(r"(?:flow_)?[xy]_([pm])(\d+)_", re.I)  # denseflow: p2 for -s=2, m1 for -s=-1
_MOST_GAPS = 8  # named in an error
_ORDINAL = {2: "second", 3: "third", 4: "fourth"}
_ENOUGH_FRAMES = 8  # from here on, half as many fields as frames are no coincidence


@dataclass(frozen=True)
class ImageRun:
    """Images of one kind, in order of their numbers, without gaps."""

    paths: tuple[Path, ...]
    first: int

    @property
    def is_png(self) -> bool:
        """Whether the images are PNGs."""
        return self.paths[0].suffix.lower() == ".png"


def read_runs(video: TreeVideo) -> tuple[ImageRun, ImageRun, ImageRun]:
    """List the frames, u images and v images of a video.

    Raises
    ------
    ShardFormatError
        If images are missing: there are none, the numbers have gaps, or u and v have different numbers.
    """
    u, v = read_flow_runs(video)
    shared = video.frames == video.u  # then flow images are among the files
    return _image_run(video.frames, "frames", lambda prefix: not (shared and _FLOW_PREFIX.fullmatch(prefix)), "--frames DIR"), u, v


def read_flow_runs(video: TreeVideo) -> tuple[ImageRun, ImageRun]:
    """List the u images and v images of a video; see `read_runs`."""
    prefixes = {"any": (None, None), "flow_x": ("flow_x_", "flow_y_"), "x": ("x_", "y_")}[video.flow_names]
    u, v = (
        _image_run(folder, f"flow images {axis}", lambda prefix, wanted=wanted: wanted in (None, prefix.lower()))  # type: ignore[misc]
        for folder, axis, wanted in zip((video.u, video.v), "uv", prefixes, strict=True)
    )
    if (u.first, len(u.paths)) != (v.first, len(v.paths)):
        spans = " and ".join(f"{name} has {run.first} to {run.first + len(run.paths) - 1}" for name, run in (("u", u), ("v", v)))
        raise ShardFormatError(f"flow images do not match: {spans}")
    return u, v


def _image_run(folder: Path, what: str, fits: Callable[[str], bool], remedy: str = "") -> ImageRun:
    numbered: dict[int, str] = {}
    for name, number in _chosen(folder, what, fits, remedy):
        if number in numbered:
            raise ShardFormatError(f"has {what} number {number} twice: {numbered[number]} and {name}")
        numbered[number] = name
    numbers = sorted(numbered)
    if numbers[0] > 1:
        raise ShardFormatError(f"{what} begin with number {numbers[0]}; those before it are missing")
    steps = {after - before for before, after in pairwise(numbers)}
    if len(numbers) > 2 and len(steps) == 1 and steps != {1}:
        raise ShardFormatError(
            f"{what} are numbered in steps of {steps.pop()}; flowkit needs every frame and the flow from each one to the next"
        )
    if missing := missing_numbers(numbers):
        raise ShardFormatError(f"{what} lack number {missing}")
    paths = tuple(folder / numbered[number] for number in numbers)
    if len({path.suffix.lower() == ".png" for path in paths}) > 1:
        raise ShardFormatError(f"{what} are partly JPEG, partly PNG")
    return ImageRun(paths, numbers[0])


def _chosen(folder: Path, what: str, fits: Callable[[str], bool], remedy: str) -> list[tuple[str, int]]:
    """Return the images of one kind in a folder, with their numbers: those with a usual name, or else those with the one other name."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as cause:
        raise ShardFormatError(f"has no {what}: {str(folder)!r}: {cause.strerror}" + (remedy and f"; name it with {remedy}")) from cause
    by_prefix: dict[str, list[tuple[str, int]]] = {}
    for name in names:
        if (match := _NAME.fullmatch(name)) and len(match[2]) <= 12:
            by_prefix.setdefault(match[1], []).append((name, int(match[2])))
    fitting = {prefix: images for prefix, images in by_prefix.items() if fits(prefix)}
    usual = [image for prefix, images in fitting.items() if _FRAME_PREFIX.fullmatch(prefix) for image in images]
    if usual:
        return usual
    for match in filter(None, map(_FLOW_STEP.fullmatch, by_prefix if len(fitting) != 1 else fitting)):
        direction = "backwards " if match[1].lower() == "m" else ""
        raise ShardFormatError(
            f"has flow that leads {direction}over {match[2]} frames (denseflow -s={'-' * bool(direction)}{match[2]}); flowkit needs flow "
            "from each frame to the next, as -s=1 writes it"
        )
    if len(fitting) > 1 and len({prefix.lower() for prefix in fitting}) > 1:
        raise ShardFormatError(f"has {what} of several names in {str(folder)!r}: {', '.join(sorted(fitting)[:4])}")
    if not fitting:
        looked_for = " (img_00001.jpg, frame000001.jpg, image_00001.jpg, i_00001.jpg or 00001.jpg)" if what == "frames" else ""
        raise ShardFormatError(f"has no {what} in {str(folder)!r}{looked_for}" + (remedy and f"; name their folder with {remedy}"))
    return [image for images in fitting.values() for image in images]


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
    for step, ordinal in _ORDINAL.items():
        if surplus < 0 and num_frames >= _ENOUGH_FRAMES and abs(num_fields * step - num_frames) <= step + num_frames // 16:
            raise ShardFormatError(
                f"has {num_frames} frames and {num_fields} flow fields, one for about every {ordinal} frame (as EPIC-Kitchens "
                "has them); flowkit needs every frame and the flow from each one to the next, so give it the frames between which "
                "flow was computed (--frames DIR), numbered without gaps"
            )
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
