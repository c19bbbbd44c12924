"""The flow method ``raft``: equal to torchvision's network on padded frames, with weights that are found by their digest."""

from __future__ import annotations

import builtins
import json
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_lines import run_flowkit
from hostile_pickles import Payload
from small_videos import write_video
from torchvision.models.optical_flow import raft_large, raft_small
from torchvision.transforms._presets import OpticalFlow

from flowkit import ExtractSettings, FlowMethod, ShardReader, compute_flow
from flowkit.errors import CheckpointError, DeviceError, FlowkitError, ParameterError
from flowkit.extraction.sample import read_sample
from flowkit.flow import methods
from flowkit.model.foreign import raft_weights
from flowkit.model.networks import raft
from flowkit.model.networks.raft import RAFT
from flowkit.model.runs.recorded_extraction import with_solver
from flowkit.video.decode import read_frames


@pytest.fixture(autouse=True)
def own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture(scope="module")
def network() -> Any:
    torch.manual_seed(0)
    return raft_small(weights=None).eval()


@pytest.fixture
def weights(network: Any, tmp_path: Path) -> Path:
    torch.save(network.state_dict(), tmp_path / "raft.pth")
    return tmp_path / "raft.pth"


def noise(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


def of_torchvision(network: Any, frames: Any, updates: int) -> Any:
    """Return the flow of torchvision's network on frames whose border is repeated up to multiples of 8."""
    height, width = frames.shape[1:3]
    more = -height % 8, -width % 8
    top, left = (number // 2 for number in more)
    padded = np.pad(frames, ((0, 0), (top, more[0] - top), (left, more[1] - left), (0, 0)), mode="edge")
    images = torch.from_numpy(padded).permute(0, 3, 1, 2)
    with torch.inference_mode():
        flow = [network(*OpticalFlow()(images[[k]], images[[k + 1]]), num_flow_updates=updates)[-1] for k in range(len(frames) - 1)]
    return torch.cat(flow)[:, :, top : top + height, left : left + width].numpy()


@pytest.mark.parametrize("size", [(128, 128), (130, 145)])
def test_the_flow_is_exactly_torchvision_s_on_padded_frames(network: Any, weights: Path, size: tuple[int, int]) -> None:
    frames = noise(3, *size, 3)
    params: dict[str, Any] = {"size": "small", "weights": str(weights), "updates": 3}
    flow = compute_flow(frames, method="raft", params=params)
    assert (flow.dtype, flow.shape) == (np.float32, (2, 2, *size))
    np.testing.assert_array_equal(flow, of_torchvision(network, frames, 3))
    np.testing.assert_array_equal(flow[1:], compute_flow(frames[1:], method="raft", params=params))  # whatever comes before


def test_grey_frames_are_taken_as_frames_of_three_equal_colours(network: Any, weights: Path) -> None:
    grey = noise(2, 128, 136)
    flow = compute_flow(grey, method="raft", params={"size": "small", "weights": str(weights), "updates": 1})
    np.testing.assert_array_equal(flow, of_torchvision(network, grey[..., None].repeat(3, axis=3), 1))


def test_the_weights_are_recorded_by_their_digest_and_found_by_it(weights: Path, tmp_path: Path) -> None:
    method = FlowMethod.named("raft", size="small", weights=str(weights), device="cpu")
    digest = raft_weights.file_sha256(weights)
    assert method.params == {"size": "small", "updates": 12, "weights": f"sha256:{digest}", "device": "cpu"}
    weights.unlink()
    frames = noise(2, 128, 128, 3)
    assert method.flows(frames).shape == (1, 2, 128, 128)
    assert FlowMethod.named("raft", **method.params) == method
    (kept,) = (tmp_path / "cache" / "flowkit" / "raft").iterdir()
    kept.write_bytes(kept.read_bytes()[:-1] + b"x")
    raft._networks.key = None
    with pytest.raises(CheckpointError, match="its digest is another one"):
        method.flows(frames)
    kept.unlink()
    with pytest.raises(ParameterError, match="not on this machine; give a file with --method-param weights=FILE"):
        method.flows(frames)


def test_safetensors_and_training_checkpoints_are_read(network: Any, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file(state, tmp_path / "raft.safetensors")
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "raft.ckpt")
    frames = noise(2, 128, 128, 3)
    flows = [
        compute_flow(frames, method="raft", params={"size": "small", "weights": str(tmp_path / name), "updates": 1})
        for name in ("raft.safetensors", "raft.ckpt")
    ]
    np.testing.assert_array_equal(flows[0], flows[1])
    np.testing.assert_array_equal(flows[0], of_torchvision(network, frames, 1))


def test_torchvision_s_weights_are_found_where_it_keeps_them(network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models.optical_flow import Raft_Small_Weights

    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(network.state_dict(), folder / "new.pth")
    digest = raft_weights.file_sha256(folder / "new.pth")
    (folder / "new.pth").rename(folder / f"raft_small-{digest[:8]}.pth")

    class Default:
        url = f"https://example.org/raft_small-{digest[:8]}.pth"

    monkeypatch.setattr(raft_weights, "_of_torchvision", lambda size: Default)
    assert RAFT(size="small", device="cpu").weights == f"sha256:{digest}"
    assert RAFT("small", 1, f"sha256:{digest}", "cpu").flows(noise(2, 128, 128, 3)).shape == (1, 2, 128, 128)
    monkeypatch.undo()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))

    def offline(self: Any, *args: Any, **kwargs: Any) -> Any:
        raise OSError("no network")

    monkeypatch.setattr(Raft_Small_Weights, "get_state_dict", offline)
    with pytest.raises(CheckpointError, match=r"could not get .*no network.*--method-param weights=FILE"):
        RAFT(size="small")


def test_files_that_are_no_weights_are_refused(network: Any, tmp_path: Path) -> None:
    state = network.state_dict()
    first = next(iter(state))
    files: dict[str, Any] = {
        "large.pth": (raft_large(weights=None).state_dict(), "does not hold the state of torchvision's raft_small"),
        "shape.pth": ({**state, first: torch.zeros(3)}, "other names or shapes"),
        "nan.pth": ({**state, first: state[first] * np.nan}, "NaN or infinity"),
        "code.pth": ({"state": Payload(tmp_path / "ran")}, "nothing in it was run"),
    }
    for name, (value, told) in files.items():
        torch.save(value, tmp_path / name)
        with pytest.raises(CheckpointError, match=told):
            RAFT(size="small", weights=str(tmp_path / name))
    assert not (tmp_path / "ran").exists()
    (tmp_path / "torn.pth").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match="damaged"):
        RAFT(size="small", weights=str(tmp_path / "torn.pth"))
    for wrong in ("none.pth", str(tmp_path), "sha256:12"):
        with pytest.raises(ParameterError, match="weights of raft must be"):
            RAFT(size="small", weights=wrong)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("params", "told"), [({"size": "tiny"}, "large or small"), ({"updates": 0}, "from 1"), ({"device": "cuda:1"}, "CUDA_VISIBLE")]
)
def test_parameters_out_of_range_are_refused(params: dict[str, Any], told: str) -> None:
    with pytest.raises(ParameterError, match=told):
        RAFT(**params)


def test_small_frames_are_refused(weights: Path) -> None:
    with pytest.raises(ParameterError, match="raft needs frames of at least 128 px per side, got 200x127"):
        compute_flow(noise(2, 127, 200, 3), method="raft", params={"size": "small", "weights": str(weights)})


def test_without_torch_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    find = builtins.__import__

    def without_torch(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
        return find(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "flowkit.model.networks.raft")
    monkeypatch.setattr(builtins, "__import__", without_torch)
    methods._class_of.cache_clear()
    with pytest.raises(ParameterError, match=r"'raft' needs the package torch, which is not installed: .* -m pip install torch"):
        FlowMethod.named("raft")
    assert "raft" in methods.method_names()
    methods._class_of.cache_clear()


def test_a_gpu_without_memory_takes_fewer_pairs_at_once_and_else_only_the_video_fails(
    network: Any, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = RAFT("small", 1, str(weights), "cpu")
    frames, sizes = noise(6, 128, 128, 3), []

    class Small(torch.nn.Module):
        def __init__(self, most: int) -> None:
            super().__init__()
            self.most = most

        def forward(self, first: Any, second: Any, *, num_flow_updates: int) -> Any:
            sizes.append(len(first))
            if len(first) > self.most:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return network(first, second, num_flow_updates=num_flow_updates)

    monkeypatch.setattr(raft, "PAIRS_ON_CPU", 4)  # as if it were a GPU
    batches = raft.FittingBatches("use a smaller --short-side")
    monkeypatch.setattr(RAFT, "_network", lambda self: (Small(2), batches))
    flow = method.flows(frames)
    assert sizes == [4, 2, 2, 1]
    np.testing.assert_allclose(flow, of_torchvision(network, frames, 1), atol=1e-3)
    monkeypatch.setattr(RAFT, "_network", lambda self: (Small(0), raft.FittingBatches("use a smaller --short-side")))
    with pytest.raises(FlowkitError, match=r"128x128 px: the GPU has too little memory left.*smaller --short-side") as caught:
        method.flows(frames)
    assert not isinstance(caught.value, DeviceError)


def test_threads_do_not_disturb_one_another(network: Any, weights: Path) -> None:
    method = FlowMethod.named("raft", size="small", weights=str(weights), updates=1, device="cpu")
    frames = noise(4, 128, 128, 3)
    found: dict[int, Any] = {}
    threads = [threading.Thread(target=lambda k=k: found.update({k: method.flows(frames[k : k + 2])})) for k in range(3)]  # type: ignore[misc]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(np.concatenate([found[k] for k in range(3)]), of_torchvision(network, frames, 1))


def test_a_network_of_a_gpu_s_flow_can_be_used_without_one(weights: Path) -> None:
    here = FlowMethod.named("raft", size="small", weights=str(weights), device="cpu")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    of_gpu = FlowMethod("raft", {**here.params, "device": "cuda"})
    settings = ExtractSettings(short_side=128, method=of_gpu)
    used, note = with_solver(settings, "auto", "cpu")
    assert used.method == here
    assert "device is cpu here, and was cuda" in note
    with pytest.raises(DeviceError, match="no CUDA device"):
        of_gpu.solver()


@pytest.mark.usefixtures("kept_workers")
def test_extraction_takes_the_frames_before_jpeg_and_records_the_weights(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    video = write_video(tmp_path / "videos" / "class" / "v.avi", 4, width=140, height=132)
    (tmp_path / "videos" / "class" / "broken.avi").write_bytes(b"RIFF")
    options = ("--short-side", 128, "--method", "raft", "--method-param", "size=small", "--method-param", "updates=1", "--device", "cpu")
    command = ("extract", "videos", "--jobs", 1, *options, "--method-param", f"weights={weights.name}")
    ended = run_flowkit(*command)
    assert (ended.code, "1 done, 0 skipped, 1 failed" in ended.out) == (3, True), ended
    digest = f"sha256:{raft_weights.file_sha256(weights)}"
    recorded = {"name": "raft", "size": "small", "updates": 1, "weights": digest, "device": "cpu"}
    assert json.loads(Path("flowkit-data/dataset.json").read_text())["settings"]["method"] == recorded
    frames = np.concatenate([batch.frames for batch in read_frames(video, short_side=128)])
    settings = ExtractSettings(short_side=128, method=FlowMethod.from_dict(recorded))
    due = settings.quantiser.encode(compute_flow(frames, method="raft", params=settings.method.params))  # type: ignore[union-attr]
    with ShardReader(Path("flowkit-data/clips/class/v.h5")) as reader:
        clip = reader.clip("class/v")
        assert clip.attributes.method == recorded
        np.testing.assert_array_equal(clip.flow(0, 3), due)
    np.testing.assert_array_equal(read_sample(video, frames=[1], fields=[0, 2], settings=settings, num_threads=2)[1], due[[0, 2]])
    weights.rename("moved.pth")
    again = run_flowkit("extract", "videos", "--jobs", 1, *options, "--method-param", "weights=moved.pth")
    assert "1 skipped" in again.out, again
    torch.manual_seed(1)
    torch.save(raft_small(weights=None).state_dict(), "other.pth")
    other = run_flowkit("extract", "videos", "--jobs", 1, *options, "--method-param", "weights=other.pth")
    assert (other.code, f"raft weights: {digest}, not sha256:" in other.err) == (1, True), other
    small = run_flowkit("extract", "videos", "--data", "new", *options[2:], "--short-side", 127, "--method-param", "weights=other.pth")
    assert (small.code, "raft needs frames of at least 128 px per side" in small.err) == (1, True), small
    assert not Path("new").exists()
