"""Samples from shards: the correct frames and stacks, the same in every process; damage is named."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from flowkit.dataset.manifest import Split
from flowkit.dataset.root import Dataset
from flowkit.errors import ManifestError, ParameterError, SourceChangedError
from flowkit.model.data.clips import ManifestClips, stacks
from flowkit.model.data.sampling import protocol_centres, sample_generator, stack_fields, training_centres
from flowkit.model.data.training_clips import ClipDataset, SampleKey, collate, training_loader
from flowkit.model.data.transforms import crop_flow, crop_rgb, draw_crop
from flowkit.model.data.whole_videos import Unreadable, WholeClipDataset, whole_clip_loader
from flowkit.model.systems.configs import make_configs
from flowkit.quantise import Quantiser
from flowkit.shards.reader import ShardReader


def config_of(phase: str, **overrides: Any) -> Any:
    settings = {"batch": 4, "bn_group": 2, "steps": 3, "bn_renewal_steps": 0, **overrides}
    return make_configs("small", num_classes=6, num_videos=12, short_side=40, overrides=settings)[phase]


@pytest.fixture
def dataset(packed_root: Path) -> Any:
    return Dataset.open(packed_root)


def equal(one: Any, other: Any) -> Any:
    return all((a is None and b is None) or torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_stack_channels_are_u_and_v_of_the_ten_fields_interleaved() -> None:
    fields = np.arange(40, dtype=np.uint8).reshape(20, 2, 1, 1)  # field k holds 2k, 2k+1
    wanted, where = stack_fields([7, 9])
    out = stacks(fields[wanted], where)
    assert out.shape == (2, 20, 1, 1)
    for row, centre in zip(out[..., 0, 0], (7, 9), strict=True):
        for k in range(10):
            assert row[2 * k] == 2 * (centre - 5 + k)
            assert row[2 * k + 1] == 2 * (centre - 5 + k) + 1


@pytest.mark.parametrize("phase", ["appearance", "motion", "st-resnet", "st-resnet-star"])
def test_a_sample_is_its_clip_cut_by_its_own_draws(dataset: Any, phase: str) -> None:
    split, config = dataset.split(1), config_of(phase)
    sample = ClipDataset(dataset, split, config)[SampleKey(3, step=2, position=1)]
    record = split.train[3]
    generator = sample_generator(config.seed, phase, 2, 1)
    with ShardReader(dataset.shard_path(record)) as shard:
        clip = shard.clip(record.video_id)
        centres = training_centres(
            generator, clip.num_frames, num_samples=config.num_samples, tau_min=config.tau_min, tau_max=config.tau_max
        )
        crop = draw_crop(generator, 40, 56, kind=config.crop)
        rgb = crop_rgb(clip.frames(centres), crop, size=32)
        flow = np.stack(
            [crop_flow(clip.flow(c - 5, c + 5), crop, size=32, quantiser=Quantiser()).reshape(20, 32, 32) for c in centres.tolist()]
        )
    assert (sample.video_id, sample.label) == (record.video_id, record.label)
    assert (sample.rgb is None) == (phase == "motion")
    assert (sample.flow is None) == (phase == "appearance")
    assert sample.rgb is None or np.array_equal(sample.rgb, rgb)
    assert sample.flow is None or np.array_equal(sample.flow, flow)


def test_the_distance_between_frames_is_drawn_for_each_clip_or_once_for_each_sub_batch(
    dataset: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def note(generator: Any, num_frames: int, *, num_samples: int, tau_min: Any, tau_max: Any, cuts: Any) -> Any:
        drawn.append((tau_min, tau_max))
        return training_centres(generator, num_frames, num_samples=num_samples, tau_min=tau_min, tau_max=tau_max, cuts=cuts)

    monkeypatch.setattr("flowkit.model.data.places.training_centres", note)
    settings = {"batch": 12, "bn_group": 4, "tau_min": 1, "tau_max": 9}
    for how in ("clip", "sub_batch"):
        drawn.clear()
        clips = ClipDataset(dataset, dataset.split(1), config_of("st-resnet", tau_drawn=how, **settings))
        for batch in (list(training_loader(clips)), list(training_loader(clips))):
            assert len(batch) == 9  # 3 steps of 3 sub-batches
        assert drawn[:36] == drawn[36:]
        if how == "clip":
            assert set(drawn) == {(1, 9)}
        else:
            groups = [drawn[k : k + 4] for k in range(0, 36, 4)]
            assert all(len(set(group)) == 1 for group in groups)
            taus = [tau_min for ((tau_min, tau_max), *_) in groups if tau_min == tau_max]
            assert len(taus) == 9
            assert len(set(taus)) > 3
            assert all(1 <= tau <= 9 for tau in taus)


def test_samples_are_the_same_from_any_number_of_workers(dataset: Any) -> None:
    clips = ClipDataset(dataset, dataset.split(1), config_of("st-resnet"))
    here = list(training_loader(clips))
    assert len(here) == 6  # 3 steps of 2 sub-batches
    for num_workers in (1, 2):
        there = list(training_loader(clips, num_workers=num_workers))
        assert all(equal(a, b) for a, b in zip(here, there, strict=True))
    assert not equal(here[0], here[1])


def test_a_loader_that_starts_later_gives_the_same_from_there(dataset: Any) -> None:
    clips = ClipDataset(dataset, dataset.split(1), config_of("appearance"))
    whole, rest = list(training_loader(clips)), list(training_loader(clips, first_step=2))
    assert len(rest) == 2
    assert all(equal(a, b) for a, b in zip(whole[4:], rest, strict=True))


def test_after_the_last_step_the_loader_gives_what_the_next_steps_would_draw_to_renew_the_moments(dataset: Any) -> None:
    renewed, longer = (
        list(training_loader(ClipDataset(dataset, dataset.split(1), config_of("appearance", **settings)), first_step=3))
        for settings in ({"bn_renewal_steps": 2}, {"steps": 5})
    )
    assert len(renewed) == 4  # 2 steps of 2 sub-batches
    assert all(equal(a, b) for a, b in zip(renewed, longer, strict=True))


def test_ranks_share_the_sub_batches_of_each_step(dataset: Any) -> None:
    clips = ClipDataset(dataset, dataset.split(1), config_of("appearance"))
    whole = list(training_loader(clips))
    shares = [list(training_loader(clips, rank=rank, world=2)) for rank in (0, 1)]
    joined = [batch for pair in zip(*shares, strict=True) for batch in pair]
    assert all(equal(a, b) for a, b in zip(whole, joined, strict=True))


def test_the_loader_leaves_torch_s_random_numbers_alone(dataset: Any) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    next(iter(training_loader(ClipDataset(dataset, dataset.split(1), config_of("appearance")))))
    assert torch.equal(torch.rand(3), expected)


def test_a_dataset_that_was_read_from_can_be_pickled(dataset: Any) -> None:
    clips = ClipDataset(dataset, dataset.split(1), config_of("motion"))
    sample = clips[5]
    assert np.array_equal(pickle.loads(pickle.dumps(clips))[5].flow, sample.flow)
    assert len(clips) == 12


def test_a_batch_holds_its_samples_and_labels_in_order(dataset: Any) -> None:
    clips = ClipDataset(dataset, dataset.split(1), config_of("st-resnet"))
    samples = [clips[k] for k in (4, 0, 7)]
    batch = collate(samples)
    assert batch.rgb.shape == (3, 5, 32, 32, 3)
    assert batch.flow.shape == (3, 5, 20, 32, 32)
    assert batch.rgb.dtype == batch.flow.dtype == torch.uint8
    assert batch.labels.tolist() == [sample.label for sample in samples]
    assert np.array_equal(batch.flow[1], samples[1].flow)


def test_a_whole_clip_has_the_25_frames_and_stacks_of_the_protocol(dataset: Any) -> None:
    split = dataset.split(1)
    clips = WholeClipDataset(dataset, split.test, split.quantiser, input_size=35)
    for number, record in enumerate(split.test):
        whole = clips[number]
        centres = protocol_centres(record.num_frames)
        with ShardReader(dataset.shard_path(record)) as shard:
            clip = shard.clip(record.video_id)
            assert np.array_equal(whole.rgb, clip.frames(centres))
            expected = np.stack([clip.flow(c - 5, c + 5) for c in centres.tolist()])
        assert np.array_equal(whole.fields[whole.where], expected)
        assert (whole.label, whole.video_id) == (record.label, record.video_id)


def test_an_unreadable_test_video_is_named_and_does_not_stop_the_others(dataset: Any) -> None:
    split = dataset.split(1)
    records = [split.test[0], replace(split.test[1], num_frames=99), replace(split.test[2], video_id="gone")]
    loaded = list(whole_clip_loader(WholeClipDataset(dataset, records, split.quantiser, input_size=35), range(3)))
    assert loaded[0].video_id == split.test[0].video_id
    assert isinstance(loaded[1], Unreadable)
    assert "the manifest says 99" in loaded[1].reason.replace("split's ", "")
    assert isinstance(loaded[2], Unreadable)
    assert "'gone'" in loaded[2].reason


def replaced(path: Path) -> None:
    """Put a copy in place of a file, as `flowkit pack` puts another shard."""
    shutil.copy(path, path.with_name("new"))
    path.with_name("new").replace(path)


def extended(path: Path) -> None:
    path.chmod(0o644)
    with path.open("ab") as file:
        file.write(b"x")


def opened_copy(packed_root: Path, folder: Path) -> tuple[Path, Split, ClipDataset, WholeClipDataset]:
    """Return a copy of a data root, its split, and data sets that have opened its manifest but no shard."""
    root = folder / "data"
    shutil.copytree(packed_root, root)
    dataset = Dataset.open(root)
    split = dataset.split(1)
    train = ClipDataset(dataset, split, config_of("motion"))
    return root, split, train, WholeClipDataset(dataset, split.test, split.quantiser, input_size=35)


@pytest.mark.parametrize("change", [replaced, extended, Path.unlink])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_shard_that_changes_before_it_is_opened_ends_training_and_evaluation(
    packed_root: Path, tmp_path: Path, change: Callable[[Path], None], num_workers: int
) -> None:
    root, _, train, test = opened_copy(packed_root, tmp_path)
    for path in (root / "shards").glob("*.h5"):
        change(path)
    with pytest.raises(SourceChangedError, match=r"shard-0000\d\.h5 was replaced, changed or removed while it was in use"):
        list(training_loader(train, num_workers=num_workers))
    with pytest.raises(SourceChangedError, match="run the same line again"):
        list(whole_clip_loader(test, range(len(test)), num_workers=num_workers))


@pytest.mark.parametrize("change", [replaced, extended, Path.unlink])
@pytest.mark.parametrize("video", [0, 1])
def test_a_shard_that_changes_while_it_is_open_ends_training_and_evaluation(
    packed_root: Path, tmp_path: Path, change: Callable[[Path], None], video: int
) -> None:
    """Whether the structure of the clip is known already, or read from the file that is there now."""
    root, split, train, test = opened_copy(packed_root, tmp_path)
    assert (train[0].video_id, test[0].video_id) == (split.train[0].video_id, split.test[0].video_id)
    for path in (root / "shards").glob("*.h5"):
        change(path)
    with pytest.raises(SourceChangedError):
        train[video]
    with pytest.raises(SourceChangedError):
        next(whole_clip_loader(test, [video]))


def test_a_shard_whose_links_and_permissions_change_is_read_on(packed_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(packed_root, root)
    dataset = Dataset.open(root)
    clips = ClipDataset(dataset, dataset.split(1), config_of("motion"))
    for path in (root / "shards").glob("*.h5"):
        os.link(path, tmp_path / path.name)
        path.chmod(0o400)
    assert clips[0].flow is not None


def test_data_that_are_not_those_of_the_manifest_are_refused(dataset: Any) -> None:
    split = dataset.split(1)
    lying = replace(split, train=(replace(split.train[0], num_frames=50), *split.train[1:]))
    with pytest.raises(ManifestError, match=r"num_frames of .* is .*, the split's manifest says 50"):
        ClipDataset(dataset, lying, config_of("motion"))[0]
    other = replace(split, quantiser=Quantiser(15.0))
    with pytest.raises(ManifestError, match="quantiser of"):
        ClipDataset(dataset, other, config_of("motion"))[0]


def test_a_clip_of_eleven_frames_gives_its_one_stack_and_one_of_ten_is_refused() -> None:
    assert training_centres(sample_generator(0, "motion", 0, 0), 11, num_samples=3, tau_min=1, tau_max=4).tolist() == [5, 5, 5]
    with pytest.raises(ParameterError):
        training_centres(sample_generator(0, "motion", 0, 0), 10, num_samples=1, tau_min=1, tau_max=1)


def load_after_opencv_used_threads(clips: Any) -> None:
    cv2.setNumThreads(2)
    cv2.GaussianBlur(np.zeros((1500, 1500, 3), np.uint8), (0, 0), 5)  # starts OpenCV's threads in this process
    assert len(list(whole_clip_loader(clips, range(len(clips)), num_workers=2))) == len(clips)


@pytest.mark.slow
def test_workers_forked_after_opencv_used_threads_do_not_wait_for_ever(dataset: Any) -> None:
    split = dataset.split(1)
    clips = WholeClipDataset(dataset, split.test, split.quantiser, input_size=35)
    process = multiprocessing.get_context("spawn").Process(target=load_after_opencv_used_threads, args=(clips,))
    process.start()
    process.join(60)
    for child in multiprocessing.active_children():  # it would wait forever for its own workers
        child.kill()
    assert process.exitcode == 0


def test_a_clip_of_other_contents_than_the_manifest_gives_is_refused(dataset: Any) -> None:
    record = dataset.split(1).test[0]
    for sha256, is_good in ((record.sha256, True), ("", True), ("0" * 64, False)):  # an older manifest gives none
        clips = ManifestClips(dataset, [replace(record, sha256=sha256)], dataset.split(1).quantiser)
        if is_good:
            assert clips.clip(0).video_id == record.video_id
        else:
            with pytest.raises(ManifestError, match=f"the sha256 of '{record.video_id}' is .* manifest says 000"):
                clips.clip(0)
