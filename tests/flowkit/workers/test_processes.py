"""Running tasks in processes: any order, at most one task lost to a killed process, clean stops."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import deque
from pathlib import Path

import pytest
from worker_tasks import die_on_7, die_once, raise_on_2, square, terminate_itself, wait_for_stop

from flowkit.workers.processes import run_tasks
from flowkit.workers.stopping import StopRequest


def test_every_task_has_an_outcome() -> None:
    outcomes = list(run_tasks(square, deque(range(20)), jobs=2))
    assert sorted((o.task, o.result) for o in outcomes) == [(k, k * k) for k in range(20)]


def test_a_task_that_kills_its_process_is_set_aside_and_the_rest_is_done() -> None:
    outcomes = {o.task: o for o in run_tasks(die_on_7, deque(range(12)), jobs=2)}
    assert sorted(outcomes) == list(range(12))
    assert outcomes[7].result is None
    assert "killed twice" in (outcomes[7].crash or "")
    assert all(outcomes[k].result == k and outcomes[k].crash is None for k in range(12) if k != 7)


def test_a_process_killed_once_costs_nothing(tmp_path: Path) -> None:
    outcomes = list(run_tasks(die_once, deque([str(tmp_path / "a")]), jobs=1))
    assert [o.crash for o in outcomes] == [None]


def test_an_exception_of_the_function_is_raised_here() -> None:
    with pytest.raises(ValueError, match="two"):
        list(run_tasks(raise_on_2, deque(range(5)), jobs=1))


def test_tasks_added_while_running_are_done() -> None:
    tasks = deque([1])
    results = []
    for outcome in run_tasks(square, tasks, jobs=1):
        results.append(outcome.result)
        if outcome.task < 4:
            tasks.append(outcome.task + 1)
    assert results == [1, 4, 9, 16]


def test_a_stop_begins_nothing_new_and_ends_what_runs_after_the_grace() -> None:
    stop = StopRequest()
    seen: list[tuple[int, int, int]] = []

    def tick(running: list[tuple[int, int, int]]) -> None:
        seen.extend(running)
        if any(done > 5 for _, done, _ in running):
            stop.request()

    outcomes = list(run_tasks(wait_for_stop, deque(range(10)), jobs=1, stop=stop, grace_seconds=0.5, on_tick=tick))
    assert [o.result for o in outcomes] == ["stopped"]
    assert any(expected == 20_000 for _, _, expected in seen)


PARENT = """
import sys
from collections import deque
sys.path[:0] = {folders!r}
from flowkit.workers.processes import run_tasks
from worker_tasks import wait_with_pid
if __name__ == "__main__":
    list(run_tasks(wait_with_pid, deque([{marker!r}]), jobs=1))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX's parents")
def test_processes_end_when_their_parent_was_killed(tmp_path: Path) -> None:
    marker, script = tmp_path / "pid", tmp_path / "parent.py"
    script.write_text(PARENT.format(folders=[str(Path(__file__).parent), str(Path(__file__).parents[2] / "support")], marker=str(marker)))
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as parent:
        while not marker.exists():
            assert parent.poll() is None
            time.sleep(0.05)
        parent.kill()
        parent.communicate(timeout=1000)  # returns when no process holds the pipe any more


def test_sigterm_to_all_processes_leaves_it_to_the_parent_to_stop() -> None:
    outcomes = list(run_tasks(terminate_itself, deque(range(3)), jobs=1))
    assert sorted((o.task, o.result, o.crash) for o in outcomes) == [(k, k, None) for k in range(3)]
