"""Features of video files that are in no data root: those of the same videos in one, with nothing left beside them."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_lines import call_flowkit, run_flowkit
from random_networks import random_checkpoints
from textures import moving_blocks

import flowkit
from flowkit.dataset.settings import ExtractSettings
from flowkit.demo_videos import write_video
from flowkit.errors import CheckpointError, FeaturesError, ManifestError, ParameterError
from flowkit.model.compute.execution import Execution
from flowkit.model.runs.checkpoint import save_weights
from flowkit.model.runs.run_folder import phase_folder
from flowkit.model.scoring.feature_files import FeatureFile
from flowkit.model.scoring.feature_folder import FeatureFolder
from flowkit.model.scoring.video_features import features
from flowkit.quantise import Quantiser

CPU = Execution(device="cpu")
SETTINGS = ExtractSettings(
    "paper", flowkit.TVL1Params.preset("paper"), "fast", Quantiser(15.0), short_side=48, reading=flowkit.Reading(fps=25)
)
LENGTHS = {"run/a": 31, "run/b": 12, "walk/c": 20}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with videos/, their data root data/, and random networks of all phases. Treat it as read-only."""
    home = tmp_path_factory.mktemp("home")
    for seed, (video_id, num_frames) in enumerate(LENGTHS.items()):
        path = home / "videos" / f"{video_id}.avi"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, moving_blocks(2 * num_frames, seed), frame_rate=50)
    assert not flowkit.extract(home / "videos", home / "data", settings=SETTINGS, jobs=1, progress=False).failed
    extraction = {"short_side": 48, "tvl1": SETTINGS.tvl1.to_dict(), "solver": "fast", "codec": "zstd", "reading": {"fps": "25"}}
    told: dict[str, Any] = {
        "quantiser": SETTINGS.quantiser.to_dict(),
        "protocol": "automatic",
        "digest": "0" * 64,
        "extraction": extraction,
    }
    for phase, checkpoint in random_checkpoints(("run", "walk"), **told).items():
        save_weights(phase_folder(home / "data", "default", 1, phase) / "weights.safetensors", checkpoint)
    return home


def files_of(home: Path) -> list[Path]:
    return [home / "videos" / f"{video_id}.avi" for video_id in LENGTHS]


@pytest.mark.parametrize("settings", [{}, {"frames": "all", "stride": 2, "window": 3}, {"average": True, "mirror": True}])
def test_features_of_video_files_are_those_of_the_same_videos_in_a_data_root(home: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    stored, loose = (
        FeatureFile(features(home / "data", output=tmp_path / name, execution=CPU, **settings, **more).path)
        for name, more in (("stored.h5", {}), ("loose.h5", {"files": files_of(home), "jobs": 1}))
    )
    assert stored.provenance == loose.provenance
    assert loose.video_ids == ("a", "b", "c")
    for video_id, path in zip(LENGTHS, files_of(home), strict=True):
        one, other = stored.read(video_id), loose.read(path.stem)
        assert one.source_sha256 == other.source_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert one.frames.tolist() == other.frames.tolist()
        assert one.times is not None
        assert other.times is not None
        assert one.times.tolist() == other.times.tolist() == (one.frames / 25).tolist()
        for stream in one.arrays:
            assert np.array_equal(one.arrays[stream], other.arrays[stream])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loose.h5", "stored.h5"]


@pytest.mark.parametrize("stop_after", [1, 4, 9])
def test_a_stopped_run_goes_on_and_gives_the_same_bytes(home: Path, tmp_path: Path, stop_after: int) -> None:
    path, settings = tmp_path / "stopped.h5", {"of": "motion", "frames": "all", "window": 2, "files": files_of(home), "jobs": 1}
    asked = iter(range(10000))
    report = features(home / "data", output=path, execution=CPU, should_stop=lambda: next(asked) >= stop_after, **settings)  # type: ignore[arg-type]
    assert report.stopped
    assert not path.exists()
    report = features(home / "data", output=path, execution=CPU, **settings)  # type: ignore[arg-type]
    assert (report.stopped, report.num_videos) == (False, 3)
    whole = features(home / "data", output=tmp_path / "whole.h5", execution=CPU, **settings).path  # type: ignore[arg-type]
    assert path.read_bytes() == whole.read_bytes()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["stopped.h5", "whole.h5"]


@pytest.mark.parametrize("name", ["features.h5", "vectors"])
def test_files_that_are_there_already_are_not_extracted_again_unless_they_have_changed(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    files = [Path(shutil.copy(path, tmp_path)) for path in files_of(home)]
    path = tmp_path / "out" / name
    first = features(home / "data", of="motion", files=files[:2], output=path, execution=CPU, jobs=1)
    second = features(home / "data", of="motion", files=files[1:], output=path, execution=CPU, jobs=1)
    assert (first.num_kept, second.num_kept, second.num_videos) == (0, 1, 3)
    shutil.copy(files[0], files[1])  # the file has other contents under the same name
    third = features(home / "data", of="motion", files=files, output=path, execution=CPU, jobs=1)
    assert (third.num_kept, third.num_videos) == (2, 3)
    stored = FeatureFile(path) if name.endswith(".h5") else FeatureFolder(path)
    one, other = stored.read("a"), stored.read("b")
    assert one.source_sha256 == other.source_sha256
    assert np.array_equal(one.arrays["motion"], other.arrays["motion"])
    monkeypatch.setattr("flowkit.model.scoring.feature_videos.loose_clips", lambda *_, **__: pytest.fail("nothing is extracted"))
    assert features(home / "data", of="motion", files=files, output=path, execution=CPU).num_kept == 3
    assert [entry.name for entry in path.parent.iterdir()] == [name]


def test_one_bad_file_is_named_and_the_others_have_features(home: Path, tmp_path: Path) -> None:
    (tmp_path / "text.avi").write_text("no video")
    write_video(tmp_path / "brief.avi", moving_blocks(8, 1), frame_rate=25)
    whole = files_of(home)[0].read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) * 3 // 4])
    line = ["features", *sorted(tmp_path.iterdir()), files_of(home)[1], "--data", home / "data", "--of", "motion", "--device", "cpu"]
    ended = run_flowkit(*line, "--jobs", "1", "--output", tmp_path / "f.h5", "--json")
    assert ended.code == 3, ended
    told = json.loads(ended.out)
    assert (told["num_videos"], [video["video_id"] for video in told["failed"]]) == (2, ["brief", "text"])
    assert "no features: brief: 8 frames; a stack of flow needs 11" in ended.err
    assert "note: cut is damaged: " in ended.err
    assert FeatureFile(tmp_path / "f.h5").video_ids == ("b", "cut")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    with pytest.raises(FeaturesError, match="no video has features: text: "):
        features(home / "data", files=[tmp_path / "text.avi"], output=tmp_path / "none.h5", execution=CPU)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith((".", "none"))]


def test_files_that_cannot_be_named_are_refused(home: Path, tmp_path: Path) -> None:
    one = files_of(home)[0]
    shutil.copy(one, tmp_path / "a.mp4")
    with pytest.raises(ManifestError, match="would share a video id"):
        features(home / "data", files=[one, tmp_path / "a.mp4"], execution=CPU)
    with pytest.raises(ManifestError, match="is a folder: name its video files, or extract it with `flowkit extract`"):
        features(home / "data", files=[home / "videos"], execution=CPU)
    with pytest.raises(ManifestError, match="there is no video file"):
        features(home / "data", files=[tmp_path / "absent.avi"], execution=CPU)
    with pytest.raises(ParameterError, match="files are others"):
        features(home / "data", files=[one], videos=["run/a"], execution=CPU)
    with pytest.raises(ParameterError, match="solver and jobs are for files"):
        features(home / "data", jobs=2, execution=CPU)
    with pytest.raises(CheckpointError, match=r"run 'absent' of .* has no trained"):
        features(home / "data", run="absent", files=[one], execution=CPU)
    for options in (["--jobs", "1"], ["--solver", "fast"], [one, "--workers", "1"]):
        assert "would do nothing here" in run_flowkit("features", "--data", home / "data", *options).err


def test_features_of_files_and_of_a_data_root_are_not_mixed(home: Path, tmp_path: Path) -> None:
    of_root, of_files = (tmp_path / name for name in ("root.h5", "files.h5"))
    features(home / "data", of="motion", output=of_root, execution=CPU)
    features(home / "data", of="motion", files=files_of(home)[:1], output=of_files, execution=CPU, jobs=1)
    with pytest.raises(FeaturesError, match="has features of the videos of a data root"):
        features(home / "data", of="motion", files=files_of(home), output=of_root, execution=CPU)
    with pytest.raises(FeaturesError, match="none of them is a clip of"):
        features(home / "data", of="motion", output=of_files, execution=CPU)


def test_a_lone_weights_file_needs_no_data_root_and_the_file_lies_in_the_working_folder(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(phase_folder(home / "data", "default", 1, "motion") / "weights.safetensors", tmp_path / "mine.safetensors")
    shutil.copy(files_of(home)[1], tmp_path / "b.avi")
    monkeypatch.chdir(tmp_path)
    code, out, _ = call_flowkit("features", "b.avi", "--checkpoint", "mine.safetensors", "--device", "cpu", "--jobs", "1")
    assert code == 0
    assert "motion 128" in out
    (path,) = (tmp_path / "features").iterdir()
    assert path.name == "mine-motion.h5"
    assert FeatureFile(path).video_ids == ("b",)


def test_clips_of_other_settings_that_a_killed_run_left_are_not_used(home: Path, tmp_path: Path) -> None:
    files, clips = files_of(home), tmp_path / ".features.h5.clips"
    other = ExtractSettings("paper", SETTINGS.tvl1, "fast", SETTINGS.quantiser, short_side=40)
    for path in files:
        (tmp_path / "videos").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "videos")
    flowkit.extract(tmp_path / "videos", clips, settings=other, jobs=1, progress=False)
    made = FeatureFile(features(home / "data", files=files, output=tmp_path / "features.h5", execution=CPU, jobs=1).path)
    stored = FeatureFile(features(home / "data", output=tmp_path / "stored.h5", execution=CPU).path)
    assert np.array_equal(made.read("c").arrays["motion"], stored.read("walk/c").arrays["motion"])
    assert not clips.exists()


def test_memory_holds_one_window_of_a_long_video(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flowkit.model.scoring import extract_features

    most = 0
    read_whole = extract_features.read_whole

    def counted(clip: Any, places: Any, **settings: Any) -> Any:
        nonlocal most
        most = max(most, len(places.frames))
        return read_whole(clip, places, **settings)

    monkeypatch.setattr(extract_features, "read_whole", counted)
    write_video(tmp_path / "long.avi", moving_blocks(90, 3), frame_rate=25)
    report = features(
        home / "data", of="motion", files=[tmp_path / "long.avi"], frames="all", window=4, output=tmp_path / "f.h5", execution=CPU, jobs=1
    )
    assert len(FeatureFile(report.path).read("long").frames) == 80
    assert most == 4


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs kill")
def test_killed_at_ten_random_moments_and_run_again_the_file_is_the_same(home: Path, tmp_path: Path) -> None:
    def command(name: str) -> subprocess.Popen[bytes]:
        options = ["--frames", "all", "--window", "1", "--device", "cpu", "--jobs", "2", "--output", str(tmp_path / name)]
        line = [sys.executable, "-m", "flowkit", "features", *map(str, files_of(home)), "--data", str(home / "data"), *options]
        return subprocess.Popen(line, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    began = time.monotonic()
    assert command("whole.h5").wait(600) == 0
    draw, kills, seconds = random.Random(1), 0, time.monotonic() - began
    while kills < 10:
        child = command("killed.h5")
        time.sleep(draw.uniform(0.3, 1) * seconds)
        child.kill()
        kills += child.wait() != 0
        if (tmp_path / "killed.h5").exists():
            assert (tmp_path / "killed.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
            (tmp_path / "killed.h5").unlink()
    assert command("killed.h5").wait(600) == 0
    assert (tmp_path / "killed.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed.h5", "whole.h5"]
