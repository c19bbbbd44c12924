"""The example of docs/systems/adding-a-system.md: three files and three lines in tables make a system that all commands know."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "systems" / "adding-a-system.md"
MOST_LINES = 100
LINES = {  # file -> what stands there, and what the system adds to it
    "model/settings/network_kinds.py": (
        "C3DConfig, SequenceConfig)",
        "C3DConfig, SequenceConfig, PlainConfig)",
        "settings.plain",
        "PlainConfig",
    ),
    "model/networks/phase_networks.py": (
        "    C3DConfig: C3DFamily(),\n",
        "    C3DConfig: C3DFamily(),\n    PlainConfig: PlainFamily(),\n",
        "networks.plain",
        "PlainFamily",
    ),
    "model/systems/registry.py": ("    C3D_IDT,\n", "    C3D_IDT,\n    PLAIN,\n", "systems.plain", "PLAIN"),
}


def example_files() -> dict[str, str]:
    """Return the files of the page, by their names."""
    blocks = re.findall(r"```python\n# (\S+)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return dict(blocks)


@pytest.fixture(scope="module")
def with_plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of flowkit to which the files of the page are added."""
    folder = tmp_path_factory.mktemp("copy")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "flowkit", folder / "flowkit", ignore=ignored)
    for name in ("model", "cli"):
        shutil.copytree(ROOT / name, folder / "flowkit" / name, ignore=ignored)
    for name, text in example_files().items():
        (folder / "flowkit" / name).write_text(text, encoding="utf-8")
    for name, (before, after, module, imported) in LINES.items():
        path = folder / "flowkit" / name
        text = path.read_text(encoding="utf-8")
        assert text.count(before) == 1, name
        imports = f"from flowkit.model.{module} import {imported}\n"
        if imported == "PlainFamily":
            imports += "from flowkit.model.settings.plain import PlainConfig\n"
        text = text.replace(before, after).replace(
            "from __future__ import annotations\n", f"from __future__ import annotations\n\n{imports}", 1
        )
        path.write_text(text, encoding="utf-8")
    return folder


def run_flowkit(copy: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "flowkit.cli", *map(str, arguments)]
    return subprocess.run(line, cwd=copy, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_the_example_has_fewer_lines_than_the_page_promises() -> None:
    files = example_files()
    assert set(files) == {"model/settings/plain.py", "model/networks/plain.py", "model/systems/plain.py"}
    code = [line for text in files.values() for line in text.splitlines() if line.strip() and not line.startswith(("from ", "import "))]
    assert len(code) < MOST_LINES


def test_the_example_is_trained_tested_verified_and_used_through_the_same_code(with_plain: Path, packed_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(packed_root, root)
    train = ("train", "--data", root, "--system", "plain", "--recipe", "small", "--batch", 4, "--steps-per-phase", 2, "--workers", 0)
    for told in (True, False):  # the second time there is nothing to do
        done = run_flowkit(with_plain, *train)
        assert done.returncode == 0, done.stderr
        assert "plain-appearance" in done.stderr
        assert told or "trained" in done.stderr or "done" in done.stderr
    config = json.loads((root / "runs/default/split1/plain-appearance/config.json").read_text())["config"]
    assert config["network"]["kind"] == "plain"
    assert config["batch"] == 4
    for line in (
        ("evaluate", "--data", root, "--system", "plain", "--workers", 0),
        ("features", "--data", root, "--of", "plain-appearance", "--workers", 0),
        ("convert", "default", tmp_path / "plain.safetensors", "--data", root),
        ("verify", root),
    ):
        done = run_flowkit(with_plain, *line)
        assert done.returncode in (0, 3), f"{line}: {done.stderr}"
    table = (root / "reports/default/split1/table.md").read_text()
    assert "plain frames" in table
    assert "ST-ResNet" not in table
