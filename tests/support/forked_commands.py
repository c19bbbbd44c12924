"""Runs of flowkit's commands in children forked by one small process, which has imported torch once: many at little cost.

    python forked_commands.py PLAN.json

The plan is ``{"do": "jobs", "jobs": [...]}`` (see `run_job`) or ``{"do": "kills", ...}`` (see `kill_at_random_moments`); the answer is
JSON on stdout. The parent computes nothing itself, so that it has no threads when it forks.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any


def answer_to(plan: Any, folder: Path) -> Any:
    """Run this program with a plan, in a process of its own that writes to a folder; return its answer."""
    path = folder / "plan.json"
    path.write_text(json.dumps(plan))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "FORKED_OUTPUT": str(folder)}
    done = subprocess.run([sys.executable, __file__, str(path)], capture_output=True, text=True, env=environment, timeout=3000, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def main() -> None:
    plan = json.loads(Path(sys.argv[1]).read_text())
    import torch

    torch.set_num_threads(1)
    import cv2
    import h5py
    import hdf5plugin
    import safetensors.torch
    import torch._dynamo  # which the first step of an optimiser imports, for seconds

    import flowkit.cli.commands.evaluate
    import flowkit.cli.commands.train
    import flowkit.model.evaluation.protocol
    import flowkit.model.training.chain  # noqa: F401

    assert all((cv2, h5py, hdf5plugin, safetensors))  # what the children use is loaded before they are forked
    answer = [run_job(**job) for job in plan["jobs"]] if plan.pop("do") == "jobs" else kill_at_random_moments(**plan)
    print(json.dumps(answer))


def run_job(arguments: Any, world: int = 1, faults: Sequence[Any] = (), seconds: int = 1000) -> dict[Any, Any]:
    """Run a command in `world` processes; return their exit codes (-9: killed), what they said, and part files left behind."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    began = time.monotonic()
    folder = Path(os.environ["FORKED_OUTPUT"])
    said = [folder / f"{time.monotonic_ns()}-{rank}" for rank in range(world)]
    ranks = []
    for rank in range(world):
        environment = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        own = [fault for fault in faults if fault.get("rank", rank) == rank]
        ranks.append(start(arguments, said[rank], environment if world > 1 else {}, own))
    codes = [ended(child, max(began + seconds - time.monotonic(), 0.1)) for child in ranks]
    return {"codes": codes, "said": [path.read_text() for path in said], "parts": parts_of(arguments)}


def parts_of(arguments: Any) -> Any:
    """Names of the part files in the run that a command is for."""
    root, run = (arguments[arguments.index(option) + 1] for option in ("--data", "--run"))
    return sorted(path.name for path in (Path(root) / "runs" / run).rglob("*.part"))


def kill_at_random_moments(arguments: Any, num_kills: int, seed: int) -> dict[Any, Any]:
    """Run a command undisturbed; then kill it `num_kills` times, each time after a random part of that time, and run it again.

    A run that comes to its end before it is killed is left as it is, and the next one begins. The runs are named undisturbed, killed0,
    killed1, ...; returned are their names and, for each kill, its moment and the files of a write that it interrupted.
    """
    folder = Path(os.environ["FORKED_OUTPUT"])
    began = time.monotonic()
    child = start([*arguments, "--run", "undisturbed"], folder / "undisturbed")
    assert ended(child, 1000) == 0, (folder / "undisturbed").read_text()
    whole = time.monotonic() - began
    draw = random.Random(seed)
    runs = ["killed0"]
    kills: list[Any] = []
    while len(kills) < num_kills:
        line = [*arguments, "--run", runs[-1]]
        moment = draw.uniform(0, 0.6 * whole)
        code = ended(start(line, folder / "said"), moment)
        if code == -signal.SIGKILL:
            kills.append([moment, parts_of(line)])
        else:
            assert code == 0, (folder / "said").read_text()
            runs.append(f"killed{len(runs)}")
    child = start([*arguments, "--run", runs[-1]], folder / "said")
    assert ended(child, 1000) == 0, (folder / "said").read_text()
    return {"runs": runs, "kills": kills, "seconds": whole}


def start(
    arguments: Sequence[str], said: Path, environment: Mapping[str, object] = MappingProxyType({}), faults: Sequence[Any] = ()
) -> int:
    """Fork a child that runs a command; return its process id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        with said.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.environ.update({name: str(value) for name, value in environment.items()})
        for fault in faults:
            FAULTS[fault["kind"]](fault)
        from flowkit.cli.main import main as run_command

        sys.argv = ["flowkit", *arguments]
        run_command([*arguments])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # without the parent's clean-up


def ended(child: Any, seconds: Any) -> Any:
    """Wait so long for a child and return its exit code; then kill it, and return -9."""
    end = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= end:
            os.kill(child, signal.SIGKILL)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        time.sleep(0.005)


def at_step(fault: Any, act: Any) -> None:
    """Act before a training step (counted over all phases) is taken in this process."""
    from flowkit.model.training.loop import PhaseRun

    take, taken = PhaseRun._take_step, 0

    def take_step(self: Any, batches: Any) -> Any:
        nonlocal taken
        if taken == fault["step"]:
            act()
        taken += 1
        return take(self, batches)

    PhaseRun._take_step = take_step  # type: ignore[method-assign]


def fail(fault: Any) -> None:
    from flowkit.errors import ManifestError

    def act() -> None:
        raise ManifestError("this clip is bad")

    at_step(fault, act)


def stop(fault: Any) -> None:
    at_step(fault, lambda: os.kill(os.getpid(), signal.SIGTERM))


def die(fault: Any) -> None:
    at_step(fault, kill_myself)


def kill_myself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_half_a_checkpoint(fault: Any) -> None:
    """Be killed when half of the n-th checkpoint's bytes are in its part file."""
    import torch

    save, written = torch.save, 0

    def save_half(values: Any, file: Any) -> None:
        nonlocal written
        save(values, file)
        file.flush()
        written += 1
        if written == fault["write"]:
            os.truncate(file.name, os.stat(file.name).st_size // 2)
            kill_myself()

    torch.save = save_half  # type: ignore[assignment]


def die_before(fault: Any) -> None:
    """Be killed before the n-th call of a function of os or Path: fsync or replace, with a whole part file beside the last checkpoint."""
    owner, name = {"fsync": (os, "fsync"), "replace": (Path, "replace")}[fault["call"]]
    call, called = getattr(owner, name), 0

    def counted(*arguments: object) -> Any:
        nonlocal called
        called += 1
        if called == fault["write"]:
            kill_myself()
        return call(*arguments)

    setattr(owner, name, counted)


FAULTS = {"fail": fail, "stop": stop, "die": die, "half a checkpoint": die_in_half_a_checkpoint, "before": die_before}

if __name__ == "__main__":
    main()
