"""``flowkit demo``: runs the four ordinary commands on generated videos, and explains the resulting table."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from flowkit.cli.help.format import Command
from flowkit.cli.shared.console import counted, duration, say, show_name, table, warn
from flowkit.cli.shared.made_files import MadeFiles
from flowkit.files import remove_leftovers

RECORD = ".flowkit-demo.json"  # what the demo made in its folder, so that --overwrite removes nothing else
VIDEOS, LISTS, DATA = "videos", "split.csv", "flowkit-data"
# What each stage makes in the data root.
MAKES = {
    "extract": ("dataset.json", "extract-report.json", "clips", ".write.lock", ".report.lock"),
    "pack": ("shards", "splits", ".write.lock", ".pack.lock"),
    "train": ("runs/default",),
    "evaluate": ("reports/default",),
}
SHORT_SIDE = 64
TOLERANCE = 0.15  # by which luck may lift a single stream above its ceiling: about 2.3 standard deviations of 54 guesses

# Only these options differ from a run on your own videos.
EXTRACT_OPTIONS = ("--short-side", str(SHORT_SIDE))
TRAIN_OPTIONS = ("--recipe", "small")


@click.command(cls=Command)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo"),
    show_default=True,
    metavar="DIR",
    help="A new or empty folder for the videos and the data root.",
)
@click.option(
    "--overwrite", is_flag=True, help="Replace what an earlier demo made in DIR. Any other file in its videos or data root is an error."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The seed of the scenes and of the training.")
@click.option(
    "--train-videos",
    type=click.IntRange(1, 500),
    default=12,
    show_default=True,
    metavar="N",
    help="How many training videos each class has.",
)
@click.option(
    "--test-videos", type=click.IntRange(1, 500), default=6, show_default=True, metavar="N", help="How many test videos each class has."
)
@click.option(
    "--frames", type=click.IntRange(11, 10_000), default=12, show_default=True, metavar="N", help="How many frames each video has."
)
@click.option(
    "--steps-per-phase", type=click.IntRange(min=1), metavar="N", help="Train each phase for only N steps, to see that everything works."
)
def demo(output: Path, overwrite: bool, seed: int, train_videos: int, test_videos: int, frames: int, steps_per_phase: int | None) -> int:
    """Run the whole pipeline on generated videos, in minutes.

    Each class is a hue and a motion. Single frames do not show the motion, and flow, which is computed on grey frames, does not
    show the hue. So each stream must guess the other half, and only both together can classify a video correctly.
    """
    from flowkit.demo_videos import SceneSettings, class_names, write_scenes

    classes = class_names()
    made = make_room(output, overwrite=overwrite)
    num_videos = len(classes) * (train_videos + test_videos)
    seconds: dict[str, float] = {}

    began = time.monotonic()
    say(f"Writing {counted(num_videos, 'video')} of {counted(len(classes), 'class')} to {show_name(output / VIDEOS)}")
    with made.making(VIDEOS, LISTS):
        write_scenes(
            output,
            seed=seed,
            train_per_class=train_videos,
            test_per_class=test_videos,
            settings=SceneSettings(num_frames=frames),
            progress=True,
        )
    seconds["generate"] = time.monotonic() - began
    data = ("--data", str(output / DATA))
    short = () if steps_per_phase is None else ("--steps-per-phase", str(steps_per_phase))
    # Options that say what is the default, but for a user whose own runs and reports are kept elsewhere.
    elsewhere = any(name.endswith(("_RUNS", "_REPORTS")) for name in os.environ) or Path("flowkit.toml").is_file()
    runs, reports = (("--" + name, str(output / DATA / name)) if elsewhere else () for name in ("runs", "reports"))
    stages = {
        "extract": (str(output / VIDEOS), *data, *EXTRACT_OPTIONS),
        "pack": ("--split", "1", *data, "--lists", str(output / LISTS)),
        "train": (*data, *runs, *TRAIN_OPTIONS, "--seed", str(seed), *short),
        "evaluate": (*data, *runs, *reports),
    }
    for stage, options in stages.items():
        began = time.monotonic()
        with made.making(*(f"{DATA}/{name}" for name in MAKES[stage])):
            code = run_command(stage, *options)
        seconds[stage] = time.monotonic() - began
        if code:
            warn(f"demo: flowkit {stage} ended with exit code {code}; its files stay in {show_name(output)}")
            return code
    print_results(read_results(output / DATA), classes, seconds)
    for page in (output / DATA / "reports").glob("*/split1/report.html"):
        say(f"\nThe report, a page for the browser: {show_name(page)}")
    return 0


def make_room(output: Path, *, overwrite: bool) -> MadeFiles:
    """Remove an earlier demo from `output` and begin the record of a new one there; refuse to touch anything that no demo made.

    Raises
    ------
    click.UsageError
        If the folder holds anything but an earlier demo that may be overwritten.
    """
    made = MadeFiles(output, RECORD, "flowkit-demo")
    remove_leftovers(output, alone=False)  # such as a record that a killed demo had begun to write
    if output.is_dir() and any(output.iterdir()):
        if not made.exists():
            raise click.UsageError(
                f"{show_name(output)} is not empty, and its files are not from a demo; choose another folder with --output"
            )
        if not overwrite:
            raise click.UsageError(f"{show_name(output)} holds an earlier demo; --overwrite replaces it, --output names another folder")
        made.read()
        foreign = made.foreign((VIDEOS, LISTS, DATA))
        if foreign:
            more = f" (and {len(foreign) - 1} others)" if len(foreign) > 1 else ""
            raise click.UsageError(
                f"{show_name(foreign[0])}{more} was not made by the demo, or was changed since, so nothing is deleted; "
                "move it elsewhere, or choose another folder with --output"
            )
        made.remove((VIDEOS, LISTS, DATA))
    output.mkdir(parents=True, exist_ok=True)
    made.write()
    return made


def run_command(name: str, *options: str) -> int:
    """Print the line ``flowkit NAME OPTIONS``, run it as if it had been typed, and return its exit code."""
    say(f"\n$ {shlex.join(['flowkit', name, *options])}")
    with _arguments([name, *options]):
        code = click.get_current_context().find_root().command.main(args=[name, *options], prog_name="flowkit", standalone_mode=False)
    return code if isinstance(code, int) else 0


@contextmanager
def _arguments(arguments: Sequence[str]) -> Iterator[None]:
    """Set `sys.argv` to the command's own line, which it prints as the line that resumes."""
    before = sys.argv
    sys.argv = [before[0], *arguments]
    try:
        yield
    finally:
        sys.argv = before


def read_results(data: Path) -> dict[str, Any]:
    """Return the results that evaluate wrote."""
    (path,) = (data / "reports").glob("*/split1/results.json")
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return results


def half_accuracies(confusion: Sequence[Sequence[int]], names: Sequence[str], classes: dict[str, tuple[str, str]]) -> tuple[float, float]:
    """Return the share of videos whose appearance was recognised, and the share whose motion was, whatever the other half."""
    correct, total = [0, 0], 0
    for name, row in zip(names, confusion, strict=True):
        for guess, count in zip(names, row, strict=True):
            total += count
            for half in range(2):
                correct[half] += count * (classes[name][half] == classes[guess][half])
    return correct[0] / total, correct[1] / total


def print_results(results: dict[str, Any], classes: dict[str, tuple[str, str]], seconds: dict[str, float]) -> None:
    """Print each row beside its ceiling, what that shows, and how long each stage took."""
    num_appearances, num_motions = (len({pair[half] for pair in classes.values()}) for half in range(2))
    ceilings = {"appearance": 1 / num_motions, "motion": 1 / num_appearances}
    rows = []
    for name, row in results["rows"].items():
        halves = half_accuracies(row["confusion"], results["classes"], classes)
        rows.append((name, *(f"{100 * share:.1f}" for share in (row["top1"], *halves, ceilings.get(name, 1.0)))))
    say(f"\nWhat each row recognises: {num_appearances} hues x {num_motions} motions, {counted(results['num_scored'], 'test video')}")
    say(table(("", "top-1 %", "hue correct %", "motion correct %", "ceiling %"), rows))
    say(verdict({name: row["top1"] for name, row in results["rows"].items()}, ceilings))
    say("\nTime of each stage")
    times = [*seconds.items(), ("all", sum(seconds.values()))]
    say(table(("stage", "time"), [(stage, duration(value)) for stage, value in times]))


def verdict(top1: dict[str, float], ceilings: dict[str, float]) -> str:
    """Return a sentence that says what the accuracies show."""
    over = [name for name, ceiling in ceilings.items() if top1[name] > ceiling + TOLERANCE]
    if over:
        return f"Unexpected: {' and '.join(over)} did better than guessing the other half allows. Please report this, with the seed."
    alone = max(top1[name] for name in ceilings)
    joint = {name: share for name, share in top1.items() if name not in ceilings}
    text = (
        f"A ceiling is the expected accuracy of a stream that recognises its own half and guesses the other: "
        f"{', '.join(f'{name} {100 * ceiling:.1f} %' for name, ceiling in ceilings.items())}. "
    )
    better = [f"{name} {100 * share:.1f} %" for name, share in joint.items() if share > alone + TOLERANCE]
    if len(better) == len(joint):
        return text + f"Appearance and motion together go far beyond it: {', '.join(better)}."
    if better:
        return text + f"Together, some go far beyond it ({', '.join(better)}), others do not: they need more training."
    return text + "Together they do not do much better here: they need more training."
