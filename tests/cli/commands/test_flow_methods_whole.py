"""Real videos with the flow of each method through the whole pipeline: extract, pack, train, evaluate; and nothing is mixed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from command_lines import run_flowkit

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("kept_workers")]

VIDEOS = {
    "BabyCrawling": ("v_BabyCrawling_g18_c06", "v_BabyCrawling_g19_c01"),
    "RopeClimbing": ("v_RopeClimbing_g01_c02", "v_RopeClimbing_g04_c01"),
}
FRAMES = ("--short-side", 128, "--every", 4)
TINY = ("--recipe", "small", "--base-width", 4, "--input-size", 32, "--batch", 2, "--bn-group", 2, "--steps-per-phase", 2)
RAFT = ("--method", "raft", "--method-param", "size=small", "--method-param", "updates=2", "--method-param", "weights=raft.pth")
FLOWS: dict[str, tuple[tuple[str, ...], str]] = {
    "farneback": (("--method", "farneback"), "method: farneback, not tvl1"),
    "dis": (("--method", "dis", "--method-param", "preset=fast"), "method: dis, not tvl1"),
    "raft": (RAFT, "method: raft, not tvl1"),
    "warped": (("--camera-motion", "flow"), "--camera-motion: flow, not none"),
}

SOLVERS = {name: (f"the solver was {name}, and is flowkit's", f"the solver was flowkit's, and is {name}") for name in FLOWS}
DIFFERENCES = {
    **SOLVERS,
    "warped": ("the camera motion was flow, and is not removed", "the camera motion was not removed, and is flow"),
}


@pytest.fixture(scope="module")
def folder(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four real videos, a list of them, random weights of RAFT, and a data root of TV-L1."""
    import torch
    from torchvision.models.optical_flow import raft_small

    folder = tmp_path_factory.mktemp("methods")
    rows = ["video_id,class_name,subset"]
    for name, stems in VIDEOS.items():
        (folder / "videos" / name).mkdir(parents=True)
        for stem, subset in zip(stems, ("train", "test"), strict=True):
            shutil.copy(shared_data / "videos" / "ucf101" / name / f"{stem}.avi", folder / "videos" / name)
            rows.append(f"{name}/{stem},{name},{subset}")
    (folder / "list.csv").write_text("\n".join(rows) + "\n")
    torch.manual_seed(0)
    torch.save(raft_small(weights=None).state_dict(), folder / "raft.pth")
    return folder


@pytest.fixture(scope="module")
def of_tvl1(folder: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        pipeline(folder / "tvl1", ())
    return folder / "tvl1"


def run(*words: object, code: int = 0) -> Any:
    ended = run_flowkit(*words)
    assert ended.code == code, ended
    return ended


def pipeline(data: Path, options: tuple[str, ...]) -> None:
    run("extract", "videos", "--data", data, *FRAMES, "--jobs", 2, *options)
    run("pack", "--split", 1, "--lists", "list.csv", "--data", data)
    run("verify", data)
    run("train", "--phase", "motion", "--data", data, "--device", "cpu", *TINY)


@pytest.mark.parametrize("name", FLOWS)
def test_each_flow_goes_through_the_pipeline_and_is_never_mixed(
    name: str, folder: Path, of_tvl1: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    options, key = FLOWS[name]
    data = folder / name
    pipeline(data, options)
    table = run("evaluate", "--data", data, "--device", "cpu").out
    assert "motion" in table
    results = json.loads(next((data / "reports").rglob("results.json")).read_text())
    assert name in json.dumps(results) or name == "warped"
    report = next((data / "reports").rglob("report.html")).read_text()
    assert ("camera motion" if name == "warped" else name) in report
    assert key in run("extract", "videos", "--data", data, *FRAMES, code=1).err
    for trained, tested, told in ((data, of_tvl1, DIFFERENCES[name][0]), (of_tvl1, data, DIFFERENCES[name][1])):
        ended = run("evaluate", "--data", tested, "--runs", trained / "runs", "--reports", tmp_path / "reports", "--device", "cpu", code=1)
        assert told in ended.err
    video = folder / "videos" / "BabyCrawling" / "v_BabyCrawling_g19_c01.avi"
    predicted = json.loads(run("predict", video, "--data", data, "--device", "cpu", "--json").out)
    assert predicted["extraction"] == json.loads((data / "dataset.json").read_text())["settings"]
    assert predicted["notes"] == []
