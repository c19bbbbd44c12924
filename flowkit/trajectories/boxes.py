"""Boxes around people, from a text file: parts of frames that say nothing of the camera's motion.

Each line names a frame, counted from 0, and then for each box the numbers x1 y1 x2 y2 (px) and a score, separated by blanks. Frames
without people may be left out. The file is foreign, so its size is bounded and each number is checked.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import ParameterError
from flowkit.files import read_file

PersonBoxes = dict[int, NDArray[np.float32]]

MAX_BYTES = 64 << 20
MAX_BOXES = 1000  # per frame
_MOST_SHOWN = 60  # characters of a line in a message
_VALUES_PER_BOX = 5


def read_boxes(path: str | Path) -> PersonBoxes:
    r"""Read the person boxes of a video.

    Parameters
    ----------
    path : str or Path
        A text file with lines of the form ``frame x1 y1 x2 y2 score x1 y1 x2 y2 score ...``. Frames are counted from 0;
        (x1, y1) and (x2, y2) are the upper left and the lower right corner in px of the frame, and may lie outside of it.

    Returns
    -------
    boxes : dict of int to float32 array, shape (n, 4)
        x1, y1, x2, y2 of the boxes of each frame that the file names. The scores are not used.

    Raises
    ------
    ParameterError
        If the file cannot be read or is larger than 64 MiB, or a line is not of this form.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from flowkit.trajectories.boxes import read_boxes
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "boxes.txt"
    ...     _ = path.write_text("0 10 20 50 110 0.98\n1\n")
    ...     boxes = read_boxes(path)
    >>> boxes[0].tolist(), boxes[1].shape
    ([[10.0, 20.0, 50.0, 110.0]], (0, 4))
    """
    path = Path(path)
    try:
        text = read_file(path, most_bytes=MAX_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise ParameterError(f"the person boxes {str(path)!r} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ParameterError(f"the person boxes {str(path)!r} are no text file (UTF-8)") from error
    boxes: PersonBoxes = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        frame, found = _boxes_of_line(line, where)
        if frame in boxes:
            raise ParameterError(f"{where}: frame {frame} has a line above already; all boxes of a frame belong into one line")
        boxes[frame] = found
    return boxes


def _boxes_of_line(line: str, where: str) -> tuple[int, NDArray[np.float32]]:
    frame, *texts = line.split(maxsplit=MAX_BOXES * _VALUES_PER_BOX + 1)
    shown = line.strip() if len(line) <= _MOST_SHOWN else f"{line[:_MOST_SHOWN]}..."
    if len(texts) > MAX_BOXES * _VALUES_PER_BOX:
        raise ParameterError(f"{where}: a frame may have at most {MAX_BOXES} boxes")
    try:
        values = [float(text) for text in texts]
    except ValueError:
        values = [math.nan]
    if (
        not (frame.isascii() and frame.isdigit() and len(frame) <= 9)
        or len(values) % _VALUES_PER_BOX
        or not all(map(math.isfinite, values))
    ):
        raise ParameterError(f"{where}: expected 'frame x1 y1 x2 y2 score ...' with a frame from 0 and finite numbers, got {shown!r}")
    boxes = np.array(values, np.float64).reshape(-1, _VALUES_PER_BOX)[:, :4]
    if (boxes[:, 2:] < boxes[:, :2]).any():
        raise ParameterError(f"{where}: a box must have x1 <= x2 and y1 <= y2, got {shown!r}")
    return int(frame), boxes.clip(-1e9, 1e9).astype(np.float32)
