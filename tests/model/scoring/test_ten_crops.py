"""Ten crops: their score is the mean over ten crops written out; mirrored and constant videos; networks that cannot have them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_runs import share_root

from flowkit.dataset.root import Dataset
from flowkit.errors import ParameterError
from flowkit.model.compute.execution import Execution
from flowkit.model.data.transforms import normalise_flow, normalise_rgb
from flowkit.model.data.whole_videos import WholeClip, WholeClipDataset
from flowkit.model.evaluation.protocol import evaluate
from flowkit.model.runs.checkpoint import load_checkpoint
from flowkit.model.runs.run_folder import phase_folder
from flowkit.model.runs.trained_network import load_network
from flowkit.model.scoring import tested_networks
from flowkit.model.training.chain import train

S = 32
STREAMS = ("appearance", "motion")
CPU = Execution(device="cpu")


@pytest.fixture(scope="module")
def root(packed_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = share_root(packed_root, tmp_path_factory.mktemp("crops"))
    overrides = {"width": 0.03, "input_size": S, "batch": 4, "bn_group": 2, "steps": 1, "warmup_steps": 0}
    train(root, system="two-streams-vgg-16", recipe="small", overrides=overrides, execution=CPU)
    return root


def networks(root: Path, crops: Any = "ten") -> tested_networks.TestedNetworks:
    folders = {f"vgg-16-{stream}": phase_folder(root, "default", 1, f"vgg-16-{stream}") for stream in STREAMS}
    checkpoints = {phase: (str(folder), load_checkpoint(folder)) for phase, folder in folders.items()}
    return tested_networks.TestedNetworks(Dataset.open(root).split(1), checkpoints, force=False, execution=CPU, crops=crops)


def one_clip(root: Path) -> WholeClip:
    dataset = Dataset.open(root)
    split = dataset.split(1)
    clip = WholeClipDataset(dataset, split.test, split.quantiser, input_size=S)[0]
    assert isinstance(clip, WholeClip)
    return clip


def mirrored(root: Path, clip: WholeClip) -> WholeClip:
    fields = clip.fields[..., ::-1].copy()
    fields[:, 0] = Dataset.open(root).split(1).quantiser.flip_u(fields[:, 0])
    return replace(clip, rgb=clip.rgb[:, :, ::-1].copy(), fields=fields)


def test_the_score_is_the_mean_over_ten_crops_written_out(root: Path) -> None:
    clip = one_clip(root)
    (scores,) = networks(root).score([clip])
    height, width = clip.rgb.shape[1:3]
    assert height > S < width
    for stream in STREAMS:
        network = load_network(phase_folder(root, "default", 1, f"vgg-16-{stream}"))
        logits = []
        for video in (clip, mirrored(root, clip)):
            rgb = normalise_rgb(torch.from_numpy(video.rgb))
            flow = normalise_flow(torch.from_numpy(video.fields))[torch.from_numpy(video.where)].flatten(1, 2)
            x = rgb if stream == "appearance" else flow
            down, right = height - S, width - S
            for top, left in ((0, 0), (0, right), (down, 0), (down, right)):
                logits.append(network(x[None, ..., top : top + S, left : left + S]))
            left = right // 2 if video is clip else right - right // 2  # the same place, seen in the mirror
            logits.append(network(x[None, ..., down // 2 : down // 2 + S, left : left + S]))
        expected = torch.cat(logits).double().mean((0, 1)).detach().numpy()
        np.testing.assert_allclose(scores[f"vgg-16-{stream}", stream], expected, rtol=0, atol=1e-6)


def test_a_mirrored_video_has_the_same_score_and_a_constant_one_that_of_a_crop(root: Path) -> None:
    clip, tested = one_clip(root), networks(root)
    (scores,), (theirs,) = tested.score([clip]), tested.score([mirrored(root, clip)])
    room = clip.rgb.shape[2] - S
    if room % 2 == 0:  # else the centre moves by one pixel
        for part, values in scores.items():
            np.testing.assert_allclose(values, theirs[part], rtol=0, atol=1e-6)
    constant = replace(clip, rgb=np.full_like(clip.rgb, 90), fields=np.full_like(clip.fields, 128))
    small = replace(constant, rgb=constant.rgb[:, :S, :S].copy(), fields=constant.fields[..., :S, :S].copy())
    (of_ten,), (of_one,) = tested.score([constant]), networks(root, "whole").score([small])
    for part, values in of_ten.items():
        np.testing.assert_allclose(values, of_one[part], rtol=0, atol=1e-6)


def test_an_evaluation_says_how_it_was_made_and_rows_are_joined_as_published(root: Path, packed_root: Path, tmp_path: Path) -> None:
    whole, ten = (evaluate(root, crops=crops, execution=CPU) for crops in ("whole", "ten"))  # type: ignore[arg-type]
    assert ten.protocol[1] == "ten crops of the size of training crops: corners, centre and their mirror images"
    assert whole.protocol[1].startswith("whole frames")
    part = ("vgg-16-motion", "motion")
    assert not np.allclose(whole.splits[0].stream_scores[part], ten.splits[0].stream_scores[part], atol=1e-9)
    assert ten.protocol[-1].endswith("VGG-16 two-streams by the mean of the softmax, weights 1 : 2")
    split = ten.splits[0]
    shares = [np.exp(split.stream_scores[f"vgg-16-{stream}", stream]) for stream in STREAMS]
    appearance, motion = (values / values.sum(1, keepdims=True) for values in shares)
    joined = np.exp(split.rows["VGG-16 two-streams"].scores)
    np.testing.assert_allclose(joined, appearance / 3 + 2 * motion / 3, rtol=0, atol=1e-12)
    equal = evaluate(root, weights=(1, 1), execution=CPU)
    logits = [equal.splits[0].stream_scores[f"vgg-16-{stream}", stream] for stream in STREAMS]
    np.testing.assert_allclose(equal.splits[0].rows["VGG-16 two-streams"].scores, np.mean(logits, axis=0), rtol=0, atol=1e-12)
    assert "softmax" not in equal.protocol[-1]


def test_networks_that_see_several_samples_have_no_ten_crops(root: Path, packed_root: Path, tmp_path: Path) -> None:
    other = share_root(packed_root, tmp_path / "fusion")
    overrides = {"width": 0.03, "input_size": S, "batch": 4, "bn_group": 2, "steps": 1, "warmup_steps": 0}
    train(other, system="two-stream-fusion", recipe="small", overrides=overrides, execution=CPU)
    with pytest.raises(ParameterError, match=r"ten crops are for networks that look at one frame or one stack .*, unlike vgg-16-fusion"):
        evaluate(other, system="two-stream-fusion", crops="ten", execution=CPU)
