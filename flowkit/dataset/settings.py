"""The settings of extract, and the data root's record of them (standard library only, so that the help of the command line stays fast)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from flowkit.errors import ManifestError, ParameterError
from flowkit.flow.methods import NO_FLOW, TVL1, FlowMethod
from flowkit.flow.params import PRESETS, TVL1Params
from flowkit.quantise import Quantiser
from flowkit.video.reading import Reading, range_text, rate_text

Solver = Literal["strict", "fast", "cuda"]
ForeignTool = Literal["gpu_flow", "denseflow", "dense_flow"]  # tools whose flow can be imported
Codec = Literal["zstd", "gzip", "none", "jpeg"]
CameraMotion = Literal["none", "sift", "flow"]

OPTIONAL = {"method", "camera_motion", "reading"}  # settings that are stored only where they are not the default
MIN_SHORT_SIDE = 32  # below it TV-L1 has no pyramid, and a network sees next to nothing


@dataclass(frozen=True)
class ExtractSettings:
    """The settings that all clips of a data root share; they are stored in ``dataset.json`` and never mixed.

    Parameters
    ----------
    preset : {"opencv", "paper", "denseflow", "imported", "no-flow"}
        The preset from which `tvl1` was made; ``imported`` if the flow came from another tool; the name of `method` if there is one;
        ``no-flow`` if frames are stored without flow, as are then `solver` and `codec`: `frames_only` makes such settings.
    tvl1 : TVL1Params
        The parameters of the solver; for imported flow they are unknown, and nothing is stored, nor is there for another method.
    solver : {"strict", "fast", "cuda", "gpu_flow", "denseflow", "dense_flow"}
        The solver that computed the flow (their results differ in the last digits), or the tool that it was imported from;
        the name of `method` if there is one.
    quantiser : Quantiser
        How flow becomes bytes.
    short_side : int, px
        Short side of the stored frames; flow is in px/frame at this size. 0 for imported flow: each video keeps its size.
    codec : {"zstd", "gzip", "none", "jpeg"}
        How flow is compressed in clip files and shards.
    method : FlowMethod, optional
        The flow method, with its parameters, if it is not TV-L1. `preset` and `solver` take its name.
    camera_motion : {"none", "sift", "flow"}
        Whether the camera's motion is removed before the flow is computed, and how it is found; see `flowkit.compute_flow`.
    reading : Reading
        Which frames of a video are read; flow is between those. By default all.

    Raises
    ------
    ParameterError
        If a value is not one of those listed.

    Examples
    --------
    >>> from flowkit import ExtractSettings, Quantiser
    >>> settings = ExtractSettings(solver="fast", quantiser=Quantiser(15.0), short_side=240)
    >>> settings.differences(ExtractSettings(solver="fast"))
    ['bound: 15.0, not 20.0', 'short_side: 240, not 256']
    """

    preset: str = "opencv"
    tvl1: TVL1Params = field(default_factory=TVL1Params)
    solver: str = "strict"
    quantiser: Quantiser = field(default_factory=Quantiser)
    short_side: int = 256
    codec: Codec | Literal["no-flow"] = "zstd"
    method: FlowMethod | None = None
    camera_motion: CameraMotion = "none"
    reading: Reading = field(default_factory=Reading)

    def __post_init__(self) -> None:
        presets: tuple[str, ...] = ("imported",) if self.is_imported else PRESETS
        solvers: tuple[str, ...] = get_args(ForeignTool) if self.is_imported else get_args(Solver)
        if self.method is not None:
            self._take_name(self.method.name)
            presets = solvers = (self.method.name,)
        cameras = ("none",) if self.is_imported else get_args(CameraMotion)
        codecs: tuple[str, ...] = get_args(Codec)
        if NO_FLOW in (self.preset, self.solver, self.codec):
            presets = solvers = codecs = (NO_FLOW,)
            cameras = ("none",)
            if self.method is not None or self.tvl1 != TVL1Params() or self.quantiser != Quantiser():
                raise ParameterError("settings without flow have no method, no parameters of TV-L1 and no quantiser; leave them out")
        for name, choices in (("preset", presets), ("solver", solvers), ("codec", codecs), ("camera_motion", cameras)):
            if getattr(self, name) not in choices:
                raise ParameterError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        if self.is_imported and (self.short_side, self.tvl1) != (0, TVL1Params()):
            raise ParameterError(f"imported flow has no known TV-L1 parameters and size, got {self.tvl1} and {self.short_side} px")
        if self.is_imported:
            return
        if isinstance(self.short_side, bool) or not isinstance(self.short_side, int) or self.short_side < MIN_SHORT_SIDE:
            raise ParameterError(f"short_side must be a whole number of at least {MIN_SHORT_SIDE} px, got {self.short_side!r}")

    def _take_name(self, name: str) -> None:
        """Let `preset` and `solver` name the method; refuse what somebody has chosen of TV-L1."""
        made = (self.preset, self.solver)
        if self.tvl1 != TVL1Params() or made not in ((PRESETS[0], "strict"), (name, name)):
            raise ParameterError(f"preset, tvl1 and solver are of TV-L1; leave them out with the flow method {name!r}")
        object.__setattr__(self, "preset", name)
        object.__setattr__(self, "solver", name)

    @property
    def is_imported(self) -> bool:
        """Whether the flow came from another tool."""
        return self.solver in get_args(ForeignTool)

    @property
    def has_flow(self) -> bool:
        """Whether flow is stored, and not frames only."""
        return self.codec != NO_FLOW

    def frames_only(self) -> ExtractSettings:
        """Return settings that store the same frames without flow."""
        return ExtractSettings(preset=NO_FLOW, solver=NO_FLOW, codec="no-flow", short_side=self.short_side, reading=self.reading)

    def stored_tvl1(self) -> dict[str, float | int]:
        """Return the TV-L1 parameters as stored with each clip; empty if they are unknown, or of another method, or there is no flow."""
        return {} if self.is_imported or self.method is not None or not self.has_flow else self.tvl1.to_dict()

    def stored_method(self) -> dict[str, Any]:
        """Return the name and the parameters of the method as stored with each clip; empty for TV-L1 and imported flow."""
        return {} if self.method is None else self.method.to_dict()

    def stored_camera_motion(self) -> str:
        """Return how the camera's motion was found as stored with each clip; empty if it is not removed."""
        return "" if self.camera_motion == "none" else self.camera_motion

    def flow_in_words(self) -> str:
        """Return the flow method, and where it runs, for messages: ``TV-L1 opencv (CPU, strict)``."""
        if self.is_imported:
            return f"imported from {self.solver}"
        if not self.has_flow:
            return "no flow"
        own = f"TV-L1 {self.preset} ({'GPU' if self.solver == 'cuda' else f'CPU, {self.solver}'})"
        words = own if self.method is None else str(self.method)
        return words if self.camera_motion == "none" else f"{words} without camera motion ({self.camera_motion})"

    def stored_options(self) -> dict[str, Any]:
        """Return the settings that are stored only where they differ from what flowkit had before it knew them."""
        method = {} if self.method is None else {"method": self.stored_method()}
        camera = {} if self.camera_motion == "none" else {"camera_motion": self.camera_motion}
        return {**method, **camera, **({"reading": self.reading.to_dict()} if self.reading.to_dict() else {})}

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as built-in types."""
        return {
            "preset": self.preset,
            "tvl1": self.stored_tvl1(),
            "solver": self.solver,
            "quantiser": self.quantiser.to_dict(),
            "short_side": self.short_side,
            "codec": self.codec,
            **self.stored_options(),
        }

    @classmethod
    def from_dict(cls, values: object) -> ExtractSettings:
        """Make settings from the result of `to_dict`.

        Raises
        ------
        ManifestError
            If a setting is missing, unknown or of a wrong type.
        """
        names = {"preset", "tvl1", "solver", "quantiser", "short_side", "codec"}
        if not isinstance(values, dict) or set(values) - OPTIONAL != names or not isinstance(values["tvl1"], dict):
            raise ManifestError(f"extraction settings must have exactly the keys {', '.join(sorted(names))}, got {values!r}")
        try:
            tvl1, quantiser = TVL1Params.from_dict(values["tvl1"]), Quantiser.from_dict(values["quantiser"])
            method = FlowMethod.from_dict(values["method"]) if "method" in values else None
            reading = Reading.from_dict(values.get("reading", {}))
            return cls(**{**values, "tvl1": tvl1, "quantiser": quantiser, "method": method, "reading": reading})
        except (ParameterError, TypeError) as cause:
            raise ManifestError(f"extraction settings are not valid: {cause}") from cause

    def differences(self, other: ExtractSettings) -> list[str]:
        """Name each setting in which `other` differs, with both values: ``bound: 20.0, not 15.0``."""
        mine, theirs = self._flattened(), other._flattened()
        return [f"{key}: {mine[key]}, not {theirs[key]}" for key in mine if key in theirs and mine[key] != theirs[key]]

    def _flattened(self) -> dict[str, Any]:
        """Return all settings as one table, in which those of another method bear its name."""
        flat: dict[str, Any] = {}
        if not self.has_flow:
            flat = {"flow": "none"}
        elif not self.is_imported:
            flat = {"flow": "stored", "method": TVL1 if self.method is None else self.method.name, "camera_motion": self.camera_motion}
        reading = self.reading
        flat |= {"fps": rate_text(reading.rate) if reading.rate is not None else "all frames", "every": reading.every}
        flat |= {"stream": reading.stream or "default", "grey_range": range_text(reading.stretch) if reading.stretch else "upper 8 bits"}
        flat |= {"frame_rate": rate_text(reading.known_rate) if reading.known_rate is not None else "unknown"}
        for key, value in self.to_dict().items():
            if key == "reading" or (not self.has_flow and key != "short_side"):
                continue
            if key == "method":
                flat |= {f"{value['name']} {name}": param for name, param in value.items() if name != "name"}
            elif self.method is None or key not in ("preset", "solver"):
                flat |= value if isinstance(value, dict) else {key: value}
        return flat
