"""Flow methods besides TV-L1: OpenCV's are equal to OpenCV, and one that a package brings is found by its name."""

from __future__ import annotations

import importlib
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from small_videos import write_video

from flowkit import ExtractSettings, FlowMethod, ShardReader, TVL1Params, compute_flow, extract, verify
from flowkit.errors import ParameterError
from flowkit.flow import methods, to_grey
from flowkit.video.decode import read_frames

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PYPROJECT = Path(__file__).parents[3] / "pyproject.toml"
METHODS = [("farneback", {}), ("dis", {}), ("dis", {"preset": "fast"}), ("dis", {"preset": "ultrafast"})]
SHIFT = '''
"""A flow method that a package brings."""
from dataclasses import dataclass
import numpy as np

@dataclass(frozen=True)
class Shift:
    right: float = 1.5

    def flows(self, grey):
        flow = np.zeros((len(grey) - 1, 2, *grey.shape[1:]), np.float32)
        flow[:, 0] = self.right
        flow[:, 1] = grey[1:].mean(axis=(1, 2), keepdims=True) - grey[:-1].mean(axis=(1, 2), keepdims=True)
        return flow

@dataclass(frozen=True)
class Red:
    """Takes RGB frames: u is the red of the first frame, and v the blue of the second."""
    takes_rgb = True
    min_side_px = 20
    broken: bool = False

    def flows(self, frames):
        assert frames.shape[3] == 3
        flow = np.stack([frames[:-1, ..., 0], frames[1:, ..., 2]], axis=1).astype(np.float32) / 20
        return flow * np.nan if self.broken else flow

    def prepare(self):
        globals()["prepared"] = True

    def num_processes(self):
        return 1

class NoDataclass:
    pass

@dataclass(frozen=True)
class Wrong:
    def flows(self, grey):
        return np.zeros((1, 2), np.float32)

@dataclass(frozen=True)
class NoDefault:
    right: float
    flows = Shift.flows
'''
ENTRIES = """[flowkit.flow_methods]
shift = shift_flow:Shift
red = shift_flow:Red
no-dataclass = shift_flow:NoDataclass
wrong = shift_flow:Wrong
no-default = shift_flow:NoDefault
not-there = shift_flow:Missing
no-module = module_that_is_not_there:Missing
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A small package on the path that brings flow methods, as pip would install it."""
    folder = tmp_path / "packages"
    (folder / "shift_flow-1.0.dist-info").mkdir(parents=True)
    (folder / "shift_flow.py").write_text(SHIFT)
    (folder / "shift_flow-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: shift-flow\nVersion: 1.0\n")
    (folder / "shift_flow-1.0.dist-info" / "entry_points.txt").write_text(ENTRIES)
    monkeypatch.syspath_prepend(str(folder))
    importlib.invalidate_caches()
    yield
    methods._class_of.cache_clear()
    sys.modules.pop("shift_flow", None)


def noise(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


def of_opencv(method: str, preset: str, first: Any, second: Any) -> Any:
    """Return the flow of OpenCV itself, (H, W, 2)."""
    if method == "farneback":
        return cv2.FarnebackOpticalFlow_create().calc(first, second, None)  # type: ignore[attr-defined]
    number = getattr(cv2, f"DISOPTICAL_FLOW_PRESET_{preset.upper()}")
    return cv2.DISOpticalFlow_create(number).calc(first, second, None)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("method", "params"), METHODS)
@pytest.mark.parametrize("size", [(32, 32), (33, 65), (64, 48), (32, 200), (120, 161)])
def test_the_flow_is_exactly_opencv_s(method: str, params: dict[str, str], size: tuple[int, int]) -> None:
    frames = np.concatenate([noise(2, *size), cv2.GaussianBlur(noise(*size), (0, 0), 3)[None]])
    flow = compute_flow(frames, method=method, params=params)
    assert (flow.dtype, flow.shape) == (np.float32, (2, 2, *size))
    for k in range(2):
        due = of_opencv(method, params.get("preset", "medium"), frames[k], frames[k + 1])
        np.testing.assert_array_equal(flow[k], due.transpose(2, 0, 1))


@pytest.mark.parametrize(("method", "params"), METHODS)
def test_a_pair_s_flow_depends_on_nothing_but_the_pair(method: str, params: dict[str, str]) -> None:
    colour = noise(4, 40, 56, 3)
    flow = compute_flow(colour, method=method, params=params)
    np.testing.assert_array_equal(flow, compute_flow(to_grey(colour), method=method, params=params))
    threads = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1 if threads > 1 else 2)
        np.testing.assert_array_equal(flow[2:], compute_flow(colour[2:], method=method, params=params))
    finally:
        cv2.setNumThreads(threads)


@pytest.mark.parametrize("method", ["farneback", "dis"])
def test_one_frame_and_none_have_no_flow(method: str) -> None:
    for count in (0, 1):
        assert compute_flow(noise(count, 32, 40), method=method).shape == (0, 2, 32, 40)


def test_the_defaults_of_farneback_are_opencv_s() -> None:
    made = cv2.FarnebackOpticalFlow_create()  # type: ignore[attr-defined]
    assert FlowMethod.named("farneback").params == {
        "num_levels": made.getNumLevels(),
        "pyr_scale": made.getPyrScale(),
        "fast_pyramids": made.getFastPyramids(),
        "win_size": made.getWinSize(),
        "num_iters": made.getNumIters(),
        "poly_n": made.getPolyN(),
        "poly_sigma": made.getPolySigma(),
        "gaussian": made.getFlags() != 0,
    }


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("farneback", {"win_size": 1}),
        ("farneback", {"win_size": 7.5}),
        ("farneback", {"num_levels": True}),
        ("farneback", {"pyr_scale": 1.0}),
        ("farneback", {"pyr_scale": 0.8, "fast_pyramids": True}),
        ("farneback", {"poly_sigma": float("nan")}),
        ("farneback", {"speed": 1}),
        ("dis", {"preset": "slow"}),
        ("dis", {"opencv": "3.0.0"}),
        ("magic", {}),
        ("cuda", {}),
        ("Farneback", {}),
        ("dis", TVL1Params()),
    ],
)
def test_what_cannot_be_is_refused(method: str, params: Any) -> None:
    with pytest.raises(ParameterError):
        compute_flow(noise(2, 32, 32), method=method, params=params)


def test_sizes_with_which_dis_of_opencv_crashes_are_refused() -> None:
    with pytest.raises(ParameterError, match="at least 32 px per side, got 100x31"):
        compute_flow(noise(2, 31, 100), method="dis")


@pytest.mark.parametrize("other", [{"device": "cuda"}, {"mode": "fast"}])
def test_device_and_mode_are_of_tvl1(other: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match="are of TV-L1"):
        compute_flow(noise(2, 32, 32), method="farneback", **other)


def test_parameters_of_tvl1_are_given_as_an_object() -> None:
    with pytest.raises(ParameterError, match="params must be TVL1Params"):
        compute_flow(noise(2, 32, 32), params={"tau": 0.2})


def test_the_methods_of_a_checkout_are_the_entries_of_the_package() -> None:
    declared = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["entry-points"]
    assert declared == {methods.GROUP: methods._own_entries()}
    assert methods.method_names()[: 1 + len(methods._own_entries())] == ["tvl1", *methods._own_entries()]
    assert methods.BUILT_IN.items() <= methods._own_entries().items()
    assert not any("model" in where for where in methods.BUILT_IN.values())


def test_a_checkout_needs_no_installed_metadata_and_an_installed_package_no_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, Any] = {}
    for place in (PYPROJECT, tmp_path / "pyproject.toml"):
        with monkeypatch.context() as patch:
            patch.setattr("importlib.metadata.entry_points", lambda group: ())
            patch.setattr(methods, "_CHECKOUT", place)
            methods._own_entries.cache_clear()
            found[place.parent.name] = methods.method_names()
    methods._own_entries.cache_clear()
    assert list(found.values()) == [["tvl1", "farneback", "dis", "raft"], ["tvl1", "farneback", "dis"]]
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "another"\n[project.entry-points."flowkit.flow_methods"]\nx = "os:x"\n')
    monkeypatch.setattr(methods, "_CHECKOUT", tmp_path / "pyproject.toml")
    assert "x" not in methods.method_names()
    methods._own_entries.cache_clear()


def test_a_method_comes_back_from_what_is_stored() -> None:
    method = FlowMethod.named("dis", preset="fast")
    assert method.params == {"preset": "fast", "opencv": cv2.__version__}
    assert FlowMethod.from_dict(method.to_dict()) == method == pickle.loads(pickle.dumps(method))
    for wrong in (None, {}, {"name": 3}, {"name": "dis", "preset": [1]}):
        with pytest.raises(ParameterError):
            FlowMethod.from_dict(wrong)


@pytest.mark.usefixtures("installed")
def test_a_method_of_an_installed_package_is_found_by_its_name() -> None:
    assert "shift" in methods.method_names()
    grey = noise(3, 20, 24)
    flow = compute_flow(grey, method="shift", params={"right": 2})
    assert (flow[:, 0] == 2).all()
    assert FlowMethod.named("shift").params == {"right": 1.5}


@pytest.mark.usefixtures("installed")
def test_a_method_may_take_rgb_frames(tmp_path: Path) -> None:
    colour = noise(3, 20, 24, 3)
    flow = compute_flow(colour, method="red")
    np.testing.assert_array_equal(flow[:, 0], colour[:-1, ..., 0].astype(np.float32) / 20)
    np.testing.assert_array_equal(flow[:, 1], colour[1:, ..., 2].astype(np.float32) / 20)
    grey = colour[..., 1]
    np.testing.assert_array_equal(compute_flow(grey, method="red")[:, 0], grey[:-1].astype(np.float32) / 20)
    with pytest.raises(ParameterError, match="red needs frames of at least 20 px per side, got 24x19"):
        compute_flow(colour[:, :19], method="red")
    with pytest.raises(ParameterError, match="no finite number"):
        compute_flow(colour, method="red", params={"broken": True})
    method = FlowMethod.named("red")
    assert (method.takes_rgb, method.num_processes(), FlowMethod.named("shift").takes_rgb) == (True, 1, False)
    method.prepare()
    assert sys.modules["shift_flow"].prepared
    assert FlowMethod.named("shift").num_processes() is None
    video = write_video(tmp_path / "videos" / "class" / "v.avi", 5)
    settings = ExtractSettings(short_side=32, method=method)
    report = extract(tmp_path / "videos", tmp_path / "data", settings=settings, progress=False)
    assert [result.status for result in report.done] == ["ok"]
    frames = np.concatenate([batch.frames for batch in read_frames(video, short_side=32)])
    with ShardReader(tmp_path / "data" / "clips" / "class" / "v.h5") as reader:
        due = settings.quantiser.encode(compute_flow(frames, method="red"))
        np.testing.assert_array_equal(reader.clip("class/v").flow(0, 4), due)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("no-dataclass", "must be a dataclass"),
        ("no-default", "has no plain default"),
        ("not-there", "cannot be loaded"),
        ("no-module", "cannot be loaded"),
        ("wrong", r"must return float32 \(2, 2, 20, 24\), got float32 \(1, 2\)"),
    ],
)
def test_a_method_that_is_no_method_is_refused_with_its_name(name: str, told: str) -> None:
    with pytest.raises(ParameterError, match=f"'{name}'.*{told}"):
        compute_flow(noise(3, 20, 24), method=name)


@pytest.mark.usefixtures("installed")
def test_worker_processes_find_a_method_of_an_installed_package(tmp_path: Path) -> None:
    write_video(tmp_path / "videos" / "class" / "v.avi", 5)
    settings = ExtractSettings(short_side=32, method=FlowMethod.named("shift", right=3.0))
    report = extract(tmp_path / "videos", tmp_path / "data", settings=settings, jobs=2, progress=False)
    assert [result.status for result in report.done] == ["ok"]
    with ShardReader(tmp_path / "data" / "clips" / "class" / "v.h5") as reader:
        clip = reader.clip("class/v")
        assert clip.attributes.method == {"name": "shift", "right": 3.0}
        assert abs(settings.quantiser.decode(clip.flow(0, 4))[:, 0] - 3).max() < 0.1


@pytest.mark.parametrize(("method", "params"), METHODS[:2])
def test_long_videos_in_pieces_have_the_flow_of_the_whole(method: str, params: dict[str, str], tmp_path: Path) -> None:
    video = write_video(tmp_path / "videos" / "class" / "long.avi", 310)
    settings = ExtractSettings(short_side=32, method=FlowMethod.named(method, **params), codec="none")
    for jobs in (1, 2):
        extract(tmp_path / "videos", tmp_path / f"data{jobs}", settings=settings, jobs=jobs, progress=False)
    paths = [tmp_path / f"data{jobs}" / "clips" / "class" / "long.h5" for jobs in (1, 2)]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert verify(tmp_path / "data1") == []
    frames = np.concatenate([batch.frames for batch in read_frames(video, short_side=32)])
    due = settings.quantiser.encode(compute_flow(frames, method=method, params=params))
    with ShardReader(paths[0]) as reader:
        clip = reader.clip("class/long")
        assert (clip.attributes.solver, clip.attributes.tvl1) == (method, {})
        assert clip.attributes.method == settings.stored_method()
        np.testing.assert_array_equal(clip.flow(0, 309), due)
