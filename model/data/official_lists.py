"""Whether a split is one of the official splits of UCF101 or HMDB51, for which the official schedule was made."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from flowkit.dataset.manifest import Split

# By the name under which a split records its official lists.
CLASSES_SHA256 = {
    "ucf101": "01e7e1408d08ad15372e4042fab008938a1eebc76f9a4044babc82a0697cd45c",
    "hmdb51": "154ef596b60371212a4963ee5f33996f926eb53ca8e44fa2499c8267f9db561e",
}


def classes_sha256(classes: Sequence[str]) -> str:
    """Return the SHA-256 of class names, sorted, one per line."""
    return hashlib.sha256("\n".join(sorted(classes)).encode("utf-8", "backslashreplace")).hexdigest()


def is_official_list(split: Split) -> bool:
    """Return whether a split was packed from the official lists of UCF101 or HMDB51 with all of their classes."""
    return CLASSES_SHA256.get(split.protocol) == classes_sha256(split.classes)
