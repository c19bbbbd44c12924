"""Tasks on a Dask cluster: run_tasks on several machines, which are several processes of Dask here."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import harmful_videos
import pytest
from click.testing import CliRunner
from dask_cluster import running_cluster
from loopback import needs_ipv6
from small_videos import SETTINGS, files_of, write_video
from worker_tasks import die_on_7, raise_on_2, square, wait_for_stop

from flowkit.cli.main import flowkit as command
from flowkit.errors import DeviceError, FlowkitError, ParameterError
from flowkit.extraction.run import extract
from flowkit.workers.stopping import StopRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("distributed", reason="needs the extra `cluster`")
from flowkit.workers.addresses import parse_address
from flowkit.workers.cluster import Cluster
from flowkit.workers.scheduler import check_scheduler


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a scheduler with two workers."""
    folder = tmp_path_factory.mktemp("cluster")
    with running_cluster(folder, harmful_videos.environment(folder / "custom")) as (_, address):
        yield address


def test_every_task_has_an_outcome(address: str, tmp_path: Path) -> None:
    with Cluster(address, tmp_path) as cluster:
        assert cluster.num_processes == 2
        outcomes = list(cluster.run_tasks(square, deque(range(10))))
    assert sorted((o.task, o.result) for o in outcomes) == [(k, k * k) for k in range(10)]
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_task_that_kills_its_process_is_set_aside_and_the_rest_is_done(address: str, tmp_path: Path) -> None:
    with Cluster(address, tmp_path) as cluster:
        outcomes = list(cluster.run_tasks(die_on_7, deque(range(4, 9))))
    assert {o.task: o.result for o in outcomes} == {4: 4, 5: 5, 6: 6, 7: None, 8: 8}
    assert [o.task for o in outcomes if o.crash] == [7]
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_task_that_the_scheduler_has_forgotten_is_handed_out_again_and_not_for_ever(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This happens to a result that was not fetched before its worker died."""
    from distributed import Client

    submit, to_forget = Client.submit, [2]

    def forgetful(client: Client, function: object, work: object, task: int, *rest: object, **options: object) -> object:
        future = submit(client, function, work, task, *rest, **options)
        if task in to_forget:  # 2 the first time, 1 every time
            to_forget[:] = [other for other in to_forget if other != 2]
            future.cancel()
        return future

    monkeypatch.setattr(Client, "submit", forgetful)
    with Cluster(address, tmp_path) as cluster:
        outcomes = list(cluster.run_tasks(square, deque(range(4))))
        assert sorted((o.task, o.result) for o in outcomes) == [(k, k * k) for k in range(4)]
        to_forget.append(1)
        with pytest.raises(DeviceError, match="has gone"):
            list(cluster.run_tasks(square, deque(range(4))))


def test_a_result_whose_connection_breaks_is_asked_for_again_and_not_for_ever(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distributed import Future
    from distributed.comm.core import CommClosedError

    fetch, broken = Future.result, [True, True]

    def result(self: Future, *arguments: object) -> object:
        if broken:
            broken.pop()
            raise CommClosedError("in <TCP (closed)>: Connection reset by peer")
        return fetch(self, *arguments)

    monkeypatch.setattr(Future, "result", result)
    with Cluster(address, tmp_path) as cluster:
        outcomes = list(cluster.run_tasks(square, deque(range(4))))
        assert sorted((o.task, o.result) for o in outcomes) == [(k, k * k) for k in range(4)]
        assert not broken
        broken.extend([True] * 1000)
        with pytest.raises(DeviceError, match="has gone; the same line resumes"):
            list(cluster.run_tasks(square, deque(range(4))))


def test_tasks_added_while_running_are_done_and_an_exception_is_raised_here(address: str, tmp_path: Path) -> None:
    with Cluster(address, tmp_path) as cluster:
        tasks, results = deque([1]), []
        for outcome in cluster.run_tasks(square, tasks):
            results.append(outcome.result)
            if outcome.task < 4:
                tasks.append(outcome.task + 1)
        assert results == [1, 4, 9, 16]
        with pytest.raises(ValueError, match="two"):
            list(cluster.run_tasks(raise_on_2, deque(range(5))))


@pytest.mark.slow
def test_a_stop_begins_nothing_new_and_ends_what_runs_after_the_grace(address: str, tmp_path: Path) -> None:
    stop, seen = StopRequest(), set()

    def tick(running: list[tuple[int, int, int]]) -> None:
        seen.update(expected for _, _, expected in running)
        if any(done > 5 for _, done, _ in running):
            stop.request()

    with Cluster(address, tmp_path) as cluster:
        outcomes = list(cluster.run_tasks(wait_for_stop, deque(range(8)), stop=stop, grace_seconds=0.3, on_tick=tick))
    assert {o.result for o in outcomes} == {"stopped"}
    assert len(outcomes) <= 2
    assert 20_000 in seen


def test_the_command_gives_the_bytes_that_one_machine_gives(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This holds also if this machine has a GPU, which a cluster does not use."""
    monkeypatch.setattr("flowkit.flow.cuda.device.has_gpu", lambda: True)
    videos = tmp_path / "videos"
    for k in range(3):
        write_video(videos / "c" / f"v{k}.avi", 6 + k, seed=k)
    (videos / "c" / "bad.avi").write_bytes(b"no video")
    arguments = ["extract", str(videos), "--data", str(tmp_path / "far"), "--short-side", "32", "--cluster", address]
    result = CliRunner().invoke(command, arguments, standalone_mode=False)
    assert result.return_value == 3, result.output
    assert "3 done, 0 skipped, 1 failed" in result.stdout
    extract(videos, tmp_path / "near", settings=SETTINGS, jobs=1)
    assert files_of(tmp_path / "far") == files_of(tmp_path / "near")
    for no_flow in (["--no-flow"], []):  # frames first, and flow later
        line = [*arguments[:3], str(tmp_path / "twice"), *arguments[4:], *no_flow]
        assert CliRunner().invoke(command, line, standalone_mode=False).return_value == 3
        assert (files_of(tmp_path / "twice") == files_of(tmp_path / "near")) == (not no_flow)


@pytest.mark.slow
def test_a_video_that_crashes_the_decoder_and_one_that_blocks_it_are_listed_and_the_rest_is_done(address: str, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    harmful_videos.write_videos(videos, 3, "crash", "hang")
    report = extract(videos, tmp_path / "data", settings=SETTINGS, cluster=address, time_limit=3)
    assert len(report.done) == 3
    failed = {result.video_id: result.error for result in report.failed}
    assert sorted(failed) == ["c/crash", "c/hang"]
    assert "killed twice" in failed["c/crash"]
    assert "no progress for 3 s" in failed["c/hang"]


@pytest.mark.slow
def test_the_end_of_the_scheduler_is_one_line(tmp_path: Path) -> None:
    """No library prints a traceback, and the run does not wait forever."""
    harmful_videos.write_videos(tmp_path / "videos", 2, "hang")
    environment = harmful_videos.environment(tmp_path / "custom")
    with running_cluster(tmp_path, environment) as (cluster, address):
        options = ["--data", str(tmp_path / "data"), "--short-side", "32", "--cluster", address]
        line = [sys.executable, "-m", "flowkit.cli", "extract", str(tmp_path / "videos"), *options]
        with subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            while not (tmp_path / "data" / "clips" / "c" / "good0.h5").exists():
                assert process.poll() is None
                time.sleep(0.05)
            cluster.kill()
            _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    lines = [text for text in errors.splitlines() if text and not text.startswith("extract: ")]
    assert lines == [f"flowkit: error: the Dask scheduler at {address} has gone; the same line resumes"], errors


@pytest.mark.slow
def test_workers_with_other_software_or_without_the_root_are_refused(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Cluster(address, tmp_path) as cluster:
        mark = next(tmp_path.iterdir())
        mark.unlink()
        with pytest.raises(FlowkitError, match="must share the data root"):
            list(cluster.run_tasks(square, deque([1])))
        monkeypatch.setattr("flowkit.workers.cluster.software_versions", lambda: {"flowkit": "0.0.0"})
        with pytest.raises(DeviceError, match="other software"):
            list(cluster.run_tasks(square, deque([1])))


def test_nobody_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowkit.workers.cluster.ANSWER_SECONDS", 1.0)
    with pytest.raises(DeviceError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        Cluster("tcp://127.0.0.1:9", tmp_path).__enter__()
    with pytest.raises(ParameterError, match="'nonsense://x' is no address of a Dask scheduler"):
        Cluster("nonsense://x", tmp_path)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(DeviceError, match=r"flowkit-video\[cluster\]"):
        Cluster("tcp://127.0.0.1:9", tmp_path).__enter__()
    assert not list(tmp_path.iterdir())


@contextmanager
def server_that_says(words: bytes) -> Iterator[int]:
    """Accept connections, say the same words on each, and read nothing; yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        connections = []

        def accept() -> None:
            with suppress(OSError):  # the end of the test
                while True:
                    connections.append(server.accept()[0])
                    connections[-1].sendall(words)

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (b"", "no answer in 1 s"),
        (b"HTTP/1.1 400 Bad Request\r\n" * 20, "no Dask scheduler"),
        (b"SSH-2.0-OpenSSH_9\r\n", "no Dask scheduler"),
    ],
)
def test_a_server_of_another_kind_is_no_scheduler(words: bytes, reason: str) -> None:
    with server_that_says(words) as port, pytest.raises(DeviceError, match=f"no Dask scheduler answers at tcp://127.*{reason}"):
        check_scheduler(f"127.0.0.1:{port}", seconds=1.0)


def test_a_name_that_no_machine_has_is_said() -> None:
    with pytest.raises(
        DeviceError, match=r"answers at tcp://no-such-machine\.invalid:8786 \(there is no machine called 'no-such-machine\.invalid'"
    ):
        check_scheduler("no-such-machine.invalid", seconds=2.0)


@needs_ipv6
def test_nobody_at_an_address_of_ipv6_is_said() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        port = server.getsockname()[1]
    with pytest.raises(DeviceError, match=rf"no Dask scheduler answers at tcp://\[::1\]:{port} \("):
        check_scheduler(f"[::1]:{port}", seconds=1.0)


@pytest.mark.slow
def test_a_command_with_a_bad_address_ends_after_its_error_and_leaves_nothing(tmp_path: Path) -> None:
    """Dask's client once kept the process for two more minutes, and then left a traceback."""
    write_video(tmp_path / "videos" / "run" / "v.avi", 3)
    line = [sys.executable, "-m", "flowkit", "extract", str(tmp_path / "videos"), "--data", str(tmp_path / "data"), "--cluster"]
    with server_that_says(b"") as port:
        for address in (f"127.0.0.1:{port}", "no-such-machine.invalid"):
            ended = subprocess.run([*line, address], capture_output=True, text=True, timeout=100, check=False)
            assert ended.returncode == 1
            assert ended.stderr.splitlines()[-1].startswith(f"flowkit: error: no Dask scheduler answers at {parse_address(address)} (")
            assert "Traceback" not in ended.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.slow  # starts Dask
def test_numbers_of_gpus_and_of_jobs_do_not_go_with_a_cluster(tmp_path: Path) -> None:
    from dataclasses import replace

    write_video(tmp_path / "videos" / "v.avi", 3)
    with pytest.raises(ParameterError, match="the workers say which GPUs there are"):
        extract(tmp_path / "videos", tmp_path / "data", settings=replace(SETTINGS, solver="cuda"), cluster="tcp://x:1", devices=(1,))
    result = CliRunner().invoke(command, ["extract", str(tmp_path / "videos"), "--cluster", "tcp://x:1", "--jobs", "2"])
    assert result.exit_code == 2
    assert "leave out --jobs" in result.output


@pytest.mark.slow  # starts Dask
def test_a_cluster_without_gpus_is_said_before_the_root_is_made(address: str, tmp_path: Path) -> None:
    from dataclasses import replace

    write_video(tmp_path / "videos" / "v.avi", 3)
    with pytest.raises(DeviceError, match=r"no worker of the cluster has a GPU; .* --resources GPU=1"):
        extract(tmp_path / "videos", tmp_path / "data", settings=replace(SETTINGS, solver="cuda"), cluster=address)
    assert not (tmp_path / "data").exists()


@pytest.mark.slow  # starts another Dask
@pytest.mark.parametrize(
    ("host", "given"),
    [
        pytest.param("[::1]", "tcp://[::1]:{port}", marks=needs_ipv6),
        pytest.param("[::1]", "[::1]:{port}", marks=needs_ipv6),
        ("localhost", "localhost:{port}"),
    ],
)
def test_a_cluster_is_reached_by_ipv6_and_by_name(host: str, given: str, tmp_path: Path) -> None:
    with running_cluster(tmp_path, harmful_videos.environment(tmp_path / "custom"), host) as (_, address):
        given = given.format(port=parse_address(address).port)
        for k in range(2):
            write_video(tmp_path / "videos" / "c" / f"v{k}.avi", 6 + k, seed=k)
        line = ["extract", str(tmp_path / "videos"), "--data", str(tmp_path / "far"), "--short-side", "32", "--cluster", given]
        result = CliRunner().invoke(command, line, standalone_mode=False)
    assert result.return_value == 0, result.output
    extract(tmp_path / "videos", tmp_path / "near", settings=SETTINGS, jobs=1)
    assert files_of(tmp_path / "far") == files_of(tmp_path / "near")
