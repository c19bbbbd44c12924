"""Progress: shown where it is wanted, as a bar, a line that changes or plain lines."""

from __future__ import annotations

import io
import sys
import types

import pytest

from flowkit.dataset import progress
from flowkit.dataset.progress import ProgressBar, StageProgress, is_shown, print_note


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return a list with the time, which a test sets."""
    now = [100.0]
    monkeypatch.setattr(progress, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    return now


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))  # type: ignore[arg-type]


def test_by_default_progress_is_shown_on_a_terminal_and_in_a_notebook(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert [is_shown(choice) for choice in (None, True, False)] == [False, True, False]
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", Terminal())
        assert is_shown(None)
    request.getfixturevalue("notebook")
    assert [is_shown(choice) for choice in (None, False)] == [True, False]


def test_a_program_without_a_stderr_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one without a window on Windows, or a service."""
    monkeypatch.setattr(sys, "stderr", None)
    assert not is_shown(None)
    print_note("nobody reads this")
    with ProgressBar("count", total=2, unit="files", progress=True) as bar:
        bar.update(2)
    assert bar.done == 2


def test_elsewhere_a_plain_line_appears_now_and_then_and_one_at_the_end(capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
    with ProgressBar("pack", unit="videos") as bar:
        bar.update(1, 4)
        clock[0] += 12
        bar.update(2, note="1 failed\x1b")
        bar.update(3)
        assert capsys.readouterr() == ("", "pack: 2/4 videos in 12 s, 6.0 s per video, 12 s left, 1 failed\\x1b\n")
        bar.advance()
    assert capsys.readouterr().err == "pack: 4/4 videos in 12 s, 3.0 s per video\n"


def test_what_was_done_before_is_counted_and_took_no_time(capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
    with StageProgress() as stages:
        stages.update("motion", 61, 100, unit="steps", first=60)
        clock[0] += 20
        stages.update("motion", 80, 100, unit="steps")
        assert capsys.readouterr().err == "motion: 80/100 steps in 20 s, 1.0 steps/s, 20 s left\n"
        stages.update("motion", 100, 100, unit="steps")
    assert capsys.readouterr().err == "motion: 100/100 steps in 20 s, 2.0 steps/s\n"


def test_a_stage_that_fails_leaves_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError), ProgressBar("pack", unit="videos"):
        raise KeyError
    assert capsys.readouterr().err == ""


def test_progress_that_is_not_wanted_prints_nothing(capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
    with StageProgress(progress=False) as stages:
        stages.message("hello")
        stages.update("pack", 1, 2)
        clock[0] += 20
        stages.update("pack", 2, 2)
    assert capsys.readouterr().err == ""


def test_a_new_stage_ends_the_one_before(capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
    with StageProgress() as stages:
        stages.update("read", 1, 2, unit="files")
        clock[0] += 1
        stages.update("read", 2, 2, unit="files")
        stages.message("all read")
        stages.update("write", 5, unit="videos")
        clock[0] += 1
    assert capsys.readouterr().err.splitlines() == [
        "all read",
        "read: 2/2 files in 1.0 s, 2.0 files/s",
        "write: 5 videos in 1.0 s, 5.0 videos/s",
    ]


@pytest.mark.usefixtures("notebook")
def test_in_a_notebook_one_line_changes(capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
    with ProgressBar("pack", total=4, unit="videos", progress=None) as bar:
        for _ in range(4):
            clock[0] += 1
            bar.advance()
    written = capsys.readouterr().err
    assert written.count("\r") == 5
    assert written.count("\n") == 1
    assert written.endswith("pack: 4/4 videos in 4.0 s, 1.0 videos/s".ljust(100) + "\n")


def test_on_a_terminal_the_bar_is_live_and_a_line_remains(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal)
    with ProgressBar("[pack]", total=2, unit="videos", progress=None) as bar:
        bar.update(1)
        bar.update(2)
    assert "━" in terminal.getvalue()
    last = terminal.getvalue().splitlines()[-1].rpartition("\x1b[2K")[2]  # after the code that clears the bar
    assert last.startswith("[pack]: 2/2 videos in ")
