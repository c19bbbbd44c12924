"""Kill flowkit's commands at random moments, run them again, and compare every file with those of an undisturbed chain.

    python tests/campaigns/kills.py [--runs 200] [--seed 0]

The chain is extract, pack, export, import, pack --move, train, evaluate. Each run takes the files from before one of these commands,
starts it, and kills it after a random time with SIGKILL: the process alone, or it and all its children. Half of the time the command
that is to finish the work is killed too. The last one must exit with 0 and leave the files that the undisturbed chain left, byte for
byte but for the times they hold. No process, no temporary file and nothing in shared memory may be left then.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

TINY = {"base_width": 4, "input_size": 32, "batch": 4, "bn_group": 2, "steps": 3, "warmup_steps": 0}
CHAIN = {
    "extract": "extract videos --short-side 32 --jobs 2",
    "pack": "pack --split 1 --shard-size 40kB",
    "export": "export --layout denseflow --flow png --output tree",
    "import": "import tree --data imported --jobs 2",
    "pack --move": "pack --data imported --split 1 --move --shard-size 40kB",
    "train": "train --device cpu --workers 1 --checkpoint-steps 1 " + " ".join(f"--set {name}={value}" for name, value in TINY.items()),
    "evaluate": "evaluate --device cpu --workers 0",
}
SHARED_MEMORY = Path("/dev/shm")
LONGEST = 300.0  # s, for one command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200, help="number of kills (default: 200)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flowkit-kills-") as folder:
        campaign = Campaign(Path(folder), options.seed)
        campaign.run_undisturbed()
        began = time.monotonic()
        while campaign.num_kills < options.runs:
            campaign.disturb_one()
        minutes = (time.monotonic() - began) / 60
    counts = ", ".join(f"{name} {count}" for name, count in sorted(campaign.kills.items()))
    print(f"kills: {campaign.num_kills} kills ({counts}) in {minutes:.1f} min, {len(campaign.faults)} faults")
    sys.exit(1 if campaign.faults else 0)


class Campaign:
    """The folders of a campaign, what the undisturbed chain left, and what went wrong."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.work = folder / "work"  # always the same path, because records hold it
        self.before = folder / "before"
        self.temporary = folder / "tmp"  # short, since paths of sockets cannot be long
        self.draw = random.Random(seed)
        self.seconds: dict[str, float] = {}
        self.expected: dict[str, dict[str, str]] = {}
        self.kills: Counter[str] = Counter()
        self.faults: list[str] = []
        self.turns = 0

    @property
    def num_kills(self) -> int:
        return sum(self.kills.values())

    def run_undisturbed(self) -> None:
        """Run the chain twice, keep the files from before each command, and check that both times leave the same files."""
        _write_videos(self.work / "videos")
        self.temporary.mkdir()
        shutil.copytree(self.work, self.before / "first")
        for repetition in range(2):
            shutil.rmtree(self.work)
            shutil.copytree(self.before / "first", self.work)
            for name, line in CHAIN.items():
                if repetition == 1:
                    shutil.copytree(self.work, self.before / name)
                began = time.monotonic()
                code, said, _ = self._command(line, None)
                if code != 0:
                    sys.exit(f"kills: the undisturbed {name} ended with {code}: {said}")
                self.seconds[name] = time.monotonic() - began
                contents = _contents(self.work)
                if self.expected.setdefault(name, contents) != contents:
                    sys.exit(f"kills: two undisturbed runs of {name} differ in {', '.join(_differing(self.expected[name], contents))}")

    def disturb_one(self) -> None:
        """Kill one command, each in turn, perhaps a second time when it is run again, and check what it leaves in the end."""
        name = list(CHAIN)[self.turns % len(CHAIN)]
        self.turns += 1
        shutil.rmtree(self.work)
        shutil.copytree(self.before / name, self.work)
        story = []
        shared_before = _names_in(SHARED_MEMORY)
        pids: set[int] = set()
        for _ in range(2 if self.draw.random() < 0.5 else 1):
            moment, group = self.draw.uniform(0, self.seconds[name]), self.draw.random() < 0.5
            code, _, seen = self._command(CHAIN[name], (moment, group))
            pids |= seen
            if code == -signal.SIGKILL:
                self.kills[name] += 1
                story.append(f"{'group' if group else 'process'} killed after {moment:.3f} s")
        code, said, seen = self._command(CHAIN[name], None)
        pids |= seen
        if code != 0:
            self._fault(name, story, f"exit code {code}: {said[-600:]}")
            return
        contents = _contents(self.work)
        if contents != self.expected[name]:
            self._fault(name, story, f"other contents: {', '.join(_differing(self.expected[name], contents))}")
        left = [str(path.relative_to(self.temporary)) for path in sorted(self.temporary.rglob("*"))]
        if left:
            self._fault(name, story, f"left in the temporary folder: {', '.join(left)}")
            shutil.rmtree(self.temporary)
            self.temporary.mkdir()
        shared = [path for path in _names_in(SHARED_MEMORY) - shared_before if any(str(pid) in path.split("-") for pid in pids)]
        if shared:
            self._fault(name, story, f"left in shared memory: {', '.join(sorted(shared))}")

    def _fault(self, name: str, story: list[str], what: str) -> None:
        fault = f"{name} ({'; '.join(story) or 'never killed'}): {what}"
        self.faults.append(fault)
        print(f"kills: {fault}", flush=True)

    def _command(self, line: str, kill: tuple[float, bool] | None) -> tuple[int, str, set[int]]:
        """Run a command, or kill it after some seconds: alone, or with its children. Return exit code, output and processes."""
        environment = {
            **os.environ,
            "TMPDIR": str(self.temporary),
            "XDG_RUNTIME_DIR": str(self.temporary),
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "TORCHINDUCTOR_CACHE_DIR": str(self.work.parent / "inductor"),  # torch makes this folder, not flowkit
        }
        with (self.work.parent / "said").open("w+") as said:
            child = subprocess.Popen(
                [sys.executable, "-m", "flowkit.cli", *line.split()],
                cwd=self.work,
                env=environment,
                stdout=said,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            pids: set[int] = {child.pid}
            end = time.monotonic() + (LONGEST if kill is None else kill[0])
            while child.poll() is None and time.monotonic() < end:
                pids |= _session(child.pid)
                time.sleep(0.01)
            if child.poll() is None:
                if kill is None:
                    print(f"kills: {line} did not end within {LONGEST:.0f} s", flush=True)
                if kill is None or kill[1]:
                    os.killpg(child.pid, signal.SIGKILL)
                else:
                    child.kill()
            child.wait()
            end = time.monotonic() + 30
            while (left := _session(child.pid)) and time.monotonic() < end:
                pids |= left
                time.sleep(0.05)
            if left:
                self._fault(line, [], f"{len(left)} processes outlive it by 30 s")
                for pid in left:
                    os.kill(pid, signal.SIGKILL)
            said.seek(0)
            return child.returncode, said.read().strip(), pids


def _write_videos(folder: Path) -> None:
    from small_videos import write_video

    for label in range(2):
        for k in range(3):
            write_video(folder / f"class{label}" / f"video{k}.avi", 14 + k, seed=3 * label + k)


def _session(leader: int) -> set[int]:
    """Return the living processes of a session; a zombie is not one."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.add(int(path.parent.name))
    return found


def _names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def _differing(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    names = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    return [name if name in expected and name in found else f"{name} ({'missing' if name in expected else 'new'})" for name in names]


def _contents(folder: Path) -> dict[str, str]:
    """Return a digest of each file's contents, without the times and process numbers that some files hold."""
    digests = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or "/.index/" in name:  # a kill may come before a clip is noted; its bytes then tell that it is done
            continue
        data = path.read_bytes()
        for suffix, timeless in _TIMELESS.items():
            if name.endswith(suffix):
                data = timeless(data)
        digests[name] = hashlib.sha256(data).hexdigest()
    return digests


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(part) for key, part in value.items() if "seconds" not in key and not key.startswith("time")}
    return [_without_times(part) for part in value] if isinstance(value, list) else value


def _timeless_json(data: bytes) -> bytes:
    return json.dumps(_without_times(json.loads(data)), sort_keys=True).encode()


def _timeless_lines(data: bytes) -> bytes:
    return b"\n".join(map(_timeless_json, data.splitlines()))


def _nothing(data: bytes) -> bytes:
    return b""


_TIMELESS: dict[str, Callable[[bytes], bytes]] = {
    "metrics.jsonl": _timeless_lines,
    "results.json": _timeless_json,
    # These are compared by name only: they tell how a run went (which videos it found done already, how long it took).
    "-report.json": _nothing,
    "report.html": _nothing,
    "curves.png": _nothing,
    "digests.json": _nothing,
}


if __name__ == "__main__":
    main()
