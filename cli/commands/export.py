"""``flowkit export``: frames and flow as other tools read them, or a trained network for use outside flowkit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from flowkit.cli.shared.console import say, show_name, size, table, warn
from flowkit.cli.shared.options import data_option

if TYPE_CHECKING:
    from flowkit.model.settings.training import Phase

_MOST_LISTED = 20
_ONLY_WITH = {
    "layout": ("flow", "mapping", "shard_size"),
    "model": ("run", "phase", "checkpoint"),
}


@click.command()
@data_option
@click.option(
    "--layout",
    type=click.Choice(["rawframes", "gpu_flow", "denseflow", "webdataset"]),
    help="Export the data set's images, laid out so.",
)
@click.option("--model", type=click.Choice(["safetensors", "onnx"]), help="Export a trained network, as such a file.")
@click.option(
    "--output", required=True, type=click.Path(path_type=Path), metavar="PATH", help="Of --layout a new or empty folder, of --model a file."
)
@click.option(
    "--split",
    type=click.IntRange(min=1),
    default=None,
    metavar="N",
    help="Images: only a split's videos, with its lists [default: all videos]. Network: trained on this split [default: 1].",
)
@click.option("--flow", type=click.Choice(["jpeg", "png"]), default="jpeg", show_default=True, help="Images: of flow; PNG loses nothing.")
@click.option(
    "--mapping",
    type=click.Choice(["keep", "paper", "symmetric"]),
    default="keep",
    show_default=True,
    help="Images: how bytes mean flow, as stored or converted (the other tools write paper).",
)
@click.option(
    "--shard-size",
    type=click.IntRange(min=1),
    default=1024,
    show_default=True,
    metavar="MB",
    help="Images: size at which a WebDataset tar ends.",
)
@click.option("--run", default="default", show_default=True, metavar="NAME", help="Network: the run it was trained in.")
@click.option(
    "--phase",
    type=click.Choice(["appearance", "motion", "st-resnet", "st-resnet-star"]),
    help="Network: which of the run's.  [default: the last that is trained]",
)
@click.option(
    "--checkpoint", type=click.Path(exists=True, path_type=Path), help="Network: this phase's folder or weights, instead of a run's."
)
@click.pass_context
def export(
    ctx: click.Context,
    data: Path,
    layout: str | None,
    model: str | None,
    output: Path,
    split: int | None,
    flow: str,
    mapping: str,
    shard_size: int,
    run: str,
    phase: Phase | None,
    checkpoint: Path | None,
) -> int:
    """Write the data set's images (--layout), or a trained network (--model), as other software reads them.

    --layout: frames and flow as trees as mmaction2 (rawframes), gpu_flow and denseflow have them, or tars. Frames are the stored
    JPEGs. The same line run again finishes an export that was stopped. `flowkit import` takes the trees in again: bit for bit
    with --flow png, or if flow was stored as JPEG.

    --model: one file with the weights, the network's settings, the class names and how its input is made. An ONNX file is
    written only if ONNX Runtime computes with it what PyTorch does.
    """
    if (layout is None) == (model is None):
        raise click.UsageError("give one of --layout (the data set's images) and --model (a trained network)")
    _refuse_options_of(ctx, "model" if model is None else "layout")
    if layout is not None:
        return _export_images(data, output, layout, flow, mapping, split, shard_size)
    assert model is not None
    return _export_model(data, output, model, run, split or 1, phase, checkpoint)


def _refuse_options_of(ctx: click.Context, other: str) -> None:
    """Refuse options that were typed and would have no effect."""
    for name in _ONLY_WITH[other]:
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name.replace('_', '-')} goes with --{other}")


def _export_images(data: Path, output: Path, layout: str, flow: str, mapping: str, split: int | None, shard_size: int) -> int:
    from flowkit.exchange.export_trees import export as run

    if output.is_file():
        raise click.UsageError(f"--output {show_name(output)} is a file; images need a new or empty folder")
    report = run(data, output, layout=layout, flow=flow, mapping=mapping, split=split, shard_bytes=shard_size << 20, progress=True)  # type: ignore[arg-type]
    error = ""
    if report.num_done:
        error = f"; flow error {report.mean_error_px:.3f} px on average, {report.max_error_px:.2f} px at most (one field a video)"
    there = f", {report.num_skipped} there already" if report.num_skipped else ""
    say(f"exported {report.num_done} videos ({size(report.num_bytes)}) to {show_name(output)}{there}{error}")
    if report.failed:
        warn("\nfailed:\n" + table(("video", "why"), report.failed[:_MOST_LISTED]))
        if len(report.failed) > _MOST_LISTED:
            warn(f"... and {len(report.failed) - _MOST_LISTED} more")
        return 3
    return 0


def _export_model(data: Path, output: Path, model: str, run: str, split: int, phase: Phase | None, checkpoint: Path | None) -> int:
    from flowkit.errors import CheckpointError
    from flowkit.model.convert.network_files import export_onnx, export_safetensors
    from flowkit.model.runs.checkpoint import load_checkpoint
    from flowkit.model.runs.run_folder import find_weights

    if output.suffix != f".{model}":
        raise click.UsageError(f"--output must end in .{model} for --model {model}, got {show_name(output)}")
    if output.is_dir():
        raise click.UsageError(f"--output {show_name(output)} is a folder; name a file")
    source = checkpoint or find_weights(data, run=run, split=split, phase=phase)
    weights = load_checkpoint(source)
    exported = weights.provenance.config.phase
    if phase is not None and exported != phase:
        raise CheckpointError(f"{source} holds {exported}, not {phase}")
    if model == "safetensors":
        export_safetensors(output, weights)
        verified = ""
    else:
        check = export_onnx(output, weights)
        sizes = " and ".join("x".join(map(str, shape)) for shape in check.shapes)
        verified = (
            f"; ONNX Runtime and PyTorch differ by {check.max_difference:.2g} at most where logits are up to {check.largest_logit:.3g} "
            f"(random clips of {sizes}: clips x frames x height x width)"
        )
    say(
        f"exported {exported} of {show_name(source)}, {len(weights.provenance.classes)} classes, {size(output.stat().st_size)}, "
        f"to {show_name(output)}{verified}"
    )
    return 0
