"""``extract --method``: the method is a setting of the data root, is shown wherever the flow is, and is never mixed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import pytest
from command_lines import run_flowkit
from small_videos import write_video

from flowkit.dataset.root import Dataset
from flowkit.dataset.settings import ExtractSettings
from flowkit.dataset.shard_files import extract_command
from flowkit.errors import CheckpointError, ParameterError
from flowkit.flow.methods import FlowMethod
from flowkit.model.runs.recorded_extraction import extraction_of, with_solver
from flowkit.model.runs.training_data import extraction_differences, extraction_of_clip
from flowkit.shards.reader import ShardReader

pytestmark = pytest.mark.usefixtures("kept_workers")


@pytest.fixture
def videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "videos" / "class" / "v.avi", 4)
    return tmp_path / "videos"


def run_extract(videos: Path, *options: object, code: int = 0) -> str:
    ended = run_flowkit("extract", videos, "--jobs", 1, "--short-side", 32, *options)
    assert ended.code == code, ended
    return ended.out + ended.err


def test_the_method_is_recorded_shown_and_never_mixed(videos: Path) -> None:
    told = run_extract(videos, "--method", "dis", "--method-param", "preset=fast")
    version = cv2.__version__
    assert f"dis (preset fast, opencv {version}), short side 32 px" in told
    recorded = {"name": "dis", "preset": "fast", "opencv": version}
    settings = json.loads(Path("flowkit-data/dataset.json").read_text())["settings"]
    assert (settings["method"], settings["tvl1"], settings["solver"]) == (recorded, {}, "dis")
    assert Dataset.open("flowkit-data").settings == ExtractSettings(short_side=32, method=FlowMethod.named("dis", preset="fast"))
    info = run_flowkit("info").out
    assert f"dis (opencv {version}, preset fast)" in info
    assert "TV-L1" not in info
    contents = json.loads(run_flowkit("info", "--json").out)["contents"]
    assert [json.loads(stored) for stored in contents["methods"]] == [recorded]
    assert f"flow: dis (preset fast, opencv {version})" in run_flowkit("stats").out
    assert "1 skipped" in run_extract(videos, "--method", "dis", "--method-param", "preset=fast")
    for options, key in (
        ((), "method: dis, not tvl1"),
        (("--method", "farneback"), "method: dis, not farneback"),
        (("--method", "dis"), "dis preset: fast, not medium"),
    ):
        assert key in run_extract(videos, *options, code=1)
    words = extract_command(Dataset.open("flowkit-data"))
    assert f"--method dis --method-param preset=fast --method-param opencv={version} --short-side 32" in words


def test_another_method_is_refused_by_a_root_of_tvl1_whose_clips_say_nothing_of_methods(videos: Path) -> None:
    run_extract(videos, "--method", "tvl1")
    assert "method: tvl1, not farneback" in run_extract(videos, "--method", "farneback", code=1)
    assert "method" not in json.loads(Path("flowkit-data/dataset.json").read_text())["settings"]
    with ShardReader(Path("flowkit-data/clips/class/v.h5")) as reader:
        assert "method" not in reader.clip("class/v").attributes.to_stored()


def test_a_root_of_dis_of_another_opencv_is_not_continued(videos: Path) -> None:
    run_extract(videos, "--method", "dis")
    record = Path("flowkit-data/dataset.json")
    record.write_text(record.read_text().replace(f'"{cv2.__version__}"', '"4.1.0"'))
    assert f"dis opencv: 4.1.0, not {cv2.__version__}" in run_extract(videos, "--method", "dis", code=1)
    from flowkit import extract, stats

    with pytest.raises(ParameterError, match=r"install OpenCV 4\.1\.0"):
        extract(videos, "flowkit-data", progress=False)
    assert "opencv 4.1.0" in stats("flowkit-data").method  # what is there can still be read


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--method", "dis", "--preset", "paper"), "--preset"),
        (("--method", "dis", "--tvl1-tau", "0.2"), "--tvl1-tau"),
        (("--method", "farneback", "--mode", "fast"), "--mode"),
        (("--method", "farneback", "--device", "cuda"), "--device"),
        (("--method", "magic"), "unknown flow method 'magic'; choose one of tvl1, farneback, dis"),
        (("--method", "dis", "--method-param", "preset"), "NAME=VALUE"),
        (("--method", "dis", "--method-param", "preset=slow"), "dis preset must be one of"),
        (("--method-param", "preset=fast"), "--method-param is for another --method"),
    ],
)
def test_options_of_tvl1_and_unknown_methods_are_refused(videos: Path, options: tuple[str, ...], told: str) -> None:
    out = run_extract(videos, *options, code=2)
    assert told in out
    assert not Path("flowkit-data").exists()


def test_a_network_of_dis_of_another_opencv_is_used_with_a_note() -> None:
    here = FlowMethod.named("dis", preset="fast")
    trained = ExtractSettings(short_side=32, method=FlowMethod("dis", {"preset": "fast", "opencv": "4.1.0"}))
    used, note = with_solver(trained, "auto", "cpu")
    assert used == ExtractSettings(short_side=32, method=here)
    assert note.endswith(f"by a fraction of a pixel: opencv is {cv2.__version__} here, and was 4.1.0")
    assert with_solver(used, "auto", "cpu") == (used, "")
    assert here.as_here() == here
    with pytest.raises(ParameterError, match="dis preset must be one of"):  # what no machine can compute
        with_solver(ExtractSettings(method=FlowMethod("dis", {"preset": "slow", "opencv": "4.1.0"})), "auto", "cpu")


def test_videos_for_a_network_are_extracted_with_the_method_of_its_training(videos: Path) -> None:
    from flowkit.model.runs.provenance import Provenance

    run_extract(videos, "--method", "farneback", "--method-param", "win_size=21")
    dataset = Dataset.open("flowkit-data")
    with ShardReader(Path("flowkit-data/clips/class/v.h5")) as reader:
        made: dict[str, Any] = extraction_of_clip(reader.clip("class/v"))

    class Recorded:
        quantiser, extraction = dataset.settings.quantiser.to_dict(), made

    provenance: Provenance = Recorded()  # type: ignore[assignment]
    assert extraction_of(provenance, None) == (dataset.settings, "")
    assert with_solver(dataset.settings, "auto", "cpu") == (dataset.settings, "")
    with pytest.raises(ParameterError, match="name no solver"):
        with_solver(dataset.settings, "strict", "cpu")
    Recorded.extraction = {**made, "method": {"name": 3}}
    with pytest.raises(CheckpointError, match="impossible"):
        extraction_of(provenance, None)
    other = {**made, "method": {**made["method"], "win_size": 13}}
    assert extraction_differences(made, other) == ["the flow method's win size was 21, and is 13"]
    tvl1 = {**made, "tvl1": {"tau": 0.25}, "solver": "strict"}
    del tvl1["method"]
    assert extraction_differences(tvl1, made) == ["the solver was flowkit's, and is farneback"]
