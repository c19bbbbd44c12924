"""Small videos in any codec and container, and copies of them with packets removed, added or changed."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path


def needs(*codecs: str) -> pytest.MarkDecorator:
    """Skip a test where this PyAV cannot encode with one of the codecs."""
    missing = [codec for codec in codecs if codec not in av.codecs_available]
    return pytest.mark.skipif(bool(missing), reason=f"this PyAV cannot encode with {', '.join(missing)}")


def encode_video(
    path: Path,
    codec: str,
    *,
    num_frames: int = 40,
    size: tuple[int, int] = (64, 48),
    pixels: str = "yuv420p",
    rate: int = 25,
    options: dict[str, str] | None = None,
    pts: list[int] | None = None,
    container: str | None = None,
    container_options: dict[str, str] | None = None,
    interlaced: bool = False,
    sound_seconds: float = 0,
) -> Path:
    """Write a drifting texture, whose frames all differ, and optionally a sound beside it."""
    width, height = size
    noise = np.random.default_rng(0).integers(0, 256, (height + 60, width + 60, 3), dtype=np.uint8)
    texture = cv2.GaussianBlur(noise, (0, 0), 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format=container, options=container_options or {}) as out:
        stream: Any = out.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt, stream.options = width, height, pixels, options or {}
        if interlaced:
            stream.codec_context.flags |= 1 << 18 | 1 << 29  # interlaced DCT and motion estimation
        sound = out.add_stream("pcm_s16le" if path.suffix == ".avi" else "libopus", rate=48000, layout="mono") if sound_seconds else None
        for k in range(num_frames):
            window = np.ascontiguousarray(texture[k % 60 : k % 60 + height, 2 * k % 60 : 2 * k % 60 + width], np.uint8)
            frame = VideoReformatter().reformat(av.VideoFrame.from_ndarray(window, format="rgb24"), format=pixels, threads=1)
            frame.pts, frame.time_base = (k if pts is None else pts[k]), Fraction(1, rate)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
        if sound is not None:
            for start in range(0, int(48000 * sound_seconds), 960):
                samples = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.int16), format="s16", layout="mono")
                samples.rate, samples.pts, samples.time_base = 48000, start, Fraction(1, 48000)
                out.mux(sound.encode(samples))
            out.mux(sound.encode())
    return path


def copy_video(
    source: Path, path: Path, *, lost: Iterable[int] = (), change: Callable[[int, bytes], bytes | None] = lambda _, data: data
) -> Path:
    """Copy a video's packets without those that were lost, and with the bytes that `change` returns of each: None keeps them."""
    gone = frozenset(lost)
    with av.open(str(source)) as container, av.open(str(path), "w") as out:
        stream = container.streams.video[0]
        copy = out.add_stream_from_template(stream)
        packets = [packet for packet in container.demux(stream) if packet.size]
        for number, packet in enumerate(packets):
            if number in gone:
                continue
            data = bytes(packet)
            changed = change(number, data)
            new: Any = packet
            if changed is not None and changed != data:
                new = av.Packet(changed)
                new.pts, new.dts, new.duration, new.time_base = packet.pts, packet.dts, packet.duration, packet.time_base
                new.is_keyframe = packet.is_keyframe
            new.stream = copy
            out.mux(new)
    return path


def truncate(path: Path, share: float) -> Path:
    """Cut a file off after a share of its bytes."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path
