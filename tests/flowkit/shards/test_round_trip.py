"""Clips are read exactly as they were written, with every codec, window and name, and from any process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from shard_files import HEIGHT, WIDTH, attributes, clip_arrays, write_clip

from flowkit.errors import ParameterError, ShardFormatError
from flowkit.quantise import Quantiser
from flowkit.shards import chunks, native
from flowkit.shards.chunks import ChunkPipeline, decode_chunks
from flowkit.shards.jpeg import encode_jpeg, jpeg_size
from flowkit.shards.native import fletcher32, native_fletcher32
from flowkit.shards.reader import ShardReader
from flowkit.shards.schema import CODECS
from flowkit.shards.writer import ClipWriter, Member, write_shard

NAMES = [
    "plain",
    "Run/v_Run_g01_c01",
    "quo\"te's",
    "two\nlines",
    "🏃🏽‍♀️ läuft",
    "[red]markup[/red]",
    "<script>alert(1)</script>",
    "\x1b[31mred",
    "-rf",
    "a.b.c",
    ".hidden",
    " space ",
    "x" * 230 + "/" + "é" * 100,
]


@pytest.mark.parametrize("codec", ["zstd", "gzip", "none"])
def test_flow_comes_back_bit_for_bit(tmp_path: Path, codec: str) -> None:
    _, flow = write_clip(tmp_path / "a.h5", codec=codec)
    with ShardReader(tmp_path / "a.h5") as reader:
        clip = reader.clip("Run/v_Run_g01_c01")
        assert np.array_equal(clip.flow(0, 11), flow)
        for start in range(12):
            for stop in range(start, 12):
                assert np.array_equal(clip.flow(start, stop), flow[start:stop])


@pytest.mark.parametrize("codec", CODECS)
def test_frames_come_back_within_the_error_of_jpeg(tmp_path: Path, codec: str) -> None:
    frames, _ = write_clip(tmp_path / "a.h5", codec=codec)
    with ShardReader(tmp_path / "a.h5") as reader:
        got = reader.clip("Run/v_Run_g01_c01").frames([11, 0, 5, 5])
    assert np.abs(got.astype(int) - frames[[11, 0, 5, 5]]).mean() < 4
    # Exactly what a JPEG of quality 95 says, and in the order RGB.
    encoded = cv2.imencode(".jpg", cv2.cvtColor(frames[11], cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
    assert np.array_equal(got[0], cv2.cvtColor(cv2.imdecode(encoded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB))


def test_jpeg_flow_comes_back_within_the_error_of_jpeg(tmp_path: Path) -> None:
    _, flow = write_clip(tmp_path / "a.h5", codec="jpeg")
    with ShardReader(tmp_path / "a.h5") as reader:
        got = reader.clip("Run/v_Run_g01_c01").flow(2, 9)
    assert np.abs(got.astype(int) - flow[2:9]).max() <= 12
    assert np.abs(got.astype(int) - flow[2:9]).mean() < 1.5


def test_noise_that_does_not_compress_comes_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    flow = rng.integers(0, 256, (3, 2, HEIGHT, WIDTH), dtype=np.uint8)
    for codec in ("zstd", "gzip", "none"):
        with ClipWriter(tmp_path / "a.h5", codec=codec, height=HEIGHT, width=WIDTH) as writer:
            writer.append_frames(clip_arrays(4)[0])
            writer.append_flow(flow)
            writer.finish(attributes("a", 4, codec=codec))
        with ShardReader(tmp_path / "a.h5") as reader:
            assert np.array_equal(reader.clip("a").flow(0, 3), flow)


def test_attributes_come_back(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.h5", frame_rate="30000/1001", header_frames=14, decode_errors=2)
    with ShardReader(tmp_path / "a.h5") as reader:
        clip = reader.clip("Run/v_Run_g01_c01")
        assert clip.attributes == attributes("Run/v_Run_g01_c01", 12, frame_rate="30000/1001", header_frames=14, decode_errors=2)
        assert (clip.num_frames, clip.height, clip.width, clip.class_name, clip.codec) == (12, HEIGHT, WIDTH, "Run", "zstd")
        assert clip.frame_rate == Fraction(30000, 1001)
        assert clip.quantiser == Quantiser(20.0, "symmetric")


@pytest.mark.parametrize("video_id", NAMES)
def test_any_name_comes_back(tmp_path: Path, video_id: str) -> None:
    path = tmp_path / f"{video_id}.h5"
    write_clip(path, video_id, num_frames=2)
    with ShardReader(path) as reader:
        assert reader.video_ids == (video_id,)
        assert reader.clip(video_id).video_id == video_id


def test_the_same_clip_is_the_same_bytes_however_it_was_appended(tmp_path: Path) -> None:
    frames, flow = write_clip(tmp_path / "once.h5", num_frames=20)
    with ClipWriter(tmp_path / "piecewise.h5", height=HEIGHT, width=WIDTH) as writer:
        for k in range(20):
            writer.append_frames(frames[k : k + 1])
            writer.append_flow(flow[k - 1 : k] if k else flow[:0])
        writer.finish(attributes("Run/v_Run_g01_c01", 20))
    assert (tmp_path / "once.h5").read_bytes() == (tmp_path / "piecewise.h5").read_bytes()


def test_any_hdf5_reads_a_clip(tmp_path: Path) -> None:
    frames, flow = write_clip(tmp_path / "a.h5", codec="gzip")
    with h5py.File(tmp_path / "a.h5") as file:
        video = file["videos/000000"]
        assert np.array_equal(video["flow"][...], flow)
        assert video.attrs["video_id"].decode() == "Run/v_Run_g01_c01"
        start, stop = video["frame_offsets"][3:5]
        image = cv2.imdecode(video["frames"][start:stop], cv2.IMREAD_COLOR)
        assert np.abs(image[:, :, ::-1].astype(int) - frames[3]).mean() < 4


# -- what a writer refuses, and what it leaves -------------------------------------------------------------------------------------


def test_a_writer_that_is_not_finished_leaves_nothing(tmp_path: Path) -> None:
    frames, flow = clip_arrays(4)

    def stop_midway() -> None:
        with ClipWriter(tmp_path / "a.h5", height=HEIGHT, width=WIDTH) as writer:
            writer.append_frames(frames)
            writer.append_flow(flow)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stop_midway()
    assert os.listdir(tmp_path) == []


def test_frames_and_flow_that_do_not_fit_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    frames, flow = clip_arrays(4)
    for frames_given, flow_given, said in ((4, 2, 4), (3, 3, 4), (4, 3, 5), (4, 3, 3)):
        with ClipWriter(tmp_path / "a.h5", height=HEIGHT, width=WIDTH) as writer:
            writer.append_frames(frames[:frames_given])
            writer.append_flow(flow[:flow_given])
            with pytest.raises(ParameterError, match="were added instead of"):
                writer.finish(attributes("a", said))
        assert os.listdir(tmp_path) == []


def test_arrays_of_another_type_or_size_are_refused(tmp_path: Path) -> None:
    frames, flow = clip_arrays(4)
    with ClipWriter(tmp_path / "a.h5", height=HEIGHT, width=WIDTH) as writer:
        for wrong in (frames.astype(np.float32), frames[:, 1:], frames[..., :2], frames[0]):
            with pytest.raises(ParameterError):
                writer.append_frames(wrong)  # type: ignore[arg-type]
        for wrong in (flow.astype(np.int8), flow[:, :1], flow[:, :, :, 1:]):
            with pytest.raises(ParameterError):
                writer.append_flow(wrong)  # type: ignore[arg-type]
        with pytest.raises(ShardFormatError):
            writer.append_encoded_frames([encode_jpeg(frames[0][1:])])
        with pytest.raises(ParameterError, match="codec"):
            writer.append_encoded_flow([encode_jpeg(flow[0, 0])])
    with pytest.raises(ParameterError, match="lzma"):
        ClipWriter(tmp_path / "a.h5", codec="lzma", height=HEIGHT, width=WIDTH)
    with pytest.raises(ParameterError, match="px"):
        ClipWriter(tmp_path / "a.h5", height=1 << 15, width=WIDTH)


def test_encoded_jpegs_keep_their_bytes(tmp_path: Path) -> None:
    frames, flow = clip_arrays(3)
    images = [cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 40])[1].tobytes() for frame in frames]
    planes = [cv2.imencode(".jpg", plane, [cv2.IMWRITE_JPEG_QUALITY, 60])[1].tobytes() for pair in flow for plane in pair]
    with ClipWriter(tmp_path / "a.h5", codec="jpeg", height=HEIGHT, width=WIDTH) as writer:
        writer.append_encoded_frames(images)
        writer.append_encoded_flow(planes)
        writer.finish(attributes("a", 3, codec="jpeg"))
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["videos/000000/frames"][...].tobytes() == b"".join(images)
        assert file["videos/000000/flow"][...].tobytes() == b"".join(planes)


@pytest.mark.skipif(os.name == "nt", reason="kills with a POSIX signal")
def test_a_killed_writer_leaves_no_final_name(tmp_path: Path) -> None:
    tests = str(Path(__file__).parents[2] / "support")
    code = (
        f"import sys; sys.path.insert(0, {tests!r})\n"
        "import os, signal\nfrom pathlib import Path\nimport flowkit.shards.new_shard as container\n"
        "from shard_files import write_clip\n"
        "container._write_pieces = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"write_clip(Path({str(tmp_path)!r}) / 'a.h5')\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    (left,) = os.listdir(tmp_path)
    assert left.startswith("a.h5.")
    assert left.endswith(".part")


@pytest.mark.skipif(os.name == "nt", reason="limits the size of files as POSIX does")
def test_a_disk_that_is_full_is_an_error_and_not_a_crash(tmp_path: Path) -> None:
    """HDF5 itself crashes if it cannot write the data that it keeps until a file is closed."""
    for k in range(12):
        write_clip(tmp_path / f"{k:02d}.h5", f"{k:02d}", seed=k)
    (tmp_path / "shard.h5").write_bytes(b"as it was")
    code = (
        "import errno, resource\nfrom pathlib import Path\nfrom flowkit.shards.writer import write_shard\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "for limit in (0, 10, 3_000, 50_000, 100_000, 150_000):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))\n"
        "    try:\n"
        "        write_shard(folder / 'shard.h5', sorted(folder.glob('[0-9]*.h5')))\n"
        "    except OSError as error:\n"
        "        print(errno.errorcode[error.errno], error.filename.endswith('/shard.h5'))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "EFBIG True\n" * 6, "")
    assert (tmp_path / "shard.h5").read_bytes() == b"as it was"
    assert not list(tmp_path.glob("*.part"))


# -- shards ------------------------------------------------------------------------------------------------------------------------


def test_a_shard_contains_what_its_clips_contain(tmp_path: Path) -> None:
    made = {f"c/{k}": write_clip(tmp_path / f"{k}.h5", f"c/{k}", num_frames=5 + k, seed=k, codec=CODECS[k % 4]) for k in range(9)}
    size = write_shard(tmp_path / "shard.h5", [tmp_path / f"{k}.h5" for k in range(9)])
    assert size == (tmp_path / "shard.h5").stat().st_size
    with ShardReader(tmp_path / "shard.h5") as shard:
        assert shard.video_ids == tuple(made)
        for k, (video_id, (_, flow)) in enumerate(made.items()):
            with ShardReader(tmp_path / f"{k}.h5") as alone:
                ours, theirs = shard.clip(video_id), alone.clip(video_id)
                assert (ours.attributes, ours.sha256) == (theirs.attributes, theirs.sha256)
                assert np.array_equal(ours.frames(range(5 + k)), theirs.frames(range(5 + k)))
                assert np.array_equal(ours.flow(0, 4 + k), theirs.flow(0, 4 + k))
                if ours.codec != "jpeg":
                    assert np.array_equal(ours.flow(0, 4 + k), flow)


def test_the_same_members_give_the_same_bytes_wherever_they_come_from(tmp_path: Path) -> None:
    for k in range(12):
        write_clip(tmp_path / f"{k}.h5", f"c/{k:02d}", num_frames=3, seed=k)
    members = [tmp_path / f"{k}.h5" for k in range(12)]
    write_shard(tmp_path / "from-clips.h5", members)
    write_shard(tmp_path / "head.h5", members[:7])
    both = [Member(tmp_path / "from-clips.h5" if k % 2 else tmp_path / f"{k}.h5", f"c/{k:02d}") for k in range(12)]
    write_shard(tmp_path / "mixed.h5", both)
    assert (tmp_path / "from-clips.h5").read_bytes() == (tmp_path / "mixed.h5").read_bytes()
    # A shard may be rewritten from itself.
    write_shard(tmp_path / "mixed.h5", [Member(tmp_path / "mixed.h5", f"c/{k:02d}") for k in range(7)])
    assert (tmp_path / "mixed.h5").read_bytes() == (tmp_path / "head.h5").read_bytes()


def test_a_clip_file_is_a_shard_of_one_video(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.h5")
    write_shard(tmp_path / "b.h5", [tmp_path / "a.h5"])
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


@pytest.mark.parametrize(("codec", "data_set"), [("zstd", "flow"), ("none", "flow"), ("jpeg", "flow"), ("zstd", "frames")])
def test_a_shard_takes_in_no_damaged_clip(tmp_path: Path, codec: str, data_set: str) -> None:
    write_clip(tmp_path / "good.h5", "good", seed=1)
    write_clip(tmp_path / "bad.h5", "bad", codec=codec)
    write_shard(tmp_path / "shard.h5", [tmp_path / "good.h5"])
    before = (tmp_path / "shard.h5").read_bytes()
    with h5py.File(tmp_path / "bad.h5") as file:
        stored = file["videos/000000"][data_set].id
        place = (
            (stored.get_offset() + stored.get_storage_size() // 2)
            if codec == "jpeg" or data_set == "frames"
            else stored.get_chunk_info(4).byte_offset + 9
        )
    with (tmp_path / "bad.h5").open("r+b") as raw:
        raw.seek(place)
        byte = raw.read(1)[0]
        raw.seek(place)
        raw.write(bytes([byte ^ 0x10]))
    with pytest.raises(ShardFormatError, match="damaged"):
        write_shard(tmp_path / "shard.h5", [tmp_path / "good.h5", tmp_path / "bad.h5"])
    assert (tmp_path / "shard.h5").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["bad.h5", "good.h5", "shard.h5"]


def test_a_video_is_not_put_in_a_shard_twice(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.h5")
    with pytest.raises(ParameterError, match="twice"):
        write_shard(tmp_path / "shard.h5", [tmp_path / "a.h5", tmp_path / "a.h5"])
    with pytest.raises(ParameterError, match="0"):
        write_shard(tmp_path / "shard.h5", [])
    assert os.listdir(tmp_path) == ["a.h5"]


# -- the parts ---------------------------------------------------------------------------------------------------------------------


def plain_fletcher32(data: bytes) -> int:
    """HDF5's checksum as its documentation defines it: a loop over big-endian words."""
    first = second = 0
    for k in range(0, len(data), 2):
        first += int.from_bytes(data[k : k + 2].ljust(2, b"\0"), "big")
        second += first
    return (((second - 1) % 65535 + 1) if second else 0) << 16 | (((first - 1) % 65535 + 1) if first else 0)


@pytest.mark.parametrize("size", [1, 2, 3, 100, 101, 131_072, 131_074, 131_075, 400_001])
def test_the_checksum_is_that_of_a_plain_loop(size: int) -> None:
    """This tests the NumPy version, and HDF5's own function where the library exports it (on Linux and macOS)."""
    rng = np.random.default_rng(size)
    compiled = native_fletcher32()
    assert compiled is not None or sys.platform == "win32"
    for data in (rng.bytes(size), b"\xff" * size, b"\0" * size):
        assert fletcher32(data) == plain_fletcher32(data)
        if compiled is not None:
            assert compiled(np.frombuffer(data, np.uint8).ctypes.data, size) == fletcher32(data)


@pytest.mark.parametrize("codec", ["zstd", "gzip", "none"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 5), (64, 86)])
def test_the_checksum_and_decoder_agree_with_hdf5(codec: str, height: int, width: int) -> None:
    pair = np.random.default_rng(0).integers(0, 9, (2, height, width), dtype=np.uint8)
    pipeline = ChunkPipeline(codec, height, width)
    mask, data = pipeline.encode(pair)
    assert fletcher32(data[:-4]) == int.from_bytes(data[-4:], "little")
    ours, theirs = np.empty_like(pair), np.empty_like(pair)
    decode_chunks(codec, data, [(0, len(data), mask)], ours[None])
    pipeline.decode(mask, data, theirs)
    assert np.array_equal(ours, pair)
    assert np.array_equal(theirs, pair)
    pipeline.close()


def test_zstd_is_decoded_through_hdf5_where_its_library_hides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, flow = write_clip(tmp_path / "a.h5")
    monkeypatch.setattr(chunks, "zstd_decompressor", lambda: None)
    with ShardReader(tmp_path / "a.h5") as reader:
        assert np.array_equal(reader.clip("Run/v_Run_g01_c01").flow(0, 11), flow)


def test_checksums_are_tested_where_hdf5_hides_its_function_or_has_another_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, flow = write_clip(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        last = file["videos/000000/flow"].id.get_chunk_info(10)
    broken = bytearray((tmp_path / "a.h5").read_bytes())
    broken[last.byte_offset + last.size // 2] ^= 1
    (tmp_path / "b.h5").write_bytes(broken)

    class Library:
        def __init__(self, path: str) -> None:
            pass

    class OtherLibrary(Library):
        H5_checksum_fletcher32 = staticmethod(lambda address, num_bytes: 7)

    for library in (Library, OtherLibrary):
        monkeypatch.setattr(native.ctypes, "CDLL", library)
        native_fletcher32.cache_clear()
        assert native_fletcher32() is None
        monkeypatch.undo()
        with ShardReader(tmp_path / "a.h5") as whole, ShardReader(tmp_path / "b.h5") as damaged:
            assert np.array_equal(whole.clip("Run/v_Run_g01_c01").flow(0, 11), flow)
            with pytest.raises(ShardFormatError, match="flow chunk 10 is damaged: its checksum"):
                damaged.clip("Run/v_Run_g01_c01").flow(0, 11)
    native_fletcher32.cache_clear()


@pytest.mark.parametrize("place", [(-1, 10, 0), (0, 4, 0), (0, 101, 0), (97, 4, 0), (120, 9, 0)])
def test_a_chunk_that_is_not_in_its_window_is_refused(place: tuple[int, int, int]) -> None:
    with pytest.raises(ShardFormatError, match="flow chunk 3 is damaged"):
        decode_chunks("zstd", bytes(100), [place], np.empty((1, 2, 4, 4), np.uint8), first=3)


def test_every_compressed_chunk_that_is_changed_is_refused_or_of_the_same_size() -> None:
    """Random bytes with a matching checksum never crash the decoder, and it never writes beyond the array."""
    rng = np.random.default_rng(3)
    pair = clip_arrays(2)[1][0]
    for codec in ("zstd", "gzip"):
        pipeline = ChunkPipeline(codec, HEIGHT, WIDTH)
        mask, data = pipeline.encode(pair)
        for _ in range(300):
            changed = bytearray(data[:-4])
            changed[rng.integers(len(changed))] ^= 1 << rng.integers(8)
            changed += fletcher32(bytes(changed)).to_bytes(4, "little")
            guarded = np.full((4, HEIGHT, WIDTH), 77, np.uint8)
            with contextlib.suppress(ShardFormatError):
                decode_chunks(codec, bytes(changed), [(0, len(changed), mask)], guarded[None, 1:3])
            assert (guarded[[0, 3]] == 77).all()
        pipeline.close()


def test_the_size_of_a_jpeg_is_learned_without_decoding_it() -> None:
    frames, flow = clip_arrays(2)
    assert jpeg_size(encode_jpeg(frames[0])) == (HEIGHT, WIDTH)
    assert jpeg_size(encode_jpeg(flow[0, 0])) == (HEIGHT, WIDTH)
    progressive = cv2.imencode(".jpg", frames[0], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    assert jpeg_size(progressive) == (HEIGHT, WIDTH)
    data = encode_jpeg(frames[0])
    for wrong in (b"", b"\xff\xd8", data[:20], b"GIF89a" + data, data[:2] + b"\xff\xda" + data[2:], b"\xff\xd8" + b"\xff" * 50):
        with pytest.raises(ShardFormatError):
            jpeg_size(wrong)
