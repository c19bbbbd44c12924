"""A 3D convolution within networks whose other layers are 2D."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


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

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Conv3d:
        def flat(tensor: Tensor) -> Tensor:
            if tensor.ndim != 5:  # the bias
                return fn(tensor)
            shape = tensor.shape
            return fn(tensor.reshape(*shape[:2], shape[2] * shape[3], shape[4])).view(shape)

        super()._apply(flat, recurse)  # type: ignore[no-untyped-call]
        return self
