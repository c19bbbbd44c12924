"""3D convolutions within networks whose other layers are 2D, and where oneDNN's gradients of them are wrong."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def convolved(convolve: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a 3D convolution to (N, C, T, H, W), in float32 where the gradient of its weight would be wrong in half precision.

    Notes
    -----
    With oneDNN 3.13 (torch 2.15) on a CPU with AVX-512, that gradient is computed in bfloat16 with memory that was never written, if T is
    2 and the kernel has three taps in time.
    """
    if x.shape[2] == 2 and x.device.type == "cpu" and torch.is_grad_enabled() and torch.is_autocast_enabled("cpu"):
        with torch.autocast("cpu", enabled=False):
            return convolve(x.float())
    return convolve(x)


class Conv3d(nn.Conv3d):
    """torch's 3D convolution, whose weight also follows ``Module.to(memory_format=torch.channels_last)``.

    That call accepts tensors of four dimensions only. It is shown time and height as one dimension, so that the strides that it gives are
    those of ``channels_last_3d``.

    Examples
    --------
    >>> import torch
    >>> from flowkit.model.networks.layers.conv3d import Conv3d
    >>> layer = Conv3d(4, 2, 3).to(memory_format=torch.channels_last)
    >>> layer.weight.is_contiguous(memory_format=torch.channels_last_3d)
    True
    """

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C_in, T, H, W)."""
        return convolved(super().forward, x)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Conv3d:
        def flat(tensor: Tensor) -> Tensor:
            if tensor.ndim != 5:  # the bias
                return fn(tensor)
            shape = tensor.shape
            return fn(tensor.reshape(*shape[:2], shape[2] * shape[3], shape[4])).view(shape)

        super()._apply(flat, recurse)  # type: ignore[no-untyped-call]
        return self
