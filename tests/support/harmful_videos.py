"""Videos that do harm when they are opened, by means of a `sitecustomize.py` that every process of Python loads through PYTHONPATH.

The name of a video says what it does: ``crash`` kills the process as a bug of the decoder does, ``hang`` never returns, ``stuck``
does not even let other threads run, and ``large`` uses 1 GB of memory.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from small_videos import write_video

if TYPE_CHECKING:
    from pathlib import Path

_CUSTOM = """
import os, re, signal, sys, time
import av

good = av.open

def bad(file, *arguments, **options):
    name = os.path.basename(str(file))
    if name.startswith("crash"):
        os.kill(os.getpid(), signal.SIGSEGV)
    while name.startswith("hang"):
        time.sleep(0.1)
    if name.startswith("stuck"):
        re.match("(a+)+$", 40 * "a" + "b")  # for hours, without letting other threads run
    if name.startswith("large"):
        memory = b"x" * (1 << 30)
        time.sleep(3)
    return good(file, *arguments, **options)

av.open = bad
"""


def environment(folder: Path) -> dict[str, str]:
    """Write `sitecustomize.py` into a folder and return an environment in which it works."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(_CUSTOM)
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH", "")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def write_videos(folder: Path, num_good: int, *bad: str) -> None:
    """Write good videos, and bad ones that are larger, so that they come first and are divided."""
    for k in range(num_good):
        write_video(folder / "c" / f"good{k}.avi", 4 + k % 3, seed=k)
    for k, name in enumerate(bad):
        write_video(folder / "c" / f"{name}.avi", 60, seed=k)
