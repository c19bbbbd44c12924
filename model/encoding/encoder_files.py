"""Files of encoders: written in one step, read as foreign data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flowkit.errors import CheckpointError, ParameterError
from flowkit.model.encoding.encoder import PARTS, DescriptorEncoder, Encoder
from flowkit.model.runs.array_files import ArrayFormat

ENCODER_FORMAT = ArrayFormat("flowkit-encoder", 1, "an encoder", "fit it again with `flowkit features --of idt`")
MAX_TYPES = 64


def save_encoder(path: Path, encoder: Encoder) -> None:
    """Write an encoder as safetensors. The same encoder gives the same bytes.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    ENCODER_FORMAT.write(path, encoder.arrays(), {"types": [one.name for one in encoder.types], "fitted": encoder.provenance})


def load_encoder(path: Path) -> Encoder:
    """Read an encoder.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, of another kind or version, or its numbers are no encoder.
    """
    arrays, record = ENCODER_FORMAT.read(path)
    names, fitted = record.get("types"), record.get("fitted")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(names) > MAX_TYPES:
        raise CheckpointError(f"{path} does not name its types of descriptors; {ENCODER_FORMAT.remedy}")
    if not isinstance(fitted, dict):
        raise CheckpointError(f"{path} does not say what it was fitted to; {ENCODER_FORMAT.remedy}")
    expected = {f"{name}.{part}" for name in names for part in PARTS}
    if arrays.keys() != expected:
        raise CheckpointError(f"{path} must hold {len(expected)} arrays, {', '.join(PARTS)} of each type; {ENCODER_FORMAT.remedy}")
    try:
        return Encoder(tuple(_encoder_of(name, arrays) for name in names), fitted)
    except ParameterError as cause:
        raise CheckpointError(f"{path}: {cause}; {ENCODER_FORMAT.remedy}") from cause


def _encoder_of(name: str, arrays: dict[str, NDArray[np.float64]]) -> DescriptorEncoder:
    try:
        return DescriptorEncoder.of(name, {part: arrays[f"{name}.{part}"] for part in PARTS})
    except ParameterError as cause:
        raise ParameterError(f"{name:.60}: {cause}") from cause
