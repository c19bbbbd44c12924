"""``flowkit convert``: a trained network as a file for use outside flowkit."""

from __future__ import annotations

from pathlib import Path

import click

from flowkit.cli.shared.console import say, show_name, size
from flowkit.cli.shared.options import data_option, split_option
from flowkit.model.settings.training import PHASES, Phase


@click.command()
@data_option
@click.option(
    "--output",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The file to write; its name ends in .safetensors or .onnx, which chooses the format.",
)
@click.option("--run", default="default", show_default=True, metavar="NAME", help="The run that trained the network.")
@split_option
@click.option("--phase", type=click.Choice(PHASES), help="Which of the run's networks.  [default: the last that is trained]")
@click.option("--checkpoint", type=click.Path(exists=True, path_type=Path), help="Use this phase's folder or weights instead of a run.")
def convert(data: Path, output: Path, run: str, split: int, phase: Phase | None, checkpoint: Path | None) -> int:
    """Write a trained network as a safetensors or ONNX file, for use outside flowkit.

    The file holds the weights, the network's settings, the class names and how the input is made. An ONNX file is written only if
    ONNX Runtime computes with it what PyTorch computes.
    """
    if output.suffix not in (".safetensors", ".onnx"):
        raise click.UsageError(f"--output must end in .safetensors or .onnx, got {show_name(output)}")
    from flowkit.errors import CheckpointError
    from flowkit.model.convert.network_files import write_onnx, write_safetensors
    from flowkit.model.runs.checkpoint import load_checkpoint
    from flowkit.model.runs.run_folder import find_weights

    source = checkpoint or find_weights(data, run=run, split=split, phase=phase)
    weights = load_checkpoint(source)
    converted = weights.provenance.config.phase
    if phase is not None and converted != phase:
        raise CheckpointError(f"{source} holds {converted}, not {phase}")
    verified = ""
    if output.suffix == ".safetensors":
        write_safetensors(output, weights)
    else:
        check = write_onnx(output, weights)
        sizes = " and ".join("x".join(map(str, shape)) for shape in check.shapes)
        verified = (
            f"; ONNX Runtime and PyTorch differ by at most {check.max_difference:.2g}, with logits up to {check.largest_logit:.3g} "
            f"(random clips of {sizes}: clips x frames x height x width)"
        )
    say(
        f"wrote {converted} of {show_name(source)}, {len(weights.provenance.classes)} classes, {size(output.stat().st_size)}, "
        f"to {show_name(output)}{verified}"
    )
    return 0
