"""Check that ST-ResNet at full width learns one fixed batch, within the memory that is forecast for it.

    python benchmarks/check_full_width.py --weights resnet50_imagenet_v1_fp16.safetensors VIDEO_OF_CLASS_A VIDEO_OF_CLASS_B

Two clips, T = 5, 224 px, no augmentation; both streams start from the weights, and ST-ResNet from the streams, with residual
injection (equation 5 of the ST-ResNet paper); six SGD steps with the parameter groups of the recipe `official`. The exit code is 1
unless the seventh loss is below 0.7 of the first and the peak memory is at most 25 % above the forecast, which is 0.94 GiB of
activations per clip, plus weights, gradients and momentum.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flowkit.flow import compute_flow
from flowkit.model.data.sampling import evenly_spaced_centres, stack_fields
from flowkit.model.data.transforms import Crop, crop_flow, crop_rgb, normalise_flow, normalise_rgb
from flowkit.model.foreign.state_dicts import pretrained_state
from flowkit.model.networks.stresnet import SingleStream, STResNet
from flowkit.model.networks.weights import initialise_from_streams, initialise_single_stream
from flowkit.model.systems.configs import make_configs
from flowkit.model.training.optimiser import make_optimiser, set_learning_rate, stream_losses
from flowkit.quantise import Quantiser
from flowkit.video.decode import read_frames

SIZE, NUM_SAMPLES, NUM_STEPS, NUM_CLASSES = 224, 5, 6, 101
GIB = 2**30
FORECAST_BYTES_PER_CLIP = 0.94 * GIB  # measured with an independent model, float32, T = 5
MOST_LOSS, MOST_MEMORY = 0.7, 1.25


def clip_of(path: Path) -> tuple[Tensor, Tensor]:
    """Return five frames and flow stacks of the centre square of a video, normalised: (1, 5, 3, S, S), (1, 5, 20, S, S)."""
    frames = np.concatenate([batch.frames for batch in read_frames(path, short_side=256)])
    centres = evenly_spaced_centres(len(frames), NUM_SAMPLES)
    fields, where = stack_fields(centres)
    quantiser = Quantiser()
    flow = np.concatenate([quantiser.encode(compute_flow(frames[field : field + 2], mode="fast")) for field in fields])
    square = Crop((frames.shape[1] - SIZE) // 2, (frames.shape[2] - SIZE) // 2, SIZE, SIZE)
    rgb = torch.from_numpy(crop_rgb(frames[centres], square, size=SIZE))
    stacks = torch.from_numpy(crop_flow(flow, square, size=SIZE, quantiser=quantiser))[torch.from_numpy(where)]
    return normalise_rgb(rgb)[None], normalise_flow(stacks.flatten(1, 2))[None]


def bytes_now(device: str) -> int:
    """Return the memory in use: of the device, or of this process (Linux)."""
    if device == "cuda":
        return torch.cuda.memory_allocated()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def peak_bytes(device: str) -> int:
    return torch.cuda.max_memory_allocated() if device == "cuda" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", nargs=2, type=Path, metavar="VIDEO")
    parser.add_argument("--weights", type=Path, required=True, help="ImageNet weights of a ResNet-50")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--checkpoint-activations", action="store_true")
    options = parser.parse_args()

    rgb, flow = (torch.cat(parts).to(options.device) for parts in zip(*map(clip_of, options.videos), strict=True))
    labels = torch.tensor([0, 1], device=options.device)
    before = bytes_now(options.device)  # Python, its libraries and the inputs
    weights = pretrained_state(options.weights)
    overrides = {"stride_in_1x1": weights.stride_in_1x1, "batch": 2, "bn_group": 2}
    training = make_configs("official", num_classes=NUM_CLASSES, num_videos=2, short_side=256, overrides=overrides)["st-resnet"]
    config = training.network
    generator = torch.Generator().manual_seed(0)
    states = []
    for name in ("appearance", "motion"):
        stream = SingleStream(config, name)
        print(initialise_single_stream(stream, weights, generator=generator))
        states.append(stream.state_dict())
    del weights, stream
    network = STResNet(config, checkpoint_activations=options.checkpoint_activations)
    print(*initialise_from_streams(network, *states), sep="\n")
    del states
    network.to(options.device).train()
    optimiser = make_optimiser(network, training)
    set_learning_rate(optimiser, training.learning_rate(0))
    losses = []
    for step in range(NUM_STEPS + 1):
        began = time.perf_counter()
        loss = sum(stream_losses(network(rgb, flow)._asdict(), labels, num_videos=2).values())
        losses.append(loss.item())
        if step < NUM_STEPS:
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
        print(f"step {step}: loss {losses[-1]:.3f}, {time.perf_counter() - began:.1f} s", flush=True)

    num_parameters = sum(parameter.numel() for parameter in network.parameters())
    forecast = 2 * FORECAST_BYTES_PER_CLIP + 3 * 4 * num_parameters
    used = peak_bytes(options.device) - before
    print(f"loss {losses[-1] / losses[0]:.3f} of the first (at most {MOST_LOSS})")
    print(f"peak memory {used / GIB:.2f} GiB more than before, {used / forecast:.2f} of the forecast {forecast / GIB:.2f} GiB")
    return 0 if losses[-1] <= MOST_LOSS * losses[0] and used <= MOST_MEMORY * forecast else 1


if __name__ == "__main__":
    sys.exit(main())
