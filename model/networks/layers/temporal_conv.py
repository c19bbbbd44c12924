"""Temporal convolutions: 1x1 (space) x 3 (time) over the frames of clips, and how a 1x1 convolution is inflated to one.

Frames are passed as (B*T, C, H, W), clip after clip.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from flowkit.model.networks.layers.conv3d import convolved
from flowkit.model.settings.network import TemporalInit, TemporalPadding

NUM_TAPS = 3  # T': temporal extent of a 1x1x3 convolution


class TemporalConv(nn.Conv3d):
    """A 1x1 (space) x 3 (time) convolution over frames (B*T, C, H, W); clips never mix, T is preserved.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the input and of the output.
    padding : {"zeros", "replicate"}
        What lies before the first and after the last frame of a clip: zeros, or that frame again.

    Notes
    -----
    Of the implementations in ``benchmarks/bench_temporal_conv.py``, this is the fastest, summed over the network's layers. With
    channels_last frames it copies nothing: (B*T, H, W, C) in memory is (B, T, H, W, C). Where a CPU has no good kernel, matrix products
    replace it; see `_ByProducts`.
    """

    def __init__(self, in_channels: int, out_channels: int, padding: TemporalPadding) -> None:
        super().__init__(in_channels, out_channels, (NUM_TAPS, 1, 1), padding=(int(padding == "zeros"), 0, 0), bias=False)
        self.replicate = padding == "replicate"

    def forward(self, frames: Tensor, num_frames: int) -> Tensor:  # type: ignore[override]
        """Convolve clips of `num_frames` frames each, (B*T, C_in, H, W), to (B*T, C_out, H, W)."""
        clips = by_clip(frames, num_frames)
        if self.replicate:
            clips = torch.cat([clips[:, :1], clips, clips[:, -1:]], 1)
        clips = clips.transpose(1, 2)  # (B, C, T, H, W)
        by_products = not self.replicate and _products_are_faster(frames, self.weight)
        out: Tensor = _ByProducts.apply(clips, self.weight) if by_products else convolved(super().forward, clips)
        return out.transpose(1, 2).flatten(0, 1)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TemporalConv:
        # Module.to(memory_format=torch.channels_last) accepts only four dimensions, so it sees the weight as a (3, 1) kernel. The
        # fourth dimension is the one left out, so that the resulting strides are those of channels_last_3d.
        super()._apply(lambda tensor: fn(tensor.squeeze(3)).unsqueeze(3), recurse)  # type: ignore[no-untyped-call]
        return self


class _ByProducts(torch.autograd.Function):
    """The convolution of `TemporalConv` with zeros outside the clip, by matrix products where a CPU has nothing better.

    For one thread, torch has no kernel for channels_last clips: it copies every pixel three times (im2col), multiplies, and returns
    channels first. For several threads, oneDNN has fast kernels for the convolution and for the gradient of its input, but without
    AVX-512 it also computes the gradient of the weights by im2col.
    """

    @staticmethod
    def forward(ctx: Any, clips: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(clips, weight)
        if _one_thread():
            return temporal_products(clips, weight[..., 0, 0].permute(2, 1, 0))
        return functional.conv3d(clips, weight, padding=(1, 0, 0))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        clips, weight = ctx.saved_tensors
        of_clips = None
        if ctx.needs_input_grad[0] and _one_thread():
            of_clips = temporal_products(gradient, weight[..., 0, 0].permute(2, 0, 1).flip(0))
        elif ctx.needs_input_grad[0]:
            geometry = ([1, 1, 1], [1, 0, 0], [1, 1, 1], False, [0, 0, 0], 1)
            of_clips = torch.ops.aten.convolution_backward(gradient, clips, weight, None, *geometry, [True, False, False])[0]
        return of_clips, temporal_weight_gradient(clips, gradient) if ctx.needs_input_grad[1] else None


def temporal_products(clips: Tensor, taps: Tensor) -> Tensor:
    """Convolve clips with a 1x1x3 kernel, zeros outside the clip, by matrix products.

    Parameters
    ----------
    clips : Tensor, shape (B, C_in, T, H, W)
        The input.
    taps : Tensor, shape (3, C_in, C_out)
        The weights of the frame before, the frame itself and the frame after.

    Returns
    -------
    Tensor, shape (B, C_out, T, H, W)
        With channels last in memory. Frame t is the sum over k of ``clips[t + k - 1]`` times ``taps[k]``.
    """
    before, now, after = taps
    pixels = clips.shape[3] * clips.shape[4]
    x = _pixel_rows(clips)
    out = torch.mm(x.flatten(0, 1), now).view(*x.shape[:2], -1)
    for out_clip, x_clip in zip(out, x, strict=True):
        out_clip[pixels:].addmm_(x_clip[:-pixels], before)
        out_clip[:-pixels].addmm_(x_clip[pixels:], after)
    return out.view(len(x), *clips.shape[2:], -1).permute(0, 4, 1, 2, 3)


def temporal_weight_gradient(clips: Tensor, gradient: Tensor) -> Tensor:
    """Return the gradient of a 1x1x3 convolution's weights, zeros outside the clip, by matrix products.

    Parameters
    ----------
    clips : Tensor, shape (B, C_in, T, H, W)
        The input of the convolution.
    gradient : Tensor, shape (B, C_out, T, H, W)
        The gradient of its output.

    Returns
    -------
    Tensor, shape (C_out, C_in, 3, 1, 1)
        Tap k is the sum over t of ``gradient[t]`` times ``clips[t + k - 1]``.
    """
    pixels = clips.shape[3] * clips.shape[4]
    x, g = _pixel_rows(clips), _pixel_rows(gradient)
    taps = x.new_empty(NUM_TAPS, g.shape[2], x.shape[2])
    torch.mm(g.flatten(0, 1).t(), x.flatten(0, 1), out=taps[1])
    taps[0::2] = 0
    for g_clip, x_clip in zip(g, x, strict=True):
        taps[0].addmm_(g_clip[pixels:].t(), x_clip[:-pixels])
        taps[2].addmm_(g_clip[:-pixels].t(), x_clip[pixels:])
    return taps.permute(1, 2, 0)[..., None, None]


def _pixel_rows(clips: Tensor) -> Tensor:
    """Return (B, C, T, H, W) as (B, T*H*W, C), without a copy if channels are last in memory."""
    return clips.permute(0, 2, 3, 4, 1).flatten(1, 3)


def _one_thread() -> bool:
    return torch.get_num_threads() == 1


def _products_are_faster(frames: Tensor, weight: Tensor) -> bool:
    """Return whether products are faster: on a CPU, in float32, channels last, where `_ByProducts` would use them."""
    return (
        frames.device.type == "cpu"
        and frames.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and frames.is_contiguous(memory_format=torch.channels_last)
        and (_one_thread() or (torch.is_grad_enabled() and weight.requires_grad and torch.backends.cpu.get_cpu_capability() == "AVX2"))
    )


def inflate(weight: Tensor, temporal_init: TemporalInit) -> Tensor:
    """Inflate the weights (C_out, C_in, 1, 1) of a 1x1 convolution in time: to w/3 each (eq. 5) or to (0, w, 0).

    Returns
    -------
    Tensor, shape (C_out, C_in, 3, 1, 1)
    """
    taps = weight.unsqueeze(2)
    if temporal_init == "average":
        return (taps / NUM_TAPS).repeat(1, 1, NUM_TAPS, 1, 1)
    return functional.pad(taps, (0, 0, 0, 0, 1, 1))


def by_clip(x: Tensor, num_frames: int) -> Tensor:
    """Group frames into clips: (B*T, ...) to (B, T, ...)."""
    return x.view(-1, num_frames, *x.shape[1:])
