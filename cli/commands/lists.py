"""``flowkit lists``: whether the official lists of UCF101 or HMDB51 are complete, and the videos that they name are there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowkit.cli.help.format import Command
from flowkit.cli.shared.console import counted, inform, say, say_json, show_name, table, warn
from flowkit.cli.shared.exit_codes import EXIT_ERROR, EXIT_SOME_FAILED
from flowkit.cli.shared.options import json_option

if TYPE_CHECKING:
    from flowkit.dataset.lists.list_check import CheckedLists
    from flowkit.dataset.lists.video_check import CheckedVideos


@click.command(cls=Command)
@click.argument("data_set", metavar="ucf101|hmdb51", type=click.Choice(("ucf101", "hmdb51"), case_sensitive=False))
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--videos",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Compare the lists with the videos in this folder too.",
)
@json_option
def lists(data_set: str, folder: Path, videos: Path | None, as_json: bool) -> int:
    """Check the official lists of a data set in FOLDER, and say what is missing.

    Every file is read: its lines, its classes, and the number and the names of its videos. The exit code is 0 if the lists are complete,
    and so are the videos if you name their folder; 1 if something is wrong with the lists; 3 if only videos are missing.
    """
    from flowkit.dataset.lists.list_check import check_lists
    from flowkit.dataset.lists.video_check import check_videos

    checked = check_lists(data_set, folder)  # type: ignore[arg-type]
    compared = check_videos(checked, videos) if videos is not None else None
    if as_json:
        say_json("lists", _as_dict(checked, compared))
    else:
        _print_lists(checked)
        if compared is not None:
            _print_videos(checked, compared)
    if not checked.complete:
        return EXIT_ERROR
    return EXIT_SOME_FAILED if compared is not None and compared.problems else 0


def _print_lists(checked: CheckedLists) -> None:
    """Print what the lists hold to stdout, and what is wrong with them to stderr."""
    from flowkit.dataset.lists.data_sets import DATA_SETS

    name = DATA_SETS[checked.data_set].name
    if checked.splits:
        rows = [(split.number, split.num_train, split.official_train, split.num_test, split.official_test) for split in checked.splits]
        say(table(("split", "train", "official", "test", "official"), rows))
    for problem in checked.problems:
        warn(f"lists: {show_name(problem.text)}")
    place = show_name(checked.folder)
    if checked.complete:
        say(f"lists: {name} in {place}: complete, {counted(checked.num_classes, 'class')} and {counted(len(checked.splits), 'split')}")
    else:
        say(f"lists: {name} in {place}: {counted(len(checked.problems), 'problem')}")


def _print_videos(checked: CheckedLists, compared: CheckedVideos) -> None:
    """Print how many videos are there to stdout, and what is wrong to stderr."""
    for note in compared.notes:
        inform(f"lists: note: {show_name(note)}")
    for problem in compared.problems:
        warn(f"lists: {show_name(problem)}")
    there = "all" if compared.num_found == compared.num_listed else f"{compared.num_found:,}"
    say(f"lists: videos in {show_name(compared.folder)}: {there} of {counted(compared.num_listed, 'video')} that the lists name")


def _as_dict(checked: CheckedLists, compared: CheckedVideos | None) -> dict[str, Any]:
    """Return what was found as built-in types."""
    return {
        "data_set": checked.data_set,
        "folder": str(checked.folder),
        "complete": checked.complete,
        "num_classes": checked.num_classes,
        "splits": [vars(split) for split in checked.splits],
        "problems": [vars(problem) for problem in checked.problems],
        **({"videos": vars(compared) | {"folder": str(compared.folder)}} if compared is not None else {}),
    }
