"""Ctrl-C and SIGTERM on the command line: the exit code, the command that resumes, and what is kept."""

from __future__ import annotations

import json
import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest

from flowkit.cli.main import main
from flowkit.cli.shared.stopping import Terminated, resume_command, signals_to, stop_signals
from flowkit.dataset import packing as pack
from flowkit.exchange.export_trees import export
from flowkit.workers.stopping import StopRequest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments)])
    return int(ended.value.code or 0)


def after(number: int, signum: int) -> Callable[..., None]:
    """Return a listener that sends this process a signal at its `number`-th call."""
    calls: list[object] = []

    def listen(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) == number:
            os.kill(os.getpid(), signum)

    return listen


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_command_that_is_stopped_names_the_command_that_resumes(
    root: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, signum: int, code: int
) -> None:
    original = pack.pack
    monkeypatch.setattr("flowkit.dataset.packing.pack", lambda *arguments, **options: after(1, signum)() or original(*arguments, **options))
    assert run("pack", "--data", root, "--lists", "automatic") == code
    out, err = capfd.readouterr()
    assert out == ""
    assert err.strip() == f"stopped; to resume: flowkit pack --data {root} --lists automatic"


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_import_that_is_stopped_keeps_what_is_done_and_reports_it(
    root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, signum: int, code: int
) -> None:
    export(root, tmp_path / "tree", layout="rawframes")
    listen = after(2, signum)
    monkeypatch.setattr("flowkit.dataset.progress.ProgressBar.update", lambda self, done, *total, **note: listen(done))
    arguments = ["import", str(tmp_path / "tree"), "--data", str(tmp_path / "data"), "--jobs", "1"]
    monkeypatch.setattr("sys.argv", ["flowkit", *arguments])
    assert run(*arguments) == code
    assert "stopped; to resume: flowkit import" in capfd.readouterr().err
    counts = json.loads((tmp_path / "data" / "import-report.json").read_text())["counts"]
    assert counts == {"done": 2, "skipped": 0, "failed": 0, "pending": 16}
    assert len(list((tmp_path / "data" / "clips").rglob("*.h5"))) == 2


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> list[threading.Timer]:
    """The timers that are started meanwhile; their time is up when a test calls their function."""
    started: list[threading.Timer] = []
    monkeypatch.setattr("threading.Timer.start", lambda timer: started.append(timer))
    return started


def test_training_whose_step_outlasts_the_grace_period_is_stopped(timers: list[threading.Timer], capfd: pytest.CaptureFixture[str]) -> None:
    with stop_signals(0.2) as stop:
        os.kill(os.getpid(), signal.SIGINT)
        (timer,) = timers
        assert timer.interval == 0.2
        with pytest.raises(KeyboardInterrupt):
            timer.function(*timer.args)
    assert stop.signal_number == signal.SIGINT
    assert "the current step may take 0.2 s more; press Ctrl-C again to stop at once" in capfd.readouterr().err


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_stops_at_once(signum: int) -> None:
    stop = StopRequest()
    with signals_to(stop, 20):
        os.kill(os.getpid(), signum)
        assert stop.signal_number == signum
        with pytest.raises((KeyboardInterrupt, Terminated)) as ended:
            os.kill(os.getpid(), signum)
    assert getattr(ended.value, "code", 130) == 128 + signum


def test_training_that_finished_its_step_has_time_for_its_checkpoint(timers: list[threading.Timer]) -> None:
    with stop_signals(0.2) as stop:
        assert not stop.asked()
        os.kill(os.getpid(), signal.SIGINT)
        (timer,) = timers
        assert not timer.finished.is_set()
        assert stop.asked()
        assert timer.finished.is_set()  # it will do nothing


@pytest.mark.parametrize("world", [None, "2"])
def test_the_command_that_resumes_does_not_start_again(monkeypatch: pytest.MonkeyPatch, world: str | None) -> None:
    if world:
        monkeypatch.setenv("WORLD_SIZE", world)
    start = "torchrun ... -m -- flowkit.cli" if world else "flowkit"
    assert resume_command(["train", "--restart", "--run", "a b"]) == f"{start} train --run 'a b'"
