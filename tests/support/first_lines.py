"""Environments in which every process of Python runs some lines before anything else, by means of `sitecustomize.py` and PYTHONPATH."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def environment_with(folder: Path, lines: str) -> dict[str, str]:
    """Write the lines into a folder, which is made if it is missing, and return an environment in which they run."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(lines)
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH", "")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
