"""How videos are extracted for a trained network: as those of its training were, as far as its weights record that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

from flowkit.dataset.root import Dataset
from flowkit.dataset.settings import ExtractSettings, ForeignTool
from flowkit.errors import CheckpointError, DeviceError, ManifestError, ParameterError
from flowkit.flow.methods import FlowMethod
from flowkit.flow.params import PRESETS, TVL1Params
from flowkit.model.runs.provenance import Provenance
from flowkit.quantise import Quantiser
from flowkit.video.reading import Reading

Solver = Literal["auto", "strict", "fast", "cuda"]
# The preset whose parameters are nearest to a tool's own, for networks whose training flow was imported from it.
_PRESET_OF_TOOL: dict[ForeignTool, str] = {"gpu_flow": "paper", "dense_flow": "denseflow", "denseflow": "denseflow"}


def extraction_of(provenance: Provenance, root: Path | None) -> tuple[ExtractSettings, str]:
    """Return how videos must be extracted for a network, and a note on what had to be assumed (empty if nothing).

    Parameters
    ----------
    provenance : Provenance
        What the network was trained on.
    root : Path, optional
        The data root whose settings to take where the weights do not record theirs.

    Raises
    ------
    CheckpointError
        If the settings that the weights record are impossible.
    """
    try:
        quantiser = Quantiser.from_dict(provenance.quantiser)
        stored: dict[str, Any] = provenance.extraction
        note = ""
        if not stored:
            settings, source = _settings_of(root, quantiser)
            return settings, f"the weights are from before flowkit recorded how their videos were extracted; using {source}"
        frames = {"short_side": stored["short_side"], "codec": stored["codec"], "camera_motion": stored.get("camera_motion", "none")}
        frames |= {"reading": Reading.from_dict(stored.get("reading", {}))}
        if "method" in stored:
            return ExtractSettings(quantiser=quantiser, method=FlowMethod.from_dict(stored["method"]), **frames), note
        solver, params = stored["solver"], TVL1Params.from_dict(stored["tvl1"])
        if solver in get_args(ForeignTool):
            preset = _PRESET_OF_TOOL[solver]
            note = f"the network was trained on flow of {solver}; flowkit's solver with preset {preset} stands in for it"
            params, solver = TVL1Params.preset(preset), "strict"
        preset = next((name for name in PRESETS if TVL1Params.preset(name) == params), PRESETS[0])
        return ExtractSettings(preset, params, solver, quantiser, **frames), note
    except (ParameterError, KeyError, TypeError) as cause:
        raise CheckpointError(f"the extraction that the weights record is impossible: {cause}") from cause


def _settings_of(root: Path | None, quantiser: Quantiser) -> tuple[ExtractSettings, str]:
    """Return a data root's settings if they have the weights' quantiser, else the defaults; and in words which."""
    if root is not None:
        try:
            dataset = Dataset.open_if_present(root)
        except ManifestError:
            dataset = None
        if dataset is not None and dataset.settings.quantiser == quantiser and dataset.settings.stored_tvl1():
            return dataset.settings, f"the settings of {root}"
    settings = ExtractSettings(quantiser=quantiser)
    return settings, f"the defaults (TV-L1 {settings.preset}, short side {settings.short_side} px)"


def with_solver(settings: ExtractSettings, solver: Solver, device: str) -> tuple[ExtractSettings, str]:
    """Return the settings with the solver to use on this machine, and a note if it is not that of the training.

    ``auto`` is the training's solver; the cuda solver if `device` names a GPU that it can use; the strict solver if the training's is
    the cuda solver and there is no such GPU.
    """
    from flowkit.flow.cuda import device as gpu

    if settings.method is not None:
        if solver != "auto":
            raise ParameterError(f"the solvers are of TV-L1, and the network was trained on flow of {settings.method.name}: name no solver")
        return _with_method_here(settings, settings.method)
    chosen: str = solver
    if solver == "auto":
        chosen = settings.solver
        if device.startswith("cuda") and gpu.has_gpu():
            chosen = "cuda"
        elif chosen == "cuda" and not gpu.has_gpu():
            chosen = "strict"
    elif solver == "cuda":
        gpu.list_devices()  # says what is missing
    if chosen == settings.solver:
        return settings, ""
    note = f"the flow is from the {chosen} solver, that of the training data from the {settings.solver} solver; "
    return replace(settings, solver=chosen), note + "they differ by hundredths of a pixel"


def _with_method_here(settings: ExtractSettings, method: FlowMethod) -> tuple[ExtractSettings, str]:
    """Return the settings with the flow method as this machine has it, and a note if its flow may differ from that of the training."""
    try:
        method.solver()
    except (ParameterError, DeviceError):  # another version of a library, or no GPU
        here = method.as_here()
        if here == method:
            raise
    else:
        return settings, ""
    different = [
        f"{name} is {value} here, and was {method.params.get(name)}"
        for name, value in here.params.items()
        if method.params.get(name) != value
    ]
    note = f"the flow of {method.name} may differ from that of the training data by a fraction of a pixel: {', '.join(different)}"
    return replace(settings, method=here), note


def extraction_here(provenance: Provenance, root: Path | None, solver: Solver, device: str) -> tuple[ExtractSettings, list[str]]:
    """Return how videos are extracted for a network on this machine, and notes on what differs from its training or had to be assumed.

    Raises
    ------
    CheckpointError
        If the settings that the weights record are impossible.
    DeviceError
        If the solver needs a GPU that is not there.
    """
    settings, assumed = extraction_of(provenance, root)
    settings, note = with_solver(settings, solver, device)
    return settings, [text for text in (assumed, note) if text]
