"""Loss and parameter groups: the official code's rules (invariants L1, L2, L3, L5)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from phases import PHASES
from torch import nn
from torch.nn import functional

from flowkit.model.networks.phase_networks import build_network, stream_logits
from flowkit.model.settings.network import STResNetConfig
from flowkit.model.systems.configs import make_configs
from flowkit.model.training.optimiser import (
    GradientSums,
    class_weights,
    make_optimiser,
    parameter_groups,
    set_learning_rate,
    stream_losses,
)
from flowkit.model.training.phases import start_network


def config_of(phase: str, **overrides: Any) -> Any:
    settings = {"base_width": 4, "input_size": 32, "batch": 4, "bn_group": 2, **overrides}
    return make_configs("small", num_classes=3, num_videos=12, short_side=40, overrides=settings)[phase]


def network_of(config: Any) -> Any:
    torch.manual_seed(0)
    network = build_network(config)
    if config.phase in ("appearance", "motion"):
        start_network(network, config, None, {})
    return network


def clips(num_videos: int, num_samples: int, dtype: Any = torch.float32) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(1)
    rgb = torch.randn(num_videos, num_samples, 3, 32, 32, generator=generator, dtype=dtype)
    flow = torch.randn(num_videos, num_samples, 20, 32, 32, generator=generator, dtype=dtype)
    return rgb, flow, torch.arange(num_videos) % 3


def test_the_loss_is_the_sum_over_streams_and_times_divided_by_videos() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = {stream: torch.randn(4, 5, 3, generator=generator) for stream in ("appearance", "motion")}
    labels = torch.tensor([0, 2, 1, 1])
    naive = sum(
        functional.cross_entropy(values[b, t][None], labels[b, None]) / 4 for values in logits.values() for b in range(4) for t in range(5)
    )
    losses = stream_losses(logits, labels, num_videos=4)
    assert losses.keys() == logits.keys()
    assert sum(losses.values()).item() == pytest.approx(naive.item(), rel=1e-6)


def test_equal_outputs_at_all_times_count_each_time() -> None:
    one = torch.randn(4, 1, 3)
    labels = torch.tensor([0, 2, 1, 1])
    single = stream_losses({"motion": one}, labels, num_videos=4)["motion"]
    five = stream_losses({"motion": one.expand(4, 5, 3)}, labels, num_videos=4)["motion"]
    assert five.item() == pytest.approx(5 * single.item(), rel=1e-6)


def test_duplicating_the_batch_leaves_the_loss_unchanged() -> None:
    logits, labels = torch.randn(4, 5, 3), torch.tensor([0, 2, 1, 1])
    once = stream_losses({"motion": logits}, labels, num_videos=4)["motion"]
    twice = stream_losses({"motion": logits.repeat(2, 1, 1)}, labels.repeat(2), num_videos=8)["motion"]
    assert twice.item() == pytest.approx(once.item(), rel=1e-6)


def test_weighted_classes_have_the_same_share_of_the_sum_over_the_training_list() -> None:
    labels = [0] * 9 + [3] * 2 + [4]
    weights = class_weights(labels, num_classes=6)
    assert weights[labels].mean().item() == pytest.approx(1)
    shares = [weights[[label] * labels.count(label)].sum().item() for label in (0, 3, 4)]
    assert shares == pytest.approx([4, 4, 4])
    assert weights[[1, 2, 5]].tolist() == [0, 0, 0]
    logits, batch = torch.randn(4, 5, 6), torch.tensor([0, 4, 3, 0])
    one_by_one = [stream_losses({"motion": logits[k : k + 1]}, batch[k : k + 1], num_videos=4)["motion"] for k in range(4)]
    weighted = stream_losses({"motion": logits}, batch, num_videos=4, weights=weights)["motion"]
    assert weighted.item() == pytest.approx(
        sum(weights[label] * loss for label, loss in zip(batch, one_by_one, strict=True)).item(), rel=1e-6
    )


def gradients(network: Any, batch: Any, groups: Any) -> Any:
    rgb, flow, labels = batch
    network.zero_grad()
    for part in groups:
        losses = stream_losses(stream_logits(network, rgb[part], flow[part]), labels[part], num_videos=len(labels))
        sum(losses.values()).backward()
    return torch.cat([parameter.grad.flatten() for parameter in network.parameters()])


@pytest.mark.parametrize("training", [False, True])
def test_sub_batches_add_up_to_the_batch_where_batch_norm_is_fixed_and_not_where_it_is_not(training: bool) -> None:
    network = network_of(config_of("st-resnet")).double().train(training)
    generator = torch.Generator().manual_seed(2)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    batch = clips(4, 2, torch.float64)
    whole = gradients(network, batch, [slice(0, 4)])
    parts = gradients(network, batch, [slice(0, 2), slice(2, 4)])
    difference = (whole - parts).norm() / whole.norm()
    assert difference > 1e-2 if training else difference < 1e-10


@pytest.mark.parametrize("phase", PHASES)
def test_every_parameter_is_in_the_group_of_its_kind_once(phase: str) -> None:
    network, config = network_of(config_of(phase)), config_of(phase)
    kinds = {}
    for name, parameter in network.named_parameters():
        norm = ".bn" in name or "downsample.1" in name
        leaf = name.rpartition(".")[2]
        kinds[parameter] = {(False, "weight"): (1, 5e-4), (False, "bias"): (2, 0), (True, "weight"): (2, 0), (True, "bias"): (1, 0)}[
            norm, leaf
        ]
    seen = []
    for group in parameter_groups(network, config):
        for parameter in group["params"]:
            assert (group["lr_multiplier"], group["weight_decay"]) == kinds[parameter]
            seen.append(parameter)
    assert len(seen) == len(set(seen)) == len(kinds)
    assert sum(p.numel() for p in seen) == sum(p.numel() for p in network.parameters())


def test_one_update_is_the_rule_written_out() -> None:
    config = config_of("appearance")
    network = network_of(config)
    optimiser = make_optimiser(network, config)
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    for _ in range(2):
        set_learning_rate(optimiser, 0.1)
        optimiser.step()

    def expected(value: Any, multiplier: Any, decay: Any) -> Any:
        velocity = torch.zeros_like(value)
        for _ in range(2):
            velocity = 0.9 * velocity + 1 + decay * value
            value = value - 0.1 * multiplier * velocity
        return value

    rules = {"conv1.weight": (1, 5e-4), "fc.weight": (1, 5e-4), "fc.bias": (2, 0), "bn1.weight": (2, 0), "bn1.bias": (1, 0)}
    for name, rule in rules.items():
        key = f"appearance.{name}"
        assert torch.allclose(network.get_parameter(key), expected(before[key], *rule), atol=1e-6)


def test_the_gradients_of_a_step_add_up_to_the_same_bits_in_any_order_and_unused_parameters_get_none() -> None:
    layer = nn.Linear(1000, 3)
    generator = torch.Generator().manual_seed(0)
    parts = torch.randn(8, 3, 1000, generator=generator) * torch.logspace(-3, 3, 8)[:, None, None]

    def summed(order: list[int]) -> Any:
        sums = GradientSums(layer)
        for _ in range(2):  # nothing of the first step is left in the second
            for index in order:
                layer.weight.grad = parts[index].clone()
                sums.add()
                assert layer.weight.grad is None
            sums.write()
        assert layer.bias.grad is None
        assert layer.weight.grad is not None
        return layer.weight.grad

    expected = summed(list(range(8)))
    assert expected.dtype == torch.float32
    torch.testing.assert_close(expected, parts.sum(0))
    assert all(torch.equal(summed(order), expected) for order in ([7, 6, 5, 4, 3, 2, 1, 0], [0, 4, 1, 5, 2, 6, 3, 7]))
    forward, backward = (sum(parts[index] for index in order) for order in (range(8), range(7, -1, -1)))
    assert not torch.equal(forward, backward)  # as float32 would have it


def test_taps_are_equal_at_first_and_differ_after_one_step_on_a_moving_clip() -> None:
    config = config_of("st-resnet", base_width=4)
    states = {}
    for phase in ("appearance", "motion"):
        states[phase] = network_of(config_of(phase)).state_dict()
    network = build_network(config)
    start_network(network, config, None, states)
    weights = [p for name, p in network.named_parameters() if p.ndim == 5]
    assert len(weights) == 16
    assert all(torch.equal(w[:, :, 0], w[:, :, k]) for w in weights for k in (1, 2))
    optimiser = make_optimiser(network, config)
    set_learning_rate(optimiser, 0.01)
    gradients(network.train(), clips(2, 5), [slice(0, 2)])
    optimiser.step()
    assert all(not torch.equal(w[:, :, 0], w[:, :, 1]) for w in weights)


def test_st_resnet_star_starts_from_st_resnet_bit_for_bit() -> None:
    torch.manual_seed(3)
    earlier = build_network(config_of("st-resnet"))
    star = build_network(config_of("st-resnet-star"))
    for tensor in (*earlier.parameters(), *earlier.buffers()):  # both are the same, since a new network is a function of torch's seed
        torch.nn.init.normal_(tensor) if tensor.is_floating_point() else tensor.fill_(7)
    start_network(star, config_of("st-resnet-star"), None, {"st-resnet": earlier.state_dict()})
    assert star.config == STResNetConfig(**{**earlier.config.__dict__, "temporal_pool": True})
    for name, tensor in earlier.state_dict().items():
        assert torch.equal(star.state_dict()[name], tensor)
