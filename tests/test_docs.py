"""What the pages show works as it is written: code blocks run, and JSON has the keys that are listed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from small_videos import write_video

from flowkit.cli.main import COMMANDS
from flowkit.cli.main import flowkit as command

DOCS = Path(__file__).resolve().parents[1] / "docs"


README = DOCS.parent / "README.md"


def code_blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), flags=re.DOTALL)


def run(code: Path, *arguments: object, folder: Path) -> str:
    line = [sys.executable, "-W", "error", "-W", "ignore:This DataLoader will create", str(code), *map(str, arguments)]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("page", ["format.md", "reading.md"])
def test_the_first_example_of_a_page_runs_as_it_is_written(packed_root: Path, tmp_path: Path, page: str) -> None:
    (tmp_path / "flowkit-data").symlink_to(packed_root)
    (tmp_path / "shard-00000.h5").symlink_to(packed_root / "shards" / "shard-00000.h5")
    (tmp_path / "example.py").write_text(code_blocks(page)[0] + "\nassert frame.shape[1:] == (56, 3)\n" * (page == "format.md"))
    run(tmp_path / "example.py", folder=tmp_path)


def test_the_readme_s_example_runs(packed_root: Path, tmp_path: Path) -> None:
    """With a clip of the data at hand in place of UCF101's."""
    (tmp_path / "flowkit-data").symlink_to(packed_root)
    write_video(tmp_path / "videos" / "Archery" / "v_Archery_g01_c01.avi", 3)
    example = code_blocks("../README.md")[0].replace('shard.clip("Archery/v_Archery_g01_c01")', 'shard.clip("colour0-motion0/v00")')
    checks = "assert (flow.shape[0], frames.shape[0], stack.shape[:2]) == (2, 3, (10, 2))\n"
    (tmp_path / "example.py").write_text(example + checks)
    run(tmp_path / "example.py", folder=tmp_path)


def test_the_readme_links_to_the_index_and_lists_every_command() -> None:
    text = README.read_text(encoding="utf-8")
    assert "](docs/README.md)" in text
    listed = "".join(line.split("|")[1] for line in text.splitlines() if line.startswith("| `flowkit"))
    assert set(re.findall(r"`(?:flowkit )?([a-z]+)", listed)) == set(COMMANDS)


@pytest.mark.parametrize(("method", "num_workers"), [("fork", 8), pytest.param("spawn", 2, marks=pytest.mark.slow)])
def test_the_data_loader_of_the_page_reads_in_workers(packed_root: Path, tmp_path: Path, method: str, num_workers: int) -> None:
    """Eight spawned ones work too; each imports torch, which takes long."""
    (tmp_path / "recipe.py").write_text(code_blocks("reading.md")[1].replace("num_workers=8", f"num_workers={num_workers}"))
    lines = run(tmp_path / "recipe.py", packed_root, method, folder=tmp_path).splitlines()
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
    lines = {
        "extract": extract,
        "extract --dry-run": [*extract, "--dry-run"],
        "doctor": ["doctor"],
        "info": ["info", "--data", packed_root],
        "info FILE": ["info", shard],
        "stats": ["stats", "--data", packed_root],
        "verify": ["verify", shard],
        "inspect": ["inspect", video_id, "--data", packed_root, "--output", tmp_path, "--animation", "none"],
    }
    assert {*lines, "import"} == set(listed)
    for name, line in lines.items():
        result = CliRunner().invoke(command, [*map(str, line), "--json"], standalone_mode=False)
        printed = json.loads(result.stdout)
        assert (printed.pop("format"), [*printed]) == (listed[name][0], ["format_version", *listed[name][1]])
