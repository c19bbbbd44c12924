"""The ST-ResNet authors' files: a converted network computes what an interpreter of the stored graph computes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_lines import call_flowkit, run_flowkit
from dagnn_files import FLOW_MEAN, IMAGENET_NAMES, KINDS, NAMES, RGB_MEAN, VERSIONS, Graph, row, run, stored, write_network
from matlab_files import write_v5

from flowkit.errors import CheckpointError, ParameterError
from flowkit.files import file_sha256
from flowkit.model.convert.from_matconvnet import convert_matconvnet, read_class_names
from flowkit.model.convert.network_files import write_safetensors
from flowkit.model.data.grey_level_inputs import fold_inputs
from flowkit.model.data.transforms import input_normalisation
from flowkit.model.foreign.class_lists import CLASS_LISTS
from flowkit.model.foreign.matconvnet import read_matconvnet
from flowkit.model.networks.stresnet import SingleStream, STResNet
from flowkit.model.runs.checkpoint import load_checkpoint
from flowkit.model.runs.trained_network import load_network

SHARED = Path(__file__).parents[4] / "shared"


def grey_levels(num_frames: int, channels: int, height: int, width: int) -> Any:
    return np.random.default_rng(channels).integers(0, 256, (num_frames, channels, height, width)).astype(np.float64)


def num_frames_of(network: Any) -> int:
    return 5 if isinstance(network, STResNet) else 2


def expected(network: Any, graph: Graph, *, height: int, width: int) -> list[Any]:
    """Return each stream's logits by the interpreter, averaged over positions."""
    num_frames = num_frames_of(network)
    given = {
        "appearance": grey_levels(num_frames, 3, height, width) - RGB_MEAN[:, None, None].astype("f4"),
        "motion": grey_levels(num_frames, 20, height, width) - 128,
    }
    if isinstance(network, STResNet):
        values = run(graph, {"input": given["appearance"], "input_flow": given["motion"]}, num_frames)
        outputs = [values["fc1000_spatial"], values["fc1000_temporal"]]
    else:
        outputs = [run(graph, {graph.layer("conv1")["inputs"][0]: given[network.stream_name]}, num_frames)["fc1000"]]
    return [output.mean((2, 3)) for output in outputs]


def computed(network: Any, *, height: int, width: int) -> list[Any]:
    """Return each stream's logits by a network of flowkit in float64, for the same grey levels."""
    num_frames, constants = num_frames_of(network), input_normalisation()
    mean, std = (255 * np.array(constants["rgb"][key])[:, None, None] for key in ("mean", "std"))
    rgb = torch.from_numpy((grey_levels(num_frames, 3, height, width) - mean) / std)[None]
    flow = torch.from_numpy((grey_levels(num_frames, 20, height, width) - 128) / constants["flow"]["std"])[None]
    with torch.inference_mode():
        if isinstance(network, STResNet):
            outputs = list(network(rgb, flow))
        else:
            outputs = [network(rgb if network.stream_name == "appearance" else flow)]
    return [logits.flatten(0, 1).numpy() for logits in outputs]


def slow_but(*quick: str) -> list[Any]:
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in KINDS]


@pytest.mark.parametrize("name", slow_but("st-resnet-star"))
@pytest.mark.parametrize(("height", "width"), [(224, 224), pytest.param(256, 340, marks=pytest.mark.slow)])
def test_a_converted_network_gives_the_logits_of_the_stored_graph(tmp_path: Path, name: str, height: int, width: int) -> None:
    """To 1e-10 before its weights are rounded to float32, and to 1e-6 when it is read back from its safetensors file."""
    path, graph = write_network(tmp_path / "net.mat", name)
    checkpoint = convert_matconvnet(path, classes=KINDS[name].class_names).checkpoint
    found = read_matconvnet(path)
    state, _ = fold_inputs(found)
    config = checkpoint.provenance.config
    exact = (STResNet(config.network) if len(found.means) == 2 else SingleStream(config.network, next(iter(found.means)))).double().eval()
    exact.load_state_dict(state)
    write_safetensors(tmp_path / "out.safetensors", checkpoint)
    rounded = load_network(tmp_path / "out.safetensors").double()
    wanted = expected(exact, graph, height=height, width=width)
    for network, tolerance in ((exact, 1e-10), (rounded, 1e-6)):
        for stream, logits in zip(wanted, computed(network, height=height, width=width), strict=True):
            assert np.abs(stream - logits).max() < tolerance * np.abs(stream).max()


@pytest.mark.parametrize("name", slow_but("st-mulnet"))
def test_files_of_all_versions_give_the_same_network(tmp_path: Path, name: str) -> None:
    first, *others = (read_matconvnet(write_network(tmp_path / f"{version}.mat", name, version=version)[0]) for version in VERSIONS)
    for other in others:
        assert (other.settings, other.class_names, other.notes) == (first.settings, first.class_names, first.notes)
        for mine, theirs in ((first.state, other.state), (first.means, other.means)):
            assert mine.keys() == theirs.keys()
            assert all(np.array_equal(mine[key], theirs[key]) for key in mine)


def test_a_network_for_imagenet_names_its_classes_itself(tmp_path: Path) -> None:
    path, _ = write_network(tmp_path / "net.mat", "ImageNet")
    assert convert_matconvnet(path).checkpoint.provenance.classes == IMAGENET_NAMES


def test_the_record_says_what_the_authors_network_is(tmp_path: Path) -> None:
    path, _ = write_network(tmp_path / "net.mat", "st-resnet-star")
    converted = convert_matconvnet(path, split=2, classes=NAMES)
    write_safetensors(tmp_path / "out.safetensors", converted.checkpoint)
    provenance = load_checkpoint(tmp_path / "out.safetensors").provenance
    assert provenance.config.phase == "st-resnet-star"
    assert (provenance.split, provenance.digest, provenance.classes) == (2, "", NAMES)
    assert provenance.quantiser == {"bound": 20.0, "mapping": "paper"}
    assert provenance.started_from == {"matconvnet": file_sha256(path)} == {"matconvnet": converted.sha256}
    network = provenance.config.network
    assert (network.units, network.base_width, network.stride_in_1x1) == ((3, 2, 2, 2), 4, True)
    assert (network.stem_pool, network.injection, network.injection_kind) == ("ceil", "residual", "additive")
    assert (network.temporal_pool, network.temporal_pool_position, network.temporal_pool_stride) == (True, "before_pool5", 2)
    constants = input_normalisation()["rgb"]
    wanted = (RGB_MEAN / 255 - constants["mean"]) / constants["std"]
    assert network.rgb_offset == pytest.approx(tuple(wanted), abs=1e-6)


def test_a_multiplying_network_pools_time_with_stride_one_and_says_what_was_folded(tmp_path: Path) -> None:
    path, _ = write_network(tmp_path / "net.mat", "st-mulnet")
    converted = convert_matconvnet(path, classes=NAMES)
    network = converted.checkpoint.provenance.config.network
    assert (network.injection_kind, network.temporal_pool_stride, network.motion_dropout) == ("multiplicative", 1, 0.8)
    assert sum("_Time is folded" in note for note in converted.notes) == 8


@pytest.mark.parametrize(("data_set", "list_name"), [("ucf101", "classInd.txt"), ("hmdb51", None)])
def test_the_class_lists_are_those_of_the_official_lists(data_set: str, list_name: str | None) -> None:
    names = CLASS_LISTS[data_set]
    folder = SHARED / "data" / "splits" / data_set
    if not folder.is_dir():
        pytest.skip("needs ../shared/data")
    if list_name:
        assert names == tuple(line.split()[1] for line in (folder / list_name).read_text().splitlines())
        return
    listed = sorted({path.name.split("_test_split")[0] for path in folder.glob("*_test_split1.txt")})
    assert sorted(names) == listed
    moved = {name: (position, listed.index(name)) for position, name in enumerate(names) if listed.index(name) != position}
    assert moved == {"kick_ball": (20, 21), "kick": (21, 20), "sword_exercise": (44, 45), "sword": (45, 44)}


def test_class_names_must_be_known_and_fit(tmp_path: Path) -> None:
    path, _ = write_network(tmp_path / "net.mat", "appearance")
    with pytest.raises(ParameterError, match="5 classes without names: give --data-set"):
        convert_matconvnet(path)
    with pytest.raises(ParameterError, match="5 classes, and ucf101 has 101"):
        convert_matconvnet(path, data_set="ucf101")
    with pytest.raises(ParameterError, match="5 classes, and the list of --classes has 2"):
        convert_matconvnet(path, classes=["a", "b"])
    with pytest.raises(ParameterError, match="twice"):
        convert_matconvnet(path, classes="abcda")


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
def test_the_genuine_simple_network_is_refused_by_what_it_lacks(tmp_path: Path) -> None:
    path, out = SHARED / "data" / "matconvnet" / "DCFNet-net-7-125-2.mat", tmp_path / "out.safetensors"
    code, _, said = run_flowkit("convert", path, out, "--data-set", "ucf101")
    assert code == 1
    assert f"{path}: it holds a network of 2 convolutions where a VGG network has 8 (vgg-m) or 16 (vgg-16)" in said
    assert said.count("\n") == 1
    assert not out.exists()


def set_block(name: str, /, **values: Any) -> Callable[[Graph], None]:
    def change(graph: Graph) -> None:
        graph.layer(name)["block"] |= values

    return change


def set_layer(name: str, /, **values: Any) -> Callable[[Graph], None]:
    def change(graph: Graph) -> None:
        graph.layer(name).update(values)

    return change


def set_param(name: str, change_values: Callable[[Any], Any]) -> Callable[[Graph], None]:
    def change(graph: Graph) -> None:
        graph.params[name] = change_values(graph.params[name].copy())

    return change


def with_value(index: tuple[int, ...], value: float) -> Callable[[Any], Any]:
    def change(values: Any) -> Any:
        values[index] = value
        return values

    return change


def twice_the_unit(graph: Graph) -> None:
    graph.layers.append(copy.deepcopy(graph.layer("res2c_relu")) | {"name": "again", "outputs": ("elsewhere",)})


def unused_param(graph: Graph) -> None:
    graph.params["left_over"] = np.zeros((2, 2), np.float32)


def without_layer(name: str) -> Callable[[Graph], None]:
    def change(graph: Graph) -> None:
        graph.layers.remove(graph.layer(name))

    return change


WRONG: dict[str, tuple[str, Callable[[Graph], None], str]] = {
    "a stride elsewhere": ("appearance", set_block("res3b_branch2b", stride=row(2, 2)), "res3b_branch2b.*stride"),
    "strides in both places": ("appearance", set_block("res3a_branch2b", stride=row(2, 2)), "res3a_branch2b.*stride"),
    "a padding that conv1 does not have": ("appearance", set_block("conv1", pad=row(3, 2, 3, 2)), "'conv1' has pad"),
    "a dilated convolution": ("appearance", set_block("res5a_branch2b", dilate=row(2, 2)), "dilate"),
    "a leaky ReLU": ("appearance", set_block("res2a_relu", leak=row(0.1)), "leaky"),
    "another first pool": ("appearance", set_block("pool1", pad=row(0, 0, 0, 0)), "pool1.*padded by"),
    "an average as the first pool": ("appearance", set_block("pool1", method="avg"), "pool1.*max pool"),
    "another last pool": ("appearance", set_block("pool5", poolSize=row(8, 8)), "pool5.*poolSize"),
    "an unknown type": ("appearance", set_layer("pool1", type="dagnn.LRN"), "type 'dagnn.LRN'"),
    "a type that is a call": ("appearance", set_layer("pool1", type="system('id')"), 'type "system'),
    "a unit that reads another variable": ("appearance", set_layer("res2b_branch2a", inputs=("pool1",)), "res2b_branch2a.*reads 'pool1'"),
    "a shortcut from elsewhere": ("appearance", set_layer("res2b", inputs=("pool1", "res2b_branch2cx")), "res2b.*adds 'pool1'"),
    "a sum of one thing twice": ("appearance", set_layer("res2b", inputs=("res2b_branch2cx", "res2b_branch2cx")), "res2b"),
    "a missing unit": ("appearance", set_layer("res2b_branch2a", name="res2e_branch2a"), "stage 2.*units"),
    "a missing layer": ("appearance", without_layer("res2b_relu"), "type ReLU read"),
    "two layers of one name": ("appearance", set_layer("res2b_relu", name="res2a_relu"), "2 layers called 'res2a_relu'"),
    "a variable written twice": ("appearance", set_layer("res2b_relu", outputs=("res2a_r",)), "2 layers that write variable"),
    "a layer beside the network": ("appearance", twice_the_unit, "type ReLU read the variable"),
    "a parameter that no layer uses": ("appearance", unused_param, "no layer uses parameter 'left_over'"),
    "a parameter that is missing": ("appearance", set_layer("res2a_branch2a", params=("absent",)), "'absent', which the file lacks"),
    "a parameter used twice": ("appearance", set_layer("res2b_branch2a", params=("res2c_branch2a_filter",)), "2 layers that use parameter"),
    "values that are not finite": ("appearance", set_param("conv1_filter", with_value((0, 0, 0, 0), np.nan)), "not finite"),
    "moments of an untrained network": ("appearance", set_param("bn_conv1_moments", with_value((0, 1), 0.0)), "not trained"),
    "a filter beyond float32 once it is scaled": ("motion", set_param("conv1_filter", with_value((0, 0, 0, 0), 3e38)), "conv1.*float32"),
    "a filter of another size": ("appearance", set_param("res2a_branch2b_filter", lambda v: v[:2]), "filter of 2x3"),
    "a filter of another width": ("appearance", set_param("res2a_branch2b_filter", lambda v: v[..., :2]), "has the shape 2x4x3x3"),
    "moments with three columns": ("appearance", set_param("bn_conv1_moments", lambda v: np.repeat(v, 2, 1)), "moments have a mean"),
    "a scale that is a matrix": ("appearance", set_param("bn_conv1_mult", lambda v: np.stack([v, v], 1)[..., 0]), "one number per channel"),
    "two different depths": ("st-resnet", without_layer("res2c_temporal"), "type Sum read"),
    "a pool over time with stride 3": ("st-resnet-star", set_block("pool_time_spatial", stride=row(1, 3)), "stride of 1 or 2"),
    "streams pooled differently": ("st-mulnet", set_block("pool_time_spatial", stride=row(1, 2)), "differ in their pooling over time"),
    "motion that enters after the ReLU": (
        "st-resnet",
        set_layer("res3a_relu_spatial_sum", inputs=("res3a_r_temporal", "res3a_r_spatial")),
        "res3a_relu_spatial_sum.*before its ReLU",
    ),
    "a sum in one stage and a product in another": ("st-resnet", set_layer("res3a_relu_spatial_sum", type="dagnn.Mul"), "different ways"),
    "a convolution over time in one stream": ("motion", set_layer("res2b_branch2a", type="dagnn.ConvTime"), "filter of 1x1|over time"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_network_with_another_structure_is_refused_in_a_line_that_names_the_place(tmp_path: Path, name: str) -> None:
    kind, change, why = WRONG[name]
    path, _ = write_network(tmp_path / "net.mat", kind, change=change)
    with pytest.raises(CheckpointError, match=why) as refused:
        convert_matconvnet(path, classes=NAMES)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


MEANS = {
    "RGB before flow": ("st-resnet", np.concatenate([RGB_MEAN, FLOW_MEAN]).reshape(1, 1, 23), "RGB stands first"),
    "a flow mean that is not 128": ("motion", np.full((1, 1, 20), 127.0), "is not 128"),
    "an RGB mean out of range": ("appearance", np.array([[[-1.0, 2, 3]]]), "within 0 to 255"),
    "two channels": ("appearance", np.ones((1, 1, 2)), "3 channels belong"),
    "no mean": ("appearance", np.zeros((0, 0)), "averageImage is missing"),
}


@pytest.mark.parametrize("name", MEANS)
def test_a_mean_that_does_not_fit_is_refused(tmp_path: Path, name: str) -> None:
    kind, mean, why = MEANS[name]
    path = write_v5(tmp_path / "net.mat", {"net": stored(KINDS[kind].graph(), mean)})
    with pytest.raises(CheckpointError, match=why):
        convert_matconvnet(path, classes=NAMES)


def test_the_order_of_layers_in_the_file_and_names_without_parameters_do_not_matter(tmp_path: Path) -> None:
    path, _ = write_network(tmp_path / "net.mat", "st-resnet")
    straight = convert_matconvnet(path, classes=NAMES).checkpoint.network

    def shuffled(graph: Graph) -> None:
        np.random.default_rng(5).shuffle(graph.layers)  # type: ignore[arg-type]
        for number, layer in enumerate(graph.layers):
            if not layer["params"]:
                layer["name"] = f"layer{number}"

    path, _ = write_network(tmp_path / "shuffled.mat", "st-resnet", change=shuffled)
    other = convert_matconvnet(path, classes=NAMES).checkpoint.network
    assert straight.keys() == other.keys()
    assert all(torch.equal(straight[name], other[name]) for name in straight)


def test_the_command_converts_a_matlab_file_and_says_what_it_did(tmp_path: Path) -> None:
    path, _ = write_network(tmp_path / "net.mat", "st-mulnet")
    (tmp_path / "classes.txt").write_text("".join(f"{number} {name}\n" for number, name in enumerate(NAMES, start=1)))
    out = tmp_path / "out.safetensors"
    _, said, noted = call_flowkit("convert", path, out, "--split", 3, "--classes", tmp_path / "classes.txt", code=0)
    assert said.startswith(f"wrote st-resnet-star of {path}, 5 classes")
    assert file_sha256(path) in noted
    provenance = load_checkpoint(out).provenance
    assert (provenance.split, provenance.classes) == (3, NAMES)
    _, said, _ = call_flowkit("convert", out, tmp_path / "again.safetensors", code=0)
    assert (tmp_path / "again.safetensors").read_bytes() == out.read_bytes()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a\nb c\n", ("a", "b c")),
        ("\ufeff1 a\r\n2 b\r\n", ("a", "b")),
        ("1 a\n3 b\n", None),
        ("", None),
        ("a\x1b[31m\n", None),
        ("7\n8\n", None),
    ],
)
def test_class_lists_are_names_one_a_line(tmp_path: Path, text: str, names: tuple[str, ...] | None) -> None:
    path = tmp_path / "classes.txt"
    path.write_text(text, newline="")
    if names is not None:
        assert read_class_names(path) == names
        return
    with pytest.raises(ParameterError, match="class"):
        read_class_names(path)
