"""The digests of a run: ``digests.json`` in a phase's folder, the SHA-256 of its finished files, written last and tested by verify."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flowkit.errors import CheckpointError
from flowkit.files import file_sha256, write_atomically
from flowkit.records import RecordFormat, is_sha256

DIGESTS_NAME = "digests.json"
PHASE_FILES = ("config.json", "metrics.jsonl", "videos.json", "checkpoint.pt", "weights.safetensors")

_MAY_BE_DELETED = ("checkpoint.pt",)  # needed by nothing once the phase has its weights

RunState = Literal["intact", "damaged", "no digests", "in training"]

_DIGESTS = RecordFormat(
    "flowkit-digests", 1, CheckpointError, "train the phase again, or delete this file if its weights are known to be good"
)
_MAX_DEPTH = 4  # from a folder of runs to a phase: <run>/split<n>/<phase>; from a data root: runs/<run>/split<n>/<phase>


@dataclass(frozen=True)
class VerifiedRun:
    """What verifying one phase of a run found.

    Parameters
    ----------
    path : Path
        The folder of the phase.
    state : {"intact", "damaged", "no digests", "in training"}
        ``no digests``: the phase has its weights, but nothing to test them against, as in runs of earlier versions of flowkit.
    faults : tuple of (Path, str)
        The damaged files, and what is wrong with each.
    """

    path: Path
    state: RunState
    faults: tuple[tuple[Path, str], ...] = ()


def write_digests(folder: Path) -> None:
    """Write the SHA-256 of a phase's files, which are finished."""
    files = {name: file_sha256(folder / name) for name in PHASE_FILES if (folder / name).is_file()}
    write_atomically(folder / DIGESTS_NAME, json.dumps({**_DIGESTS.header, "files": files}, indent=1) + "\n")


def read_digests(folder: Path) -> dict[str, str] | None:
    """Return the SHA-256 by file name that a phase's folder records; None if it records none.

    Raises
    ------
    CheckpointError
        If the record is damaged.
    """
    path = folder / DIGESTS_NAME
    record = _DIGESTS.read_if_present(path)
    if record is None:
        return None
    files = record.get("files")
    if not isinstance(files, dict) or not set(files) <= set(PHASE_FILES) or not all(map(is_sha256, files.values())):
        raise CheckpointError(f"{path} must give the SHA-256 of a phase's files by their names; {_DIGESTS.remedy}")
    return files


def check_digest(path: Path) -> None:
    """Check a file of a phase against the digests in its folder, if these name it.

    Raises
    ------
    CheckpointError
        If the file is not the one that training wrote, or the record of digests is damaged.
    """
    digests = read_digests(path.parent) or {}
    if path.name in digests and file_sha256(path) != digests[path.name]:
        raise CheckpointError(
            f"it is damaged: its SHA-256 is not the one that {DIGESTS_NAME} gives; "
            "copy the run again from a good copy, or train the phase again"
        )


def find_phases(folder: Path) -> list[Path]:
    """Return the folders of phases at and below a folder, as far below as they lie in a data root; links are not followed."""
    found = []
    for path, subfolders, files in os.walk(folder):
        depth = len(Path(path).relative_to(folder).parts)
        if "config.json" in files or "weights.safetensors" in files:
            found.append(Path(path))
            subfolders.clear()
        subfolders[:] = sorted(name for name in subfolders if not name.startswith(".")) if depth < _MAX_DEPTH else []
    return sorted(found)


def verify_phase(folder: Path) -> VerifiedRun:
    """Test the digests of one phase."""
    try:
        digests = read_digests(folder)
    except CheckpointError as error:
        return VerifiedRun(folder, "damaged", ((folder / DIGESTS_NAME, str(error)),))
    if digests is None:
        return VerifiedRun(folder, "no digests" if (folder / "weights.safetensors").exists() else "in training")
    faults = tuple(_faults(folder, digests))
    return VerifiedRun(folder, "damaged" if faults else "intact", faults)


def _faults(folder: Path, digests: dict[str, str]) -> list[tuple[Path, str]]:
    faults = []
    for name, sha256 in digests.items():
        path, fault = folder / name, ""
        try:
            if not stat.S_ISREG(path.stat().st_mode) or file_sha256(path) != sha256:
                fault = f"is not the file that training wrote (its SHA-256 differs from {DIGESTS_NAME})"
        except FileNotFoundError:
            fault = "" if name in _MAY_BE_DELETED else "is missing"
        except OSError as error:
            fault = f"cannot be read: {error.strerror}"
        if fault:
            faults.append((path, f"{fault}; copy the run again from a good copy, or train the phase again"))
    return faults
