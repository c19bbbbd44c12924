"""A file that is no video is called what it is, with what to do about it."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
from odd_videos import encode_video, needs
from small_videos import write_video

from flowkit.errors import VideoDecodeError
from flowkit.video.containers import why_unreadable
from flowkit.video.decode import probe, read_frames

if TYPE_CHECKING:
    from pathlib import Path


def refusal(path: Path) -> str:
    """Return the message with which `probe` and `read_frames` refuse a file."""
    with pytest.raises(VideoDecodeError) as first:
        probe(path)
    with pytest.raises(VideoDecodeError) as second:
        next(read_frames(path))
    assert str(first.value) == str(second.value)
    assert path.name in str(first.value)
    return str(first.value)


def zip_archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.avi", b"x" * 100)
    return file.getvalue()


def tar_archive() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.avi"), io.BytesIO())
    return file.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1048576\n"
PAGE = b'\n<!DOCTYPE html><html lang="en"><head><title>Google Drive - Virus scan warning</title></head></html>'

NO_VIDEOS = {
    "pointer": ("a.mp4", LFS, "a Git LFS pointer", "run `git lfs pull`"),
    "pointer of old": ("a.mkv", b"version https://hawser.github.com/spec/v1\noid sha256:00", "a Git LFS pointer", "run `git lfs pull`"),
    "annex pointer": ("a.mp4", b"/annex/objects/SHA256E-s10--00.mp4\n", "a git-annex pointer", "run `git annex get`"),
    "page": ("a.mp4", PAGE, "an HTML page", "download the video again"),
    "page with a comment": (
        "a.webm",
        b"<!-- saved from -->\n<HTML><body>Sign in</body></HTML>",
        "an HTML page",
        "download the video again",
    ),
    "page with a mark": ("a.mp4", b"\xef\xbb\xbf<!DOCTYPE html><html>", "an HTML page", "download the video again"),
    "xhtml": ("a.avi", b'<?xml version="1.0"?>\n<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML">', "an HTML page", "download the video again"),
    "xml": ("a.avi", b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>', "XML text", "answer of a web server"),
    "json": ("a.mp4", b'{"message": "Not Found"}', "JSON text", "answer of a web server"),
    "source code": ("index.ts", "export const café = (x: number) => x;\n".encode() * 9, "a text file", "out of the folder of videos"),
    "utf-16": ("a.avi", "﻿Some notes\r\n".encode("utf-16-le"), "a text file", "out of the folder of videos"),
    "playlist": ("a.ts", b"#EXTM3U\n#EXTINF:1,\nb.ts\n", "a playlist or script", "name the videos themselves"),
    "dash": ("a.mp4", b'<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash"/>', "a playlist or script", "name the videos themselves"),
    "webp": ("a.mp4", b"RIFF\x24\0\0\0WEBPVP8X" + bytes(30), "a WebP picture", "convert it"),
    "realmedia": ("a.avi", b".RMF\0\0\0\x12" + bytes(50), "a RealMedia video", "convert it"),
    "wtv": ("a.avi", b"\xb7\xd8\x00\x20\x37\x49\xda\x11\xa6\x4e\x00\x07\xe9\x5e\xad\x8d", "a WTV recording", "convert it"),
    "flash": ("a.flv", b"CWS\x09" + bytes(50), "a Flash (SWF) film", "convert it"),
    "png": ("a.mp4", b"\x89PNG\r\n\x1a\n" + bytes(50), "a picture", "remove it"),
    "heic": ("a.mov", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50), "a picture", "remove it"),
    "avif": ("a.mp4", b"\0\0\0\x18ftypavif\0\0\0\0mif1avif" + bytes(50), "a picture", "remove it"),
    "wave": ("a.avi", b"RIFF\x24\0\0\0WAVEfmt " + bytes(30), "a sound file", "remove it"),
    "zip": ("a.mp4", zip_archive(), "a zip archive", "unpack it"),
    "gzip": ("a.avi", gzip.compress(b"x" * 100), "an archive", "unpack it"),
    "tar": ("a.avi", tar_archive(), "an archive", "unpack it"),
    "pdf": ("a.mp4", b"%PDF-1.4\n%\xe2\xe3", "a PDF document", "remove it"),
    "torrent": ("a.mkv", b"d8:announce30:udp://tracker", "a torrent file", "download what it names"),
    "zeros": ("a.mp4", bytes(5000), "nothing but zero bytes", "get the file again"),
    "empty": ("a.mp4", b"", "is empty (0 bytes)", "copy it again"),
    "unknown": ("a.avi", b"\x01\x02\x03\xff\xfe\xfd" * 100, "It is damaged, or not in a container", "replace it"),
    "unfinished download": ("a.mp4.crdownload", b"\x01\x02\xff\xfe" * 100, "a download in progress", "get the file again"),
}


@pytest.mark.parametrize("kind", NO_VIDEOS)
def test_what_is_no_video_is_called_what_it_is(tmp_path: Path, kind: str) -> None:
    name, data, what, advice = NO_VIDEOS[kind]
    (tmp_path / name).write_bytes(data)
    message = refusal(tmp_path / name)
    assert what in message
    assert advice in message


def test_a_gif_is_called_a_gif_under_any_name(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "anim.gif"), "w") as out:
        stream = out.add_stream("gif", rate=10)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "rgb8"
        for level in (0, 200):
            frame = av.VideoFrame.from_ndarray(np.full((16, 16, 3), level, np.uint8), format="rgb24")
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    (tmp_path / "giphy.mp4").write_bytes((tmp_path / "anim.gif").read_bytes())
    for name in ("anim.gif", "giphy.mp4"):
        assert "is a GIF animation, which flowkit does not read; convert it" in refusal(tmp_path / name)


@needs("libx264")
def test_an_mp4_without_its_index_was_not_finished(tmp_path: Path) -> None:
    path = encode_video(tmp_path / "a.mp4", "libx264", num_frames=10)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moov") - 4])
    assert "an MP4 or MOV file without its index (the moov box)" in refusal(path)


@pytest.mark.parametrize("codec", [pytest.param(codec, marks=needs(codec)) for codec in ("libx264", "libvpx-vp9", "libsvtav1", "mpeg4")])
def test_an_encrypted_file_is_not_called_damaged_even_if_a_decoder_makes_pictures_of_it(tmp_path: Path, codec: str) -> None:
    key = {
        "encryption_scheme": "cenc-aes-ctr",
        "encryption_key": "76a6c65c5ea762046bd749a2e632ccbb",
        "encryption_kid": "a7e61c373e219033" * 2,
    }
    path = encode_video(tmp_path / "cenc.mp4", codec, container_options=key)
    assert b"encv" in path.read_bytes()
    assert "is encrypted, so its pictures cannot be decoded" in refusal(path)


def test_encryption_is_recognised_in_other_containers(tmp_path: Path) -> None:
    scrambled = b"".join(struct.pack(">BHB", 0x47, 0x100, 0x90 | k % 16) + bytes([k]) * 184 for k in range(40))
    clear = b"".join(struct.pack(">BHB", 0x47, 0x100, 0x10 | k % 16) + bytes([k]) * 184 for k in range(40))
    matroska = b"\x1a\x45\xdf\xa3" + bytes(40) + b"\x6d\x80\x90\x62\x40\x8d\x50\x35\x85\x47\xe1\x81\x05" + bytes(9)
    wmv = b"\x30\x26\xb2\x75\x8e\x66\xcf\x11" + bytes(30) + bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e")
    for name, data, expected in (("a.ts", scrambled, True), ("b.ts", clear, False), ("a.mkv", matroska, True), ("a.wmv", wmv, True)):
        (tmp_path / name).write_bytes(data)
        assert ("is encrypted" in str(why_unreadable(tmp_path / name))) == expected


def test_nothing_is_said_of_the_bytes_of_a_video(tmp_path: Path) -> None:
    for suffix in (".avi", ".mkv", ".nut"):
        assert why_unreadable(write_video(tmp_path / f"a{suffix}", 2)) is None


@pytest.mark.parametrize(
    ("name", "expected"), [("anim.gif", "a GIF animation"), ("giphy.mp4", "a GIF animation"), ("lfs.mp4", "run `git lfs pull`")]
)
def test_given_files_that_are_no_videos_are_called_what_they_are(shared_cases: Path, name: str, expected: str) -> None:
    assert expected in refusal(shared_cases / "video" / name)
