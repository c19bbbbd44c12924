"""JPEGs as foreign data: what their headers may say, and how much work they may ask of a decoder."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from shard_files import attributes

from flowkit.errors import ShardFormatError
from flowkit.shards.check import check_file
from flowkit.shards.jpeg import MAX_SCANS, decode_jpeg, encode_jpeg, jpeg_size
from flowkit.shards.writer import ClipWriter


def progressive(image: np.ndarray) -> bytes:  # type: ignore[type-arg]
    return bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1])


def with_scans(jpeg: bytes, num_more: int) -> bytes:
    """Repeat the last scan of a progressive JPEG, as a file does that should keep a decoder busy."""
    start, end = jpeg.rindex(b"\xff\xda"), jpeg.rindex(b"\xff\xd9")
    return jpeg[:end] + jpeg[start:end] * num_more + jpeg[end:]


@pytest.mark.parametrize("shape", [(24, 32), (24, 32, 3)])
def test_a_progressive_jpeg_as_encoders_write_it_is_read(shape: tuple[int, ...]) -> None:
    jpeg = progressive(np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8))
    assert jpeg_size(jpeg) == (24, 32)
    decode_jpeg(jpeg, np.empty(shape, np.uint8))


def test_a_jpeg_with_very_many_scans_is_refused_before_it_is_decoded() -> None:
    jpeg = progressive(np.zeros((64, 64), np.uint8))
    with pytest.raises(ShardFormatError, match=f"more than {MAX_SCANS} scans"):
        jpeg_size(with_scans(jpeg, MAX_SCANS))
    with pytest.raises(ShardFormatError, match="scans"):
        decode_jpeg(with_scans(jpeg, MAX_SCANS), np.empty((64, 64), np.uint8))
    assert jpeg_size(with_scans(jpeg, MAX_SCANS - 20)) == (64, 64)


def test_bytes_between_segments_hide_no_scans() -> None:
    jpeg = progressive(np.zeros((64, 64), np.uint8))
    start, end = jpeg.rindex(b"\xff\xda"), jpeg.rindex(b"\xff\xd9")
    comment = b"\xff\xfe\x00\x04hi" + b"garbage"
    with pytest.raises(ShardFormatError, match="scans"):
        jpeg_size(jpeg[:end] + (comment + jpeg[start:end]) * MAX_SCANS + jpeg[end:])


def test_what_looks_like_scans_inside_a_comment_is_not_counted() -> None:
    jpeg = encode_jpeg(np.zeros((24, 32), np.uint8))
    text = b"\xff\xda" * (MAX_SCANS + 10)
    at = jpeg.index(b"\xff\xda")
    comment = b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text
    assert jpeg_size(jpeg[:at] + comment + jpeg[at:]) == (24, 32)


def test_verify_names_a_stored_frame_with_very_many_scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = progressive(np.zeros((24, 32, 3), np.uint8))
    monkeypatch.setattr("flowkit.shards.writer.jpeg_size", lambda data: (24, 32))
    with ClipWriter(tmp_path / "a.h5", height=24, width=32) as writer:
        writer.append_encoded_frames([frame, with_scans(frame, MAX_SCANS)])
        writer.append_flow(np.full((1, 2, 24, 32), 128, np.uint8))
        writer.finish(attributes("a", 2))
    report = check_file(tmp_path / "a.h5", deep=False, digest=False)
    assert "frame 1 is a JPEG with more than" in str(report)
