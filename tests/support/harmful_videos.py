"""Videos that do harm when a process with the environment of `environment` opens them.

The name of a video says what it does: ``crash`` kills the process as a bug of the decoder does, ``hang`` never returns, ``stuck``
does not even let other threads run (a file ``STUCK`` in the folder of `environment` then says that it has begun), and ``large`` uses
1 GB of memory and never returns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from first_lines import environment_with
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
    if name.startswith("large"):
        memory = b"x" * (1 << 30)
    while name.startswith(("hang", "large")):
        time.sleep(0.1)
    if name.startswith("stuck"):
        open(os.path.join(os.path.dirname(__file__), "STUCK"), "w").close()
        re.match("(a+)+$", 40 * "a" + "b")  # for hours, without letting other threads run
    return good(file, *arguments, **options)

av.open = bad
"""


def environment(folder: Path) -> dict[str, str]:
    """Return an environment in which the videos do their harm; its lines are written into a folder."""
    return environment_with(folder, _CUSTOM)


def write_videos(folder: Path, num_good: int, *bad: str) -> None:
    """Write good videos, and bad ones that are larger, so that they come first and are divided."""
    for k in range(num_good):
        write_video(folder / "c" / f"good{k}.avi", 4 + k % 3, seed=k)
    for k, name in enumerate(bad):
        write_video(folder / "c" / f"{name}.avi", 60, seed=k)
