"""RAFT, a network that computes flow, as torchvision has it: the flow method ``raft``."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from torch import Tensor, nn

from flowkit.errors import DeviceError, FlowkitError, ParameterError
from flowkit.flow.methods import OF_MACHINE
from flowkit.model.compute.execution import Execution, FittingBatches
from flowkit.model.foreign.raft_weights import known_weights, load_weights

MULTIPLE = 8  # the network takes sides that are multiples of it
MIN_SIDE_PX = 128  # below, the coarsest level of its correlations is empty
PAIRS_ON_GPU = 16  # at once, as many as an extraction has; 10 MB each for the correlations of 340x256
PAIRS_ON_CPU = 1  # a pair's flow must not depend on its neighbours, and several at once round differently
PROCESSES_ON_GPU = 4  # that decode for one GPU; each has a network of its own there

_networks = threading.local()  # the network keeps what it computes of a pair in itself, so no two threads may share one


@dataclass(frozen=True)
class RAFT:
    """Flow from recurrent refinement on the correlations of all pairs of pixels [1]_: torchvision's ``raft_large`` or ``raft_small``.

    Frames are padded to multiples of 8 px per side by repeating their border, half of it on each side, and the flow is cropped. On the CPU
    each pair passes through the network alone, so that its flow does not depend on its neighbours.

    Parameters
    ----------
    size : {"large", "small"}
        Which of the two networks.
    updates : int
        How many times the flow is refined.
    weights : str
        The file of its weights, ``.pth`` or ``.safetensors``, with torchvision's names. By default torchvision's, which are downloaded
        once. What is stored is their digest, ``sha256:...``, which may be given too.
    device : {"auto", "cpu", "cuda"}
        Where it is computed; ``auto`` is the GPU if there is one. What is stored is ``cpu`` or ``cuda``, because the two round differently.

    Raises
    ------
    ParameterError
        If a value is not as above, or the weights are not on this machine.
    CheckpointError
        If the file of weights is damaged, foreign or of another network, or torchvision's cannot be downloaded.
    DeviceError
        If there is no such device.

    References
    ----------
    .. [1] Teed, Deng, "RAFT: Recurrent all-pairs field transforms for optical flow", ECCV 2020, arXiv:2003.12039

    Examples
    --------
    With random weights, as an example of a file:

    >>> import numpy as np, torch
    >>> from flowkit import compute_flow
    >>> from torchvision.models.optical_flow import raft_small
    >>> torch.save(raft_small(weights=None).state_dict(), "raft.pth")
    >>> frames = np.random.default_rng(0).integers(0, 256, (2, 130, 140, 3), dtype=np.uint8)
    >>> compute_flow(frames, method="raft", params={"size": "small", "weights": "raft.pth", "updates": 2}).shape
    (1, 2, 130, 140)
    """

    takes_rgb: ClassVar[bool] = True
    min_side_px: ClassVar[int] = MIN_SIDE_PX

    size: str = "large"
    updates: int = 12
    weights: str = ""
    device: str = field(default="auto", metadata=OF_MACHINE)

    def __post_init__(self) -> None:
        if self.size not in ("large", "small"):
            raise ParameterError(f"raft size must be large or small, got {self.size!r}")
        if not 1 <= self.updates <= 1000:
            raise ParameterError(f"raft updates must be from 1 to 1000, got {self.updates!r}")
        if self.device not in ("auto", "cpu", "cuda"):
            raise ParameterError(
                f"raft device must be auto, cpu or cuda, got {self.device!r}; the variable CUDA_VISIBLE_DEVICES chooses one of several GPUs"
            )
        object.__setattr__(self, "device", Execution(device=self.device).torch_device().type)
        if not self.weights.startswith("sha256:"):
            with torch.device("meta"):
                own = _new_network(self.size).state_dict()
        else:
            own = {}
        object.__setattr__(self, "weights", known_weights(self.size, self.weights, own))

    def prepare(self) -> None:
        """Load the network."""
        self._network()

    def num_processes(self) -> int | None:
        """Return how many worker processes share a GPU; on the CPU there is one per core."""
        return PROCESSES_ON_GPU if self.device == "cuda" else None

    def flows(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the flow, float32 (T - 1, 2, H, W), between consecutive RGB frames, uint8 (T, H, W, 3) with sides of at least 128 px."""
        from torchvision.transforms._presets import OpticalFlow  # what its weights bring to prepare frames

        height, width = frames.shape[1:3]
        if min(height, width) < MIN_SIDE_PX:
            raise ParameterError(f"raft needs frames of at least {MIN_SIDE_PX} px per side, got {width}x{height}")
        network, batches = self._network()
        prepare, device = OpticalFlow(), torch.device(self.device)
        (top, bottom), (left, right) = (_padding(side) for side in (height, width))
        padded = np.pad(frames, ((0, 0), (top, bottom), (left, right), (0, 0)), mode="edge")
        images = torch.from_numpy(padded).permute(0, 3, 1, 2)

        def solve(pairs: Sequence[int]) -> list[NDArray[np.float32]]:
            first = list(pairs)
            images_of_pairs = prepare(images[first].to(device), images[[k + 1 for k in first]].to(device))
            found: Tensor = network(*images_of_pairs, num_flow_updates=self.updates)[-1]
            return list(found[:, :, top : top + height, left : left + width].float().cpu().numpy())

        at_once = PAIRS_ON_GPU if device.type == "cuda" else PAIRS_ON_CPU
        flow = np.empty((len(frames) - 1, 2, height, width), np.float32)
        with torch.inference_mode(), _full_precision(device):
            for start in range(0, len(flow), at_once):
                pairs = range(start, min(start + at_once, len(flow)))
                try:
                    flow[start : pairs.stop] = batches.compute(solve, pairs)
                except DeviceError as cause:  # of this video: others may be smaller
                    raise FlowkitError(f"raft cannot compute flow of {width}x{height} px: {cause}") from cause
        return flow

    def _network(self) -> tuple[nn.Module, FittingBatches]:
        """Return this thread's network, and what fits its GPU."""
        key = (self.size, self.weights, self.device)
        if getattr(_networks, "key", None) != key:
            _networks.key = _networks.made = None  # frees the last one first
            network = _new_network(self.size)
            network.load_state_dict(load_weights(self.size, self.weights, network.state_dict()))
            _networks.made = network.eval().to(self.device), FittingBatches("use a smaller --short-side, or --device cpu")
            _networks.key = key
        made: tuple[nn.Module, FittingBatches] = _networks.made
        return made


def _new_network(size: str) -> nn.Module:
    made: nn.Module = torchvision.models.get_model(f"raft_{size}", weights=None)
    return made


def _padding(side: int) -> tuple[int, int]:
    """Return how many px are added before and after a side, as by the authors' program."""
    more = -side % MULTIPLE
    return more // 2, more - more // 2


def _full_precision(device: torch.device) -> Any:
    """Return a context in which a GPU computes in float32, without the shorter numbers of its tensor cores."""
    if device.type != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
