"""``flowkit convert``: a trained network as a file for use outside flowkit, and networks of MatConvNet as flowkit's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from flowkit.cli.help.format import Command
from flowkit.cli.shared.console import counted, inform, say, show_name, size
from flowkit.cli.shared.options import data_option, refuse_unused, runs_option, split_option
from flowkit.model.systems.registry import PHASES

if TYPE_CHECKING:
    from flowkit.model.runs.checkpoint import Checkpoint
    from flowkit.model.settings.training import Phase

_MATLAB = ".mat"


@click.command(cls=Command)
@click.argument("source", metavar="RUN|FILE")
@click.argument("target", metavar="OUT", type=click.Path(dir_okay=False, path_type=Path))
@data_option
@runs_option
@split_option
@click.option("--phase", type=click.Choice(list(PHASES)), help="Which of the run's networks.  [default: the last that is trained]")
@click.option(
    "--data-set",
    type=click.Choice(("ucf101", "hmdb51")),
    help="The data set on which the network of a .mat file was trained; it gives the classes their names.",
)
@click.option(
    "--classes",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The class names of a .mat file's network in the order of its outputs, one a line (classInd.txt has this form).",
)
def convert(
    source: str,
    target: Path,
    data: Path,
    runs: Path | None,
    split: int,
    phase: Phase | None,
    data_set: Literal["ucf101", "hmdb51"] | None,
    classes: Path | None,
) -> int:
    """Write a network in another format.

    \b
    flowkit convert default OUT.safetensors    the network of the run `default`
    flowkit convert default OUT.onnx           the same for ONNX runtimes
    flowkit convert NET.mat OUT.safetensors --data-set ucf101
                                               a network that the ST-ResNet authors trained with MatConvNet
    flowkit convert imagenet-vgg-m-2048.mat vgg-m.safetensors
                                               first weights for `flowkit train --system two-streams-vgg-m --weights vgg-m.safetensors`

    A safetensors or ONNX file holds the weights, the network's settings, the class names and how the input is made. An ONNX file is
    written only if ONNX Runtime computes with it what PyTorch computes. A .mat file holds a base stream, ST-ResNet, ST-ResNet*,
    ST-MulNet, VGG-M-2048 or VGG-16; --split is the split that it was trained on, and `evaluate --checkpoint OUT.safetensors` gives its
    scores.
    """
    if target.suffix not in (".safetensors", ".onnx"):
        raise click.UsageError(f"OUT must end in .safetensors or .onnx, got {show_name(target)}")
    from flowkit.model.runs.places import check_writable
    from flowkit.model.runs.run_folder import is_phase_folder

    if is_phase_folder(target.parent):
        raise click.UsageError(f"OUT lies in {show_name(target.parent)}, which holds a trained phase; choose another folder")
    check_writable(target.parent, option="OUT")
    if Path(source).suffix == _MATLAB:
        refuse_unused("a .mat file says itself what it holds", "phase", "data", "runs")
        return _from_matlab(Path(source), target, data_set=data_set, split=split, classes=classes)
    refuse_unused("networks that flowkit trained name their classes", "data_set", "classes")
    return _from_trained(source, target, data=data, runs=runs, split=split, phase=phase)


def _from_matlab(source: Path, output: Path, *, data_set: str | None, split: int, classes: Path | None) -> int:
    if output.suffix != ".safetensors":
        raise click.UsageError("a .mat file becomes a .safetensors file, which can be converted to .onnx then")
    from flowkit.model.convert.from_matconvnet import convert_matconvnet, read_class_names
    from flowkit.model.convert.network_files import write_safetensors

    converted = convert_matconvnet(source, data_set=data_set, split=split, classes=read_class_names(classes) if classes else ())
    write_safetensors(output, converted.checkpoint)
    for text in converted.notes:
        inform(f"convert: {text}")
    inform(f"convert: the SHA-256 of {show_name(source)} is {converted.sha256}")
    say(_written(source, output, converted.checkpoint))
    return 0


def _from_trained(source: str, output: Path, *, data: Path, runs: Path | None, split: int, phase: Phase | None) -> int:
    from flowkit.errors import CheckpointError
    from flowkit.model.convert.network_files import write_onnx, write_safetensors
    from flowkit.model.runs.checkpoint import load_checkpoint
    from flowkit.model.runs.run_folder import find_weights

    is_file = Path(source).exists() and ("/" in source or Path(source).suffix != "")
    found = Path(source) if is_file else find_weights(data, run=source, split=split, phase=phase, runs=runs)
    weights = load_checkpoint(found)
    if phase is not None and weights.provenance.config.phase != phase:
        raise CheckpointError(f"{found} holds {weights.provenance.config.phase}, not {phase}")
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
    say(_written(found, output, weights) + verified)
    return 0


def _written(source: Path, output: Path, weights: Checkpoint) -> str:
    provenance = weights.provenance
    return (
        f"wrote {provenance.config.phase} of {show_name(source)}, {counted(len(provenance.classes), 'class')}, "
        f"{size(output.stat().st_size)}, to {show_name(output)}"
    )
