"""From the bytes of whole videos to the inputs of networks, on their device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowkit.model.data.transforms import normalise_flow, normalise_rgb
from flowkit.model.data.whole_videos import WholeClip
from flowkit.quantise import Quantiser


class ClipInputs:
    """Normalises videos of one quantiser, with or without their mirror images.

    Parameters
    ----------
    quantiser : Quantiser
        The quantiser of their flow.
    device : torch.device
        Where the networks compute.
    """

    def __init__(self, quantiser: Quantiser, device: torch.device) -> None:
        self._device = device
        # What the mirror image does to u, for every byte.
        self._mirrored_u = torch.from_numpy(quantiser.flip_u(np.arange(256, dtype=np.uint8))).to(device)

    def of(self, clips: Sequence[WholeClip], *, mirror: bool) -> tuple[Tensor, Tensor]:
        """Return the inputs of n videos that have the same frame size and number of samples.

        Returns
        -------
        rgb : float tensor, shape (n, T, 3, H, W) or (2n, T, 3, H, W)
            All videos, and with `mirror` all mirror images after them.
        flow : float tensor, shape (n, T, 20, H, W) or (2n, T, 20, H, W)
            Their stacks of flow.
        """
        rgb = torch.stack([normalise_rgb(self._on_device(clip.rgb)) for clip in clips])
        if mirror:
            rgb = torch.cat([rgb, rgb.flip(-1)])
        sides = (False, True) if mirror else (False,)
        return rgb, torch.stack([self._stacks(clip, mirrored) for mirrored in sides for clip in clips])

    def _stacks(self, clip: WholeClip, mirrored: bool) -> Tensor:
        """Return the video's T stacks, normalised: float (T, 20, H, W)."""
        fields = self._on_device(clip.fields)
        if mirrored:
            fields = fields.flip(-1)
            fields[:, 0] = self._mirrored_u[fields[:, 0].int()]
        return normalise_flow(fields)[self._on_device(clip.where)].flatten(1, 2)

    def _on_device(self, array: NDArray[np.uint8] | NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(array).to(self._device)
