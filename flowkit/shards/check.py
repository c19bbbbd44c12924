"""Check one shard or clip file for damage. As a program: each line of its input is a JSON request, each line of output an answer.

`flowkit.shards.verify` runs this program with limits of memory and time, because HDF5 itself has to open files that may have
been made to break it.
"""

from __future__ import annotations

import hashlib
import json
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from flowkit.errors import ShardFormatError
from flowkit.files import file_sha256
from flowkit.shards.chunks import check_chunk, decode_chunks
from flowkit.shards.file_bytes import ShardBytes
from flowkit.shards.jpeg import decode_jpeg, jpeg_size
from flowkit.shards.structure import ChunkRun, JpegRun, ShardStructure, VideoLayout

MAX_MEMORY_BYTES = 4 << 30
_MAX_FAULTS = 20  # per video; a truncated file need not be listed frame by frame


def check_file(path: Path, *, deep: bool, digest: bool) -> dict[str, Any]:
    """Check a file.

    Parameters
    ----------
    path : Path
        The shard or clip file.
    deep : bool
        Also decode every frame and every flow field.
    digest : bool
        Also return the SHA-256 of the file.

    Returns
    -------
    dict
        ``faults``: [video_id, what] of each fault, with an empty video_id if it concerns the whole file. ``videos``: id,
        num_frames, sha256 and settings of each video whose structure is sound. ``sha256``: that of the file, or empty.
    """
    faults: list[tuple[str, str]] = []
    videos: list[dict[str, Any]] = []
    sha256 = ""
    try:
        data = ShardBytes(path)
        if digest:
            sha256 = file_sha256(path)  # of the file that is open: `ShardStructure` refuses a path that leads to another file by then
        with ShardStructure(path, data) as structure:
            video_ids = structure.video_ids()
            for index, video_id in enumerate(video_ids):
                try:
                    layout = structure.layout(index)
                except ShardFormatError as error:
                    faults.append((video_id, _without_path(error, path)))
                    continue
                videos.append(_summary(layout))
                video_faults = _faults(layout, data, deep)
                faults.extend((video_id, fault) for fault, _ in zip(video_faults, range(_MAX_FAULTS), strict=False))
    except ShardFormatError as error:
        faults.append(("", _without_path(error, path)))
    except (OSError, MemoryError) as error:
        faults.append(("", f"cannot be read: {error}"))
    return {"faults": faults, "videos": videos, "sha256": sha256}


def _without_path(error: ShardFormatError, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ")


def _summary(layout: VideoLayout) -> dict[str, Any]:
    attributes = layout.attributes
    return {
        "video_id": attributes.video_id,
        "num_frames": attributes.num_frames,
        "sha256": layout.sha256,
        "settings": layout.settings,
    }


def _faults(layout: VideoLayout, data: ShardBytes, deep: bool) -> Iterator[str]:
    """Yield the faults of the frames and the flow of a video, and that of its digest."""
    yield from _image_faults("frame", layout.frames, data, np.empty((layout.height, layout.width, 3), np.uint8), deep)
    digest = hashlib.sha256(layout.attributes.to_json().encode("utf-8"))
    for array in (layout.frames.offsets.astype("<i8"), layout.frames.crc32.astype("<u4")):
        digest.update(array.tobytes())
    if layout.times is not None:
        digest.update(layout.times.astype("<f8").tobytes())
    flow = layout.flow
    if flow is None:
        pass
    elif isinstance(flow, JpegRun):
        yield from _image_faults("flow image", flow, data, np.empty((layout.height, layout.width), np.uint8), deep)
        for array in (flow.offsets.astype("<i8"), flow.crc32.astype("<u4")):
            digest.update(array.tobytes())
        for k in range(len(flow.crc32)):
            digest.update(flow.read(data, k))
    else:
        yield from _chunk_faults(layout, flow, data, digest, deep)
    if digest.hexdigest() != layout.sha256:
        yield "its sha256 does not match its attributes, offsets, CRCs and flow"


def _image_faults(what: str, run: JpegRun, data: ShardBytes, pixels: np.ndarray[Any, Any], deep: bool) -> Iterator[str]:
    for k, crc32 in enumerate(run.crc32):
        image = run.read(data, k)
        try:
            if zlib.crc32(image) != crc32:
                raise ShardFormatError("is damaged: its CRC does not match")
            if deep:
                decode_jpeg(image, pixels)
            elif jpeg_size(image) != pixels.shape[:2]:
                raise ShardFormatError(f"is not a JPEG of {pixels.shape[1]}x{pixels.shape[0]} px")
        except ShardFormatError as error:
            yield f"{what} {k} {error}"


def _chunk_faults(layout: VideoLayout, run: ChunkRun, data: ShardBytes, digest: Any, deep: bool) -> Iterator[str]:
    pair = np.empty((1, 2, layout.height, layout.width), np.uint8)
    for k, (start, size, mask) in enumerate(zip(run.starts, run.sizes, run.masks, strict=True)):
        chunk = data.read(int(start), int(size))
        digest.update(chunk)
        try:
            if deep:
                decode_chunks(layout.attributes.codec, chunk, [(0, int(size), int(mask))], pair, first=k)
            else:
                check_chunk(chunk)
        except ShardFormatError as error:
            yield str(error) if deep else f"flow chunk {k} {error}"


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Answer requests until the input ends: for {"path", "deep", "digest"}, return what `check_file` returns."""
    _limit_memory()
    for line in sys.stdin:
        request = json.loads(line)
        answer = check_file(Path(request["path"]), deep=request["deep"], digest=request["digest"])
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
