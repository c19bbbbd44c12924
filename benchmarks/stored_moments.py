"""Measure whether the stored moments of batch normalisation suit the weights that they are stored with.

    python benchmarks/stored_moments.py videos/ --lists mini.csv --weights resnet50.safetensors --work FOLDER
    python benchmarks/stored_moments.py ... --short-side 96 --input-size 64

The recipe of the README: full width, batch 8 in groups of 4, 20 steps per phase. For each phase the table has the accuracy on random
training clips, which differ from those of the training, with the statistics of the batch, with the moments at the last step (the rule of
the official code), and with moments that were renewed with the final weights, standard deviations or variances, in as many steps. The
exit code is 1 unless the stored moments reach 90 % of the accuracy with the statistics of the batch in every phase.

The full size takes about an hour on two cores, the second line some ten minutes. With --base-width the network starts from random
weights.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from flowkit.cli.main import flowkit
from flowkit.dataset.root import Dataset
from flowkit.model.compute.execution import Execution
from flowkit.model.data.training_clips import Batch, ClipDataset, training_loader
from flowkit.model.data.transforms import normalise_flow, normalise_rgb
from flowkit.model.networks.phase_networks import build_network, stream_logits
from flowkit.model.networks.resnet import GroupedBatchNorm, set_groups
from flowkit.model.runs.checkpoint import CHECKPOINT_NAME, WEIGHTS_NAME, load_checkpoint
from flowkit.model.runs.run_folder import phase_folder
from flowkit.model.settings.training import BnMoments, Phase, TrainConfig
from flowkit.model.systems.registry import PHASES
from flowkit.model.training.chain import train
from flowkit.model.training.moments import RunningMoments

LEAST_SHARE = 0.9
KINDS: tuple[BnMoments, ...] = ("std", "variance")
Inputs = tuple[Tensor | None, Tensor | None, Tensor]


def inputs_of(dataset: Dataset, config: TrainConfig, *, num_steps: int, other_clips: bool) -> Iterator[Inputs]:
    """Yield the groups of this many steps: those that follow the training, or those of another seed."""
    first = 0 if other_clips else config.num_steps
    drawn = replace(config, seed=config.seed + other_clips, schedule=((first + num_steps, 0.0),), bn_renewal_steps=0)
    for batch in training_loader(ClipDataset(dataset, dataset.split(1), drawn), first_step=first):
        assert isinstance(batch, Batch)
        rgb = None if batch.rgb is None else normalise_rgb(batch.rgb)
        yield rgb, None if batch.flow is None else normalise_flow(batch.flow), batch.labels


def use_batch_statistics(network: nn.Module) -> None:
    """Normalise by the statistics of each batch, without dropout."""
    network.eval()
    for module in network.modules():
        if isinstance(module, GroupedBatchNorm):
            module.train()
    set_groups(network, [0])


@torch.no_grad()
def renewed(network: nn.Module, kind: BnMoments, groups: list[Inputs]) -> nn.Module:
    """Return the network with new moments: the mean over these groups."""
    network = copy.deepcopy(network)
    use_batch_statistics(network)
    moments = RunningMoments(network, kind=kind)
    for rgb, flow, _ in groups:
        stream_logits(network, rgb, flow)  # type: ignore[arg-type]
        moments.add_pass()
    moments.update(num_groups=len(groups), share=1.0)
    return network.eval()


@torch.no_grad()
def logits_of(network: nn.Module, groups: list[Inputs]) -> dict[str, Tensor]:
    """Return each stream's mean logits of all clips."""
    parts = [stream_logits(network, rgb, flow) for rgb, flow, _ in groups]  # type: ignore[arg-type]
    return {stream: torch.cat([part[stream].mean(1) for part in parts]) for stream in parts[0]}


def measure(root: Path, phase: Phase, num_steps: int, kinds: Sequence[BnMoments]) -> bool:
    """Print a phase's rows, and return whether its stored moments suit its weights."""
    folder, dataset = phase_folder(root, "default", 1, phase), Dataset.open(root)
    trained = load_checkpoint(folder / WEIGHTS_NAME)
    config, networks = trained.provenance.config, {}
    for name, state in (("stored", trained.network), ("last step", load_checkpoint(folder / CHECKPOINT_NAME).network)):
        networks[name] = build_network(config).eval()
        networks[name].load_state_dict(state)
    num_renewals = max(config.bn_renewal_steps, 20)
    following = list(inputs_of(dataset, config, num_steps=num_renewals, other_clips=False))
    for kind in kinds:
        # The stored moments were renewed in this very way at the end of the training.
        is_stored = kind == config.bn_moments and config.bn_renewal_steps == num_renewals
        networks[kind] = networks["stored"] if is_stored else renewed(networks["stored"], kind, following)
    networks["batch"] = copy.deepcopy(networks["stored"])
    use_batch_statistics(networks["batch"])
    groups = list(inputs_of(dataset, config, num_steps=num_steps, other_clips=True))
    labels = torch.cat([group[2] for group in groups])
    different = {id(network): logits_of(network, groups) for network in {id(one): one for one in networks.values()}.values()}
    logits = {name: different[id(network)] for name, network in networks.items()}
    suits = True
    for stream, by_batch in logits["batch"].items():
        accuracy = {name: float((given[stream].argmax(1) == labels).float().mean()) for name, given in logits.items()}
        loss = {name: float(nn.functional.cross_entropy(given[stream], labels)) for name, given in logits.items()}
        scale = {kind: float(logits[kind][stream].std() / by_batch.std()) for kind in kinds}
        cells = [f"{100 * accuracy[name]:.1f} % ({loss[name]:.2f})" for name in ("batch", "last step", "stored", *kinds)]
        print(f"| {phase} | {stream} | " + " | ".join(cells) + f" | {', '.join(f'{value:.3f}' for value in scale.values())} |", flush=True)
        suits &= accuracy["stored"] >= LEAST_SHARE * accuracy["batch"]
    return suits


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path)
    parser.add_argument("--lists", type=Path, required=True, help="the CSV list of split 1")
    parser.add_argument("--weights", type=Path, help="ImageNet weights of a ResNet-50")
    parser.add_argument("--work", type=Path, required=True, help="the data root to make; what is there already is used")
    parser.add_argument("--base-width", type=int, default=64)
    parser.add_argument("--short-side", type=int, default=256)
    parser.add_argument("--input-size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--test-steps", type=int, default=10, help="batches of clips to test on")
    parser.add_argument("--phases", nargs="+", choices=PHASES, default=PHASES, help="the phases to measure; all are trained")
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=KINDS, help="which moments to renew and compare")
    options = parser.parse_args()

    root = options.work
    for line in (
        ["extract", options.videos, "--short-side", options.short_side, "--device", "cpu"],
        ["pack", "--split", 1, "--lists", options.lists],
    ):
        flowkit.main([str(part) for part in (*line, "--data", root)], standalone_mode=False)
    narrow = options.base_width != 64
    overrides = {"batch": 8, "bn_group": 4, "steps": options.steps, "base_width": options.base_width, "input_size": options.input_size}
    train(
        root,
        phases=PHASES,
        recipe="official",
        weights="none" if narrow else options.weights,
        overrides=overrides,
        execution=Execution(device="cpu"),
    )
    header = ["phase", "stream", "batch statistics: accuracy (loss)", "moments at the last step", "stored moments"]
    header += [*(f"renewed, {kind}" for kind in options.kinds), "spread of the logits relative to batch statistics"]
    print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}")
    suits = [measure(root, phase, options.test_steps, options.kinds) for phase in options.phases]
    return 0 if all(suits) else 1


if __name__ == "__main__":
    sys.exit(main())
