"""Compiled functions that no Python package offers: HDF5's checksum and libzstd, which ctypes finds inside h5py and hdf5plugin.

Both have a slower substitute where a library does not export the function: `fletcher32` in NumPy, and HDF5's own pipeline.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from flowkit.errors import ShardFormatError

_BLOCK_WORDS = 1 << 16  # small enough that the sums below stay exact in float64
_WORD = np.dtype("<u2")
_WEIGHTS = np.stack([np.ones(_BLOCK_WORDS), np.arange(_BLOCK_WORDS, 0, -1)])  # of the two sums


def fletcher32(data: bytes | memoryview) -> int:
    """Return HDF5's Fletcher-32 checksum: two sums, modulo 65535, over big-endian 16-bit words.

    Notes
    -----
    The words are summed as little-endian numbers, without swapping bytes: a swap multiplies a word, and so the sums, by 256
    modulo 65535. Weighted sums replace the running sum: word k of n counts n - k times in the second one.
    """
    words = np.frombuffer(data, _WORD, len(data) // 2)
    first = second = 0
    for start in range(0, len(words), _BLOCK_WORDS):
        block = words[start : start + _BLOCK_WORDS].astype(np.float64)
        plain, weighted = np.einsum("i,ji->j", block, _WEIGHTS[:, _BLOCK_WORDS - len(block) :]).tolist()
        second += len(block) * first + int(weighted)
        first += int(plain)
    if len(data) % 2:  # an odd last byte is the high byte of a word
        first += data[-1]
        second += first
    return _fold(256 * second) << 16 | _fold(256 * first)


def _fold(value: int) -> int:
    """Return a sum modulo 65535 as in one's complement arithmetic: 65535 instead of 0, unless all words were 0."""
    return (value - 1) % 65535 + 1 if value else 0


@lru_cache(maxsize=1)
def native_fletcher32() -> Callable[[int, int], int] | None:
    """Return HDF5's own checksum function of (address, number of bytes), three times as fast; None if HDF5 does not export it."""
    import h5py

    try:
        function = ctypes.CDLL(h5py.h5.__file__).H5_checksum_fletcher32  # also looked up in the libraries to which h5py is linked
    except (OSError, AttributeError):
        return None
    function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_size_t], ctypes.c_uint32
    probe = np.arange(1023, dtype=np.uint32).astype(np.uint8)  # longer than the 360 words that HDF5 sums at once, and with an odd byte
    same: bool = function(probe.ctypes.data, len(probe)) == fletcher32(probe.tobytes())
    return function if same else None


class ZstdDecompressor:
    """Decompresses from memory to memory with a libzstd that ctypes has loaded; each call releases the GIL.

    Raises
    ------
    AttributeError
        If the library does not export the functions of libzstd.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._create, self._free, self._run = library.ZSTD_createDCtx, library.ZSTD_freeDCtx, library.ZSTD_decompressDCtx
        self._create.restype = ctypes.c_void_p
        self._free.argtypes = [ctypes.c_void_p]
        self._run.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t]
        self._run.restype = ctypes.c_size_t
        self._local = threading.local()  # one context per thread: making one for each chunk would cost a quarter of the time

    def __call__(self, source: int, source_bytes: int, target: int, target_bytes: int) -> None:
        """Decompress the bytes at one address to exactly `target_bytes` bytes at another."""
        try:
            context = self._local.context
        except AttributeError:
            context = self._local.context = _Context(self._create(), self._free)
        size = self._run(context.address, target, target_bytes, source, source_bytes)
        if size != target_bytes:  # the code of an error is larger than any size
            raise ShardFormatError(f"does not decompress to {target_bytes} bytes")


class _Context:
    """A context of libzstd, which is freed with its thread."""

    def __init__(self, address: int, free: Any) -> None:
        self.address, self._free = address, free

    def __del__(self) -> None:
        self._free(self.address)


@lru_cache(maxsize=1)
def zstd_decompressor() -> ZstdDecompressor | None:
    """Return a decompressor that uses the libzstd in hdf5plugin; None where that is not exported, so that HDF5 must decompress."""
    import hdf5plugin

    for path in Path(hdf5plugin.PLUGIN_PATH).glob("*h5zstd*"):
        try:
            return ZstdDecompressor(ctypes.CDLL(str(path)))
        except (OSError, AttributeError):
            continue
    return None
