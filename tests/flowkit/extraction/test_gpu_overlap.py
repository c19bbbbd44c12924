"""While the process of a GPU solves, its worker decodes, encodes and compresses; what it writes and reports does not depend on that."""

from __future__ import annotations

import weakref
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from small_videos import SETTINGS as SMALL
from small_videos import files_of, write_video
from stand_in_solver import gated_solver, steady_flow, steady_solver

from flowkit.errors import DeviceError, ParameterError, VideoDecodeError
from flowkit.extraction import one_video, run, solving
from flowkit.extraction.jobs import PieceJob, TaskResult
from flowkit.extraction.new_clip import clip_attributes
from flowkit.extraction.pieces import PieceReader, find_pieces
from flowkit.extraction.plan import make_plan
from flowkit.extraction.results import VideoResult
from flowkit.extraction.schedule import make_tasks, run_task
from flowkit.extraction.segments import extract as segments
from flowkit.files import file_sha256
from flowkit.flow import to_grey
from flowkit.flow.cuda.connections import FlowConnections
from flowkit.shards.writer import ClipWriter
from flowkit.video.decode import probe, read_frames
from flowkit.workers.stopping import StopRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from flowkit.extraction.jobs import Task, VideoJob
    from flowkit.video.decode import FrameBatch

SETTINGS = replace(SMALL, solver="cuda")
NUM_FRAMES = 23
ADDRESS: Any = object()


class Gpu:
    """In place of the process of a GPU: its connections answer at once, and tell what is asked of them and when."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.num_asked = self.num_waiting = self.most_waiting = 0
        self.fails_at: Mapping[int, BaseException] = {}

    def connect(self) -> Any:
        gpu = self

        class Client:
            number, is_asked, grey = 0, False, np.empty(0)

            def begin(self, grey: Any, *, are_pairs: bool = False) -> None:
                assert not self.is_asked, "a connection has one request at a time"
                self.is_asked, self.number, self.flow = True, gpu.num_asked, steady_flow(grey, are_pairs=are_pairs)
                gpu.num_asked, gpu.num_waiting = gpu.num_asked + 1, gpu.num_waiting + 1
                gpu.most_waiting = max(gpu.most_waiting, gpu.num_waiting)
                gpu.events.append(f"ask {self.number}")

            def finish(self) -> Any:
                assert self.is_asked, "nothing was asked"
                self.is_asked, gpu.num_waiting = False, gpu.num_waiting - 1
                gpu.events.append(f"wait {self.number}")
                if self.number in gpu.fails_at:
                    raise gpu.fails_at[self.number]
                return self.flow

        return Client()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """A GPU whose worker is this process; frames are decoded four at a time."""
    gpu = Gpu()
    connections = FlowConnections(gpu.connect)
    monkeypatch.setattr(solving, "service_connections", lambda address: connections)
    for module in (one_video, segments):
        monkeypatch.setattr(module, "BATCH_SIZE", 4)
    monkeypatch.setattr(solving, "LONG_WAIT_SECONDS", 1e9)
    return gpu


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for seed, name in enumerate("ab"):
        write_video(folder / "class" / f"{name}.avi", NUM_FRAMES, seed=seed)
    return folder


def jobs_of(videos: Path, root: Path, settings: Any = SETTINGS, **others: Any) -> list[VideoJob]:
    jobs = [replace(job, service=ADDRESS) for job in make_plan(videos, root, settings=settings, **others).jobs]
    return sorted(jobs, key=lambda job: job.video_id)


def perform(task: Task, *, stops: Callable[[], bool] = lambda: False, noted: list[int] | None = None) -> TaskResult:
    class Progress:
        stopping = property(lambda self: stops())

        def note(self, done: int, expected: int = 0) -> None:
            if noted is not None:
                noted.append(done)

        def alive(self) -> None:
            pass

    return run_task(task, Progress())


def expected_clip(job: VideoJob, path: Path) -> bytes:
    """Return the clip file of a job as one straight line of steps makes it."""
    frames = np.concatenate([batch.frames for batch in read_frames(job.path, short_side=32)])
    times = np.concatenate([batch.times for batch in read_frames(job.path, short_side=32) if batch.times is not None])
    info = probe(job.path)
    result = VideoResult(job.video_id, "ok", 0, 0, num_frames=len(frames), header_frames=info.header_frames)
    with ClipWriter(path, codec=job.settings.codec, height=frames.shape[1], width=frames.shape[2]) as writer:
        writer.append_frames(frames)
        writer.append_flow(steady_flow(to_grey(frames)))
        writer.finish(clip_attributes(job, info.frame_rate, result, sha256=file_sha256(job.path)), times=times)
    return path.read_bytes()


@pytest.mark.parametrize("codec", ["zstd", "jpeg"])
@pytest.mark.parametrize("ahead", [1, 2, 3])
def test_the_bytes_do_not_depend_on_how_many_batches_are_in_flight(
    ahead: int, codec: str, gpu: Gpu, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(solving, "BATCHES_AHEAD", ahead)
    jobs = jobs_of(videos, tmp_path / "data", replace(SETTINGS, codec=codec))
    noted: list[int] = []
    results = [perform(job, noted=noted) for job in jobs]
    assert [result.video.status for result in results if result.video] == ["ok", "ok"]
    assert noted == 2 * [3, 7, 11, 15, 19, 22]
    assert gpu.most_waiting == ahead
    for job in jobs:
        assert job.clip_path.read_bytes() == expected_clip(job, tmp_path / "expected.h5")


def test_while_flow_is_solved_its_frames_are_encoded_and_the_next_are_decoded_and_older_flow_is_compressed(
    gpu: Gpu, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tell(name: str, owner: Any, method: str) -> None:
        function = getattr(owner, method)

        def told(self: Any, *arguments: Any) -> Any:
            gpu.events.append(name)
            return function(self, *arguments)

        monkeypatch.setattr(owner, method, told)

    def decoded(*arguments: Any, **others: Any) -> Iterator[FrameBatch]:
        for batch in read_frames(*arguments, **others):
            gpu.events.append("decode")
            yield batch

    tell("encode", ClipWriter, "append_frames")
    tell("compress", ClipWriter, "append_flow")
    monkeypatch.setattr(one_video, "read_frames", decoded)
    perform(jobs_of(videos, tmp_path / "data")[0])
    expected = ["decode", "ask 0", "encode", "decode", "ask 1", "encode"]
    for k in range(4):
        expected += ["decode", f"ask {k + 2}", "encode", f"wait {k}", "compress"]
    assert gpu.events == [*expected, "wait 4", "compress", "wait 5", "compress"]


@pytest.mark.parametrize(("most_bytes", "ahead"), [(1 << 27, 3), (5 * 42 * 32 * (5 + 5), 2), (5 * 42 * 32 * 5 + 1, 1), (1, 1)])
def test_what_is_in_flight_takes_so_much_memory_at_most(
    most_bytes: int, ahead: int, gpu: Gpu, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five frames of 42x32 px, with the last one of the batch before, take 5 bytes per pixel with the memory for their flow."""
    monkeypatch.setattr(solving, "BYTES_AHEAD", most_bytes)
    alive: weakref.WeakSet[FrameBatch] = weakref.WeakSet()
    most_alive = 0

    def decoded(*arguments: Any, **others: Any) -> Iterator[FrameBatch]:
        nonlocal most_alive
        for batch in read_frames(*arguments, **others):
            alive.add(batch)
            most_alive = max(most_alive, len(alive))
            yield batch

    monkeypatch.setattr(one_video, "read_frames", decoded)
    job = jobs_of(videos, tmp_path / "data")[0]
    perform(job)
    assert gpu.most_waiting == ahead
    assert ahead <= most_alive <= ahead + 2  # one more that is decoded, and one whose flow has just been compressed
    assert job.clip_path.read_bytes() == expected_clip(job, tmp_path / "expected.h5")


def test_a_worker_of_a_slow_gpu_has_one_batch_in_flight_once_it_knows(
    gpu: Gpu, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(solving, "LONG_WAIT_SECONDS", 0.0)
    job = jobs_of(videos, tmp_path / "data")[0]
    perform(job)
    begun = ["ask 0", "ask 1", "ask 2", "wait 0", "wait 1", "wait 2"]
    assert gpu.events == begun + [f"{what} {k}" for k in range(3, 6) for what in ("ask", "wait")]
    assert job.clip_path.read_bytes() == expected_clip(job, tmp_path / "expected.h5")


@pytest.mark.parametrize("at", [0, 2, 5])
def test_flow_that_overflows_fails_its_video_and_the_next_one_gets_its_own_flow(at: int, gpu: Gpu, videos: Path, tmp_path: Path) -> None:
    gpu.fails_at = {at: ParameterError("the flow is not finite")}
    first, second = jobs_of(videos, tmp_path / "data")
    result = perform(first).video
    assert result is not None
    assert (result.status, result.error) == ("failed", "ParameterError: the flow is not finite")
    assert files_of(tmp_path / "data") == {}
    assert gpu.num_waiting == 0
    assert perform(second).video is not None
    assert second.clip_path.read_bytes() == expected_clip(second, tmp_path / "expected.h5")


def test_a_device_that_fails_ends_the_run_and_nothing_stays_in_flight(gpu: Gpu, videos: Path, tmp_path: Path) -> None:
    gpu.fails_at = {1: DeviceError("the device is gone")}
    with pytest.raises(DeviceError, match="the device is gone"):
        perform(jobs_of(videos, tmp_path / "data")[0])
    assert gpu.num_waiting == 0
    assert files_of(tmp_path / "data") == {}


@pytest.mark.parametrize("flow_fails", [False, True])
def test_of_two_errors_the_one_that_comes_first_in_the_video_is_reported(
    flow_fails: bool, gpu: Gpu, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decoded(*arguments: Any, **others: Any) -> Iterator[FrameBatch]:
        for k, batch in enumerate(read_frames(*arguments, **others)):
            if k == 3:
                raise VideoDecodeError("is encrypted from here on")
            yield batch

    monkeypatch.setattr(one_video, "read_frames", decoded)
    if flow_fails:
        gpu.fails_at = {2: ParameterError("the flow is not finite")}
    result = perform(jobs_of(videos, tmp_path / "data")[0]).video
    assert result is not None
    assert result.error == ("ParameterError: the flow is not finite" if flow_fails else "is encrypted from here on")
    assert gpu.num_waiting == 0


def test_a_run_that_is_stopped_keeps_all_flow_of_a_long_video_that_was_asked_for(gpu: Gpu, videos: Path, tmp_path: Path) -> None:
    job = jobs_of(videos, tmp_path / "data")[0]
    result = perform(PieceJob(job, 0, None, 22, 1), stops=lambda: gpu.num_asked == 4)
    assert result.stopped
    found = find_pieces(job.piece_folder)
    assert [(piece.start, piece.stop) for piece in found] == [(0, 15)]
    assert gpu.num_waiting == 0
    frames = np.concatenate([batch.frames for batch in read_frames(job.path, short_side=32)])
    with PieceReader(found) as reader:
        np.testing.assert_array_equal(reader.read(15, 32, 42), steady_flow(to_grey(frames[:16])))
    assert perform(PieceJob(job, 15, None, 7, 1)).num_pairs == 7
    assert perform(replace(job, pieces=tuple(find_pieces(job.piece_folder)))).video is not None
    assert job.clip_path.read_bytes() == expected_clip(job, tmp_path / "expected.h5")


@pytest.mark.parametrize("ahead", [1, 3])
@pytest.mark.parametrize("camera_motion", ["none", "flow"])
def test_segments_and_flow_without_camera_motion_have_the_same_bytes_with_any_number_in_flight(
    camera_motion: str, ahead: int, gpu: Gpu, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three segments of one file, of which two overlap; what solves them one after the other is the measure."""
    (tmp_path / "list.csv").write_text("video_id,start_frame,end_frame\nclass/a,0,9\nclass/a,4,20\nclass/a,20,23\n")
    settings, files = replace(SETTINGS, camera_motion=camera_motion), []
    for name, number in (("first", 1), ("second", ahead)):
        monkeypatch.setattr(solving, "BATCHES_AHEAD", number)
        (task,) = make_tasks(jobs_of(videos, tmp_path / name, settings, segments=tmp_path / "list.csv"), 1)
        result = perform(task)
        assert [segment.status for segment in result.segments] == ["ok", "ok", "ok"]
        assert result.num_pairs == 8 + 15 + 2
        files.append(files_of(tmp_path / name))
    assert len(files[0]) == 3
    assert files[0] == files[1]
    assert gpu.most_waiting == ahead
    assert gpu.num_waiting == 0


def test_a_segment_that_fails_after_another_has_ended_leaves_that_one(gpu: Gpu, videos: Path, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("video_id,start_frame,end_frame\nclass/a,0,4\nclass/a,4,23\n")
    gpu.fails_at = {2: ParameterError("the flow is not finite")}
    (task,) = make_tasks(jobs_of(videos, tmp_path / "data", segments=tmp_path / "list.csv"), 1)
    statuses = {segment.video_id: segment.status for segment in perform(task).segments}
    assert sorted(statuses.values()) == ["failed", "ok"]
    assert len(files_of(tmp_path / "data")) == 1
    assert gpu.num_waiting == 0


def test_without_a_gpu_one_batch_is_solved_and_written_after_the_other(videos: Path, tmp_path: Path) -> None:
    flows = solving.FlowQueue(SMALL, None)
    assert flows.most_ahead == 1
    assert flows.most_ahead == solving.FlowQueue(SETTINGS.frames_only(), ADDRESS).most_ahead


@pytest.mark.usefixtures("kept_workers")
def test_workers_beside_the_process_of_a_gpu_write_these_bytes_too(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole run, with processes; two of them share the second video."""
    monkeypatch.setattr(run, "check_gpus", lambda devices: None)
    monkeypatch.setattr(run, "_cuda_solver", steady_solver)
    write_video(tmp_path / "videos" / "class" / "long.avi", 120)
    write_video(tmp_path / "videos" / "class" / "short.avi", 5)
    report = run.extract(tmp_path / "videos", tmp_path / "data", settings=SETTINGS, jobs=2, progress=False)
    assert [result.status for result in report.done] == ["ok", "ok"]
    for job in make_plan(tmp_path / "videos", tmp_path / "other", settings=SETTINGS).jobs:
        there = tmp_path / "data" / job.clip_path.relative_to(tmp_path / "other")
        assert there.read_bytes() == expected_clip(job, tmp_path / "expected.h5")


def test_a_run_that_is_stopped_beside_the_process_of_a_gpu_is_continued_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The solver holds the sixth batch until the worker has been told to stop."""
    stop, gate = StopRequest(), tmp_path / "gate"  # the solver tells by another file that it holds a batch
    monkeypatch.setattr(run, "check_gpus", lambda devices: None)
    monkeypatch.setattr(run, "_cuda_solver", partial(gated_solver, gate=gate, num_before=5))
    write_video(tmp_path / "videos" / "class" / "long.avi", 1000)

    def on_progress(progress: run.ExtractProgress) -> None:
        if stop.requested():
            gate.touch()
        elif gate.with_suffix(".held").exists():
            stop.request()

    arguments: Any = {"settings": SETTINGS, "jobs": 1, "progress": False}
    report = run.extract(tmp_path / "videos", tmp_path / "data", stop=stop, grace_seconds=0, on_progress=on_progress, **arguments)
    assert (len(report.done), report.pending) == (0, 1)
    assert find_pieces(jobs_of(tmp_path / "videos", tmp_path / "data")[0].piece_folder)[-1].stop >= 5 * 16 - 1
    assert len(run.extract(tmp_path / "videos", tmp_path / "data", **arguments).done) == 1
    (job,) = make_plan(tmp_path / "videos", tmp_path / "other", settings=SETTINGS).jobs
    there = tmp_path / "data" / job.clip_path.relative_to(tmp_path / "other")
    assert there.read_bytes() == expected_clip(job, tmp_path / "expected.h5")


def test_an_answer_that_nobody_waited_for_is_not_that_to_the_next_request(gpu: Gpu) -> None:
    closed: list[object] = []

    def connect() -> Any:
        client = gpu.connect()
        client.close = lambda: closed.append(client)
        return client

    connections, interrupt = FlowConnections(connect), KeyboardInterrupt()
    gpu.fails_at = {0: interrupt}
    grey = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    with pytest.raises(KeyboardInterrupt):
        connections.begin(grey).result()
    assert len(closed) == 1
    connections.begin(grey).result()
    np.testing.assert_array_equal(connections.begin(grey[::-1]).result(), steady_flow(grey[::-1]))
    connections.close()
    assert len(closed) == 2
