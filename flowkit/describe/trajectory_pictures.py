"""Pictures of the improved dense trajectories of one clip: the frame that shows most of them, and an animation."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from flowkit.describe.films import Animation, write_animation
from flowkit.describe.pictures import MOST_PICTURES, picture_name, png
from flowkit.files import write_atomically
from flowkit.shards.reader import Clip
from flowkit.trajectories.improved import iterate_trajectories
from flowkit.trajectories.tracks import TRACK_STEPS
from flowkit.trajectories.trajectories import Trajectories

_TRACK, _POINT = (0, 255, 0), (255, 0, 0)
_FRACTION_BITS = 4  # of the coordinates that OpenCV draws
_AT_ONCE = 16


@dataclass(frozen=True)
class DrawnTrajectories:
    """The pictures that were drawn.

    Parameters
    ----------
    still : Path
        File of the frame with the most trajectories.
    animation : Path or None
        File of the animation; None if there is none.
    num_trajectories : int
        Number of trajectories that were found.
    num_frames : int
        In how many frames, from the first one on, they were looked for.
    """

    still: Path
    animation: Path | None
    num_trajectories: int
    num_frames: int


def draw_trajectories(clip: Clip, folder: Path, *, animation: Animation | None = "mp4") -> DrawnTrajectories:
    """Find the improved dense trajectories of a clip, with camera motion removed, and draw them on its frames.

    Each frame shows the trajectories that pass through it: where they came from in green, and where they are in red.

    Parameters
    ----------
    clip : Clip
        The clip. Only its first 1,500 frames are looked at (for a GIF 120).
    folder : Path
        The folder for the pictures, made if need be.
    animation : {"mp4", "gif"}, optional
        The format of the animation. None: only the still.

    Returns
    -------
    DrawnTrajectories

    Raises
    ------
    ShardFormatError
        If the clip is damaged.
    OSError
        If the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = picture_name(clip.video_id)
    num_frames = min(clip.num_frames, MOST_PICTURES[animation or "mp4"])
    best = _Best()
    drawn = best.watch(_drawn_frames(clip, num_frames))
    moving = None
    if animation is None:
        deque(drawn, maxlen=0)
    else:
        moving = folder / f"{name}-trajectories.{animation}"
        write_animation(animation, moving, drawn, (clip.height, clip.width), frame_rate=clip.frame_rate)
    still = folder / f"{name}-trajectories.png"
    assert best.picture is not None  # a clip has at least two frames
    write_atomically(still, png(best.picture))
    return DrawnTrajectories(still, moving, best.num_found, num_frames)


class _Best:
    """The picture with the most trajectories among those that pass by."""

    def __init__(self) -> None:
        self.picture: NDArray[np.uint8] | None = None
        self.num_found = 0
        self._most = -1

    def watch(self, drawn: Iterator[tuple[NDArray[np.uint8], int, int]]) -> Iterator[NDArray[np.uint8]]:
        for picture, num_shown, num_ended in drawn:
            self.num_found += num_ended
            if num_shown > self._most:
                self.picture, self._most = picture, num_shown
            yield picture


def _drawn_frames(clip: Clip, num_frames: int) -> Iterator[tuple[NDArray[np.uint8], int, int]]:
    """Yield each frame with its trajectories, how many they are, and how many end there.

    A trajectory is known in the frame in which it ends, so a frame is drawn when all that pass through it are known, 15 frames later.
    """
    waiting: deque[NDArray[np.uint8]] = deque()
    blocks: deque[Trajectories] = deque([Trajectories.concatenate([])])  # those that end in the frames that are waiting

    def frames() -> Iterator[NDArray[np.uint8]]:
        for start in range(0, num_frames, _AT_ONCE):
            for frame in clip.frames(range(start, min(start + _AT_ONCE, num_frames))):
                waiting.append(frame)
                yield frame

    number = 0
    for block in iterate_trajectories(frames(), num_frames):
        blocks.append(block)
        while len(blocks) > TRACK_STEPS:
            yield _draw(waiting.popleft(), number, blocks)
            blocks.popleft()
            number += 1
    while waiting:
        yield _draw(waiting.popleft(), number, blocks)
        blocks.popleft()
        number += 1


def _draw(frame: NDArray[np.uint8], number: int, blocks: deque[Trajectories]) -> tuple[NDArray[np.uint8], int, int]:
    picture = frame.copy()
    shown = [(points, end) for block in blocks for points, end in zip(block.points, block.end_frame, strict=True)]
    ways = [np.rint(points[: number - end + TRACK_STEPS + 1] * 2**_FRACTION_BITS).astype(np.int32) for points, end in shown]
    cv2.polylines(picture, ways, False, _TRACK, 1, cv2.LINE_AA, _FRACTION_BITS)
    for way in ways:
        cv2.circle(picture, way[-1].tolist(), 2**_FRACTION_BITS // 2, _POINT, cv2.FILLED, cv2.LINE_AA, _FRACTION_BITS)
    return picture, len(ways), len(blocks[0])
