"""The backward pass: invariants M10-M13 and M23 of docs/invariants.md, eqs. 3 and 4, gradient checkpointing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from network_oracle import SMALL, STREAMS, clips, network
from torch import nn

from flowkit.model.networks.layers.temporal_conv import TemporalConv, _ByProducts, by_clip
from flowkit.model.networks.resnet import GroupedBatchNorm, set_groups
from flowkit.model.networks.stresnet import STResNet

pytestmark = pytest.mark.usefixtures("float64")


def loss(logits: torch.Tensor) -> torch.Tensor:
    return logits.flatten(0, 1).logsumexp(1).sum() - logits[..., 1].sum()


class Watch:
    """Return values and gradients of the sums before the ReLU around unit b of one stage, and of the input of its branch."""

    def __init__(self, model: STResNet, stage: int) -> None:
        self.value: dict[str, torch.Tensor] = {}
        self.gradient: dict[str, torch.Tensor] = {}
        self.live: dict[str, torch.Tensor] = {}
        for stream in STREAMS:
            layer = getattr(getattr(model, stream), f"layer{stage}")
            layer[0].register_forward_hook(lambda _m, _i, out, key=f"{stream} a": self.note(key, out))
            layer[1].register_forward_hook(lambda _m, _i, out, key=f"{stream} b": self.note(key, out))
            layer[1].conv1.register_forward_hook(lambda _m, inputs, _o, key=f"{stream} branch": self.note(key, inputs[0]))

    def note(self, key: str, tensor: torch.Tensor) -> None:
        self.value[key] = tensor.detach().clone()
        self.live[key] = tensor
        tensor.register_hook(lambda gradient: self.gradient.update({key: gradient.clone()}))


@pytest.mark.parametrize("stage", range(1, 5))
def test_m10_gradient_of_the_appearance_sum_is_eq_3(stage: int) -> None:
    model = network()
    watch = Watch(model, stage)
    loss(model(*clips()).appearance).backward()
    gate = watch.value["appearance a"] > 0
    expected = watch.gradient["appearance b"] * gate + watch.gradient["appearance branch"]
    assert torch.equal(watch.gradient["appearance a"], expected)
    assert watch.gradient["appearance a"][~gate].abs().max() > 0


@pytest.mark.parametrize("kind", ["additive", "multiplicative"])
def test_m11_gradient_into_the_motion_stream_is_eq_4_with_the_relus_gate(kind: str) -> None:
    model = network(injection_kind=kind)
    watch = Watch(model, 4)  # the last stage: nothing but the skip brings the appearance loss there
    loss(model(*clips()).appearance).backward()
    gate = watch.value["motion a"] > 0
    through_skip = watch.gradient["appearance branch"] * (watch.value["appearance a"] if kind == "multiplicative" else 1)
    assert torch.equal(watch.gradient["motion a"], through_skip * gate)
    assert watch.gradient["motion a"].abs().max() > 0
    assert (~gate).any()


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_m11_the_skip_adds_to_the_motion_streams_own_gradient(stage: int) -> None:
    model = network()
    watch = Watch(model, stage)
    loss(model(*clips()).appearance).backward()
    x = watch.value["motion a"].relu().requires_grad_()
    unit_b = getattr(model.motion, f"layer{stage}")[1]
    own = torch.autograd.grad(unit_b(x, x, 5), x, watch.gradient["motion b"])[0]  # identity path and residual branch
    expected = (own + watch.gradient["appearance branch"]) * (watch.value["motion a"] > 0)
    assert (watch.gradient["motion a"] - expected).norm() <= 1e-14 * expected.norm()


def has_gradient(parameter: nn.Parameter) -> bool:
    return parameter.grad is not None and bool(parameter.grad.abs().max() > 0)


def test_m12_which_parameters_each_loss_reaches() -> None:
    model = network()
    inputs = clips()
    loss(model(*inputs).appearance).backward()
    for name, parameter in model.named_parameters():
        reached = not name.startswith(("motion.layer4.1", "motion.layer4.2", "motion.fc"))
        assert has_gradient(parameter) == reached, name
    model.zero_grad()
    loss(model(*inputs).motion).backward()
    for name, parameter in model.named_parameters():
        assert has_gradient(parameter) == name.startswith("motion."), name


def test_m13_gradients_of_the_two_losses_add_up() -> None:
    model = network()
    inputs = clips()
    weight = model.motion.layer4[0].conv3.weight
    gradients = []
    for pick in (lambda logits: loss(logits.appearance), lambda logits: loss(logits.motion), lambda logits: sum(map(loss, logits))):
        gradients += torch.autograd.grad(pick(model(*inputs)), weight)
    assert (gradients[0] + gradients[1] - gradients[2]).norm() <= 1e-14 * gradients[2].norm()
    assert min(gradient.norm() for gradient in gradients) > 0


@pytest.mark.parametrize("training", [False, True])
def test_m23_checkpointing_changes_neither_output_nor_gradient_nor_moments(training: bool) -> None:
    plain = network().train(training)
    checkpointed = STResNet(SMALL, checkpoint_activations=True).train(training)
    checkpointed.load_state_dict(plain.state_dict())
    inputs = clips()
    for model in (plain, checkpointed):
        sum(map(loss, model(*inputs))).backward()
    for x, y in zip(plain(*inputs), checkpointed(*inputs), strict=True):
        assert torch.equal(x, y)
    for (name, x), y in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        assert torch.equal(x.grad, y.grad), name
    for (name, x), y in zip(plain.named_buffers(), checkpointed.buffers(), strict=True):
        assert torch.equal(x, y), name


def norms(model: nn.Module) -> list[tuple[str, GroupedBatchNorm]]:
    return [(name, module) for name, module in model.named_modules() if isinstance(module, GroupedBatchNorm)]


def running_buffers(model: nn.Module) -> list[torch.Tensor]:
    return [tensor for name, tensor in model.state_dict().items() if "running" in name or "num_batches" in name]


@pytest.mark.parametrize("checkpointed", [False, True])
def test_groups_in_one_pass_give_the_sum_of_their_gradients_and_each_its_outputs_moments_and_dropout(checkpointed: bool) -> None:
    settings = replace(SMALL, motion_dropout=0.5)
    apart, together = (STResNet(settings, checkpoint_activations=checkpointed).train() for _ in range(2))
    apart.motion.dropout = together.motion.dropout = 0.5
    together.load_state_dict(apart.state_dict())
    running = [buffer.clone() for buffer in running_buffers(apart)]
    groups, seeds = [clips() for _ in range(3)], [5, 6, 7]
    outputs, moments = [], []
    for seed, inputs in zip(seeds, groups, strict=True):
        set_groups(apart, [seed])
        torch.manual_seed(seed)
        outputs.append(apart(*inputs))
        sum(map(loss, outputs[-1])).backward()
        moments.append({name: module.group_moments.clone() for name, module in norms(apart)})
    assert all(torch.equal(before, after) for before, after in zip(running, running_buffers(apart), strict=True))
    set_groups(together, seeds)
    joined = together(*(torch.cat(stream) for stream in zip(*groups, strict=True)))
    sum(map(loss, joined)).backward()
    for got, expected in zip(joined, zip(*outputs, strict=True), strict=True):
        torch.testing.assert_close(got, torch.cat(expected), rtol=1e-9, atol=1e-11)
    for (name, x), y in zip(apart.named_parameters(), together.parameters(), strict=True):
        assert (x.grad - y.grad).norm() <= 1e-9 * x.grad.norm(), name
    for name, module in norms(together):
        torch.testing.assert_close(module.group_moments, torch.cat([one[name] for one in moments], 1), rtol=1e-9, atol=1e-11, msg=name)
    assert not [name for name in together.state_dict() if "group" in name]


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize(("num_clips", "num_frames", "height", "width"), [(1, 1, 3, 4), (3, 2, 1, 1), (2, 5, 7, 5)])
def test_convolution_and_gradients_by_products_are_those_of_conv3d(
    num_threads: int, channels_last: bool, num_clips: int, num_frames: int, height: int, width: int
) -> None:
    """One thread computes all three by products; several threads only the gradient of the weights."""
    torch.set_num_threads(num_threads)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    frames = torch.randn(num_clips * num_frames, 6, height, width).to(memory_format=memory_format)
    clips = by_clip(frames, num_frames).transpose(1, 2).requires_grad_()
    weight = torch.randn(5, 6, 3, 1, 1, requires_grad=True)
    expected = nn.functional.conv3d(clips, weight, padding=(1, 0, 0))
    out = _ByProducts.apply(clips, weight)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    gradient = torch.randn_like(out)
    for mine, theirs in zip(*(torch.autograd.grad(y, [clips, weight], gradient) for y in (out, expected)), strict=True):
        assert mine.shape == theirs.shape
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("num_threads", [1, 2])
def test_a_temporal_convolution_keeps_channels_last_in_both_directions(num_threads: int) -> None:
    if num_threads > 1 and not torch.backends.mkldnn.is_available():
        pytest.skip("several threads need oneDNN")
    torch.set_num_threads(num_threads)
    convolution = TemporalConv(64, 32, "zeros").float().to(memory_format=torch.channels_last)
    assert convolution.weight.stride() == (192, 1, 64, 64, 64)
    frames = torch.randn(20, 64, 24, 20, dtype=torch.float32).to(memory_format=torch.channels_last).requires_grad_()
    out = convolution(frames, 5)
    gradient = torch.autograd.grad(out, frames, torch.randn_like(out))[0]
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert gradient.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("padding", ["zeros", "replicate"])
def test_a_temporal_convolution_has_the_same_gradients_in_either_memory_format(padding: str, num_threads: int) -> None:
    """Products may be used with channels_last."""
    torch.set_num_threads(num_threads)
    convolution = TemporalConv(8, 4, padding).float()
    gradients = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(1)
        frames = torch.randn(10, 8, 6, 7, dtype=torch.float32).to(memory_format=memory_format).requires_grad_()
        out = convolution.to(memory_format=memory_format)(frames, 5)
        gradients.append(torch.autograd.grad((out * out.detach().cos()).sum(), [frames, convolution.weight]))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_a_network_whose_batches_are_not_divided_updates_its_running_moments_as_torch_does() -> None:
    model = network().train()
    seen = {}
    model.motion.bn1.register_forward_hook(lambda _m, inputs, _o: seen.update(x=inputs[0].detach()))
    before = model.motion.bn1.running_mean.clone()
    model(*clips())
    torch.testing.assert_close(model.motion.bn1.running_mean, 0.95 * before + 0.05 * seen["x"].mean((0, 2, 3)))


def test_m23_checkpointing_keeps_fewer_activations() -> None:
    kept = {}
    for checkpointed in (False, True):
        model = STResNet(SMALL, checkpoint_activations=checkpointed).eval()
        sizes: dict[int, int] = {}

        def pack(tensor: Any, sizes: Any = sizes) -> Any:
            sizes[tensor.data_ptr()] = tensor.numel()
            return tensor

        inputs = clips()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            logits = model(*inputs)
        kept[checkpointed] = sum(sizes.values())
        del logits
    assert kept[True] < 0.6 * kept[False]  # the rest is the stem's


def test_m23_backward_works_twice() -> None:
    model = network()
    total = sum(map(loss, model(*clips())))
    total.backward(retain_graph=True)
    first = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    total.backward()
    for x, parameter in zip(first, model.parameters(), strict=True):
        assert torch.equal(x, parameter.grad)


@pytest.mark.parametrize("injection", ["none", "residual", "direct"])
def test_m23_the_sums_before_the_relu_survive_the_forward_pass(injection: str) -> None:
    model = network(injection=injection)
    watches = [Watch(model, stage) for stage in range(1, 5)]
    model(*clips())
    for watch in watches:
        for key in ("appearance a", "motion a"):
            assert torch.equal(watch.live[key], watch.value[key])
            assert (watch.value[key] < 0).any()


def test_gradients_are_those_of_finite_differences() -> None:
    model = network(stage_units=(2, 2, 2, 2), base_width=2, temporal_pool=True, injection_direction="both")
    rgb, flow = torch.randn(1, 3, 3, 32, 32), torch.randn(1, 3, 20, 32, 32)
    parameters = dict(model.named_parameters())

    def total(values: Any) -> Any:
        return sum(map(loss, torch.func.functional_call(model, values, (rgb, flow))))

    direction = {name: torch.randn_like(value) for name, value in parameters.items()}
    slope = sum((torch.autograd.grad(total(parameters), value)[0] * direction[name]).sum() for name, value in parameters.items())
    step = 1e-7
    ends = [total({name: value + sign * step * direction[name] for name, value in parameters.items()}) for sign in (1, -1)]
    assert abs((ends[0] - ends[1]) / (2 * step) - slope) < 1e-5 * abs(slope)
