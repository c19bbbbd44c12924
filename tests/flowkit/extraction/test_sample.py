"""Chosen frames and flow of a video file: the bytes of its clip file, solved once, in memory that does not grow with the video."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import textures

from flowkit import flow as flow_package
from flowkit.dataset.settings import ExtractSettings
from flowkit.demo_videos import write_video
from flowkit.errors import VideoDecodeError
from flowkit.extraction import sample, solving
from flowkit.extraction.jobs import VideoJob
from flowkit.extraction.one_video import extract_task
from flowkit.extraction.sample import count_frames, read_sample
from flowkit.flow.params import TVL1Params
from flowkit.quantise import Quantiser
from flowkit.shards.reader import ShardReader
from flowkit.video.decode import FrameBatch

SETTINGS = ExtractSettings(short_side=32, tvl1=TVL1Params(num_warps=1, inner_iterations=5, outer_iterations=2))
NUM_FRAMES = 40
moving_blocks = partial(textures.moving_blocks, height=36, width=48)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("videos") / "a.avi"
    write_video(path, moving_blocks(NUM_FRAMES), frame_rate=25)
    return path


def extracted(path: Path, root: Path, settings: Any) -> Any:
    """What extract makes of a video, as ``clips/a.h5``, in this process."""
    job = VideoJob("a", path, "", root, settings, path.stat().st_size, 0)
    return extract_task(job, SimpleNamespace(stopping=False, note=lambda *_: None, alive=lambda: None)).video


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"codec": "jpeg"},
        {"solver": "fast", "quantiser": Quantiser(4.0, "paper"), "tvl1": TVL1Params(num_scales=2, num_warps=2, median_size=1)},
        {"short_side": 48},
    ],
)
def test_frames_and_fields_are_the_bytes_of_the_clip(path: Any, tmp_path: Path, changes: dict[str, Any]) -> None:
    settings = replace(SETTINGS, **changes)
    assert extracted(path, tmp_path, settings).status == "ok"
    frames, fields = [0, 7, 8, 30, 39], [0, 1, 2, 4, 6, 7, *range(12, 31), 38]
    images, q, times = read_sample(path, frames=frames, fields=fields, settings=settings, num_threads=3)
    with ShardReader(tmp_path / "clips" / "a.h5") as shard:
        clip = shard.clip("a")
        assert np.array_equal(images, clip.frames(frames))
        assert np.array_equal(q, clip.flow(0, NUM_FRAMES - 1)[fields])
        assert clip.times is not None
        assert times is not None
        assert times.tolist() == clip.times[frames].tolist()


def test_only_the_fields_that_are_asked_for_are_solved_each_once(path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    solved, solve = [], flow_package.compute_flow

    def counted(frames: Any, **settings: Any) -> Any:
        solved.append(len(frames) - 1)
        return solve(frames, **settings)

    counts = []
    flow_package.warm_up("strict")
    monkeypatch.setattr(solving, "compute_flow", counted)
    monkeypatch.setattr(sample, "prepare_solver", lambda settings: None)
    fields = [3, *range(10, 30), 33, 35]
    read_sample(path, frames=[5], fields=fields, settings=SETTINGS, num_threads=2, on_field=counts.append)
    assert sum(solved) == len(fields)
    assert max(solved) == sample.PAIRS_AT_ONCE
    assert counts == sorted(counts)
    assert counts[-1] == len(fields)


def test_the_gpu_solver_is_given_the_pairs_of_neighbours_and_the_quantiser(path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from flowkit.flow.cuda import solver as cuda

    class Recorder:
        def __init__(self, height: int, width: int, params: Any, *, device_index: Any, bound: Any, mapping: Any, max_pairs: Any) -> None:
            assert (height, width, params, device_index, bound, mapping, max_pairs) == (32, 42, SETTINGS.tvl1, 1, 5.0, "paper", 5)

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *error: Any) -> None:
            pass

        def solve(self, greys: Any, pairs: Any) -> Any:
            flow = [flow_package.compute_flow(greys[[first, second]], params=SETTINGS.tvl1)[0] for first, second in pairs]
            return Quantiser(5.0, "paper").encode(np.stack(flow))

    monkeypatch.setattr(cuda, "CudaSolver", Recorder)
    settings = replace(SETTINGS, quantiser=Quantiser(5.0, "paper"))
    fields = [2, 3, 5, 20, 38]
    _, q, _ = read_sample(path, frames=[5], fields=fields, settings=replace(settings, solver="cuda"), device_index=1)
    assert np.array_equal(q, read_sample(path, frames=[5], fields=fields, settings=settings)[1])


def test_counts_and_statuses_are_those_of_extract(path: Any, tmp_path: Path) -> None:
    whole = path.read_bytes()
    files = {"whole.avi": whole, "cut.avi": whole[: len(whole) // 2], "noise.avi": b"no video" * 99, "empty.avi": b""}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    write_video(tmp_path / "one.avi", moving_blocks(1), frame_rate=25)
    write_video(tmp_path / "two.avi", moving_blocks(2), frame_rate=25)
    statuses = {}
    for file in sorted(tmp_path.glob("*.avi")):
        mine = count_frames(file, short_side=32)
        theirs = extracted(file, tmp_path / file.stem, SETTINGS)
        names = ("status", "num_frames", "header_frames", "decode_errors", "error")
        assert {name: getattr(mine, name) for name in names} == {name: getattr(theirs, name) for name in names}
        statuses[file.stem] = mine.status
    assert statuses == {
        "cut": "damaged",
        "empty": "undecodable",
        "noise": "undecodable",
        "one": "short",
        "two": "ok",
        "whole": "ok",
    }


def test_a_video_that_has_become_shorter_is_an_error(path: Any) -> None:
    with pytest.raises(VideoDecodeError, match="fewer than 41 frames"):
        read_sample(path, frames=[40], fields=[3], settings=SETTINGS)


def test_memory_does_not_grow_with_the_video_and_decoding_ends_with_the_last_frame_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    handed_out = 0

    def endless(path: Path, *, short_side: Any, reading: Any) -> Iterator[Any]:
        nonlocal handed_out
        for start in range(0, 1_000_000, 16):
            handed_out = start + 16
            yield FrameBatch(np.full((16, 32, 42, 3), start % 251, np.uint8), start, 0)

    monkeypatch.setattr(sample, "read_frames", endless)
    flow_package.warm_up("strict")
    peaks = []
    for last in (1_000, 20_000):
        tracemalloc.start()
        read_sample("x.avi", frames=[5, last], fields=[5, last - 1], settings=SETTINGS)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert last < handed_out <= last + 16
    assert peaks[1] < 1.2 * peaks[0]
