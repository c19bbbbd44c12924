"""Time nine implementations of a 1x1x3 (space x time) convolution, forward and backward, at the eight shapes of ST-ResNet.

    python benchmarks/bench_temporal_conv.py [--device cuda] [--precision bfloat16] [--clips 2] [--json FILE]

The shape of the parameter is fixed, (C_out, C_in, 3, 1, 1); the frames are (B*T, C, H, W). Every implementation is checked against
`conv3d`, then all are timed in turn, round after round. The table shows the minimum over the rounds in milliseconds: of processor
time on a CPU, which may be shared, and of wall time on a GPU. `plain` is the 1x1 convolution that is replaced, with a third of the
arithmetic. `conv3d_products` is what the network does on x86 without AVX-512, and on any CPU with one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from flowkit.model.networks.layers.temporal_conv import _ByProducts

SHAPES = [(256, 64, 56), (64, 256, 56), (512, 128, 28), (128, 512, 28), (1024, 256, 14), (256, 1024, 14), (2048, 512, 7), (512, 2048, 7)]


def plain(x: Tensor, w: Tensor, num_frames: int) -> Tensor:
    return F.conv2d(x, w[:, :, 1])


def conv3d(x: Tensor, w: Tensor, num_frames: int) -> Tensor:
    return F.conv3d(x.view(-1, num_frames, *x.shape[1:]).transpose(1, 2), w, padding=(1, 0, 0)).transpose(1, 2).flatten(0, 1)


def conv3d_products(x: Tensor, w: Tensor, num_frames: int) -> Tensor:
    """Use conv3d, but matrix products for the gradient of its weights, and for everything with one thread."""
    clips = x.view(-1, num_frames, *x.shape[1:]).transpose(1, 2)
    return _ByProducts.apply(clips, w).transpose(1, 2).flatten(0, 1)


def conv2d_time_rows(x: Tensor, w: Tensor, num_frames: int) -> Tensor:
    """Treat each clip as one image, whose rows are frames and whose columns are pixels."""
    rows = x.view(-1, num_frames, *x.shape[1:]).transpose(1, 2).flatten(3)  # (B, C, T, H*W)
    return F.conv2d(rows, w[..., 0], padding=(1, 0)).transpose(1, 2).reshape(len(x), -1, *x.shape[2:])


def conv1d_pixels(x: Tensor, w: Tensor, num_frames: int) -> Tensor:
    """Treat every pixel as a sequence."""
    height, width = x.shape[2:]
    rows = x.view(-1, num_frames, *x.shape[1:]).permute(0, 3, 4, 2, 1).flatten(0, 2)  # (B*H*W, C, T)
    out = F.conv1d(rows, w[..., 0, 0], padding=1)
    return out.view(-1, height, width, *out.shape[1:]).permute(0, 4, 3, 1, 2).flatten(0, 1)


def outputs_shifted(x: Tensor, w: Tensor, num_frames: int) -> Tensor:
    """Use one 1x1 convolution to three times the channels, shift its outputs in time and add them."""
    taps = F.conv2d(x, w[..., 0, 0].transpose(0, 2).transpose(1, 2).flatten(0, 1)[..., None, None])
    before, now, after = taps.view(-1, num_frames, *taps.shape[1:]).split(len(w), 2)
    shifted = now + F.pad(before[:, :-1], (0, 0, 0, 0, 0, 0, 1, 0)) + F.pad(after[:, 1:], (0, 0, 0, 0, 0, 0, 0, 1))
    return shifted.flatten(0, 1)


def inputs_joined(x: Tensor, w: Tensor, num_frames: int) -> Tensor:
    """Use one 1x1 convolution from three times the channels: the previous, the current and the next frame."""
    clips = x.view(-1, num_frames, *x.shape[1:])
    before, after = F.pad(clips[:, :-1], (0, 0, 0, 0, 0, 0, 1, 0)), F.pad(clips[:, 1:], (0, 0, 0, 0, 0, 0, 0, 1))
    return F.conv2d(torch.cat([before, clips, after], 2).flatten(0, 1), w[..., 0, 0].transpose(1, 2).flatten(1)[..., None, None])


def three_convolutions(x: Tensor, w: Tensor, num_frames: int) -> Tensor:
    """Use one 1x1 convolution per tap, over only those frames that it reaches, and accumulate in place."""
    clips = x.view(-1, num_frames, *x.shape[1:])
    out = F.conv2d(x, w[:, :, 1]).view(-1, num_frames, len(w), *x.shape[2:])
    out[:, 1:] += F.conv2d(clips[:, :-1].flatten(0, 1), w[:, :, 0]).view(-1, num_frames - 1, len(w), *x.shape[2:])
    out[:, :-1] += F.conv2d(clips[:, 1:].flatten(0, 1), w[:, :, 2]).view(-1, num_frames - 1, len(w), *x.shape[2:])
    return out.flatten(0, 1)


def matrix_products(x: Tensor, w: Tensor, num_frames: int) -> Tensor:
    """Multiply the taps with the pixels, frame by frame, and accumulate in place."""
    clips = x.flatten(2).view(-1, num_frames, x.shape[1], x.shape[2] * x.shape[3])
    before, now, after = w[..., 0, 0].unbind(2)
    out = torch.matmul(now, clips)
    out[:, 1:] += torch.matmul(before, clips[:, :-1])
    out[:, :-1] += torch.matmul(after, clips[:, 1:])
    return out.flatten(0, 1).unflatten(2, x.shape[2:])


def pixel_products(x: Tensor, w: Tensor, num_frames: int) -> Tensor:
    """Multiply the pixels of a clip with the taps, without a copy if channels are last."""
    pixels = x.shape[2] * x.shape[3]
    rows = x.permute(0, 2, 3, 1).reshape(-1, num_frames * pixels, x.shape[1])
    before, now, after = w[..., 0, 0].transpose(0, 1).unbind(2)
    out = torch.matmul(rows, now)
    out[:, pixels:] += torch.matmul(rows[:, :-pixels], before)
    out[:, :-pixels] += torch.matmul(rows[:, pixels:], after)
    return out.view(len(x), *x.shape[2:], len(w)).permute(0, 3, 1, 2)


IMPLEMENTATIONS = [
    plain,
    conv3d,
    conv3d_products,
    conv2d_time_rows,
    conv1d_pixels,
    outputs_shifted,
    inputs_joined,
    three_convolutions,
    matrix_products,
    pixel_products,
]


def seconds_of(implementation: Any, x: Tensor, w: Tensor, gradient: Tensor, num_frames: int) -> float:
    if not x.is_cuda:
        began = time.process_time()
        torch.autograd.grad(implementation(x, w, num_frames), [x, w], gradient)
        return time.process_time() - began
    torch.cuda.synchronize()
    began = time.perf_counter()
    torch.autograd.grad(implementation(x, w, num_frames), [x, w], gradient)
    torch.cuda.synchronize()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--clips", type=int, default=2)
    parser.add_argument("--frames", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    dtype = getattr(torch, options.precision)
    name = torch.cuda.get_device_name() if options.device == "cuda" else platform.processor() or platform.machine()
    print(
        f"{name}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}, {options.precision}, ",
        end="",
    )
    print(f"{options.clips} clips of {options.frames} frames; milliseconds, forward and backward")
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        print(f"\n{memory_format}")
        print(f"{'C_in':>6}{'C_out':>6}{'side':>6}" + "".join(f"{implementation.__name__:>20}" for implementation in IMPLEMENTATIONS))
        total = dict.fromkeys((implementation.__name__ for implementation in IMPLEMENTATIONS), 0.0)
        for in_channels, out_channels, side in SHAPES:
            num_images = options.clips * options.frames
            x, gradient = (
                torch.randn(num_images, channels, side, side, device=options.device, dtype=dtype).to(memory_format=memory_format)
                for channels in (in_channels, out_channels)
            )
            w = torch.randn(out_channels, in_channels, 3, 1, 1, device=options.device, dtype=dtype, requires_grad=True)
            x.requires_grad_()
            expected = conv3d(x, w, options.frames).float()
            for implementation in IMPLEMENTATIONS[2:]:
                difference = (implementation(x, w, options.frames).float() - expected).norm() / expected.norm()
                assert difference < (1e-5 if dtype == torch.float32 else 2e-2), (implementation.__name__, difference)
            best = dict.fromkeys(total, float("inf"))
            for _ in range(options.rounds):
                for implementation in IMPLEMENTATIONS:
                    seconds = seconds_of(implementation, x, w, gradient, options.frames)
                    best[implementation.__name__] = min(best[implementation.__name__], seconds)
            print(f"{in_channels:6}{out_channels:6}{side:6}" + "".join(f"{1e3 * value:20.2f}" for value in best.values()), flush=True)
            for key, value in best.items():
                total[key] += value
            shape = {"in_channels": in_channels, "out_channels": out_channels, "side": side}
            results.append({"memory_format": str(memory_format), **shape, "seconds": best})
        print(f"{'sum':>18}" + "".join(f"{1e3 * value:20.2f}" for value in total.values()))
    if options.json:
        options.json.write_text(json.dumps({"device": name, "settings": {**vars(options), "json": None}, "results": results}, indent=1))


if __name__ == "__main__":
    main()
