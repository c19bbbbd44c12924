"""Change source videos at random moments of their extraction; every clip must be of one version of its file, or be missing.

Usage: ``python tests/campaigns/sources.py [--runs 50] [--seed 0]``. Prints one line, and ends with status 1 after a failure.

Each run extracts two short videos and a long one, which is solved in pieces, while one of them is replaced, overwritten (some keep
their size and time), truncated, removed, or still growing. Some runs are also stopped, so that pieces are kept. A clip must have the
bytes that an undisturbed extraction of the file with the same digest gives. One more undisturbed run must make all clips complete.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from small_videos import SETTINGS, write_video

from flowkit.extraction.results import WRITTEN
from flowkit.extraction.run import extract
from flowkit.shards.reader import ShardReader
from flowkit.workers.stopping import StopRequest

LENGTHS = {"short0": 25, "short1": 25, "long": 400}  # frames; the long one is solved in pieces, also in one process
GROWTH_STEPS = 8


@dataclass(frozen=True)
class Versions:
    """The bytes of two videos of equal length and size, and what they become in an undisturbed extraction."""

    first: bytes
    second: bytes


class Campaign:
    """The folder, the videos and the expected clips of a campaign."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.random = folder, random.Random(seed)
        self.versions = {name: self._versions(k, name) for k, name in enumerate(LENGTHS)}
        self._expected: dict[tuple[str, str], bytes | None] = {}
        self.bytes_of: dict[str, bytes] = {}  # every version that was ever on the disk, by its digest
        self.num_clips = self.num_failed = 0
        started = time.monotonic()
        self.fill(folder / "videos")
        extract(folder / "videos", folder / "data", settings=SETTINGS, jobs=2, progress=False)
        started = time.monotonic()
        extract(folder / "videos", folder / "again", settings=SETTINGS, jobs=2, progress=False)
        self.seconds = time.monotonic() - started  # of an extraction, once everything is compiled

    def _versions(self, seed: int, name: str) -> Versions:
        both = [write_video(self.folder / f"{name}{k}.avi", LENGTHS[name], seed=10 * seed + k).read_bytes() for k in range(2)]
        size = max(map(len, both))
        return Versions(*(data.ljust(size, b"\0") for data in both))

    def fill(self, videos: Path) -> None:
        """Put the first version of each video into a folder."""
        for name, versions in self.versions.items():
            (videos / "c").mkdir(parents=True, exist_ok=True)
            (videos / "c" / f"{name}.avi").write_bytes(versions.first)

    def expected(self, name: str, data: bytes) -> bytes | None:
        """Return the clip file that an undisturbed extraction makes of some bytes; None if it makes none."""
        key = (name, hashlib.sha256(data).hexdigest())
        if key not in self._expected:
            with tempfile.TemporaryDirectory(dir=self.folder) as peace:
                path = Path(peace) / "videos" / "c" / f"{name}.avi"
                path.parent.mkdir(parents=True)
                path.write_bytes(data)
                report = extract(Path(peace) / "videos", Path(peace) / "data", settings=SETTINGS, jobs=1, progress=False)
                clip = Path(peace) / "data" / "clips" / "c" / f"{name}.h5"
                self._expected[key] = clip.read_bytes() if report.done and report.done[0].status in WRITTEN else None
        return self._expected[key]

    def run(self) -> list[str]:
        """Disturb one extraction; return what is wrong with its clips."""
        with tempfile.TemporaryDirectory(dir=self.folder) as place:
            return self._run(Path(place) / "videos", Path(place) / "data")

    def _run(self, videos: Path, root: Path) -> list[str]:
        self.fill(videos)
        name = self.random.choice(["short0", "short1", "long", "long", "long"])
        change = self.random.choice(CHANGES)
        path = videos / "c" / f"{name}.avi"
        if change is grow:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        known = {hashlib.sha256(data).hexdigest(): data for data in self._possible(name)}
        stop = StopRequest()
        moment, stop_after = self.random.uniform(0, 1.1 * self.seconds), self.random.uniform(0, 1.1 * self.seconds)
        threads = [threading.Timer(moment, change, (path, self.versions[name], self.seconds / 3))]
        if self.random.random() < 0.3:
            threads.append(threading.Timer(stop_after, stop.request))
        for thread in threads:
            thread.start()
        what = f"{change.__name__} of {name} after {moment:.2f} s"
        extract(videos, root, settings=SETTINGS, jobs=self.random.choice([1, 2]), stop=stop, grace_seconds=0, progress=False)
        faults = self._faults(root, name, known, what)
        for thread in threads:
            thread.join()
        if not path.exists():
            path.write_bytes(self.versions[name].second)
        extract(videos, root, settings=SETTINGS, jobs=2, progress=False)
        for other in LENGTHS:
            data = (videos / "c" / f"{other}.avi").read_bytes()
            clip = root / "clips" / "c" / f"{other}.h5"
            if (clip.read_bytes() if clip.exists() else None) != self.expected(other, data):
                faults.append(f"{what}: the clip of {other} is not that of its file after one more run")
        if left := [str(path.relative_to(root)) for pattern in ("*.part", "*.flow", "*.lock") for path in root.rglob(pattern)]:
            faults.append(f"{what}: {left} are left after one more run")
        return faults

    def _possible(self, name: str) -> list[bytes]:
        """Return all that may be in a file at some moment."""
        first, second = self.versions[name].first, self.versions[name].second
        return [first, second, *(first[:size] for size in growth_sizes(len(first)))]

    def _faults(self, root: Path, name: str, known: dict[str, bytes], what: str) -> list[str]:
        """Compare the clips that a disturbed run left with undisturbed ones of the same digests."""
        faults = []
        for other in LENGTHS:
            clip = root / "clips" / "c" / f"{other}.h5"
            if not clip.exists():
                self.num_failed += 1
                continue
            self.num_clips += 1
            with ShardReader(clip) as shard:
                digest = shard.clip(f"c/{other}").attributes.source_sha256
            data = known.get(digest) if other == name else self.versions[other].first
            if data is None:
                faults.append(f"{what}: the clip of {other} has a digest that its file never had")
            elif clip.read_bytes() != self.expected(other, data):
                faults.append(f"{what}: the clip of {other} is not that of the file whose digest it has")
        return faults


def growth_sizes(num_bytes: int) -> list[int]:
    """Return the sizes through which a file of `num_bytes` grows from its half."""
    return [num_bytes // 2 + (num_bytes - num_bytes // 2) * k // GROWTH_STEPS for k in range(GROWTH_STEPS + 1)]


def replace(path: Path, versions: Versions, seconds: float) -> None:
    """Put the second version in place of the first."""
    new = path.with_suffix(".new")
    new.write_bytes(versions.second)
    new.replace(path)


def replace_with_equal_time(path: Path, versions: Versions, seconds: float) -> None:
    """Put the second version in place of the first, with the same size and modification time."""
    status, new = path.stat(), path.with_suffix(".new")
    new.write_bytes(versions.second)
    os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
    new.replace(path)


def overwrite_with_equal_time(path: Path, versions: Versions, seconds: float) -> None:
    """Copy the second version over the first, with the same size and modification time."""
    status = path.stat()
    with path.open("r+b") as file:
        file.write(versions.second)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def truncate(path: Path, versions: Versions, seconds: float) -> None:
    """Cut the file in half."""
    os.truncate(path, len(versions.first) // 2)


def remove(path: Path, versions: Versions, seconds: float) -> None:
    """Delete the file."""
    path.unlink()


def grow(path: Path, versions: Versions, seconds: float) -> None:
    """Extend a file that has the first half of the first version until it is complete."""
    sizes = growth_sizes(len(versions.first))
    for start, stop in itertools.pairwise(sizes):
        with path.open("ab") as file:
            file.write(versions.first[start:stop])
        time.sleep(seconds / GROWTH_STEPS)


def replace_twice(path: Path, versions: Versions, seconds: float) -> None:
    """Put the second version in place of the first for a while, and then the first again."""
    replace(path, versions, 0)
    time.sleep(seconds)
    replace(path, Versions(versions.second, versions.first), 0)


CHANGES: list[Callable[[Path, Versions, float], None]] = [
    replace,
    replace_with_equal_time,
    overwrite_with_equal_time,
    truncate,
    remove,
    grow,
    replace_twice,
]


def main() -> int:
    """Run the campaign."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    faults: list[str] = []
    with tempfile.TemporaryDirectory(prefix="flowkit-sources-") as folder:
        campaign = Campaign(Path(folder), arguments.seed)
        for number in range(arguments.runs):
            faults.extend(f"run {number}: {fault}" for fault in campaign.run())
    for fault in faults:
        print(fault, file=sys.stderr)
    print(
        f"sources: {arguments.runs} runs, {campaign.num_clips} clips of one version, {campaign.num_failed} missing, {len(faults)} faults"
        f" (seed {arguments.seed})"
    )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
