"""Where and how fast a run computes: device, precision, workers, ranks. None of it is part of what is learnt."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch

from flowkit import __version__
from flowkit.errors import DeviceError, ParameterError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import nn

Precision = Literal["float32", "bf16", "fp16"]
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_MAX_WORKERS = 16


@dataclass(frozen=True)
class Execution:
    """How to compute.

    Parameters
    ----------
    device : str
        ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:1``.
    amp : {"float32", "bf16", "fp16"}
        Precision of convolutions and products; ``float32`` is plain, the others are autocast.
    num_workers : int, optional
        Processes that read and crop. Default: none on a CPU, where they would take the cores the network needs; on CUDA all cores but
        one, at most 16.
    channels_last : bool
        Keep images as (H, W, C) in memory: faster on all devices measured.
    checkpoint_seconds : float
        At least this long between two checkpoints; there is always one at the end of a phase and when a run is stopped.
    checkpoint_steps : int, optional
        A checkpoint after every so many steps, besides.
    rank, world : int
        This process's number and how many there are; above one, `torch.distributed` must have been initialised.

    Raises
    ------
    ParameterError
        If a value is out of its range.
    """

    device: str = "auto"
    amp: Precision = "float32"
    num_workers: int | None = None
    channels_last: bool = True
    checkpoint_seconds: float = 120.0
    checkpoint_steps: int | None = None
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if self.amp not in get_args(Precision):
            raise ParameterError(f"amp must be one of {', '.join(get_args(Precision))}, got {self.amp!r}")
        if self.num_workers is not None and self.num_workers < 0:
            raise ParameterError(f"num_workers must be at least 0, got {self.num_workers!r}")
        if self.checkpoint_steps is not None and self.checkpoint_steps < 1:
            raise ParameterError(f"checkpoint_steps must be at least 1, got {self.checkpoint_steps!r}")
        if not 0 <= self.rank < self.world:
            raise ParameterError(f"rank must be in [0, {self.world}), got {self.rank!r}")

    def torch_device(self) -> torch.device:
        """Return the device, checked to be there.

        Raises
        ------
        ParameterError
            If the name is none of a device.
        DeviceError
            If there is no such device here.
        """
        name = ("cuda" if torch.cuda.is_available() else "cpu") if self.device == "auto" else self.device
        try:
            device = torch.device(name)
        except RuntimeError as cause:
            raise ParameterError(f"device must be auto, cpu, cuda or cuda:N, got {self.device!r}") from cause
        if device.type not in ("cpu", "cuda"):
            raise ParameterError(f"device must be auto, cpu, cuda or cuda:N, got {self.device!r}")
        if device.type == "cuda" and not torch.cuda.is_available():
            raise DeviceError(f"no CUDA device is available for --device {self.device}; use --device cpu")
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise DeviceError(f"there is no {device}; this machine has {torch.cuda.device_count()} CUDA device(s)")
        return device

    def workers(self, device: torch.device) -> int:
        """Return how many processes read and crop."""
        if self.num_workers is not None:
            return self.num_workers
        return min(max((os.cpu_count() or 2) // self.world - 1, 1), _MAX_WORKERS) if device.type == "cuda" else 0

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """Return the context in which the network runs."""
        return torch.autocast(device.type, dtype=_DTYPES.get(self.amp, torch.bfloat16), enabled=self.amp in _DTYPES)

    def place(self, network: nn.Module, device: torch.device) -> None:
        """Move a network to the device and into its memory format."""
        network.to(device)
        if self.channels_last:
            network.to(memory_format=torch.channels_last)

    def environment(self, device: torch.device) -> dict[str, str | int]:
        """Return all that may change the last digits of a run."""
        return {
            "flowkit": __version__,
            "torch": str(torch.__version__),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "num_threads": torch.get_num_threads(),
            "amp": self.amp,
            "num_ranks": self.world,
        }
