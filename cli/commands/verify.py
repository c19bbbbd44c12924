"""``flowkit verify``: the integrity of a shard, a clip file or a data root."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from flowkit.cli.help.format import Command
from flowkit.cli.shared.console import counted, inform, say, say_json, show_name, table, warn
from flowkit.cli.shared.exit_codes import EXIT_DAMAGED
from flowkit.cli.shared.options import data_option, json_option, refuse_unused

if TYPE_CHECKING:
    from flowkit.run_digests import VerifiedRun

_STATES = {
    "intact": "intact",
    "damaged": "damaged",
    "no digests": "cannot be tested, because an earlier version of flowkit wrote no digests",
    "in training": "not finished, so there are no digests yet",
}


@click.command(cls=Command)
@click.argument("path", type=click.Path(exists=True, path_type=Path), required=False)
@data_option
@click.option("--deep", is_flag=True, help="Also decode every frame and flow field.")
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=None,
    metavar="N",
    help="How many processes check files. [default: one per core, at most 8]",
)
@json_option
def verify(path: Path | None, data: Path, deep: bool, jobs: int | None, as_json: bool) -> int:
    """Test every checksum, manifests against shards, and runs against their digests, and name the video and record of every fault.

    PATH is a shard, a clip file, a data root or a run's folder; the default is the data root of --data. The exit code is 4 if there is
    any fault.
    Files are read in child processes with limits of memory and time, so files from elsewhere are safe to check.
    """
    if path is not None:
        refuse_unused("PATH names what to verify", "data")
    from flowkit.dataset.verify import verify as run

    path = path or data
    if not path.exists():
        raise click.UsageError(f"there is no data root {str(path)!r}: give one with --data DIR, or a shard or clip file")
    phases: list[VerifiedRun] = []
    problems = run(path, deep=deep, jobs=jobs, progress=True, on_run=phases.append)
    if as_json:
        records = [{"path": str(problem.path), "video_id": problem.video_id, "what": problem.what} for problem in problems]
        say_json(
            "verify",
            {
                "path": str(path),
                "deep": deep,
                "problems": records,
                "runs": [{"path": str(phase.path), "state": phase.state} for phase in phases],
            },
        )
    elif problems:
        say(table(("file", "video", "fault"), [(problem.path, problem.video_id, problem.what) for problem in problems]))
    for state, what in _STATES.items():
        number = sum(phase.state == state for phase in phases)
        if number:
            inform(f"verify: {counted(number, 'trained or begun phase')} of runs: {what}")
    if problems:
        warn(f"verify: {counted(len(problems), 'fault')} in {show_name(path)}")
        return EXIT_DAMAGED
    inform(f"verify: no fault in {show_name(path)}{'' if deep else ' (every checksum was tested; --deep also decodes everything)'}")
    return 0
