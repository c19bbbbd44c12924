"""Crops on the device are those of the workers but for rounding to bytes; batches are copied to the device in order."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from flowkit.dataset.root import Dataset
from flowkit.model.compute.device_batches import DeviceBatches, tensors_of, to_device
from flowkit.model.data.clips import stacks
from flowkit.model.data.device_crops import crop_clips, resize_weights
from flowkit.model.data.sampling import stack_fields
from flowkit.model.data.training_clips import Batch, ClipDataset, UncroppedBatch, UncroppedSample, collate_uncropped, training_loader
from flowkit.model.data.transforms import Crop, crop_flow, crop_rgb, draw_crop, normalise_flow, normalise_rgb
from flowkit.model.systems.configs import make_configs
from flowkit.quantise import Quantiser

RGB_LEVEL = 1 / (255 * 0.224)  # one level of 255 in the network's input, of the channel with the smallest deviation
FLOW_LEVEL = 1 / 57.63


def stored_sample(draw: Any, height: int, width: int, crop: Any, centres: Any) -> Any:
    fields, where = stack_fields(centres)
    # Smooth and rough places, and every byte.
    smooth = np.add.outer(np.linspace(0, 120, height), np.linspace(0, 135, width))
    frames = np.clip(smooth[..., None] + draw.normal(0, 30, (len(centres), height, width, 3)), 0, 255).astype(np.uint8)
    flow = draw.integers(0, 256, (len(fields), 2, height, width), dtype=np.uint8)
    flow[:, :, : height // 2] = (128 + 40 * np.sin(np.arange(width) / 5)).astype(np.uint8)
    return UncroppedSample(frames, flow, where, crop, 0, "v")


def both_ways(samples: Any, size: Any, quantiser: Any) -> tuple[Any, ...]:
    """Return the network's inputs from the workers' crops and from the device's: ((b, T, 3, S, S), (b, T, 20, S, S)) each."""
    rgb = [crop_rgb(sample.frames, sample.crop, size=size) for sample in samples]
    flow = [stacks(crop_flow(sample.fields, sample.crop, size=size, quantiser=quantiser), sample.where) for sample in samples]
    host = normalise_rgb(torch.from_numpy(np.stack(rgb))), normalise_flow(torch.from_numpy(np.stack(flow)))
    parts = [crop_clips(part, size=size, quantiser=quantiser) for part in collate_uncropped(samples).parts]
    return host, tuple(torch.cat([part[stream] for part in parts]) for stream in (0, 1))


def assert_within_a_level(host: Any, device: Any) -> None:
    for stream, level in ((0, RGB_LEVEL), (1, FLOW_LEVEL)):
        assert device[stream].shape == host[stream].shape
        assert device[stream].dtype == torch.float32
        difference = (device[stream] - host[stream]).abs() / level
        assert difference.max() <= 1.02
        assert difference.mean() < 0.35  # rounding to the nearest byte costs a quarter of a level on average


@pytest.mark.parametrize("mapping", ["symmetric", "paper"])
@pytest.mark.parametrize("kind", ["borders25", "regular", "none"])
@pytest.mark.parametrize("size", [23, 56, 80])  # all crops shrink, some shrink on one side only, all are enlarged
def test_crops_on_the_device_are_the_workers_within_one_level(kind: str, size: int, mapping: str) -> None:
    draw = np.random.default_rng(size)
    for _ in range(3):
        height, width = (int(side) for side in draw.integers(51, 76, 2))
        crops = [draw_crop(draw, height, width, kind=kind) for _ in range(3)]
        samples = [stored_sample(draw, height, width, crop, [5, 7, 12]) for crop in crops]
        assert len(collate_uncropped(samples).parts) == 1
        assert_within_a_level(*both_ways(samples, size, Quantiser(mapping=mapping)))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("crop", [(0, 0, 40, 31), (3, 5, 20, 20), (11, 1, 9, 30), (39, 30, 1, 1), (2, 3, 30, 28)])
def test_any_box_is_cut_shrunk_enlarged_and_mirrored_alike(crop: tuple[Any, ...], flip: bool) -> None:
    draw = np.random.default_rng(3)
    samples = [stored_sample(draw, 40, 31, Crop(*crop, flip), [9])]
    for size in (10, 20, 29, 61):
        assert_within_a_level(*both_ways(samples, size, Quantiser()))


def test_frames_of_different_sizes_are_cropped_clip_by_clip_in_order() -> None:
    draw = np.random.default_rng(4)
    samples = [stored_sample(draw, *size, draw_crop(draw, *size), [5, 30]) for size in ((40, 56), (56, 40), (64, 86))]
    assert len(collate_uncropped(samples).parts) == 3
    assert_within_a_level(*both_ways(samples, 35, Quantiser()))


def test_a_crop_of_the_network_s_size_is_taken_exactly_and_mirroring_negates_u_exactly() -> None:
    draw = np.random.default_rng(5)
    for mapping in ("symmetric", "paper"):
        samples = [stored_sample(draw, 40, 31, Crop(2, 3, 24, 24, flip), [6, 8]) for flip in (False, True)]
        host, device = both_ways(samples, 24, Quantiser(mapping=mapping))
        for one, other in zip(host, device, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_no_motion_stays_no_motion() -> None:
    fields, where = stack_fields([5])
    still = np.full((len(fields), 2, 40, 56), 128, np.uint8)
    samples = [UncroppedSample(None, still, where, Crop(1, 2, 33, 35, flip), 0, "v") for flip in (False, True)]
    (part,) = collate_uncropped(samples).parts
    rgb, flow = crop_clips(part, size=32, quantiser=Quantiser())
    assert rgb is None
    assert flow.abs().max() < 1e-5


@pytest.mark.parametrize("enlarge", ["linear", "cubic"])
def test_every_new_pixel_is_a_mean_of_old_ones_inside_the_box(enlarge: str) -> None:
    start, length = torch.tensor([0, 4, 2]), torch.tensor([50, 21, 33])
    weights = resize_weights(
        start, length, torch.tensor([True, False, True]), torch.tensor([True, False, False]), frame=50, size=31, enlarge=enlarge
    )
    torch.testing.assert_close(weights.sum(2), torch.ones(3, 31))
    for clip, (first, count) in enumerate(zip(start.tolist(), length.tolist(), strict=True)):
        assert not weights[clip, :, :first].any()
        assert not weights[clip, :, first + count :].any()


@pytest.mark.parametrize("phase", ["appearance", "motion", "st-resnet"])
def test_both_loaders_give_the_same_crops_of_the_same_samples(packed_root: Path, phase: str) -> None:
    dataset = Dataset.open(packed_root)
    overrides = {"batch": 4, "bn_group": 2, "steps": 2, "bn_renewal_steps": 0}
    config = make_configs("small", num_classes=6, num_videos=12, short_side=40, overrides=overrides)[phase]
    clips = ClipDataset(dataset, dataset.split(1), config)
    cropped, stored = list(training_loader(clips)), list(training_loader(clips, cropped=False, num_workers=1))
    assert len(cropped) == len(stored) == 4
    for batch, uncropped in zip(cropped, stored, strict=True):
        assert isinstance(batch, Batch)
        assert isinstance(uncropped, UncroppedBatch)
        assert torch.equal(batch.labels, uncropped.labels)
        (part,) = uncropped.parts
        rgb, flow = crop_clips(part, size=config.network.input_size, quantiser=clips.quantiser)
        for host, device, normalise, level in ((batch.rgb, rgb, normalise_rgb, RGB_LEVEL), (batch.flow, flow, normalise_flow, FLOW_LEVEL)):
            assert (host is None) == (device is None)
            if host is not None:
                assert (normalise(host) - device).abs().max() <= 1.02 * level


def test_every_field_is_sent_once(packed_root: Path) -> None:
    """Neighbouring stacks share fields: with a distance of 1, five stacks of ten need fourteen fields."""
    dataset = Dataset.open(packed_root)
    overrides = {"batch": 2, "bn_group": 2, "steps": 1, "tau_min": 1, "tau_max": 1, "bn_renewal_steps": 0}
    config = make_configs("small", num_classes=6, num_videos=12, short_side=40, overrides=overrides)["st-resnet"]
    split = dataset.split(1)
    (batch,) = training_loader(ClipDataset(dataset, split, config), cropped=False)
    (part,) = batch.parts
    counts = part.owners.bincount()
    assert part.fields.shape == (counts.sum(), 2, 40, 56)
    assert all(count <= 14 for count in counts)
    assert part.frames.shape == (10, 40, 56, 3)
    assert part.owners[part.where].tolist() == [[clip] * 10 for clip in range(2) for _ in range(5)]


def test_on_a_cpu_batches_pass_through_and_the_wait_for_them_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.5, 2.0, 2.25, 3.0, 3.0])
    monkeypatch.setattr("flowkit.model.compute.device_batches.time", SimpleNamespace(monotonic=lambda: next(clock)))
    given = [Batch(torch.zeros(1), None, torch.ones(1)), Batch(torch.zeros(2), None, torch.ones(2))]
    batches = DeviceBatches(given, torch.device("cpu"))
    assert next(batches) is given[0]
    assert batches.seconds_waited == 1.5
    batches.look_ahead()
    assert next(batches) is given[1]
    assert batches.seconds_waited == 1.75
    assert list(batches) == []


def test_a_batch_is_moved_whole_with_its_kind() -> None:
    batch = UncroppedBatch(({"a": 1}, (torch.zeros(2), None, [torch.ones(3)])), torch.arange(4))
    there = to_device(batch, torch.device("meta"))
    assert isinstance(there, UncroppedBatch)
    assert [tensor.shape for tensor in tensors_of(there)] == [(2,), (3,), (4,)]
    assert all(tensor.is_meta for tensor in tensors_of(there))
    assert there.parts[0] == {"a": 1}
    assert there.parts[1][1] is None


@pytest.mark.needs_cuda
def test_on_cuda_batches_arrive_whole_and_in_order_while_the_device_computes() -> None:
    given = [(torch.full((1 << 20,), number, dtype=torch.uint8).pin_memory(),) for number in range(20)]
    batches = DeviceBatches(given, torch.device("cuda"))
    sums = []
    for number, (batch,) in enumerate(batches):
        work = torch.randn(1024, 1024, device="cuda")
        for _ in range(20):
            work = work @ work / 32
        sums.append(batch.long().sum() + 0 * work.sum().nan_to_num().long())
        if number % 3 == 0:
            batches.look_ahead()
    assert [value.item() for value in sums] == [number << 20 for number in range(20)]


@pytest.mark.needs_cuda
def test_on_cuda_crops_are_the_workers_within_one_level() -> None:
    draw = np.random.default_rng(6)
    samples = [stored_sample(draw, 256, 340, draw_crop(draw, 256, 340), [5, 15, 25]) for _ in range(2)]
    host, _ = both_ways(samples, 224, Quantiser())
    parts = [to_device(part, torch.device("cuda")) for part in collate_uncropped(samples).parts]
    device = [crop_clips(part, size=224, quantiser=Quantiser()) for part in parts]
    assert_within_a_level(host, tuple(torch.cat([part[stream] for part in device]).cpu() for stream in (0, 1)))
