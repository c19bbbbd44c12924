"""Every command that reads a file answers a hostile one in one line, with exit code 1 or 2: no traceback of a library, no internal error.

Each file of a data root with a trained run is replaced in turn by contents that are too deep, too large, of another type, or not of
its format at all, and by numbers that are none.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from command_lines import run_flowkit
from random_networks import random_checkpoints
from shard_files import make_root

from flowkit.dataset.packing import pack
from flowkit.dataset.root import Dataset
from flowkit.model.runs.checkpoint import save_checkpoint, save_weights
from flowkit.model.runs.run_folder import phase_folder

if TYPE_CHECKING:
    from collections.abc import Callable

DEEP = 100_000
VIDEOS = {f"{name}/v_{name}_g{group:02d}_c01": 12 for name in ("Run", "Jump") for group in range(3)}
PHASE = "runs/default/split1/appearance"


def deep_json(level: int = DEEP) -> bytes:
    return b'{"format": ' + b"[" * level + b"]" * level + b"}"


JSON_CONTENTS: dict[str, bytes] = {
    "nothing": b"",
    "zeros": bytes(1000),
    "deep": deep_json(),
    "fairly deep": deep_json(200),
    "long number": b'{"format_version": ' + b"9" * 10_000 + b"}",
    "another type": b"[1, 2]",
    "NaN": b"NaN",
    "text": b'"a text"',
    "not UTF-8": b'{"\xff\xfe": 1}',
    "half a surrogate": b'{"format": "\\ud800"}',
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data root that has a split and a run of one phase."""
    folder = tmp_path_factory.mktemp("hostile")
    root = make_root(folder, VIDEOS)
    pack(root)
    split = Dataset.open(root).split(1)
    checkpoint = random_checkpoints(split.classes, digest=split.digest, quantiser=split.quantiser.to_dict(), base_width=1)["appearance"]
    phase = phase_folder(root, "default", 1, "appearance")
    phase.mkdir(parents=True)
    save_weights(phase / "weights.safetensors", checkpoint)
    save_checkpoint(phase / "checkpoint.pt", checkpoint)
    (phase / "config.json").write_text("{}\n")
    (phase / "metrics.jsonl").write_text('{"step": 0, "loss": 1.5}\n')
    return folder


@pytest.fixture
def root(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (found,) = [path.parent for path in made.rglob("dataset.json")]
    shutil.copytree(found, tmp_path / "root")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "root"


def answer(*arguments: object, codes: tuple[int, ...] = (1, 2)) -> str:
    """Run a command; return its one line of error, which is none that flowkit did not expect."""
    ended = run_flowkit(*arguments)
    assert ended.code in codes, ended
    assert "internal error" not in ended.err
    assert "Traceback" not in ended.err
    assert len(ended.err) < 5000
    lines = [line for line in ended.err.splitlines() if line.startswith(("flowkit: error:", "Error:"))]
    assert len(lines) <= 1
    return ended.err


def test_the_same_folder_is_read_before_it_is_made_hostile(root: Path) -> None:
    assert run_flowkit("evaluate", "--data", root, "--device", "cpu", "--no-report").code == 0
    assert run_flowkit("evaluate", "--checkpoint", root / PHASE / "checkpoint.pt", "--data", root, "--device", "cpu").code == 0
    assert run_flowkit("pack", "--data", root).code == 0


@pytest.mark.parametrize("contents", JSON_CONTENTS)
@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("dataset.json", ["info"]),
        ("dataset.json", ["pack"]),
        ("dataset.json", ["train"]),
        ("dataset.json", ["evaluate"]),
        ("splits/split1/split.json", ["train"]),
        ("splits/split1/split.json", ["evaluate"]),
        ("splits/split1/split.json", ["stats", "--split", "1"]),
        ("splits/split1/train.csv", ["train"]),
        ("splits/split1/test.csv", ["evaluate"]),
        ("shards/pack.json", ["pack"]),
        ("shards/shard-00000.h5", ["pack"]),
        ("shards/shard-00000.h5", ["info", "shards/shard-00000.h5"]),
        (f"{PHASE}/digests.json", ["evaluate"]),
        (f"{PHASE}/weights.safetensors", ["evaluate"]),
    ],
)
def test_a_hostile_record_is_one_line(root: Path, name: str, command: list[str], contents: str) -> None:
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_bytes(JSON_CONTENTS[contents])
    at = [root / part if part.startswith("shards/") else part for part in command]
    device = ["--device", "cpu"] if command[0] in ("train", "evaluate") else []
    answer(*at, "--data", root, *device)


@pytest.mark.parametrize("contents", JSON_CONTENTS)
@pytest.mark.parametrize("name", ["results.json", "scores.h5"])
def test_hostile_results_are_one_line(root: Path, name: str, contents: str) -> None:
    folder = root / "reports/default/split1"
    folder.mkdir(parents=True)
    (folder / name).write_bytes(JSON_CONTENTS[contents])
    answer("evaluate", "--redraw", "--data", root)
    answer("fuse", folder / "scores.h5", "--data", root)


@pytest.mark.parametrize("contents", JSON_CONTENTS)
@pytest.mark.parametrize("suffix", [".csv", ".npz", ".h5"])
def test_hostile_scores_are_one_line(root: Path, suffix: str, contents: str) -> None:
    path = Path("scores" + suffix)
    path.write_bytes(JSON_CONTENTS[contents])
    answer("fuse", path, "--data", root)


@pytest.mark.parametrize("contents", JSON_CONTENTS)
def test_hostile_lists_are_one_line(root: Path, contents: str) -> None:
    Path("lists.csv").write_bytes(JSON_CONTENTS[contents])
    answer("pack", "--data", root, "--lists", "lists.csv")


@pytest.mark.parametrize("contents", JSON_CONTENTS)
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_hostile_weights_are_one_line(root: Path, suffix: str, contents: str) -> None:
    path = Path("network" + suffix)
    path.write_bytes(JSON_CONTENTS[contents])
    answer("train", "--phase", "appearance", "--run", "new", "--recipe", "small", "--weights", path, "--data", root, "--device", "cpu")
    answer("evaluate", "--checkpoint", path, "--data", root, "--device", "cpu")


def _metadata(**changes: str) -> bytes:
    header = {"__metadata__": {"format": "flowkit-weights", "format_version": "1", "step": "1", **changes}}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "data",
    [
        _metadata(provenance=deep_json().decode()),
        _metadata(provenance=deep_json(200).decode()),
        _metadata(provenance="NaN"),
        _metadata(provenance="9" * 10_000),
        _metadata(provenance='{"config": NaN, "classes": [1e400], "split": 1, "protocol": "", "digest": "", "started_from": {}}'),
        (1 << 62).to_bytes(8, "little") + b"{}",
        (90_000_000).to_bytes(8, "little") + b"{" * 100,
        (DEEP * 2).to_bytes(8, "little") + b"[" * DEEP + b"]" * DEEP,
    ],
    ids=["deep", "fairly deep", "NaN", "long number", "wrong types", "huge header", "short header", "deep header"],
)
def test_a_hostile_header_of_weights_is_one_line(root: Path, data: bytes) -> None:
    Path("w.safetensors").write_bytes(data)
    answer("evaluate", "--checkpoint", "w.safetensors", "--data", root, "--device", "cpu")
    answer("train", "--phase", "appearance", "--run", "new", "--weights", "w.safetensors", "--data", root, "--device", "cpu")


def _repacked(archive: bytes, change: Callable[[zipfile.ZipInfo, bytes], tuple[int, bytes]]) -> bytes:
    """Return a zip archive whose entries are written again by other rules."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as before, zipfile.ZipFile(made, "w") as after:
        for entry in before.infolist():
            kind, data = change(entry, before.read(entry))
            after.writestr(entry.filename, data, compress_type=kind)
    return made.getvalue()


@pytest.mark.parametrize("command", ["--weights", "--checkpoint"])
def test_a_zip_bomb_is_refused_before_it_is_unpacked(root: Path, command: str) -> None:
    import resource

    stored = (root / PHASE / "checkpoint.pt").read_bytes()
    bomb = _repacked(stored, lambda entry, data: (zipfile.ZIP_DEFLATED, bytes(300 << 20) if entry.filename.endswith("/data/0") else data))
    assert len(bomb) < 2 << 20
    Path("bomb.pt").write_bytes(bomb)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    common = ["--data", root, "--device", "cpu"]
    if command == "--weights":
        said = answer("train", "--phase", "appearance", "--run", "new", "--recipe", "small", "--weights", "bomb.pt", *common)
    else:
        said = answer("evaluate", "--checkpoint", "bomb.pt", *common)
    assert "compressed" in said
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10  # KiB


def test_a_tensor_that_claims_more_than_its_file_holds_is_refused(root: Path) -> None:
    import torch

    torch.save({"conv1.weight": torch.zeros(1).expand(1 << 20, 1 << 20)}, "wide.pt")
    said = answer(
        "train", "--phase", "appearance", "--run", "new", "--recipe", "small", "--weights", "wide.pt", "--data", root, "--device", "cpu"
    )
    assert "claim" in said


def test_a_provenance_that_is_nested_deeply_in_a_checkpoint_is_refused(root: Path) -> None:
    import torch

    values: Any = torch.load(root / PHASE / "checkpoint.pt", weights_only=True)
    nested: dict[str, Any] = {}
    for _ in range(300):
        nested = {"a": nested}
    torch.save({**values, "provenance": {**values["provenance"], "extraction": nested}}, "deep.pt")
    assert "nested" in answer("evaluate", "--checkpoint", "deep.pt", "--data", root, "--device", "cpu")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scores_that_are_no_numbers_are_one_line(root: Path, value: float) -> None:
    np.savez("scores.npz", video_ids=np.array(["Run/v_Run_g00_c01"]), classes=np.array(["Run", "Jump"]), scores=np.array([[value, 1.0]]))
    answer("fuse", "scores.npz", "--data", root)


def test_a_setting_that_is_nested_deeply_is_one_line(root: Path) -> None:
    answer("train", "--data", root, "--device", "cpu", "--set", "batch=" + "[" * 3000)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipes in folders")
@pytest.mark.parametrize("name", ["dataset.json", "splits/split1/split.json", f"{PHASE}/weights.safetensors", f"{PHASE}/digests.json"])
def test_a_pipe_in_a_files_place_is_not_waited_for(root: Path, name: str) -> None:
    (root / name).unlink(missing_ok=True)
    os.mkfifo(root / name)
    answer("evaluate", "--data", root, "--device", "cpu")


@pytest.mark.parametrize("contents", JSON_CONTENTS)
def test_hostile_lines_of_metrics_and_of_the_index_stop_nothing(root: Path, contents: str) -> None:
    from flowkit.extraction.results import read_index
    from flowkit.model.report.curves import read_curves
    from flowkit.model.systems.configs import make_configs

    (root / PHASE / "metrics.jsonl").write_bytes(JSON_CONTENTS[contents] + b"\n")
    (root / "clips/.index").mkdir(parents=True, exist_ok=True)
    (root / "clips/.index/a-1.jsonl").write_bytes(JSON_CONTENTS[contents] + b"\n")
    read_index(root)
    read_curves(root / PHASE / "metrics.jsonl", make_configs("small", num_classes=6, num_videos=12, short_side=64)["appearance"])
