"""The first weights of networks: invariants M6, M19 and M20 of docs/invariants.md, files, refusals, random weights."""

from __future__ import annotations

import pickle
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import resnet50
from torchvision.models.resnet import Bottleneck, ResNet

from flowkit.errors import CheckpointError, ParameterError
from flowkit.model.foreign.backbones import find_backbone
from flowkit.model.foreign.state_dicts import PretrainedWeights, imagenet_shapes, pretrained_state
from flowkit.model.networks.layers.temporal_conv import inflate
from flowkit.model.networks.stresnet import SingleStream, STResNet
from flowkit.model.networks.weights import check_pretrained, initialise_from_streams, initialise_single_stream
from flowkit.model.settings.network import STResNetConfig

SMALL = STResNetConfig(num_classes=5, stage_units=(2, 2, 2, 2), base_width=4, input_size=64)
RESNET50 = STResNetConfig(num_classes=7)
WEIGHT_LIFTING = [422, 543]  # ImageNet's barbell and dumbbell
INFLATED = tuple(f"layer{k}.1.conv{i}.weight" for k in range(1, 5) for i in (1, 3))


pytestmark = pytest.mark.usefixtures("seeded")


@pytest.fixture(scope="module")
def torchvision_state() -> Any:
    """Return random weights under torchvision's 320 names."""
    with torch.device("meta"):
        model = resnet50()
    generator = torch.Generator().manual_seed(1)
    state = {name: torch.rand(value.shape, generator=generator).to(value.dtype) for name, value in model.state_dict().items()}
    assert len(state) == 320
    return state


def small_state(num_classes: int = 5, dtype: torch.dtype = torch.float32, **settings: Any) -> dict[str, torch.Tensor]:
    stream = SingleStream(replace(SMALL, num_classes=num_classes, **settings), "appearance").stream
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in stream.state_dict().items()}


# -- inflation and the mapping of streams ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_m6_taps_are_equal_and_add_up(dtype: Any) -> None:
    weight = torch.randn(6, 4, 1, 1, dtype=dtype)
    taps = inflate(weight, "average")
    assert taps.shape == (6, 4, 3, 1, 1)
    assert torch.equal(taps[:, :, 0], taps[:, :, 1])
    assert torch.equal(taps[:, :, 0], taps[:, :, 2])
    assert (taps.sum(2) - weight).abs().max() <= 4 * torch.finfo(dtype).eps
    centre = inflate(weight, "center")
    assert torch.equal(centre[:, :, 1], weight)
    assert not centre[:, :, ::2].any()


@pytest.mark.parametrize("stream", ["appearance", "motion"])
def test_m19_torchvisions_resnet50_maps_onto_both_streams(torchvision_state: Any, stream: str) -> None:
    with torch.device("meta"):
        model = SingleStream(RESNET50, stream)
    model.to_empty(device="cpu")
    done = initialise_single_stream(model, PretrainedWeights(torchvision_state, False, "torchvision"))
    own = model.stream.state_dict()
    assert set(own) == set(torchvision_state)
    changed = {name for name, value in own.items() if not torch.equal(value, torchvision_state[name])}
    assert changed == {"fc.weight", "fc.bias"} | ({"conv1.weight"} if stream == "motion" else set())
    assert (done.new_classifier, done.cross_modality, done.inflated) == (True, stream == "motion", ())
    assert done.num_copied == 320 - len(changed)
    assert "new classifier" in str(done)
    assert 0.0095 < own["fc.weight"].std() < 0.0105
    assert not own["fc.bias"].any()


def test_m19_a_classifier_of_the_correct_size_is_kept() -> None:
    state = small_state()
    model = SingleStream(SMALL, "appearance")
    done = initialise_single_stream(model, PretrainedWeights(state, False, "file"))
    assert torch.equal(model.stream.fc.weight, state["fc.weight"])
    assert not done.new_classifier
    assert done.num_copied == len(state)


def test_m20_flow_filters_are_the_mean_over_rgb_without_rescaling() -> None:
    state = small_state()
    motion, appearance = SingleStream(SMALL, "motion"), SingleStream(SMALL, "appearance")
    for model in (motion, appearance):
        initialise_single_stream(model, PretrainedWeights(state, False, "file"))
    weight = motion.stream.conv1.weight
    assert weight.shape == (4, 20, 7, 7)
    for channel in range(20):
        torch.testing.assert_close(weight[:, channel], state["conv1.weight"].mean(1))
    plane = torch.randn(1, 1, 32, 32)
    torch.testing.assert_close(
        motion.stream.conv1(plane.expand(1, 20, -1, -1)), 20 / 3 * appearance.stream.conv1(plane.expand(1, 3, -1, -1)), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("temporal_init", ["average", "center"])
def test_m19_base_streams_load_with_their_classifiers(temporal_init: str) -> None:
    config = replace(SMALL, temporal_init=temporal_init)
    streams = [SingleStream(config, name) for name in ("appearance", "motion")]
    for stream in streams:
        nn.init.normal_(stream.stream.fc.bias)
    model = STResNet(config)
    reports = initialise_from_streams(model, *(stream.state_dict() for stream in streams))
    for stream, report in zip(streams, reports, strict=True):
        assert report.inflated == INFLATED
        assert (report.new_classifier, report.cross_modality) == (False, False)
        for name, value in stream.state_dict().items():
            expected = inflate(value, temporal_init) if name.partition(".")[2] in INFLATED else value
            assert torch.equal(model.state_dict()[name], expected), name


def test_m19_saved_and_loaded_networks_give_equal_logits(tmp_path: Path) -> None:
    model = STResNet(SMALL).eval()
    torch.save(model.state_dict(), tmp_path / "model.pt")
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    rgb, flow = torch.randn(1, 3, 3, 64, 64), torch.randn(1, 3, 20, 64, 64)
    for name in ("model.pt", "model.safetensors"):
        other = STResNet(SMALL).eval()
        other.load_state_dict(pretrained_state(tmp_path / name).state)
        for x, y in zip(model(rgb, flow), other(rgb, flow), strict=True):
            assert torch.equal(x, y)


def without(state: Any, name: str) -> dict[Any, Any]:
    return {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: without(s, "layer2.1.bn2.weight"), "1 missing .layer2.1.bn2.weight"),
        (lambda s: without(s, "layer2.1.bn2.num_batches_tracked"), "1 missing"),
        (lambda s: {**s, "layer1.7.conv1.weight": torch.zeros(1)}, "8, 2, 2, 2 units, and this network's have 2, 2, 2, 2"),
        (lambda s: {**s, "layer1.0.se.weight": torch.zeros(1)}, "1 unexpected .layer1.0.se.weight"),
        (lambda s: {}, "missing"),
        (
            lambda s: {**s, "layer1.0.conv2.weight": torch.zeros(8, 8, 3, 3)},
            r"layer1.0.conv2.weight has shape \(8, 8, 3, 3\).*\(4, 4, 3, 3\)",
        ),
        (lambda _: small_state(base_width=8), r"conv1.weight has shape \(8, 3, 7, 7\), this network's has \(4, 3, 7, 7\).*--base-width 8"),
        (lambda _: small_state(stage_units=(2, 3, 2, 2)), "2, 3, 2, 2 units"),
    ],
)
def test_m19_anything_else_is_refused_and_nothing_is_written(change: Callable[..., Any], words: str) -> None:
    model = SingleStream(SMALL, "appearance")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=words):
        initialise_single_stream(model, PretrainedWeights(change(small_state(num_classes=9)), False, "weights.pt"))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_m19_base_streams_of_other_classes_or_the_wrong_stream_are_refused() -> None:
    appearance, motion = (SingleStream(SMALL, name).state_dict() for name in ("appearance", "motion"))
    with pytest.raises(CheckpointError, match=r"fc.weight has shape \(5, 128\)"):
        initialise_from_streams(STResNet(replace(SMALL, num_classes=6)), appearance, motion)
    with pytest.raises(CheckpointError, match="the appearance stream does not hold"):
        initialise_from_streams(STResNet(SMALL), motion, appearance)
    rgb_in_motion = {name.replace("appearance.", "motion."): value for name, value in appearance.items()}
    with pytest.raises(
        CheckpointError, match=r"its conv1 takes 3 channels \(RGB\), and this stream's takes 20 channels \(10 flow fields\)"
    ):
        initialise_from_streams(STResNet(SMALL), appearance, rgb_in_motion)


def test_files_older_than_the_batch_counters_load() -> None:
    state = {name: value for name, value in small_state().items() if not name.endswith("num_batches_tracked")}
    model = SingleStream(SMALL, "appearance")
    initialise_single_stream(model, PretrainedWeights(state, False, "old.pth"))
    assert torch.equal(model.stream.layer4[1].conv3.weight, state["layer4.1.conv3.weight"])


# -- weights as other programs leave them ---------------------------------------------------------------------------------------


def prefixed(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in state.items()}


def body(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state.items() if not name.startswith("fc.")}


HEAD = {"head.weight": torch.zeros(3, 3)}
OTHER_FILES: dict[str, tuple[str, Callable[[dict[str, torch.Tensor]], Any]]] = {
    "a training checkpoint": (".pth.tar", lambda s: {"epoch": 90, "arch": "resnet50", "state_dict": s, "optimizer": {"state": {}}}),
    "DataParallel": (".pth", lambda s: {"state_dict": prefixed(s, "module.")}),
    "torch.compile": (".pt", lambda s: prefixed(s, "_orig_mod.")),
    "Lightning": (".ckpt", lambda s: {"state_dict": prefixed(s, "model."), "global_step": 7}),
    "OpenMMLab": (".pth", lambda s: {"meta": {}, "state_dict": {**prefixed(body(s), "backbone."), **HEAD}}),
    "an encoder": (".bin", lambda s: {"model": prefixed(body(s), "encoder.")}),
    "MoCo": (
        ".pth.tar",
        lambda s: {"state_dict": {**prefixed(s, "module.encoder_q."), **prefixed(s, "module.encoder_k."), "module.queue": torch.zeros(9)}},
    ),
    "no classifier": (".pt", body),
    "a classifier of another name": (".pt", lambda s: {"model_state_dict": {**body(s), "fc_action.weight": torch.zeros(9, 128)}}),
    "a classifier of another kind": (".pt", lambda s: {**body(s), "fc.0.weight": torch.zeros(9, 128), "fc.weight": torch.zeros(9, 1)}),
}


@pytest.mark.parametrize("kind", OTHER_FILES)
@pytest.mark.parametrize("stream", ["appearance", "motion"])
def test_weights_are_read_as_other_programs_save_them(tmp_path: Path, kind: str, stream: str) -> None:
    suffix, wrap = OTHER_FILES[kind]
    state = small_state(num_classes=9)
    path = tmp_path / f"weights{suffix}"
    torch.save(wrap(state), path)
    model = SingleStream(SMALL, stream)
    done = initialise_single_stream(model, pretrained_state(path))
    loaded = model.stream.state_dict()
    assert done.new_classifier
    assert done.cross_modality == (stream == "motion")
    for name, value in body(state).items():
        if name != "conv1.weight" or stream == "appearance":
            assert torch.equal(loaded[name], value), name
    assert not loaded["fc.bias"].any()


def test_what_was_not_read_of_a_larger_model_is_named() -> None:
    found = find_backbone({**prefixed(small_state(), "module.backbone."), "module.head.weight": torch.zeros(1)}, "weights.pth")
    assert str(found) == "the network under 'module.backbone.'; not read: module.head.weight"
    assert str(find_backbone(small_state(), "weights.pth")) == ""


@pytest.mark.parametrize(
    ("stream", "change", "words"),
    [
        (
            "motion",
            lambda s: {**s, "conv1.weight": torch.zeros(4, 10, 7, 7)},
            r"its conv1 takes 10 channels \(5 flow fields\), and this stream's takes 20 channels \(10 flow fields\)",
        ),
        (
            "appearance",
            lambda s: {**s, "conv1.weight": torch.zeros(4, 20, 7, 7)},
            r"its conv1 takes 20 channels \(10 flow fields\), and this stream's takes 3 channels \(RGB\)",
        ),
        ("motion", lambda s: {**s, "conv1.weight": torch.zeros(4, 1, 7, 7)}, r"its conv1 takes 1 channels?, and"),
        (
            "appearance",
            lambda s: {name: value for name, value in s.items() if "conv3" not in name},
            "basic blocks of ResNet-18 or ResNet-34",
        ),
        ("appearance", lambda s: {**s, "layer1.1.conv1.weight": torch.zeros(4, 16, 3, 1, 1)}, "extends over 3 frames"),
        ("appearance", lambda s: {**prefixed(s, "appearance."), **prefixed(s, "motion.")}, "2 networks, under 'appearance.' and 'motion.'"),
        ("appearance", lambda s: {"features.0.weight": torch.zeros(1)}, "holds no ResNet.*features.0.weight"),
        ("appearance", lambda s: {**s, "conv1.weight": s["conv1.weight"][:, :, :5, :5]}, r"conv1.weight has shape \(4, 3, 5, 5\)"),
    ],
)
def test_what_does_not_fit_is_said_in_terms_of_the_file(stream: str, change: Callable[..., Any], words: str) -> None:
    with pytest.raises(CheckpointError, match=f"weights.pth.*{words}"):
        initialise_single_stream(SingleStream(SMALL, stream), PretrainedWeights(change(small_state()), False, "weights.pth"))


def test_the_depth_of_a_file_is_named_with_the_option(torchvision_state: Any) -> None:
    with torch.device("meta"):
        model = SingleStream(replace(RESNET50, depth=101), "appearance")
    with pytest.raises(CheckpointError, match=r"3, 4, 6, 3 \(ResNet-50\) units.*3, 4, 23, 3 \(ResNet-101\); choose --depth 50"):
        check_pretrained(model, torchvision_state, "weights.pth")
    assert {name: value.shape for name, value in imagenet_shapes(50).items()} == {n: value.shape for n, value in torchvision_state.items()}


# -- chance ------------------------------------------------------------------------------------------------------------------------


def test_random_weights_are_he_initialised_and_repeatable() -> None:
    config = replace(SMALL, base_width=16)
    states = []
    for seed in (3, 3, 4):
        model = SingleStream(config, "motion")
        done = initialise_single_stream(model, None, generator=torch.Generator().manual_seed(seed))
        states.append(model.state_dict())
    assert done.source == "random weights"
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert not torch.equal(states[0]["motion.conv1.weight"], states[2]["motion.conv1.weight"])
    weight = states[0]["motion.layer4.1.conv2.weight"]  # (128, 128, 3, 3)
    assert weight.std() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)
    assert states[0]["motion.fc.weight"].std() == pytest.approx(0.01, rel=0.1)
    assert bool((states[0]["motion.bn1.weight"] == 1).all())


def test_a_new_network_starts_as_its_inflated_per_frame_network() -> None:
    model = STResNet(replace(SMALL, base_width=16))
    taps = model.motion.layer4[1].conv1.weight
    assert torch.equal(taps[:, :, 0], taps[:, :, 2])
    assert taps.sum(2).std().item() == pytest.approx((2 / 128) ** 0.5, rel=0.02)


# -- files -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["pt", "pth", "safetensors"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_files_are_read_in_full_precision(tmp_path: Path, suffix: str, dtype: Any) -> None:
    path = tmp_path / f"weights.{suffix}"
    state = small_state(dtype=dtype)
    torch.save(state, path) if suffix != "safetensors" else save_file(state, path)
    weights = pretrained_state(path)
    assert weights.stride_in_1x1 is False
    assert set(weights.state) == set(state)
    expected = torch.float64 if dtype == torch.float64 else torch.float32
    assert all(value.dtype == expected for value in weights.state.values() if value.is_floating_point())
    assert torch.equal(weights.state["conv1.weight"], state["conv1.weight"].to(expected))


def test_the_stride_is_read_from_the_file_and_contradictions_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "caffe.safetensors"
    save_file(small_state(), path, metadata={"stride_in_1x1": "true"})
    assert pretrained_state(path).stride_in_1x1 is True
    assert pretrained_state(path, stride_in_1x1=True).stride_in_1x1 is True
    with pytest.raises(ParameterError, match=r"stride_in_1x1=False contradicts .*caffe.safetensors"):
        pretrained_state(path, stride_in_1x1=False)
    with pytest.raises(ParameterError, match="the network has stride_in_1x1=False"):
        initialise_single_stream(SingleStream(SMALL, "appearance"), pretrained_state(path))
    save_file(small_state(), path)  # if the file does not say, the caller does
    assert pretrained_state(path, stride_in_1x1=True).stride_in_1x1 is True
    save_file(small_state(), path, metadata={"stride_in_1x1": "yes"})
    with pytest.raises(CheckpointError, match="stride_in_1x1='yes'"):
        pretrained_state(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tensor: tensor.to_sparse(), "is sparse"),
        (lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8), "is quantised"),
        (lambda tensor: tensor.to(torch.complex64), "is complex"),
    ],
)
@pytest.mark.filterwarnings("ignore")  # torch's own, about such tensors
def test_tensors_that_are_no_plain_arrays_are_refused_by_name(tmp_path: Path, change: Any, said: str) -> None:
    path = tmp_path / "odd.pt"
    state = small_state()
    torch.save({**state, "conv1.weight": change(state["conv1.weight"])}, path)
    with pytest.raises(CheckpointError, match=rf"odd.pt: its tensor 'conv1.weight' {said}"):
        pretrained_state(path)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("conv1.weight", float("nan"), "holds NaN or infinity"),
        ("layer1.0.bn1.running_mean", float("inf"), "holds NaN or infinity"),
        ("bn1.running_var", -1.0, "negative variances"),
        ("conv1.weight", 1, "whole numbers"),
    ],
)
def test_weights_with_values_that_no_training_leaves_are_refused_before_training(name: str, value: Any, said: str) -> None:
    state = small_state()
    changed = {**state, name: torch.full(state[name].shape, value)}
    with pytest.raises(CheckpointError, match=rf"w.pt: {name} holds .*{said.rsplit(maxsplit=1)[-1]}"):
        check_pretrained(SingleStream(SMALL, "appearance"), changed, "w.pt")


class Poison:
    """A pickle that writes a file when it runs."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))], ids=["torch.save", "pickle"])
def test_a_poisoned_pickle_is_refused_in_one_line_and_not_run(tmp_path: Path, save: Any) -> None:
    path, trace = tmp_path / "poisoned.pt", tmp_path / "trace"
    save({"conv1.weight": Poison(str(trace))}, path)
    with pytest.raises(CheckpointError, match=r"poisoned.pt: refused.*nothing in it was run") as caught:
        pretrained_state(path)
    assert len(str(caught.value).splitlines()) == 1
    assert not trace.exists()


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_damaged_files_are_refused_in_one_line(tmp_path: Path, suffix: str) -> None:
    whole, path = tmp_path / f"whole.{suffix}", tmp_path / f"damaged.{suffix}"
    torch.save(small_state(), whole) if suffix == "pt" else save_file(small_state(), whole)
    content = whole.read_bytes()
    for damaged in (b"", b"not weights at all", content[: len(content) // 2], content[:20]):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=f"damaged.{suffix}") as caught:
            pretrained_state(path)
        assert len(str(caught.value).splitlines()) == 1


def test_files_that_are_no_state_dict_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no such weights file; .*--weights FILE.*--weights none"):
        pretrained_state(tmp_path / "absent.pt")
    (tmp_path / "weights.onnx").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"must be a \.safetensors file, one of PyTorch .* or a \.mat of MatConvNet"):
        pretrained_state(tmp_path / "weights.onnx")
    for number, value in enumerate(([torch.zeros(1)], {"epoch": 3}, {1: torch.zeros(1)})):
        path = tmp_path / f"{number}.pt"
        torch.save(value, path)
        with pytest.raises(CheckpointError, match="does not hold a state dict"):
            pretrained_state(path)


# -- ImageNet ----------------------------------------------------------------------------------------------------------------------


def test_imagenet_comes_from_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torchvision_state: Any) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub" / "checkpoints" / "resnet50-0676ba61.pth"  # where torchvision keeps its download
    cached.parent.mkdir(parents=True)
    torch.save(torchvision_state, cached)
    weights = pretrained_state("imagenet")
    assert weights.stride_in_1x1 is False
    assert weights.source == "torchvision's ResNet50_Weights.IMAGENET1K_V1"
    assert torch.equal(weights.state["conv1.weight"], torchvision_state["conv1.weight"])
    with pytest.raises(ParameterError, match="stride_in_1x1=True contradicts torchvision's"):
        pretrained_state("imagenet", stride_in_1x1=True)
    cached.write_bytes(cached.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="could not get"):
        pretrained_state("imagenet")


def test_without_a_network_the_alternatives_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def unreachable(request: pytest.FixtureRequest, *_args: Any, **_kwargs: Any) -> None:
        asked.append(request.full_url)
        raise URLError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    monkeypatch.setattr("torch.hub.urlopen", unreachable)
    for depth in (50, 101, 152):
        with pytest.raises(CheckpointError, match=r"no route to host.*--weights FILE, or --weights none") as caught:
            pretrained_state("imagenet", depth)
        assert len(str(caught.value).splitlines()) == 1
        assert f"resnet{depth}-" in asked[-1]
    with pytest.raises(ParameterError, match="50, 101, 152"):
        pretrained_state("imagenet", 34)


@pytest.mark.slow
def test_genuine_imagenet_weights_are_those_of_a_resnet50_with_stride_in_the_first_1x1(shared_data: Path) -> None:
    path = shared_data / "weights" / "resnet50_imagenet_v1_fp16.safetensors"
    weights = pretrained_state(path, 50)
    assert weights.stride_in_1x1 is True
    model = SingleStream(replace(RESNET50, num_classes=1000, stride_in_1x1=True), "appearance").eval()
    assert not initialise_single_stream(model, weights).new_classifier
    plain = resnet50().eval()
    for layer in (plain.layer2, plain.layer3, plain.layer4):
        layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
    plain.load_state_dict(weights.state)
    frames = real_frames(shared_data)
    misplaced = SingleStream(replace(RESNET50, num_classes=1000), "appearance").eval()
    misplaced.load_state_dict(model.state_dict())
    with torch.no_grad():
        logits, expected = model(frames[:, None])[:, 0], plain(frames)
        right, wrong = (net(frames[:, None])[:, 0].softmax(1)[:, WEIGHT_LIFTING].sum(1).mean().item() for net in (model, misplaced))
    assert (logits - expected).norm() <= 1e-5 * expected.norm()
    assert right > 0.3
    assert wrong < 0.1


def real_frames(shared_data: Path) -> torch.Tensor:
    """Return the first frames of the BenchPress clips, normalised as the weights require: (5, 3, 224, 224)."""
    import av

    frames = []
    for path in sorted((shared_data / "videos" / "ucf101" / "BenchPress").glob("*.avi")):
        with av.open(str(path)) as container:
            frames.append(torch.from_numpy(next(container.decode(video=0)).to_ndarray(format="rgb24")).permute(2, 0, 1))
    pixels = nn.functional.interpolate(torch.stack(frames) / 255, size=(224, 224), mode="bilinear", antialias=True)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1)


def test_bottlenecks_are_named_as_torchvisions() -> None:
    plain = ResNet(Bottleneck, [2, 2, 2, 2], num_classes=5)
    assert set(small_state()) == set(plain.state_dict())
