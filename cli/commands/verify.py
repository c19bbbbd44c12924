"""``flowkit verify``: the integrity of a shard, a clip file or a data root."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flowkit.cli.shared.console import say, show_name, table, warn
from flowkit.cli.shared.exit_codes import EXIT_DAMAGED
from flowkit.cli.shared.options import data_option, json_option

if TYPE_CHECKING:
    from flowkit.shards.verify import Problem


@click.command()
@click.argument("path", type=click.Path(exists=True, path_type=Path), required=False)
@data_option
@click.option("--deep", is_flag=True, help="Decode every frame and flow field, besides testing every checksum.")
@click.option("--jobs", type=click.IntRange(min=1), default=None, metavar="N", help="Processes. [default: one per core, at most 8]")
@json_option
def verify(path: Path | None, data: Path, deep: bool, jobs: int | None, as_json: bool) -> int:
    """Test every checksum, and manifests against shards; name the video and record of every fault.

    PATH is a shard, a clip file or a data root; by default the data root of --data. Exits 4 if there is any fault. Files are
    parsed in child processes with limits of memory and time, so that files from elsewhere are safe to check.
    """
    from flowkit.dataset.verify import verify as run

    path = path or data
    if not path.exists():
        raise click.UsageError(f"there is no data root {str(path)!r}: name one by --data DIR, or name a shard or clip file")
    problems = run(path, deep=deep, jobs=jobs, progress=True)
    if as_json:
        found = {"path": str(path), "deep": deep, "problems": [_record(problem) for problem in problems]}
        say(json.dumps({"format": "flowkit-verify", "format_version": 1, **found}, indent=1))
    elif problems:
        say(table(("file", "video", "fault"), [(problem.path, problem.video_id, problem.what) for problem in problems]))
    if problems:
        warn(f"verify: {len(problems)} fault{'s' * (len(problems) != 1)} in {show_name(path)}")
        return EXIT_DAMAGED
    warn(f"verify: no fault in {show_name(path)}{'' if deep else ' (every checksum tested; --deep decodes everything too)'}")
    return 0


def _record(problem: Problem) -> dict[str, str]:
    return {"path": str(problem.path), "video_id": problem.video_id, "what": problem.what}
