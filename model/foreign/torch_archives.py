"""Files of PyTorch before they are loaded: how much memory they may take, and what their tensors may claim."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from flowkit.errors import CheckpointError

MAX_DIRECTORY_BYTES = 1 << 26
MAX_TENSOR_COPIES = 4  # tensors may share their bytes with others, but not so that a small file fills the memory


def check_archive(path: Path) -> None:
    """Refuse a file of `torch.save` that unpacks to more than it holds.

    PyTorch stores every entry uncompressed, so the entries together are no larger than the file. A file that is no archive, as old
    versions of PyTorch wrote it, is left to the loader.

    Raises
    ------
    CheckpointError
        If an entry is compressed, entries overlap, or the archive's directory is damaged or very long.
    """
    if not zipfile.is_zipfile(path):
        return
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
        if end is None or end[5] > min(MAX_DIRECTORY_BYTES, size):
            raise CheckpointError("damaged: the directory of its archive is too long")
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, UnicodeDecodeError) as cause:
        raise CheckpointError(f"damaged: its archive cannot be read ({cause})") from cause
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise CheckpointError("refused: its entries are compressed, which PyTorch never does, and may fill the memory")
    if sum(entry.file_size for entry in entries) > size:
        raise CheckpointError("refused: its entries are together larger than the file")


def check_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse tensors that are not plain arrays of real numbers, or that claim more bytes than the file holds; see `check_archive`.

    Tensors that claim more than the file holds would fill the memory when they are copied.
    """
    claimed = 0
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
            what = "sparse" if tensor.layout != torch.strided else "quantised" if tensor.is_quantized else "complex"
            raise CheckpointError(f"its tensor {name!r:.100} is {what}; store plain tensors of real numbers")
        claimed += tensor.numel() * tensor.element_size()
    if claimed > MAX_TENSOR_COPIES * path.stat().st_size:
        raise CheckpointError(f"refused: its tensors claim {claimed:,} bytes, far more than the file holds")
