"""Losses are seen and named, and what only looks like a loss is not reported as one."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from odd_videos import copy_video, encode_video, needs, truncate

from flowkit.extraction.results import VideoResult
from flowkit.extraction.sample import count_frames
from flowkit.video.decode import probe, read_frames

if TYPE_CHECKING:
    from pathlib import Path


def result_of(path: Path) -> VideoResult:
    """Return what `extract` would report of a video."""
    return count_frames(path, short_side=32)


def assert_ok(path: Path, num_frames: int, notes: str = "") -> None:
    result = result_of(path)
    assert (result.status, result.num_frames, result.error, result.notes) == ("ok", num_frames, "", notes)


# -- packets that give no frame ----------------------------------------------------------------------------------------------------


@needs("libx265")
@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".ts", ".flv", ".nut"])
def test_packets_that_a_decoder_drops_in_silence_are_counted(tmp_path: Path, suffix: str) -> None:
    whole = encode_video(tmp_path / "whole.mkv", "libx265", num_frames=60, options={"x265-params": "keyint=30:bframes=0:log-level=none"})
    assert_ok(whole, 60)
    result = result_of(copy_video(whole, tmp_path / f"lost{suffix}", lost=range(10, 15)))
    dropped = 55 - result.num_frames
    assert dropped > 0
    assert result.status == "damaged"
    assert f"{dropped} packets gave no frame" in result.error
    assert result.decode_errors == dropped
    assert list(read_frames(tmp_path / f"lost{suffix}"))[-1].decode_errors == dropped


@needs("libx265")
def test_pictures_that_cannot_be_decoded_at_the_start_of_an_open_gop_are_no_loss(tmp_path: Path) -> None:
    options = {"x265-params": "keyint=20:min-keyint=20:scenecut=0:open-gop=1:bframes=4:b-adapt=0:log-level=none"}
    whole = encode_video(tmp_path / "whole.mkv", "libx265", num_frames=60, options=options)
    assert_ok(whole, 60)
    for first in (10, 20, 25):  # in a group of pictures, and at the next random access point
        for suffix in (".mkv", ".ts"):
            result = result_of(copy_video(whole, tmp_path / f"from{first}{suffix}", lost=range(first)))
            assert (result.status, result.error) == ("ok", "")
            assert 20 <= result.num_frames <= 60 - first


@needs("libx264")
@pytest.mark.parametrize("suffix", [".mkv", ".ts", ".flv"])
def test_a_recording_that_starts_amid_a_group_of_pictures_is_no_loss(tmp_path: Path, suffix: str) -> None:
    options = {"g": "20", "bf": "3", "x264-params": "open-gop=1:scenecut=0"}
    whole = encode_video(tmp_path / f"whole{suffix}", "libx264", num_frames=60, options=options)
    result = result_of(copy_video(whole, tmp_path / f"cut{suffix}", lost=range(7)))
    assert (result.status, result.error) == ("ok", "")


@needs("libx264")
def test_packets_without_a_picture_are_no_loss(tmp_path: Path) -> None:
    """Some recorders store parameter sets and messages as packets of their own."""
    whole = encode_video(tmp_path / "whole.mp4", "libx264", options={"g": "20", "bf": "0"})
    message = b"\x06\x05\x11" + bytes(range(16)) + b"x\x80"  # an SEI message of a user's

    def only_a_message(number: int, data: bytes) -> bytes:
        return struct.pack(">I", len(message)) + message if number == 39 else data

    assert_ok(copy_video(whole, tmp_path / "message.mkv", change=only_a_message), 39)


@needs("libvpx")
@pytest.mark.parametrize("suffix", [".webm", ".avi"])
def test_hidden_pictures_of_vp8_are_no_loss(tmp_path: Path, suffix: str) -> None:
    whole = encode_video(tmp_path / f"whole{suffix}", "libvpx")

    def hide(number: int, data: bytes) -> bytes:
        return bytes([data[0] & ~0x10]) + data[1:] if number in (8, 20) else data

    result = result_of(copy_video(whole, tmp_path / f"hidden{suffix}", change=hide))
    assert (result.status, result.num_frames, result.error) == ("ok", 38, "")


@needs("libvpx-vp9")
def test_hidden_pictures_of_vp9_are_no_loss(tmp_path: Path) -> None:
    """The bits of a frame: marker 10, profile 00, show_existing_frame, frame_type, show_frame."""
    whole = encode_video(tmp_path / "whole.webm", "libvpx-vp9", options={"lag-in-frames": "0", "auto-alt-ref": "0"})

    def hide(number: int, data: bytes) -> bytes:
        return bytes([data[0] & ~0x02]) + data[1:] if number == 8 else data

    result = result_of(copy_video(whole, tmp_path / "hidden.webm", change=hide))
    assert result.num_frames < 40
    assert "gave no frame" not in result.error


@needs("libx264")
@pytest.mark.parametrize("suffix", [".avi", ".h264"])
def test_h264_without_time_stamps_tells_which_packets_gave_no_frame(tmp_path: Path, suffix: str) -> None:
    """After a loss the decoder drops pictures in silence: which of them depends on the encoder, so several losses are tried."""
    options = {"g": "30", "bf": "8", "x264-params": "b-pyramid=strict:scenecut=0"}
    whole = encode_video(tmp_path / f"whole{suffix}", "libx264", num_frames=80, options=options)
    assert_ok(whole, 80)
    seen = 0
    for first in (26, 30, 56, 60):
        result = result_of(copy_video(whole, tmp_path / f"lost{suffix}", lost=range(first, first + 2)))
        dropped = 78 - result.num_frames
        seen += dropped > 0
        assert result.status == ("damaged" if dropped else "ok")
        assert (f"{dropped} packet" in result.error) == (dropped > 0)
    assert seen


@needs("libx264")
@pytest.mark.parametrize("suffix", [".avi", ".h264"])
def test_h264_without_time_stamps_may_start_amid_a_group_of_pictures(tmp_path: Path, suffix: str) -> None:
    options = {"g": "20", "bf": "3", "x264-params": "open-gop=1:scenecut=0"}
    whole = encode_video(tmp_path / f"whole{suffix}", "libx264", num_frames=60, options=options)
    assert_ok(whole, 60)
    assert "gave no frame" not in result_of(copy_video(whole, tmp_path / f"cut{suffix}", lost=range(7))).error
    with_key = copy_video(whole, tmp_path / f"open{suffix}", lost=range(17))  # near a key picture that is no IDR picture
    assert "gave no frame" not in result_of(with_key).error


# -- shorter than promised ---------------------------------------------------------------------------------------------------------

TRUNCATED = [
    ("libvpx", ".webm"),
    ("libvpx-vp9", ".webm"),
    ("libx264", ".mkv"),
    ("libx265", ".mkv"),
    ("mpeg4", ".mkv"),
    ("mpeg4", ".avi"),
    ("mpeg2video", ".avi"),
    ("wmv2", ".wmv"),
    ("mpeg4", ".wmv"),
    ("libx264", ".flv"),
    ("flv", ".flv"),
]


@pytest.mark.parametrize(("codec", "suffix"), [pytest.param(*case, marks=needs(case[0])) for case in TRUNCATED])
def test_a_truncated_file_is_damaged_if_its_header_says_how_long_it_was(tmp_path: Path, codec: str, suffix: str) -> None:
    path = encode_video(tmp_path / f"a{suffix}", codec, num_frames=100, options={"g": "10", "b": "3M"})
    assert_ok(path, 100)
    result = result_of(truncate(path, 0.45))
    assert result.status == "damaged"
    assert 2 <= result.num_frames < 70
    assert " s of 4." in result.error or f"decoded {result.num_frames} of 100 frames" in result.error


@needs("libx264")
@pytest.mark.parametrize("flags", ["frag_keyframe+empty_moov", "frag_keyframe+default_base_moof", "faststart"])
def test_truncated_mp4_files_that_begin_with_their_index_are_damaged(tmp_path: Path, flags: str) -> None:
    path = encode_video(tmp_path / "a.mp4", "libx264", num_frames=100, options={"g": "10"}, container_options={"movflags": flags})
    assert_ok(path, 100)
    assert result_of(truncate(path, 0.6)).status == "damaged"


@needs("libvpx", "libopus")
def test_a_longer_sound_does_not_make_a_video_short(tmp_path: Path) -> None:
    assert_ok(encode_video(tmp_path / "a.webm", "libvpx", num_frames=25, sound_seconds=5), 25)


@needs("libvpx", "libopus")
def test_the_end_is_found_by_time_stamps_and_not_by_counting_frames(tmp_path: Path) -> None:
    """25 frames in 8 s, at a nominal rate of 25: the last one is as late as the header says."""
    pts = np.cumsum(np.random.default_rng(2).integers(2, 14, 25)).tolist()
    assert_ok(encode_video(tmp_path / "a.webm", "libvpx", num_frames=25, pts=pts), 25)


def test_the_last_half_second_and_two_per_cent_are_not_missed(tmp_path: Path) -> None:
    path = encode_video(tmp_path / "a.mkv", "mjpeg", num_frames=50, pixels="yuvj420p")
    whole = path.read_bytes()
    for seconds, status in (("02.400", "ok"), ("02.600", "damaged")):
        path.write_bytes(whole.replace(b"00:00:02.000", f"00:00:{seconds}".encode()))
        assert result_of(path).status == status


def test_a_file_that_ends_before_its_own_structure_does_lacks_its_last_frames_too(tmp_path: Path) -> None:
    path = encode_video(tmp_path / "a.mkv", "mjpeg", num_frames=50, pixels="yuvj420p")
    result = result_of(truncate(path, 0.9))
    assert 42 < result.num_frames < 48
    assert (result.status, result.error) == ("damaged", f"{result.num_frames / 25:.1f} s of 2.0 s")


@needs("libx264")
@pytest.mark.parametrize("flags", ["empty_moov+frag_every_frame", "empty_moov+frag_keyframe"])
def test_a_fragmented_mp4_that_ends_amid_a_fragment_is_damaged(tmp_path: Path, flags: str) -> None:
    path = encode_video(tmp_path / "a.mp4", "libx264", options={"g": "8"}, container_options={"movflags": flags})
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rfind(b"moof") + 60])  # within the headers of a fragment, which FFmpeg passes over without a word
    result = result_of(path)
    assert result.status == "damaged"
    assert "the file is cut off before its end" in result.error


@needs("libx264", "libopus")
def test_an_mp4_whose_index_is_cut_off_is_damaged(tmp_path: Path) -> None:
    path = encode_video(tmp_path / "a.mp4", "libx264", num_frames=100, sound_seconds=9)
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rfind(b"stco") + 8])  # that of the sound is the last
    result = result_of(path)
    assert result.status == "damaged"
    assert "the file is cut off before its end" in result.error


@needs("libx264")
def test_what_follows_a_whole_mp4_may_be_cut_off(tmp_path: Path) -> None:
    path = encode_video(tmp_path / "a.mp4", "libx264")
    whole = path.read_bytes()
    for rest in (whole[:-20], struct.pack(">I4s", 1 << 20, b"free"), struct.pack(">I4s", 1 << 20, b"mdat")):
        path.write_bytes(whole + rest)
        assert_ok(path, 40)


@needs("libx264")
def test_an_index_promises_the_frames_before_the_first_key_frame_too(tmp_path: Path) -> None:
    for suffix, status in ((".mp4", "damaged"), (".avi", "damaged"), (".mkv", "ok")):
        whole = encode_video(tmp_path / f"whole{suffix}", "libx264", num_frames=60, options={"g": "30", "bf": "0"})
        result = result_of(copy_video(whole, tmp_path / f"cut{suffix}", lost=range(3)))
        assert (result.status, result.num_frames) == (status, 30)


def test_pictures_that_were_decoded_do_not_come_before_the_first_frame(tmp_path: Path) -> None:
    whole = encode_video(tmp_path / "whole.mkv", "mpeg4", num_frames=40, options={"g": "12", "bf": "2"})
    assert_ok(copy_video(whole, tmp_path / "cut.mkv", lost=range(3)), 37)


def test_a_duration_that_cannot_be_true_promises_nothing(tmp_path: Path) -> None:
    path = encode_video(tmp_path / "a.mkv", "mpeg4", num_frames=12)
    data = path.read_bytes()
    tag = b"00:00:00.480000000"
    assert data.count(tag) == 1
    path.write_bytes(data.replace(tag, b"99:00:00.480000000"))
    assert_ok(path, 12)


# -- jumps -------------------------------------------------------------------------------------------------------------------------

LOSSY = [
    ("libx264", ".mkv"),
    ("libx264", ".mp4"),
    ("libx264", ".ts"),
    ("libvpx", ".webm"),
    ("libvpx-vp9", ".webm"),
    ("mpeg4", ".mp4"),
    ("mpeg4", ".mov"),
    ("mpeg2video", ".mkv"),
    ("mpeg2video", ".ts"),
    ("mpeg2video", ".mpg"),
    ("mjpeg", ".mkv"),
]


@pytest.mark.parametrize(("codec", "suffix"), [pytest.param(*case, marks=needs(case[0])) for case in LOSSY])
@pytest.mark.parametrize("lost", [range(20, 25), [*range(20, 24), *range(50, 56)]])
def test_lost_packets_are_seen_as_a_jump_where_the_decoder_conceals_them(tmp_path: Path, codec: str, suffix: str, lost: list[int]) -> None:
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    whole = encode_video(tmp_path / "whole.mkv", codec, num_frames=80, options={"g": "40", "bf": "0"}, pixels=pixels)
    assert_ok(copy_video(whole, tmp_path / f"copy{suffix}"), 80)
    result = result_of(copy_video(whole, tmp_path / f"lost{suffix}", lost=lost))
    assert result.status == "damaged"
    assert "in time" in result.error


def test_two_jumps_are_seen_in_a_short_video_too(tmp_path: Path) -> None:
    whole = encode_video(tmp_path / "whole.mkv", "mjpeg", num_frames=30, pixels="yuvj420p")
    result = result_of(copy_video(whole, tmp_path / "lost.mkv", lost=[5, 6, 7, 20, 21]))
    assert (result.status, result.error) == ("damaged", "2 jumps in time, the first of 0.16 s at 0.16 s")


def test_one_missing_frame_is_noted_and_no_damage(tmp_path: Path) -> None:
    whole = encode_video(tmp_path / "whole.mkv", "mjpeg", pixels="yuvj420p")
    assert_ok(copy_video(whole, tmp_path / "lost.mkv", lost=[20]), 39, "1 place where one frame is missing")


def variable_times() -> dict[str, list[int]]:
    rng = np.random.default_rng(5)
    ticks = np.arange(60)
    return {
        "jitter": np.cumsum(rng.integers(3, 6, 60)).tolist(),
        "any": np.cumsum(rng.integers(1, 20, 60)).tolist(),
        "two rates": [*range(30), *range(30, 90, 2)],
        "duplicates dropped": [tick for tick in range(90) if tick % 3][:60],
        "many held": (ticks + ticks // 8 * 6).tolist(),
        "first held": [0, *range(50, 109)],
        "last late": [*range(59), 120],
        "repeated field": (ticks * 2 + ticks // 2).tolist(),
    }


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".nut"])
@pytest.mark.parametrize("kind", variable_times())
def test_a_variable_frame_rate_is_no_damage(tmp_path: Path, suffix: str, kind: str) -> None:
    codec = "mpeg4" if suffix == ".mp4" else "mjpeg"
    pixels = "yuv420p" if suffix == ".mp4" else "yuvj420p"
    assert_ok(encode_video(tmp_path / f"a{suffix}", codec, num_frames=60, pts=variable_times()[kind], pixels=pixels, rate=30), 60)


def test_joined_recordings_whose_clock_starts_again_are_no_damage(tmp_path: Path) -> None:
    one = encode_video(tmp_path / "one.ts", "mpeg2video", num_frames=40).read_bytes()
    (tmp_path / "three.ts").write_bytes(one * 3)
    assert_ok(tmp_path / "three.ts", 120)


# -- AVI: empty chunks, lying headers ----------------------------------------------------------------------------------------------


def without_index(path: Path) -> Path:
    """Rename the index of an AVI, as in a file whose writer was killed."""
    data = path.read_bytes()
    path.write_bytes(data.replace(b"idx1", b"JUNK").replace(b"ix00", b"JUNK").replace(b"indx", b"JUNK"))
    return path


@pytest.mark.parametrize(("codec", "pixels"), [("mpeg4", "yuv420p"), ("mjpeg", "yuvj420p")])
@pytest.mark.parametrize("has_index", [True, False])
def test_empty_chunks_are_no_damage(tmp_path: Path, codec: str, pixels: str, has_index: bool) -> None:
    pts = [k + k // 5 for k in range(40)]
    path = encode_video(tmp_path / "a.avi", codec, pts=pts, pixels=pixels)
    if not has_index:
        without_index(path)
    assert_ok(path, 40, "7 empty chunks")
    assert probe(path).header_frames == (40 if has_index else 47)


def test_empty_chunks_at_the_end_are_no_damage_where_there_is_no_index(tmp_path: Path) -> None:
    path = without_index(encode_video(tmp_path / "a.avi", "mjpeg", pixels="yuvj420p"))
    data = bytearray(path.read_bytes())
    movi, end = data.index(b"LIST", data.index(b"movi") - 8), data.rindex(b"JUNK")
    data[end:end] = b"00dc\0\0\0\0" * 30
    struct.pack_into("<I", data, 4, len(data) - 8)
    struct.pack_into("<I", data, movi + 4, end + 240 - movi - 8)
    for field in (data.index(b"avih") + 24, data.index(b"strh") + 40):  # the number of frames of the file and of the stream
        struct.pack_into("<I", data, field, 70)
    path.write_bytes(data)
    assert_ok(path, 40)


def test_a_truncated_avi_with_empty_chunks_is_damaged(tmp_path: Path) -> None:
    path = encode_video(tmp_path / "a.avi", "mjpeg", pts=[k + k // 5 for k in range(40)], pixels="yuvj420p")
    result = result_of(truncate(path, 0.5))
    assert result.status == "damaged"
    assert f"decoded {result.num_frames} of " in result.error


def test_not_coded_pictures_of_mpeg4_are_no_damage(tmp_path: Path) -> None:
    """A VOP: two bits of type, one 0, a marker, the time (5 bits at 25 units/s), a marker, and the bit that says it is not coded."""
    whole = encode_video(tmp_path / "whole.avi", "mpeg4", options={"g": "40"})

    def leave_out(number: int, data: bytes) -> bytes:
        bits = "01" + "0" + "1" + f"{number % 25:05b}" + "1" + "0" + "1"
        picture = int(bits.ljust(16, "0"), 2).to_bytes(2, "big")
        return b"\0\0\1\xb6" + picture + b"\x7f" if number % 4 == 2 else data

    for suffix in (".avi", ".mkv", ".mp4"):
        path = copy_video(whole, tmp_path / f"nvop{suffix}", change=leave_out)
        assert_ok(path, 30, "10 pictures not coded")


@pytest.mark.parametrize("number", [2**31 - 1, 10**6])
def test_a_number_of_frames_that_cannot_be_true_is_not_used(tmp_path: Path, number: int) -> None:
    path = encode_video(tmp_path / "a.avi", "mpeg4")
    data = bytearray(path.read_bytes())
    at = data.index(b"strh") + 8 + 32  # the length of the stream
    assert struct.unpack_from("<I", data, at)[0] == 40
    struct.pack_into("<I", data, at, number)
    path.write_bytes(data)
    info = probe(path)
    assert (info.header_frames, info.duration_seconds) == (40, None)
    assert_ok(path, 40, f"the header says {number} frames, which cannot be true")


# -- undamaged videos of all kinds -------------------------------------------------------------------------------------------------

UNDAMAGED: list[tuple[str, str, dict[str, Any]]] = [
    *(
        ("libx264", suffix, {"options": {"g": "12", "bf": "3", "x264-params": "open-gop=1"}})
        for suffix in ["mp4", "mov", "mkv", "ts", "flv", "avi", "3gp"]
    ),
    *(("libx264", suffix, {"options": {"x264-params": "intra-refresh=1:keyint=12"}}) for suffix in ("mkv", "ts", "avi", "h264")),
    *(("libx264", suffix, {"options": {"x264-params": "interlaced=1"}, "interlaced": True}) for suffix in ("mp4", "ts", "h264", "avi")),
    *(("libx264", suffix, {"options": {"bf": "16", "x264-params": "b-pyramid=normal:b-adapt=0"}}) for suffix in ("avi", "h264")),
    ("libx264", "h264", {"options": {"g": "12", "bf": "3"}}),
    ("libx264", "mp4", {"container_options": {"movflags": "frag_keyframe+empty_moov"}, "options": {"g": "10"}}),
    *(("libx265", suffix, {"options": {"x265-params": "keyint=12:bframes=4:log-level=none"}}) for suffix in ("mp4", "mkv", "ts", "hevc")),
    ("libx265", "mkv", {"options": {"x265-params": "keyint=12:interlace=tff:log-level=none"}}),
    *(("libvpx", suffix, {"options": {"auto-alt-ref": "1", "lag-in-frames": "16"}}) for suffix in ("webm", "avi", "ivf")),
    *(("libvpx-vp9", suffix, {"options": {"auto-alt-ref": "1", "lag-in-frames": "25"}}) for suffix in ("webm", "mp4", "ivf")),
    *(("libsvtav1", suffix, {"options": {"preset": "12"}}) for suffix in ("mkv", "mp4", "ivf")),
    *(("mpeg4", suffix, {"options": {"bf": "2"}}) for suffix in ["avi", "mp4", "mkv", "mov", "ts", "3gp"]),
    *(("mpeg2video", suffix, {"options": {"bf": "2"}}) for suffix in ["mpg", "vob", "ts", "mkv", "avi", "m2v", "mxf"]),
    ("mpeg2video", "mpg", {"options": {"bf": "2", "flags": "+ilme+ildct"}, "interlaced": True}),
    ("mpeg1video", "mpg", {"options": {"bf": "2"}}),
    ("libvpx", "ogv", {}),
    ("flv", "flv", {}),
    ("wmv2", "wmv", {}),
    ("msmpeg4", "avi", {}),
    ("h263p", "avi", {"size": (176, 144)}),
    ("dvvideo", "dv", {"size": (720, 576), "num_frames": 4}),
    ("ffv1", "mkv", {}),
    ("prores_ks", "mov", {"pixels": "yuv422p10le"}),
    ("rawvideo", "y4m", {"container": "yuv4mpegpipe"}),
]


@pytest.mark.parametrize(("codec", "suffix", "settings"), [pytest.param(*case, marks=needs(case[0])) for case in UNDAMAGED])
def test_undamaged_videos_of_every_codec_and_container_are_ok(tmp_path: Path, codec: str, suffix: str, settings: dict[str, Any]) -> None:
    path = encode_video(tmp_path / f"a.{suffix}", codec, **settings)
    assert_ok(path, settings.get("num_frames", 40))
    assert probe(path).frame_rate == 25


# -- given files -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "status", "num_frames", "error", "notes"),
    [
        ("hevc_lost.mkv", "damaged", 30, "25 packets gave no frame", ""),
        ("trunc_full.webm", "damaged", 43, "1.7 s of 4.0 s", ""),
        ("vfr_dropped.avi", "ok", 19, "", "6 empty chunks"),
        ("hdr_huge.avi", "ok", 100, "", "the header says 2147483647 frames, which cannot be true"),
        ("dual_programs.ts", "ok", 25, "", "video stream 2 of 2"),
        ("late_video.ts", "ok", 10, "", ""),
    ],
)
def test_given_odd_videos_have_the_status_they_deserve(
    shared_cases: Path, name: str, status: str, num_frames: int, error: str, notes: str
) -> None:
    result = result_of(shared_cases / "video" / name)
    assert (result.status, result.num_frames) == (status, num_frames)
    assert error in result.error
    assert bool(error) == bool(result.error)
    assert notes in result.notes


def test_no_given_real_video_changes_its_status(shared_data: Path) -> None:
    damaged = {"decord_corrupted.mp4": "decoded 49 of 50 frames, 1 decode error"}
    paths = [path for path in sorted((shared_data / "videos").rglob("*")) if path.is_file()]
    assert len(paths) > 20
    for path in paths:
        result = result_of(path)
        assert (result.status, result.error) == (("damaged", damaged[path.name]) if path.name in damaged else ("ok", ""))
        assert result.notes == ""


def test_a_rate_that_is_a_clocks_is_not_believed(shared_cases: Path, tmp_path: Path) -> None:
    assert probe(shared_cases / "video" / "late_video.ts").frame_rate == 25
