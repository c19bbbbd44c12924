"""Foreign files are input: what does not follow the format exactly is refused before any data is read from it."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
from shard_files import HEIGHT, WIDTH, write_clip

from flowkit.errors import ShardFormatError
from flowkit.shards.check import check_file
from flowkit.shards.jpeg import encode_jpeg
from flowkit.shards.reader import ShardReader
from flowkit.shards.writer import Member, write_shard

FILTERS = {"fletcher32": True, **hdf5plugin.Zstd(clevel=3)}
SECRET = b"the content of a file that is none of a shard's business"


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """A sound shard of two videos."""
    write_clip(tmp_path / "a.h5", "a", num_frames=6, seed=1)
    write_clip(tmp_path / "b.h5", "b", num_frames=6, seed=2)
    write_shard(tmp_path / "shard.h5", [tmp_path / "a.h5", tmp_path / "b.h5"])
    return tmp_path / "shard.h5"


def read_all(path: Path) -> None:
    with ShardReader(path) as reader:
        for video_id in reader.video_ids:
            clip = reader.clip(video_id)
            clip.frames(range(clip.num_frames))
            clip.flow(0, clip.num_frames - 1)


def assert_refused(path: Path) -> None:
    with pytest.raises(ShardFormatError) as caught:
        read_all(path)
    assert str(path) in str(caught.value)
    with pytest.raises(ShardFormatError):
        write_shard(path.with_name("copy.h5"), [Member(path, "a"), Member(path, "b")])
    assert not path.with_name("copy.h5").exists()
    assert check_file(path, deep=False, digest=False)["faults"]


Edit = Callable[[h5py.File, Path], None]


def replace_data_set(video: h5py.Group, name: str, **changes: Any) -> None:
    """Replace a data set by one with the same content that differs in one respect."""
    data = video[name][...]
    options: dict[str, Any] = {"data": data, "dtype": data.dtype}
    if name == "flow":
        options |= {"chunks": (1, *data.shape[1:]), **FILTERS}
    options |= changes
    del video[name]
    video.create_dataset(name, **options)


def replace_attribute(group: h5py.Group, name: str, value: Any, **options: Any) -> None:
    del group.attrs[name]
    group.attrs.create(name, value, **options)


def text(value: str | bytes) -> np.ndarray[Any, Any]:
    data = value.encode() if isinstance(value, str) else value
    return np.array(data, dtype=h5py.string_dtype("utf-8", max(len(data), 1)))


def external_storage(file: h5py.File, folder: Path) -> None:
    (folder / "secret").write_bytes(SECRET)
    video = file["videos/000000"]
    size = video["frames"].shape[0]
    del video["frames"]
    video.create_dataset("frames", shape=(size,), dtype="u1", external=[(str(folder / "secret"), 0, size)])


def virtual_storage(file: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "other.h5", "w") as other:
        other["x"] = np.zeros((5, 2, HEIGHT, WIDTH), np.uint8)
    layout = h5py.VirtualLayout(shape=(5, 2, HEIGHT, WIDTH), dtype="u1")
    layout[...] = h5py.VirtualSource(str(folder / "other.h5"), "x", shape=(5, 2, HEIGHT, WIDTH))
    video = file["videos/000000"]
    del video["flow"]
    video.create_virtual_dataset("flow", layout)


def external_link(file: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "other.h5", "w") as other:
        file.copy("videos/000000/frames", other, "frames")
    del file["videos/000000/frames"]
    file["videos/000000/frames"] = h5py.ExternalLink(str(folder / "other.h5"), "/frames")


def external_video(file: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "other.h5", "w") as other:
        file.copy("videos/000001", other, "video")
    del file["videos/000001"]
    file["videos/000001"] = h5py.ExternalLink(str(folder / "other.h5"), "/video")


def soft_link(file: h5py.File, folder: Path) -> None:
    del file["videos/000000/flow"]
    file["videos/000000/flow"] = h5py.SoftLink("/videos/000001/flow")


def link_to_itself(file: h5py.File, folder: Path) -> None:
    del file["videos/000000/flow"]
    file["videos/000000/flow"] = file["videos/000000"]


def link_to_parent(file: h5py.File, folder: Path) -> None:
    del file["videos/000001"]
    file["videos/000001"] = file["videos"]


def link_to_root(file: h5py.File, folder: Path) -> None:
    del file["videos"]
    file["videos"] = file["/"]


def one_video_twice(file: h5py.File, folder: Path) -> None:
    del file["videos/000001"]
    file["videos/000001"] = file["videos/000000"]


def two_of_one_name(file: h5py.File, folder: Path) -> None:
    replace_attribute(file["videos/000001"], "video_id", text("a"))


def gap_in_the_names(file: h5py.File, folder: Path) -> None:
    file.move("videos/000001", "videos/000002")


def foreign_object(file: h5py.File, folder: Path) -> None:
    file["extra"] = np.zeros(3)


def foreign_data_set(file: h5py.File, folder: Path) -> None:
    file["videos/000000/extra"] = np.zeros(3)


def missing_data_set(file: h5py.File, folder: Path) -> None:
    del file["videos/000000/frame_crc32"]


def missing_flow(file: h5py.File, folder: Path) -> None:
    del file["videos/000000/flow"]


def flow_that_is_denied(file: h5py.File, folder: Path) -> None:
    for name, value in {"codec": "no-flow", "solver": "no-flow", "tvl1": "{}"}.items():
        replace_attribute(file["videos/000000"], name, text(value))


def solver_of_no_flow(file: h5py.File, folder: Path) -> None:
    flow_that_is_denied(file, folder)
    missing_flow(file, folder)
    replace_attribute(file["videos/000000"], "solver", text("strict"))


def parameters_of_no_flow(file: h5py.File, folder: Path) -> None:
    stored = file["videos/000000"].attrs["tvl1"]
    flow_that_is_denied(file, folder)
    missing_flow(file, folder)
    replace_attribute(file["videos/000000"], "tvl1", text(stored))


def group_for_a_data_set(file: h5py.File, folder: Path) -> None:
    del file["videos/000000/frames"]
    file.create_group("videos/000000/frames")


def huge_shape(file: h5py.File, folder: Path) -> None:
    video = file["videos/000000"]
    del video["flow"]
    video.create_dataset(
        "flow", shape=(10**9, 2, HEIGHT, WIDTH), dtype="u1", chunks=(1, 2, HEIGHT, WIDTH), fletcher32=True, **hdf5plugin.Zstd()
    )
    replace_attribute(video, "num_frames", np.int64(10**9 + 1))


def huge_frames(file: h5py.File, folder: Path) -> None:
    video = file["videos/000000"]
    del video["flow"]
    side = 60_000
    video.create_dataset(
        "flow", shape=(5, 2, side, side), dtype="u1", chunks=(1, 2, side // 4, side // 4), fletcher32=True, **hdf5plugin.Zstd()
    )


def huge_offsets(file: h5py.File, folder: Path) -> None:
    video = file["videos/000000"]
    del video["frame_offsets"]
    video.create_dataset("frame_offsets", shape=(10**12,), dtype="<i8")
    replace_attribute(video, "num_frames", np.int64(10**12 - 1))


def unlimited_shape(file: h5py.File, folder: Path) -> None:
    replace_data_set(file["videos/000000"], "flow", maxshape=(None, 2, HEIGHT, WIDTH))


def other_filter(file: h5py.File, folder: Path) -> None:
    video = file["videos/000000"]
    data = video["flow"][...]
    del video["flow"]
    video.create_dataset("flow", data=data, chunks=(1, 2, HEIGHT, WIDTH), compression="lzf", fletcher32=True)


def no_checksum(file: h5py.File, folder: Path) -> None:
    replace_data_set(file["videos/000000"], "flow", fletcher32=False)


def shuffled(file: h5py.File, folder: Path) -> None:
    replace_data_set(file["videos/000000"], "flow", shuffle=True)


def several_pairs_a_chunk(file: h5py.File, folder: Path) -> None:
    replace_data_set(file["videos/000000"], "flow", chunks=(5, 2, HEIGHT, WIDTH))


def missing_chunk(file: h5py.File, folder: Path) -> None:
    video = file["videos/000000"]
    first = video["flow"][:2]
    del video["flow"]
    flow = video.create_dataset(
        "flow", shape=(5, 2, HEIGHT, WIDTH), dtype="u1", chunks=(1, 2, HEIGHT, WIDTH), fletcher32=True, **hdf5plugin.Zstd()
    )
    flow[:2] = first


def signed_flow(file: h5py.File, folder: Path) -> None:
    replace_data_set(file["videos/000000"], "flow", dtype="i1")


def enumerated_flow(file: h5py.File, folder: Path) -> None:
    replace_data_set(file["videos/000000"], "flow", dtype=h5py.enum_dtype({"zero": 128}, basetype="u1"))


def flow_of_another_video_length(file: h5py.File, folder: Path) -> None:
    video = file["videos/000000"]
    replace_data_set(video, "flow", data=video["flow"][:4])


def chunked_frames(file: h5py.File, folder: Path) -> None:
    replace_data_set(file["videos/000000"], "frames", chunks=(100,))


def short_offsets(file: h5py.File, folder: Path) -> None:
    replace_data_set(file["videos/000000"], "frame_offsets", dtype="<i4")


def big_endian_offsets(file: h5py.File, folder: Path) -> None:
    replace_data_set(file["videos/000000"], "frame_offsets", dtype=">i8")


def object_offsets(file: h5py.File, folder: Path) -> None:
    video = file["videos/000000"]
    del video["frame_offsets"]
    video.create_dataset("frame_offsets", shape=(7,), dtype=h5py.vlen_dtype(np.int64))


def offsets(change: Callable[[np.ndarray[Any, Any]], None]) -> Edit:
    def edit(file: h5py.File, folder: Path) -> None:
        values = file["videos/000000/frame_offsets"][...]
        change(values)
        file["videos/000000/frame_offsets"][...] = values

    return edit


def attribute(name: str, value: Any, **options: Any) -> Edit:
    def edit(file: h5py.File, folder: Path) -> None:
        replace_attribute(file["videos/000000"], name, value, **options)

    return edit


def root_attribute(name: str, value: Any, **options: Any) -> Edit:
    def edit(file: h5py.File, folder: Path) -> None:
        replace_attribute(file, name, value, **options)

    return edit


def missing_attribute(file: h5py.File, folder: Path) -> None:
    del file["videos/000000"].attrs["solver"]


def extra_attribute(file: h5py.File, folder: Path) -> None:
    file["videos/000000"].attrs["extra"] = 1


EDITS: dict[str, Edit] = {
    edit.__name__: edit
    for edit in (
        external_storage, virtual_storage, external_link, external_video, soft_link, link_to_itself, link_to_parent, link_to_root,
        one_video_twice, two_of_one_name, gap_in_the_names, foreign_object, foreign_data_set, missing_data_set, group_for_a_data_set,
        missing_flow, flow_that_is_denied, solver_of_no_flow, parameters_of_no_flow,
        huge_shape, huge_frames, huge_offsets, unlimited_shape, other_filter, no_checksum, shuffled, several_pairs_a_chunk, missing_chunk,
        signed_flow, enumerated_flow, flow_of_another_video_length, chunked_frames, short_offsets, big_endian_offsets, object_offsets,
        missing_attribute, extra_attribute,
    )
} | {
    "offsets that fall": offsets(lambda v: v.__setitem__(2, v[1] - 1)),
    "offsets that stand": offsets(lambda v: v.__setitem__(2, v[1])),
    "offsets below zero": offsets(lambda v: v.__setitem__(0, -1)),
    "offsets that begin late": offsets(lambda v: v.__setitem__(0, 1)),
    "offsets past the end": offsets(lambda v: v.__setitem__(-1, v[-1] + 1)),
    "offsets past any end": offsets(lambda v: v.__setitem__(-1, 2**63 - 1)),
    "text of variable length": attribute("frame_rate", "25/1"),
    "text in ASCII": attribute("frame_rate", np.array(b"25/1", dtype="S4")),
    "text that is not UTF-8": attribute("class_name", text(b"\xff\xfe")),
    "several texts": attribute("class_name", np.array([b"a", b"b"], dtype=h5py.string_dtype("utf-8", 1))),
    "very long text": attribute("class_name", text("x" * 20_000)),
    "number for text": attribute("class_name", np.int64(3)),
    "text for number": attribute("num_frames", text("6")),
    "number of 32 bit": attribute("num_frames", np.int32(6)),
    "big-endian number": attribute("num_frames", np.array(6, dtype=">i8")),
    "float for number": attribute("num_frames", np.float64(6)),
    "another number of frames": attribute("num_frames", np.int64(5)),
    "video_id that climbs": attribute("video_id", text("../../.ssh/authorized_keys")),
    "video_id that is absolute": attribute("video_id", text("/etc/cron.d/x")),
    "video_id of a device": attribute("video_id", text("clips/con")),
    "video_id with NUL inside": attribute("video_id", text(b"a\0b")),
    "codec unknown": attribute("codec", text("lzma")),
    "codec of another layout": attribute("codec", text("jpeg")),
    "quantiser not JSON": attribute("quantiser", text("{")),
    "format of another tool": root_attribute("format", text("other")),
    "format version of the future": root_attribute("format_version", np.int64(2)),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_a_file_that_is_not_the_format_is_refused(shard: Path, name: str) -> None:
    with h5py.File(shard, "r+", libver=("v110", "v110")) as file:
        EDITS[name](file, shard.parent)
    assert_refused(shard)


def test_a_file_that_is_only_opened_and_closed_is_still_sound(shard: Path) -> None:
    """This shows that the edits above are refused, and not editing as such."""
    with h5py.File(shard, "r+", libver=("v110", "v110")) as file:
        replace_attribute(file["videos/000000"], "class_name", text("other"))
        replace_data_set(file["videos/000001"], "flow")
    read_all(shard)


def test_a_truncated_file_is_refused_wherever_it_ends(shard: Path) -> None:
    whole = shard.read_bytes()
    for size in [*range(0, 200, 7), *range(200, len(whole), 997), len(whole) - 1]:
        shard.write_bytes(whole[:size])
        assert_refused(shard)


def test_bytes_before_or_after_are_refused(shard: Path) -> None:
    whole = shard.read_bytes()
    for changed in (whole + b"\0", whole + b"PK" * 500, b"\0" * 512 + whole, b"#!/bin/sh\n" + whole):
        shard.write_bytes(changed)
        assert_refused(shard)


def test_what_is_no_shard_at_all_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"text", b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" + b"\xff" * 4096, os.urandom(5000)):
        (tmp_path / "x.h5").write_bytes(content)
        assert_refused(tmp_path / "x.h5")
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        file["data"] = np.zeros(4)
    assert_refused(tmp_path / "plain.h5")
    (tmp_path / "folder.h5").mkdir()
    assert_refused(tmp_path / "folder.h5")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.h5")
    assert_refused(tmp_path / "pipe.h5")


@pytest.mark.parametrize("name", ["flow", "frame_offsets"])
def test_the_file_behind_a_virtual_data_set_is_not_even_opened(shard: Path, name: str) -> None:
    """HDF5 opens the file to find a shape that is not fixed, and would wait for a pipe. Hence a process, which can be killed."""
    os.mkfifo(shard.parent / "pipe")
    with h5py.File(shard, "r+", libver=("v110", "v110")) as file:
        video = file["videos/000000"]
        shape, dtype = video[name].shape, video[name].dtype
        endless = (None, *shape[1:])
        layout = h5py.VirtualLayout(shape=shape, dtype=dtype, maxshape=endless)
        source = h5py.VirtualSource(str(shard.parent / "pipe"), "x", shape=shape, dtype=dtype, maxshape=endless)
        layout[0 : h5py.h5s.UNLIMITED : 1] = source[0 : h5py.h5s.UNLIMITED : 1]
        del video[name]
        video.create_virtual_dataset(name, layout)
    code = "import sys, flowkit\nflowkit.ShardReader(sys.argv[1]).clip('a')\n"
    done = subprocess.run([sys.executable, "-c", code, str(shard)], capture_output=True, text=True, timeout=300, check=False)
    assert "ShardFormatError" in done.stderr
    assert f"'{name}' is stored in another way" in done.stderr


def test_a_file_that_is_not_there_is_an_ordinary_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        _ = ShardReader(tmp_path / "none.h5").video_ids


# -- images ------------------------------------------------------------------------------------------------------------------------


def put_image(path: Path, index: int, image: bytes) -> None:
    """Put another image of at most the same length in a clip, padded after its end, with its CRC."""
    with h5py.File(path, "r+", libver=("v110", "v110")) as file:
        video = file["videos/000000"]
        start, stop = video["frame_offsets"][index : index + 2]
        assert len(image) <= stop - start
        padded = image.ljust(stop - start, b"\0")
        video["frames"][start:stop] = np.frombuffer(padded, np.uint8)
        video["frame_crc32"][index] = zlib.crc32(padded)


def with_size(jpeg: bytes, height: int, width: int) -> bytes:
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + jpeg[at + 4 :]


def test_a_jpeg_whose_size_lies_is_refused_before_it_is_decoded(shard: Path) -> None:
    frame = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    for height, width in ((65_500, 65_500), (HEIGHT + 8, WIDTH), (HEIGHT, WIDTH - 1), (0, 0)):
        put_image(shard, 2, with_size(encode_jpeg(frame), height, width))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with ShardReader(shard) as reader:
            assert reader.clip("a").frames([1, 3]).any()
            for read in (lambda clip: clip.frames([2]), lambda clip: clip.encoded_frames(0, 6)):
                with pytest.raises(ShardFormatError, match=r"'a': frame 2 is a JPEG of"):
                    read(reader.clip("a"))
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB
        faults = [fault for fault in check_file(shard, deep=False, digest=False)["faults"] if "frame 2" in fault[1]]
        assert faults


def test_an_image_that_is_no_jpeg_is_refused(shard: Path) -> None:
    import cv2

    png = cv2.imencode(".png", np.zeros((HEIGHT, WIDTH, 3), np.uint8))[1].tobytes()
    lossless = bytearray(encode_jpeg(np.zeros((HEIGHT, WIDTH, 3), np.uint8)))
    lossless[lossless.index(b"\xff\xc0") + 1] = 0xC3
    for image in (png, b"GIF89a", b"", bytes(lossless), b"\xff\xd8" + b"\xff" * 200):
        put_image(shard, 0, image)
        with ShardReader(shard) as reader:
            for read in (lambda clip: clip.frames([0]), lambda clip: clip.encoded_frames(0, 1)):
                with pytest.raises(ShardFormatError, match="frame 0"):
                    read(reader.clip("a"))


def test_an_image_that_was_changed_is_refused_by_its_crc(shard: Path) -> None:
    with h5py.File(shard, "r+", libver=("v110", "v110")) as file:
        video = file["videos/000000"]
        video["frames"][video["frame_offsets"][4] + 300] ^= 1
    with ShardReader(shard) as reader:
        assert reader.clip("a").frames([3, 5]).any()
        with pytest.raises(ShardFormatError, match="frame 4 is damaged: its CRC"):
            reader.clip("a").frames([4])


def test_an_image_with_an_orientation_keeps_its_size(tmp_path: Path) -> None:
    """EXIF data in an imported JPEG must not rotate it."""
    from shard_files import attributes, clip_arrays

    from flowkit.shards.writer import ClipWriter

    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    frames, flow = clip_arrays(2)
    images = [encode_jpeg(frame) for frame in frames]
    turned = [image[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + image[2:] for image in images]
    with ClipWriter(tmp_path / "a.h5", height=HEIGHT, width=WIDTH) as writer:
        writer.append_encoded_frames(turned)
        writer.append_flow(flow)
        writer.finish(attributes("a", 2))
    with ShardReader(tmp_path / "a.h5") as reader:
        assert np.abs(reader.clip("a").frames([0])[0].astype(int) - frames[0]).mean() < 4
