"""What the pages show works as it is written: code blocks run, and JSON has the keys that are listed."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner
from dagnn_files import BOTH_MEANS, FLOW_MEAN, RGB_MEAN, resnet, stored, two_streams
from matlab_files import write_v5
from pages import Block, blocks_of, check_marks, run_line, run_page
from small_videos import write_video

from flowkit.cli.main import COMMANDS
from flowkit.cli.main import flowkit as command
from flowkit.model.foreign.class_lists import CLASS_LISTS

DOCS = Path(__file__).resolve().parents[1] / "docs"
README = DOCS.parent / "README.md"


DOCUMENTS = sorted([*DOCS.glob("*.md"), *(DOCS / "systems").glob("*.md")])
PAGES = [README, DOCS.parent / "CONTRIBUTING.md", *(page for page in DOCUMENTS if page.name != "commands.md")]
OWN_TEST = {"tutorial.md"}  # tests/test_tutorial.py runs it, in a folder of its own
PAGES_WITH_CODE = [
    page for page in PAGES if page.name not in OWN_TEST and any(block.is_code and not block.not_run for block in blocks_of(page))
]
NUM_NOT_RUN = 45
SLOW_PAGES = {
    "ablations.md",
    "features.md",
    "fine-tuning.md",
    "reproducing.md",
    "training.md",
    "trajectories.md",
    "using-a-model.md",
    "README.md",
}
# What the reader of a page has already.
GIVEN: dict[str, dict[str, Any]] = {
    "using-a-model.md": {
        "rgb": np.zeros((1, 3, 3, 32, 32), np.float32),
        "flow": np.zeros((1, 3, 20, 32, 32), np.float32),
        "ids": ["a/1", "b/1"],
        "names": ["a", "b"],
        "scores": np.eye(2),
    }
}
# Every command takes these options from flowkit.toml: pages run as they are written, with tiny networks.
QUICK = """
device = "cpu"
jobs = 1
workers = 0
short_side = 36
base_width = 4
input_size = 32
batch = 4
bn_group = 2
steps_per_phase = 1
components = 2
"""


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a reader has followed the README's first lines, with what else the pages take for granted. Read-only."""
    folder = tmp_path_factory.mktemp("workshop")
    for label, name in enumerate(("Archery", "Biking")):
        for group in range(1, 5):
            write_video(folder / "videos" / name / f"v_{name}_g{group:02d}_c01.avi", 16 + group, seed=10 * label + group)
    write_video(folder / "clips" / "walk.mkv", 14, seed=99)
    shutil.copy(folder / "clips" / "walk.mkv", folder / "holiday.mp4")  # decoders look at the content
    (folder / "flowkit.toml").write_text(QUICK)
    ids = sorted(f"{path.parent.name}/{path.stem}" for path in (folder / "videos").rglob("*.avi"))
    (folder / "idt.csv").write_text("video_id,Archery,Biking\n" + "".join(f"{name},0.{k},0.5\n" for k, name in enumerate(ids)))
    first = blocks_of(README)[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for line in first.code.splitlines():
            if not line.startswith("pip install"):
                run_line(line, first)
    for path in (folder / "flowkit-data/shards/shard-00000.h5", folder / "flowkit-data/runs/default/split1/st-resnet-star"):
        (folder / path.name).symlink_to(path)
    return folder


def add_ucf101(folder: Path) -> None:
    """Add videos, lists and trained networks under the names that UCF101 and the authors' files have: few, small and generated."""
    classes = CLASS_LISTS["ucf101"]
    lists = folder / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("".join(f"{number} {name}\n" for number, name in enumerate(classes, 1)))
    (folder / "UCF-101").symlink_to(folder / "videos")
    names = [path.relative_to(folder / "videos").as_posix() for path in sorted((folder / "videos").rglob("*.avi"))]
    train = [f"{name} {classes.index(name.split('/')[0]) + 1}\n" for name in names if "_g01_" not in name]
    for split in (1, 2, 3):
        (lists / f"trainlist0{split}.txt").write_text("".join(train))
        (lists / f"testlist0{split}.txt").write_text("".join(f"{name}\n" for name in names if "_g01_" in name))
    colour, motion, both = (mean.reshape(1, 1, -1) for mean in (RGB_MEAN, FLOW_MEAN, BOTH_MEANS))
    networks = {
        "ucf101-img-resnet50-split1-dr0": (resnet(3, seed=1, num_classes=len(classes)), colour),
        "ucf101-resnet50-split1-dr0.8": (resnet(20, seed=2, num_classes=len(classes), dropout=0.8), motion),
        "ucf101-ST-ResNet50-split=1": (two_streams("st-resnet", num_classes=len(classes)), both),
        "ucf101ST-ResNet50-final-split=1": (two_streams("st-resnet-star", num_classes=len(classes)), both),
    }
    for name, (graph, mean) in networks.items():
        write_v5(folder / f"{name}.mat", {"net": stored(graph, mean)})


def is_script(block: Block) -> bool:
    """Whether a block is a program with arguments, which a test of its own runs."""
    return "sys.argv" in block.code


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=pytest.mark.slow) if page.name in SLOW_PAGES else page for page in PAGES_WITH_CODE],
    ids=lambda page: page.name,
)
def test_the_code_of_a_page_runs_as_it_is_written(workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: Path) -> None:
    folder = Path(shutil.copytree(workshop, tmp_path / "workshop", symlinks=True))
    monkeypatch.chdir(folder)
    if page.name == "reproducing.md":
        add_ucf101(folder)
    first = blocks_of(README)[0]
    run_page(page, GIVEN.get(page.name, {}), is_run=lambda block: not is_script(block) and block != first)


def test_code_that_is_not_run_gives_a_reason_and_is_counted() -> None:
    blocks = [block for page in PAGES for block in blocks_of(page)]
    for block in blocks:
        check_marks(block)
    assert sum(bool(block.not_run) for block in blocks) == NUM_NOT_RUN


def lines_that_are_not_run() -> list[str]:
    """Return flowkit's command lines in blocks that are not run."""
    code = [block.code for page in PAGES for block in blocks_of(page) if block.not_run]
    lines = [line.removeprefix("srun ") for text in code for line in text.splitlines()]
    return [line for line in lines if line.startswith("flowkit ")]


@pytest.mark.parametrize("line", lines_that_are_not_run())
def test_a_line_that_is_not_run_has_options_and_values_that_exist(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")  # for --shard auto
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "8")
    name, *arguments = [word.removeprefix("/") for word in shlex.split(line, comments=True)[1:]]
    for path in [Path(word) for word in arguments if re.fullmatch(r"[A-Za-z][\w./-]*", word)]:  # perhaps one that the reader has
        if path.suffix:
            path.touch()
        else:
            path.mkdir(parents=True, exist_ok=True)
    with click.Context(command) as parent:
        found = command.get_command(parent, name)
        assert found is not None, line
        found.make_context(name, arguments, parent=parent)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("```python\n1 / 0\n```\n", "division by zero"),
        ("```sh\nflowkit pack --no-such-option\n```\n", "No such option"),
        ("```sh\nls\n```\n", "only lines of flowkit"),
        ("```python\nprint(1)\n```\n\n<!-- output -->\n```\n2\n```\n", "page.md:8"),
        ("```\nflowkit pack\n```\n", "of no language"),
        ("<!-- not run: -->\n```sh\nflowkit pack\n```\n", "without a reason"),
        ("<!-- output -->\n```\n2\n```\n", "not run"),
    ],
)
def test_a_page_that_is_wrong_is_found(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "page.md").write_text("A page.\n\n" + text)
    with pytest.raises((AssertionError, ZeroDivisionError), match=complaint):
        run_page(tmp_path / "page.md", {})


def test_output_is_compared_without_what_differs_from_run_to_run(tmp_path: Path) -> None:
    shown = "flowkit 0.1.0, 12 videos in 3.4 s, in /home/me/data\n\n"
    (tmp_path / "page.md").write_text(
        f"```python\nprint('flowkit 0.2.0.dev1,  12 videos in 10 min, in /tmp/x/y')\n```\n\n<!-- output -->\n```\n{shown}```\n"
    )
    run_page(tmp_path / "page.md", {})


def test_the_readme_links_to_the_index_and_lists_every_command() -> None:
    text = README.read_text(encoding="utf-8")
    assert "](docs/README.md)" in text
    listed = "".join(line.split("|")[1] for line in text.splitlines() if line.startswith("| `flowkit"))
    assert set(re.findall(r"`(?:flowkit )?([a-z]+)", listed)) == set(COMMANDS)


@pytest.mark.parametrize(("method", "num_workers"), [("fork", 8), pytest.param("spawn", 2, marks=pytest.mark.slow)])
def test_the_data_loader_of_the_page_reads_in_workers(packed_root: Path, tmp_path: Path, method: str, num_workers: int) -> None:
    """Eight spawned ones work too; each imports torch, which takes long."""
    (script,) = filter(is_script, blocks_of(DOCS / "reading.md"))
    (tmp_path / "recipe.py").write_text(script.code.replace("num_workers=8", f"num_workers={num_workers}"))
    line = [sys.executable, "-W", "error", "-W", "ignore:This DataLoader will create", "recipe.py", str(packed_root), method]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(" [")[0] for line in lines] == [f"{epoch} (4, 20, 32, 32) (4, 3, 32, 32)" for epoch in (0, 1) for _ in range(3)]
    for epoch in ("0", "1"):
        labels = [label for line in lines if line.startswith(epoch) for label in json.loads("[" + line.split(" [")[1])]
        assert sorted(labels) == sorted([*range(6)] * 2)


def test_json_has_the_keys_that_the_page_lists(packed_root: Path, tmp_path: Path) -> None:
    table = (DOCS / "data-tools.md").read_text(encoding="utf-8").split("## Output for programs")[1]
    rows = [re.findall(r"`([^`]*)`", line) for line in table.splitlines() if line.startswith("| `")]
    listed = {name: (format_name, keys) for name, format_name, *keys in rows}
    shard, video_id = packed_root / "shards" / "shard-00000.h5", "colour0-motion0/v00"
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "x.avi").write_text("no video")
    extract = ["extract", tmp_path / "videos", "--data", tmp_path / "data", "--device", "cpu", "--jobs", "1"]
    one = ["inspect", video_id, "--data", packed_root, "--output", tmp_path, "--animation", "none"]
    gallery = ["inspect", "--gallery", "--data", packed_root, "--output", tmp_path / "gallery", "--jobs", "1"]
    lines = {
        "extract": extract,
        "extract --dry-run": [*extract, "--dry-run"],
        "doctor": ["doctor"],
        "doctor --plan": ["doctor", "--plan", "340x256", "--card", "H200"],
        "info": ["info", "--data", packed_root],
        "info FILE": ["info", shard],
        "stats": ["stats", "--data", packed_root],
        "verify": ["verify", shard],
        "inspect": one,
        "inspect --trajectories": [*one, "--trajectories"],
        "inspect --gallery": gallery,
        "inspect --gallery --dry-run": [*gallery, "--dry-run"],
    }
    assert {*lines, "import"} == set(listed)
    for name, line in lines.items():
        result = CliRunner().invoke(command, [*map(str, line), "--json"], standalone_mode=False)
        printed = json.loads(result.stdout)
        assert (printed.pop("format"), [*printed]) == (listed[name][0], ["format_version", *listed[name][1]])
