"""Clips of a split's shards as training samples; every sample is a function of its key."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from flowkit.dataset.manifest import Split
from flowkit.dataset.root import Dataset
from flowkit.errors import FlowkitError
from flowkit.model.data.clips import ManifestClips, clip_loader, read_fields, stacks
from flowkit.model.data.device_crops import UncroppedClips
from flowkit.model.data.places import training_places
from flowkit.model.data.sampling import balanced_videos, batch_videos, sample_generator, sub_batch_tau
from flowkit.model.data.scene_cuts import cuts_of
from flowkit.model.data.transforms import Crop, crop_flow, crop_rgb, draw_crop
from flowkit.model.settings.training import TrainConfig
from flowkit.quantise import Quantiser
from flowkit.words import counted


class SampleKey(NamedTuple):
    """Which video, and for which step and position in the batch: all that a sample's random draws depend on besides the seed."""

    video: int
    step: int
    position: int


@dataclass(frozen=True)
class TrainingSample:
    """One training clip, cropped but not yet normalised.

    Parameters
    ----------
    rgb : uint8 array, shape (T, S, S, 3), or None
        The frames; None if the phase has no appearance stream.
    flow : uint8 array, shape (T, 20, S, S), or None
        A stack of quantised flow for each frame: u and v of ten fields, interleaved; of one field, (T, 2, S, S), if the network sees
        clips of consecutive frames. None if the phase has no motion stream.
    label : int
        The class, from 0.
    video_id : str
        The video that the clip is from.
    """

    rgb: NDArray[np.uint8] | None
    flow: NDArray[np.uint8] | None
    label: int
    video_id: str


@dataclass(frozen=True)
class UncroppedSample:
    """One training clip as it is stored, and the crop that was drawn for it.

    Parameters
    ----------
    frames : uint8 array, shape (T, H, W, 3), or None
        The frames; None if the phase has no appearance stream.
    fields : uint8 array, shape (n, 2, H, W), or None
        Every flow field that is needed, once; None if the phase has no motion stream.
    where : int64 array, shape (T, 10), or None
        The indices into `fields` of each of the T stacks.
    crop : Crop
        The box that the network will see.
    label : int
        The class, from 0.
    video_id : str
        The video that the clip is from.
    """

    frames: NDArray[np.uint8] | None
    fields: NDArray[np.uint8] | None
    where: NDArray[np.int64] | None
    crop: Crop
    label: int
    video_id: str


class Batch(NamedTuple):
    """Samples that share batch statistics: uint8 rgb (b, T, S, S, 3) and flow (b, T, 20, S, S), int64 labels (b,)."""

    rgb: Tensor | None
    flow: Tensor | None
    labels: Tensor


class UncroppedBatch(NamedTuple):
    """The same before cropping: neighbours with the same frame size together, in order."""

    parts: tuple[UncroppedClips, ...]
    labels: Tensor


class ClipDataset(TorchDataset[TrainingSample]):
    """The training clips of one split, as a PyTorch data set.

    ``clips[video]`` is a random sample of a training video, a `TrainingSample`. ``clips[SampleKey(video, step, position)]`` is the
    sample that training draws at that step and position in the batch, whatever the process, the order or the number of workers.

    Parameters
    ----------
    dataset : flowkit.Dataset
        The data root.
    split : flowkit.Split
        The split whose training videos are read.
    config : TrainConfig
        Its phase says which streams are read, and its settings how clips are sampled and cropped.
    cuts : dict from str to tuple of int, optional
        The flow fields of each video that lead across a cut, if they are known; otherwise they are looked for where `config` skips cuts.

    Examples
    --------
    >>> import flowkit
    >>> from flowkit.dataset.example import example_root
    >>> from flowkit.model import ClipDataset, STResNetConfig, TrainConfig
    >>> dataset = flowkit.Dataset.open(example_root())  # 12 training videos of 6 classes
    >>> network = STResNetConfig(num_classes=6, input_size=32)
    >>> config = TrainConfig("st-resnet", network, "my own", batch=4, bn_group=4, schedule=((100, 0.01),), num_samples=3)
    >>> clips = ClipDataset(dataset, dataset.split(1), config)
    >>> clips
    ClipDataset(12 training videos of split 1 for st-resnet)
    >>> sample = clips[0]
    >>> sample.rgb.shape, sample.flow.shape, sample.label
    ((3, 32, 32, 3), (3, 20, 32, 32), 0)
    """

    def __init__(self, dataset: Dataset, split: Split, config: TrainConfig, *, cuts: Mapping[str, tuple[int, ...]] | None = None) -> None:
        self.config = config
        self._split = split.number
        self._clips = ManifestClips(dataset, split.train, split.quantiser)
        self._cuts: Mapping[str, tuple[int, ...]] = {}
        if config.skip_cuts:
            self._cuts = cuts_of(dataset, split.train) if cuts is None else cuts

    def __len__(self) -> int:
        return len(self._clips.records)

    def __repr__(self) -> str:
        return f"ClipDataset({counted(len(self), 'training video')} of split {self._split} for {self.config.phase})"

    @property
    def quantiser(self) -> Quantiser:
        """The quantiser that the flow was stored with."""
        return self._clips.quantiser

    @property
    def labels(self) -> tuple[int, ...]:
        """The class of each video."""
        return tuple(record.label for record in self._clips.records)

    def __getitem__(self, key: SampleKey | int) -> TrainingSample:
        clip = self.uncropped(key)
        size = self.config.network.input_size
        rgb = None if clip.frames is None else crop_rgb(clip.frames, clip.crop, size=size)
        flow = None
        if clip.fields is not None:
            assert clip.where is not None
            flow = stacks(crop_flow(clip.fields, clip.crop, size=size, quantiser=self.quantiser), clip.where)
        return TrainingSample(rgb, flow, clip.label, clip.video_id)

    def uncropped(self, key: SampleKey | int) -> UncroppedSample:
        """Return a sample before cropping."""
        video, step, position = (key, 0, key) if isinstance(key, int) else key
        config, record, clip = self.config, self._clips.records[video], self._clips.clip(video)
        generator = sample_generator(config.seed, config.phase, step, position)
        taus = (config.tau_min, config.tau_max)
        if config.tau_drawn == "sub_batch":
            taus = (sub_batch_tau(config.seed, config.phase, step, position // config.bn_group, *taus),) * 2
        places = training_places(
            generator,
            clip.num_frames,
            plan=config.network.clip_plan,
            num_samples=config.num_samples,
            tau_min=taus[0],
            tau_max=taus[1],
            cuts=self._cuts.get(record.video_id, ()),
        )
        crop = draw_crop(generator, clip.height, clip.width, kind=config.crop, corners=config.corners, flip=config.flip)
        streams = config.streams
        frames = clip.frames(places.frames) if "appearance" in streams else None
        fields = where = None
        if "motion" in streams:
            fields, where = read_fields(clip, places.fields), places.where
        return UncroppedSample(frames, fields, where, crop, record.label, record.video_id)


class _Samples(TorchDataset["TrainingSample | UncroppedSample | Exception"]):
    """The samples of a `ClipDataset`, cropped or not; an error stands in the place of a sample that cannot be read."""

    def __init__(self, clips: ClipDataset, *, cropped: bool) -> None:
        self._clips, self._cropped = clips, cropped

    def __getitem__(self, key: SampleKey) -> TrainingSample | UncroppedSample | Exception:
        try:
            return self._clips[key] if self._cropped else self._clips.uncropped(key)
        except (FlowkitError, OSError) as error:  # raised in a worker, its message would be the worker's traceback
            return error


def _batch_or_error(batch: Batch | UncroppedBatch | Exception) -> Batch | UncroppedBatch:
    if isinstance(batch, Exception):
        raise batch
    return batch


def collate(samples: Sequence[TrainingSample]) -> Batch:
    """Join the samples of a sub-batch."""

    def joined(parts: list[NDArray[np.uint8] | None]) -> Tensor | None:
        given = [part for part in parts if part is not None]
        return torch.from_numpy(np.stack(given)) if given else None

    labels = torch.tensor([sample.label for sample in samples], dtype=torch.int64)
    return Batch(joined([sample.rgb for sample in samples]), joined([sample.flow for sample in samples]), labels)


def collate_uncropped(samples: Sequence[UncroppedSample]) -> UncroppedBatch:
    """Join the samples of a sub-batch before cropping: in one part, or one by one if frame sizes differ."""
    sizes = {sample.fields.shape[-2:] for sample in samples if sample.fields is not None}
    sizes |= {sample.frames.shape[1:3] for sample in samples if sample.frames is not None}
    groups = [samples] if len(sizes) == 1 else [[sample] for sample in samples]
    labels = torch.tensor([sample.label for sample in samples], dtype=torch.int64)
    return UncroppedBatch(tuple(_uncropped_clips(group) for group in groups), labels)


def _uncropped_clips(samples: Sequence[UncroppedSample]) -> UncroppedClips:
    """Join samples with the same frame size."""
    crops = [sample.crop for sample in samples]
    frames = [sample.frames for sample in samples if sample.frames is not None]
    fields = [sample.fields for sample in samples if sample.fields is not None]
    where = [sample.where for sample in samples if sample.where is not None]
    counts = np.array([len(array) for array in fields], dtype=np.int64)
    shifted = [array + first for array, first in zip(where, np.cumsum(counts) - counts, strict=True)]
    return UncroppedClips(
        frames=torch.from_numpy(np.concatenate(frames)) if frames else None,
        fields=torch.from_numpy(np.concatenate(fields)) if fields else None,
        where=torch.from_numpy(np.concatenate(shifted)) if fields else None,
        owners=torch.from_numpy(np.repeat(np.arange(len(fields)), counts)) if fields else None,
        boxes=torch.tensor([(crop.top, crop.left, crop.height, crop.width) for crop in crops]),
        flips=torch.tensor([crop.flip for crop in crops]),
    )


def sub_batches(config: TrainConfig, labels: Sequence[int], *, first_step: int, rank: int, world: int) -> Iterator[list[SampleKey]]:
    """Yield the keys of each sub-batch that one rank takes, in order, from a step to the phase's end, its renewal of moments included."""
    for step in range(first_step, config.num_steps + config.bn_renewal_steps):
        if config.balance == "sampling":
            videos = balanced_videos(step, labels=labels, batch=config.batch, seed=config.seed, phase=config.phase)
        else:
            videos = batch_videos(step, num_videos=len(labels), batch=config.batch, seed=config.seed, phase=config.phase)
        for sub_batch in range(rank, config.num_sub_batches, world):
            first = sub_batch * config.bn_group
            yield [SampleKey(videos[position], step, position) for position in range(first, first + config.bn_group)]


def training_loader(
    clips: ClipDataset,
    *,
    first_step: int = 0,
    rank: int = 0,
    world: int = 1,
    num_workers: int = 0,
    pin_memory: bool = False,
    cropped: bool = True,
) -> Iterator[Batch | UncroppedBatch]:
    """Return every sub-batch of the phase from `first_step` on, in order: `Batch`, or `UncroppedBatch` unless `cropped`.

    The last ``config.bn_renewal_steps`` steps only renew the running moments.
    """
    batches = sub_batches(clips.config, clips.labels, first_step=first_step, rank=rank, world=world)
    collate_fn = partial(_collated, join=collate if cropped else collate_uncropped)
    samples = _Samples(clips, cropped=cropped)
    loader = clip_loader(samples, num_workers, batch_sampler=batches, collate_fn=collate_fn, pin_memory=pin_memory)
    return map(_batch_or_error, loader)


def _collated(samples: Sequence[Any], join: Callable[[Sequence[Any]], Batch | UncroppedBatch]) -> Batch | UncroppedBatch | Exception:
    """Join samples, or return the first error among them."""
    return next((sample for sample in samples if isinstance(sample, Exception)), None) or join(samples)
