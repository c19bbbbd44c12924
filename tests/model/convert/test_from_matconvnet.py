"""The ST-ResNet authors' files: a converted network computes what an interpreter of the stored graph computes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_lines import call_flowkit
from dagnn_files import Graph, resnet, row, run, stored, two_streams
from matlab_files import write_v5, write_v73

from flowkit.errors import CheckpointError, ParameterError
from flowkit.files import file_sha256
from flowkit.model.convert.from_matconvnet import convert_matconvnet, fold_inputs, read_class_names
from flowkit.model.convert.network_files import write_safetensors
from flowkit.model.data.transforms import input_normalisation
from flowkit.model.foreign.class_lists import CLASS_LISTS
from flowkit.model.foreign.matconvnet import read_matconvnet
from flowkit.model.networks.stresnet import SingleStream, STResNet
from flowkit.model.runs.checkpoint import load_checkpoint
from flowkit.model.runs.trained_network import load_network

SHARED = Path(__file__).parents[4] / "shared"
RGB_MEAN, FLOW_MEAN = np.array([122.7, 114.9, 101.6]), np.full(20, 128.0)
NAMES = tuple("abcde")
KINDS: dict[str, tuple[Callable[[], Graph], Any]] = {
    "appearance": (lambda: resnet(3, seed=1), RGB_MEAN + np.zeros((4, 5, 3))),
    "appearance, torchvision's pool": (lambda: resnet(3, seed=1, pool1="same"), RGB_MEAN.reshape(1, 1, 3)),
    "motion": (lambda: resnet(20, seed=2, dropout=0.8), FLOW_MEAN.reshape(1, 1, 20)),
    "numbered units": (lambda: resnet(3, seed=3, numbered=True), RGB_MEAN.reshape(1, 1, 3)),
    "st-resnet": (lambda: two_streams("st-resnet"), np.concatenate([FLOW_MEAN, RGB_MEAN]).reshape(1, 1, 23)),
    "st-resnet-star": (lambda: two_streams("st-resnet-star"), np.concatenate([FLOW_MEAN, RGB_MEAN]).reshape(1, 23)),
    "st-mulnet": (lambda: two_streams("st-mulnet"), np.concatenate([FLOW_MEAN, RGB_MEAN]).reshape(1, 1, 23)),
    "st-mulnet, numbered units": (lambda: two_streams("st-mulnet", numbered=True), np.concatenate([FLOW_MEAN, RGB_MEAN]).reshape(1, 1, 23)),
}
WRITERS: dict[str, Callable[[Path, dict[str, Any]], Path]] = {
    "v5": lambda path, variables: write_v5(path, variables, compress=False),
    "v7": write_v5,
    "v7.3": write_v73,
}


def write(path: Path, name: str, *, writer: str = "v7", change: Callable[[Graph], None] | None = None) -> tuple[Path, Graph]:
    make, mean = KINDS[name]
    graph = make()
    if change is not None:
        change(graph)
    variables = {"net": stored(graph, mean), "state": {"solverState": ()}, "stats": row(1)}
    return WRITERS[writer](path, variables), graph


def expected_and_computed(network: Any, graph: Graph, *, height: int, width: int, dtype: torch.dtype) -> tuple[list[Any], list[Any]]:
    """Return logits by the interpreter, averaged over positions, and by flowkit's network, for the same bytes."""
    draw = np.random.default_rng(4)
    num_clips, num_frames = 1, 5 if isinstance(network, STResNet) else 2
    rgb = draw.integers(0, 256, (num_clips, num_frames, 3, height, width)).astype(np.float64)
    flow = draw.integers(0, 256, (num_clips, num_frames, 20, height, width)).astype(np.float64)
    constants = input_normalisation()
    mean, std = (255 * np.array(constants["rgb"][key]) for key in ("mean", "std"))
    normal_rgb = torch.from_numpy((rgb - mean[:, None, None]) / std[:, None, None]).to(dtype)
    normal_flow = torch.from_numpy((flow - 128) / constants["flow"]["std"]).to(dtype)
    frames = {"rgb": rgb.reshape(-1, 3, height, width), "flow": flow.reshape(-1, 20, height, width)}
    with torch.inference_mode():
        if isinstance(network, STResNet):
            inputs = {"input": frames["rgb"] - RGB_MEAN[:, None, None].astype("f4"), "input_flow": frames["flow"] - 128}
            values = run(graph, inputs, num_frames)
            outputs = [values["fc1000_spatial"], values["fc1000_temporal"]]
            computed = list(network(normal_rgb, normal_flow))
        else:
            stream = network.stream_name
            given = frames["rgb"] - RGB_MEAN[:, None, None].astype("f4") if stream == "appearance" else frames["flow"] - 128
            outputs = [run(graph, {"input": given}, num_frames)["fc1000"]]
            computed = [network(normal_rgb if stream == "appearance" else normal_flow)]
    return [output.mean((2, 3)) for output in outputs], [logits.flatten(0, 1).double().numpy() for logits in computed]


def slow_but(*quick: str) -> list[Any]:
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in KINDS]


@pytest.mark.parametrize("name", slow_but("st-resnet-star"))
@pytest.mark.parametrize(("height", "width"), [(224, 224), pytest.param(256, 340, marks=pytest.mark.slow)])
def test_before_its_weights_are_rounded_a_converted_network_gives_the_logits_of_the_stored_graph(
    tmp_path: Path, name: str, height: int, width: int
) -> None:
    path, graph = write(tmp_path / "net.mat", name)
    converted = convert_matconvnet(path, classes=NAMES)
    found = read_matconvnet(path)
    state, _ = fold_inputs(found)
    config = converted.checkpoint.provenance.config
    network = (STResNet(config.network) if len(found.means) == 2 else SingleStream(config.network, next(iter(found.means)))).double().eval()
    network.load_state_dict(state)
    expected, computed = expected_and_computed(network, graph, height=height, width=width, dtype=torch.float64)
    for wanted, logits in zip(expected, computed, strict=True):
        assert np.abs(wanted - logits).max() < 1e-10 * np.abs(wanted).max()


@pytest.mark.parametrize("name", slow_but("st-mulnet"))
def test_files_of_all_versions_give_the_same_network(tmp_path: Path, name: str) -> None:
    first, *others = (read_matconvnet(write(tmp_path / f"{writer}.mat", name, writer=writer)[0]) for writer in WRITERS)
    for other in others:
        assert (other.settings, other.class_names, other.notes) == (first.settings, first.class_names, first.notes)
        for mine, theirs in ((first.state, other.state), (first.means, other.means)):
            assert mine.keys() == theirs.keys()
            assert all(np.array_equal(mine[key], theirs[key]) for key in mine)


@pytest.mark.parametrize("name", slow_but("st-mulnet"))
def test_a_converted_file_read_back_gives_the_logits_to_float32(tmp_path: Path, name: str) -> None:
    path, graph = write(tmp_path / "net.mat", name)
    write_safetensors(tmp_path / "out.safetensors", convert_matconvnet(path, classes=NAMES).checkpoint)
    network = load_network(tmp_path / "out.safetensors").double()
    expected, computed = expected_and_computed(network, graph, height=224, width=224, dtype=torch.float64)
    for wanted, logits in zip(expected, computed, strict=True):
        assert np.abs(wanted - logits).max() < 1e-6 * np.abs(wanted).max()


def test_the_record_says_what_the_authors_network_is(tmp_path: Path) -> None:
    path, _ = write(tmp_path / "net.mat", "st-resnet-star")
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
    path, _ = write(tmp_path / "net.mat", "st-mulnet")
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
    path, _ = write(tmp_path / "net.mat", "appearance")
    with pytest.raises(ParameterError, match="5 classes without names: give --data-set"):
        convert_matconvnet(path)
    with pytest.raises(ParameterError, match="5 classes, and ucf101 has 101"):
        convert_matconvnet(path, data_set="ucf101")
    with pytest.raises(ParameterError, match="5 classes, and the list of --classes has 2"):
        convert_matconvnet(path, classes=["a", "b"])
    with pytest.raises(ParameterError, match="twice"):
        convert_matconvnet(path, classes="abcda")


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
def test_a_simple_network_is_refused_by_that_name() -> None:
    with pytest.raises(CheckpointError, match="a SimpleNN of 4 layers"):
        convert_matconvnet(SHARED / "data" / "matconvnet" / "DCFNet-net-7-125-2.mat")


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
    path, _ = write(tmp_path / "net.mat", kind, change=change)
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
    path = write_v5(tmp_path / "net.mat", {"net": stored(KINDS[kind][0](), mean)})
    with pytest.raises(CheckpointError, match=why):
        convert_matconvnet(path, classes=NAMES)


def test_the_order_of_layers_in_the_file_and_names_without_parameters_do_not_matter(tmp_path: Path) -> None:
    path, _ = write(tmp_path / "net.mat", "st-resnet")
    straight = convert_matconvnet(path, classes=NAMES).checkpoint.network

    def shuffled(graph: Graph) -> None:
        np.random.default_rng(5).shuffle(graph.layers)  # type: ignore[arg-type]
        for number, layer in enumerate(graph.layers):
            if not layer["params"]:
                layer["name"] = f"layer{number}"

    path, _ = write(tmp_path / "shuffled.mat", "st-resnet", change=shuffled)
    other = convert_matconvnet(path, classes=NAMES).checkpoint.network
    assert straight.keys() == other.keys()
    assert all(torch.equal(straight[name], other[name]) for name in straight)


def test_the_command_converts_a_matlab_file_and_says_what_it_did(tmp_path: Path) -> None:
    path, _ = write(tmp_path / "net.mat", "st-mulnet")
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
