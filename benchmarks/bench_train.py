"""Compare the step time of ST-ResNet with that of two torchvision ResNet-50s at the same T, size and precision, in one run.

    python benchmarks/bench_train.py                                 # CPU: float32, contiguous and channels_last
    python benchmarks/bench_train.py --compiled                      # CPU: also torch.compile, which takes minutes to compile
    python benchmarks/bench_train.py --device cuda --clips 8         # GPU: also TF32, autocast and torch.compile
    python benchmarks/bench_train.py --layouts                       # only both memory layouts against each other, for both networks
    python benchmarks/bench_train.py --checkpointing                 # only the time and memory of activation checkpointing
    python benchmarks/bench_train.py --data-wait                     # the wait for data as a share of step time, in short runs
    python benchmarks/bench_train.py --metrics RUN/metrics.jsonl     # the same for an existing training run

A step is forward, loss (summed over time and streams), backward and an SGD update with momentum, in training mode. The two
ResNet-50s are what ST-ResNet is built on: one on RGB, one with 20 input channels on flow, both frame by frame. The networks take
their steps in turn (A B A B ...); the table shows medians and the median of the rounds' ratios. The budget is 1.20. The ratio of
processor times is for shared machines: run with OMP_WAIT_POLICY=PASSIVE there, or else waiting counts as work. Float32 means
float32 on a GPU too, where torch uses TF32 for convolutions by default.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import time
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import resnet50

from flowkit.model.compute.execution import Execution, compile_in_place
from flowkit.model.networks.stresnet import STResNet
from flowkit.model.settings.network import STResNetConfig

NUM_CLASSES = 101


@dataclass(frozen=True)
class Variant:
    """One way to run both networks."""

    precision: str
    channels_last: bool
    compiled: bool = False

    def __str__(self) -> str:
        flags = {"channels_last": self.channels_last, "compiled": self.compiled}
        return ", ".join([self.precision, *(name for name, value in flags.items() if value)])


PLAIN = Variant("float32", channels_last=False)
VARIANTS = {
    "cpu": [PLAIN, Variant("float32", channels_last=True)],
    "cuda": [
        PLAIN,
        Variant("float32", channels_last=True),
        Variant("tf32", channels_last=True),
        *(Variant(precision, channels_last=True, compiled=compiled) for compiled in (False, True) for precision in ("bf16", "fp16")),
    ],
}


class TwoResNets(nn.Module):
    """Two torchvision ResNet-50s, on RGB and on flow, frame by frame."""

    def __init__(self) -> None:
        super().__init__()
        self.appearance = resnet50(num_classes=NUM_CLASSES)
        self.motion = resnet50(num_classes=NUM_CLASSES)
        self.motion.conv1 = nn.Conv2d(20, 64, 7, stride=2, padding=3, bias=False)

    def forward(self, rgb: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        return tuple(net(x.flatten(0, 1)).view(*x.shape[:2], -1) for net, x in ((self.appearance, rgb), (self.motion, flow)))


class Step:
    """One network, its optimiser and a fixed batch."""

    def __init__(self, network: nn.Module, variant: Variant, options: argparse.Namespace) -> None:
        self.variant, self.device = variant, options.device
        memory_format = torch.channels_last if variant.channels_last else torch.contiguous_format
        network = network.to(options.device).to(memory_format=memory_format).train()
        self.optimiser = torch.optim.SGD(network.parameters(), lr=1e-6, momentum=0.9, weight_decay=5e-4)
        if variant.compiled:
            compile_in_place(network)
        self.network = network
        self.execution = Execution(amp=variant.precision)
        self.scaler = torch.amp.GradScaler(options.device, enabled=variant.precision == "fp16")
        generator = torch.Generator().manual_seed(0)
        shape = (options.clips, options.frames)
        self.inputs = []
        for channels in (3, 20):
            frames = torch.randn(options.clips * options.frames, channels, options.size, options.size, generator=generator)
            self.inputs.append(frames.to(options.device).to(memory_format=memory_format).view(*shape, channels, options.size, options.size))
        self.labels = torch.randint(NUM_CLASSES, (options.clips,), generator=generator).to(options.device)

    def take(self) -> tuple[float, float]:
        """Take one step; return its wall time and its processor time in seconds."""
        self.wait()
        began, began_cpu = time.perf_counter(), time.process_time()
        with self.execution.arithmetic(torch.device(self.device), fixed_shapes=True):
            self.scaler.scale(self.loss()).backward()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad()
        self.wait()
        return time.perf_counter() - began, time.process_time() - began_cpu

    def loss(self) -> Tensor:
        with self.execution.autocast(torch.device(self.device)):
            logits = self.network(*self.inputs)
        labels = self.labels.repeat_interleave(logits[0].shape[1])
        losses = [nn.functional.cross_entropy(x.flatten(0, 1).float(), labels, reduction="sum") for x in logits]
        return sum(losses) / len(self.labels)

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def measure(variant: Variant, options: argparse.Namespace) -> dict:
    torch.manual_seed(0)
    config = STResNetConfig(num_classes=NUM_CLASSES, input_size=options.size)
    steps = {"two ResNet-50s": Step(TwoResNets(), variant, options), "ST-ResNet": Step(STResNet(config), variant, options)}
    clock, processor = in_turn(steps, options)
    return {
        "variant": asdict(variant),
        "seconds": clock,
        "processor_seconds": processor,
        "median_seconds": {name: statistics.median(values) for name, values in clock.items()},
        "ratio": median_ratio(clock),
        "processor_ratio": median_ratio(processor),
        "load": os.getloadavg()[0],
    }


def in_turn(steps: dict[str, Step], options: argparse.Namespace) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Let all networks take their steps in turn; return the wall times and the processor times of each, in seconds."""
    for step in steps.values():  # allocate, choose algorithms, compile
        for _ in range(options.warm_up):
            step.take()
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for _ in range(options.rounds):
        for name, step in steps.items():
            taken[name].append(step.take())
    clock, processor = ({name: [times[kind] for times in values] for name, values in taken.items()} for kind in (0, 1))
    return clock, processor


def peak_bytes(checkpointed: bool, variant: Variant, options: argparse.Namespace) -> int:
    """Return the peak memory of a step, without the network: of the device, or of this process, which must be new (Linux)."""
    config = STResNetConfig(num_classes=NUM_CLASSES, input_size=options.size)
    step = Step(STResNet(config, checkpoint_activations=checkpointed), variant, options)
    if options.device == "cuda":
        before = torch.cuda.memory_allocated()
        step.take()
        return torch.cuda.max_memory_allocated() - before
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    step.take()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before


def measure_checkpointing(variant: Variant, options: argparse.Namespace) -> dict:
    """Compare ST-ResNet with and without checkpointed activations: the time and the peak memory of a step."""
    peaks = {}
    for name in ("plain", "checkpointed"):
        with get_context("spawn").Pool(1) as process:
            peaks[name] = process.apply(peak_bytes, (name == "checkpointed", variant, options))
    torch.manual_seed(0)
    config = STResNetConfig(num_classes=NUM_CLASSES, input_size=options.size)
    steps = {
        name: Step(STResNet(config, checkpoint_activations=name == "checkpointed"), variant, options) for name in ("plain", "checkpointed")
    }
    clock, processor = in_turn(steps, options)
    return {
        "variant": asdict(variant),
        "ratio": median_ratio(clock, "checkpointed", "plain"),
        "processor_ratio": median_ratio(processor, "checkpointed", "plain"),
        "peak_bytes": peaks,
    }


def measure_layouts(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Compare contiguous tensors with channels_last, in turn, for each network: which layout is faster, whatever the other network does."""
    config = STResNetConfig(num_classes=NUM_CLASSES, input_size=options.size)
    results = {}
    for name, make in (("two ResNet-50s", TwoResNets), ("ST-ResNet", lambda: STResNet(config))):
        steps = {}
        for layout in ("contiguous", "channels_last"):
            torch.manual_seed(0)
            steps[layout] = Step(make(), Variant(options.amp, channels_last=layout == "channels_last"), options)
        times = in_turn(steps, options)
        results[name] = {
            kind: median_ratio(seconds, "contiguous", "channels_last")
            for kind, seconds in zip(("elapsed", "processor"), times, strict=True)
        }
    return results


def median_ratio(seconds: dict[str, list[float]], of: str = "ST-ResNet", over: str = "two ResNet-50s") -> float:
    return statistics.median(ours / theirs for ours, theirs in zip(seconds[of], seconds[over], strict=True))


def data_wait(metrics: Path) -> float:
    """Return the share of step time in which a run waited for data, without its first step, which starts the workers."""
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    steps = [line for line in lines if "data_seconds" in line][1:]
    if not steps:
        raise SystemExit(f"{metrics} holds fewer than two steps")
    return sum(step["data_seconds"] for step in steps) / sum(step["seconds"] for step in steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=list(VARIANTS))
    parser.add_argument("--clips", type=int, default=2)
    parser.add_argument("--frames", type=int, default=5, help="T")
    parser.add_argument("--size", type=int, default=224, help="side of the crop, px")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warm-up", type=int, default=1, help="steps of each network before the first round")
    parser.add_argument("--compiled", action="store_true", help="on a CPU: measure the compiled step too")
    parser.add_argument("--layouts", action="store_true", help="compare only the memory layouts, for each network")
    parser.add_argument("--checkpointing", action="store_true", help="measure only activation checkpointing")
    parser.add_argument("--data-wait", action="store_true", help="measure only the wait for data, in short runs")
    parser.add_argument(
        "--amp", default="float32", choices=["float32", "tf32", "bf16", "fp16"], help="the precision of --checkpointing and --data-wait"
    )
    parser.add_argument("--metrics", type=Path, help="metrics.jsonl of a training run: report only its wait for data")
    parser.add_argument("--json", type=Path, help="file for all results")
    options = parser.parse_args()
    if options.metrics:
        print(f"data wait: {data_wait(options.metrics):.1%} of step time")
        return
    name = torch.cuda.get_device_name() if options.device == "cuda" else platform.processor() or platform.machine()
    print(f"{name}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}")
    if options.data_wait:
        from data_wait import CPU_SIZE, FULL, measure_data_wait

        rows = measure_data_wait(options.device, FULL if options.device == "cuda" else CPU_SIZE, amp=options.amp)
        for row in rows:
            print(", ".join(f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in row.items()))
        print(f"load {os.getloadavg()[0]:.1f}")
        return
    print(f"{options.clips} clips of {options.frames} frames of {options.size} px, {options.rounds} rounds; median seconds per step")
    if options.layouts:
        for name, ratios in measure_layouts(options).items():
            print(
                f"{name}: contiguous takes {ratios['elapsed']:.3f} times as long as channels_last; processor time {ratios['processor']:.3f}"
            )
        print(f"load {os.getloadavg()[0]:.1f}")
        return
    if options.checkpointing:
        result = measure_checkpointing(Variant(options.amp, channels_last=True), options)
        plain, checkpointed = (peak / 2**30 for peak in result["peak_bytes"].values())
        print(f"checkpointed activations: {result['ratio']:.2f} times the wall time, {result['processor_ratio']:.2f} times the CPU time;")
        print(f"a step needs {checkpointed:.2f} GiB without the network but with gradients and momentum, instead of {plain:.2f}")
        return
    print(f"{'':40}{'two ResNet-50s':>16}{'ST-ResNet':>12}{'ratio':>8}{'(processor)':>13}{'clips/s':>9}{'speed-up':>10}")
    results: list[dict] = []
    compiled = [Variant("float32", channels_last=True, compiled=True)] if options.compiled and options.device == "cpu" else []
    for variant in [*VARIANTS[options.device], *compiled]:
        result = measure(variant, options)
        results.append(result)
        theirs, ours = result["median_seconds"].values()
        speed_up = results[0]["median_seconds"]["ST-ResNet"] / ours
        ratios = f"{result['ratio']:8.3f}{result['processor_ratio']:13.3f}"
        print(f"{variant!s:40}{theirs:16.3f}{ours:12.3f}{ratios}{options.clips / ours:9.2f}{speed_up:10.2f}", flush=True)
    if options.json:
        settings = {"clips": options.clips, "frames": options.frames, "size": options.size, "rounds": options.rounds}
        machine = {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__}
        options.json.write_text(json.dumps({**machine, **settings, "results": results}, indent=1))


if __name__ == "__main__":
    main()
