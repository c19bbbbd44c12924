"""Where and how fast a run computes: device, precision, workers, ranks. None of it decides what is learnt."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from flowkit.errors import DeviceError, ParameterError
from flowkit.model.settings.checks import brief_repr, check, check_choices
from flowkit.model.settings.execution import CropOn, Precision
from flowkit.versions import __version__
from flowkit.workers.processes import num_cores

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_MAX_WORKERS = 16
VIDEOS_AT_ONCE = {"cpu": 1, "cuda": 4}  # complete videos of 25 frames that pass through a network together
Item = TypeVar("Item")
Result = TypeVar("Result")
MAX_WORKERS_ASKED = 1024  # more processes than a machine has cores; a mistyped number must not start thousands


@dataclass(frozen=True)
class Execution:
    """Where and how fast to compute: device, precision, worker processes, checkpoints.

    Parameters
    ----------
    device : str
        ``auto`` (CUDA if it is available), ``cpu``, ``cuda`` or ``cuda:1``.
    amp : {"float32", "tf32", "bf16", "fp16"}
        The precision of convolutions and matrix products. ``float32`` is full precision on every device; ``tf32`` lets a GPU use
        ten bits of mantissa; ``bf16`` and ``fp16`` are autocast.
    compile : bool
        Compile the training step with `torch.compile`. Evaluation, whose videos differ in size, is not compiled.
    checkpoint_activations : bool
        Keep only each residual unit's input for the backward pass of training and compute the rest again: less memory, more work.
    crop_on : {"auto", "host", "device"}
        Where training clips are cropped, resized and mirrored: on the host by the workers, which round to bytes, or on the device.
        ``auto`` is the device if that is CUDA, else the host. Both see the same crops and differ only by that rounding.
    num_workers : int, optional
        Processes that read and crop. Default: none on a CPU, where they would take the cores that the network needs; on CUDA all
        cores but one, at most 16.
    videos_per_pass : int, optional
        Training clips that go through the network together: complete BN groups, each with its own batch statistics; at least one
        group. Default: one group on a CPU; on CUDA as many as fit into memory, up to about 160 frames, since a GPU is not busy with
        fewer.
    channels_last : bool
        Keep images as (H, W, C) in memory, which was faster on all devices measured.
    checkpoint_seconds : float
        The least time between two checkpoints. There is always one at the end of a phase and when a run is stopped.
    checkpoint_steps : int, optional
        Write a checkpoint after every this many steps, too.
    rank, world : int
        The number of this process, and how many processes there are; if several, `torch.distributed` must have been initialised.

    Raises
    ------
    ParameterError
        If a value is out of its range.

    Examples
    --------
    >>> from flowkit.model import Execution
    >>> execution = Execution(device="cpu", checkpoint_steps=100)
    >>> execution  # shows what is not the default
    Execution(device='cpu', checkpoint_steps=100)
    >>> execution.torch_device()
    device(type='cpu')
    >>> execution.crops_on_device(execution.torch_device())
    False
    """

    device: str = "auto"
    amp: Precision = "float32"
    compile: bool = False
    checkpoint_activations: bool = False
    crop_on: CropOn = "auto"
    num_workers: int | None = None
    videos_per_pass: int | None = None
    channels_last: bool = True
    checkpoint_seconds: float = 120.0
    checkpoint_steps: int | None = None
    rank: int = 0
    world: int = 1

    __repr__ = brief_repr

    def __post_init__(self) -> None:
        check_choices(self)
        for name, least in (("num_workers", 0), ("checkpoint_steps", 1), ("videos_per_pass", 1)):
            value = getattr(self, name)
            check(value is None or value >= least, name, f"at least {least}", value)
        check((self.num_workers or 0) <= MAX_WORKERS_ASKED, "num_workers", f"at most {MAX_WORKERS_ASKED}", self.num_workers)
        check(0 <= self.rank < self.world, "rank", f"in [0, {self.world})", self.rank)

    def torch_device(self) -> torch.device:
        """Return the device, after checking that it exists and can do what is asked.

        Raises
        ------
        ParameterError
            If this is not the name of a device, or the device does not have the precision.
        DeviceError
            If there is no such device here, or no compiler for `compile`.
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
        if self.amp == "tf32" and device.type != "cuda":
            raise ParameterError("amp tf32 needs a CUDA device; a CPU has float32 and bf16")
        if self.compile:
            _check_compiler(device)
        return device

    def workers(self, device: torch.device) -> int:
        """Return the number of processes that read and crop."""
        if self.num_workers is not None:
            return self.num_workers
        if device.type != "cuda":
            return 0
        ranks_here = min(self.world, torch.cuda.device_count())  # one per GPU; the others are on other machines
        return min(max(num_cores() // ranks_here - 1, 1), _MAX_WORKERS)

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """Return the context in which the network runs."""
        return torch.autocast(device.type, dtype=_DTYPES.get(self.amp, torch.bfloat16), enabled=self.amp in _DTYPES)

    @contextmanager
    def arithmetic(self, device: torch.device, *, fixed_shapes: bool = False) -> Iterator[None]:
        """Make CUDA compute in the chosen precision while a block runs, and choose the fastest convolutions if shapes are fixed.

        Notes
        -----
        By default, cuDNN computes float32 convolutions in TF32. These settings belong to the process and are restored afterwards.
        """
        if device.type != "cuda":
            yield
            return
        cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
        before = cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32
        cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = fixed_shapes, self.amp == "tf32", self.amp == "tf32"
        try:
            yield
        finally:
            cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = before

    @contextmanager
    def sound_gradients(self, network: nn.Module) -> Iterator[None]:
        """Compute gradients without oneDNN while a block runs, if the network has a convolution from one channel to one.

        Notes
        -----
        With oneDNN 3.13 (torch 2.15), the backward pass of such a convolution corrupted memory on a CPU that has AVX2 but no AVX-512.
        """
        narrow = any(isinstance(module, nn.Conv2d | nn.Conv3d) and module.in_channels == 1 for module in network.modules())
        if not narrow:
            yield
            return
        onednn: Any = torch.backends.mkldnn
        before, onednn.enabled = onednn.enabled, False
        try:
            yield
        finally:
            onednn.enabled = before

    def crops_on_device(self, device: torch.device) -> bool:
        """Return whether training clips are cropped on the device."""
        return self.crop_on == "device" or (self.crop_on == "auto" and device.type == "cuda")

    def place(self, network: nn.Module, device: torch.device) -> None:
        """Move a network to the device and into its memory format."""
        network.to(device)
        if self.channels_last:
            network.to(memory_format=torch.channels_last)

    def environment(self, device: torch.device) -> dict[str, str | int | bool]:
        """Return everything that may change the last digits of a run."""
        return {
            "flowkit": __version__,
            "torch": str(torch.__version__),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "num_threads": torch.get_num_threads(),
            "amp": self.amp,
            "channels_last": self.channels_last,
            "compile": self.compile,
            "checkpoint_activations": self.checkpoint_activations,
            "crop_on": "device" if self.crops_on_device(device) else "host",
            "num_ranks": self.world,
        }

    def scoring_environment(self, device: torch.device) -> dict[str, str | int | bool]:
        """Return the part of `environment` that may change the last digits of the scores of a video."""
        names = ("flowkit", "torch", "device", "num_threads", "amp", "channels_last")
        return {name: value for name, value in self.environment(device).items() if name in names}


def machine() -> dict[str, str | int]:
    """Return the processor of this machine and the number of cores that this process may use."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {"cpu": names[0] if names else platform.processor() or platform.machine(), "num_cores": num_cores()}


def compile_in_place(network: nn.Module, *, backend: str = "inductor") -> None:
    """Make a network compile its forward and backward pass at its first call; the names in its state stay the same.

    Notes
    -----
    Random numbers stay those of the network that is not compiled, so that dropout draws the same.
    """
    options = {"options": {"fallback_random": True}} if backend == "inductor" else {}
    network.compile(backend=backend, dynamic=False, **options)


@contextmanager
def explain_out_of_memory(advice: str) -> Iterator[None]:
    """Turn a GPU's lack of memory into a `DeviceError` with advice on what takes less."""
    try:
        yield
    except torch.OutOfMemoryError as cause:
        raise DeviceError(f"the GPU has too little memory left ({str(cause).partition(' GPU ')[0].strip()}); {advice}") from cause


class FittingBatches:
    """Computes items together, and fewer at once from the first time on that a GPU has too little memory for them.

    Parameters
    ----------
    advice : str
        What takes less memory, for the error when it is too little for one item.
    """

    def __init__(self, advice: str) -> None:
        self._advice = advice
        self._most_at_once: int | None = None  # as many as are given

    def compute(self, function: Callable[[Sequence[Item]], list[Result]], items: Sequence[Item]) -> list[Result]:
        """Return the results of a function that takes some of the items and returns a result for each.

        Raises
        ------
        DeviceError
            If a GPU has too little memory for one item.
        """
        results: list[Result] = []
        while len(results) < len(items):
            batch = items[len(results) :][: self._most_at_once]
            try:
                with explain_out_of_memory(self._advice):
                    results += function(batch)
            except DeviceError:
                if len(batch) == 1:
                    raise
                self._most_at_once = len(batch) // 2
        return results


def _check_compiler(device: torch.device) -> None:
    """Raise `DeviceError` if something that `torch.compile` needs is missing."""
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            raise DeviceError("--compile needs the package triton on a CUDA device; install it, or do without --compile")
        names, language = [os.environ["CC"]] if "CC" in os.environ else ["gcc", "clang", "cc"], "C"
    else:
        usual = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
        names, language = [os.environ.get("CXX", usual)], "C++"
    if not any(shutil.which(name) for name in names):
        raise DeviceError(f"--compile needs a {language} compiler ({' or '.join(names)}); install one, or do without --compile")
