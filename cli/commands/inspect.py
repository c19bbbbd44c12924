"""``flowkit inspect``: pictures of one video's frames and flow, or a gallery of many videos for the browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from flowkit.cli.help.format import Command
from flowkit.cli.shared.console import counted, duration, inform, long_table, say, say_json, show_name, size, warn
from flowkit.cli.shared.exit_codes import EXIT_SOME_FAILED
from flowkit.cli.shared.options import data_option, json_option, refuse_unused, reports_option

if TYPE_CHECKING:
    from flowkit.dataset.root import Dataset
    from flowkit.describe.films import Animation
    from flowkit.describe.gallery import Gallery, GalleryForecast, GalleryPlan
    from flowkit.describe.gallery_videos import Prediction

_OF_GALLERY = ("everything", "run", "split", "reports", "jobs", "dry_run")
_NUM_BEST = 5  # classes of each video that the gallery names


@click.command(cls=Command)
@click.argument("video_id", required=False)
@data_option
@click.option("--gallery", is_flag=True, help="Draw many videos, as a folder with a page for the browser.")
@click.option("--all", "everything", is_flag=True, help="Draw all videos in the gallery, instead of a sample of 500.")
@click.option(
    "--split",
    type=click.IntRange(min=1),
    default=None,
    metavar="N",
    help="Which split divides the gallery into training and test. [default: the first one, if there is any]",
)
@click.option(
    "--run",
    default="default",
    show_default=True,
    metavar="NAME",
    help="The run whose predictions the gallery shows, if `flowkit evaluate` has tested it.",
)
@reports_option
@click.option(
    "--jobs", type=click.IntRange(min=1), default=None, metavar="N", help="How many processes draw the gallery. [default: one per core]"
)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    metavar="DIR",
    help="Where to write. [default: inspect/ in the data root; with --gallery gallery/ in the folder of the reports]",
)
@click.option(
    "--animation",
    type=click.Choice(["mp4", "gif", "none"]),
    default="mp4",
    show_default=True,
    help="The format of an animation of frames beside flow.",
)
@click.option("--trajectories", is_flag=True, help="Also draw improved dense trajectories, on a frame and as an animation.")
@click.option("--dry-run", is_flag=True, help="Print how much disk space and time the gallery takes, and write nothing.")
@json_option
def inspect(
    video_id: str | None,
    data: Path,
    gallery: bool,
    everything: bool,
    split: int | None,
    run: str,
    reports: Path | None,
    jobs: int | None,
    output: Path | None,
    animation: str,
    trajectories: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Draw the video VIDEO_ID: a contact sheet of frames and flow, a histogram of the flow, an animation.

    Flow is drawn in the Middlebury colours: hue is direction, saturation is speed, white is no motion; the sheet shows the colour
    wheel and its scale. The animation shows the whole video at its speed; of a video with more than 1,500 flow fields (GIF: 120) it
    shows every second, every third, ..., as its file name says. The command prints the paths of the pictures. `flowkit info --json` on
    a shard lists the video ids.

    With --trajectories it also draws the improved dense trajectories of the stored frames, without the motion of the camera: where
    points came from in the last 15 frames, and where they are. It takes about a tenth of a second per frame, and looks at the first
    1,500 frames (GIF: 120).

    With --gallery and no VIDEO_ID, it draws a sample of 500 videos, or --all, as a folder that opens in a browser without a server:
    stills that play when the mouse points at them, search, and filters by class, split, speed, status and prediction. A video takes
    at most 150 kB. The same command draws only what is new or was changed.
    """
    if not gallery:
        if video_id is None:
            raise click.UsageError("give a VIDEO_ID, or --gallery for a page that shows many videos")
        refuse_unused("only --gallery shows many videos", *_OF_GALLERY)
        return _inspect_video(video_id, data, output, animation, trajectories=trajectories, as_json=as_json)
    if video_id is not None:
        raise click.UsageError("--gallery shows many videos, not one: leave out VIDEO_ID or --gallery")
    refuse_unused("the films of a gallery have one format", "animation")
    refuse_unused("a gallery shows frames and flow", "trajectories")
    return _draw_gallery(data, output or (reports or data / "reports") / "gallery", everything, split, run, reports, jobs, dry_run, as_json)


def _inspect_video(video_id: str, data: Path, output: Path | None, animation: str, *, trajectories: bool, as_json: bool) -> int:
    from flowkit.dataset.clips import ClipSource, find_clips
    from flowkit.dataset.root import Dataset
    from flowkit.dataset.shard_files import check_flow, check_stored
    from flowkit.describe.pictures import inspect_clip
    from flowkit.describe.trajectory_pictures import draw_trajectories
    from flowkit.model.runs.places import check_writable

    dataset = Dataset.open(data)
    check_flow(dataset, "inspect")
    folder = output or data / "inspect"
    check_writable(folder, option="--output DIR")
    stored = find_clips(data)
    check_stored(dataset, stored, video_ids=[video_id])
    for path, why in stored.unreadable:
        warn(f"not readable: {show_name(path)}: {show_name(why)}")
    with ClipSource(stored) as source:
        clip = source.clip(video_id)
        kind: Animation | None = None if animation == "none" else animation  # type: ignore[assignment]
        drawn = inspect_clip(clip, folder, animation=kind)
        tracks = draw_trajectories(clip, folder, animation=kind) if trajectories else None
    paths = {"sheet": drawn.sheet, "histogram": drawn.histogram, "animation": drawn.animation}
    if tracks is not None:
        paths |= {"trajectories_still": tracks.still, "trajectories_animation": tracks.animation}
    if as_json:
        files = {name: None if path is None else str(path) for name, path in paths.items()}
        counts = {"num_fields": drawn.num_fields, "num_measured": drawn.num_measured, "num_animated": drawn.num_animated}
        found = {} if tracks is None else {"num_trajectories": tracks.num_trajectories, "num_searched": tracks.num_frames}
        say_json("inspect", {"video_id": video_id, "scale_px": drawn.scale_px, **files, **counts, **found})
        return 0
    for drawn_path in paths.values():
        if drawn_path is not None:
            say(show_name(drawn_path))
    num = counted(drawn.num_fields, "flow field")
    if drawn.num_measured < drawn.num_fields:
        inform(f"The histogram and the scale are from a sample of {drawn.num_measured:,} of {num}.")
    if 0 < drawn.num_animated < drawn.num_fields:
        inform(f"The animation shows the whole video at its speed with {drawn.num_animated:,} of {num}, spread evenly.")
    if tracks is not None:
        inform(f"Number of trajectories in the first {counted(tracks.num_frames, 'frame')}: {tracks.num_trajectories:,}.")
    return 0


def _draw_gallery(
    data: Path,
    output: Path,
    everything: bool,
    split: int | None,
    run: str,
    reports: Path | None,
    jobs: int | None,
    dry_run: bool,
    as_json: bool,
) -> int:
    from flowkit.dataset.clips import find_clips
    from flowkit.dataset.root import Dataset
    from flowkit.dataset.shard_files import check_flow, check_stored
    from flowkit.describe.gallery import SAMPLE_SIZE, GalleryDrawing, plan_gallery
    from flowkit.describe.gallery_files import GalleryFolder
    from flowkit.describe.gallery_page import GalleryAbout
    from flowkit.describe.gallery_videos import find_videos
    from flowkit.errors import ManifestError
    from flowkit.model.runs.places import check_writable, place_options

    dataset = Dataset.open(data)
    check_flow(dataset, "a gallery")
    folder = GalleryFolder(output)
    if not dry_run:
        check_writable(output, option="--output DIR")
    if split is None and dataset.splits:
        split = dataset.splits[0]
    stored = find_clips(data)
    check_stored(dataset, stored, split=split)
    predictions, row = _predictions(dataset, run, split, reports)
    videos, unreadable = find_videos(dataset, stored, split=split, predictions=predictions, progress=True)
    if not videos:
        raise ManifestError(f"{str(data)!r} holds no clips yet: run `flowkit extract VIDEOS{place_options(data)}` first")
    most = None if everything else SAMPLE_SIZE
    if dry_run:
        plan = plan_gallery(videos, stored, folder, most=most, progress=True)
        forecast = GalleryDrawing(plan, folder, jobs=jobs, dry_run=True).forecast()
        if as_json:
            say_json("gallery-forecast", _forecast_dict(plan, forecast))
        else:
            say(f"gallery: {_forecast_text(plan, forecast)}; nothing was written")
        return 0
    with folder.writing():
        plan = plan_gallery(videos, stored, folder, most=most, progress=True)
        drawing = GalleryDrawing(plan, folder, jobs=jobs)
        inform(f"gallery: {_forecast_text(plan, drawing.forecast())}")
        made = drawing.draw(GalleryAbout(str(data), len(videos), split, run if row else "", row), progress=True)
    _print_gallery(made, as_json=as_json)
    troubles = [*unreadable, *made.failures]
    if troubles:
        warn("\nnot readable:\n" + long_table(("file or video", "reason"), troubles))
        return EXIT_SOME_FAILED
    return 0


def _predictions(dataset: Dataset, run: str, split: int | None, reports: Path | None) -> tuple[dict[str, Prediction], str]:
    """Return what a run predicts for each test video, and the row of its results that this is; empty if there are no results.

    torch is imported only if there are results. It is an error if there are none and the command line names the run.
    """
    from flowkit.model.runs.places import check_run_name, report_folder

    named = click.get_current_context().get_parameter_source("run") is ParameterSource.COMMANDLINE
    check_run_name(run)
    if split is None:
        if named:
            raise click.UsageError("--run needs a split, and none is packed yet; run `flowkit pack --split 1`")
        return {}, ""
    folder = report_folder(dataset.root, run, split, reports=reports)
    if not named and not (folder / "results.json").is_file():
        return {}, ""

    from flowkit.describe.gallery_videos import Prediction
    from flowkit.model.evaluation.results import read_results
    from flowkit.model.evaluation.rows import last_row
    from flowkit.model.scoring.metrics import shares

    evaluation = read_results(folder)
    (result,) = evaluation.splits
    row = last_row(result.rows)
    assert row is not None  # results without a row cannot be read
    scores = result.rows[row].scores
    share = shares(scores, evaluation.fusion)
    best = (-scores).argsort(1, kind="stable")[:, :_NUM_BEST].tolist()
    predictions = {}
    for k, video_id in enumerate(result.video_ids):
        chosen = tuple((result.classes[label], float(share[k, label])) for label in best[k])
        predictions[video_id] = Prediction(chosen[0][0], chosen)
    return predictions, row


def _forecast_text(plan: GalleryPlan, forecast: GalleryForecast) -> str:
    if not plan.tasks:
        return f"nothing to draw, the pictures of {counted(plan.num_reused, 'video')} are there ({size(forecast.num_bytes)})"
    reused = f", the pictures of {plan.num_reused:,} are there" if plan.num_reused else ""
    needs = f"{size(forecast.num_bytes)} on disk, about {duration(forecast.seconds)} with {counted(forecast.jobs, 'process')}"
    return f"{counted(len(plan.tasks), 'video')} to draw{reused}; {needs}"


def _forecast_dict(plan: GalleryPlan, forecast: GalleryForecast) -> dict[str, object]:
    return {
        "num_videos": len(plan.videos),
        "num_to_draw": len(plan.tasks),
        "num_reused": plan.num_reused,
        "bytes": forecast.num_bytes,
        "seconds": round(forecast.seconds, 3),
        "jobs": forecast.jobs,
    }


def _print_gallery(made: Gallery, *, as_json: bool) -> None:
    if as_json:
        failures = [{"video_id": video_id, "reason": reason} for video_id, reason in made.failures]
        counts = {"num_drawn": made.num_drawn, "num_reused": made.num_reused, "num_removed": made.num_removed}
        say_json(
            "gallery-report", {"page": str(made.page), "num_videos": made.num_videos, **counts, "bytes": made.num_bytes, "failed": failures}
        )
        return
    removed = f", {made.num_removed:,} removed" if made.num_removed else ""
    say(
        f"gallery: {counted(made.num_videos, 'video')} ({made.num_drawn:,} drawn, {made.num_reused:,} there already{removed}), "
        f"{size(made.num_bytes)}; open this page in a browser:\n{show_name(made.page)}"
    )
