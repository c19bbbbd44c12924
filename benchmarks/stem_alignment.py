"""Tell with which alignment of the first max pool (`stem_pool`) the weights of a ResNet-50 were trained.

    python benchmarks/stem_alignment.py videos/ --weights resnet50_imagenet_v1_fp16.safetensors

The two alignments differ at the borders of the maps only, and nothing in the tensors' names or shapes tells them apart. But the stored
variances of batch normalisation were made with the alignment of the training. For every channel, let x be the logarithm of the ratio of
the variances on frames of the videos with `ceil` and with `same`, and y that of the stored variance to the variance with `same`, both less
their layer's median, which takes out what these frames have more or less of than ImageNet. The slope of y on x (of least absolute
deviations) is 0 if the weights were trained with `same`, and 1 with `ceil`. Its interval is a bootstrap over groups of videos.

It takes some ten minutes on two cores for 31 videos.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import flowkit
from flowkit.errors import FlowkitError
from flowkit.model.data.transforms import normalise_rgb
from flowkit.model.foreign.state_dicts import pretrained_state
from flowkit.model.networks.stresnet import SingleStream
from flowkit.model.networks.weights import initialise_single_stream
from flowkit.model.settings.network import STResNetConfig
from flowkit.video.ids import group_name

ALIGNMENTS = ("same", "ceil")
EPSILON = 1e-5
MOST_FRAMES = 250  # at the start of a video
SIDE, CROP = 256, 224
Array = NDArray[np.float64]


def crops(video: Path, *, num_frames: int, num_crops: int, draw: np.random.Generator) -> Tensor | None:
    """Return random crops, (N, 3, 224, 224), of frames at even distances; None if the video has no frames."""
    try:
        frames = next(flowkit.read_frames(video, short_side=None, batch_size=MOST_FRAMES)).frames
    except (FlowkitError, ValueError):
        return None
    parts = []
    for k in np.linspace(0, len(frames) - 1, num_frames).round().astype(int):
        scale = SIDE / min(frames[k].shape[:2])
        size = [max(SIDE, round(side * scale)) for side in frames[k].shape[1::-1]]
        frame = cv2.resize(frames[k], size, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
        for _ in range(num_crops):
            top, left = (int(draw.integers(0, side - CROP + 1)) for side in frame.shape[:2])
            crop = frame[top : top + CROP, left : left + CROP]
            parts.append(crop[:, ::-1] if draw.random() < 0.5 else crop)
    return normalise_rgb(torch.from_numpy(np.stack(parts)))


class Measured:
    """A network with one alignment, and the moments of the inputs of its batch normalisations."""

    def __init__(self, weights: Path, alignment: Any) -> None:
        state = pretrained_state(weights)
        config = STResNetConfig(num_classes=1000, stride_in_1x1=state.stride_in_1x1)
        self.network = SingleStream(replace(config, stem_pool=alignment), "appearance").eval()
        initialise_single_stream(self.network, state)
        self.norms = [module for module in self.network.modules() if isinstance(module, nn.BatchNorm2d)]
        self._seen: dict[nn.Module, Tensor] = {}
        for norm in self.norms:
            norm.register_forward_hook(self._keep)

    def _keep(self, norm: nn.Module, inputs: tuple[Tensor], _: Tensor) -> None:
        self._seen[norm] = torch.stack([inputs[0].mean((2, 3)), inputs[0].var((2, 3), unbiased=False)], 2)

    @torch.inference_mode()
    def moments(self, frames: Tensor) -> tuple[Array, float]:
        """Return the mean moments (channels of all layers, 2) of some frames, and their mean top probability."""
        rows, top = [], []
        for part in frames.split(4):
            top.append(self.network(part[None])[0].softmax(1).amax(1))
            rows.append(torch.cat([self._seen[norm] for norm in self.norms], 1))
        return torch.cat(rows).mean(0).double().numpy(), float(torch.cat(top).mean())


def log_variances(moments: Array) -> Array:
    """Return the logarithm of each channel's variance over all videos, (..., channels), from moments (videos, ..., channels, 2)."""
    return np.asarray(np.log(moments[..., 1].mean(0) + moments[..., 0].var(0, ddof=1) + EPSILON))


def slope(stored: Array, measured: Array, layers: NDArray[np.intp], used: NDArray[np.bool_]) -> float:
    """Return the slope of the stored on the measured change, of least absolute deviations: the median of y / x with weights |x|."""
    x, y, layers = (measured[1] - measured[0])[used], (stored - measured[0])[used], layers[used]
    for layer in np.unique(layers):
        for values in (x, y):
            values[layers == layer] -= np.median(values[layers == layer])
    ratios = y / np.where(x == 0, np.finfo(float).tiny, x)
    order = np.argsort(ratios)
    shares = np.abs(x)[order].cumsum()
    return float(ratios[order][np.searchsorted(shares, shares[-1] / 2)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=8, help="frames of a video")
    parser.add_argument("--crops", type=int, default=2, help="crops of a frame")
    parser.add_argument("--resamples", type=int, default=200, help="of the bootstrap")
    options = parser.parse_args()

    networks, draw = [Measured(options.weights, alignment) for alignment in ALIGNMENTS], np.random.default_rng(0)
    moments, top, groups = [], [], []
    for video in sorted(path for path in options.videos.rglob("*") if path.is_file()):
        frames = crops(video, num_frames=options.frames, num_crops=options.crops, draw=draw)
        if frames is not None:
            both = [network.moments(frames) for network in networks]
            moments.append([moment for moment, _ in both])
            top.append([probability for _, probability in both])
            groups.append(group_name(video.stem))
    found, names = np.array(moments), np.array(groups)
    norms = networks[0].norms
    layers = np.repeat(np.arange(len(norms)), [norm.num_features for norm in norms])
    stored = np.log(np.concatenate([norm.running_var.double().numpy() for norm in norms]) + EPSILON)  # type: ignore[union-attr]
    stages = np.repeat(np.arange(5), [1, *(3 * count + 1 for count in networks[0].network.config.units)])[layers]

    gain = np.diff(np.array(top), axis=1)[:, 0]
    print(f"top probability, ceil less same: {gain.mean():+.4f} +- {gain.std(ddof=1) / len(gain) ** 0.5:.4f} over {len(gain)} videos")
    members = {name: np.flatnonzero(names == name) for name in np.unique(names)}
    for stage in range(5):
        used = stages == stage if stage else stages > 0
        again = []
        for _ in range(options.resamples):
            picked = np.concatenate([members[name] for name in draw.choice(list(members), len(members))])
            again.append(slope(stored, log_variances(found[picked]), layers, used))
        low, high = np.percentile(again, [2.5, 97.5])
        of_all = slope(stored, log_variances(found), layers, used)
        print(f"{f'layer{stage}' if stage else 'all layers'}: slope {of_all:.2f}, 95 % interval {low:.2f} to {high:.2f}")
    ratios = stored - log_variances(found)
    spread = [[np.median(np.abs(row[layers == k] - np.median(row[layers == k]))) for k in range(1, len(norms))] for row in ratios]
    closer = int((np.array(spread[1]) < spread[0]).sum())
    print(f"the variances of {closer} of {len(norms) - 1} layers are closer to the stored ones with ceil than with same")
    return 0


if __name__ == "__main__":
    sys.exit(main())
