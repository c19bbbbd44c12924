"""Flow without the camera's motion: of a pan nothing is left, by every method, and a data root says so everywhere."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_lines import run_flowkit
from small_videos import SETTINGS, write_video
from textures import moving_texture

from flowkit import ExtractSettings, FlowMethod, ShardReader, compute_flow, extract, stats, verify
from flowkit import flow as flow_package
from flowkit.dataset.root import Dataset
from flowkit.dataset.shard_files import extract_command
from flowkit.errors import ManifestError, ParameterError, ShardFormatError
from flowkit.extraction import solving
from flowkit.extraction.sample import read_sample
from flowkit.flow.cuda.connections import FlowConnections
from flowkit.model.evaluation.official import flow_differences
from flowkit.model.runs.recorded_extraction import extraction_of
from flowkit.model.runs.training_data import extraction_differences, extraction_of_clip
from flowkit.trajectories.camera_motion import without_camera_motion
from flowkit.trajectories.frame_motion import camera_homographies, frame_motions
from flowkit.video.decode import read_frames
from flowkit.warped_flow import pairs_without_camera_motion

METHODS: list[tuple[str, dict[str, Any] | None]] = [("tvl1", None), ("farneback", {}), ("dis", {})]


def panned(num_frames: int = 3, *, height: int = 96, width: int = 130) -> Any:
    """Return RGB frames of a texture before which the camera pans by 3 px per frame to the right."""
    grey = moving_texture(1, height, width + 3 * num_frames, noise=0)[0]
    colours = np.stack([grey, 255 - grey, np.roll(grey, 5, axis=0)], axis=-1)
    return np.stack([colours[:, 3 * k : 3 * k + width] for k in range(num_frames)])


def speed(flow: Any) -> float:
    return float(np.hypot(flow[:, 0], flow[:, 1]).mean())


@pytest.mark.parametrize(("method", "params"), METHODS)
@pytest.mark.parametrize("how", ["sift", "flow"])
def test_of_a_pan_no_flow_is_left(method: str, params: Any, how: str) -> None:
    frames = panned()
    assert speed(compute_flow(frames, method=method, params=params)) == pytest.approx(3, abs=0.2)
    assert speed(compute_flow(frames, method=method, params=params, camera_motion=how)) < 0.1


@pytest.mark.parametrize("size", [(40, 64), (33, 47), (90, 61)])
@pytest.mark.parametrize("how", ["sift", "flow"])
def test_the_homography_is_that_of_the_trajectories(size: tuple[int, int], how: str) -> None:
    frames = moving_texture(4, *size, seed=size[0])
    due = [motion.homography for motion in frame_motions(frames, camera_motion=how)]
    np.testing.assert_array_equal(list(camera_homographies(frames, camera_motion=how)), due)
    pairs = np.concatenate(list(pairs_without_camera_motion(frames, camera_motion=how, at_once=2)))
    for k, (first, second) in enumerate(pairs):
        np.testing.assert_array_equal(first, frames[k])
        np.testing.assert_array_equal(second, without_camera_motion(frames[k], frames[k + 1], due[k]))
    flow = compute_flow(frames, camera_motion=how)
    np.testing.assert_array_equal(flow, [compute_flow(pair)[0] for pair in pairs])
    np.testing.assert_array_equal(flow[2:], compute_flow(frames[2:], camera_motion=how))  # it depends on the two frames alone


def test_each_colour_is_warped_by_the_homography_of_the_grey_frames() -> None:
    frames = panned()
    (pairs,) = pairs_without_camera_motion(frames, camera_motion="sift")
    matrices = list(camera_homographies(flow_package.to_grey(frames), camera_motion="sift"))
    for k in range(2):
        for colour in range(3):
            planes = (np.ascontiguousarray(frames[k + i, ..., colour]) for i in range(2))
            np.testing.assert_array_equal(pairs[k, 1, ..., colour], without_camera_motion(*planes, matrices[k]))


def test_one_frame_and_none_have_no_flow_and_unknown_ways_are_refused() -> None:
    for count in (0, 1):
        assert compute_flow(np.zeros((count, 32, 40), np.uint8), camera_motion="sift").shape == (0, 2, 32, 40)
    for wrong in ("surf", "", None):
        with pytest.raises(ParameterError, match="camera_motion must be one of none, sift, flow"):
            compute_flow(np.zeros((2, 32, 40), np.uint8), camera_motion=wrong)  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="camera_motion must be one of"):
        ExtractSettings(camera_motion="surf")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="frames must be uint8"):
        compute_flow(np.zeros((2, 32, 40)), camera_motion="sift")  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("method", [None, FlowMethod.named("farneback")])
def test_clips_hold_it_in_pieces_too_and_say_so(method: FlowMethod | None, tmp_path: Path) -> None:
    video = write_video(tmp_path / "videos" / "class" / "v.avi", 303)
    settings = replace(SETTINGS, method=method, camera_motion="flow", codec="none")
    for jobs in (1, 2):
        extract(tmp_path / "videos", tmp_path / f"data{jobs}", settings=settings, jobs=jobs, progress=False)
    paths = [tmp_path / f"data{jobs}" / "clips" / "class" / "v.h5" for jobs in (1, 2)]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert verify(tmp_path / "data1") == []
    frames = np.concatenate([batch.frames for batch in read_frames(video, short_side=32)])
    name = "tvl1" if method is None else method.name
    due = settings.quantiser.encode(compute_flow(frames[290:], method=name, camera_motion="flow"))
    with ShardReader(paths[0]) as reader:
        clip = reader.clip("class/v")
        assert clip.attributes.camera_motion == "flow"
        np.testing.assert_array_equal(clip.flow(290, 302), due)
        fields = [3, 4, 9, 290, 301]
        np.testing.assert_array_equal(read_sample(video, frames=[3], fields=fields, settings=settings)[1], clip.flow(0, 302)[fields])


@pytest.mark.parametrize("method", ["tvl1", "dis"])
def test_what_a_network_reads_of_a_video_is_without_it(method: str, tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.avi", 20)
    settings = replace(SETTINGS, method=None if method == "tvl1" else FlowMethod.named(method), camera_motion="sift")
    frames = np.concatenate([batch.frames for batch in read_frames(video, short_side=32)])
    due = settings.quantiser.encode(compute_flow(frames, method=method, camera_motion="sift"))
    fields = [0, 3, 4, 9, *range(11, 19)]
    np.testing.assert_array_equal(read_sample(video, frames=[3], fields=fields, settings=settings, num_threads=2)[1], due[fields])


def test_the_gpu_s_process_is_given_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    class Client:
        def begin(self, grey: Any, *, are_pairs: bool = False) -> None:
            assert are_pairs
            self.flow = settings.quantiser.encode(flow_package.compute_pairs_flow(grey.reshape(-1, 2, *grey.shape[1:])))

        def finish(self) -> Any:
            return self.flow

    settings = replace(SETTINGS, camera_motion="flow", solver="cuda")
    frames = moving_texture(11, 40, 50)
    make: Any = Client
    monkeypatch.setattr(solving, "service_connections", lambda address: FlowConnections(make))
    address: Any = object()
    due = settings.quantiser.encode(compute_flow(frames, camera_motion="flow"))
    with solving.FlowQueue(settings, address) as flows:
        flows.begin(frames)
        flows.begin(frames[:4])
        np.testing.assert_array_equal(flows.take(), due)
        np.testing.assert_array_equal(flows.take(), due[:3])


@pytest.mark.usefixtures("kept_workers")
def test_it_is_a_setting_of_the_root_that_is_shown_and_never_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "videos" / "class" / "v.avi", 4)
    command = ("extract", "videos", "--jobs", 1, "--short-side", 32)
    told = run_flowkit(*command, "--camera-motion", "flow")
    assert "without camera motion (flow)" in told.err
    assert json.loads(Path("flowkit-data/dataset.json").read_text())["settings"]["camera_motion"] == "flow"
    dataset = Dataset.open("flowkit-data")
    assert dataset.settings == replace(SETTINGS, camera_motion="flow")
    assert "camera      motion removed, by flow" in run_flowkit("info").out
    assert json.loads(run_flowkit("info", "--json").out)["contents"]["camera_motions"] == {"flow": 1}
    assert "without camera motion (flow)" in stats("flowkit-data").method
    assert "--camera-motion flow" in extract_command(dataset)
    assert "1 skipped" in run_flowkit(*command, "--camera-motion", "flow").out
    for other in ("none", "sift"):
        ended = run_flowkit(*command, "--camera-motion", other)
        assert (ended.code, f"--camera-motion: flow, not {other}" in ended.err) == (1, True)
    with ShardReader(Path("flowkit-data/clips/class/v.h5")) as reader:
        made: dict[str, Any] = extraction_of_clip(reader.clip("class/v"))
        attributes = reader.clip("class/v").attributes
    assert made["camera_motion"] == "flow"
    with pytest.raises(ShardFormatError, match="camera_motion must be"):
        replace(attributes, camera_motion="surf")

    class Recorded:
        quantiser, extraction = dataset.settings.quantiser.to_dict(), made

    provenance: Any = Recorded()
    assert extraction_of(provenance, None) == (dataset.settings, "")
    plain = {name: value for name, value in made.items() if name != "camera_motion"}
    assert extraction_differences(plain, made) == ["the camera motion was not removed, and is flow"]
    differences, _ = flow_differences(made, dataset.settings.quantiser.to_dict())
    assert "removed camera motion flow (official code: none)" in differences
    with pytest.raises(ManifestError):
        ExtractSettings.from_dict({**dataset.settings.to_dict(), "camera_motion": "surf"})


def test_a_root_without_it_stores_nothing_of_it() -> None:
    assert "camera_motion" not in ExtractSettings().to_dict()
    assert ExtractSettings().stored_camera_motion() == ""
