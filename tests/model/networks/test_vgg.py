"""VGG streams: sizes and numbers of parameters, two independent oracles, the sliding head, groups, first weights, refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import vgg16
from torchvision.models.vgg import VGG, make_layers

from flowkit.errors import CheckpointError, ParameterError
from flowkit.model.foreign.backbones import find_backbone
from flowkit.model.foreign.state_dicts import PretrainedWeights, imagenet_shapes
from flowkit.model.networks.layers.dropout import GroupedDropout
from flowkit.model.networks.resnet import set_groups
from flowkit.model.networks.transfer import with_classes
from flowkit.model.networks.vgg import FLOW_GAIN, VggSingleStream, VggStream, vgg_stream, without_mean_flow
from flowkit.model.networks.weights import check_pretrained, initialise_single_stream
from flowkit.model.settings.vgg import VggConfig

NARROW = VggConfig(num_classes=5, width=1 / 16, input_size=64)
KINDS: Any = pytest.mark.parametrize("kind", ["vgg-m", "vgg-16"])
STREAMS: Any = pytest.mark.parametrize("stream", ["appearance", "motion"])

pytestmark = pytest.mark.usefixtures("seeded")


def narrow(kind: Any = "vgg-m", stream: Any = "appearance", **settings: Any) -> VggSingleStream:
    """Return a narrow network in float64 whose biases and classifier are not zero."""
    network = VggSingleStream(replace(NARROW, kind=kind, **settings), stream).double().eval()
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.1)
    nn.init.normal_(network.stream.fc.weight)
    return network


def frames(stream: str, *shape: int) -> torch.Tensor:
    *batch, height, width = shape
    return torch.randn(*batch, 3 if stream == "appearance" else 20, height, width, dtype=torch.float64)


def difference(x: torch.Tensor, y: torch.Tensor) -> float:
    assert x.shape == y.shape
    return float(((x - y).norm() / y.norm()).detach())


# -- sizes -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "stream", "count"),
    [
        ("vgg-m", "appearance", 90_627_813),
        ("vgg-m", "motion", 90_707_781),
        ("vgg-16", "appearance", 134_674_341),
        ("vgg-16", "motion", 134_684_133),
    ],
)
def test_the_numbers_of_parameters_are_the_published_ones(kind: Any, stream: Any, count: int) -> None:
    with torch.device("meta"):
        network = VggSingleStream(VggConfig(num_classes=101, kind=kind), stream)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def test_the_maps_of_vgg_m_have_the_sizes_of_caffe() -> None:
    assert VggConfig(num_classes=101).sides(224) == (109, 54, 26, 13, 13, 13, 13, 6)
    assert VggConfig(num_classes=101, kind="vgg-16").sides(224)[-1] == 7
    assert VggConfig(num_classes=101, kind="vgg-16").sides(340)[-4:] == (22, 22, 22, 11)  # 85 -> 43 -> 22 -> 11, rounded up


@KINDS
@pytest.mark.parametrize("size", [64, 65, 97, 224, 227])
def test_the_sizes_of_the_settings_are_those_of_the_network(kind: Any, size: int) -> None:
    stream = vgg_stream(replace(NARROW, kind=kind), "appearance")
    found = []
    for layer in stream.features:
        if isinstance(layer, (nn.Conv2d, nn.MaxPool2d)):
            layer.register_forward_hook(lambda _m, _i, out: found.append(out.shape[-1]))
    stream.pool(stream.maps(torch.zeros(1, 3, 64, size)))
    assert tuple(found) == stream.config.sides(size)


@pytest.mark.parametrize(("kind", "smallest"), [("vgg-m", 41), ("vgg-16", 32)])
def test_the_smallest_input_is_that_of_which_every_layer_makes_a_pixel(kind: Any, smallest: int) -> None:
    with pytest.raises(ParameterError, match=f"input_size must be a whole number of {smallest} to 4096 for {kind}"):
        replace(NARROW, kind=kind, input_size=smallest - 1)
    with torch.device("meta"):
        network = VggSingleStream(replace(NARROW, kind=kind, input_size=smallest), "motion")
        assert network(torch.zeros(1, 1, 20, smallest, smallest)).shape == (1, 1, 5)
        if smallest > 32:
            with pytest.raises(RuntimeError, match="Output size is too small"):
                network.stream.pool(network.stream.maps(torch.zeros(1, 20, smallest - 1, smallest - 1)))


# -- oracles -----------------------------------------------------------------------------------------------------------------------


def test_vgg_16_is_torchvisions() -> None:
    config = replace(NARROW, kind="vgg-16", input_size=224, num_classes=7)
    ours = VggStream(config, 3).eval()
    nn.init.normal_(ours.fc.weight)
    plan: list[str | int] = [4, 4, "M", 8, 8, "M", 16, 16, 16, "M", 32, 32, 32, "M", 32, 32, 32, "M"]
    theirs = VGG(make_layers(plan), num_classes=7, init_weights=False).eval()  # type: ignore[arg-type]
    for place, (before, after) in {0: (32 * 49, 256), 3: (256, 256), 6: (256, 7)}.items():
        theirs.classifier[place] = nn.Linear(before, after)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, 224, 224)
    assert difference(ours(x), theirs(x)) < 1e-5


def written_out(network: VggSingleStream, image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Compute the logits of one image by NumPy alone: sums over windows, channels and positions as the papers have them."""
    state = {name.split(".", 1)[1]: value.numpy() for name, value in network.state_dict().items()}
    config, maps = network.config, image
    numbers = iter(sorted(int(name.split(".")[1]) for name in state if name.startswith("features") and name.endswith("weight")))
    num_lrn = 0
    for layer in config.layers:
        if layer.kind == "conv":
            number = next(numbers)
            weight, bias = state[f"features.{number}.weight"], state[f"features.{number}.bias"]
            padded = np.pad(maps, ((0, 0), *((layer.padding, layer.padding),) * 2))
            windows = np.lib.stride_tricks.sliding_window_view(padded, (layer.kernel, layer.kernel), axis=(1, 2))
            maps = np.einsum("chwij,ocij->ohw", windows[:, :: layer.stride, :: layer.stride], weight) + bias[:, None, None]
            maps = np.maximum(maps, 0)
        elif layer.kind == "lrn":
            num_lrn += 1
            if num_lrn == 2 and network.stream_name == "motion":
                continue
            size, alpha, beta, k = config.lrn
            sums = np.array([(maps[max(c - size // 2, 0) : c + size // 2 + 1] ** 2).sum(0) for c in range(len(maps))])
            maps = maps / (k + alpha / size * sums) ** beta
        else:  # every window that begins inside the map
            rows, columns = (range(0, side - layer.kernel + layer.stride, layer.stride) for side in maps.shape[1:])
            maps = np.array([[[m[i : i + layer.kernel, j : j + layer.kernel].max() for j in columns] for i in rows] for m in maps])
    window = config.head_window
    logits = []
    for i in range(maps.shape[1] - window + 1):
        for j in range(maps.shape[2] - window + 1):
            x = maps[:, i : i + window, j : j + window].ravel()
            for place in (0, 3, 6):
                x = state[f"classifier.{place}.weight"] @ x + state[f"classifier.{place}.bias"]
                x = np.maximum(x, 0) if place < 6 else x
            logits.append(x)
    return np.mean(logits, axis=0)


@KINDS
@STREAMS
@pytest.mark.parametrize("size", [(64, 64), (70, 101)])
def test_equals_the_layers_written_out_on_crops_and_on_larger_frames(kind: Any, stream: Any, size: Any) -> None:
    network = narrow(kind, stream, lrn=(5, 0.5, 0.75, 1.5))
    clips = frames(stream, 1, 2, *size)
    with torch.no_grad():
        logits = network(clips)
    for frame in range(2):
        expected = torch.from_numpy(written_out(network, clips[0, frame].numpy()))
        assert difference(logits[0, frame], expected) < 1e-12


def test_the_normalisation_divides_alpha_by_its_size() -> None:
    x = torch.rand(1, 7, 1, 1, dtype=torch.float64) * 50
    stream = VggStream(NARROW, 3)
    (first, second) = [layer for layer in stream.features if isinstance(layer, nn.LocalResponseNorm)]
    sums = torch.stack([(x[:, max(c - 2, 0) : c + 3] ** 2).sum(1) for c in range(7)], 1)
    for layer in (first, second):
        assert difference(layer(x), x / (2 + 1e-4 * sums) ** 0.75) < 1e-12


def test_the_motion_network_has_no_second_normalisation_and_the_same_names() -> None:
    appearance, motion = (vgg_stream(NARROW, stream) for stream in ("appearance", "motion"))  # type: ignore[arg-type]
    counts = [sum(isinstance(layer, nn.LocalResponseNorm) for layer in stream.features) for stream in (appearance, motion)]
    assert counts == [2, 1]
    assert list(appearance.state_dict()) == list(motion.state_dict())


# -- invariants --------------------------------------------------------------------------------------------------------------------


@KINDS
def test_frames_and_clips_do_not_meet(kind: Any) -> None:
    network, clips = narrow(kind), frames("appearance", 2, 3, 64, 70)
    with torch.no_grad():
        together = network(clips)
        for clip, frame in ((0, 0), (1, 2)):
            assert difference(together[clip, frame], network(clips[clip : clip + 1, frame : frame + 1])[0, 0]) < 1e-12


@KINDS
def test_the_offset_is_subtracted_from_rgb_and_never_from_flow(kind: Any) -> None:
    offset = (0.3, -0.2, 0.1)
    for stream in ("appearance", "motion"):
        plain, shifted = narrow(kind, stream), narrow(kind, stream, rgb_offset=offset)
        shifted.load_state_dict(plain.state_dict())
        clips = frames(stream, 1, 1, 64, 64)
        moved = clips - torch.tensor(offset, dtype=torch.float64)[:, None, None] if stream == "appearance" else clips
        with torch.no_grad():
            assert torch.equal(shifted(clips), plain(moved))


@KINDS
def test_checkpointing_changes_no_gradient(kind: Any) -> None:
    plain = narrow(kind)
    lean = VggSingleStream(plain.config, "appearance", checkpoint_activations=True).double().eval()
    lean.load_state_dict(plain.state_dict())
    clips = frames("appearance", 1, 2, 64, 64)
    for network in (plain, lean):
        network(clips).square().sum().backward()
    for (name, ours), theirs in zip(plain.named_parameters(), lean.parameters(), strict=True):
        assert ours.grad is not None
        assert torch.equal(ours.grad, theirs.grad), name  # type: ignore[arg-type]


def test_the_features_are_the_input_of_the_classifier() -> None:
    network, clips = narrow(), frames("appearance", 2, 1, 70, 64)
    (layer,) = network.classifiers.values()
    seen: list[torch.Tensor] = []
    layer.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        logits = network(clips)
        assert seen[0].shape == (2, network.config.hidden[1])
        assert torch.equal(logits[:, 0], F.linear(seen[0], layer.weight, layer.bias))
    assert network.streams == tuple(network.classifiers) == ("appearance",)


# -- dropout -----------------------------------------------------------------------------------------------------------------------


def test_groups_of_a_batch_drop_what_they_would_drop_alone() -> None:
    network = narrow(dropout=(0.9, 0.5)).train()
    clips, seeds = frames("appearance", 6, 2, 64, 64), [7, 8, 9]
    alone = []
    for seed, part in zip(seeds, clips.chunk(3), strict=True):
        set_groups(network, [seed])
        torch.manual_seed(seed)
        alone.append(network(part))
    set_groups(network, seeds)
    together = network(clips)
    assert difference(together, torch.cat(alone)) < 1e-12
    set_groups(network, seeds)
    assert torch.equal(network(clips), together)
    set_groups(network, [1, 2, 3])
    assert difference(network(clips), together) > 1e-3


def test_the_second_dropout_is_not_the_first_one_again() -> None:
    first, second = GroupedDropout(0.5).train(), GroupedDropout(0.5).train()
    pair = nn.Sequential(first, second)
    set_groups(pair, [3, 4])
    x = torch.ones(2, 1000)
    kept = [first(x) > 0, second(x) > 0]
    for group in range(2):
        both = (kept[0][group] & kept[1][group]).float().mean()
        assert 0.2 < both < 0.3
    assert not torch.equal(kept[0][0], kept[0][1])
    assert torch.equal(pair.eval()(x), x)


# -- first weights -----------------------------------------------------------------------------------------------------------------


@KINDS
@STREAMS
def test_random_weights_keep_the_size_of_a_signal(kind: Any, stream: Any) -> None:
    network = VggSingleStream(replace(NARROW, kind=kind, width=1 / 8), stream).eval()
    done = initialise_single_stream(network, None, generator=torch.Generator().manual_seed(3))
    assert str(done) == "random weights: 0 tensors copied"
    state = {name: value.clone() for name, value in network.state_dict().items()}
    initialise_single_stream(network, None, generator=torch.Generator().manual_seed(3))
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    seen: list[torch.Tensor] = []
    network.stream.fc.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    # Smooth, as pictures are: the maxima of white noise grow with every pool. Flow is smaller than RGB.
    coarse = torch.randn(8, 3, 8, 8) if stream == "appearance" else torch.randn(8, 20, 8, 8) / FLOW_GAIN
    network(F.interpolate(coarse, size=(64, 64), mode="bilinear")[None])
    assert 0.2 < float(seen[0].detach().std()) < 5


@STREAMS
def test_the_further_layers_of_vgg_16_begin_near_the_identity(stream: Any) -> None:
    layers = [layer for layer in vgg_stream(replace(NARROW, kind="vgg-16", width=1 / 8), stream).features if isinstance(layer, nn.Conv2d)]
    kept = [layer for layer in layers if layer.in_channels == layer.out_channels]
    assert len(kept) == 9
    for layer in kept:
        x = torch.rand(2, layer.in_channels, 16, 16)
        assert 0.1 < difference(layer(x), x) < 0.6  # He's weights alone give 1.7


def test_the_first_convolution_is_larger_for_flow() -> None:
    for kind in ("vgg-m", "vgg-16"):
        spread = [
            float(vgg_stream(VggConfig(num_classes=5, kind=kind), stream).conv1.weight.detach().std())
            for stream in ("appearance", "motion")
        ]  # type: ignore[arg-type]
        assert spread[1] / spread[0] == pytest.approx(FLOW_GAIN * (3 / 20) ** 0.5, rel=0.05)


def test_torchvisions_weights_start_both_streams() -> None:
    shapes = imagenet_shapes(kind="vgg-16")
    with torch.device("meta"):
        assert {n: v.shape for n, v in shapes.items()} == {n: v.shape for n, v in vgg16(init_weights=False).state_dict().items()}
        for stream in ("appearance", "motion"):
            check_pretrained(VggSingleStream(VggConfig(num_classes=101, kind="vgg-16"), stream), shapes, "imagenet")  # type: ignore[arg-type]


@KINDS
def test_motion_filters_are_the_mean_over_rgb_and_classes_are_new(kind: Any) -> None:
    source = narrow(kind, num_classes=9).stream.state_dict()
    larger = {f"module.{name}": value for name, value in source.items()} | {"head.weight": torch.zeros(1)}
    motion = VggSingleStream(replace(NARROW, kind=kind), "motion").double()
    done = initialise_single_stream(motion, PretrainedWeights(larger, False, "file"))
    assert done.cross_modality
    assert done.new_classifier
    assert done.num_copied == len(source) - 3
    own = motion.stream.state_dict()
    for channel in range(20):
        assert torch.allclose(own["features.0.weight"][:, channel], source["features.0.weight"].mean(1), rtol=0, atol=1e-15)
    assert float(own["classifier.6.bias"].abs().max()) == 0
    same = VggSingleStream(replace(NARROW, kind=kind, num_classes=9), "appearance").double()
    done = initialise_single_stream(same, PretrainedWeights(source, False, "file"))
    assert not done.cross_modality
    assert not done.new_classifier
    assert all(torch.equal(value, source[name]) for name, value in same.stream.state_dict().items())


def test_weights_of_another_network_are_refused_in_one_line() -> None:
    network = VggSingleStream(NARROW, "appearance")
    good = VggSingleStream(NARROW, "appearance").stream.state_dict()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    for change, message in {
        "without a layer": (lambda s: s.pop("classifier.3.weight"), "1 missing"),
        "a layer more": (lambda s: s.update({"features.99.weight": torch.zeros(1)}), "1 unexpected"),
        "wider": (lambda s: s.update({"features.4.weight": torch.zeros(17, 6, 5, 5)}), "has shape"),
        "no such network": (lambda s: s.pop("features.0.weight"), "holds no VGG network: features.0.weight is missing"),
    }.values():
        state = dict(good)
        change(state)
        with pytest.raises(CheckpointError, match=message) as caught:
            initialise_single_stream(network, PretrainedWeights(state, False, "weights.pt"))
        assert "\n" not in str(caught.value)
        with pytest.raises(CheckpointError, match=message):
            check_pretrained(network, state, "weights.pt")
    with pytest.raises(CheckpointError, match="holds no ResNet"):
        find_backbone(good, "weights.pt")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_state_for_other_classes_keeps_or_draws_the_classifier() -> None:
    state = VggSingleStream(NARROW, "motion").state_dict()
    classes = ["a", "b", "c", "d", "e"]
    moved = with_classes(state, classes, classes[::-1])
    assert torch.equal(moved["motion.classifier.6.weight"], state["motion.classifier.6.weight"].flip(0))
    drawn = with_classes(state, classes, [*classes, "f"])
    assert drawn["motion.classifier.6.weight"].shape[0] == drawn["motion.classifier.6.bias"].shape[0] == 6
    assert torch.equal(drawn["motion.classifier.3.weight"], state["motion.classifier.3.weight"])


# -- refusals ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        *({"num_classes": value} for value in (0, 2.0, True)),
        *({"kind": value} for value in ("vgg-19", None)),
        *({"width": value} for value in (0, 1.5, float("nan"), "1")),
        *({"input_size": value} for value in (31, 5000, 64.0)),
        *({"dropout": value} for value in ((0.5,), (0.5, 1), 0.5, (-0.1, 0), ())),
        *({"rgb_offset": value} for value in ((0, 0), (0, 0, 9), None)),
        *({"lrn": value} for value in ((4, 1, 1, 1), (5.0, 1, 1, 1), (5, 0, 1, 1), (5, 1, 1), None)),
    ],
    ids=str,
)
def test_settings_that_make_no_network_are_refused(settings: Any) -> None:
    (name,) = settings
    with pytest.raises(ParameterError, match=f"^{name} must be "):
        replace(NARROW, **settings)


@KINDS
def test_settings_survive_json(kind: Any) -> None:
    import json

    config = replace(NARROW, kind=kind, dropout=(0.9, 0.8), rgb_offset=(0.1, 0, 0))
    assert VggConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(ParameterError, match="unknown network settings: depth"):
        VggConfig.from_dict({**config.to_dict(), "depth": 50})
    with pytest.raises(ParameterError, match="incomplete"):
        VggConfig.from_dict({"kind": kind})


@STREAMS
def test_clips_of_the_wrong_shape_are_refused(stream: Any) -> None:
    network, channels = VggSingleStream(NARROW, stream), 3 if stream == "appearance" else 20
    for shape in ((1, 2, 23 - channels, 64, 64), (1, 0, channels, 64, 64), (2, channels, 64, 64), (1, 1, channels, 63, 64)):
        with pytest.raises(ParameterError, match="takes clips of shape"):
            network(torch.zeros(shape))
    with pytest.raises(ParameterError, match="appearance or motion"):
        VggSingleStream(NARROW, "rgb")  # type: ignore[arg-type]


def test_without_its_mean_a_field_does_not_depend_on_a_constant_displacement() -> None:
    flow = torch.randn(3, 4, 20, 9, 7, dtype=torch.float64)
    shift = torch.randn(3, 4, 20, 1, 1, dtype=torch.float64)
    clean = without_mean_flow(flow)
    assert torch.allclose(without_mean_flow(flow + shift), clean, rtol=0, atol=1e-12)
    assert float(clean.mean((-2, -1)).abs().max()) < 1e-12
    assert torch.allclose(without_mean_flow(flow.flip(-1)), clean.flip(-1), rtol=0, atol=1e-12)
    assert float(without_mean_flow(torch.ones(2, 20, 5, 5)).abs().max()) == 0


def test_a_motion_network_without_mean_does_not_see_a_constant_displacement_and_frames_stay_as_they_are() -> None:
    clips, shift = torch.randn(2, 3, 20, 64, 70, dtype=torch.float64), torch.randn(2, 3, 20, 1, 1, dtype=torch.float64)
    config = VggConfig(num_classes=4, width=0.05, input_size=64)
    state = VggSingleStream(config, "motion").double().state_dict()
    differences = {}
    for without_mean in (True, False):
        made = VggSingleStream(replace(config, without_mean=without_mean), "motion").double().eval()
        made.load_state_dict(state)
        with torch.no_grad():
            differences[without_mean] = float((made(clips + shift) - made(clips)).abs().max())
    assert differences[True] < 1e-9 < 1e-6 < differences[False]
    rgb = torch.randn(1, 2, 3, 64, 64, dtype=torch.float64)
    made = VggSingleStream(replace(config, without_mean=True), "appearance").double().eval()
    other = VggSingleStream(config, "appearance").double().eval()
    other.load_state_dict(made.state_dict())
    with torch.no_grad():
        assert torch.equal(made(rgb), other(rgb))
