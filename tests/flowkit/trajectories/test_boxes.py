"""Person boxes are read as they are written, and everything else is one clear error."""

from __future__ import annotations

import doctest
import random
from pathlib import Path

import pytest

from flowkit.errors import ParameterError
from flowkit.trajectories import boxes, frame_motion, pyramid
from flowkit.trajectories.boxes import read_boxes


def test_lines_give_the_boxes_of_their_frames(tmp_path: Path) -> None:
    path = tmp_path / "boxes.txt"
    path.write_bytes(b"\xef\xbb\xbf3 1 2 3.5 4 0.9 -10 0 1e3 7 -1.25\r\n\n  0\t5 5 5 5 1 \n7\n")
    read = read_boxes(str(path))
    assert {frame: found.tolist() for frame, found in read.items()} == {3: [[1, 2, 3.5, 4], [-10, 0, 1000, 7]], 0: [[5, 5, 5, 5]], 7: []}
    path.write_bytes(b"")
    assert read_boxes(path) == {}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 1 2 3 4", "expected 'frame x1 y1 x2 y2 score ...'.*got '0 1 2 3 4'"),
        ("-1 1 2 3 4 1", "expected"),
        ("1.5 1 2 3 4 1", "expected"),
        ("1234567890 1 2 3 4 1", "expected"),
        ("0 1 2 3 nan 1", "expected"),
        ("0 1 2 3 inf 1", "expected"),
        ("0 1 2 3 4 one", "expected"),
        ("0 1 2 3 1e999 1", "expected"),
        ("0,1,2,3,4,1", "expected"),
        ("0 5 2 3 4 1", "x1 <= x2"),
        ("0 1 5 3 4 1", "y1 <= y2"),
        ("5 1 2 3 4 1", "frame 5 has a line above already"),
        ("0" + " 1 2 3 4 1" * 1001, "at most 1000 boxes"),
        ("0 " + "x" * 500, r"xxx\.\.\.'$"),
    ],
)
def test_a_line_of_another_form_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "boxes.txt"
    path.write_text(f"5 1 2 3 4 0.5\n{line}\n")
    with pytest.raises(ParameterError, match=rf"boxes\.txt, line 2: .*{message}"):
        read_boxes(path)


def test_what_is_no_text_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ParameterError, match="cannot be read: No such file"):
        read_boxes(tmp_path / "missing.txt")
    with pytest.raises(ParameterError, match="cannot be read"):
        read_boxes(tmp_path)
    path = tmp_path / "boxes.txt"
    path.write_bytes(b"0 1 2 3 4 \xff\xfe")
    with pytest.raises(ParameterError, match="no text file"):
        read_boxes(path)
    monkeypatch.setattr(boxes, "MAX_BYTES", 5)
    with pytest.raises(ParameterError, match="too large"):
        read_boxes(path)


def test_random_bytes_are_read_or_refused(tmp_path: Path) -> None:
    path, rng = tmp_path / "boxes.txt", random.Random(0)
    for _ in range(300):
        path.write_bytes(bytes(rng.choice(b"0123456789 .-e\nx\x00") for _ in range(rng.randrange(60))))
        try:
            assert all(found.shape[1:] == (4,) for found in read_boxes(path).values())
        except ParameterError:
            continue


@pytest.mark.parametrize("module", [boxes, frame_motion, pyramid])
def test_examples_run(module: object) -> None:
    failed, tried = doctest.testmod(module)  # type: ignore[arg-type]
    assert tried > 0
    assert failed == 0
