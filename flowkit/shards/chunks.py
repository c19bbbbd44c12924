"""Flow chunks: encoded as HDF5's filters do it, and decoded with tested checksums and bounded output.

Encoding uses HDF5's own filter pipeline, in a file in memory, so that any HDF5 library can read the result. Decoding
does not: zstd writes straight into the caller's array, which takes two thirds of the time, and HDF5's own checksum function
reads the bytes where they lie (see `flowkit.shards.native`).
"""

from __future__ import annotations

import itertools
import os
import threading
import zlib
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import ShardFormatError
from flowkit.shards.native import fletcher32, native_fletcher32, zstd_decompressor
from flowkit.shards.schema import FILTERS, FLETCHER32_FILTER, GZIP_FILTER, GZIP_LEVEL, ZSTD_FILTER, ZSTD_LEVEL

CHECKSUM_BYTES = 4
NOT_COMPRESSED = 1  # bit of HDF5's filter mask: the first filter was skipped because the chunk would have grown

_PIPELINES = itertools.count()


def flow_creation_list(codec: str, height: int, width: int) -> Any:
    """Return the HDF5 property list of a `flow` data set: chunks of one flow field, and the filters of the codec."""
    from h5py import h5d, h5p, h5z

    if codec == "zstd":
        import hdf5plugin  # noqa: F401 - registers the filter with HDF5
    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_obj_track_times(False)
    properties.set_chunk((1, 2, height, width))
    properties.set_fill_time(h5d.FILL_TIME_NEVER)
    options = {ZSTD_FILTER: (ZSTD_LEVEL,), GZIP_FILTER: (GZIP_LEVEL,), FLETCHER32_FILTER: ()}
    for number in FILTERS[codec]:
        flag = h5z.FLAG_MANDATORY if number == FLETCHER32_FILTER else h5z.FLAG_OPTIONAL
        properties.set_filter(number, flag, options[number])
    return properties


class ChunkPipeline:
    """HDF5's filter pipeline for one codec and size: a data set of a single chunk, in a file in memory.

    Parameters
    ----------
    codec : {"zstd", "gzip", "none"}
        How the chunk is compressed.
    height, width : int, px
        Size of a flow field.
    """

    def __init__(self, codec: str, height: int, width: int) -> None:
        import h5py
        from h5py import h5d, h5s, h5t

        name = f"flowkit-chunk-{next(_PIPELINES)}"  # HDF5 opens only one file of each name in a process, even in memory
        self._file = h5py.File(name, "w", driver="core", backing_store=False, block_size=1 << 18, libver=("v110", "v110"), rdcc_nbytes=0)
        self._all = h5s.ALL
        space = h5s.create_simple((1, 2, height, width))
        self._lock = threading.Lock()  # threads share the only chunk
        self._data_set = h5d.create(self._file.id, b"flow", h5t.STD_U8LE, space, dcpl=flow_creation_list(codec, height, width))

    def encode(self, pair: NDArray[np.uint8]) -> tuple[int, bytes]:
        """Return the filter mask and the bytes of a chunk with a C-contiguous flow field of shape (2, H, W)."""
        with self._lock:
            self._data_set.write(self._all, self._all, pair[None])
            mask, data = self._data_set.read_direct_chunk((0, 0, 0, 0))
        return mask, data

    def decode(self, mask: int, data: bytes, out: NDArray[np.uint8]) -> None:
        """Write the flow field of a chunk into `out`, shape (2, H, W)."""
        try:
            with self._lock:
                self._data_set.write_direct_chunk((0, 0, 0, 0), data, mask)
                self._data_set.read(self._all, self._all, out[None])
        except (OSError, RuntimeError, ValueError) as cause:
            raise ShardFormatError(f"cannot be decompressed ({cause})") from cause

    def close(self) -> None:
        """Free the memory."""
        self._file.close()


def check_chunk(data: bytes) -> None:
    """Raise `ShardFormatError` if the last four bytes of a chunk are not the checksum of the rest."""
    _check_stored(data, np.frombuffer(data, np.uint8).ctypes.data, 0, len(data))


def _check_stored(window: bytes, address: int, start: int, size: int) -> None:
    """Check the chunk at `start` of a window, whose first byte is at `address`."""
    stop = start + size - CHECKSUM_BYTES
    if start < 0 or stop <= start or stop + CHECKSUM_BYTES > len(window):
        raise ShardFormatError("is damaged: it is too short for a checksum")
    native = native_fletcher32()
    checksum = native(address + start, stop - start) if native else fletcher32(memoryview(window)[start:stop])
    if checksum != int.from_bytes(window[stop : stop + CHECKSUM_BYTES], "little"):
        raise ShardFormatError("is damaged: its checksum does not match")


def decode_chunks(codec: str, window: bytes, chunks: Iterable[tuple[int, int, int]], pairs: NDArray[np.uint8], *, first: int = 0) -> None:
    """Test the checksums of chunks and decode their flow fields.

    Parameters
    ----------
    codec : {"zstd", "gzip", "none"}
        How the chunks are compressed.
    window : bytes
        A part of the file.
    chunks : iterable of (int, int, int)
        The start of each chunk in `window`, its size, and HDF5's filter mask (0 or `NOT_COMPRESSED`).
    pairs : uint8 array, shape (n, 2, H, W), C-contiguous
        The array to fill. No more is written than fits, whatever the chunks contain.
    first : int
        The index of the first chunk, for messages.

    Raises
    ------
    ShardFormatError
        If a chunk is damaged or has another size; the message begins with the index of the chunk.
    """
    decompress = zstd_decompressor() if codec == "zstd" else None
    view, source = memoryview(window), np.frombuffer(window, np.uint8).ctypes.data
    target, pair_bytes = pairs.ctypes.data, pairs[:1].nbytes
    for k, (start, size, mask) in enumerate(chunks):
        try:
            _check_stored(window, source, start, size)
            if decompress is not None and not mask:
                decompress(source + start, size - CHECKSUM_BYTES, target + k * pair_bytes, pair_bytes)
                continue
            stored = view[start : start + size - CHECKSUM_BYTES]
            if codec == "none" or mask:
                _copy(stored, pairs[k])
            elif codec == "gzip":
                _inflate(stored, pairs[k])
            else:
                _pipeline(codec, pairs.shape[2], pairs.shape[3], os.getpid()).decode(mask, bytes(view[start : start + size]), pairs[k])
        except ShardFormatError as cause:
            raise ShardFormatError(f"flow chunk {first + k} {cause}") from cause


def _copy(stored: memoryview, out: NDArray[np.uint8]) -> None:
    if len(stored) != out.nbytes:
        raise ShardFormatError(f"has {len(stored)} bytes instead of {out.nbytes}")
    out.reshape(-1)[:] = np.frombuffer(stored, dtype=np.uint8)


def _inflate(stored: memoryview, out: NDArray[np.uint8]) -> None:
    stream = zlib.decompressobj()
    try:
        pixels = stream.decompress(stored, out.nbytes + 1)
    except zlib.error as cause:
        raise ShardFormatError(f"cannot be decompressed ({cause})") from cause
    if len(pixels) != out.nbytes or not stream.eof:
        raise ShardFormatError(f"does not decompress to {out.nbytes} bytes")
    out.reshape(-1)[:] = np.frombuffer(pixels, dtype=np.uint8)


@lru_cache(maxsize=8)
def _pipeline(codec: str, height: int, width: int, process: int) -> ChunkPipeline:
    """Return the pipeline of this process; `process` keeps a forked child from using that of its parent."""
    return ChunkPipeline(codec, height, width)
