"""The functions of `flowkit.extraction.sample` in a worker process: a decoder that crashes or hangs there does no harm to the caller."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from flowkit.dataset.settings import ExtractSettings
from flowkit.errors import VideoDecodeError
from flowkit.extraction import sample
from flowkit.extraction.results import VideoResult
from flowkit.extraction.solving import prepare_process
from flowkit.workers.processes import TaskLimits, run_tasks
from flowkit.workers.progress import TaskProgress, patience_with


@dataclass(frozen=True)
class _Call:
    """A call of a function with a video, which reports its progress to the argument of the name `reports_to`."""

    function: Callable[..., Any]
    path: Path
    reports_to: str
    arguments: dict[str, Any]


def count_frames(path: Path, *, settings: ExtractSettings, on_frames: Callable[[int], None] | None = None) -> VideoResult:
    """Return what `flowkit.extraction.sample.count_frames` returns; a decoder that crashes or hangs makes the video ``undecodable``."""
    try:
        arguments = {"short_side": settings.short_side, "reading": settings.reading}
        return _call(sample.count_frames, path, "on_frames", settings, on_frames, arguments)  # type: ignore[no-any-return]
    except VideoDecodeError as error:
        return VideoResult(str(path), "undecodable", 0, 0, error=str(error))


def read_sample(
    path: Path,
    *,
    frames: Sequence[int],
    fields: Sequence[int],
    settings: ExtractSettings,
    device_index: int = 0,
    num_threads: int = 1,
    on_field: Callable[[int], None] | None = None,
) -> sample.Sample:
    """Return what `flowkit.extraction.sample.read_sample` returns; a crash is a `VideoDecodeError`."""
    arguments = {
        "frames": list(frames),
        "fields": list(fields),
        "settings": settings,
        "device_index": device_index,
        "num_threads": num_threads,
    }
    return _call(sample.read_sample, path, "on_field", settings, on_field, arguments)  # type: ignore[no-any-return]


def _call(
    function: Callable[..., Any],
    path: Path,
    reports_to: str,
    settings: ExtractSettings,
    on_progress: Callable[[int], None] | None,
    arguments: dict[str, Any],
) -> Any:
    told = 0

    def tick(running: list[tuple[_Call, int, int]]) -> None:
        nonlocal told
        for _, done, _ in running:
            if on_progress is not None and done > told:
                told = done
                on_progress(done)

    call = _Call(function, path, reports_to, arguments)
    outcomes = run_tasks(
        _work,
        deque([call]),
        jobs=1,
        prepare=partial(prepare_process, settings),
        limits=TaskLimits(_patience),
        on_tick=tick,
        keep=True,  # for the next call, and for the next video
    )
    (outcome,) = outcomes
    if outcome.crash is not None:
        raise VideoDecodeError(f"cannot decode {str(path)!r}: {outcome.crash}")
    return outcome.result


def _work(call: _Call, progress: TaskProgress) -> Any:
    return call.function(call.path, **{call.reports_to: progress.note}, **call.arguments)


def _patience(call: _Call) -> float:
    return patience_with(call.path)
