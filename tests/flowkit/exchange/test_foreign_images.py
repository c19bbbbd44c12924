"""Images of other tools: how flow in colours and flow over several frames are recognised, and how memory is bounded."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from flowkit.describe.flow_colour import flow_to_colour
from flowkit.exchange.import_trees import ImportSettings, import_tree
from flowkit.quantise import Quantiser
from flowkit.shards.reader import ShardReader

Array = np.ndarray[Any, Any]
SIZE = (48, 64)
SUPPORT = Path(__file__).parents[2] / "support"


def smooth_flow(seed: int, speed_px: float) -> Array:
    coarse = np.random.default_rng(seed).normal(0, speed_px, (2, 4, 5)).astype(np.float32)
    return np.stack([cv2.resize(plane, SIZE[::-1]) for plane in coarse])


def hue_picture(flow: Array, *, bright_by_speed: bool = True) -> Array:
    """Flow as OpenCV's tutorial draws it: hue is direction, brightness (or saturation) is speed."""
    speed, angle = cv2.cartToPolar(flow[0], flow[1])
    scaled = cv2.normalize(speed, np.zeros_like(speed), 0, 255, cv2.NORM_MINMAX) if bright_by_speed else speed * 10
    full = np.full(SIZE, 255, np.uint8)
    hue = (angle * 90 / np.pi).astype(np.uint8)
    other = np.clip(scaled, 0, 255).astype(np.uint8)
    hsv = np.stack([hue, full, other] if bright_by_speed else [hue, other, full], axis=2)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)


def middlebury_picture(flow: Array, *, scale_px: float) -> Array:
    return flow_to_colour(flow, scale_px=scale_px)[..., ::-1]


def write_tree(tree: Path, draw: Any, *, num_fields: int = 5, suffix: str = ".jpg", speed_px: float = 4, quality: int = 95) -> None:
    (tree / "run" / "a").mkdir(parents=True)
    for k in range(num_fields + 1):
        frame = np.random.default_rng(k).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
        cv2.imwrite(str(tree / "run" / "a" / f"img_{k:05d}.jpg"), frame)
    for k in range(num_fields):
        for name, picture in zip("xy", draw(smooth_flow(k, speed_px)), strict=True):
            path = str(tree / "run" / "a" / f"flow_{name}_{k:05d}{suffix}")
            cv2.imwrite(path, picture, [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix == ".jpg" else [])


def outcome(tree: Path, root: Path, **settings: Any) -> str:
    report = import_tree(tree, root, settings=ImportSettings("denseflow", 20.0, **settings), jobs=1)
    return report.failed[0].error if report.failed else "done"


def grey_pair(flow: Array) -> list[Array]:
    return list(Quantiser(20, "paper").encode(flow))


def as_three_channels(flow: Array) -> list[Array]:
    return [cv2.cvtColor(plane, cv2.COLOR_GRAY2BGR) for plane in grey_pair(flow)]


def with_chroma_noise(flow: Array) -> list[Array]:
    draw = np.random.default_rng(0)
    return [np.clip(plane.astype(int) + draw.integers(-2, 3, plane.shape), 0, 255).astype(np.uint8) for plane in as_three_channels(flow)]


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("draw", [grey_pair, as_three_channels])
@pytest.mark.parametrize("speed_px", [0, 0.05, 4, 100])
def test_grey_is_accepted_in_one_channel_or_in_three(tmp_path: Path, suffix: str, draw: Any, speed_px: float) -> None:
    write_tree(tmp_path / "tree", draw, suffix=suffix, speed_px=speed_px)
    assert outcome(tmp_path / "tree", tmp_path / "root") == "done"
    with ShardReader(tmp_path / "root" / "clips" / "run" / "a.h5") as reader:
        expected = np.stack(grey_pair(smooth_flow(2, speed_px)))
        error = np.abs(reader.clip("run/a").flow(2, 3)[0].astype(int) - expected)
        assert error.max() <= (0 if suffix == ".png" else 12)


@pytest.mark.parametrize("quality", [50, 95])
def test_noise_of_jpeg_is_not_colour(tmp_path: Path, quality: int) -> None:
    write_tree(tmp_path / "tree", with_chroma_noise, quality=quality)
    assert outcome(tmp_path / "tree", tmp_path / "root") == "done"


COLOURS = {
    "hue and brightness": lambda flow: hue_picture(flow),
    "hue and saturation": lambda flow: hue_picture(flow, bright_by_speed=False),
    "Middlebury": lambda flow: middlebury_picture(flow, scale_px=10),
    "Middlebury with a wide scale": lambda flow: middlebury_picture(flow, scale_px=2000),
}


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("colours", COLOURS)
@pytest.mark.parametrize("speed_px", [0.02, 0.5, 4])
def test_flow_in_colours_is_refused_however_slow_it_is(tmp_path: Path, suffix: str, colours: str, speed_px: float) -> None:
    draw = COLOURS[colours]
    write_tree(tmp_path / "tree", lambda flow: [draw(flow), draw(flow)], suffix=suffix, speed_px=speed_px)
    assert "shows flow in colours" in outcome(tmp_path / "tree", tmp_path / "root")
    assert not list((tmp_path / "root" / "clips").rglob("*.h5"))


def test_colours_turned_to_grey_show_one_picture_twice_and_are_refused(tmp_path: Path) -> None:
    def grey_of_colours(flow: Array) -> list[Array]:
        return [cv2.cvtColor(hue_picture(flow), cv2.COLOR_BGR2GRAY)] * 2

    write_tree(tmp_path / "tree", grey_of_colours)
    assert "u and v are the same pictures" in outcome(tmp_path / "tree", tmp_path / "root")


def test_a_still_video_has_equal_u_and_v_and_is_accepted(tmp_path: Path) -> None:
    write_tree(tmp_path / "tree", lambda flow: [np.full(SIZE, 128, np.uint8)] * 2)
    assert outcome(tmp_path / "tree", tmp_path / "root") == "done"


def write_moving_video(folder: Path, *, step: int, num_frames: int, lost: int = 0) -> None:
    """A texture that moves to the right by 1 px and 6 px in turn, and its flow over `step` frames as denseflow writes it."""
    folder.mkdir(parents=True)
    texture = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (48, 300, 3), dtype=np.uint8), (0, 0), 2)
    places = [7 * (k // 2) + k % 2 for k in range(num_frames)]
    for k, place in enumerate(places):
        cv2.imwrite(str(folder / f"img_{k:05d}.jpg"), texture[:, 200 - place : 264 - place])
    for k in range(num_frames - step - lost):
        for axis, speed in (("x", places[k + step] - places[k]), ("y", 0)):
            plane = Quantiser(20, "paper").encode(np.full(SIZE, speed, np.float32))
            cv2.imwrite(str(folder / f"flow_{axis}_{k:05d}.jpg"), plane)


@pytest.mark.parametrize("step", [2, 3])
@pytest.mark.parametrize("trim", ["first", "last"])
def test_flow_over_several_frames_is_not_trimmed_into_flow_of_neighbours(tmp_path: Path, step: int, trim: str) -> None:
    write_moving_video(tmp_path / "tree" / "a", step=step, num_frames=12)
    assert f"frames {step} apart" in outcome(tmp_path / "tree", tmp_path / "root", trim=trim)


def test_flow_of_neighbours_whose_last_fields_were_lost_is_trimmed(tmp_path: Path) -> None:
    write_moving_video(tmp_path / "tree" / "a", step=1, num_frames=12, lost=1)
    assert "fits the frames much better with --trim last" in outcome(tmp_path / "tree", tmp_path / "root", trim="first")
    assert outcome(tmp_path / "tree", tmp_path / "root", trim="last") == "done"


def test_frames_of_another_size_are_resized_on_request_and_the_report_says_so(tmp_path: Path) -> None:
    write_tree(tmp_path / "tree", grey_pair)
    for k in range(6):
        frame = cv2.GaussianBlur(np.random.default_rng(k).integers(0, 255, (96, 128, 3), dtype=np.uint8), (0, 0), 4)
        cv2.imwrite(str(tmp_path / "tree" / "run" / "a" / f"img_{k:05d}.jpg"), frame)
    assert "--resize" in outcome(tmp_path / "tree", tmp_path / "root")
    report = import_tree(tmp_path / "tree", tmp_path / "root", settings=ImportSettings("denseflow", 20.0, resize=True), jobs=1)
    assert [result.error for result in report.done] == ["frames resized from 128x96 to 64x48 px"]
    with ShardReader(tmp_path / "root" / "clips" / "run" / "a.h5") as reader:
        stored = reader.clip("run/a").frames([3])[0]
    source = cv2.imread(str(tmp_path / "tree" / "run" / "a" / "img_00003.jpg"))[..., ::-1]
    assert np.abs(stored.astype(int) - cv2.resize(source, (64, 48), interpolation=cv2.INTER_AREA)).mean() < 2


def test_frames_that_were_cropped_are_not_resized(tmp_path: Path) -> None:
    write_tree(tmp_path / "tree", grey_pair)
    for k in range(6):
        cv2.imwrite(str(tmp_path / "tree" / "run" / "a" / f"img_{k:05d}.jpg"), np.zeros((64, 64, 3), np.uint8))
    assert "different proportions" in outcome(tmp_path / "tree", tmp_path / "root", resize=True)


def flat_png(height: int, width: int, *, channels: int) -> bytes:
    """A PNG of one colour: a few kB, whatever its size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0)
    rows = zlib.compress(bytes(1 + width * channels) * height, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def write_flat_tree(tree: Path, height: int, width: int, *, num_frames: int) -> None:
    (tree / "a").mkdir(parents=True)
    frame, plane = flat_png(height, width, channels=3), flat_png(height, width, channels=1)
    for k in range(num_frames):
        (tree / "a" / f"img_{k:05d}.png").write_bytes(frame)
    for k in range(num_frames - 1):
        for axis in "xy":
            (tree / "a" / f"flow_{axis}_{k:05d}.png").write_bytes(plane)


def test_the_memory_of_an_import_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    write_flat_tree(tmp_path / "tree", 1080, 1920, num_frames=24)  # 150 MB of frames, decoded
    code = """
import resource, sys
import cv2, h5py, hdf5plugin
from flowkit.exchange import import_trees
from flowkit.exchange.import_trees import ImportSettings, import_tree
from worker_tasks import run_here
import_trees.run_tasks = run_here
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
report = import_tree(sys.argv[1], sys.argv[2], settings=ImportSettings("denseflow", 20.0), jobs=1, progress=False)
assert len(report.done) == 1, report
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    line = [sys.executable, "-c", code, str(tmp_path / "tree"), str(tmp_path / "root")]
    here = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(line, env=here, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100, "MiB"


def test_an_image_that_crashes_the_decoder_fails_its_video_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    custom = tmp_path / "custom"
    custom.mkdir()
    (custom / "sitecustomize.py").write_text(
        "import os, signal, cv2\n"
        "decode = cv2.imdecode\n"
        "cv2.imdecode = lambda data, flags: os.kill(os.getpid(), signal.SIGSEGV) if b'crash' in bytes(data) else decode(data, flags)\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(custom), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr("flowkit.workers.processes._kept", [])  # processes that would not see the lines above
    write_flat_tree(tmp_path / "tree", 48, 64, num_frames=3)
    shutil.copytree(tmp_path / "tree" / "a", tmp_path / "tree" / "b")
    image = tmp_path / "tree" / "b" / "img_00001.png"
    data = image.read_bytes()
    image.write_bytes(data[:33] + b"\0\0\0\5tEXtcrash" + zlib.crc32(b"tEXtcrash").to_bytes(4, "big") + data[33:])
    report = import_tree(tmp_path / "tree", tmp_path / "root", settings=ImportSettings("denseflow", 20.0), jobs=1)
    assert [result.video_id for result in report.done] == ["a"]
    assert [(result.video_id, "killed twice" in result.error) for result in report.failed] == [("b", True)]


def test_an_image_of_more_pixels_than_an_8k_video_is_refused_by_its_header(tmp_path: Path) -> None:
    write_flat_tree(tmp_path / "tree", 48, 64, num_frames=3)
    (tmp_path / "tree" / "a" / "img_00001.png").write_bytes(flat_png(8192, 8192, channels=1))
    assert "8192x8192 px; images of up to" in outcome(tmp_path / "tree", tmp_path / "root", resize=True)
