"""C3D as a system: the network's own classifier, and a linear SVM on the mean of fc6."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_lines import call_flowkit
from training_runs import share_root

from flowkit.dataset.clips import ClipSource, find_clips
from flowkit.dataset.root import Dataset
from flowkit.errors import ParameterError
from flowkit.model.compute.execution import Execution
from flowkit.model.data.clip_frames import clip_frames
from flowkit.model.data.transforms import normalise_rgb, resized_rgb
from flowkit.model.data.whole_videos import WholeClip
from flowkit.model.networks.c3d import C3DNetwork
from flowkit.model.networks.phase_networks import stream_logits
from flowkit.model.runs.checkpoint import load_checkpoint
from flowkit.model.runs.trained_network import load_network
from flowkit.model.scoring import tested_networks
from flowkit.model.scoring.feature_files import FeatureFile
from flowkit.model.scoring.video_features import features

TINY = ("--recipe", "small", "--set", "width=0.03", "--set", "input_size=32", "--batch", 4, "--bn-group", 2, "--steps-per-phase", 1)
LIKE_THE_CODE = ("--set", "crop=uniform", "--set", "view=centre")  # as the recipe official has it


@pytest.fixture(scope="module")
def root(packed_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with the trained system. Treat it as read-only."""
    home = share_root(packed_root, tmp_path_factory.mktemp("c3d"))
    _, _, err = call_flowkit("train", "--system", "c3d", *TINY, *LIKE_THE_CODE, "--device", "cpu", "--data", home, code=0)
    assert "c3d-svm: a linear SVM on " in err
    return home


def test_the_svm_and_the_networks_classifier_have_rows(root: Path) -> None:
    told = json.loads(call_flowkit("evaluate", "--system", "c3d", "--device", "cpu", "--json", "--data", root, code=0)[1])
    (split,) = told["splits"]
    assert list(split["rows"]) == ["C3D classifier", "C3D"]
    protocol = json.loads((root / "reports/default/split1/results.json").read_text(encoding="utf-8"))["protocol"]
    assert "the centre of frames that are resized, of the size of training crops" in " ".join(protocol)
    assert set(split["svms"]) == {"c3d-svm"}
    told = json.loads(call_flowkit("compare", "--system", "c3d", "--device", "cpu", "--json", "--data", root, code=0)[1])
    assert told["rows"][0]["row"] == "C3D"
    assert told["rows"][0]["num_videos"] == split["rows"]["C3D"]["num_videos"]


def test_a_vector_is_the_mean_of_fc6_over_clips_8_frames_apart(root: Path) -> None:
    stored = FeatureFile(root / "features" / "default-split1-c3d-svm.h5")
    network = load_network(root / "runs/default/split1/c3d-appearance")
    assert isinstance(network, C3DNetwork)
    assert stored.provenance["layer"] == "fc6"
    video_id = stored.video_ids[0]
    with ClipSource(find_clips(root)) as clips:
        clip = clips.clip(video_id)
        seen = resized_rgb(clip.frames(slice(None)), (37, 49))[:, 2:34, 8:40]  # 128 x 171 px for crops of 112 px
        frames = normalise_rgb(torch.from_numpy(np.ascontiguousarray(seen)))
    places = clip_frames(len(frames), length=16, stride=8)
    with torch.inference_mode():
        expected = torch.stack([network.features(frames[place][None])[0, 0] for place in places]).mean(0)
    found = stored.read(video_id).arrays["appearance"]
    assert found.shape == (1, network.config.hidden)
    np.testing.assert_allclose(found[0], expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num_clips", [1, 5])
def test_any_number_of_clips_at_once_gives_the_same_scores(root: Path, monkeypatch: pytest.MonkeyPatch, num_clips: int) -> None:
    split, folder = Dataset.open(root).split(1), root / "runs/default/split1/c3d-appearance"
    draw = np.random.default_rng(0)
    videos = [
        WholeClip(
            draw.integers(0, 256, (16 * num_clips, 32, 32, 3), dtype=np.uint8),
            draw.integers(0, 256, (20, 2, 32, 32), dtype=np.uint8),
            draw.integers(0, 20, (16 * num_clips, 1)),
            label=0,
            video_id=name,
            num_frames=100,
        )
        for name in "ab"
    ]
    found = []
    for at_once in (1, 2, 100):
        sizes: list[int] = []

        def logits(network: Any, rgb: Any, flow: Any, sizes: list[int] = sizes) -> Any:
            sizes.append(rgb.shape[1])
            return stream_logits(network, rgb, flow)

        monkeypatch.setattr(tested_networks, "CLIPS_AT_ONCE", at_once)
        monkeypatch.setattr(tested_networks, "stream_logits", logits)
        checkpoints = {"c3d-appearance": (str(folder), load_checkpoint(folder / "weights.safetensors"))}
        networks = tested_networks.TestedNetworks(split, checkpoints, force=False, execution=Execution(device="cpu"))
        found.append([scores["c3d-appearance", "appearance"] for scores in networks.score(videos)])
        assert max(sizes) == 16 * min(at_once, num_clips)
        assert sum(sizes) == 16 * num_clips
    for scores in found[1:]:
        np.testing.assert_allclose(scores, found[0], rtol=1e-5, atol=1e-6)


def test_networks_without_such_a_layer_are_refused(root: Path, tmp_path: Path) -> None:
    line = ("--recipe", "small", "--base-width", 4, "--input-size", 32, "--batch", 4, "--bn-group", 2, "--steps-per-phase", 1)
    call_flowkit("train", "--phase", "appearance", *line, "--device", "cpu", "--run", "other", "--data", root, code=0)
    with pytest.raises(ParameterError, match="the network of appearance has no layer fc6; pool5 is the input of its classifier"):
        features(root, run="other", layer="fc6", output=tmp_path / "f.h5", execution=Execution(device="cpu"))
