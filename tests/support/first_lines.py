"""Environments in which every process of Python runs some lines before anything else, by means of `sitecustomize.py` and PYTHONPATH."""

from __future__ import annotations

import os
from pathlib import Path

# A process that has finished a piece of a long video waits, until there is a file GO in the folder of these lines.
WAITS_WITH_A_PIECE = """
import os, time
replace = os.replace
def replace_and_wait(source, target, **options):
    replace(source, target, **options)
    while str(target).endswith(".flow") and not os.path.exists(os.path.join(os.path.dirname(__file__), "GO")):
        time.sleep(0.02)
os.replace = replace_and_wait
"""
# A process kills itself before its fourth training step.
DIES_BEFORE_ITS_FOURTH_STEP = f"""
import sys
sys.path.append({str(Path(__file__).parent)!r})
from forked_commands import die
die({{"step": 3}})
"""


def environment_with(folder: Path, lines: str) -> dict[str, str]:
    """Write the lines into a folder, which is made if it is missing, and return an environment in which they run."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(lines)
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH", "")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
