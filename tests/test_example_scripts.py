"""The scripts in examples/ run as they are, and leave nothing behind in the working folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
ROWS = r"trained: appearance, motion, st-resnet, st-resnet-star\n(?:[\w* -]+ \d+% of 6 test videos\n){5}"
# What each prints, without arguments.
PRINTED = {
    "flow_of_frames.py": r"v_right_g01_c01\.avi: 80x64\n1\d% of the pixels move, on average by \(1\.\d, -?0\.\d\) px/frame\n(?:.+\n){2}",
    "stacks_in_a_dataloader.py": (
        r"18 videos extracted, .+\n12 videos to train, 6 to test, in classes down, grows, right\n(?:\(4, 20, 64, 80\) .+\n){3}"
    ),
    "train_and_evaluate.py": ROWS,
    "classify_a_video.py": ROWS + r"(?:(?:down|grows|right) +\d+%\n){3}",
}
SUPPORT = {"moving_squares.py"}


def run(name: str, *arguments: object, folder: Path) -> str:
    line = [sys.executable, "-W", "error", str(EXAMPLES / name), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# These train a network; tests/test_docs.py and tests/cli/commands/test_demo.py train one each time.
SLOW = {"train_and_evaluate.py", "classify_a_video.py", "stacks_in_a_dataloader.py"}


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in PRINTED])
def test_an_example_runs_without_arguments(name: str, tmp_path: Path) -> None:
    assert re.fullmatch(PRINTED[name], run(name, folder=tmp_path))
    assert [*tmp_path.iterdir()] == []


def test_every_example_is_run_and_listed() -> None:
    scripts = {path.name for path in EXAMPLES.glob("*.py")}
    assert scripts == {*PRINTED, *SUPPORT}
    assert scripts == set(re.findall(r"\]\((\w+\.py)\)", (EXAMPLES / "README.md").read_text(encoding="utf-8")))
