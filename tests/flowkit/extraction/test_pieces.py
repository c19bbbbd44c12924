"""Pieces of a long video's flow: complete or absent, gaps noticed, read back in order."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from odd_videos import encode_video
from small_videos import SETTINGS

from flowkit import Reading, probe
from flowkit.errors import FlowkitError
from flowkit.extraction import pieces
from flowkit.extraction.jobs import VideoJob, frames_promised
from flowkit.extraction.pieces import Piece, PieceReader, PieceWriter, find_pieces, missing_ranges, piece_folder, remove_pieces

if TYPE_CHECKING:
    from pathlib import Path


def test_what_is_written_in_pieces_is_read_back_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "FIELDS_PER_FILE", 4)
    q = np.random.default_rng(0).integers(0, 256, (23, 2, 5, 7), dtype=np.uint8)
    folder = tmp_path / "v"
    for start, stop in ((11, 23), (0, 11)):
        writer = PieceWriter(folder, start)
        for at in range(start, stop, 3):
            writer.append(q[at : min(at + 3, stop)])
        writer.close()
    found = find_pieces(folder)
    assert [(s.start, s.stop) for s in found] == [(0, 4), (4, 8), (8, 11), (11, 15), (15, 19), (19, 23)]
    with PieceReader(found) as reader:
        assert np.array_equal(np.concatenate([reader.read(10, 5, 7), reader.read(13, 5, 7)]), q)


def test_a_killed_writer_leaves_no_piece(tmp_path: Path) -> None:
    writer = PieceWriter(tmp_path, 0)
    writer.append(np.zeros((2, 2, 3, 3), np.uint8))
    assert find_pieces(tmp_path) == []
    writer.close()
    assert len(find_pieces(tmp_path)) == 1


def test_two_processes_that_solve_the_same_fields_leave_complete_pieces(tmp_path: Path) -> None:
    """As when the same line runs twice, or a worker that was believed dead continues."""
    q = np.random.default_rng(0).integers(1, 256, (40, 2, 64, 64), dtype=np.uint8)
    first, second = PieceWriter(tmp_path, 0), PieceWriter(tmp_path, 0)
    first.append(q[:30])
    second.append(q[:10])
    first.append(q[30:])
    first.close()
    with PieceReader(find_pieces(tmp_path)) as reader:
        assert np.array_equal(reader.read(40, 64, 64), q)
    second.append(q[10:])
    second.close()
    with PieceReader(find_pieces(tmp_path)) as reader:
        assert np.array_equal(reader.read(40, 64, 64), q)
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    ("kept", "num_pairs", "num_ranges", "expected"),
    [
        ([], 100, 1, [(0, None)]),
        ([], 100, 4, [(0, 25), (25, 50), (50, 75), (75, None)]),
        ([(0, 100)], 100, 4, [(100, None)]),
        ([(0, 30), (60, 80)], 100, 4, [(30, 60), (80, None)]),
        ([(50, 60)], 100, 2, [(0, 50), (60, None)]),
        ([], 0, 1, [(0, None)]),
    ],
)
def test_what_is_missing_is_divided_into_ranges(
    kept: list[tuple[int, int]], num_pairs: int, num_ranges: int, expected: list[tuple[int, int | None]]
) -> None:
    assert missing_ranges([Piece(a, b, "") for a, b in kept], num_pairs, num_ranges) == expected


def test_ranges_and_pieces_cover_everything_once() -> None:
    rng = np.random.default_rng(1)
    for _ in range(300):
        num_pairs = int(rng.integers(0, 400))
        edges = np.unique(rng.integers(0, num_pairs + 1, 2 * rng.integers(0, 5)))
        kept = [Piece(int(a), int(b), "") for a, b in zip(edges[::2], edges[1::2], strict=False)]
        ranges = missing_ranges(kept, num_pairs, int(rng.integers(1, 9)))
        covered = np.zeros(num_pairs + 1, int)
        for start, stop in [(s.start, s.stop) for s in kept] + ranges:
            covered[start:stop] += 1
        assert (covered[: max(num_pairs, 1)] == 1).all()
        assert ranges[-1][1] is None


def test_a_gap_is_an_error(tmp_path: Path) -> None:
    writer = PieceWriter(tmp_path, 3)
    writer.append(np.zeros((1, 2, 3, 3), np.uint8))
    writer.close()
    with PieceReader(find_pieces(tmp_path)) as reader, pytest.raises(FlowkitError, match="flow field 0"):
        reader.read(1, 3, 3)


def test_another_version_of_a_video_has_other_pieces(tmp_path: Path) -> None:
    names = {piece_folder(tmp_path, "a/b", size, time).name for size in (1, 2) for time in (1, 2)}
    assert len(names) == 4
    folder = piece_folder(tmp_path, "a/b", 1, 1)
    folder.mkdir(parents=True)
    remove_pieces(folder)
    assert not (tmp_path / ".pieces").exists()


@pytest.mark.parametrize("name", ["a.mkv", "a.avi", "a.mp4"])
def test_a_header_without_a_number_of_frames_promises_those_of_its_duration(tmp_path: Path, name: str) -> None:
    path = encode_video(tmp_path / name, "mpeg4", num_frames=40)
    info = probe(path)
    assert bool(info.header_frames) == (name != "a.mkv"), "Matroska does not give the number"
    job = VideoJob("a", path, "", tmp_path, SETTINGS, path.stat().st_size, 0)
    assert frames_promised(job, info) == 40
    assert frames_promised(replace(job, settings=replace(SETTINGS, reading=Reading(every=3))), info) == 14
    assert frames_promised(replace(job, source_bytes=100), info) == 0, "40 frames are not in 100 bytes"
