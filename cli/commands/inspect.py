"""``flowkit inspect``: pictures of one video's frames and flow."""

from __future__ import annotations

from pathlib import Path

import click

from flowkit.cli.help.format import Command
from flowkit.cli.shared.console import counted, inform, say, say_json, show_name, warn
from flowkit.cli.shared.options import data_option, json_option


@click.command(cls=Command)
@click.argument("video_id")
@data_option
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    metavar="DIR",
    help="Where to write the pictures. [default: inspect/ in the data root]",
)
@click.option(
    "--animation",
    type=click.Choice(["mp4", "gif", "none"]),
    default="mp4",
    show_default=True,
    help="The format of an animation of frames beside flow.",
)
@json_option
def inspect(video_id: str, data: Path, output: Path | None, animation: str, as_json: bool) -> int:
    """Draw the video VIDEO_ID: a contact sheet of frames and flow, a histogram of the flow, an animation.

    Flow is drawn in the Middlebury colours: hue is direction, saturation is speed, white is no motion; the sheet shows the colour
    wheel and its scale. The animation shows the whole video at its speed; of a video with more than 1,500 flow fields (GIF: 120) it
    shows every second, every third, ..., as its file name says. The command prints the paths of the pictures. `flowkit info --json` on
    a shard lists the video ids.
    """
    from flowkit.dataset.clips import ClipSource, find_clips
    from flowkit.dataset.root import Dataset
    from flowkit.dataset.shard_files import check_stored
    from flowkit.describe.pictures import inspect_clip
    from flowkit.model.runs.places import check_writable

    dataset = Dataset.open(data)
    folder = output or data / "inspect"
    check_writable(folder, option="--output DIR")
    stored = find_clips(data)
    check_stored(dataset, stored, video_ids=[video_id])
    for path, why in stored.unreadable:
        warn(f"not readable: {show_name(path)}: {show_name(why)}")
    with ClipSource(stored) as source:
        clip = source.clip(video_id)
        drawn = inspect_clip(clip, folder, animation=None if animation == "none" else animation)  # type: ignore[arg-type]
    paths = {"sheet": drawn.sheet, "histogram": drawn.histogram, "animation": drawn.animation}
    if as_json:
        files = {name: None if path is None else str(path) for name, path in paths.items()}
        counts = {"num_fields": drawn.num_fields, "num_measured": drawn.num_measured, "num_animated": drawn.num_animated}
        say_json("inspect", {"video_id": video_id, "scale_px": drawn.scale_px, **files, **counts})
        return 0
    for drawn_path in paths.values():
        if drawn_path is not None:
            say(show_name(drawn_path))
    num = counted(drawn.num_fields, "flow field")
    if drawn.num_measured < drawn.num_fields:
        inform(f"The histogram and the scale are from a sample of {drawn.num_measured:,} of {num}.")
    if 0 < drawn.num_animated < drawn.num_fields:
        inform(f"The animation shows the whole video at its speed with {drawn.num_animated:,} of {num}, spread evenly.")
    return 0
