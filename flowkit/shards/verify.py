"""Verify shards and clip files in child processes with limits, so that no file can crash the caller, block it or fill its memory."""

from __future__ import annotations

import io
import json
import os
import queue
import subprocess
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowkit.children import start_child

_SLOWEST_BYTES_PER_SECOND = 1 << 20  # a check that is slower than this is treated as stuck
_PATIENCE_SECONDS = 120.0
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Problem:
    """One fault of a file, as `flowkit.verify` returns it.

    Parameters
    ----------
    path : Path
        The file.
    video_id : str
        The video; empty if the fault does not concern one video.
    what : str
        What is wrong: ``frame 12 is damaged: its CRC does not match``.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import flowkit
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "a.h5")
    ...     written = path.write_bytes(b"This is not HDF5.")
    ...     [problem.what for problem in flowkit.verify(path)]
    ['is not an HDF5 file: it has 17 bytes']
    """

    path: Path
    video_id: str
    what: str


@dataclass(frozen=True)
class VerifiedFile:
    """The result of checking a shard or a clip file.

    Parameters
    ----------
    path : Path
        The file.
    problems : tuple of Problem
        Its faults.
    videos : tuple of dict
        video_id, num_frames, sha256 and settings of each video whose structure is sound.
    sha256 : str
        SHA-256 of the file; empty if it was not requested.
    """

    path: Path
    problems: tuple[Problem, ...]
    videos: tuple[dict[str, Any], ...] = ()
    sha256: str = ""


def verify_files(
    paths: Sequence[Path], *, deep: bool = False, digest: bool = False, jobs: int | None = None, timeout_seconds: float | None = None
) -> Iterator[VerifiedFile]:
    """Verify shard or clip files.

    Parameters
    ----------
    paths : sequence of Path
        The files.
    deep : bool
        Decode every frame and flow field, besides testing every checksum.
    digest : bool
        Also return the SHA-256 of each file.
    jobs : int, optional
        Number of child processes; by default one per core, at most 8.
    timeout_seconds : float, optional
        Time limit for one file; by default two minutes and one second per MiB.

    Yields
    ------
    VerifiedFile
        The result for each file, in the order of `paths`.
    """
    if not paths:
        return
    num_jobs = min(jobs or min(os.cpu_count() or 1, 8), len(paths))
    idle: queue.SimpleQueue[_Child] = queue.SimpleQueue()
    for _ in range(num_jobs):
        idle.put(_Child())

    def verify_one(path: Path) -> VerifiedFile:
        child = idle.get()
        try:
            return child.verify(path, deep=deep, digest=digest, timeout_seconds=timeout_seconds)
        finally:
            idle.put(child)

    try:
        with ThreadPoolExecutor(num_jobs) as threads:
            yield from threads.map(verify_one, paths)
    finally:
        for _ in range(num_jobs):
            idle.get().close()


class _Child:
    """A process that checks files; it is started when it is first needed, and again after it died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def verify(self, path: Path, *, deep: bool, digest: bool, timeout_seconds: float | None) -> VerifiedFile:
        try:
            patience = timeout_seconds or _PATIENCE_SECONDS + path.stat().st_size / _SLOWEST_BYTES_PER_SECOND
        except OSError as error:
            return VerifiedFile(path, (Problem(path, "", f"cannot be read: {error.strerror}"),))
        process = self._started()
        assert process.stdin is not None
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            process.kill()

        timer = threading.Timer(patience, expire)
        timer.start()
        try:
            process.stdin.write(json.dumps({"path": os.fspath(path), "deep": deep, "digest": digest}).encode() + b"\n")
            line = self._answers.readline()
        except OSError:
            line = b""
        finally:
            timer.cancel()
        if not line.endswith(b"\n"):
            code = process.wait()
            self.close()
            reason = f"took longer than {patience:.0f} s" if expired.is_set() else f"crashed the process that did it (status {code})"
            return VerifiedFile(path, (Problem(path, "", f"checking it {reason}: the file is damaged or malicious"),))
        answer = json.loads(line)
        problems = tuple(Problem(path, video_id, what) for video_id, what in answer["faults"])
        return VerifiedFile(path, problems, tuple(answer["videos"]), answer["sha256"])

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._process = start_child("flowkit.shards.check", ends_with_thread=True, quiet=True, variables=_ONE_THREAD)
            assert self._process.stdout is not None
            self._answers = io.BufferedReader(self._process.stdout)  # type: ignore[type-var]
        return self._process

    def close(self) -> None:
        """End the process."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._answers.close()
        self._process = None
