"""Dropout that draws for parts of a batch as if each part passed through the network alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class GroupDraws:
    """Torch's random numbers of each group of a batch, across all the dropout layers of one pass.

    Parameters
    ----------
    seeds : sequence of int
        The seed of each group.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self.seeds = tuple(seeds)
        self._states: dict[int, Tensor] = {}

    def resume(self, group: int, device: torch.device) -> None:
        """Let torch continue with a group's random numbers, from its seed on."""
        if group not in self._states:
            torch.manual_seed(self.seeds[group])
        elif device.type == "cuda":
            torch.cuda.set_rng_state(self._states[group], device)
        else:
            torch.set_rng_state(self._states[group])

    def keep(self, group: int, device: torch.device) -> None:
        """Remember how far a group's random numbers are used."""
        self._states[group] = torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


class GroupedDropout(nn.Module):
    """Dropout whose groups, once a batch is divided, draw what they would draw alone.

    Without groups it is torch's, and the caller seeds torch. `divide` gives the groups of the next pass; all layers of a network
    share one `GroupDraws`, so that a group's second layer continues where its first one ended.

    Parameters
    ----------
    rate : float
        The share of values that is set to zero, in [0, 1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.draws: GroupDraws | None = None

    def divide(self, draws: GroupDraws | None) -> None:
        """Treat the next batch of training as the groups of these draws; None: as one, which torch's own random numbers serve."""
        self.draws = draws

    def forward(self, x: Tensor) -> Tensor:
        """Set values of (N, ...) to zero, N a multiple of the number of groups."""
        draws = self.draws
        if not (self.training and self.rate and draws is not None):  # in this order, since a compiled network treats seeds as constants
            return functional.dropout(x, self.rate, self.training)
        parts = []
        for group, part in enumerate(x.chunk(len(draws.seeds))):
            draws.resume(group, x.device)
            parts.append(functional.dropout(part, self.rate))
            draws.keep(group, x.device)
        return torch.cat(parts)

    def extra_repr(self) -> str:
        """Return what the printed network shows."""
        return f"rate={self.rate}"
