"""The forward pass: invariants M1-M5, M7-M9, M14-M18, M21, M22 of docs/invariants.md, and an independent oracle."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from network_oracle import SMALL, STREAMS, clips, difference, network, oracle, oracle_unit
from torch import nn
from torch.nn import functional as F
from torchvision.models.resnet import Bottleneck, ResNet, resnet50, resnet101, resnet152

from flowkit.errors import ParameterError
from flowkit.model.networks.layers.temporal_conv import TemporalConv, inflate
from flowkit.model.networks.resnet import pooled_length, temporal_max_pool
from flowkit.model.networks.stresnet import SingleStream, STResNet
from flowkit.model.settings.network import STResNetConfig

pytestmark = pytest.mark.usefixtures("float64")


def static_clips(num_frames: int) -> tuple[Any, ...]:
    rgb, flow = clips(1, 1)
    return rgb.expand(1, num_frames, -1, -1, -1), flow.expand(1, num_frames, -1, -1, -1)


def randomise_taps(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, TemporalConv):
            module.weight.data *= torch.rand_like(module.weight) * 2


VARIANTS = [
    {},
    {"temporal_padding": "replicate", "stride_in_1x1": True},
    {"temporal_pool": True},
    {"temporal_pool": True, "temporal_pool_position": "before_pool5", "head_pool": "global"},
    {"temporal_convolution": False, "head_pool": "global"},
    {"injection": "none"},
    {"injection_stages": (5,), "temporal_stages": (2, 4)},
    {"injection_stages": (3, 2), "injection": "direct", "injection_direction": "both", "temporal_stages": [3]},
    *(
        {"injection": injection, "injection_direction": direction, "injection_kind": kind}
        for injection, direction, kind in itertools.product(
            ("residual", "direct"), ("motion_to_appearance", "appearance_to_motion", "both"), ("additive", "multiplicative")
        )
    ),
]


@pytest.mark.parametrize("settings", VARIANTS, ids=lambda s: "-".join(map(str, s.values())) or "default")
def test_equals_the_equations_written_out(settings: Any) -> None:
    model = network(SMALL, **settings)
    randomise_taps(model)
    rgb, flow = clips(1, 7, 96)  # maps of 3x3 under a window of 2
    for ours, expected in zip(model(rgb, flow), oracle(model, rgb[0], flow[0]), strict=True):
        assert difference(ours[0], expected) < 1e-12


# -- M1-M9 -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("stride_in_1x1", [pytest.param(False, marks=pytest.mark.slow), True])
def test_m1_without_injection_and_time_the_streams_are_torchvisions_resnets(stride_in_1x1: bool, dtype: Any) -> None:
    torch.set_default_dtype(dtype)
    config = STResNetConfig(num_classes=5, stage_units=(2, 2, 2, 2), stride_in_1x1=stride_in_1x1, input_size=64)
    model = network(config, injection="none", temporal_convolution=False)
    inputs = clips(1, 3)
    for stream, x, logits in zip(STREAMS, inputs, model(*inputs), strict=True):
        plain = ResNet(Bottleneck, [2, 2, 2, 2], num_classes=5)
        plain.conv1 = nn.Conv2d(x.shape[2], 64, 7, 2, 3, bias=False)
        if stride_in_1x1:
            for layer in (plain.layer2, plain.layer3, plain.layer4):
                layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
        plain.load_state_dict(getattr(model, stream).state_dict())
        plain.eval()
        tolerance = 1e-12 if dtype == torch.float64 else 1e-5
        for frame in range(3):
            assert difference(logits[:, frame], plain(x[:, frame])) < tolerance
        single = SingleStream(config, stream).eval()
        single.load_state_dict({f"{stream}.{name}": value for name, value in plain.state_dict().items()})
        assert difference(single(x), logits) < tolerance


@pytest.mark.parametrize("padding", ["zeros", "replicate"])
def test_m2_centre_init_is_the_per_frame_network_with_skips(padding: str) -> None:
    model = network(temporal_init="center", temporal_padding=padding)
    per_frame = per_frame_network(model)
    rgb, flow = clips(1, 6)
    for ours, expected in zip(model(rgb, flow), per_frame(rgb, flow), strict=True):
        assert difference(ours, expected) < 1e-14


def per_frame_network(model: STResNet) -> STResNet:
    """Return the same network without temporal extent: each temporal convolution is replaced by the sum of its taps."""
    flat = STResNet(replace(model.config, temporal_convolution=False)).eval()
    state = {name: value.sum(2) if value.ndim == 5 else value for name, value in model.state_dict().items()}
    flat.load_state_dict(state)
    return flat


def test_m3_average_init_with_replicate_padding_is_per_frame_on_static_clips() -> None:
    model = network(temporal_padding="replicate")
    rgb, flow = static_clips(7)
    for ours, expected in zip(model(rgb, flow), per_frame_network(model)(rgb[:, :1], flow[:, :1]), strict=True):
        assert all(difference(ours[:, t], expected[:, 0]) < 1e-12 for t in range(7))


def test_m3_zero_padding_is_exact_only_for_inner_frames_of_static_clips() -> None:
    model = network()
    flat = per_frame_network(model)
    outputs: dict[tuple[bool, str, int], torch.Tensor] = {}
    for net, stream, stage in itertools.product((model, flat), STREAMS, range(1, 5)):
        last = getattr(getattr(net, stream), f"layer{stage}")[-1]
        last.register_forward_hook(lambda _m, _i, out, key=(net is flat, stream, stage): outputs.update({key: out.clone()}))
    rgb, flow = static_clips(19)
    logits, expected = model(rgb, flow), flat(rgb[:, :1], flow[:, :1])
    for stream, stage in itertools.product(STREAMS, range(1, 5)):
        frames = outputs[False, stream, stage]
        exact = [t + 1 for t in range(19) if difference(frames[t], outputs[True, stream, stage][0]) < 1e-12]
        assert exact == list(range(1 + 2 * stage, 20 - 2 * stage))
    for ours, theirs in zip(logits, expected, strict=True):
        assert [t + 1 for t in range(19) if difference(ours[0, t], theirs[0, 0]) < 1e-12] == [9, 10, 11]


def test_m3_static_clips_of_eleven_frames_differ_everywhere_with_zero_padding() -> None:
    model = network()
    rgb, flow = static_clips(11)
    for ours, expected in zip(model(rgb, flow), per_frame_network(model)(rgb[:, :1], flow[:, :1]), strict=True):
        differences = [difference(ours[0, t], expected[0, 0]) for t in range(11)]
        assert min(differences) > 1e-12
        assert min(differences[0], differences[-1]) > 0.02


def average_conv(padding: str) -> tuple[TemporalConv, torch.Tensor]:
    conv = TemporalConv(6, 4, padding)
    weight = torch.randn(4, 6, 1, 1)
    conv.weight.data = inflate(weight, "average")
    return conv, weight


@pytest.mark.parametrize(("padding", "edge", "alone"), [("zeros", 2 / 3, 1 / 3), ("replicate", 1, 1)])
def test_m4_edge_factor(padding: str, edge: Any, alone: Any) -> None:
    conv, weight = average_conv(padding)
    frame = torch.randn(1, 6, 3, 4)
    inner = F.conv2d(frame, weight)
    out = conv(frame.expand(5, -1, -1, -1), 5)
    torch.testing.assert_close(out, torch.cat([edge * inner, inner, inner, inner, edge * inner]))
    torch.testing.assert_close(conv(frame, 1), alone * inner)


def test_m5_average_init_is_a_moving_average_within_every_clip() -> None:
    conv, weight = average_conv("zeros")
    x = torch.randn(2, 4, 6, 3, 5)  # two clips of four frames
    out = conv(x.flatten(0, 1), 4).view(2, 4, 4, 3, 5)
    y = F.pad(F.conv2d(x.flatten(0, 1), weight).view(2, 4, 4, 3, 5), (0, 0, 0, 0, 0, 0, 1, 1))
    for t in range(4):
        assert (out[:, t] - (y[:, t] + y[:, t + 1] + y[:, t + 2]) / 3).abs().max() < 1e-13


def test_m7_only_the_1x1_convolutions_of_unit_b_are_inflated() -> None:
    with torch.device("meta"):
        plain = {name: value.shape for name, value in resnet50().state_dict().items()}
        model = STResNet(STResNetConfig(num_classes=101))
    for stream in STREAMS:
        shapes = {name: value.shape for name, value in getattr(model, stream).state_dict().items()}
        assert set(shapes) == set(plain)
        changed = {name for name in plain if shapes[name] != plain[name]}
        inflated = {f"layer{k}.1.conv{i}.weight" for k in range(1, 5) for i in (1, 3)}
        assert changed == inflated | {"fc.weight", "fc.bias"} | ({"conv1.weight"} if stream == "motion" else set())
        assert all(shapes[name] == (*plain[name][:2], 3, 1, 1) for name in inflated)


@pytest.mark.parametrize("stages", [(2,), (3, 5), (2, 3, 4)])
def test_m7_of_chosen_stages_only_those_are_inflated(stages: tuple[Any, ...]) -> None:
    with torch.device("meta"):
        whole, model = (STResNet(replace(SMALL, temporal_stages=chosen)).state_dict() for chosen in ((2, 3, 4, 5), stages))
    flat = {name for name in model if model[name].shape != whole[name].shape}
    left_out = set(range(2, 6)) - set(stages)
    assert flat == {f"{stream}.layer{k - 1}.1.conv{i}.weight" for stream in STREAMS for k in left_out for i in (1, 3)}
    assert all(model[name].ndim == 4 for name in flat)


def test_m8_a_frame_reaches_eight_frames_either_way() -> None:
    model = network()
    rgb, flow = clips(1, 25)
    before = model(rgb, flow)

    def changed(rgb: Any, flow: Any) -> list[Any]:
        return [
            [t + 1 for t in range(25) if not torch.equal(new[0, t], old[0, t])] for new, old in zip(model(rgb, flow), before, strict=True)
        ]

    other_rgb, other_flow = rgb.clone(), flow.clone()
    other_rgb[0, 12] += 1
    other_flow[0, 12] += 1
    assert changed(other_rgb, flow) == [list(range(5, 22)), []]
    assert changed(rgb, other_flow) == [list(range(5, 22)), list(range(5, 22))]


@pytest.mark.parametrize("stage", range(4))
def test_m9_motion_enters_the_branch_on_top_of_the_sum_before_the_relu(stage: int) -> None:
    model = network()
    seen = {}
    layers = {stream: getattr(getattr(model, stream), f"layer{stage + 1}") for stream in STREAMS}
    for stream, layer in layers.items():
        layer[0].register_forward_hook(lambda _m, _i, out, key=stream: seen.update({key: out.clone()}))
    unit_b = layers["appearance"][1]
    unit_b.conv1.register_forward_hook(lambda _m, inputs, _o: seen.update(branch=inputs[0].clone()))
    unit_b.register_forward_hook(lambda _m, _i, out: seen.update(out=out.clone()))
    model(*clips(2, 4))
    s_a, s_m = seen["appearance"], seen["motion"]
    expected = s_a + F.relu(s_m)
    assert torch.equal(seen["branch"], expected)
    assert (expected < 0).double().mean() > 0.05
    state = model.state_dict()
    unit = [
        oracle_unit(state, f"appearance.layer{stage + 1}.1", F.relu(s_a[i : i + 4]), expected[i : i + 4], model.config, 1) for i in (0, 4)
    ]
    assert difference(seen["out"], torch.cat(unit)) < 1e-12


# -- M14-M18, M21, M22 -------------------------------------------------------------------------------------------------------------


def test_m14_motion_informs_appearance_and_not_the_reverse() -> None:
    model = network()
    rgb, flow = clips(1, 4)
    before = model(rgb, flow)
    assert torch.equal(model(torch.randn_like(rgb), flow).motion, before.motion)
    assert difference(model(rgb, torch.randn_like(flow)).appearance, before.appearance) > 1e-3


def test_m15_clips_of_a_batch_do_not_meet() -> None:
    model = network()
    randomise_taps(model)
    rgb, flow = clips(3, 4)
    together = model(rgb, flow)
    permuted = model(rgb[[2, 0, 1]], flow[[2, 0, 1]])
    for i, stream in enumerate(STREAMS):
        for clip in range(3):
            assert difference(together[i][clip], model(rgb[clip : clip + 1], flow[clip : clip + 1])[i][0]) < 1e-13, stream
        assert difference(permuted[i], together[i][[2, 0, 1]]) < 1e-13


@pytest.mark.parametrize("temporal_pool", [False, True])
def test_m16_reversed_clips_give_reversed_logits_until_the_taps_differ(temporal_pool: bool) -> None:
    model = network(temporal_pool=temporal_pool)
    rgb, flow = clips(1, 11)

    def reversal_error() -> Any:
        forward, backward = model(rgb, flow), model(rgb.flip(1), flow.flip(1))
        return max(difference(b.flip(1), f) for f, b in zip(forward, backward, strict=True))

    assert reversal_error() < 1e-13
    randomise_taps(model)
    assert reversal_error() > 1e-3


@pytest.mark.parametrize(("num_frames", "pooled"), [(1, 1), (3, 1), (5, 1), (7, 2), (11, 4), (25, 11)])
def test_m17_shapes(num_frames: int, pooled: int) -> None:
    rgb, flow = clips(2, num_frames, 32)
    for config, length in ((SMALL, num_frames), (replace(SMALL, temporal_pool=True), pooled)):
        assert [tuple(x.shape) for x in network(config)(rgb, flow)] == [(2, length, 5)] * 2
    assert pooled_length(num_frames) == pooled
    assert temporal_max_pool(torch.randn(2 * num_frames, 3, 2, 2), num_frames).shape == (2 * pooled, 3, 2, 2)
    assert SingleStream(replace(SMALL, temporal_pool=True), "motion")(flow).shape == (2, num_frames, 5)


def test_m18_the_place_of_the_temporal_pool_matters_unless_nothing_moves() -> None:
    after = network(temporal_pool=True, temporal_padding="replicate")
    before = STResNet(replace(after.config, temporal_pool_position="before_pool5")).eval()
    before.load_state_dict(after.state_dict())
    for (rgb, flow), equal in ((clips(1, 11), False), (static_clips(11), True)):
        for x, y in zip(before(rgb, flow), after(rgb, flow), strict=True):
            assert (difference(x, y) < 1e-12) == equal


def test_m21_heads_agree_on_crops_and_differ_on_whole_frames() -> None:
    windowed = network(base_width=2, stage_units=(2, 2, 2, 2), input_size=224)
    everything = STResNet(replace(windowed.config, head_pool="global")).eval()
    everything.load_state_dict(windowed.state_dict())
    for height, width, equal in ((224, 224, True), (256, 340, False), (96, 128, True)):
        rgb, flow = torch.randn(1, 2, 3, height, width), torch.randn(1, 2, 20, height, width)
        for x, y in zip(windowed(rgb, flow), everything(rgb, flow), strict=True):
            assert (difference(x, y) < 1e-12) == equal
    maps = torch.rand(2, 64, 8, 11)  # of 256x340: 2x5 windows of 7x7
    stream = windowed.appearance
    windows = torch.stack([stream.fc(maps[:, :, i : i + 7, j : j + 7].mean((2, 3))) for i in range(2) for j in range(5)])
    assert difference(stream.head(maps, 2)[0], windows.mean(0)) < 1e-13


def test_m22_parameter_counts() -> None:
    def count(model: nn.Module) -> int:
        return sum(parameter.numel() for parameter in model.parameters())

    config = STResNetConfig(num_classes=101)
    with torch.device("meta"):
        assert count(SingleStream(replace(config, num_classes=1000), "appearance")) == 25_557_032
        assert count(SingleStream(config, "appearance")) == 23_714_981
        assert count(SingleStream(config, "motion")) == 23_768_293
        model = STResNet(config)
        assert count(STResNet(replace(config, num_classes=51))) == 58_419_494
        assert count(STResNet(replace(config, temporal_pool=True))) == 58_624_394
        for stages, added in (((2,), 16_384), ((5,), 1_048_576), ((2, 4), 16_384 + 262_144)):
            assert count(STResNet(replace(config, temporal_stages=stages))) == 47_483_274 + 2 * 2 * 2 * added
        assert count(STResNet(replace(config, temporal_convolution=False))) == 47_483_274
    assert (count(model.appearance), count(model.motion), count(model)) == (29_285_541, 29_338_853, 58_624_394)


@pytest.mark.parametrize(("depth", "plain"), [(50, resnet50), (101, resnet101), (152, resnet152)])
def test_m22_every_depth_has_torchvisions_parameters_and_what_time_and_flow_add(depth: int, plain: Any) -> None:
    def count(model: nn.Module) -> int:
        return sum(parameter.numel() for parameter in model.parameters())

    config = STResNetConfig(num_classes=101, depth=depth)
    with torch.device("meta"):
        expected = count(plain(num_classes=101))
        assert count(SingleStream(config, "appearance")) == expected
        assert count(SingleStream(config, "motion")) == expected + 64 * 17 * 7 * 7
        # Two more taps in both 1x1 convolutions of unit b, whose sizes do not depend on the depth, in four stages and two streams.
        assert count(STResNet(config)) == 2 * expected + 64 * 17 * 7 * 7 + 2 * 5_570_560


# -- formats, precisions, errors ---------------------------------------------------------------------------------------------------


def test_channels_last_computes_the_same() -> None:
    model = network(temporal_pool=True)
    rgb, flow = clips(2, 6)
    expected = model(rgb, flow)
    model = model.to(memory_format=torch.channels_last)
    inputs = (x.flatten(0, 1).contiguous(memory_format=torch.channels_last).view(x.shape) for x in (rgb, flow))
    for x, y in zip(model(*inputs), expected, strict=True):
        assert difference(x, y) < 1e-12


def test_bfloat16_autocast_stays_close() -> None:
    torch.set_default_dtype(torch.float32)
    model = network(temporal_pool=True)
    rgb, flow = clips(1, 6)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(rgb, flow)
    for x, y in zip(logits, model(rgb, flow), strict=True):
        assert difference(x.float(), y) < 0.1


@pytest.mark.slow
def test_compiles_without_a_graph_break() -> None:
    model = network(stage_units=(2, 2, 2, 2), temporal_pool=True)
    rgb, flow = clips(1, 6)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    for x, y in zip(compiled(rgb, flow), model(rgb, flow), strict=True):
        assert difference(x, y) < 1e-12


def test_motion_dropout_acts_in_training_on_the_motion_stream_only() -> None:
    model = network(motion_dropout=0.8, injection="none", temporal_convolution=False)
    rgb, flow = clips(1, 2)
    expected = model(rgb, flow)
    for module in model.modules():
        module.training = not isinstance(module, nn.BatchNorm2d)
    logits = model(rgb, flow)
    assert torch.equal(logits.appearance, expected.appearance)
    assert difference(logits.motion, expected.motion) > 0.1


@pytest.mark.parametrize(
    ("rgb", "flow"),
    [
        ((2, 3, 64, 64), (2, 5, 20, 64, 64)),
        ((2, 5, 4, 64, 64), (2, 5, 20, 64, 64)),
        ((2, 5, 3, 64, 64), (2, 5, 10, 64, 64)),
        ((2, 5, 3, 64, 64), (2, 4, 20, 64, 64)),
        ((2, 0, 3, 64, 64), (2, 0, 20, 64, 64)),
        ((2, 5, 3, 64, 64), (2, 5, 20, 64, 32)),
    ],
)
def test_clips_of_another_shape_are_refused(rgb: tuple[Any, ...], flow: tuple[Any, ...]) -> None:
    with pytest.raises(ParameterError, match="got"):
        network()(torch.zeros(rgb), torch.zeros(flow))
    with pytest.raises(ParameterError, match="stream must be"):
        SingleStream(SMALL, "flow")


def test_the_offset_of_rgb_is_subtracted_before_conv1_and_leaves_flow_alone() -> None:
    offset = (-0.5, 0.25, 1.0)
    plain, moved = network(), network(rgb_offset=offset)
    moved.load_state_dict(plain.state_dict())
    rgb, flow = torch.randn(1, 3, 3, 64, 64), torch.randn(1, 3, 20, 64, 64)
    with torch.inference_mode():
        expected = plain(rgb - torch.tensor(offset)[:, None, None], flow)
        for one, other in zip(moved(rgb, flow), expected, strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (65, 90), (33, 34)])
def test_the_first_max_pool_can_be_aligned_as_caffes(height: int, width: int) -> None:
    stream = network(stem_pool="ceil").appearance
    frames = torch.randn(2, 3, height, width)
    with torch.inference_mode():
        maps = torch.relu(stream.bn1(stream.conv1(frames)))
        padded = torch.nn.functional.pad(maps, (0, 1, 0, 1), value=-torch.inf)  # Caffe: nothing before, one after
        assert torch.equal(stream.stem(frames), torch.nn.functional.max_pool2d(padded, 3, stride=2))


def test_settings_of_converted_networks_are_checked_and_stored() -> None:
    config = STResNetConfig(num_classes=3, rgb_offset=[0, 1, -1], stem_pool="ceil", temporal_pool_stride=1)  # type: ignore[arg-type]
    assert STResNetConfig.from_dict(config.to_dict()) == config
    old = config.to_dict()
    for name in ("rgb_offset", "stem_pool", "temporal_pool_stride"):
        del old[name]
    assert STResNetConfig.from_dict(old) == STResNetConfig(num_classes=3)
    for wrong in ({"rgb_offset": (0, 0)}, {"rgb_offset": (0, 0, 6)}, {"rgb_offset": (0, 0, float("nan"))}, {"stem_pool": "other"}):
        with pytest.raises(ParameterError, match=next(iter(wrong))):
            STResNetConfig(num_classes=3, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="temporal_pool_stride"):
        STResNetConfig(num_classes=3, temporal_pool_stride=3)
