"""How trajectories are computed and encoded: plain settings (standard library only)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from flowkit.errors import ParameterError
from flowkit.model.settings.svm_phase import FISHER_COMPONENTS
from flowkit.model.systems.idt import PHASE

TRAJECTORIES = PHASE.name  # the name of the phase of trajectories, and of the stream of their features
CameraMotion = Literal["sift", "flow", "none"]
Pixels = Literal["source", "stored"]

NUM_COMPONENTS = FISHER_COMPONENTS["official"]  # without a recipe; names of files say what differs from it
SAMPLE_SIZE = 256_000  # descriptors of each type, over all videos: as many as the authors used


@dataclass(frozen=True)
class TrajectorySettings:
    """How trajectories are computed and their encoder is fitted.

    Parameters
    ----------
    camera_motion : {"sift", "flow", "none"}
        How the motion of the camera is found; see `flowkit.improved_trajectories`.
    num_components : int
        K, the number of Gaussians of each type of descriptors.
    sample_size : int
        How many descriptors of each type, over all training videos, the encoder is fitted to.
    seed : int
        Seed of the sample and of the mixtures.

    Raises
    ------
    ParameterError
        If a value is out of its range.
    """

    camera_motion: CameraMotion = "sift"
    num_components: int = NUM_COMPONENTS
    sample_size: int = SAMPLE_SIZE
    seed: int = 0

    def __post_init__(self) -> None:
        if self.camera_motion not in get_args(CameraMotion):
            raise ParameterError(f"camera_motion must be one of {', '.join(get_args(CameraMotion))}, got {self.camera_motion!r}")
        for name, least in (("num_components", 1), ("sample_size", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ParameterError(f"{name} must be at least {least}, got {getattr(self, name)}")

    def file_name(self, split: int, *, of: str = TRAJECTORIES) -> str:
        """Return the name of the file of features, which says what is not the default."""
        parts = [of]
        parts += [f"k{self.num_components}"] if self.num_components != NUM_COMPONENTS else []
        parts += [f"camera-{self.camera_motion}"] if self.camera_motion != "sift" else []
        parts += [f"seed{self.seed}"] if self.seed else []
        return "-".join([*parts, f"split{split}"]) + ".h5"
