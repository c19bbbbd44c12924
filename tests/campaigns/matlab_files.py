"""Change MATLAB files of networks at random: each must be refused in one line, or give a network of the same structure.

Usage: ``python tests/campaigns/matlab_files.py [--mutations 500] [--seed 0]``. Prints one line, and ends with status 1 after a failure.

The files are those of the ST-ResNet authors' kinds in MAT versions 5, 7 and 7.3. Hostile files (lying sizes, endless nesting, storage
elsewhere) come on top, and must be refused. `support/matlab_fuzz.py` converts them in processes with limits on memory and time; a
process that ends before its last file has failed with the file that it was converting.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from hostile_matlab import write_hostile_files

PROGRAM = Path(__file__).resolve().parents[1] / "support" / "matlab_fuzz.py"


def outcomes(folder: Path, tasks: list[Any]) -> list[tuple[Any, str, str]]:
    """Convert seeded mutations or files; return each one's name, what was done, and the verdict."""
    found: list[tuple[Any, str, str]] = []
    while len(found) < len(tasks):
        left = tasks[len(found) :]
        arguments = ["file", *left] if isinstance(left[0], str) else [str(left[0]), str(len(left))]
        done = subprocess.run([sys.executable, str(PROGRAM), str(folder), *arguments], capture_output=True, text=True, check=False)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        found += [(begun["task"], begun["done"], ended["verdict"]) for begun, ended in zip(lines[::2], lines[1::2], strict=False)]
        if not lines:
            raise RuntimeError(f"no file could be converted: {done.stderr[-2000:]}")
        if len(lines) % 2:
            found.append((lines[-1]["task"], lines[-1]["done"], f"the process ended with status {done.returncode}: {done.stderr[-500:]}"))
    return found


def main() -> int:
    """Run the campaign and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--mutations", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flowkit-matlab-") as name:
        folder = Path(name)
        hostile = outcomes(folder, [str(path) for path in write_hostile_files(folder / "hostile")])
        mutated = outcomes(folder, list(range(arguments.seed, arguments.seed + arguments.mutations)))
    faults = [f"{task} ({done}): {verdict}" for task, done, verdict in hostile + mutated if verdict not in ("refused", "same")]
    for fault in faults:
        print(fault, file=sys.stderr)
    counts = Counter(verdict for _, _, verdict in mutated)
    print(
        f"MATLAB files: {len(mutated)} mutations, {counts['refused']} refused, {counts['same']} of the same structure; "
        f"{len(hostile)} hostile files; {len(faults)} faults (first seed {arguments.seed})"
    )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
