"""Reading clips: any window, from any process or thread, into the array of the caller, and no more than was requested."""

from __future__ import annotations

import multiprocessing
import pickle
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest
from shard_files import HEIGHT, WIDTH, write_clip

from flowkit.errors import ParameterError, ShardFormatError
from flowkit.shards.reader import ShardReader
from flowkit.shards.writer import write_shard

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def shard(tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    flows = {f"c/{k}": write_clip(tmp_path / f"{k}.h5", f"c/{k}", num_frames=20, seed=k)[1] for k in range(4)}
    write_shard(tmp_path / "shard.h5", [tmp_path / f"{k}.h5" for k in range(4)])
    return tmp_path / "shard.h5", flows


def read_at_random(reader: ShardReader, flows: dict[str, np.ndarray], seed: int, num_reads: int = 50) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(num_reads):
        video_id = f"c/{rng.integers(4)}"
        start = int(rng.integers(19))
        stop = int(rng.integers(start, 20))
        clip = reader.clip(video_id)
        assert np.array_equal(clip.flow(start, stop), flows[video_id][start:stop])
        assert clip.frames([start]).shape == (1, HEIGHT, WIDTH, 3)


def test_ten_thousand_random_reads_equal_what_was_written(shard: tuple[Path, dict[str, np.ndarray]]) -> None:
    path, flows = shard
    with ShardReader(path) as reader:
        read_at_random(reader, flows, 0, num_reads=10_000)


def _worker(reader: ShardReader, flows: dict[str, np.ndarray], seed: int) -> None:
    read_at_random(reader, flows, seed)


def test_frames_may_be_a_slice_and_one_number_is_explained(shard: tuple[Path, dict[str, np.ndarray]]) -> None:
    with ShardReader(shard[0]) as reader:
        clip = reader.clip(reader.video_ids[0])
        np.testing.assert_array_equal(clip.frames(slice(-3, None)), clip.frames(range(clip.num_frames - 3, clip.num_frames)))
        for wrong in (3, None):
            with pytest.raises(TypeError, match=r"frames takes a sequence of indices, such as \["):
                clip.frames(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_eight_workers_read_from_one_reader(shard: tuple[Path, dict[str, np.ndarray]], method: str) -> None:
    path, flows = shard
    context = multiprocessing.get_context(method)
    with ShardReader(path) as reader:
        read_at_random(reader, flows, 99)  # open in the parent already
        workers = [context.Process(target=_worker, args=(reader, flows, seed)) for seed in range(8)]
        for worker in workers:
            worker.start()
        read_at_random(reader, flows, 98)
        for worker in workers:
            worker.join()
        assert [worker.exitcode for worker in workers] == [0] * 8


def test_threads_share_a_reader(shard: tuple[Path, dict[str, np.ndarray]]) -> None:
    path, flows = shard
    failures: list[BaseException] = []

    def guarded(run: Callable[[], None]) -> None:
        try:
            run()
        except BaseException as error:
            failures.append(error)

    with ShardReader(path) as reader:
        threads = [threading.Thread(target=guarded, args=(lambda s=s: read_at_random(reader, flows, s),)) for s in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []


def test_readers_and_clips_can_be_pickled(shard: tuple[Path, dict[str, np.ndarray]]) -> None:
    path, flows = shard
    reader = ShardReader(path)
    clip = reader.clip("c/2")
    again, clip_again = pickle.loads(pickle.dumps((reader, clip)))
    assert again.video_ids == reader.video_ids
    assert np.array_equal(clip_again.flow(3, 9), flows["c/2"][3:9])
    assert len(pickle.dumps(reader)) < 500
    reader.close()
    again.close()


def test_a_closed_reader_opens_again_and_reads_a_replaced_file(shard: tuple[Path, dict[str, np.ndarray]], tmp_path: Path) -> None:
    path, flows = shard
    reader = ShardReader(path)
    assert len(reader.video_ids) == 4
    reader.close()
    write_shard(path, [tmp_path / "1.h5"])
    assert reader.video_ids == ("c/1",)
    assert np.array_equal(reader.clip("c/1").flow(0, 19), flows["c/1"])
    reader.close()


def test_a_file_that_is_replaced_while_it_is_open_is_read_on_or_refused_but_never_mixed(
    shard: tuple[Path, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    """`pack` may replace a shard while a training run reads it; the offsets of one mean nothing in the other."""
    path, flows = shard
    with ShardReader(path) as reader:
        clip = reader.clip("c/0")
        write_shard(path, [tmp_path / f"{k}.h5" for k in (3, 1, 0, 2)])
        assert np.array_equal(clip.flow(0, 19), flows["c/0"])
        with pytest.raises(ShardFormatError, match="was replaced while it was being read"):
            reader.clip("c/1")
        reader.close()
        assert np.array_equal(reader.clip("c/1").flow(0, 19), flows["c/1"])


def test_pixels_go_where_the_caller_wants_them(shard: tuple[Path, dict[str, np.ndarray]]) -> None:
    path, flows = shard
    with ShardReader(path) as reader:
        clip = reader.clip("c/0")
        flow, frames = np.zeros((5, 2, HEIGHT, WIDTH), np.uint8), np.zeros((2, HEIGHT, WIDTH, 3), np.uint8)
        assert clip.flow(2, 7, out=flow) is flow
        assert np.array_equal(flow, flows["c/0"][2:7])
        assert clip.frames([1, 8], out=frames) is frames
        assert np.array_equal(frames, clip.frames([1, 8]))
        for wrong in (flow[:4], flow.astype(np.int8), flow[:, :, :, ::-1]):
            with pytest.raises(ParameterError, match="out"):
                clip.flow(2, 7, out=wrong)  # type: ignore[arg-type]


def test_windows_and_frames_outside_the_video_are_refused(shard: tuple[Path, dict[str, np.ndarray]]) -> None:
    with ShardReader(shard[0]) as reader:
        clip = reader.clip("c/0")
        for start, stop in ((-1, 3), (5, 4), (0, 20), (19, 20)):
            with pytest.raises(ParameterError, match="flow fields 0 to 18"):
                clip.flow(start, stop)
        for index in (-1, 20):
            with pytest.raises(ParameterError, match="frames 0 to 19"):
                clip.frames([0, index])
        with pytest.raises(TypeError, match="float"):
            clip.frames([1.7])  # type: ignore[list-item]
        with pytest.raises(TypeError, match="float"):
            clip.flow(0, 1.9)  # type: ignore[arg-type]
        assert clip.flow(4, 4).shape == (0, 2, HEIGHT, WIDTH)
        assert clip.frames([]).shape == (0, HEIGHT, WIDTH, 3)
        with pytest.raises(ShardFormatError, match="does not contain"):
            reader.clip("c/9")


def test_a_window_reads_little_more_than_its_own_chunks(shard: tuple[Path, dict[str, np.ndarray]], monkeypatch: pytest.MonkeyPatch) -> None:
    with ShardReader(shard[0]) as reader:
        clip = reader.clip("c/1")
        asked: list[int] = []
        read = reader.data.read
        monkeypatch.setattr(reader.data, "read", lambda start, size: asked.append(size) or read(start, size))
        clip.flow(4, 14)
        needed = int(clip._layout.flow.sizes[4:14].sum())  # type: ignore[union-attr]
    assert needed <= sum(asked) <= needed + 4096
    assert len(asked) == 1


def test_a_reader_is_a_collection_of_video_ids(shard: tuple[Path, dict[str, np.ndarray]]) -> None:
    path, flows = shard
    with ShardReader(path) as reader:
        assert list(reader) == list(reader.video_ids) == sorted(flows)
        assert len(reader) == len(flows)
        assert "c/2" in reader
        assert "c/none" not in reader
        assert len(reader.clip("c/2")) == len(flows["c/2"]) + 1
