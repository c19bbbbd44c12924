"""Count the operations that a training pass launches: if each has little work for a GPU, launching them takes the time of the pass.

    python benchmarks/count_launches.py [--groups 8]

The passes are forward and backward, of ST-ResNet and of two torchvision ResNet-50s, under bf16 autocast; views are not counted,
because they launch nothing. The counts depend neither on the size of the images nor on the number of channels, so both are small
here, and a CPU is enough.
"""

from __future__ import annotations

import argparse
from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models import resnet50

from flowkit.model import STResNet, STResNetConfig
from flowkit.model.networks.resnet import set_groups

if TYPE_CHECKING:
    from collections.abc import Callable

NUM_CLIPS, NUM_FRAMES, SIDE = 4, 5, 64
_LAUNCH_NOTHING = {"alias", "as_strided", "detach", "empty", "empty_like", "expand", "new_empty", "permute", "select", "slice", "split"}
_LAUNCH_NOTHING |= {"squeeze", "t", "transpose", "unbind", "unsqueeze", "view", "_unsafe_view"}


class Launches(TorchDispatchMode):
    """Counts operations by name."""

    def __init__(self) -> None:
        super().__init__()
        self.of: Counter[str] = Counter()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = operation._schema.name.removeprefix("aten::")
        if name not in _LAUNCH_NOTHING:
            self.of[name] += 1
        return operation(*args, **(kwargs or {}))


def count(name: str, logits: Callable[[], list[Tensor]]) -> None:
    """Print what a pass launches: the second pass, which adds to existing gradients."""
    for _ in range(2):
        forward, backward = Launches(), Launches()
        with forward, torch.autocast("cpu", dtype=torch.bfloat16):
            total = torch.stack([scores.sum() for scores in logits()]).sum()
        with backward:
            total.backward()
    most = ", ".join(f"{name} {number}" for name, number in (forward.of + backward.of).most_common(6))
    print(f"{name:44}{forward.of.total():8}{backward.of.total():10}   {most}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=8)
    options = parser.parse_args()
    print(f"torch {torch.__version__}\n{'':44}{'forward':>8}{'backward':>10}")

    def clips(num_groups: int, channels: int) -> Tensor:
        return torch.randn(num_groups * NUM_CLIPS, NUM_FRAMES, channels, SIDE, SIDE)

    plain = [resnet50(num_classes=10).to(memory_format=torch.channels_last) for _ in range(2)]
    count("two ResNet-50s", lambda: [network(clips(1, 3).flatten(0, 1)) for network in plain])
    network = STResNet(STResNetConfig(num_classes=10, base_width=8, input_size=SIDE, head_pool="global"))
    network.to(memory_format=torch.channels_last).train()
    for num_groups in (1, options.groups):
        set_groups(network, range(num_groups))
        count(f"ST-ResNet, {num_groups} group(s)", lambda groups=num_groups: list(network(clips(groups, 3), clips(groups, 20))))


if __name__ == "__main__":
    main()
